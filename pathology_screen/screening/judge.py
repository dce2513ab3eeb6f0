"""From scores and maps to an outcome: the one place that decides what is suspicious."""

from typing import Any

import numpy as np
from monai.data import MetaTensor
from scipy import ndimage as ndi
from skimage.measure import label, regionprops
from torch import Tensor

from pathology_screen.calibration import Calibration, fewest_people
from pathology_screen.errors import InputError
from pathology_screen.geometry import map_points
from pathology_screen.predictor import Prediction, Predictor
from pathology_screen.result import Region, ScanContext, ScreenedSlice, ScreeningResult, Tissue
from pathology_screen.screening.gate import distribution_findings
from pathology_screen.space import TISSUES, load_tissue
from pathology_screen.transforms import shown_pixels, slice_affines, slice_to_scan
from pathology_screen.versions import versions

SMALLEST_MM2 = 10.0
"""Smaller regions are not listed: a blob of the blur's own width is noise."""


class Judge:
    """Compare a slice, and what the method made of it, with healthy people.

    Where the calibration has too few people for the rate there is no image threshold: maps and
    regions are given, and no scan is assessable. `rate` is as in `Screener`; ConfigError if it does
    not lie between 0 and 1.
    """

    def __init__(self, predictor: Predictor, calibration: Calibration, rate: float = 0.05) -> None:
        self.predictor, self.calibration, self.rate = predictor, calibration, rate
        people, scores = calibration.n_subjects, calibration.subject_scores.tolist()
        few = 0 < rate < 1 and people < fewest_people(rate)
        self.image_threshold = None if few else calibration.image_threshold(rate)
        self.provenance: dict[str, Any] = {
            "method": predictor.method,
            "calibration_id": calibration.calibration_id,
            "identity": calibration.identity,
            "healthy": {"subjects": people, "scores": scores},
            "versions": versions(),
        }

    def __call__(
        self, image: MetaTensor, prediction: Prediction, context: ScanContext
    ) -> ScreeningResult:
        """Judge one scan by its slice (1, H, W), with the record of how it was taken, by what the
        method made of it, and by what is known of the scan."""
        output, anomaly_map = prediction.output[0], prediction.maps[0]
        score, painted, painted_volume = float(prediction.scores[0]), None, None
        steps = self.predictor.preprocessing
        if self.predictor.reconstructs:
            painted = _plain(output)
            try:
                agreements = self.calibration.agreements
                context.accept(distribution_findings(_plain(image), painted, agreements))
            except InputError as refusal:
                return self.refuse(refusal, context)
            painted_volume = slice_to_scan(steps, image, output)[0].numpy()
        affine, mni_affine = slice_affines(image)
        threshold, plane = self.calibration.pixel_threshold, image.meta.get("z_mm")
        drawn, seen = _plain(anomaly_map), shown_pixels(image)  # padding is no place of the scan
        regions, labels = find_regions(drawn * seen, affine, threshold, mni_affine)
        map_volume = slice_to_scan(steps, image, anomaly_map)
        labelled = slice_to_scan(steps, image, labels[None].astype(np.float32), nearest=True)
        shown: dict[str, Any] = {
            "pixel_threshold": threshold,
            "slice": ScreenedSlice(
                score, _plain(image), painted, drawn, labels, affine, plane, mni_affine, context.fit
            ),
            "regions": regions,
            "affine": np.asarray(map_volume.affine),
            "map_volume": map_volume[0].numpy(),
            "reconstruction_volume": painted_volume,
            "regions_volume": labelled[0].numpy().astype(np.uint16),
        }
        if lacking := self._lacking(plane):
            return self.refuse(lacking, context, **shown)
        return ScreeningResult(
            "suspicious" if score > self.image_threshold else "normal",  # type: ignore[operator]
            score=score,
            percentile=self.calibration.percentile(score),
            p_value=self.calibration.p_value(score),
            image_threshold=self.image_threshold,
            false_positive_rate=self.rate,
            **self._known(context),
            **shown,
        )

    def refuse(
        self, refusal: InputError, context: ScanContext | None = None, **shown: Any
    ) -> ScreeningResult:
        """The result of a scan without a score, and what may be shown of it all the same."""
        known = self._known(context or ScanContext())
        return ScreeningResult("not_assessable", refusal.code, str(refusal), **known, **shown)

    def _known(self, context: ScanContext) -> dict[str, Any]:
        return {
            "findings": tuple(context.findings),
            "source": context.source,
            "provenance": self.provenance,
            "seconds": context.seconds,
        }

    def _lacking(self, plane_mm: float | None) -> InputError | None:
        """What the calibration lacks to judge a slice."""
        plane = self.calibration.identity["slice"]["plane_mm"]
        if plane_mm not in (None, plane):
            asked = f"the plane at z = {plane_mm:g} mm; accepted: {plane:g} mm"
            return InputError("not_calibrated", asked)
        if self.image_threshold is not None:
            return None
        few = f"{self.calibration.n_subjects} healthy people; accepted: {fewest_people(self.rate)}"
        few += f" or more for a false positive rate of {self.rate:g}"
        return InputError("not_calibrated", few, "Calibrate on more, or ask for a higher rate")


def _plain(image: Tensor) -> np.ndarray:
    """(1, H, W) -> (H, W)."""
    return np.asarray(image[0].as_subclass(Tensor).cpu())


def find_regions(
    anomaly_map: np.ndarray,
    affine: np.ndarray,
    threshold: float,
    mni_affine: np.ndarray | None = None,
) -> tuple[tuple[Region, ...], np.ndarray]:
    """Label the connected regions of a slice (H, W) where the map exceeds the threshold, and
    measure those of at least `SMALLEST_MM2`. Pixels that share a corner belong together.

    The affines (4, 4) take (row, column, 0, 1) to RAS+ mm of the scan, and to mm of MNI152 space
    (None without registration). Returns the regions, highest peak first, and their labels (H, W),
    uint16.
    """
    pixel_area = float(np.linalg.norm(np.cross(affine[:3, 0], affine[:3, 1])))  # mm2
    labels = label(anomaly_map > threshold, connectivity=2)
    large = [one for one in regionprops(labels) if one.area * pixel_area >= SMALLEST_MM2]
    inside = {one.label: anomaly_map[tuple(one.coords.T)] for one in large}
    renumbered = np.zeros(labels.max() + 1, np.uint16)
    regions = []
    for number, one in enumerate(sorted(large, key=lambda one: -inside[one.label].max()), start=1):
        renumbered[one.label] = number
        values = inside[one.label]
        peak, centroid = one.coords[values.argmax()], one.centroid
        region = Region(
            label=number,
            area_mm2=float(one.area) * pixel_area,
            centroid_mm=_millimetres(affine, centroid),
            centroid_mni_mm=_millimetres(mni_affine, centroid),
            peak=float(values.max()),
            peak_mm=_millimetres(affine, peak),
            peak_mni_mm=_millimetres(mni_affine, peak),
            mean=float(values.mean()),
            tissue=None if mni_affine is None else _tissue(mni_affine, one.coords),
        )
        regions.append(region)
    return tuple(regions), renumbered[labels]


def _millimetres(affine: np.ndarray | None, pixel: Any) -> Any:
    """A `Point`; None without an affine."""
    return None if affine is None else tuple((affine @ [*pixel, 0.0, 1.0])[:3].tolist())


def _tissue(mni_affine: np.ndarray, pixels: np.ndarray) -> Tissue:
    """What most of the pixels (N, 2) are in the template."""
    places = np.c_[pixels, np.zeros(len(pixels))].T
    shares: dict[Tissue, float] = {}
    for tissue in TISSUES:
        probability = load_tissue(tissue)
        index = map_points(np.linalg.solve(probability.affine, mni_affine), places)
        values = ndi.map_coordinates(np.asarray(probability.dataobj), index, float, order=1)
        shares[tissue] = float(values.mean()) / 255
    shares["other"] = 1 - sum(shares.values())
    return max(shares, key=shares.__getitem__)
