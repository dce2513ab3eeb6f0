"""Registration: a known affine is recovered, wrong axes are noticed, and resampling puts values where they belong."""

import nibabel as nib
import numpy as np
import pytest
from pathology_screen.cohorts.registration import (
    Fit,
    import_itk,
    load_brain_template,
    register,
    resample,
)
from scipy.spatial.transform import Rotation

from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.simulation import simulate
from pathology_screen.errors import ConfigError

MOVES = np.array([[14.0, -8.0, 17.0], [9.0, -14.0, 21.0], [1.04, 0.95, 1.02]])  # degrees, mm, factors


@pytest.fixture(scope="module")
def brain() -> nib.Nifti1Image:
    """A phantom brain."""
    volume = simulate(load_template(), (7, 1))
    return nib.Nifti1Image(np.float32(volume.image * volume.brain), volume.affine)


@pytest.fixture(scope="module")
def move() -> np.ndarray:
    angles, shift, factors = MOVES
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * factors
    affine[:3, 3] = shift
    return affine


@pytest.fixture(scope="module")
def found(brain, move) -> tuple[np.ndarray, Fit]:
    return register(nib.Nifti1Image(brain.dataobj, move @ brain.affine), brain)


def test_known_affine_is_recovered(brain, move, found):
    affine, fit = found
    voxels = np.argwhere(np.asarray(brain.dataobj) > 0)[::200]
    points = nib.affines.apply_affine(brain.affine, voxels)
    apart = np.linalg.norm(nib.affines.apply_affine(affine, points) - nib.affines.apply_affine(move, points), axis=1)
    assert apart.max() < 0.5  # mm, anywhere in the brain
    turned = [np.linalg.svd(matrix[:3, :3]) for matrix in (affine, move)]
    between = Rotation.from_matrix((turned[0].U @ turned[0].Vh) @ (turned[1].U @ turned[1].Vh).T)
    assert np.degrees(between.magnitude()) < 0.25
    assert np.allclose(turned[0].S, turned[1].S, atol=0.005)
    assert fit.dice > 0.98 and fit.correlation > 0.95 and fit.is_good


@pytest.mark.slow
def test_same_brain_gives_the_same_affine(brain, move, found):
    again, fit = register(nib.Nifti1Image(brain.dataobj, move @ brain.affine), brain)
    assert np.array_equal(again, found[0]) and fit == found[1]


@pytest.mark.slow
def test_phantom_fits_the_mni_template_and_not_when_its_axes_are_named_wrongly(brain):
    affine, fit = register(brain)
    assert fit.is_good and fit.dice > 0.95
    scale = np.linalg.svd(affine[:3, :3]).S
    assert np.all((scale > 0.8) & (scale < 1.15))
    upside_down = nib.Nifti1Image(np.asarray(brain.dataobj)[:, :, ::-1], brain.affine)
    _, fit = register(upside_down)
    assert fit.correlation < 0.3 and not fit.is_good


@pytest.mark.parametrize(("fit", "good"), [((0.96, 0.6), True), ((0.96, 0.3), False), ((0.8, 0.6), False)])
def test_fit_needs_both_overlap_and_correlation(fit, good):
    assert Fit(*fit).is_good is good


def test_resampling_follows_the_affines():
    generator = np.random.default_rng(0)
    image = nib.Nifti1Image(generator.random((6, 7, 8), np.float32), np.diag([2, 2, 2, 1]))
    assert np.allclose(resample(image, np.eye(4), image.affine, image.shape), image.dataobj)
    shift = np.eye(4)
    shift[:3, 3] = [2, 0, -4]  # one voxel along x, two back along z
    moved = resample(image, shift, image.affine, image.shape, outside=-1)
    assert np.allclose(moved[:5, :, 2:], np.asarray(image.dataobj)[1:, :, :6])
    assert np.all(moved[5] == -1) and np.all(moved[:, :, :2] == -1)


def test_template_is_a_brain_in_mni_space():
    template = load_brain_template()
    voxels = np.asarray(template.dataobj)
    assert voxels.shape == (197, 233, 189) and np.array_equal(template.affine[:3, :3], np.eye(3))
    assert 1800 < (voxels > 0).sum() / 1000 < 2000  # ml
    commissure = np.round(np.linalg.inv(template.affine) @ [0, 0, 0, 1]).astype(int)[:3]
    assert voxels[tuple(commissure)] > 0


def test_missing_template_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(registration, "template_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match="mni_icbm152_t1"):
        load_brain_template.__wrapped__()


def test_missing_itk_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "itk", None)
    with pytest.raises(ConfigError, match=r"pip install pathology-screen\[ixi\]"):
        import_itk()
