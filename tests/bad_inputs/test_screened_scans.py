"""Bad scans on their way through screening: every one ends in a typed refusal, and those that only
look odd in the result of the scan that they are."""

import json
import shutil
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from bad_scans import nifti, raw
from batches import screen
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from limits import bounded
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from scan_builders import NATIVE, dicom_datasets, head_volume, multiframe, save, series_of, zipped

from pathology_screen.cli import NOT_ASSESSABLE
from pathology_screen.errors import REFUSALS, InputError
from pathology_screen.io import read_scan
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
    "DICOM, unknown transfer syntax": {"": ["single_slice", "unsupported_compression"]},
    "DICOM, transfer syntax is text": {"": ["single_slice", "unsupported_compression"]},
    "DICOM, sequences 300 deep": {"": ["single_slice"], "IM0001": ["unreadable"]},
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
    tree = next(iter(wrong.values()))[0].parent
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


# --- scans that are read, and that the acceptance gate refuses: see `screening.test_gate` ---


@pytest.fixture
def series(brain):
    """Function that gives the brain as DICOM data sets; arguments as for `series_of`."""
    return partial(series_of, nib.load(brain))


@pytest.mark.parametrize("code", ["contrast_agent", "short_slab"])
def test_refused_by_its_header_or_its_image(code, series, brain, make_brain_screener, tmp_path):
    path = save(series(ContrastBolusAgent="CANARY"), tmp_path / "s")
    if code == "short_slab":
        image, path = nib.load(brain), tmp_path / "s.nii"
        nib.save(image.slicer[..., 40:43], path)
    with bounded():
        result = make_brain_screener()(path)
    check_refused(result, code)
    assert "accepted: " in result.reason
    assert "CANARY" not in str(result.source) + str(result.findings)


# --- scans that only look odd ---


def test_series_that_look_odd(series, make_brain_screener, tmp_path):
    """A path with a line break and "..", links to files, one object, and few facts. That encodings,
    archives and files among others change no voxel is tested in `io`."""
    facts = dict.fromkeys(("ScanningSequence", "EchoTime", "RepetitionTime"))
    plain_path, links = save(series(), tmp_path / "a\nb/c d"), tmp_path / "links"
    links.mkdir()
    for file in plain_path.iterdir():
        (links / file.name).symlink_to(file)
    plain, *odd = (
        make_brain_screener()(path)
        for path in (
            plain_path,
            tmp_path / "a\nb/../a\nb/c d",
            links,
            multiframe(series(), tmp_path / "e.dcm"),
            save(series(ImageType=["DERIVED", "SECONDARY"], **facts), tmp_path / "derived"),
        )
    )
    assert plain.outcome == "suspicious" and plain.score > 0.02
    for one in odd:
        assert (one.outcome, one.code) == (plain.outcome, None), one.reason
        assert one.score == pytest.approx(plain.score, rel=1e-5)
        assert np.allclose(one.map_volume, plain.map_volume, atol=1e-5)
        assert np.allclose(one.affine, plain.affine, atol=1e-4)


ODD_FACTS = [
    {
        **{"EchoTime": b"nan ", "FlipAngle": b"1e400 ", "Modality": b"MR\\MR "},
        **{"SpecificCharacterSet": b"CANARY", "Manufacturer": b"\xff\xfe\x80A"},
        **{"ManufacturerModelName": b"<script>alert(1)</script> ", "InstanceNumber": b""},
    },
    {
        **{"EchoTime": b"CANARY", "Manufacturer": b"\x1b[2J\0\7 ", "PatientBirthDate": b"CANARY"},
        **{"ManufacturerModelName": b'=HYPERLINK("http://evil") ', "StudyInstanceUID": b"CANARY"},
    },
    {"EchoTime": b"4\\5 ", "Manufacturer": b"A" * 100_000},
]


@pytest.mark.parametrize("attributes", ODD_FACTS)
@pytest.mark.filterwarnings("ignore")
def test_odd_facts(attributes, series, make_brain_screener, tmp_path):
    """What a header says beside the image is told where it makes sense."""
    datasets = series(transfer_syntax=ImplicitVRLittleEndian)
    for keyword, value in attributes.items():
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
    assert "echo_time" not in facts and isinstance(facts.get("flip_angle", 1.0), float)
    texts = [text for text in facts.values() if isinstance(text, str)]
    assert all(text.isprintable() and len(text) <= 64 for text in texts)
    assert "CANARY" not in report + record and "<script>alert" not in report  # a record is data


def test_odd_nifti(brain, make_brain_screener, tmp_path):
    """An extension, a background below zero, an alphabet of its own and another order of axes."""
    plain, path = make_brain_screener()(brain), tmp_path / "磁共振 – Ünïcødé.NII.GZ"
    image = nib.load(brain)
    values = np.asarray(image.dataobj, np.float32)
    some = np.random.default_rng(0).random(values.shape) < 0.2
    image = nib.Nifti1Image(np.where((values == 0) & some, -3, values), image.affine)
    image = image.as_reoriented([[1, -1], [2, 1], [0, -1]])
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"CANARY" * 1000))
    nib.save(image, path)
    with bounded():
        odd = make_brain_screener()(path)
    assert plain.outcome == odd.outcome == "suspicious"
    assert odd.score == pytest.approx(plain.score, rel=2e-3)
    images = (nib.Nifti1Image(one.map_volume, one.affine) for one in (plain, odd))
    maps = (np.asarray(nib.as_closest_canonical(image).dataobj) for image in images)
    assert np.allclose(*maps, atol=2e-3)


@pytest.mark.parametrize("factor", [1e-38, 1e-30, 1e30, 3e38])
def test_intensities_at_the_ends_of_the_scale(factor, brain, make_brain_screener, tmp_path):
    """The unit plays no part; what cannot be told from nothing is refused."""
    image, screener = nib.load(brain), make_brain_screener()
    values = np.asarray(image.dataobj, np.float64)
    values = (values / values.max() * factor).astype("float32")
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "s.nii")
    with bounded():
        result = screener(tmp_path / "s.nii")
    if result.outcome != "not_assessable":
        assert result.score == pytest.approx(screener(brain).score, rel=1e-2)


# --- damage that nobody thought of ---

INTERESTING = [b"\0", b"\xff", b"\x7f\xff", b"\xff\x7f", b"\0\0\0\x80", b"\xff\xff\xff\xff"]
INTERESTING += [b"\xfe\xff\0\xe0", b"SQ", b"UL"]
SUFFIXES = {"dicom": "", "nifti": ".nii", "packed": ".nii.gz", "zip": ".zip"}


@pytest.fixture(scope="session")
def intact(tmp_path_factory) -> dict[str, list[list[bytes]]]:
    """Kind -> contents of the files of small scans that are read."""
    root = tmp_path_factory.mktemp("intact")
    volume = head_volume(3, 40, 36)
    for number, syntax in enumerate((*NATIVE[:2], RLELossless, JPEG2000Lossless, JPEGLSLossless)):
        save(dicom_datasets(volume, transfer_syntax=syntax), root / f"dicom{number}")
    multiframe(dicom_datasets(volume), root / "dicom/0")
    nifti(root / "nifti/0.nii")
    nifti(root / "packed/0.nii.gz")
    (root / "zip").mkdir()
    zipped((root / "dicom0").iterdir(), root / "zip/0.zip")
    return {
        kind: [
            [file.read_bytes() for file in sorted(folder.iterdir())]
            for folder in sorted(root.glob(f"{kind}*"))
        ]
        for kind in SUFFIXES
    }


@st.composite
def damaged(draw, content):
    """A file with some bytes replaced, inserted, repeated or left out."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 5))):
        reach = min(len(data), draw(st.sampled_from([64, 400, 1500, 1 << 24])))
        at = draw(st.integers(0, max(reach - 1, 0)))
        length = draw(st.sampled_from([0, 1, 2, 4, 8, 100]))
        repeated = st.just(bytes(data[at : at + 50]) * 3)
        data[at : at + length] = draw(
            st.sampled_from(INTERESTING) | st.binary(max_size=8) | repeated
        )
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data)


def read_damaged(kind, data, intact, folder):
    """Whatever bytes a file holds, reading it ends in a scan or an `InputError`; gives its path."""
    *contents, last = data.draw(st.sampled_from(intact[kind]))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, content in enumerate([*contents, data.draw(damaged(last))]):
        (folder / f"{number}{SUFFIXES[kind]}").write_bytes(content)
    path = folder / f"0{SUFFIXES[kind]}" if SUFFIXES[kind] else folder
    with warnings.catch_warnings(), suppress(InputError):
        warnings.simplefilter("ignore")
        assert np.isfinite(read_scan(path).voxels).all()
    return path


OPTIONS = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
OPTIONS["phases"] = [Phase.explicit, Phase.generate]


@pytest.mark.parametrize("kind", SUFFIXES)
@settings(max_examples=25, derandomize=True, **OPTIONS)
@given(data=st.data())
def test_any_damage_ends_in_a_result(kind, data, intact, make_brain_screener, tmp_path):
    path = read_damaged(kind, data, intact, tmp_path / "s")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = make_brain_screener()(path)
    assert result.outcome in ("normal", "suspicious", "not_assessable")
    assert (result.code in REFUSALS) == (result.outcome == "not_assessable")
    assert (result.code in REFUSALS) == (result.score is None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SUFFIXES)
@settings(max_examples=3000, **OPTIONS)
@given(data=st.data())
def test_much_damage_is_read_or_refused(kind, data, intact, tmp_path):
    read_damaged(kind, data, intact, tmp_path / "s")
