"""What is refused in every format (see also `bad_inputs`)."""

import numpy as np
import pytest
from nibabel.eulerangles import euler2mat

from pathology_screen.errors import InputError
from pathology_screen.io.scan import check_affine


@pytest.mark.parametrize("degrees", [0, 20, 29, -29, 70, 31, -31, 59])
def test_obliquity_is_the_angle_to_the_closest_patient_axes(degrees):
    affine, expected = np.eye(4), min(abs(degrees), 90 - abs(degrees))
    affine[:3, :3] = euler2mat(x=np.radians(degrees)) @ np.diag([1.0, -2.0, 3.0])
    if expected <= 30:
        assert check_affine(affine) == pytest.approx(expected)
        return
    with pytest.raises(InputError, match="oblique.*31.0 degrees; at most 30 are accepted"):
        check_affine(affine)
