"""Find a bundle by its name, in a checkout or in an installed wheel."""

import json
from collections.abc import Iterator, Mapping
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
    """Return the folder of a bundle of this name (`ra`), wherever one works, or else at this path;
    a `ConfigError` about what is neither names the bundles that are."""
    for candidate in (bundles_folder() / name_or_path, Path(name_or_path)):
        if (candidate / "configs" / "metadata.json").is_file():
            return candidate.resolve()
    known = sorted(file.parts[-3] for file in bundles_folder().glob("*/configs/metadata.json"))
    neither = f"{name_or_path!s} is neither a bundle nor a folder of one"
    raise ConfigError(f"{neither}; bundles here: {', '.join(known)}")


PROFILES: dict[str, tuple[str, ...]] = {
    "compact": (),
    "paper": ("paper.json",),
    "brain_extracted": ("brain_extracted.json",),
}
"""Profile -> the configurations laid over a bundle's own; shipped weights are of the first."""

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


def read_settings(bundle: str | Path, profile: str = "compact") -> dict[str, Any]:
    """Read the entries `SETTINGS` of a bundle's `inference.json`, with the configuration of a
    profile laid over it, as data: references ("@entry#key") are replaced by what they refer to, no
    expression is evaluated, and nothing is imported.

    Raises:
        ConfigError: if there is no such bundle or profile.
        ArtifactError: if a file is absent or damaged, or an entry is missing, of another kind,
            beyond the bounds, or holds an expression.
    """
    if profile not in PROFILES:
        raise ConfigError(f"the profile is one of {', '.join(PROFILES)}, not {profile!r}")
    folder = bundle_root(bundle) / "configs"
    of = folder.parent.name
    config: dict[str, Any] = {"calibration_section": "calibration"}
    try:
        for file in ("inference.json", *PROFILES[profile]):
            for key, value in json.loads((folder / file).read_text("utf-8")).items():
                *outer, last = key.split("#")
                inner = config
                for name in outer:
                    inner = inner.setdefault(name, {})
                inner[last] = value
        if absent := [key for key in SETTINGS if key not in config]:
            raise ArtifactError(f"inference.json of the bundle {of} lacks {', '.join(absent)}")
        budget = iter(range(MOST_VALUES))
        settings = {key: _resolve(config[key], config, budget) for key in SETTINGS}
    except (OSError, ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
        raise ArtifactError(f"the configuration of the bundle {of} is absent or damaged") from error
    if wrong := [key for key, kind in SETTINGS.items() if type(settings[key]) is not kind]:
        raise ArtifactError(f"the bundle {of} has a value of the wrong kind: {', '.join(wrong)}")
    return settings


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
