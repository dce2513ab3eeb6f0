"""One bundle as the server offers it."""

from __future__ import annotations

import threading
from pathlib import Path

import torch

from pathology_screen.bundles import bundle_root, bundles_folder, read_settings
from pathology_screen.errors import ArtifactError, ConfigError, InputError
from pathology_screen.label.options import Options
from pathology_screen.label.studies import read_study
from pathology_screen.label.versions import SHIPPED, Version, Versions
from pathology_screen.registry import METHODS
from pathology_screen.screening import Screener, ScreeningResult


class Model:
    """A bundle, and the screener of its active version.

    Args:
        bundle: name or folder.
        app_folder: of the server; `model/NAME` in it holds the versions that were trained here.
        options: of the app.

    Attributes:
        name: of the bundle; the names of its tasks begin with it.
        bundle: its folder.
        method: its method.
        versions: of its weights.

    Raises:
        ConfigError: if there is no such bundle.
    """

    def __init__(self, bundle: str | Path, app_folder: Path, options: Options) -> None:
        self.bundle = bundle_root(bundle)
        self.name, self.options = self.bundle.name, options
        self.method: str = read_settings(self.bundle)["method"]
        self.versions = Versions(app_folder / "model" / self.name, self.bundle)
        self.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._lock = threading.Lock()
        self._loaded: tuple[Version, Screener] | None = None

    @property
    def title(self) -> str:
        """What the method is called."""
        return METHODS[self.method].title

    def screener(self) -> Screener:
        """The screener of the active version; it is loaded anew when another version becomes
        active.

        Raises:
            ArtifactError: if weights or calibration are missing, damaged or altered, or do not
                belong together.
            ConfigError: if the calibration has too few people for the rate.
        """
        with self._lock:
            version = self.versions.active()
            if self._loaded is None or self._loaded[0] != version:
                self._loaded = version, self._load(version)
            return self._loaded[1]

    def screen(self, path: str | Path, plane_mm: float | None = None) -> ScreeningResult:
        """Screen a study of the datastore.

        Args:
            path: of the scan, as the datastore keeps it.
            plane_mm: see `Screener`.

        Raises:
            ConfigError: for DICOM files.
            ArtifactError: if the active version cannot be loaded.
        """
        screener = self.screener()
        try:
            scan = read_study(path)
        except InputError as refusal:
            return screener.judge.refuse(refusal)
        return screener(scan, plane_mm=plane_mm)

    def _load(self, version: Version) -> Screener:
        own = (
            self.options.calibration if version.name == SHIPPED else None
        )  # it belongs to these weights
        return Screener.from_bundle(
            self.bundle,
            weights=version.weights,
            calibration=own or version.calibration,
            rate=self.options.rate,
            device=self.device,
        )


def find_models(app_folder: Path, options: Options) -> list[Model]:
    """The models that are offered: those asked for, or every bundle with weights.

    Raises:
        ArtifactError, ConfigError: if one cannot be used, there is none, or two have one name.
    """
    names = options.models or _bundles_with_weights()
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


def _bundles_with_weights() -> list[str]:
    names = [method.name for method in METHODS.values() if not method.is_control]
    return [name for name in names if (bundles_folder() / name / "models" / "model.pt").is_file()]
