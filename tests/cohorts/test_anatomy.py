"""People of one template: where each differs from it, and the random fields of their tissue."""

import numpy as np
import pytest
from cohorts.simulated import SEED

from pathology_screen.cohorts import anatomy
from pathology_screen.cohorts.anatomy import load_template, random_field
from pathology_screen.cohorts.simulation import Subject


def test_the_affine_map_to_the_template_is_found_without_registration():
    """A head that differs from the template by an affine map alone: the map is known."""
    template = load_template()
    person = Subject(template, SEED, "healthy").anatomy
    person.bend = np.zeros_like
    expected = np.eye(4)
    expected[:3, :3] = person.rotation * person.scale
    expected[:3, 3] = person.offset - expected[:3, :3] @ anatomy.CENTRE
    np.testing.assert_allclose(person.standard(template), expected, atol=1e-3)


def test_random_field_is_smooth_periodic_and_standardised():
    field = random_field(np.random.default_rng(3), sigma=6.0, nodes=32)
    grid = np.stack(np.meshgrid(*[np.arange(0, 128, 4, dtype=np.float32)] * 3, indexing="ij"))
    values = field(grid)
    assert abs(values.mean()) < 0.05 and values.std() == pytest.approx(1, abs=0.1)
    assert np.allclose(field(grid + 32 * 6.0 / 1.5), values, atol=1e-3)
    assert np.abs(field(grid + np.float32(0.5)) - values).max() < 0.5
