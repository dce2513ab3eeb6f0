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


@pytest.fixture
def leaks(tmp_path, caplog, capfd, recwarn, screen):
    """Function that screens scans, of which one is refused, and names each place of a secret."""
    caplog.set_level(logging.DEBUG)

    def look(**scans):
        caplog.clear()
        recwarn.clear()
        with pytest.raises(SystemExit) as end:
            screen([{"image": str(path), "name": name} for name, path in scans.items()]).finish()
        files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        assert len(files) > 4
        places = {path.name: path.read_bytes() for path in files}
        warned = " ".join(str(warning.message) for warning in recwarn.list)
        texts = [*capfd.readouterr(), caplog.text, str(end.value), warned]
        places |= {f"printed {i}": text.encode() for i, text in enumerate(texts)}
        said = {k: gzip.decompress(v) if k.endswith(".gz") else v for k, v in places.items()}
        return [place for place, text in said.items() if any(one in text for one in SECRETS)]

    return look


@pytest.mark.filterwarnings("ignore:Invalid value")  # of pydicom, when the scan is built
def test_dicom(leaks, brain, tmp_path):
    series = partial(series_of, nib.load(brain))
    comments = dict.fromkeys(("PatientComments", "InstitutionName", "ImageComments"), "CANARY")
    invalid = dict.fromkeys(("PatientBirthDate", "PatientAge"), "CANARY")
    sets = {
        "good": series(**comments),
        "gap": [dataset for k, dataset in enumerate(series()) if k != 3],
        "invalid": series(**invalid),
        "colour": dicom_datasets(head_volume(), PhotometricInterpretation="YBR_FULL"),
        "damaged": series(),
    }
    scans = {name: save(datasets, tmp_path / name) for name, datasets in sets.items()}
    damaged = next(scans["damaged"].iterdir())
    damaged.write_bytes(damaged.read_bytes()[:700])
    assert leaks(**scans) == []


def test_nifti(scan, leaks, tmp_path):
    fields = ("descrip", "aux_file", "intent_name", "db_name")
    image = nib.load(scan("good", **dict.fromkeys(fields, b"CANARY"))["image"])
    image.header.extensions.append(Nifti1Extension("comment", b"CANARY 5"))
    voxels = np.array(image.dataobj, dtype=np.float32)
    image.set_data_dtype(np.float32)
    paths = {name: tmp_path / f"{name}.nii.gz" for name in ("good", "broken")}
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), paths["good"])
    voxels[0, 0] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), paths["broken"])
    assert b"CANARY 5" in gzip.decompress(paths["good"].read_bytes())
    assert leaks(**paths) == []
