"""The picture shows the slice where it lies in the patient."""

from dataclasses import replace

import numpy as np
import pytest
from outputs.dicom.result_builders import make_result
from scipy import ndimage as ndi

from pathology_screen.space import PLANE_SHAPE


@pytest.mark.parametrize("skew", [0.0, 0.1])
def test_picture_lies_where_the_slice_lies(series, write, skew):
    """The bright square of the slice shows at its place in the patient, also where the registration
    skews the plane."""
    source = series()
    result = make_result(source, tilt=10, blobs=0)
    image = np.full(PLANE_SHAPE, 0.1, np.float32)
    image[150:160, 60:70] = 1
    shear = np.eye(4)
    shear[0, 1], shear[2, 0] = skew, -skew
    affine = shear @ result.slice.affine
    one = replace(result.slice, image=image, anomaly_map=0 * image, affine=affine)
    made = write(source, replace(result, slice=one))[1]["overlay.dcm"]
    parts, _ = ndi.label(made.pixel_array.min(axis=2) > 150)  # the square, and digits
    row, column = ndi.center_of_mass(parts == np.bincount(parts.ravel())[1:].argmax() + 1)
    cosines = np.array(made.ImageOrientationPatient, float)
    assert abs(cosines[:3] @ cosines[3:]) < 1e-9
    by_rows, by_columns = map(float, made.PixelSpacing)
    found = np.array(made.ImagePositionPatient, float)
    found += cosines[:3] * by_columns * column + cosines[3:] * by_rows * row
    expected = (one.affine @ [154.5, 64.5, 0, 1])[:3] * [-1, -1, 1]
    assert np.allclose(found, expected, atol=0.7)
    assert cosines[0] > 0.9 and cosines[4] > 0.9 and max(made.Rows, made.Columns) == 768
