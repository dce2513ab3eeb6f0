"""Nothing that a command writes, prints or logs tells who the patient is: neither what the header
says, nor the paths.

What may tell: the key, where it was asked for; names from paths, where they were asked for; and
DICOM objects, where they were asked for, of the patient and the study that they belong to.
"""

import base64
import gzip
import hashlib
import logging
import re
import shutil
import traceback
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from bad_scans import damaged_multiframe, dangling, each, raw, without
from nibabel.nifti1 import Nifti1Extension
from PIL import Image
from pydicom.uid import ImplicitVRLittleEndian
from scan_builders import multiframe, save, series_of

from pathology_screen.cli import NOT_ASSESSABLE, main
from pathology_screen.errors import InputError
from pathology_screen.io import read_scan
from pathology_screen.io.source import PATIENT_AND_STUDY
from pathology_screen.predictor import Predictor
from pathology_screen.screening import Inspector
from pathology_screen.screening.batch import list_items

building = pytest.mark.filterwarnings("ignore:Invalid value")  # of pydicom

BIRTH_DATE, UID = "19010203", "1.2.999.77777777"
PATIENT_HASH = hashlib.sha256(b"CANARY-ID").hexdigest()
SECRETS = ("canary", "john", BIRTH_DATE, UID, PATIENT_HASH)
SAID = """
    InstitutionName InstitutionAddress StationName DeviceSerialNumber PerformingPhysicianName
    OperatorsName PatientComments PatientAddress OtherPatientNames ImageComments StudyDescription
    ProtocolName RequestedProcedureDescription Occupation CountryOfResidence MedicalRecordLocator
    PerformedProcedureStepDescription AdditionalPatientHistory
"""
"""Attributes that hold free text."""


@pytest.fixture
def series(brain):
    """Function that gives the brain, in slices of 4.8 mm, as DICOM data sets full of secrets."""
    image, texts = nib.load(brain).slicer[:, :, ::2], dict.fromkeys(SAID.split(), "CANARY")
    study = {"StudyInstanceUID": f"{UID}.8", "FrameOfReferenceUID": f"{UID}.9"}

    def make(number=1, **attributes):
        datasets = series_of(image, series_uid=f"{UID}.{number}", **attributes)
        each(**texts, **study)(datasets)
        for k, dataset in enumerate(datasets):
            dataset.SOPInstanceUID = f"{UID}.{number}.{k}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.private_block(0x0011, "CANARY", create=True).add_new(1, "LO", "CANARY")
        return datasets

    return make


@pytest.fixture
def tree(brain, series, tmp_path) -> Path:
    """Scans of every kind, good and bad, with secrets in headers, names and paths."""
    root = tmp_path / "CANARY_JOHN"
    save(series(), root / "CANARY^JOHN 19010203", name="CANARY{}.dcm".format)
    for number in (2, 3):
        save(series(number), root / "CANARY two", name=f"CANARY{number}-{{}}".format)
    save(series(4)[:3] + series(4)[5:], root / "gap")
    save(series(5, PhotometricInterpretation="YBR_FULL"), root / "colour")
    odd = series(6, transfer_syntax=ImplicitVRLittleEndian)
    texts = "PatientBirthDate PatientAge PatientSize EchoTime StudyDate AccessionNumber"
    for keyword in texts.split():
        raw(keyword, b"CANARY-JOHN-CANARY-JOHN ")(odd)
    save(odd, root / "odd")
    cut = save(series(7), root / "cut") / "IM0003"
    cut.write_bytes(cut.read_bytes()[:900])
    multiframe(series(8), root / "multi/CANARY.dcm")
    damaged_multiframe(root / "damaged")
    geometry = series(9, transfer_syntax=ImplicitVRLittleEndian)
    raw("ImagePositionPatient", rb"CANARY\0\0 ")(geometry)
    save(geometry, root / "geometry")
    no_uid = series(10)
    without("StudyInstanceUID")(no_uid)
    save(no_uid, root / "no uid")
    with zipfile.ZipFile(root / "CANARY.zip", "w") as archive:
        for k, file in enumerate(sorted(save(series(11), tmp_path / "packed").iterdir())):
            archive.write(file, f"CANARY_JOHN/{k}")
    shutil.rmtree(tmp_path / "packed")
    (root / "damaged.zip").write_bytes(b"PK\3\4CANARY")
    stored = nib.load(brain)
    image = nib.Nifti1Image(np.asarray(stored.dataobj), stored.affine)
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = b"CANARY JOHN"
    image.header.extensions.append(Nifti1Extension("comment", b"CANARY JOHN"))
    nib.save(image, root / "CANARY_T1w.nii.gz")
    noise = np.random.default_rng(0).integers(1, 900, (40, 40, 8)).astype("int16")
    nib.save(nib.Nifti1Image(noise, np.diag([4.0, 4.0, 4.0, 1.0])), root / "CANARY_noise.nii.gz")
    nan = nib.Nifti1Image(np.full((9, 9, 9), np.nan, "float32"), np.eye(4))
    nib.save(nan, root / "CANARY_nan.nii")
    (root / "CANARY_text.nii.gz").write_bytes(b"CANARY^JOHN")
    (root / "lost").mkdir()
    dangling("CANARY.nii.gz")(root / "lost")
    (root / "CANARY.txt").write_text("CANARY^JOHN")
    return root


def said(path: Path) -> str:
    """All that a file says, unpacked: name, text, headers, text chunks, embedded pictures."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        header = nib.load(path).header
        content = b"".join(extension.get_content() for extension in header.extensions)
        data += gzip.decompress(data) + str(header).encode() + content
    elif path.suffix == ".png":
        data += str(Image.open(path).info).encode()
    elif path.suffix == ".html":
        for packed in re.findall(rb"base64,([A-Za-z0-9+/=]+)", data):
            data += base64.b64decode(packed)
    return f"{path.name} {data.decode('latin-1')}"


@pytest.fixture
def told(tmp_path, make_brain_screener, brain_predictor, monkeypatch, caplog, capfd, recwarn):
    """Function that runs a command with the tiny screener; gives what it says, by place."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("pathology_screen.cli._screener", lambda options: make_brain_screener())
    monkeypatch.setattr(Predictor, "load", lambda *arguments: brain_predictor)
    inspector = Inspector(brain_predictor.preprocessing, brain_predictor.slice_options["domain"])
    monkeypatch.setattr(Inspector, "from_bundle", lambda *arguments: inspector)

    def run(command, *arguments, status=NOT_ASSESSABLE, out=tmp_path / "out"):
        for kept in (caplog, recwarn):
            kept.clear()
        capfd.readouterr()
        if callable(command):
            assert command(*arguments) == status
        else:
            assert main([command, *map(str, arguments)]) == status
        captured = capfd.readouterr()
        messages = {"stdout": captured.out, "stderr": captured.err, "log": caplog.text}
        messages["warnings"] = " ".join(f"{one.message} {one.source}" for one in recwarn.list)
        files = [path for path in (out, *out.rglob("*")) if path.is_file()]
        return messages | {path.relative_to(tmp_path).as_posix(): said(path) for path in files}

    return run


def leaks(told: dict[str, str], secrets=SECRETS) -> dict[str, list[str]]:
    """Where secrets are told: place -> those."""
    found = {place: [one for one in secrets if one in text.lower()] for place, text in told.items()}
    return {place: secrets for place, secrets in found.items() if secrets}


@building
def test_screen(tree, told, tmp_path):
    places = told("screen", tree, "-o", tmp_path / "out")
    assert leaks(places) == {}
    assert sum(place.endswith("_report.html") for place in places) == 19
    assert sum(place.endswith("_map.nii.gz") for place in places) > 5
    assert "19 scans" in places["stdout"]
    # what is done is not done again, and says no more
    assert leaks(told("screen", tree, "-o", tmp_path / "out")) == {}


@building
def test_screening_by_the_evaluator_of_a_bundle(tree, told, evaluate):
    places = told(evaluate, list_items(tree))
    assert leaks(places) == {} and "19 scans" in places["stdout"] and len(places) > 40


@building
def test_the_key_and_names_from_paths_alone_tell_paths(tree, told, tmp_path):
    out, key = tmp_path / "out", tmp_path / "key.csv"
    places = told("screen", tree / "CANARY two", "-o", out, "--key", key, status=0)
    assert leaks(places) == {}
    text = key.read_text()
    assert "CANARY_JOHN/CANARY two" in text and f"{UID}.3" in text
    assert key.stat().st_mode & 0o077 == 0 and PATIENT_HASH not in text and "CANARY-ID" not in text
    out = tmp_path / "named"
    places = told("screen", tree / "CANARY two", "-o", out, "--names", "paths", status=0, out=out)
    assert "named/scores.csv" in leaks(places, ("canarytwo",))
    secrets = (UID, PATIENT_HASH, "canary-id", "canary-acc", "canary^", "t1 canary")
    assert leaks(places, secrets) == {}


@building
def test_dicom_objects_alone_name_patient_and_study(series, told, tmp_path):
    save(series(), tmp_path / "CANARY_JOHN")
    places = told("screen", tmp_path / "CANARY_JOHN", "-o", tmp_path / "out", "--dicom", status=0)
    objects = [place for place in places if place.endswith(".dcm")]
    assert len(objects) >= 3
    others = {place: text for place, text in places.items() if place not in objects}
    assert leaks(others, ("canary", "john", BIRTH_DATE, PATIENT_HASH)) == {}
    for place in objects:
        dataset = pydicom.dcmread(tmp_path / place)
        assert str(dataset.PatientName) == "CANARY^PATIENT" and dataset.PatientID == "CANARY-ID"
        named = {one.keyword for one in dataset.iterall() if "canary" in str(one.value).lower()}
        # what holds items holds what is in them
        named = {keyword for keyword in named if not keyword.endswith("Sequence")}
        assert named <= {*PATIENT_AND_STUDY}, place
        assert not any(element.tag.is_private for element in dataset.iterall())


@building
def test_inspect(tree, told):
    places = told("inspect", tree)
    assert leaks(places) == {}
    assert places["stdout"].count("accepted") >= 5 and "sha256:" in places["stdout"]
    with_names = told("inspect", tree, "--names", "paths")["stdout"]
    assert "CANARYT1w: accepted" in with_names and f"{UID}.2" in with_names
    assert "CANARY-ID" not in with_names and "CANARY^" not in with_names


@building
def test_calibrate(tree, told, tmp_path):
    out = tmp_path / "calibration.json"
    places = told("calibrate", "--normals", tree, "-o", out, "--rate", "0.5", status=0, out=out)
    assert leaks(places) == {} and "left out" in places["stdout"] and "calibration.json" in places
    out = tmp_path / "none.json"
    places = told("calibrate", "--normals", tree, "-o", out, "--rate", "0.01", status=1)
    assert leaks(places) == {} and "healthy people allow" in places["stderr"]


@pytest.mark.parametrize(
    "keyword", ["SpecificCharacterSet", "StudyInstanceUID", "SOPInstanceUID", "SliceThickness"]
)
@pytest.mark.parametrize("command", ["screen", "inspect"])
def test_what_parsers_warn_of_is_not_shown(command, keyword, series, told, tmp_path):
    """They repeat invalid technical attributes, on a logger to which no command listens."""
    datasets = series(transfer_syntax=ImplicitVRLittleEndian)
    alone = keyword == "SOPInstanceUID"  # or all are one image
    raw(keyword, b"CANARY-JOHN")(datasets[:1] if alone else datasets)
    save(datasets, tmp_path / "in")
    output = ["-o", tmp_path / "out"] if command == "screen" else []
    places = told(command, tmp_path / "in", *output, status=0)
    places.pop("log")
    assert leaks(places) == {}


@pytest.mark.parametrize("command", ["screen", "inspect"])
def test_commands_that_fail(command, tree, told, tmp_path):
    output = ["-o", tmp_path / "out"] if command == "screen" else []
    for name in ("CANARY_absent", "CANARY_absent.nii.gz", "lost/CANARY.nii.gz"):
        places = told(command, tree / name, *output, status=1)
        assert leaks(places) == {} and "[not_found]" in places["stderr"]
    (tree / "CANARY_empty").mkdir()
    assert leaks(told(command, tree / "CANARY_empty", *output, status=1)) == {}
    for name in ("CANARY.txt", "CANARY_text.nii.gz", "damaged.zip", "cut"):
        assert leaks(told(command, tree / name, *output)) == {}
    assert leaks(told(command, tree / "gap", *output, "--series-uid", f"{UID}.2")) == {}


@building
def test_results_and_errors_in_python(tree, make_brain_screener):
    """Neither a result nor a refusal; the UID of the series is one of the facts."""
    screener, results, errors = make_brain_screener(), [], []
    for path in sorted(tree.iterdir()):
        results.append(screener(path, series_uid=f"{UID}.2" if path.name == "CANARY two" else None))
        try:
            read_scan(path)
        except InputError as error:
            errors.append(error)
    assert len(errors) > 8 and sum(result.score is not None for result in results) > 5
    texts = {f"result {number}": repr(result) for number, result in enumerate(results)}
    assert leaks(texts, ("canary", "john", BIRTH_DATE, PATIENT_HASH)) == {}
    for number, error in enumerate(errors):
        notes = " ".join(getattr(error, "__notes__", []))
        shown = "".join(traceback.format_exception(error)) + repr(error) + notes
        secrets = ("canary^", "canary_", "john", BIRTH_DATE)
        secrets += () if error.code == "several_series" else (UID,)
        assert leaks({f"error {number}": shown}, secrets) == {}
