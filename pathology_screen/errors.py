"""Every error that this package raises on purpose, and the codes of refusals."""

from __future__ import annotations

import traceback
from pathlib import Path

REFUSALS = {
    # finding and opening
    "not_found": "the path does not exist",
    "empty": "the folder or archive holds no scan",
    "unsupported_format": "the file is neither DICOM, NIfTI nor PNG",
    "unreadable": "the file is damaged or cut short",
    "unsafe_archive": (
        "the archive holds a path outside itself, a link, an odd packing, or more data than is "
        "plausible"
    ),
    "too_large": "the image is larger than any brain scan",
    # several things where one is expected
    "several_series": "the folder holds several DICOM series or other scans and none was chosen",
    "series_not_found": "the chosen SeriesInstanceUID is not in the folder",
    "mixed_identity": (
        "the series holds two patients or studies, or two slices share one SOPInstanceUID"
    ),
    # geometry
    "missing_geometry": "position, orientation or pixel spacing is absent or not a valid number",
    "contradictory_geometry": "sform, qform and voxel size of the file contradict each other",
    "missing_slice": "the slices are not evenly spaced: at least one is missing",
    "duplicate_slice": "two slices lie at the same position",
    "uneven_spacing": "the distances between slices differ",
    "mixed_orientation": "the slices of the series do not share one orientation",
    "mixed_frame_of_reference": "the slices of the series do not share one frame of reference",
    "mixed_size": "the slices of the series differ in rows, columns or pixel spacing",
    "not_a_stack": "the slices are not stacked along their normal",
    "singular_affine": "the affine cannot be inverted",
    "sheared_affine": "the axes of the affine are not perpendicular",
    "voxel_size": "the size of a voxel is not plausible for a brain scan",
    "oblique": (
        "the volume is tilted too far from the patient's axes for its slices to be called axial"
    ),
    "single_slice": "one slice alone is accepted only when it is declared an axial slice",
    "not_3d": "the image is not one three-dimensional volume",
    # intensities
    "not_monochrome": "the pixels are colour or complex, not a single grey channel",
    "not_finite": "the image holds NaN or infinite values",
    "constant_image": "every voxel has the same value",
    "no_image": "the DICOM object holds no pixel data",
    "no_background": "the background is not the darkest part of the image",
    "mp2rage": "the image is the uniform image (UNI) of an MP2RAGE, with noise around the head",
    "bad_rescale": "RescaleSlope or RescaleIntercept is zero, infinite or not a number",
    "unsupported_compression": "no installed decoder reads this transfer syntax",
    "undecodable": (
        "the decoder of the compressed pixels crashed, or took too long or too much memory"
    ),
    "no_tissue": "no tissue was found in the image or slice",
    "brain_extraction_failed": "no brain was found in the scan",
    "registration_failed": "the brain could not be brought onto the MNI152 template",
    "other_domain": (
        "the scan is a whole head or an extracted brain, and the weights have seen only the other"
    ),
    "slice_out_of_range": "the requested slice index is outside the volume",
    "not_calibrated": (
        "the calibration does not cover the plane of the slice, or has too few people"
    ),
    "unexpected_error": "the software failed on this scan",
    # the acceptance gate
    "not_mr": "the modality is not MR",
    "secondary_capture": "the image is a screenshot or another secondary capture",
    "burned_in_annotation": "text is burned into the pixels",
    "localizer": "the series is a localizer",
    "projection": "the image is a projection through a volume (MIP, MinIP, rendering)",
    "computed_map": (
        "the pixels are a computed map, a difference or a phase, not an acquired magnitude"
    ),
    "other_body_part": "the header names a body part that is not the head",
    "contrast_agent": "the scan was taken with contrast agent",
    "stated_not_t1w": "the header says that the scan is not T1-weighted",
    "thick_slices": "the axial slices are too far apart or too thick",
    "coarse_pixels": "the pixels of the axial slices are too large",
    "short_slab": "the slices span too little of the brain to place them",
    "small_field_of_view": "the axial slices are too small to show a whole brain section",
    "brain_cut_off": "the border of the image cuts the brain",
    "brain_size": "the largest axial section of the brain is not the size of a human one",
    "saturated": "too many voxels of the brain have the highest value",
    "few_grey_values": "the brain has too few grey values",
    "noisy": "the brain is mostly noise",
    "reformatted": "the slices were reformatted or resampled from others",
    "seen_not_t1w": (
        "the brain does not look T1-weighted: white matter is not brighter than the cortex"
    ),
    "unlike_training": (
        "the reconstruction does not resemble the slice: the scan is unlike those trained on"
    ),
}
"""Code -> meaning. Codes are stable, machine-readable, and listed only here."""

WARNINGS: dict[str, str] = {
    # the acceptance gate
    "derived_image": "the image was derived from others, in a way that the header does not state",
    "lossy_compression": "the pixels were compressed with loss",
    "described_not_t1w": "the description of the series names another kind of scan, and not T1",
    "perhaps_contrast_agent": "the description of the series may mean a scan after contrast agent",
    "partial_coverage": "the slices do not span a whole brain",
    "not_registered": (
        "a single slice cannot be brought to the standard plane: it is compared as it is"
    ),
    "other_orientation": "the file states a second orientation, which is another or not usable",
}
"""Code -> meaning of what the acceptance gate only warns about."""


NOT_ASSESSABLE = 3
"""Exit status of a run in which a scan was not assessable."""


class ScreeningError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(ScreeningError, ValueError):
    """A scan was refused: it cannot be read faithfully, so it is not scored.

    Args:
        code: a key of `REFUSALS`.
        detail: what was wrong, with the measured value; never a patient's data.
        hint: what the user can do about it.

    Raises:
        KeyError: if the code is not listed.
    """

    def __init__(self, code: str, detail: str = "", hint: str = "") -> None:
        meaning = REFUSALS[code]
        self.code, self.detail, self.hint = code, detail, hint
        text = f"[{code}] {meaning}"
        text += f": {detail}" if detail else ""
        text += f". {hint}" if hint else ""
        super().__init__(text)

    def __reduce__(self):
        return type(self), (self.code, self.detail, self.hint)


class ArtifactError(ScreeningError):
    """A file of a bundle is missing, damaged, or belongs to something else."""


class ConfigError(ScreeningError, ValueError):
    """An option, a configuration or a datalist makes no sense."""


class RunError(ScreeningError):
    """A run over many scans cannot begin in this folder, or cannot account for every scan."""


def fault(error: BaseException) -> InputError:
    """Return the refusal of a scan that the software failed on.

    What another package's error says may repeat a patient's data: its kind and place are told.
    """
    if isinstance(error, InputError):
        return error
    if isinstance(error, ScreeningError):
        return InputError("unexpected_error", str(error))
    place = traceback.extract_tb(error.__traceback__)[-1]
    detail = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
    return InputError("unexpected_error", detail, "Please report it")


def find_refusal(error: BaseException) -> InputError | None:
    """Return the `InputError` behind an error (MONAI wraps those of transforms), or None."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, InputError):
            return current
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return None


def as_refusal(error: Exception) -> InputError:
    """Return why one scan of many is refused: the `InputError` behind an error, or the `fault`.

    Raises:
        ScreeningError: the error itself, where it concerns the run and not the scan.
    """
    refusal = find_refusal(error)
    if refusal is None and isinstance(error, ScreeningError):
        raise error
    return refusal or fault(error)
