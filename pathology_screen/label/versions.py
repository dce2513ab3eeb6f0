"""Which weights a server screens with: those of the bundle, or a version that was trained on it."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathology_screen.errors import ArtifactError
from pathology_screen.files import write_text
from pathology_screen.publishing import FILES, calibration_of

SHIPPED = "shipped"
"""Name of the version that the bundle brings."""


@dataclass(frozen=True)
class Version:
    """Weights with a calibration of their own.

    Attributes:
        name: "shipped", or "v1", "v2" and so on in the order in which they were trained.
        weights: file; `calibration.json` lies beside it.
        facts: what training noted, plain (JSON); nothing for the shipped ones.
    """

    name: str
    weights: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def calibration(self) -> Path:
        return self.weights.with_name("calibration.json")

    def __str__(self) -> str:
        if not self.facts:
            return self.name
        facts, people, error = self.facts, self.facts["people"], self.facts["error"]
        return (
            f"{self.name}  trained {facts['trained']} on {people['training']} people, "
            f"calibrated on {people['calibration']}; error on {people['test']} others "
            f"{error['new']:.4g}, of {facts['compared_with']} {error['old']:.4g}"
        )


class Versions:
    """The versions of one bundle's weights on a server.

    Each is a folder `NAME/` of the files of a run and `version.json`; `active.json` names the one
    in use. A folder appears, and `active.json` changes, whole or not at all, so that a server may
    read while another process trains.

    Args:
        folder: of the versions; it need not exist.
        bundle: folder of the bundle.
    """

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder, self.bundle = folder, bundle

    def all(self) -> list[Version]:
        """Every version, the shipped one first, then as they were trained; ArtifactError if a
        `version.json` is absent or damaged."""
        trained = [self._read(self.folder / f"v{number}") for number in self._numbers()]
        shipped = Version(SHIPPED, self.bundle / "models" / "model.pt")
        return [shipped, *trained] if shipped.weights.is_file() else trained

    def active(self) -> Version:
        """The version in use: the shipped one until another is made active; ArtifactError if it
        is not there, for another is not taken in its place."""
        path = self.folder / "active.json"
        if not path.exists():
            return self._find(SHIPPED)
        try:
            return self._find(str(json.loads(path.read_text("utf-8"))["version"]))
        except (OSError, ValueError, LookupError, TypeError) as error:
            told = f"{path.name} does not say which version is active: activate one"
            raise ArtifactError(told) from error

    def activate(self, name: str) -> Version:
        """Use another version from now on; ArtifactError if there is none, and the one in use
        stays."""
        version = self._find(name)
        write_text(self.folder / "active.json", json.dumps({"version": name}) + "\n")
        return version

    def add(self, run: Path, facts: Mapping[str, Any]) -> Version:
        """Keep a training run as a new version that is not active, with plain facts (JSON).

        Raises:
            ArtifactError: if a file is missing, or the calibration is of other weights.
        """
        calibration_of(run)
        staged = self.folder / "staged"
        shutil.rmtree(staged, ignore_errors=True)  # of a training that was killed
        staged.mkdir(parents=True)
        for name in FILES:
            shutil.copyfile(run / name, staged / name)
        text = json.dumps(dict(facts), indent=1, allow_nan=False)
        write_text(staged / "version.json", text + "\n")
        return self._read(staged.rename(self.folder / f"v{max(self._numbers(), default=0) + 1}"))

    def table(self) -> str:
        """The versions as lines of text, the one in use marked by a star."""
        active = self.active().name
        return "\n".join(f"{'*' if one.name == active else ' '} {one}" for one in self.all())

    def _numbers(self) -> list[int]:
        """Numbers of the trained versions, ascending."""
        numbers = (path.name[1:] for path in self.folder.glob("v*"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def _find(self, name: str) -> Version:
        found = {version.name: version for version in self.all()}
        if name not in found:
            raise ArtifactError(
                f"the bundle {self.bundle.name} has no version {name!r} of its weights; "
                f"it has {', '.join(found) or 'none'}"
            )
        return found[name]

    @staticmethod
    def _read(folder: Path) -> Version:
        try:
            facts = dict(json.loads((folder / "version.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            told = f"version.json of the version {folder.name} is absent or damaged"
            raise ArtifactError(told) from error
        return Version(folder.name, folder / "model.pt", facts)
