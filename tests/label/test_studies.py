"""Studies of the datastore: whose they are, and what their DICOM headers tell."""

import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from scan_builders import dicom_datasets, head_volume, ras_affine, save

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.label.studies import normal_studies, read_study, study_path

VOLUME = head_volume()


class Datastore(SimpleNamespace):
    """As much of MONAI Label's as is used here: id -> info."""

    def list_images(self):
        return list(self.infos)

    def get_image_info(self, name):
        return self.infos[name]

    def get_image_uri(self, name):
        return f"/studies/{name}.nii.gz"


def test_people_are_told_by_what_is_known_of_them():
    known = {"x": {"PatientID": "7"}, "y": {"PatientID": " 7"}, "z": {"PatientID": "UNK"}}
    known |= {"w": {"PatientID": ""}, "v": {"PatientID": "7", "subject": "somebody"}}
    known |= {"sub-A_ses-1_T1w": {}, "sub-A_ses-2_T1w": {}}
    infos = {name: info | {"reading": "normal"} for name, info in known.items()}
    infos |= {"sub-B_T1w": {"reading": "abnormal"}, "sub-C_T1w": {}}
    studies = normal_studies(Datastore(infos=infos))
    found = {study.path.name.removesuffix(".nii.gz"): study.person for study in studies}
    assert found.keys() == known.keys()
    assert found["sub-A_ses-1_T1w"] == found["sub-A_ses-2_T1w"] and found["x"] == found["y"]
    assert len(set(found.values())) == 5


def test_the_copy_that_is_made_at_the_first_look_goes(tmp_path):
    copy, kept = tmp_path / "copy.nii.gz", tmp_path / "kept.nii.gz"
    copy.touch()
    uris = iter([copy, kept])
    assert study_path(SimpleNamespace(get_image_uri=lambda name: next(uris)), "x") == kept
    assert not copy.exists()


@pytest.fixture
def keep(tmp_path):
    """Function that writes `UID.nii.gz` with the series `UID/` beside it, as MONAI Label does, and
    gives the NIfTI's path."""

    def keep(datasets):
        save(datasets, tmp_path / "1.2.3", "{}.dcm".format)
        image = nib.Nifti1Image(VOLUME.transpose(2, 1, 0).astype(np.float32), ras_affine())
        nib.save(image, tmp_path / "1.2.3.nii.gz")
        return tmp_path / "1.2.3.nii.gz"

    return keep


def test_headers_of_the_dicom_series_come_back(keep):
    scan = read_study(keep(dicom_datasets(VOLUME, ContrastBolusAgent="CANARY gadolinium")))
    assert scan.source["format"] == "nifti" and scan.source["contrast_agent"] is True
    assert scan.source["echo_time"] == 4.6 and "CANARY" not in json.dumps(dict(scan.source))
    np.testing.assert_array_equal(scan.voxels, VOLUME.transpose(2, 1, 0))


def test_a_series_that_lacks_a_slice_is_refused(keep):
    """The conversion stacked what there was."""
    path = keep(dicom_datasets(VOLUME))
    (path.parent / "1.2.3/3.dcm").unlink()
    with pytest.raises(InputError, match="missing_slice"):
        read_study(path)


def test_a_scan_without_a_series_is_read_as_it_is_and_dicom_refused_with_what_to_do(keep, tmp_path):
    path = keep(dicom_datasets(VOLUME)).rename(tmp_path / "a.nii.gz")
    assert "modality" not in read_study(path).source
    for path in (tmp_path / "1.2.3", tmp_path / "1.2.3" / "0.dcm"):
        with pytest.raises(ConfigError, match="DICOMweb"):
            read_study(path)
