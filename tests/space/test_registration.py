"""Registration: a known affine is recovered, the same at every run, and what does not fit is
refused."""

from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.simulation import simulate
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.space import (
    Fit,
    check_fit,
    load_brain_template,
    locate,
    register,
    take_plane,
    template,
)

MOVES = np.array(
    [[14.0, -8.0, 17.0], [9.0, -14.0, 21.0], [1.04, 0.95, 1.02]]
)  # degrees, mm, factors


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
    apart = np.linalg.norm(
        nib.affines.apply_affine(affine, points) - nib.affines.apply_affine(move, points), axis=1
    )
    assert apart.max() < 0.5  # mm, anywhere in the brain
    turned = [np.linalg.svd(matrix[:3, :3]) for matrix in (affine, move)]
    between = Rotation.from_matrix((turned[0].U @ turned[0].Vh) @ (turned[1].U @ turned[1].Vh).T)
    assert np.degrees(between.magnitude()) < 0.25
    assert np.allclose(turned[0].S, turned[1].S, atol=0.005)
    assert fit.dice > 0.98 and fit.correlation > 0.95
    check_fit(fit)


def test_same_brain_gives_the_same_bits_in_any_thread(brain, move, found):
    moved = nib.Nifti1Image(brain.dataobj, move @ brain.affine)
    with ThreadPoolExecutor(2) as pool:
        for affine, fit in pool.map(lambda _: register(moved, brain), range(2)):
            assert np.array_equal(affine, found[0]) and fit == found[1]


def test_phantom_fits_the_mni_template(brain):
    to_scan, fit = register(brain)
    check_fit(fit)
    assert fit.dice > 0.95 and fit.turn < 30 and fit.shown > 0.99
    scale = np.linalg.svd(to_scan[:3, :3]).S
    assert np.all((scale > 0.8) & (scale < 1.15))
    voxels = np.asarray(brain.dataobj)
    again, _ = locate(voxels + 50, brain.affine, voxels > 0)
    shown = take_plane(voxels, brain.affine, again)
    target = take_plane(
        np.asarray(load_brain_template().dataobj), load_brain_template().affine, np.eye(4)
    )
    both = (shown > 0) & (target > 0)
    assert 2 * both.sum() / ((shown > 0).sum() + (target > 0).sum()) > 0.94


WRONG = {
    "upside down": lambda voxels: voxels[:, :, ::-1],
    "axes exchanged": lambda voxels: voxels.transpose(1, 0, 2),
    "lower half": lambda voxels: voxels[:, :, :12],
    "a ball": lambda voxels: (
        np.hypot.reduce(np.indices((60, 60, 12)).T - [6, 30, 30], axis=-1).T < 25
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_whole_brain_with_rightly_named_axes_is_refused(brain, what):
    voxels = WRONG[what](np.asarray(brain.dataobj)).astype(np.float32)
    with pytest.raises(InputError) as refusal:
        locate(voxels, brain.affine, voxels > 0)
    assert refusal.value.code == "registration_failed"


def test_an_empty_brain_is_refused():
    with pytest.raises(InputError) as refusal:
        locate(np.ones((20, 20, 20), np.float32), np.eye(4), np.zeros((20, 20, 20), bool))
    assert refusal.value.code == "no_tissue"


@pytest.mark.parametrize(
    ("fit", "named"),
    [
        (Fit(0.8, 0.6), r"0\.80, at least 0\.85"),
        (Fit(0.96, 0.1), r"0\.10, at least"),
        (Fit(0.96, float("nan")), "nan"),
        (Fit(0.96, 0.6, turn=90), "90 degrees"),
        (Fit(0.96, 0.6, shown=0.7), "70%"),
    ],
)
def test_a_fit_below_a_limit_is_refused_with_its_number(fit, named):
    with pytest.raises(InputError, match=named) as refusal:
        check_fit(fit)
    assert refusal.value.code == "registration_failed"
    check_fit(Fit(0.96, 0.6))


def test_template_is_a_brain_in_mni_space():
    template = load_brain_template()
    voxels = np.asarray(template.dataobj)
    assert voxels.shape == (197, 233, 189) and np.array_equal(template.affine[:3, :3], np.eye(3))
    assert 1800 < (voxels > 0).sum() / 1000 < 2000  # ml
    commissure = np.round(np.linalg.inv(template.affine) @ [0, 0, 0, 1]).astype(int)[:3]
    assert voxels[tuple(commissure)] > 0


def test_missing_template_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(template, "template_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match="mni_icbm152_t1"):
        load_brain_template.__wrapped__()
