"""What `--conf KEY VALUE` sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pathology_screen.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """Options of the app.

    Attributes:
        models: names or folders of the bundles that are offered; all that have weights, where it is
            empty.
        rate: of false positives among healthy people.
        device: of the networks; a GPU where it is empty and there is one.
        calibration: file in place of the one beside the weights, for one model alone.
    """

    models: tuple[str, ...] = ()
    rate: float = 0.05
    device: str = ""
    calibration: Path | None = None

    @classmethod
    def from_conf(cls, conf: Mapping[str, str]) -> Options:
        """Read what MONAI Label hands over.

        Raises:
            ConfigError: for a key that is not known, or a value that makes no sense.
        """
        known = {field.name: field for field in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in conf.items():
            if key == "server_mode":  # of MONAI Label's own
                continue
            if key not in known:
                raise ConfigError(f"there is no --conf {key}; there are {', '.join(known)}")
            values[key] = _READ.get(key, str)(value)
        return cls(**values)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a number") from None


_READ = {"models": _names, "rate": _number, "calibration": Path}
