"""What is refused in every format (see also `bad_inputs`)."""

import numpy as np
import pytest
from nibabel.eulerangles import euler2mat

from pathology_screen.errors import InputError
from pathology_screen.io.scan import check_affine


def turned(degrees):
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(x=np.radians(degrees)) @ np.diag([1.0, -2.0, 3.0])
    return affine


@pytest.mark.parametrize("degrees", [0, 20, 29, -29, 70])
def test_obliquity_is_the_angle_to_the_closest_patient_axes(degrees):
    assert check_affine(turned(degrees)) == pytest.approx(min(abs(degrees), 90 - abs(degrees)))


@pytest.mark.parametrize("degrees", [31, -31, 59])
def test_more_than_30_degrees_are_refused(degrees):
    with pytest.raises(InputError, match="oblique.*31.0 degrees; at most 30 are accepted"):
        check_affine(turned(degrees))
