"""The slices of a section, prepared once."""

import numpy as np
import pytest
from monai.transforms import Compose

from pathology_screen.errors import ConfigError, InputError, find_refusal
from pathology_screen.transforms import LoadScand, StandardPlaned, prepare_slices

PREPARE = Compose([LoadScand("image"), StandardPlaned("image")])


@pytest.fixture
def items(nifti):
    pictures = np.random.default_rng(0).uniform(1, 2, (3, 40, 30, 1)).astype(np.float32)
    paths = [
        nifti(picture, np.diag([2.0, 2, 5, 1]), f"sub-{i}_T1w.nii.gz")
        for i, picture in enumerate(pictures)
    ]
    return [{"image": path, "subject": str(i), "axial_slice": True} for i, path in enumerate(paths)]


def test_each_item_is_transformed_once_and_kept_in_order(items):
    calls = []
    dataset = prepare_slices(items, lambda item: (calls.append(item["subject"]), PREPARE(item))[1])
    assert len(dataset) == 3 and calls == ["0", "1", "2"]
    assert [item["subject"] for item in dataset] == calls and dataset[0]["image"].shape == (
        1,
        30,
        40,
    )
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
