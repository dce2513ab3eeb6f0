"""What a screening run writes, logs and prints repeats nothing of what a scan's header says of its patient."""

import gzip
import logging

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension
from scan_builders import dicom_datasets, head_volume, save

SECRETS = (b"CANARY", b"19010203", b"canary")


def said(path):
    """The bytes of a file, unpacked."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.fixture
def leaks(tmp_path, caplog, capfd, recwarn):
    """Function that screens, and names every place that holds a secret."""
    caplog.set_level(logging.DEBUG)

    def look(screen, items):
        caplog.clear()
        recwarn.clear()
        writer = screen(items)
        with pytest.raises(SystemExit) as end:  # each of the tests brings a scan to be refused
            writer.finish()
        places = {path.name: said(path) for path in (tmp_path / "out").rglob("*") if path.is_file()}
        assert len(places) > 4
        captured = capfd.readouterr()
        places |= {
            "stdout": captured.out.encode(),
            "stderr": captured.err.encode(),
            "log": caplog.text.encode(),
            "exit": str(end.value).encode(),
            "warnings": " ".join(str(warning.message) for warning in recwarn.list).encode(),
        }
        return [place for place, text in places.items() if any(secret in text for secret in SECRETS)]

    return look


@pytest.mark.filterwarnings("ignore:Invalid value")  # of pydicom, when the scan is built
def test_dicom(screen, leaks, phantom, tmp_path):
    volume = np.flip(np.asarray(phantom.dataobj), axis=(0, 1)).transpose(2, 1, 0).astype("uint16")
    comments = {"PatientComments": "CANARY", "InstitutionName": "CANARY", "ImageComments": "CANARY"}
    good = save(dicom_datasets(volume, spacing=(5.0, 1.0, 1.0), **comments), tmp_path / "good")
    gap = [dataset for k, dataset in enumerate(dicom_datasets(volume)) if k != 3]
    invalid = dicom_datasets(volume, spacing=(5.0, 1.0, 1.0), PatientBirthDate="CANARY", PatientAge="CANARY")
    colour = dicom_datasets(head_volume(), PhotometricInterpretation="YBR_FULL")
    scans = {
        "good": good,
        "gap": save(gap, tmp_path / "gap"),
        "invalid": save(invalid, tmp_path / "invalid"),
        "colour": save(colour, tmp_path / "colour"),
    }
    damaged = next(save(dicom_datasets(volume), tmp_path / "damaged").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:700])
    scans["damaged"] = damaged.parent
    assert leaks(screen, [{"image": str(path), "name": name} for name, path in scans.items()]) == []


def test_nifti(screen, scan, leaks, tmp_path):
    texts = {"descrip": b"CANARY 1", "aux_file": b"CANARY 2", "intent_name": b"CANARY 3", "db_name": b"CANARY 4"}
    item = scan("good", **texts)
    image = nib.load(item["image"])
    image.header.extensions.append(Nifti1Extension("comment", b"CANARY 5"))
    voxels = np.asarray(image.dataobj)
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), tmp_path / "good.nii.gz")
    voxels[0, 0] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), tmp_path / "broken.nii.gz")
    assert b"CANARY 5" in said(tmp_path / "good.nii.gz")
    assert leaks(screen, [item, {"image": str(tmp_path / "broken.nii.gz"), "name": "broken"}]) == []
