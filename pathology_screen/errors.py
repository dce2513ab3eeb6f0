"""Every error that this package raises on purpose, and the one list of the codes with which a scan is refused."""

from __future__ import annotations

REFUSALS = {
    # finding and opening
    "not_found": "the path does not exist",
    "empty": "the folder or archive holds no scan",
    "unsupported_format": "the file is neither DICOM nor NIfTI",
    "unreadable": "the file is damaged or cut short",
    "unsafe_archive": "the archive holds a path outside itself, a link, or more data than is plausible",
    "too_large": "the image is larger than any brain scan",
    # several things where one is expected
    "several_series": "the folder holds several DICOM series and none was chosen",
    "series_not_found": "the chosen SeriesInstanceUID is not in the folder",
    # geometry
    "missing_geometry": "position, orientation or pixel spacing is absent or not a valid number",
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
    "oblique": "the volume is tilted too far from the patient's axes for its slices to be called axial",
    "single_slice": "one slice alone is accepted only when it is declared an axial slice",
    "not_3d": "the image is not one three-dimensional volume",
    # intensities
    "not_monochrome": "the pixels are colour or complex, not a single grey channel",
    "not_finite": "the image holds NaN or infinite values",
    "constant_image": "every voxel has the same value",
    "no_image": "the DICOM object holds no pixel data",
    "bad_rescale": "RescaleSlope or RescaleIntercept is zero, infinite or not a number",
    "unsupported_compression": "no installed decoder reads this transfer syntax",
    "no_tissue": "no tissue was found in the image or slice",
    "brain_extraction_failed": "no brain was found in the scan",
    "slice_out_of_range": "the requested slice index is outside the volume",
}
"""Code -> meaning. Codes are stable, machine-readable, and listed only here."""


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
    """Weights, a calibration or another file of a bundle is missing, damaged, or belongs to something else."""


class ConfigError(ScreeningError, ValueError):
    """An option, a configuration or a datalist makes no sense."""


def find_refusal(error: BaseException) -> InputError | None:
    """Return the `InputError` behind an error (MONAI wraps errors of transforms in RuntimeError), or None."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, InputError):
            return current
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return None
