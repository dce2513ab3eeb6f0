"""IXI: which files are taken, where the slice lies, runs that fail or are interrupted, and the bias
field, which is taken out."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose
from scipy.spatial.transform import Rotation

from pathology_screen.cohorts import load_datalist
from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.datalist import load_sections
from pathology_screen.cohorts.ixi import correct_bias_field, prepare_ixi, slice_path
from pathology_screen.cohorts.simulation import simulate
from pathology_screen.errors import ConfigError
from pathology_screen.space import Fit, load_brain_template, plane_affine, take_plane
from pathology_screen.transforms import ExtractBraind, LoadScand, StandardPlaned, standard_plane

NAMES = ("IXI002-Guys-0828-T1.nii.gz", "IXI012-HH-1211-T1.nii.gz", "IXI035-IOP-0873-T1.nii.gz")
TO_SCAN = np.array([[0.9, 0.02, 0, 4], [0, 0.85, -0.3, 2], [0, 0.28, 0.8, 11], [0, 0, 0, 1]])
WEIGHTS = np.array([0.5, 1.0, 2.0])  # intensity a mm


@pytest.fixture
def source(tmp_path) -> Path:
    """Three volumes, and files that are none of T1. Their intensities rise linearly with the
    position in scanner space, in a frame of air, stored with axes P, S and R as IXI's are."""
    affine = np.array([[0, 0, 4.0, -112], [-4.0, 0, 0, 120], [0, 4.0, 0, -120], [0, 0, 0, 1]])
    points = nib.affines.apply_affine(affine, np.moveaxis(np.indices((60, 60, 56)), 0, -1))
    rising = np.pad((1000 + points @ WEIGHTS)[1:-1, 1:-1, 1:-1], 1)
    image = nib.Nifti1Image(rising.astype(np.float32), affine)
    image.set_sform(affine, code=1)
    folder = tmp_path / "IXI-T1"
    folder.mkdir()
    for name in (*NAMES, "IXI012-HH-1211-T2.nii.gz"):
        nib.save(image, folder / name)
    (folder / "IXI.xls").touch()
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Replace brain extraction and registration: `calls` counts, `fits` is what comes next."""
    state = SimpleNamespace(calls=0, fits=[])

    def register(*scan):
        state.calls += 1
        return TO_SCAN, state.fits.pop(0) if state.fits else Fit(0.95, 0.6)

    monkeypatch.setattr(standard_plane, "find_brain", lambda voxels, affine: (voxels > 1000, False))
    monkeypatch.setattr(standard_plane, "register", register)
    return state


def test_slice_holds_what_the_map_leads_to(source, tmp_path, quick):
    items = load_datalist(prepare_ixi(source, tmp_path / "out"), "training")
    people = [("IXI002", "Guys"), ("IXI012", "HH"), ("IXI035", "IOP")]
    assert [(item["subject"], item["site"]) for item in items] == people
    image = nib.load(items[0]["image"])
    assert image.shape == (233, 197, 1) and image.get_data_dtype() == np.float32
    assert np.array_equal(image.affine, plane_affine(23))
    assert image.header["sform_code"] == image.header["qform_code"] == 4  # MNI
    mni = np.array([[0, 0, 23], [30, -50, 23], [-45, 20, 23]])
    expected = 1000 + nib.affines.apply_affine(TO_SCAN, mni) @ WEIGHTS
    columns, rows = (98 - mni[:, :2]).T
    assert np.allclose(image.get_fdata()[rows, columns, 0], expected, atol=0.01)


@pytest.mark.parametrize("domain", ["whole_head", "brain_extracted"])
def test_a_slice_is_what_the_transforms_give_of_the_volume(source, tmp_path, quick, domain):
    (item, *_) = load_datalist(prepare_ixi(source, tmp_path / "out", domain=domain), "training")
    plane = StandardPlaned("image", domain=domain)
    pipeline = Compose([LoadScand("image"), ExtractBraind("image"), plane])
    written, taken = pipeline(item)["image"], pipeline({"image": source / NAMES[0]})["image"]
    assert item["axial_slice"] and np.array_equal(written, taken)
    assert np.array_equal(written.affine, taken.affine)
    assert written[0, 60, 40] > 1000 and (written[0, 200, 150] == 0) == (domain != "whole_head")


def test_finished_subjects_are_kept_and_others_made_and_fits_listed_worst_first(
    source, tmp_path, quick
):
    quick.fits += [Fit(0.95, 0.6), Fit(0.94, 0.5), Fit(0.96, 0.7), Fit(0.94, 0.5)]
    folder = prepare_ixi(source, tmp_path / "out").parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert quick.calls == 3 and not list(folder.glob(".*"))
    slice_path(folder, "IXI012").unlink()
    prepare_ixi(source, folder)
    assert quick.calls == 4
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(ConfigError, match="other options"):
        prepare_ixi(source, folder, domain="brain_extracted")
    lines = (folder / "registration.csv").read_text().split()
    assert lines == [
        *("subject,correlation,dice", "IXI012,0.5,0.94"),
        *("IXI002,0.6,0.95", "IXI035,0.7,0.96"),
    ]
    record = json.loads((folder / "sub-IXI012_space-MNI152NLin2009aSym_T1w.json").read_text())
    assert record["source"] == NAMES[1] and np.allclose(record["mni_to_scanner_mm"], TO_SCAN)


def test_failed_registrations_are_named_and_leave_no_slice(source, tmp_path, quick):
    quick.fits += [Fit(0.95, 0.6), Fit(0.9, 0.1)]
    message = r"1 of 3 .*IXI012-HH-1211-T1\.nii\.gz: \[registration_failed\] .*0\.10"
    with pytest.raises(ConfigError, match=message):
        prepare_ixi(source, tmp_path / "out")
    made = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    assert made == {slice_path(tmp_path, subject).name for subject in ("IXI002", "IXI035")}
    assert not (tmp_path / "out" / "datalist.json").exists()
    datalist = prepare_ixi(source, tmp_path / "out", exclude=["IXI012"])
    assert quick.calls == 3  # none again
    assert json.loads(datalist.read_text())["notes"] == {"excluded by the user": ["IXI012"]}
    assert [item["subject"] for item in load_datalist(datalist, "training")] == ["IXI002", "IXI035"]


@pytest.mark.parametrize("registration", [True, False])
def test_unreadable_volumes_are_named(source, tmp_path, quick, registration):
    damaged = source / NAMES[1]
    damaged.write_bytes(damaged.read_bytes()[:5000])
    with pytest.raises(ConfigError, match=r"1 of 3 .*IXI012-HH-1211-T1\.nii\.gz: \[unreadable\]"):
        prepare_ixi(source, tmp_path / "out", registration=registration)


def test_without_registration_the_volumes_are_referenced_and_split(source, tmp_path, quick):
    options = {"registration": False, "fractions": (1 / 3, 1 / 3, 0, 1 / 3)}
    datalist = prepare_ixi(source, tmp_path / "out", **options)
    sections = load_sections(datalist)
    assert [len(items) for items in sections.values()] == [1, 1, 0, 1] and quick.calls == 0
    items = [item for section in sections.values() for item in section]
    assert {Path(item["image"]) for item in items} == {source / name for name in NAMES}
    assert "../IXI-T1/" in datalist.read_text() and "axial_slice" not in datalist.read_text()
    assert sections["test"][0]["pathology"] == "healthy" and "pathology" not in items[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"registration": False, "n4": True}, "without registration"),
        ({"registration": False, "domain": "brain_extracted"}, "without registration"),
        ({"exclude": ["IXI999"]}, "IXI999 cannot be left out"),
        ({"source": "nowhere"}, "no file named like IXI002"),
        ({}, "several T1w volumes of IXI012"),
    ],
)
def test_what_makes_no_sense_is_refused(source, tmp_path, options, message):
    if not options:
        (source / "IXI012-HH-1299_T1.nii.gz").touch()
    with pytest.raises(ConfigError, match=message):
        prepare_ixi(**{"source": source, "output": tmp_path / "out"} | options)


def in_slice(folder: Path, subject: str) -> np.ndarray:
    return nib.load(slice_path(folder, subject)).get_fdata()[..., 0]


@pytest.mark.slow
def test_a_head_that_was_moved_gives_the_same_slice(tmp_path):
    """Brain extraction, bias field correction and registration in earnest, in two processes."""
    head = simulate(load_template(), (5, 1))
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("xyz", [12, -5, 8], degrees=True).as_matrix()
    move[:3, 3] = [6, -20, 15]
    for name, affine in zip(NAMES, (head.affine, move @ head.affine)):
        image = nib.Nifti1Image(head.image, affine)
        image.set_sform(affine, code=1)
        nib.save(image, tmp_path / name)
    folder = prepare_ixi(tmp_path, tmp_path / "out", n4=True, workers=2).parent
    still, moved = (in_slice(folder, subject) for subject in ("IXI002", "IXI012"))
    shown = still > 0.2 * still.max()
    assert np.corrcoef(still[shown], moved[shown])[0, 1] > 0.97
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("sub-*.json"))]
    first, second = (np.array(record["mni_to_scanner_mm"]) for record in records)
    corners = np.array([[x, y, z] for x in (-60, 60) for y in (-95, 60) for z in (-30, 65)])
    there, expected = (nib.affines.apply_affine(map_, corners) for map_ in (second, move @ first))
    assert np.linalg.norm(there - expected, axis=1).max() < 2  # mm; the masks differ a little


@pytest.mark.slow
@pytest.mark.needs_shared
def test_real_heads_lie_on_the_template(shared_data, tmp_path):
    heads, options = shared_data / "whole_head", {"domain": "brain_extracted"}
    folder = prepare_ixi(heads, tmp_path / "out", **options).parent
    template = load_brain_template()
    target = take_plane(np.asarray(template.dataobj), template.affine, np.eye(4))
    for subject in ("IXI012", "IXI015"):
        brain = in_slice(folder, subject)
        both = (brain > 0) & (target > 0)
        assert 2 * both.sum() / ((brain > 0).sum() + (target > 0).sum()) > 0.95
        assert np.corrcoef(brain[both], target[both])[0, 1] > 0.5
    again = prepare_ixi(heads, tmp_path / "again", **options).parent
    assert np.array_equal(in_slice(again, "IXI012"), in_slice(folder, "IXI012"))


def test_the_bias_field_is_taken_out_and_the_brain_keeps_its_mean():
    """Of a phantom brain that is 2.2 times as bright at the front as at the back; whatever the
    order of the axes. A plate of skull in front is corrected as the brain beside it."""
    volume = simulate(load_template(), (7, 1))
    image, affine = np.float32(volume.image * volume.brain), volume.affine
    shade = np.exp(np.linspace(-0.4, 0.4, image.shape[1], dtype=np.float32))[:, None]
    before, brain, white = image * shade, image > 0, image > np.percentile(image[image > 0], 60)
    after = correct_bias_field(before, affine, brain)

    def spread(shaded, true, where):
        return np.std(shaded[where] / true[where]) / np.mean(shaded[where] / true[where])

    assert spread(before, image, white) > 0.12 and spread(after, image, white) < 0.04
    assert after.dtype == np.float32 and np.all(after[~brain] == 0)
    assert after[brain].mean() == pytest.approx(before[brain].mean(), rel=1e-4)
    assert np.array_equal(correct_bias_field(before, affine, brain), after)

    turned, inside = (volume.transpose(2, 0, 1) for volume in (before, brain))
    found = correct_bias_field(turned, affine[:, [2, 0, 1, 3]], inside).transpose(1, 2, 0)
    assert spread(found, after, brain) < 0.02

    front = np.flatnonzero(brain.any(axis=(0, 2)))[-1]
    column, level = np.argwhere(brain[:, front])[0]
    before[column, front + 1 : front + 6] = 500
    corrected = correct_bias_field(before, affine, brain)
    assert 0.6 < corrected[column, front + 5, level] / 500 < 0.9


def test_missing_itk_is_named(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "itk", None)
    with pytest.raises(ConfigError, match=r"pip install pathology-screen\[ixi\]"):
        prepare_ixi(source, tmp_path / "out", n4=True)
