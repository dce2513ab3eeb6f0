"""Look at a scan without weights: what it is, whether it would be accepted, and how well it fits
the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.transforms import Compose

from pathology_screen.bundles import PROFILES, read_settings
from pathology_screen.errors import InputError, ScreeningError, fault, find_refusal
from pathology_screen.io import Scan, read_scan
from pathology_screen.predictor import build_preprocessing
from pathology_screen.screening.context import ScanContext, take_slice
from pathology_screen.screening.result import Finding
from pathology_screen.space import Fit


@dataclass(frozen=True)
class Inspection:
    """What a scan is.

    Attributes:
        refusal: why it would be refused; None where it would be accepted.
        findings: of the acceptance gate.
        source: facts about the scan without patient data (`Scan.source`).
        fit: of the brain to the template; None for a single slice, and where the scan was refused
            before.
    """

    refusal: InputError | None
    findings: tuple[Finding, ...]
    source: Mapping[str, Any] = field(default_factory=dict)
    fit: Fit | None = None


class Inspector:
    """Take scans past the reader, the acceptance gate, brain extraction and registration, as
    screening would.

    Only what compares a scan with its reconstruction is left out.

    Args:
        preprocessing: of a bundle.
        domain: that it accepts.
    """

    def __init__(self, preprocessing: Compose, domain: str) -> None:
        self.preprocessing, self.domain = preprocessing, domain

    @classmethod
    def from_bundle(cls, bundle: str | Path = "ra", profile: str = "compact") -> Inspector:
        """Read a bundle's preprocessing; it needs no weights.

        Raises:
            ConfigError: if there is no such bundle.
        """
        settings = read_settings(bundle, PROFILES[profile])
        return cls(build_preprocessing(settings["preprocessing"]), settings["slice"]["domain"])

    def __call__(
        self,
        scan: str | Path | Sequence[str | Path] | Scan,
        *,
        plane_mm: float | None = None,
        series_uid: str | None = None,
        axial_slice: bool = False,
    ) -> Inspection:
        """Inspect one scan; the arguments are those of `Screener`."""
        context, refusal, fit = ScanContext(), None, None
        item: dict[str, Any] = {} if plane_mm is None else {"z_mm": plane_mm}
        try:
            if not isinstance(scan, Scan):
                scan = read_scan(scan, series_uid=series_uid, axial_slice=axial_slice)
            image = take_slice(self.preprocessing, self.domain, {**item, "image": scan}, context)
            fit = Fit(**image.meta["fit"]) if "fit" in image.meta else None
        except Exception as error:  # MONAI wraps what a transform raises in a RuntimeError
            refusal = find_refusal(error)
            if refusal is None and isinstance(error, ScreeningError):
                raise
            refusal = refusal or fault(error)
        return Inspection(refusal, tuple(context.findings), context.source, fit)
