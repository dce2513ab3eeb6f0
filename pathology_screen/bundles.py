"""Find a bundle by its name, in a checkout or in an installed wheel."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pathology_screen.errors import ArtifactError, ConfigError


def carried(name: str) -> Path:
    """Return a folder of the checkout, or the copy of it that the wheel carries."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / name
    in_checkout = (package.parent / "setup.cfg").exists() and checkout.is_dir()
    return checkout if in_checkout else package / f"_{name}"


def bundles_folder() -> Path:
    """Return the folder of all bundles."""
    return carried("bundles")


def bundle_root(name_or_path: str | Path) -> Path:
    """Return a bundle's folder, from its name (`ra`) or a path to it, independent of the working
    directory.

    Raises:
        ConfigError: if neither is a bundle; names the bundles that are.
    """
    for candidate in (bundles_folder() / name_or_path, Path(name_or_path)):
        if (candidate / "configs" / "metadata.json").is_file():
            return candidate.resolve()
    known = sorted(
        path.parents[1].name for path in bundles_folder().glob("*/configs/metadata.json")
    )
    raise ConfigError(
        f"{name_or_path!s} is neither a bundle nor a folder of one; "
        f"bundles here: {', '.join(known)}"
    )


PROFILES: dict[str, tuple[str, ...]] = {"compact": (), "paper": ("paper.json",)}
"""Profile -> the configurations laid over a bundle's own."""

SETTINGS = {
    "method": str,
    "slice": dict,
    "preprocessing": dict,
    "scoring": dict,
    "network_def": dict,
    "calibration_section": str,
}
"""What of `inference.json` describes the network and all around it -> the kind of its value."""

LARGEST_NUMBER, MOST_VALUES = 1024, 2000
"""Bounds on the settings: of any number, such as a width, and of how many values there are."""


def read_settings(bundle: str | Path, overlays: Sequence[str] = ()) -> dict[str, Any]:
    """Read what a bundle's `inference.json` (and an overlay) says of its network, preprocessing and
    scoring, as data: expressions are not evaluated and nothing is imported.

    Args:
        bundle: name or folder.
        overlays: names of configurations laid over it, such as "paper.json".

    Returns:
        The entries `SETTINGS`, with references ("@entry#key") replaced by what they refer to.

    Raises:
        ConfigError: if there is no such bundle.
        ArtifactError: if a file is absent or damaged, or an entry is missing, of another kind,
            beyond the bounds, or holds an expression.
    """
    folder = bundle_root(bundle) / "configs"
    name = folder.parent.name
    config: dict[str, Any] = {"calibration_section": "calibration"}
    try:
        for file in ("inference.json", *overlays):
            for key, value in json.loads((folder / file).read_text("utf-8")).items():
                _put(config, key.split("#"), value)
        if absent := [key for key in SETTINGS if key not in config]:
            raise ArtifactError(f"inference.json of the bundle {name} lacks {', '.join(absent)}")
        budget = iter(range(MOST_VALUES))
        settings = {key: _resolve(config[key], config, budget) for key in SETTINGS}
    except (OSError, ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
        raise ArtifactError(
            f"the configuration of the bundle {name} is absent or damaged"
        ) from error
    if wrong := [key for key, kind in SETTINGS.items() if type(settings[key]) is not kind]:
        raise ArtifactError(f"the bundle {name} has a value of the wrong kind: {', '.join(wrong)}")
    return settings


def _put(config: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        config = config.setdefault(key, {})
    config[keys[-1]] = value


def _resolve(value: Any, config: Mapping[str, Any], budget: Iterator[int]) -> Any:
    if next(budget, None) is None:
        raise ArtifactError(f"the settings of a bundle hold more than {MOST_VALUES} values")
    if isinstance(value, Mapping):
        return {key: _resolve(inner, config, budget) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolve(inner, config, budget) for inner in value]
    if isinstance(value, int | float) and not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        raise ArtifactError(f"a number in the settings of a bundle lies beyond {LARGEST_NUMBER}")
    if isinstance(value, str) and value.startswith("@"):
        found: Any = config
        for key in value[1:].split("#"):
            found = found[key]
        return _resolve(found, config, budget)
    if isinstance(value, str) and value.startswith("$"):
        raise ArtifactError(
            f"the settings of a bundle are data, but one is the expression {value!r}"
        )
    return value
