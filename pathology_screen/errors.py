"""Every error that this package raises on purpose, and the codes of refusals."""

import traceback
from pathlib import Path
from typing import TypeVar

REFUSALS = {
    # finding and opening
    "not_found": "the path does not exist",
    "empty": "the folder or archive holds no scan",
    "unsupported_format": "the file is neither DICOM, NIfTI nor PNG",
    "unreadable": "the file is damaged or cut short",
    "unsafe_archive": "the archive holds an outside path, a link, an odd packing or too much data",
    "too_large": "the image is larger than any brain scan",
    # several things where one is expected
    "several_series": "there are several series or other scans, and none was chosen",
    "series_not_found": "the chosen SeriesInstanceUID is not in the folder",
    "mixed_identity": "two patients or studies, or two slices of one SOPInstanceUID",
    # geometry
    "missing_geometry": "position, orientation or pixel spacing is absent or invalid",
    "contradictory_geometry": "sform, qform and voxel size contradict each other",
    "missing_slice": "the slices are not evenly spaced: at least one is missing",
    "duplicate_slice": "two slices lie at the same position",
    "uneven_spacing": "the distances between slices differ",
    "mixed_orientation": "the slices differ in orientation",
    "mixed_frame_of_reference": "the slices differ in frame of reference",
    "mixed_size": "the slices differ in rows, columns or pixel spacing",
    "not_a_stack": "the slices are not stacked along their normal",
    "singular_affine": "the affine cannot be inverted",
    "sheared_affine": "the axes of the affine are not perpendicular",
    "voxel_size": "the size of a voxel is not plausible",
    "oblique": "the volume is tilted too far from the patient's axes",
    "single_slice": "one slice alone has to be declared an axial slice",
    "not_3d": "the image is not one volume",
    # intensities
    "not_monochrome": "the pixels are colour or complex",
    "not_finite": "the image holds NaN or infinite values",
    "constant_image": "every voxel has the same value",
    "no_image": "the DICOM object holds no pixel data",
    "no_background": "the background is not the darkest part of the image",
    "mp2rage": "the uniform image (UNI) of an MP2RAGE, with noise around the head",
    "bad_rescale": "RescaleSlope or RescaleIntercept is zero, infinite or not a number",
    "unsupported_compression": "no installed decoder reads this transfer syntax",
    "undecodable": "decoding the pixels crashed, or took too long or too much memory",
    "no_tissue": "no tissue was found in the image or slice",
    "brain_extraction_failed": "no brain was found in the scan",
    "registration_failed": "the brain does not fit the MNI152 template",
    "other_domain": "a whole head or extracted brain, and the weights have seen only the other",
    "slice_out_of_range": "the requested slice index is outside the volume",
    "not_calibrated": "the calibration does not cover the plane, or has too few people",
    "unexpected_error": "the software failed on this scan",
    # the acceptance gate
    "not_mr": "the modality is not MR",
    "secondary_capture": "a screenshot or another secondary capture",
    "burned_in_annotation": "text is burned into the pixels",
    "localizer": "the series is a localizer",
    "projection": "a projection through a volume (MIP, MinIP, rendering)",
    "computed_map": "a computed map, a difference or a phase",
    "other_body_part": "the header names another body part than the head",
    "contrast_agent": "the scan was taken with contrast agent",
    "stated_not_t1w": "the header says that the scan is not T1-weighted",
    "thick_slices": "the axial slices are too far apart or too thick",
    "coarse_pixels": "the pixels of the axial slices are too large",
    "short_slab": "the slices span too little of the brain",
    "small_field_of_view": "the axial slices are too small for a brain",
    "brain_cut_off": "the border of the image cuts the brain",
    "brain_size": "the largest axial section of the brain is not of human size",
    "saturated": "too many voxels of the brain have the highest value",
    "few_grey_values": "the brain has too few grey values",
    "noisy": "the brain is mostly noise",
    "reformatted": "the slices were reformatted or resampled from others",
    "seen_not_t1w": "white matter is not brighter than the cortex",
    "unlike_training": "the reconstruction does not resemble the slice",
}
"""Code -> meaning. Codes are stable, machine-readable, and listed only here."""

WARNINGS: dict[str, str] = {
    # the acceptance gate
    "derived_image": "derived from other images, the header does not say how",
    "lossy_compression": "the pixels were compressed with loss",
    "described_not_t1w": "the description names another kind of scan, and not T1",
    "perhaps_contrast_agent": "the description may mean a scan after contrast agent",
    "partial_coverage": "the slices do not span a whole brain",
    "not_registered": "a single slice is compared as it is, for it cannot be registered",
    "other_orientation": "the file states a second orientation, another or not usable",
}
"""Code -> meaning of what the acceptance gate only warns about."""


Kind = TypeVar("Kind", bound=BaseException)

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
    """Return the `InputError` behind an error, or None."""
    return find_error(error, InputError)


def find_error(error: BaseException, kind: type[Kind]) -> Kind | None:
    """Return the error of a kind behind an error (MONAI wraps those of transforms), or None."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, kind):
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
