"""Names of images in a BIDS dataset."""

from pathlib import Path

import pytest

from pathology_screen.io.bids import entities_of, folder_of, t1w_images


def test_entities_are_those_of_the_name_where_it_fits_its_folder(tmp_path):
    images = {
        "sub-01/anat/sub-01_T1w.nii": "sub-01",
        "sub-01/anat/sub-01_mine_T1w.nii": None,
        "sub-01/anat/sub-02_T1w.nii": None,
        "sub-01/ses-a/anat/sub-01_T1w.nii": None,  # the folder says a session
        "sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz": "sub-01_ses-a_run-2",
    }
    for name in (*images, "sub-01/anat/.sub-01_T1w.nii", "sub-01/anat/sub-01_T1w.nii.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {
        path.relative_to(tmp_path).as_posix(): entities_of(path) for path in t1w_images(tmp_path)
    }
    assert found == images and list(found) == list(images)
    for name, entities in images.items():
        assert entities is None or folder_of(entities) == Path(name).parent.as_posix()
    with pytest.raises(ValueError, match="no entities of BIDS"):
        folder_of("01")
