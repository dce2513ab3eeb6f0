"""Which scans a run screens, and which it refuses."""

import json

import nibabel as nib
import numpy as np
import pytest
from monai.data import DataLoader
from pathology_screen.screening.preparation import Account, Preparation

from pathology_screen.anomaly import AnomalyMap
from pathology_screen.calibration import Calibration
from pathology_screen.engines import calibration_identity
from pathology_screen.errors import ArtifactError, ConfigError, InputError
from pathology_screen.io import read_scan
from pathology_screen.screening import AcceptedScans, Finding, calibration_beside, preparation, scans
from pathology_screen.transforms import eval_transforms, scan_image

PREPROCESSING = {"grid": "isotropic", "size": 128}


def save_scan(path, value=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6) * value
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0])), path)
    return str(path)


@pytest.fixture
def items(phantoms, tmp_path):
    """A good scan, one with NaN, one that is not there, another good one."""
    return [
        {"name": "first", "image": str(phantoms[0])},
        {"name": "broken", "image": save_scan(tmp_path / "broken.nii.gz", np.nan)},
        {"name": "absent", "image": str(tmp_path / "absent.nii.gz")},
        {"name": "last", "image": str(phantoms[1])},
    ]


@pytest.fixture(scope="module")
def transforms():
    return eval_transforms(size=64)


# --- AcceptedScans ---


def test_refused_scans_are_left_out_and_all_are_accounted_for(items, transforms):
    accepted = AcceptedScans(items, transforms)
    for _ in range(2):  # a second pass starts its own account
        assert [item["name"] for item in accepted] == ["first", "last"]
        assert {name: error.code for name, error in accepted.refused.items()} == {
            "broken": "not_finite",
            "absent": "not_found",
        }
        assert list(accepted.accounts) == ["first", "broken", "absent", "last"]
    account = accepted.accounts["first"]
    assert account.source["format"] == "nifti" and list(account.seconds) == ["reading", "preparation"]
    assert list(accepted.accounts["absent"].seconds) == ["reading"]


def test_the_account_grows_scan_by_scan(items, transforms):
    accepted = AcceptedScans(items, transforms)
    passed = iter(accepted)
    assert next(passed)["name"] == "first" and accepted.refused == {}
    assert next(passed)["name"] == "last" and len(accepted.refused) == 2


def test_slices_are_those_of_the_preparation(items, transforms):
    (accepted,) = AcceptedScans(items[:1], transforms)
    (prepared,) = Preparation(transforms)(scan_image(read_scan(items[0]["image"])), "middle", Account())
    assert np.array_equal(accepted["image"], prepared["image"])
    assert accepted["image"].meta["level"] == prepared["image"].meta["level"]


def test_what_the_gate_finds_is_kept_and_refuses(items, transforms, monkeypatch):
    found = [Finding("voxel_size", "9 mm", "up to 8 mm", refused=False)]
    monkeypatch.setattr(preparation, "geometry_findings", lambda *scan: found)
    accepted = AcceptedScans(items[:1], transforms)
    assert len(list(accepted)) == 1 and accepted.accounts["first"].findings == found
    found[:] = [Finding("voxel_size", "9 mm", "up to 8 mm", hint="Resample it")]
    assert list(accepted) == [] and accepted.accounts["first"].findings == found
    assert str(accepted.refused["first"]).endswith("9 mm; accepted: up to 8 mm. Resample it")


@pytest.mark.parametrize(("level", "expected"), [(3, 3), (0.0001, 0), ("middle", 5)])
def test_an_item_may_name_its_level(level, expected, items, transforms):
    (item,) = AcceptedScans([items[0] | {"level": level}], transforms)
    assert item["image"].meta["level"] == expected and item["level"] == level


@pytest.mark.parametrize("level", ["all", "top", 1.5])
def test_a_level_that_means_nothing_ends_the_run(level, items, transforms):
    with pytest.raises(ConfigError, match="a level is"):
        list(AcceptedScans([items[0] | {"level": level}], transforms))


def test_every_level_is_read_even_where_a_part_would_do(items, tmp_path):
    """What is wrong with another slice is wrong with the scan."""
    voxels = np.array(nib.load(items[0]["image"]).dataobj, dtype=np.float32)
    voxels[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(voxels, nib.load(items[0]["image"]).affine), tmp_path / "elsewhere.nii.gz")
    whole_head = eval_transforms(size=64, level="middle", domain="whole_head", grid="padded")
    accepted = AcceptedScans([{"name": "a", "image": str(tmp_path / "elsewhere.nii.gz")}], whole_head)
    assert list(accepted) == [] and accepted.refused["a"].code == "not_finite"


@pytest.mark.parametrize("error", [ValueError("bug"), ConfigError("no such grid"), MemoryError()])
def test_an_error_that_is_no_refusal_ends_the_run(error, items, transforms, monkeypatch):
    def fail(*arguments):
        raise error

    accepted = AcceptedScans(items, transforms)
    monkeypatch.setattr(accepted, "prepare", fail)
    with pytest.raises(type(error)):
        list(accepted)


def test_a_refusal_needs_no_monai_around_it(items, transforms, monkeypatch):
    refusal = InputError("no_tissue", "level 3")

    def refuse(*arguments):
        raise refusal

    accepted = AcceptedScans(items[:1], transforms)
    monkeypatch.setattr(accepted, "prepare", refuse)
    assert list(accepted) == [] and accepted.refused == {"first": refusal}


def test_worker_processes_are_refused_for_they_would_lose_refusals(items, transforms):
    accepted = AcceptedScans(items, transforms)
    assert len(list(DataLoader(accepted, batch_size=1, num_workers=0))) == 2
    with pytest.raises(ConfigError, match="num_workers"):
        list(DataLoader(accepted, batch_size=1, num_workers=1))


# --- what is screened ---


@pytest.fixture
def datalist(tmp_path):
    """Function that writes a datalist of test scans and their files."""

    def write(*entries):
        section = [{"image": entry} if isinstance(entry, str) else entry for entry in entries]
        for entry in section:
            save_scan(tmp_path / entry["image"])
        (tmp_path / "datalist.json").write_text(json.dumps({"test": section}))
        return str(tmp_path / "datalist.json")

    return write


def test_scans_below_a_folder_have_names_of_their_own(tmp_path):
    for subject in ("sub-1", "sub-2"):
        save_scan(tmp_path / subject / "T1w.nii.gz")
    assert [item["name"] for item in scans(str(tmp_path), None)] == ["1T1w", "2T1w"]


def test_names_are_letters_and_digits_of_the_files_where_all_lie_in_one_folder(datalist):
    found = scans(None, datalist("images/sub-1_T1w.nii.gz", "images/sub-2.run-1.nii", "images/1.2.840.NII"))
    assert [item["name"] for item in found] == ["1T1w", "2run1", "12840"]


def test_files_of_one_name_in_different_folders_keep_apart(datalist):
    entries = ("site/sub-1/anat/T1w.nii.gz", "site/sub-2/anat/T1w.nii.gz", "site/sub 3/T1w.nii.gz")
    found = scans(None, datalist(*entries))
    assert [item["name"] for item in found] == ["1anatT1w", "2anatT1w", "sub3T1w"]
    assert all(item["image"].endswith(entry) for item, entry in zip(found, entries))


def test_of_an_item_its_name_and_what_reading_needs_stay(datalist):
    (item,) = scans(None, datalist({"image": "a.nii.gz", "name": "case-7", "level": 3, "subject": "S1"}))
    assert set(item) == {"image", "name", "level"} and (item["name"], item["level"]) == ("case7", 3)
    (item,) = scans(None, datalist({"image": "a.nii.gz", "name": 7}))
    assert item["name"] == "7"


def test_paths_start_from_dataset_dir_where_it_is_named(datalist, tmp_path):
    path = datalist({"image": "a.nii.gz"})
    save_scan(tmp_path / "elsewhere/a.nii.gz")
    (item,) = scans(str(tmp_path / "elsewhere"), path)
    assert item["image"] == str(tmp_path / "elsewhere/a.nii.gz") and item["name"] == "a"


@pytest.mark.parametrize(
    "entries",
    [
        ({"image": "a.nii.gz", "name": "x"}, {"image": "b.nii.gz", "name": "x"}),
        ({"image": "a.nii.gz", "name": "x"}, {"image": "b.nii.gz", "name": "X"}),
        ({"image": "a.nii.gz", "name": "sub-1"}, {"image": "b.nii.gz", "name": "1"}),
        ({"image": "a.nii.gz", "name": "b"}, {"image": "b.nii.gz"}),
    ],
)
def test_two_scans_cannot_be_given_one_name(entries, datalist):
    with pytest.raises(ConfigError, match='"name"'):
        scans(None, datalist(*entries))


def test_paths_that_would_give_one_name_are_numbered(datalist):
    found = scans(None, datalist({"image": "a/1.nii.gz"}, {"image": "a_1.nii.gz"}))
    assert [item["name"] for item in found] == ["a1", "a12"]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", ".hidden", "a b", "a\\b", "é1", "a\n"])
def test_of_a_name_only_letters_and_digits_stay(name, datalist):
    (item,) = scans(None, datalist({"image": "a.nii.gz", "name": name}))
    assert item["name"].isascii() and item["name"].isalnum()


@pytest.mark.parametrize("name", ["..", "é", "", "日"])
def test_a_name_without_letters_or_digits_is_refused(name, datalist):
    with pytest.raises(ConfigError, match="no letter or digit"):
        scans(None, datalist({"image": "a.nii.gz", "name": name}))


def test_nothing_to_screen_is_refused(datalist, tmp_path):
    with pytest.raises(InputError, match="empty"):
        scans(None, datalist())
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="empty"):
        scans(str(tmp_path / "folder"), None)
    with pytest.raises(InputError, match="not_found"):
        scans(str(tmp_path / "nowhere"), None)


# --- the calibration beside the weights ---


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    identity = calibration_identity(path, PREPROCESSING, AnomalyMap("none"), 0.55)
    rates = {"all_pixels": 0.05, "brain_pixels": 0.1}
    Calibration(0.1, 0.05, rates, (0.5, 0.25), (0, 1), identity).save(tmp_path / "calibration.json")
    return path


def test_calibration_beside_its_weights(weights):
    assert calibration_beside(str(weights), PREPROCESSING, AnomalyMap("none")).n_subjects == 2


def test_a_calibration_of_something_else_is_refused(weights):
    with pytest.raises(ArtifactError, match="size"):
        calibration_beside(weights, PREPROCESSING | {"size": 64}, AnomalyMap("none"))
    with pytest.raises(ArtifactError, match="equalize"):
        calibration_beside(weights, PREPROCESSING, AnomalyMap("none", equalize=False))
    weights.write_bytes(b"other weights")
    with pytest.raises(ArtifactError, match="weights_sha256"):
        calibration_beside(weights, PREPROCESSING, AnomalyMap("none"))


def test_weights_without_calibration_are_refused(weights):
    weights.with_name("calibration.json").unlink()
    with pytest.raises(ArtifactError, match="run `calibrating`"):
        calibration_beside(weights, PREPROCESSING, AnomalyMap("none"))
