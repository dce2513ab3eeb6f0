"""Loading a scan as a MetaTensor, and preparing the slices of a section once."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image

from pathology_screen.errors import ConfigError, InputError, find_refusal
from pathology_screen.io import read_scan
from pathology_screen.transforms import LoadScand, StandardPlaned, prepare_slices

AFFINE = np.array([[0, 0, -2.0, 10], [-1.0, 0, 0, 20], [0, 3.0, 0, -30], [0, 0, 0, 1]])


def volume():
    voxels = np.random.default_rng(0).uniform(0, 100, (6, 7, 8)).astype(np.float32)
    voxels[0, 0, 0] = 0  # black, or the readers take the darkest for the background
    return voxels


def test_a_scan_becomes_a_metatensor_with_its_origin_as_a_file_and_as_it_was_read(nifti):
    path = nifti(volume(), AFFINE)
    for scan in (path, read_scan(path)):
        image = LoadScand("image")({"image": scan})["image"]
        assert isinstance(image, MetaTensor) and image.dtype == torch.float32
        assert image.shape == (1, 6, 7, 8) and np.array_equal(image[0], volume())
        assert image.meta["volume_shape"] == [6, 7, 8]
        assert np.allclose(image.affine, AFFINE)
        assert np.allclose(image.meta["volume_affine"], AFFINE)
        assert json.loads(image.meta["source"]) == dict(read_scan(path).source)


def test_a_png_file_is_an_axial_slice_with_the_axes_and_pixels_of_its_item(tmp_path):
    picture = (volume()[0] * 2).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "slice.png")
    item = {"image": str(tmp_path / "slice.png"), "axes": "PRS", "pixel_mm": 2.0}
    found = LoadScand("image")(item)
    assert found["axial_slice"] and np.array_equal(found["image"][0, ..., 0], picture)
    assert nib.aff2axcodes(np.asarray(found["image"].affine)) == ("P", "R", "S")
    assert np.allclose(np.abs(np.asarray(found["image"].affine)[:3, :3]).max(axis=0), [2, 2, 1])


def test_a_single_slice_needs_the_word_of_the_item(nifti):
    path = nifti(volume()[..., :1], np.diag([1.0, 1.0, 5.0, 1.0]))
    with pytest.raises(InputError, match="single_slice"):
        LoadScand("image")({"image": path})
    found = LoadScand("image")({"image": path, "axial_slice": True})
    assert found["image"].shape == (1, 6, 7, 1) and found["axial_slice"]
    for asked in ({}, {"axial_slice": True}):  # of images of one slice alone
        assert "axial_slice" not in LoadScand("image")({"image": nifti(volume(), AFFINE), **asked})


@pytest.mark.parametrize(
    ("name", "code"), [("absent.nii.gz", "not_found"), ("notes.txt", "unsupported_format")]
)
def test_a_refusal_reaches_the_caller_and_no_other_reader_is_tried(tmp_path, name, code):
    (tmp_path / "notes.txt").write_text("no scan")
    item = {"image": str(tmp_path / name)}
    with pytest.raises(InputError, match=code):
        LoadScand("image")(item)
    with pytest.raises(RuntimeError) as wrapped:
        Compose([LoadScand("image")])(item)
    assert find_refusal(wrapped.value) is wrapped.value.__cause__


@pytest.mark.needs_shared
def test_a_dicom_folder_and_the_list_of_its_files_are_the_same_scan(shared_data):
    folder = shared_data / "dicom_hanke_t1"
    from_folder = LoadScand("image")({"image": str(folder)})["image"]
    files = [str(file) for file in sorted(folder.glob("*.dcm"))]
    from_list = LoadScand("image")({"image": files[::-1]})["image"]
    assert torch.equal(from_folder.as_tensor(), from_list.as_tensor())
    assert torch.equal(from_folder.affine, from_list.affine)
    assert json.loads(from_folder.meta["source"])["format"] == "dicom"


PREPARE = Compose([LoadScand("image"), StandardPlaned("image")])


@pytest.fixture
def items(nifti):
    pictures = np.random.default_rng(0).uniform(1, 2, (3, 40, 30, 1)).astype(np.float32)
    made = []
    for i, picture in enumerate(pictures):
        path = nifti(picture, np.diag([2.0, 2, 5, 1]), f"sub-{i}_T1w.nii.gz")
        made.append({"image": path, "subject": str(i), "axial_slice": True})
    return made


def test_each_item_is_transformed_once_and_kept_in_order(items):
    calls = []
    dataset = prepare_slices(items, lambda item: (calls.append(item["subject"]), PREPARE(item))[1])
    assert len(dataset) == 3 and calls == ["0", "1", "2"]
    assert [item["subject"] for item in dataset] == calls
    assert dataset[0]["image"].shape == (1, 30, 40)
    assert dataset[1]["image"] is dataset[1]["image"] and len(calls) == 3


def test_a_refusal_names_the_file_and_keeps_its_code(items, tmp_path):
    del items[1]["axial_slice"]
    with pytest.raises((RuntimeError, InputError)) as error:
        prepare_slices(items, PREPARE)
    assert find_refusal(error.value).code == "single_slice"
    assert error.value.__notes__ == ["while preparing sub-1_T1w.nii.gz"]


def test_an_empty_section_is_refused():
    with pytest.raises(ConfigError, match="the section of the datalist is empty"):
        prepare_slices([], PREPARE)
