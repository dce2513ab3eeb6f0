"""What a screening run writes, logs and prints repeats nothing of what a scan's header says of its
patient."""

import gzip
import logging
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension
from scan_builders import dicom_datasets, head_volume, save, series_of

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
        return [
            place for place, text in places.items() if any(secret in text for secret in SECRETS)
        ]

    return look


@pytest.mark.filterwarnings("ignore:Invalid value")  # of pydicom, when the scan is built
def test_dicom(screen, leaks, brain, tmp_path):
    series = partial(series_of, nib.load(brain))
    comments = {"PatientComments": "CANARY", "InstitutionName": "CANARY", "ImageComments": "CANARY"}
    scans = {
        "good": save(series(**comments), tmp_path / "good"),
        "gap": save([dataset for k, dataset in enumerate(series()) if k != 3], tmp_path / "gap"),
        "invalid": save(
            series(PatientBirthDate="CANARY", PatientAge="CANARY"), tmp_path / "invalid"
        ),
        "colour": save(
            dicom_datasets(head_volume(), PhotometricInterpretation="YBR_FULL"), tmp_path / "colour"
        ),
    }
    damaged = next(save(series(), tmp_path / "damaged").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:700])
    scans["damaged"] = damaged.parent
    assert leaks(screen, [{"image": str(path), "name": name} for name, path in scans.items()]) == []


def test_nifti(screen, scan, leaks, tmp_path):
    texts = {
        "descrip": b"CANARY 1",
        "aux_file": b"CANARY 2",
        "intent_name": b"CANARY 3",
        "db_name": b"CANARY 4",
    }
    item = scan("good", **texts)
    image = nib.load(item["image"])
    image.header.extensions.append(Nifti1Extension("comment", b"CANARY 5"))
    voxels = np.array(image.dataobj, dtype=np.float32)
    image.set_data_dtype(np.float32)
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), tmp_path / "good.nii.gz")
    voxels[0, 0] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), tmp_path / "broken.nii.gz")
    assert b"CANARY 5" in said(tmp_path / "good.nii.gz")
    assert leaks(screen, [item, {"image": str(tmp_path / "broken.nii.gz"), "name": "broken"}]) == []
