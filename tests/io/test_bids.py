"""Names of images in a BIDS dataset."""

from pathlib import Path

import pytest

from pathology_screen.io.bids import entities_of, folder_of, t1w_images


@pytest.mark.parametrize(
    ("path", "entities"),
    [
        ("sub-01/anat/sub-01_T1w.nii", "sub-01"),
        ("sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz", "sub-01_ses-a_run-2"),
        ("sub-01/ses-a/anat/sub-01_T1w.nii", None),  # the folder says a session
        ("sub-01/anat/sub-02_T1w.nii", None),
        ("sub-01/anat/sub-01_mine_T1w.nii", None),
    ],
)
def test_entities_are_those_of_the_name_where_it_fits_its_folder(path, entities, tmp_path):
    image = tmp_path / path
    image.parent.mkdir(parents=True)
    image.touch()
    assert t1w_images(tmp_path) == [image] and entities_of(image) == entities
    if entities:
        assert folder_of(entities) == Path(path).parent.as_posix()


def test_what_are_no_entities_has_no_folder():
    with pytest.raises(ValueError, match="no entities of BIDS"):
        folder_of("01")
