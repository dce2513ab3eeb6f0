"""Find a bundle by its name, in a checkout or in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from pathology_screen.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def bundles_folder() -> Path:
    """Return the folder that holds all bundles: `bundles/` of the checkout, or the copy that the wheel carries."""
    checkout = _PACKAGE.parent / "bundles"
    return checkout if (_PACKAGE.parent / "setup.cfg").exists() and checkout.is_dir() else _PACKAGE / "_bundles"


def bundle_root(name_or_path: str | Path) -> Path:
    """Return a bundle's folder, from its name (`ra`) or a path to it, independent of the working directory.

    Raises:
        ConfigError: if neither is a bundle; names the bundles that are.
    """
    for candidate in (bundles_folder() / name_or_path, Path(name_or_path)):
        if (candidate / "configs" / "metadata.json").is_file():
            return candidate.resolve()
    known = ", ".join(sorted(path.parent.parent.name for path in bundles_folder().glob("*/configs/metadata.json")))
    raise ConfigError(f"{name_or_path!s} is neither a bundle nor a folder of one; bundles here: {known}")
