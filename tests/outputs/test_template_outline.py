"""Where the template's brain lies on a slice."""

import nibabel as nib
import numpy as np
import pytest
from template_brains import TO_SCAN, template_brain

from pathology_screen.outputs.template_outline import template_on_slice


def test_it_covers_the_brain_that_is_the_templates(result):
    shown, brain = template_on_slice(result.slice) > 0.5, result.slice.image > 0.1
    assert 2 * (shown & brain).sum() / (shown.sum() + brain.sum()) > 0.95


def test_it_tells_a_wrong_registration(make_brain_screener, tmp_path):
    """The scan lies 12 mm further to the left than the screener was told."""
    moved = nib.affines.from_matvec(np.eye(3), (-12, 0, 0)) @ TO_SCAN
    nib.save(template_brain(to_scan=moved), tmp_path / "moved.nii")
    result = make_brain_screener()(tmp_path / "moved.nii")
    shown, brain = template_on_slice(result.slice) > 0.5, result.slice.image > 0.1
    assert 2 * (shown & brain).sum() / (shown.sum() + brain.sum()) < 0.93
    columns = [np.nonzero(mask)[1].mean() for mask in (shown, brain)]
    assert columns[1] - columns[0] == pytest.approx(
        12 / 1.05 / 3.64, abs=0.8
    )  # columns run to the left


def test_a_slice_that_was_not_registered_has_none(single):
    assert template_on_slice(single.slice) is None
