"""Which scans a run screens, and which it refuses."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from monai.data import DataLoader
from monai.transforms import Compose

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.screening import AcceptedScans, Finding, context, scans


def save_scan(path, value=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6) * value
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 2.0, 1.0])), path)
    return str(path)


@pytest.fixture
def items(slices, brain, tmp_path):
    """A good scan, one with NaN, one that is not there, another good one."""
    return [
        {"name": "first", "image": str(brain)},
        {"name": "broken", "image": save_scan(tmp_path / "broken.nii.gz", np.nan)},
        {"name": "absent", "image": str(tmp_path / "absent.nii.gz")},
        {"name": "last", "image": str(slices[1])},
    ]


# --- AcceptedScans ---


def test_refused_scans_are_left_out_and_all_are_accounted_for(items, brain_predictor):
    accepted = AcceptedScans(items, brain_predictor)
    for _ in range(2):  # a second pass starts its own account
        assert [item["name"] for item in accepted] == ["first", "last"]
        assert {name: error.code for name, error in accepted.refused.items()} == {
            "broken": "not_finite",
            "absent": "not_found",
        }
        assert list(accepted.contexts) == ["first", "broken", "absent", "last"]
    assert (
        accepted.contexts["first"].source["format"] == "nifti"
        and accepted.contexts["first"].findings == []
    )
    assert [finding.code for finding in accepted.contexts["last"].findings] == ["not_registered"]
    assert all(list(one.seconds) == ["preparation"] for one in accepted.contexts.values())


def test_the_account_grows_scan_by_scan(items, brain_predictor):
    accepted = AcceptedScans(items, brain_predictor)
    passed = iter(accepted)
    assert next(passed)["name"] == "first" and accepted.refused == {}
    assert next(passed)["name"] == "last" and len(accepted.refused) == 2


def test_slices_are_those_of_the_predictor(items, brain_predictor):
    (accepted,) = AcceptedScans(items[:1], brain_predictor)
    assert np.array_equal(
        accepted["image"], brain_predictor.prepare({"image": items[0]["image"]})["image"]
    )
    (other,) = AcceptedScans([items[0] | {"z_mm": 30.0}], brain_predictor)
    assert (accepted["image"].meta["z_mm"], other["image"].meta["z_mm"]) == (23.0, 30.0)


def test_what_the_gate_finds_is_kept_and_refuses(items, brain_predictor, monkeypatch):
    found = [Finding("voxel_size", "9 mm", "up to 8 mm", refused=False)]
    monkeypatch.setattr(context, "geometry_findings", lambda *scan: found)
    accepted = AcceptedScans(items[:1], brain_predictor)
    assert len(list(accepted)) == 1 and accepted.contexts["first"].findings == found
    found[:] = [Finding("voxel_size", "9 mm", "up to 8 mm", hint="Resample it")]
    assert list(accepted) == [] and accepted.contexts["first"].findings == found
    assert str(accepted.refused["first"]).endswith("9 mm; accepted: up to 8 mm. Resample it")


def failing(predictor, error):
    """The predictor with a last step that raises."""

    def fail(item):
        raise error

    return replace(predictor, preprocessing=Compose([*predictor.preprocessing.transforms, fail]))


@pytest.mark.parametrize("error", [ValueError("bug"), ConfigError("no such grid"), MemoryError()])
def test_an_error_that_is_no_refusal_ends_the_run(error, items, brain_predictor):
    with pytest.raises(type(error)):
        list(AcceptedScans(items[-1:], failing(brain_predictor, error)))


def test_a_refusal_needs_no_monai_around_it(items, brain_predictor):
    refusal = InputError("no_tissue", "the slice")
    accepted = AcceptedScans(items[-1:], failing(brain_predictor, refusal))
    assert list(accepted) == [] and accepted.refused == {"last": refusal}


def test_worker_processes_are_refused_for_they_would_lose_refusals(items, brain_predictor):
    accepted = AcceptedScans(items, brain_predictor)
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
    found = scans(
        None, datalist("images/sub-1_T1w.nii.gz", "images/sub-2.run-1.nii", "images/1.2.840.NII")
    )
    assert [item["name"] for item in found] == ["1T1w", "2run1", "12840"]


def test_files_of_one_name_in_different_folders_keep_apart(datalist):
    entries = ("site/sub-1/anat/T1w.nii.gz", "site/sub-2/anat/T1w.nii.gz", "site/sub 3/T1w.nii.gz")
    found = scans(None, datalist(*entries))
    assert [item["name"] for item in found] == ["1anatT1w", "2anatT1w", "sub3T1w"]
    assert all(item["image"].endswith(entry) for item, entry in zip(found, entries))


def test_of_an_item_its_name_and_what_reading_needs_stay(datalist):
    (item,) = scans(
        None,
        datalist({"image": "a.nii.gz", "name": "case-7", "axial_slice": True, "subject": "S1"}),
    )
    assert set(item) == {"image", "name", "axial_slice"} and item["name"] == "case7"
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


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", ".hidden", "a b", "a\\b", "é1", "a\n"]
)
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
