"""The folder of an app: what MONAI Label starts, and the versions of weights that it trained."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.files import write_text
from pathology_screen.publishing import FILES, calibration_of

MAIN = '''"""Unsupervised pathology screening for MONAI Label; start it with
`python main.py --studies STUDIES`."""

from pathlib import Path

from pathology_screen.label.app import ScreeningApp, start_server

__all__ = ["ScreeningApp"]

if __name__ == "__main__":
    start_server(Path(__file__).resolve().parent)
'''
README = """# pathology_screen in MONAI Label

Start the server on a folder of NIfTI scans, or on the URL of a DICOMweb service, for this machine
alone:

    python main.py --studies STUDIES

It takes the options of `monailabel start_server`, such as `--port 8000` and `--conf models ra`.

`model/` holds the versions of the weights that were trained here, `scores/` what screening found
(without names), and `logs/` what MONAI Label writes, with names of studies and their paths: keep
this folder where the scans may be kept.

Research only. Not a medical device; not for diagnosis.
"""
SHIPPED = "shipped"
"""Name of the version that the bundle brings."""


def write_app(folder: Path) -> Path:
    """Write an app, and return its `main.py`; one that is there is brought up to date, and keeps
    its versions and scores. ConfigError if the folder holds something else."""
    main = folder / "main.py"
    text = main.read_text("utf-8", errors="replace") if main.is_file() else ""
    if "pathology_screen.label" not in text and folder.exists() and any(folder.iterdir()):
        raise ConfigError("the folder of the app holds something else: name a new one")
    write_text(main, MAIN)
    write_text(folder / "README.md", README)
    return main


class Version(NamedTuple):
    """Weights with a calibration of their own: "shipped", or "v1", "v2" and so on in the order in
    which they were trained, with what training noted (JSON)."""

    name: str
    weights: Path
    facts: Mapping[str, Any] = {}

    @property
    def calibration(self) -> Path:
        return self.weights.with_name("calibration.json")


class Versions:
    """The versions of one bundle's weights on a server.

    Each is a folder `NAME/` of the files of a run and `version.json`; `active.json` names the one
    in use. A folder appears, and `active.json` changes, whole or not at all, so that a server may
    read while another process trains.
    """

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder, self.bundle = folder, bundle

    def all(self) -> list[Version]:
        """Every version, the shipped one first, then as they were trained; ArtifactError if a
        `version.json` is absent or damaged."""
        shipped = Version(SHIPPED, self.bundle / "models" / "model.pt")
        versions = [shipped] if shipped.weights.is_file() else []
        for folder in (self.folder / f"v{number}" for number in self._numbers()):
            try:
                facts = dict(json.loads((folder / "version.json").read_text("utf-8")))
            except (OSError, ValueError, TypeError) as error:
                told = f"version.json of the version {folder.name} is absent or damaged"
                raise ArtifactError(told) from error
            versions.append(Version(folder.name, folder / "model.pt", facts))
        return versions

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
        """Keep a training run as a new version that is not active, with plain facts (JSON);
        ArtifactError if a file is missing, or the calibration is of other weights."""
        calibration_of(run)
        staged = self.folder / "staged"
        shutil.rmtree(staged, ignore_errors=True)  # of a training that was killed
        staged.mkdir(parents=True)
        for name in FILES:
            shutil.copyfile(run / name, staged / name)
        text = json.dumps(dict(facts), indent=1, allow_nan=False)
        write_text(staged / "version.json", text + "\n")
        new = staged.rename(self.folder / f"v{max(self._numbers(), default=0) + 1}")
        return Version(new.name, new / "model.pt", json.loads(text))

    def table(self) -> str:
        """The versions as lines of text, the one in use marked by a star."""
        active, lines = self.active().name, []
        for name, _, facts in self.all():
            line = f"{'*' if name == active else ' '} {name}"
            if facts:
                people, error = facts["people"], facts["error"]
                line += f"  trained {facts['trained']} on {people['training']} people, "
                line += f"calibrated on {people['calibration']}; error on {people['test']} others "
                line += f"{error['new']:.4g}, of {facts['compared_with']} {error['old']:.4g}"
            lines.append(line)
        return "\n".join(lines)

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
