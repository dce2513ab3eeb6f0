"""From a path to an outcome."""

import json
import threading
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from scan_builders import dicom_datasets, save
from scipy.ndimage import affine_transform

from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.io import read_scan
from pathology_screen.screening import Screener
from pathology_screen.screening.screener import check_slices
from pathology_screen.transforms import eval_transforms


def test_the_score_is_the_mean_of_the_map_and_decides(phantoms, make_screener, make_calibration):
    result = make_screener()(phantoms[0])
    image = eval_transforms(size=64)({"image": str(phantoms[0])})["image"][0].numpy()
    assert np.array_equal(result.slices[0].image, image)
    assert result.score == pytest.approx(0.1 * image.mean(), rel=1e-5)
    assert result.outcome == "suspicious" and result.score > result.image_threshold == 0.02
    assert (result.percentile, result.p_value) == (100, pytest.approx(1 / 21))
    high = make_calibration([10 * score for score in (*range(1, 21),)])
    calm = make_screener(high)(phantoms[0])
    assert calm.outcome == "normal" and calm.percentile == 0 and calm.p_value == 1
    assert calm.score == result.score


def test_the_pixel_threshold_has_no_part_in_the_outcome(phantoms, make_screener, make_calibration):
    for pixel_threshold in (0.01, 0.09, 5.0):
        result = make_screener(make_calibration(pixel_threshold=pixel_threshold))(phantoms[0])
        assert result.outcome == "suspicious"
        assert bool(result.regions) == (pixel_threshold < 1)


def test_volumes_lie_on_the_voxels_of_the_scan(phantoms, make_screener):
    scan = read_scan(phantoms[1])
    result = make_screener()(phantoms[1])
    assert result.map_volume.shape == result.regions_volume.shape == scan.voxels.shape
    assert np.allclose(result.affine, scan.affine)
    level = result.slices[0].level
    lit = np.flatnonzero(result.map_volume.any(axis=(0, 1)))
    assert lit.tolist() == [level]
    inside = scan.voxels[..., level] > 0
    expected = result.map_volume[..., level][inside]
    assert (
        np.corrcoef(expected, scan.voxels[..., level][inside])[0, 1] > 0.8
    )  # a share of the image, blurred by the grid
    assert np.array_equal(result.regions_volume > 0, np.isin(result.regions_volume, [r.label for r in result.regions]))


def test_pixels_of_a_slice_lie_where_the_scan_has_the_same_value(phantoms, make_screener):
    scan, (one,) = read_scan(phantoms[1]), make_screener()(phantoms[1]).slices
    assert np.allclose(np.linalg.norm(one.affine[:3, :2], axis=0), 208 / 64)
    to_voxel = np.linalg.solve(scan.affine, one.affine)
    seen = affine_transform(scan.voxels, to_voxel, output_shape=(64, 64, 1), order=1)[..., 0]
    assert np.allclose((to_voxel @ [31, 31, 0, 1])[2], one.level)
    assert np.corrcoef(seen.ravel(), one.image.ravel())[0, 1] > 0.97


def test_all_slices_hold_the_one_slice_and_the_same_outcome(phantoms, make_screener):
    screener = make_screener()
    one, all_ = screener(phantoms[1]), screener(phantoms[1], slices="all")
    assert len(all_.slices) == 11 and [s.level for s in all_.slices] == list(range(11))
    assert (all_.outcome, all_.scored_slice) == (one.outcome, one.slices[0].level)
    assert all_.score == pytest.approx(one.score, rel=1e-5)
    level = one.slices[0].level
    assert np.allclose(all_.map_volume[..., level], one.map_volume[..., level], atol=1e-5)
    assert all_.map_volume.any(axis=(0, 1)).all() and all(region.volume_ml > 0 for region in all_.regions)


def test_a_calibration_on_all_levels_takes_the_highest_score(phantoms, make_screener, make_calibration):
    result = make_screener(make_calibration(level="all"))(phantoms[0], slices="all")
    assert result.score == max(one.score for one in result.slices)
    assert result.slices[result.scored_slice].score == result.score


def test_a_level_that_is_not_calibrated_has_a_map_and_no_outcome(phantoms, make_screener, make_calibration):
    result = make_screener()(phantoms[0], slices=3)
    assert (result.outcome, result.code) == ("not_assessable", "not_calibrated")
    assert result.score is None and result.map_volume.any() and result.slices[0].level == 3
    fitted_there = make_screener(make_calibration(level=3))
    assert fitted_there(phantoms[0], slices=3).outcome == "suspicious"
    assert fitted_there(phantoms[0]).code == "not_calibrated"


def test_a_scan_that_was_read_is_screened_likewise(phantoms, make_screener):
    screener = make_screener()
    assert screener(read_scan(phantoms[0])).score == screener(str(phantoms[0])).score


def test_dicom_and_nifti_of_one_scan_agree(phantoms, make_screener, tmp_path):
    image = nib.as_closest_canonical(nib.load(phantoms[0]))
    voxels, spacing = np.asarray(image.dataobj), nib.affines.voxel_sizes(image.affine)
    lps = np.flip(voxels, axis=(0, 1)).transpose(2, 1, 0).astype("uint16")  # slices, rows to posterior, columns to left
    folder = save(dicom_datasets(lps, spacing=(spacing[2], spacing[1], spacing[0])), tmp_path / "series")
    screener = make_screener()
    dicom, nifti = screener(folder), screener(phantoms[0])
    assert dicom.outcome == nifti.outcome != "not_assessable"
    assert dicom.score == pytest.approx(nifti.score, rel=1e-4)
    assert np.allclose(dicom.slices[0].image, nifti.slices[0].image, atol=1e-3)


def test_what_cannot_be_read_is_not_assessable(tmp_path, make_screener):
    (tmp_path / "text.nii.gz").write_text("no image")
    nan = nib.Nifti1Image(np.full((8, 8, 8), np.nan, np.float32), np.eye(4))
    nib.save(nan, tmp_path / "nan.nii.gz")
    for path, code in ((tmp_path / "lost.nii", "not_found"), (tmp_path / "nan.nii.gz", "not_finite")):
        result = make_screener()(path)
        assert (result.outcome, result.code) == ("not_assessable", code) and f"[{code}]" in result.reason
        assert result.score is None and result.map_volume is None and result.slices == ()
    assert make_screener()(tmp_path / "text.nii.gz").outcome == "not_assessable"


def test_stages_are_timed_apart(phantoms, make_screener):
    seconds = make_screener()(phantoms[0]).seconds
    assert list(seconds) == ["reading", "preparation", "screening"] and all(value > 0 for value in seconds.values())
    assert list(make_screener()("nowhere").seconds) == ["reading"]


@pytest.mark.parametrize("slices", ["some", 0.0, 1.5, True, None])
def test_slices_that_mean_nothing_are_refused(slices):
    with pytest.raises(ConfigError, match="slices are"):
        check_slices(slices)


def test_too_few_people_for_the_rate(make_screener, make_calibration):
    with pytest.raises(ConfigError, match="18 healthy people allow a false positive rate of 0.0526 at best"):
        make_screener(make_calibration([0.001 * n for n in range(18)]))
    make_screener(make_calibration([0.001 * n for n in range(19)]))
    make_screener(make_calibration([0.001 * n for n in range(9)]), rate=0.1)


def test_threads_share_a_screener(phantoms, make_screener):
    screener = make_screener()
    expected = [screener(path).score for path in phantoms]
    found = {}

    def work(number):
        found[number] = [screener(path).score for path in phantoms]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 4


# --- the shipped bundle ---


@pytest.fixture(scope="module")
def shipped():
    start = time.perf_counter()
    screener = Screener.from_bundle("ra")
    return screener, time.perf_counter() - start


def test_the_shipped_bundle_loads_and_screens_in_time(shipped, phantoms):
    screener, loading = shipped
    result = min((screener(phantoms[1]) for _ in range(3)), key=lambda result: result.seconds["screening"])
    assert result.outcome in ("normal", "suspicious")
    assert loading < 6 and result.seconds["screening"] < 1.5  # on a busy machine; docs/screening.md has the figures


def test_the_same_scan_gets_the_same_score(shipped, phantoms):
    first, second = (shipped[0](phantoms[1]) for _ in range(2))
    assert first.score == second.score and np.array_equal(first.map_volume, second.map_volume)
    assert json.dumps(first.provenance) == json.dumps(second.provenance)


def test_no_configuration_is_evaluated(tmp_path):
    """A bundle whose files hold expressions is read as data; an expression where data are needed is refused."""
    from pathology_screen.bundles import bundle_root

    for part in ("configs", "models"):
        (tmp_path / "mine" / part).mkdir(parents=True)
        for file in (bundle_root("ra") / part).iterdir():
            (tmp_path / "mine" / part / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "mine/configs/inference.json"
    config = json.loads(path.read_text())
    bomb = f"$open({str(tmp_path / 'harm')!r}, 'w')"
    path.write_text(json.dumps(config | {"imports": [bomb], "initialize": [bomb]}))
    Screener.from_bundle(tmp_path / "mine")
    path.write_text(json.dumps(config | {"level": bomb}))
    with pytest.raises(ArtifactError, match="expression"):
        Screener.from_bundle(tmp_path / "mine")
    path.write_text(json.dumps(config | {"network_def": {"_target_": "os.system", "command": "true"}}))
    with pytest.raises(ConfigError, match=r"not os\.system"):
        Screener.from_bundle(tmp_path / "mine")
    assert not (tmp_path / "harm").exists()


def test_weights_and_calibration_have_to_belong_together(tmp_path, shipped):
    from pathology_screen.bundles import bundle_root

    models = bundle_root("ra") / "models"
    own = tmp_path / "model.pt"
    state = torch.load(models / "model.pt", weights_only=True)
    torch.save({name: value + 0.01 for name, value in state.items()}, own)
    with pytest.raises(ArtifactError, match=r"calibration\.json is missing beside the weights"):
        Screener.from_bundle("ra", weights=own)
    with pytest.raises(ArtifactError, match="weights_sha256"):
        Screener.from_bundle("ra", weights=own, calibration=models / "calibration.json")
    assert Calibration.load(models / "calibration.json").agreements
    with pytest.raises(ArtifactError, match="there are no weights"):
        Screener.from_bundle("ra", weights=tmp_path / "lost.pt")
    with pytest.raises(ConfigError, match="profile"):
        Screener.from_bundle("ra", profile="huge")
