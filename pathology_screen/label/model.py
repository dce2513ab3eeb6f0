"""One bundle as the server offers it: options, screening of studies, and what it found so far."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pathology_screen.bundles import bundle_root, bundles_folder, read_settings
from pathology_screen.errors import ArtifactError, ConfigError, InputError
from pathology_screen.files import text_sha256, write_text
from pathology_screen.io import Scan, read_scan
from pathology_screen.label.app_folder import SHIPPED, Version, Versions
from pathology_screen.predictor import best_device
from pathology_screen.registry import METHODS
from pathology_screen.screening import Screener, ScreeningResult

KEPT = ("outcome", "code", "reason", "score", "percentile", "p_value")
"""Fields of a result that a model keeps."""


def study_path(datastore: Any, name: str) -> Path:
    """Path of a study where the datastore keeps it.

    Where a DICOM series is asked for the first time, MONAI Label's answer is a temporary copy,
    which would stay, and has no headers beside it; it is removed here.
    """
    first, kept = Path(datastore.get_image_uri(name)), Path(datastore.get_image_uri(name))
    if first != kept:
        first.unlink()
    return kept


def read_study(path: str | Path) -> Scan:
    """Read a scan of the datastore, with what its DICOM headers say if it was DICOM.

    MONAI Label keeps the series `UID/*.dcm` beside `UID.nii.gz`. The conversion drops every
    attribute and stacks slices whether or not one is missing, so both are looked at here, for the
    acceptance gate to judge.

    Raises:
        InputError: see `read_scan`; also those of `io.headers.series_facts`.
        ConfigError: for DICOM files, whose reader needs what MONAI Label's environment cannot have.
    """
    path = Path(path)
    if path.is_dir() or path.suffix == ".dcm":
        raise ConfigError(
            "DICOM files are not read here: start the server on a DICOMweb service, or give NIfTI"
        )
    scan = read_scan(path)
    series = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii"))
    if not series.is_dir():
        return scan
    from pathology_screen.io.headers import series_facts  # pydicom is not always at hand

    return replace(scan, source={**scan.source, **series_facts(series)})


class Options(NamedTuple):
    """What `--conf KEY VALUE` sets."""

    models: tuple[str, ...] = ()  # names or folders of bundles; empty for all that have weights
    rate: float = 0.05  # of false positives among healthy people
    device: str = "auto"  # see `Predictor.load`
    calibration: Path | None = None  # in place of the one beside the weights, for one model alone

    @classmethod
    def from_conf(cls, conf: Mapping[str, str]) -> "Options":
        """Read what MONAI Label hands over; raises ConfigError for an unknown key or bad value."""
        values: dict[str, Any] = {key: conf[key] for key in conf if key != "server_mode"}
        if unknown := [key for key in values if key not in cls._fields]:
            raise ConfigError(
                f"there is no --conf {unknown[0]}; there are {', '.join(cls._fields)}"
            )
        if "models" in values:
            names = (name.strip() for name in values["models"].split(","))
            values["models"] = tuple(filter(None, names))
        if "calibration" in values:
            values["calibration"] = Path(values["calibration"])
        try:
            return cls(**values | {"rate": float(values.get("rate", 0.05))})
        except ValueError:
            raise ConfigError(f"{values['rate']!r} is not a number") from None


class Model:
    """A bundle, its versions, the screener of the active one, and the scores of studies.

    In the app's folder `model/NAME` holds the versions that were trained here, and `scores/NAME`
    the scores, a file a study, named by a hash of the study's id. They are no part of the
    datastore, whose own file the server and a process in the background would write at the same
    time. Those of other weights, calibration or rate count for nothing. ConfigError if there is no
    such bundle.
    """

    def __init__(self, bundle: str | Path, app_folder: Path, options: Options) -> None:
        self.bundle = bundle_root(bundle)
        self.name, self.options = self.bundle.name, options
        self.title = METHODS[read_settings(self.bundle)["method"]].title
        self.versions = Versions(app_folder / "model" / self.name, self.bundle)
        self.scores = app_folder / "scores" / self.name
        self.device = str(best_device(options.device))
        self._lock = threading.Lock()
        self._loaded: tuple[Version, Screener] | None = None

    def screener(self) -> Screener:
        """The screener of the active version; loaded anew when another version becomes active.
        ArtifactError if weights or calibration are missing, damaged, or do not match; ConfigError
        if the calibration has too few people for the rate."""
        with self._lock:
            version = self.versions.active()
            if self._loaded is None or self._loaded[0] != version:
                # the calibration of the options belongs to the shipped weights
                own = self.options.calibration if version.name == SHIPPED else None
                screener = Screener.from_bundle(
                    self.bundle,
                    weights=version.weights,
                    calibration=own or version.calibration,
                    rate=self.options.rate,
                    device=self.device,
                )
                self._loaded = version, screener
            return self._loaded[1]

    def screen(self, path: str | Path, plane_mm: float | None = None) -> ScreeningResult:
        """Screen the file of a study; raises what `screener` raises, and ConfigError for DICOM."""
        screener = self.screener()
        try:
            scan = read_study(path)
        except InputError as refusal:
            return screener.judge.refuse(refusal)
        return screener(scan, plane_mm=plane_mm)

    def found(self, study: str) -> Mapping[str, Any] | None:
        """The `KEPT` fields of a study; None where it was not screened as it would be now."""
        try:
            entry = json.loads(self._score_path(study).read_text("utf-8"))
        except (OSError, ValueError):  # not there, or not ours: it is screened again
            return None
        now = self._made_by(self.screener().judge.calibration.calibration_id)
        return entry["result"] if entry["made_by"] == now else None

    def waiting(self, studies: Sequence[str]) -> list[str]:
        """Those that were not screened yet."""
        return [study for study in studies if self.found(study) is None]

    def keep(self, study: str, result: ScreeningResult) -> None:
        """Keep a result in place of an older one."""
        made_by = self._made_by(result.provenance["calibration_id"])  # perhaps out of use by now
        entry = {"made_by": made_by, "result": {field: getattr(result, field) for field in KEPT}}
        write_text(self._score_path(study), json.dumps(entry, allow_nan=False))

    def _score_path(self, study: str) -> Path:
        return self.scores / f"{text_sha256(study)[:24]}.json"

    def _made_by(self, calibration_id: str) -> dict[str, Any]:
        return {"calibration_id": calibration_id, "rate": self.options.rate}


def find_models(app_folder: Path, options: Options) -> list[Model]:
    """The models that are offered: those asked for, or every bundle with weights. ArtifactError or
    ConfigError if one cannot be used, there is none, or two have one name."""
    bundles = [method.name for method in METHODS.values() if not method.is_control]
    weights = {name: bundles_folder() / name / "models" / "model.pt" for name in bundles}
    names = options.models or [name for name in bundles if weights[name].is_file()]
    if not names:
        raise ArtifactError(
            "no bundle has weights: train one, or name the folder of one with --conf models"
        )
    if options.calibration and len(names) > 1:
        raise ConfigError("a calibration belongs to one model: name it with --conf models")
    models = [Model(name, app_folder, options) for name in names]
    if len({model.name for model in models}) < len(models):
        raise ConfigError("two of the models have the same name: rename the folder of one")
    for model in models:
        model.screener()  # better told now than to the first viewer
    return models
