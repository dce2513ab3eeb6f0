"""People of one template: where each differs from it, and the random fields of their tissue."""

import numpy as np
import pytest

from pathology_screen.cohorts.anatomy import CENTRE, Anatomy, load_template, random_field


def test_the_affine_map_to_the_template_is_found_without_registration():
    """A head that differs from the template by an affine map alone: the map is known."""
    person = Anatomy(np.random.default_rng(7))
    person.bend = np.zeros_like
    expected = np.eye(4)
    expected[:3, :3] = person.rotation * person.scale
    expected[:3, 3] = person.offset - expected[:3, :3] @ CENTRE
    np.testing.assert_allclose(person.standard(load_template()), expected, atol=1e-3)


def test_random_field_is_smooth_periodic_and_standardised():
    field = random_field(np.random.default_rng(3), sigma=6.0, nodes=32)
    grid = 4 * np.indices((32, 32, 32)).astype(np.float32)
    values = field(grid)
    assert abs(values.mean()) < 0.05 and values.std() == pytest.approx(1, abs=0.1)
    assert np.allclose(field(grid + 32 * 6.0 / 1.5), values, atol=1e-3)
    assert np.abs(field(grid + np.float32(0.5)) - values).max() < 0.5
