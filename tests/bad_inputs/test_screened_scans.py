"""Bad scans on their way through screening: every one ends in a typed refusal, and those that only
look odd in the result of the scan that they are."""

import gzip
import json
import shutil
import warnings
import zipfile
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from bad_scans import nifti, raw
from batches import screen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import bounded
from pydicom.uid import ImplicitVRLittleEndian, RLELossless
from scan_builders import SAGITTAL, dicom_datasets, head_volume, multiframe, save, series_of

from pathology_screen.cli import NOT_ASSESSABLE
from pathology_screen.errors import REFUSALS
from pathology_screen.screening.batch import list_items

PASSED_OVER = {
    *("DICOM, test1.json", "DICOM, a DICOMDIR alone"),
    *("DICOM, test-SR.dcm", "DICOM, rtplan_truncated.dcm"),  # objects without an image
}
"""What a search for scans does not take for one; asked for by its own path it is refused."""
LISTED = {
    "DICOM, meta_missing_tsyntax.dcm": {"meta_missing_tsyntax.dcm": ["unreadable"]},
    "DICOM, cut behind the preamble": {"": ["single_slice"], "IM0001": ["unreadable"]},
    "DICOM, cut in the header": {"": ["single_slice", "unreadable"]},
    "DICOM, transfer syntax that there is not": {"": ["single_slice", "unsupported_compression"]},
    "DICOM, transfer syntax is text": {"": ["single_slice", "unsupported_compression"]},
    "DICOM, sequences 300 deep": {"": ["single_slice"], "IM0000": ["unreadable"]},
    "archive, damaged member": {"CANARY_JOHN.zip": ["unreadable", "unreadable"]},
}
"""Where a damaged file does not say of which series it is, it costs itself alone: a search lists it
beside the rest of its series, which is judged as it is; but nothing of an archive is read of which
a member has a wrong checksum. What is wrong -> place in the folder of the scan -> codes."""


def listed(name: str, path: Path, code: str) -> list[tuple[Path, str]]:
    """Path and code of every row that one of the scans has in a list of a tree."""
    folder = path if path.is_dir() else path.parent
    if name in LISTED:
        return [(folder / place, code) for place, codes in LISTED[name].items() for code in codes]
    return [(path if path.suffix in (".gz", ".nii", ".zip") else folder, code)]


def check_refused(result, code):
    nothing = (result.score, result.map_volume, result.slice, result.regions)
    assert (result.outcome, result.code) == ("not_assessable", code)
    assert nothing == (None, None, None, ())
    assert result.reason.startswith(f"[{code}] {REFUSALS[code]}") and "CANARY" not in result.reason


def test_a_tree_of_them(wrong, by_command, tmp_path, capfd):
    tree = next(iter(wrong.values())).path.parent
    searched = {name: scan for name, scan in wrong.items() if name not in PASSED_OVER}
    assert len(searched) == len(wrong) - len(PASSED_OVER) > 100
    expected = sorted(row for name, scan in searched.items() for row in listed(name, *scan))
    key, out, count = tmp_path / "key.csv", tmp_path / "out", len(expected)
    with bounded():
        assert by_command("screen", tree, "-o", out, "--key", key) == NOT_ASSESSABLE
    table = pd.read_csv(out / "scores.csv").merge(pd.read_csv(key), on="name")
    assert sorted(zip(map(Path, table.path), table.code)) == expected
    assert set(table.outcome) == {"not_assessable"} and table.score.isna().all()
    written = {path.name.split("_", 1)[1] for path in out.glob("sub-*/*")}
    assert written == {"report.html", "screening.json"}
    printed = "".join(capfd.readouterr())
    assert f"{count} scans: 0 suspicious, 0 normal, {count} not assessable" in printed
    assert "CANARY" not in printed.replace(str(out), "")
    assert by_command("inspect", tree) == NOT_ASSESSABLE
    printed = "".join(capfd.readouterr())
    assert all(f"[{code}]" in printed for _, code in expected) and "CANARY" not in printed


# --- scans that are read, and that the acceptance gate refuses ---


@pytest.fixture
def series(brain):
    """Function that gives the brain as DICOM data sets; arguments as for `series_of`."""
    return partial(series_of, nib.load(brain))


SPIN = {"ScanningSequence": "SE"}
REFUSED_BY_HEADER = {
    "CT": ({"Modality": "CT"}, "not_mr"),
    "screenshot": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary_capture"),
    "text in the picture": ({"BurnedInAnnotation": "YES"}, "burned_in_annotation"),
    "localiser": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    "projection": ({"ImageType": ["DERIVED", "PRIMARY", "PROJECTION IMAGE"]}, "projection"),
    "map": ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "computed_map"),
    "phase": ({"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, "computed_map"),
    "knee": ({"BodyPartExamined": "KNEE"}, "other_body_part"),
    "contrast agent": ({"ContrastBolusAgent": "CANARY"}, "contrast_agent"),
    "agent in words": ({"SeriesDescription": "T1 CANARY post gd"}, "contrast_agent"),
    "long echo": (SPIN | {"EchoTime": 90, "RepetitionTime": 4000}, "stated_not_t1w"),
    "long repetition": (SPIN | {"EchoTime": 15, "RepetitionTime": 3000}, "stated_not_t1w"),
    "FLAIR": (SPIN | {"EchoTime": 120, "InversionTime": 2500}, "stated_not_t1w"),
    "thick slices": ({"SliceThickness": 12}, "thick_slices"),
}


@pytest.mark.parametrize(("attributes", "code"), REFUSED_BY_HEADER.values(), ids=REFUSED_BY_HEADER)
def test_refused_by_its_header(attributes, code, series, make_brain_screener, tmp_path):
    result = make_brain_screener()(save(series(**attributes), tmp_path / "s"))
    check_refused(result, code)
    assert "accepted: " in result.reason and result.source["format"] == "dicom"
    assert "CANARY" not in str(result.source) + str(result.findings)


def small(v, affine):
    return np.pad(v, ((40, 40), (40, 40), (0, 0))), affine @ np.diag([0.5, 0.5, 1, 1])


def one_voxel(v):
    only = np.zeros_like(v)
    only.flat[v.argmax()] = v.max()
    return only


def noise(v):
    return np.where(v > 0, np.random.default_rng(0).random(v.shape) * 1000 + 100, 0)


FAR, COARSE = np.diag([1, 1, 4.5, 1]), np.diag([2, 2, 1, 1])
REFUSED_BY_IMAGE = {
    "slices far apart": (lambda v, affine: (v, affine @ FAR), "thick_slices"),
    "coarse pixels": (lambda v, affine: (v[::2, ::2], affine @ COARSE), "coarse_pixels"),
    "brain of a cat": (small, "brain_size"),
    **{
        name: (lambda v, affine, paint=paint: (paint(v), affine), code)
        for name, paint, code in (
            ("three slices", lambda v: v[..., 40:43], "short_slab"),
            ("a part of the brain", lambda v: v[20:55, 25:65], "small_field_of_view"),
            ("half of the brain", lambda v: v[:, :45], "brain_cut_off"),
            ("overexposed", lambda v: np.minimum(v, v.max() / 2), "saturated"),
            ("mask", lambda v: v > 0, "few_grey_values"),
            ("eight grey values", lambda v: np.round(v / v.max() * 8), "few_grey_values"),
            ("noise in the shape of a brain", noise, "noisy"),
            ("one voxel", one_voxel, "brain_size"),
        )
    },
}


@pytest.mark.parametrize(("change", "code"), REFUSED_BY_IMAGE.values(), ids=REFUSED_BY_IMAGE)
def test_refused_by_its_image(change, code, brain, make_brain_screener, tmp_path):
    image = nib.load(brain)
    voxels, affine = change(np.asarray(image.dataobj, np.float32), image.affine)
    nib.save(nib.Nifti1Image(np.asarray(voxels, np.float32), affine), tmp_path / "s.nii")
    with bounded():
        result = make_brain_screener()(tmp_path / "s.nii")
    check_refused(result, code)


# --- scans that only look odd ---


def by_a_way_round(datasets, folder):
    save(datasets, folder / "a\nb" / "c d")
    return folder / "a\nb" / ".." / "a\nb" / "c d"


def through_links(datasets, folder):
    store = save(datasets, folder / "store")
    (folder / "scan").mkdir()
    for file in store.iterdir():
        (folder / "scan" / file.name).symlink_to(file)
    return folder / "scan"


FACTS = ("ScanningSequence", "EchoTime", "RepetitionTime")
ODD_SERIES = {
    "path with spaces, a line break and ..": ({}, by_a_way_round),
    "links to files": ({}, through_links),
    "one multi-frame object": ({}, lambda datasets, folder: multiframe(datasets, folder / "e.dcm")),
    "derived": ({"ImageType": ["DERIVED", "SECONDARY"]}, save),
    "no other attributes": (dict.fromkeys(FACTS), save),
}
"""That encodings, archives and files among others change no voxel is tested in `io`."""


@pytest.mark.parametrize(("options", "write"), ODD_SERIES.values(), ids=ODD_SERIES)
def test_odd_series(options, write, series, make_brain_screener, tmp_path):
    screener = make_brain_screener()
    plain = screener(save(series(), tmp_path / "plain"))
    assert plain.outcome == "suspicious" and plain.score > 0.02
    with bounded():
        odd = screener(write(series(**options), tmp_path / "odd"))
    assert (odd.outcome, odd.code) == (plain.outcome, None), odd.reason
    assert odd.score == pytest.approx(plain.score, rel=1e-5)
    assert np.allclose(odd.map_volume, plain.map_volume, atol=1e-5)
    assert np.allclose(odd.affine, plain.affine, atol=1e-4)


def test_a_conversion_to_one_object_hides_no_contrast_agent(series, make_brain_screener, tmp_path):
    """Converters append "(enhanced conversion)", which means the format alone."""
    path = multiframe(series(SeriesDescription="T1 CANARY post gd"), tmp_path / "e.dcm")
    assert make_brain_screener()(path).code == "contrast_agent"


ODD_FACTS = {
    "no number": ("InstanceNumber", b""),
    "echo time is NaN": ("EchoTime", b"nan "),
    "flip angle beyond all bounds": ("FlipAngle", b"1e400 "),
    "echo time is text": ("EchoTime", b"CANARY"),
    "two echo times": ("EchoTime", b"4\\5 "),
    "two modalities": ("Modality", b"MR\\MR "),
    "another character set": ("SpecificCharacterSet", b"CANARY"),
    "bytes that no character set has": ("Manufacturer", b"\xff\xfe\x80A"),
    "steers a terminal": ("Manufacturer", b"\x1b[2J\0\7 "),
    "markup": ("ManufacturerModelName", b"<script>alert(1)</script> "),
    "a formula": ("ManufacturerModelName", b'=HYPERLINK("http://evil") '),
    "longer than DICOM allows": ("Manufacturer", b"A" * 100_000),
    "no date": ("PatientBirthDate", b"CANARY"),
    "no UID": ("StudyInstanceUID", b"CANARY"),
}


@pytest.mark.parametrize(("keyword", "value"), ODD_FACTS.values(), ids=ODD_FACTS)
@pytest.mark.filterwarnings("ignore")
def test_odd_facts(keyword, value, series, make_brain_screener, tmp_path):
    """What a header says beside the image is told where it makes sense."""
    datasets = series(transfer_syntax=ImplicitVRLittleEndian)
    raw(keyword, value)(datasets)
    save(datasets, tmp_path / "s")
    (row,) = screen(make_brain_screener(), list_items(tmp_path / "s"), tmp_path / "out")
    assert row["outcome"] == "suspicious"
    (folder,) = (tmp_path / "out").glob("sub-*")
    (report,), (record,) = (
        [path.read_text() for path in folder.glob(f"*_{name}")]
        for name in ("report.html", "screening.json")
    )
    facts = json.loads(record)["source"]
    for name in ("echo_time", "flip_angle"):
        assert name not in facts or isinstance(facts[name], float)
    texts = [text for text in facts.values() if isinstance(text, str)]
    assert all(text.isprintable() and len(text) <= 64 for text in texts)
    assert "CANARY" not in report + record and "<script>alert" not in report  # a record is data


def stored_as(axcodes):
    def change(image):
        target = nib.orientations.axcodes2ornt(axcodes)
        stored = nib.io_orientation(image.affine)
        return image.as_reoriented(nib.orientations.ornt_transform(stored, target))

    return change


def with_extension(image):
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"CANARY" * 1000))
    return image


def ringing(image):
    values = np.asarray(image.dataobj, np.float32)
    some = np.random.default_rng(0).random(values.shape) < 0.2
    return nib.Nifti1Image(np.where((values == 0) & some, -3, values), image.affine)


ODD_NIFTI = {
    **{
        f"stored {axes}": (stored_as(axes), "s.nii.gz")
        for axes in ["LPS", "RSA", "ASR", "PIR", "LAI"]
    },
    "extension": (with_extension, "s.nii.gz"),
    "background below zero": (ringing, "s.nii.gz"),
    "upper case": (lambda image: image, "S.NII.GZ"),
    "path of another alphabet": (lambda image: image, "磁共振 – Ünïcødé.nii.gz"),
}


@pytest.mark.parametrize(("change", "name"), ODD_NIFTI.values(), ids=ODD_NIFTI)
def test_odd_nifti(change, name, brain, make_brain_screener, tmp_path):
    screener = make_brain_screener()
    plain = screener(brain)
    nib.save(change(nib.load(brain)), tmp_path / name)
    with bounded():
        odd = screener(tmp_path / name)
    assert plain.outcome == odd.outcome == "suspicious"
    assert odd.score == pytest.approx(plain.score, rel=2e-3)
    images = (nib.Nifti1Image(one.map_volume, one.affine) for one in (plain, odd))
    maps = (np.asarray(nib.as_closest_canonical(image).dataobj) for image in images)
    assert np.allclose(*maps, atol=2e-3)


def test_packing_and_names_do_not_matter(brain, make_brain_screener, tmp_path):
    """Packed but not named so, the reverse, and packed in two parts with text behind."""
    nib.save(nib.load(brain), tmp_path / "s.nii")
    data = (tmp_path / "s.nii").read_bytes()
    half = len(data) // 2
    (tmp_path / "plain.nii.gz").write_bytes(data)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(data))
    parts = gzip.compress(data[:half]), gzip.compress(data[half:] + b"behind")
    (tmp_path / "parts.nii.gz").write_bytes(b"".join(parts))
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("a/b.nii.gz", gzip.compress(data))
    scores = {make_brain_screener()(path).score for path in tmp_path.iterdir()}
    assert len(scores) == 1 and None not in scores


@pytest.mark.parametrize("factor", [1e-38, 1e-30, 1e30, 3e38])
def test_intensities_at_the_ends_of_the_scale(factor, brain, make_brain_screener, tmp_path):
    """The unit plays no part; what cannot be told from nothing is refused."""
    image = nib.load(brain)
    values = np.asarray(image.dataobj, np.float64)
    values = (values / values.max() * factor).astype("float32")
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "s.nii")
    with bounded():
        result = make_brain_screener()(tmp_path / "s.nii")
    if result.outcome != "not_assessable":
        assert result.score == pytest.approx(make_brain_screener()(brain).score, rel=1e-2)


def test_two_series_in_one_folder_are_two_scans(series, make_brain_screener, tmp_path):
    """A localiser is refused, the volume beside it screened."""
    study, screener = tmp_path / "study", make_brain_screener()
    localizer = dicom_datasets(head_volume(1), orientation=SAGITTAL, series_uid="1.2.2")
    save(series(series_uid="1.2.1"), study, name="v{}".format)
    save(localizer, study, name="l{}".format)
    rows = screen(screener, list_items(study), tmp_path / "out")
    assert [row["code"] for row in rows] == [None, "single_slice"]
    assert screener(study).code == "several_series"
    (row,) = screen(screener, list_items(study, series_uid="1.2.9"), tmp_path / "other")
    assert row["code"] == "series_not_found" and "1.2.1" not in row["reason"]


# --- damage that nobody thought of ---


@pytest.fixture(scope="session")
def intact(tmp_path_factory) -> dict[str, list[bytes]]:
    """Contents of small scans that are read: name -> those of its files."""
    root = tmp_path_factory.mktemp("intact")
    volume = head_volume(3, 24, 24)
    save(dicom_datasets(volume), root / "explicit")
    save(dicom_datasets(volume, transfer_syntax=ImplicitVRLittleEndian), root / "implicit")
    save(dicom_datasets(volume, transfer_syntax=RLELossless), root / "rle")
    multiframe(dicom_datasets(volume), root / "multiframe/0")
    nifti(root / "nifti/0")
    return {
        folder.name: [file.read_bytes() for file in sorted(folder.iterdir())]
        for folder in root.iterdir()
    }


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_damage_ends_in_a_result(data, intact, make_brain_screener, tmp_path):
    kind = data.draw(st.sampled_from(sorted(intact)))
    contents = intact[kind]
    damaged = bytearray(contents[-1])
    within = st.integers(0, min(data.draw(st.sampled_from([352, 1200, 1 << 20])), len(damaged)) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(within)
        damaged[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    folder = tmp_path / "s"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, content in enumerate([*contents[:-1], bytes(damaged)]):
        (folder / (f"{number}.nii" if kind == "nifti" else str(number))).write_bytes(content)
    path = folder / "0.nii" if kind == "nifti" else folder
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = make_brain_screener()(path)
    assert result.outcome in ("normal", "suspicious", "not_assessable")
    assert (result.code in REFUSALS) == (result.outcome == "not_assessable")
    assert (result.code in REFUSALS) == (result.score is None)
