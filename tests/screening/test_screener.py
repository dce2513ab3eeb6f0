"""From a path to an outcome, past the reader and the acceptance gate."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose
from scan_builders import save, series_of
from scipy import ndimage as ndi
from template_brains import TO_SCAN, Located

from pathology_screen.bundles import bundle_root, read_settings
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.io import read_scan
from pathology_screen.predictor import Predictor, build_network
from pathology_screen.screening import Inspector, Screener
from pathology_screen.space import PLANE_Z


def test_a_single_slice_is_compared_as_it_is_with_a_warning(slices, make_screener):
    result = make_screener()(slices[1])
    one, seconds = result.slice, result.seconds
    assert (one.plane_mm, one.mni_affine, one.fit) == (None, None, None)
    assert [finding.code for finding in result.warnings] == ["not_registered"]
    assert all(region.peak_mni_mm is region.side is None for region in result.regions)
    lesion = result.regions_volume[..., 0]  # a PNG is one slice; its lesion is the brightest square
    assert result.map_volume.shape == read_scan(slices[1]).voxels.shape and lesion.any()
    assert list(seconds) == ["reading", "preparation", "screening"] and min(seconds.values()) > 0


@pytest.fixture
def registering(brain_predictor, make_brain_screener):
    """A screener that does not know where `brain` lies."""
    steps = brain_predictor.preprocessing.transforms
    preprocessing = Compose([step for step in steps if not isinstance(step, Located)])
    calibration = make_brain_screener().judge.calibration
    return Screener(replace(brain_predictor, preprocessing=preprocessing), calibration)


def test_a_volume_is_registered_and_its_plane_screened(brain, registering, make_brain_screener):
    """The template's brain comes back to where it was."""
    result, known = registering(brain), make_brain_screener()(brain)
    one = result.slice
    assert result.outcome != "not_assessable" and result.warnings == ()
    assert one.plane_mm == PLANE_Z and one.fit.dice > 0.98 and one.fit.correlation > 0.98
    assert np.abs(one.affine @ np.linalg.inv(one.mni_affine) - TO_SCAN).max() < 0.1
    assert np.corrcoef(known.slice.image.ravel(), one.image.ravel())[0, 1] > 0.999
    assert known.score == pytest.approx(result.score, rel=0.01)


def test_a_scan_that_does_not_fit_the_template_is_refused(brain, registering, tmp_path):
    """Half a turn about the vertical axis names left and right, front and back wrongly."""
    image = nib.load(brain)
    turned = nib.Nifti1Image(np.asarray(image.dataobj)[:, :, ::-1], image.affine)
    nib.save(turned, tmp_path / "upside_down.nii")
    result = registering(tmp_path / "upside_down.nii")
    assert (result.code, result.slice) == ("registration_failed", None)


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SPL"])
def test_volumes_lie_on_the_voxels_of_the_scan(brain, make_brain_screener, tmp_path, axcodes):
    stored = nib.load(brain)
    target = nib.orientations.axcodes2ornt(axcodes)
    turn = nib.orientations.ornt_transform(nib.io_orientation(stored.affine), target)
    nib.save(stored.as_reoriented(turn), tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    result = make_brain_screener(pixel_threshold=0.08)(tmp_path / "scan.nii")
    volume, regions = result.map_volume, result.regions_volume
    assert volume.shape == regions.shape == result.reconstruction_volume.shape
    assert volume.shape == scan.voxels.shape and np.allclose(result.affine, scan.affine)
    i, j, k = np.nonzero(volume)
    z = (np.linalg.inv(TO_SCAN) @ scan.affine @ [i, j, k, np.ones_like(i)])[2]
    # half a voxel of 2.4 mm, in the smaller millimetres of MNI
    assert len(i) > 1000 and np.abs(z - PLANE_Z).max() < 1.3
    # a share of the image, blurred by the grid
    assert np.corrcoef(volume[i, j, k], scan.voxels[i, j, k])[0, 1] > 0.85
    assert set(np.unique(regions)) - {0} <= {region.label for region in result.regions}
    assert regions.any() and (regions[volume == 0] == 0).all()


def test_pixels_of_the_slice_lie_where_the_scan_has_the_same_value(brain, make_brain_screener):
    scan, one = read_scan(brain), make_brain_screener()(brain).slice
    to_voxel = np.linalg.solve(scan.affine, one.affine)
    seen = ndi.affine_transform(scan.voxels, to_voxel, output_shape=(64, 64, 1), order=1)[..., 0]
    assert np.corrcoef(seen.ravel(), one.image.ravel())[0, 1] > 0.97
    assert np.allclose(one.affine, TO_SCAN @ one.mni_affine)
    assert np.allclose(one.mni_affine[:3, 0], [0, -233 / 64, 0])
    assert np.allclose(one.mni_affine[2], [0, 0, 1, PLANE_Z])


def test_regions_have_a_side_and_a_place_in_mni_space(brain, make_brain_screener, tmp_path):
    """A bright ball that is put at x = -40 mm, the patient's left, is found there."""
    image = nib.load(brain)
    voxels = np.array(image.dataobj)
    indices = np.vstack([np.indices(voxels.shape).reshape(3, -1), np.ones(voxels.size)])
    places = np.linalg.inv(TO_SCAN) @ image.affine @ indices
    ball = np.linalg.norm(places[:3].T - (-40, -20, PLANE_Z), axis=1).reshape(voxels.shape) < 12
    voxels[ball] = 1500
    nib.save(nib.Nifti1Image(voxels, image.affine), tmp_path / "ball.nii")
    first = make_brain_screener(pixel_threshold=0.095)(tmp_path / "ball.nii").regions[0]
    assert first.side == "left" and first.peak_mni_mm == pytest.approx((-40, -20, PLANE_Z), abs=12)
    assert first.area_mm2 == pytest.approx(np.pi * 12**2 * 1.05**2, rel=0.35)
    assert np.allclose(TO_SCAN @ [*first.peak_mni_mm, 1], [*first.peak_mm, 1])


def test_dicom_and_nifti_and_what_was_read_of_one_scan_agree(brain, make_brain_screener, tmp_path):
    screener = make_brain_screener()
    dicom, nifti = screener(save(series_of(nib.load(brain)), tmp_path / "series")), screener(brain)
    assert dicom.outcome == nifti.outcome != "not_assessable"
    assert dicom.score == pytest.approx(nifti.score, rel=1e-4)
    assert np.allclose(dicom.slice.image, nifti.slice.image, atol=1e-3)
    assert screener(read_scan(brain)).score == screener(str(brain)).score == nifti.score


def test_threads_share_a_screener(slices, brain, make_brain_screener):
    screener, paths = make_brain_screener(), [*slices, brain]
    expected = [screener(path).score for path in paths]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda path: screener(path).score, paths * 4)
    assert None not in expected and list(found) == expected * 4


def test_what_is_refused_is_not_assessable(brain, make_screener):
    for path, code in (("nowhere", "not_found"), (brain, "other_domain")):
        result = make_screener()(path)
        assert (result.outcome, result.code) == ("not_assessable", code)
        assert f"[{code}]" in result.reason
        assert result.score is None and result.map_volume is None and result.slice is None
    last = result.findings[-1]
    assert last.code == code and result.reason.endswith(f"accepted: whole_head. {last.hint}")
    assert list(make_screener()("nowhere").seconds) == ["reading"]


def test_a_fault_of_the_software_is_none_of_the_scans(slices, predictor, make_screener):
    def broken(item):
        raise ZeroDivisionError

    faulty = Compose([*predictor.preprocessing.transforms, broken])
    with pytest.raises(ZeroDivisionError):
        calibration = make_screener().judge.calibration
        Screener(replace(predictor, preprocessing=faulty), calibration)(slices[0])
    inspected = Inspector(faulty, "whole_head")(slices[0])
    assert "ZeroDivisionError in test_screener.py" in str(inspected.refusal)


def test_a_bundle_scores_alike_and_none_of_its_configuration_is_evaluated(
    slices, make_calibration, tmp_path
):
    """Expressions are read as data; where data are needed the bundle is refused."""
    bundle, models = tmp_path / "mine", tmp_path / "mine/models"
    shutil.copytree(bundle_root("vae") / "configs", bundle / "configs")
    models.mkdir()
    torch.manual_seed(0)
    network = build_network("vae", read_settings("vae")["network_def"])
    torch.save(network.state_dict(), models / "model.pt")
    calibration = replace(make_calibration(), identity=Predictor.load(bundle).identity)
    calibration.save(models / "calibration.json")
    first, second = (Screener.from_bundle(bundle)(slices[1]) for _ in range(2))
    assert first.score == second.score and np.array_equal(first.map_volume, second.map_volume)
    assert json.dumps(first.provenance) == json.dumps(second.provenance)

    path, harm = bundle / "configs/inference.json", tmp_path / "harm"
    config, bomb = json.loads(path.read_text()), f"$open({str(harm)!r}, 'w')"
    path.write_text(json.dumps(config | {"imports": [bomb], "initialize": [bomb]}))
    Screener.from_bundle(bundle)
    command = {"_target_": "os.system", "command": "true"}
    for entry in ({"slice": bomb}, {"network_def": command}):
        path.write_text(json.dumps(config | entry))
        with pytest.raises((ArtifactError, ConfigError)):
            Screener.from_bundle(bundle)
    assert not harm.exists()
    with pytest.raises(ConfigError, match="profile"):
        Screener.from_bundle(bundle, profile="huge")
