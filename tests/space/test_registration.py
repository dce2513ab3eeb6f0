"""Registration: a head is found wherever it lies, the same at every run, and what does not fit is
refused."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.simulation import simulate
from pathology_screen.errors import InputError
from pathology_screen.io import read_scan
from pathology_screen.space import (
    Fit,
    check_fit,
    find_brain,
    load_brain_template,
    register,
    registration,
    take_plane,
)

DEGREES, SHIFT, FACTORS = [14.0, -8.0, 17.0], [9.0, -14.0, 21.0], [1.04, 0.95, 1.02]
MOVE = np.eye(4)
MOVE[:3, :3] = Rotation.from_euler("xyz", DEGREES, degrees=True).as_matrix() * FACTORS
MOVE[:3, 3] = SHIFT


@pytest.fixture(scope="module")
def phantom():
    """Voxels, affine and brain of a phantom head."""
    volume = simulate(load_template(), (7, 1))
    return np.float32(volume.image), volume.affine, np.asarray(volume.brain, bool)


@pytest.fixture(scope="module")
def found(phantom):
    return register(*phantom)


def test_phantom_fits_the_mni_template(phantom, found):
    voxels, affine, inside = phantom
    to_scan, fit = found
    check_fit(fit)
    assert fit.dice > 0.95 and fit.turn < 30 and fit.shown > 0.99
    scale = np.linalg.svd(to_scan[:3, :3]).S
    assert np.all((scale > 0.8) & (scale < 1.15))
    shown = take_plane(voxels * inside, affine, to_scan) > 0
    brain = load_brain_template()
    target = take_plane(np.asarray(brain.dataobj), brain.affine, np.eye(4)) > 0
    assert 2 * (shown & target).sum() / (shown.sum() + target.sum()) > 0.94


def test_a_moved_head_is_found_where_it_was_moved_to(phantom, found):
    voxels, affine, inside = phantom
    to_scan, fit = register(voxels, MOVE @ affine, inside)
    check_fit(fit)
    points = apply_affine(np.linalg.inv(found[0]) @ affine, np.argwhere(inside)[::200])
    apart = apply_affine(to_scan, points) - apply_affine(MOVE @ found[0], points)
    assert np.linalg.norm(apart, axis=1).max() < 0.7  # mm
    assert fit.turn == pytest.approx(22, abs=3)


def test_same_brain_gives_the_same_bits_in_any_thread(phantom, found):
    with ThreadPoolExecutor(2) as pool:
        for affine, fit in pool.map(lambda _: register(*phantom), range(2)):
            assert np.array_equal(affine, found[0]) and fit == found[1]


@pytest.fixture
def costs(monkeypatch):
    """Every call of a comparison: the comparison, the pose, the cost, and its slopes."""
    cost, calls = registration._Comparison.cost, []

    def noted(self, parameters):
        calls.append((self, parameters, *cost(self, parameters)))
        return calls[-1][2:]

    monkeypatch.setattr(registration._Comparison, "cost", noted)
    return calls


def test_each_resolution_is_set_up_once_and_bad_starts_are_given_up_early(phantom, costs):
    register(*phantom)
    used = [comparison for comparison, *_ in costs]
    assert len(set(used)) == 3
    coarsest = used.count(used[0])
    assert coarsest < 300 and len(used) - coarsest < 120  # every start to its end takes over 300
    assert registration._points(4, 4.0) is used[0].points


def test_slopes_of_the_information_are_those_of_small_steps(phantom, costs):
    register(*phantom)
    comparison, pose, _, slopes = costs[3]
    for number in (0, 5, 3, 11):
        step = np.eye(12)[number] * 1e-4
        apart = comparison.cost(pose + step)[0] - comparison.cost(pose - step)[0]
        assert slopes[number] == pytest.approx(apart / 2e-4, rel=0.05, abs=0.01)


def apart_from_a_search_without_shortcuts(voxels, affine, inside, monkeypatch):
    """mm over the brain between the map that is found and the one of going on from every start."""
    found, _ = register(voxels, affine, inside)
    monkeypatch.setattr(registration, "FROM_EACH_START", 25)
    monkeypatch.setattr(registration, "KEPT", len(registration.STARTS))
    full, _ = register(voxels, affine, inside)
    monkeypatch.undo()
    places = apply_affine(affine, np.argwhere(inside)[::100])
    both = (apply_affine(np.linalg.inv(to_scan), places) for to_scan in (found, full))
    return np.linalg.norm(np.subtract(*both), axis=1)


def test_giving_up_bad_starts_moves_the_phantom_by_less_than_half_a_millimetre(
    phantom, monkeypatch
):
    assert apart_from_a_search_without_shortcuts(*phantom, monkeypatch).max() < 0.5


@pytest.mark.slow
@pytest.mark.needs_shared
def test_giving_up_bad_starts_moves_no_real_head_by_half_a_millimetre(shared_data, monkeypatch):
    patterns = ("whole_head/*", "dicom_hanke_t1", "unseen_sites/ds000011/*.nii.gz")
    patterns += ("extracted/ds002748/*.nii.gz", "extracted/open_ms/*T1w*", "glioma/*T1w*")
    for path in sorted(path for pattern in patterns for path in shared_data.glob(pattern)):
        scan = read_scan(path)
        place = scan.voxels, scan.affine
        inside, _ = find_brain(*place)
        apart = apart_from_a_search_without_shortcuts(*place, inside, monkeypatch)
        assert apart.max() < 0.5, (path.name, apart.mean(), apart.max())


BALL = np.linalg.norm(np.indices((60, 60, 12)).T - [30, 30, 6], axis=-1).T < 25
WRONG = {
    "upside down": lambda voxels: voxels[:, :, ::-1],
    "axes exchanged": lambda voxels: voxels.transpose(1, 0, 2),
    "lower half": lambda voxels: voxels[:, :, :12],
    "a ball": lambda voxels: BALL.astype(np.float32),
    "nothing": np.zeros_like,
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_whole_brain_with_rightly_named_axes_is_refused(phantom, what):
    voxels, affine, inside = phantom
    wrong = WRONG[what](voxels * inside)
    with pytest.raises(InputError) as refusal:
        check_fit(register(wrong, affine, wrong > 0)[1])
    assert refusal.value.code == ("no_tissue" if what == "nothing" else "registration_failed")


def test_a_fit_below_a_limit_is_refused_with_its_number():
    check_fit(Fit(0.96, 0.6))
    for fit, named in (
        (Fit(0.8, 0.6), r"0\.80, at least 0\.85"),
        (Fit(0.96, 0.1), r"0\.10, at least"),
        (Fit(0.96, float("nan")), "nan"),
        (Fit(0.96, 0.6, turn=90), "90 degrees"),
        (Fit(0.96, 0.6, shown=0.7), "70%"),
    ):
        with pytest.raises(InputError, match=f"registration_failed.*{named}"):
            check_fit(fit)
