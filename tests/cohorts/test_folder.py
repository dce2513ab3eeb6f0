"""Folders and BIDS datasets: which scans are taken, who is who, who is healthy, and that nobody is
in two sections."""

import json
import re
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scan_builders import dicom_datasets, head_volume, save, zipped

from pathology_screen.cohorts import load_datalist
from pathology_screen.cohorts.datalist import SECTIONS, load_sections, read_notes
from pathology_screen.cohorts.folder import prepare_folder
from pathology_screen.errors import ConfigError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:with .* calibration subjects")
EVEN = {"fractions": (0.4, 0.2, 0.2, 0.2)}
TRAINING_ONLY = {"fractions": (1, 0, 0, 0)}
GROUPS = {**EVEN, "group_column": "diagnosis", "healthy": ["control"]}


def scan(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), np.diag([2, 2, 5, 1]))
    image.set_sform(image.affine, code=1)
    nib.save(image, path)


def subjects(datalist: Path) -> dict[str, set[str]]:
    sections = load_sections(datalist).items()
    return {section: {item["subject"] for item in items} for section, items in sections}


def groups(datalist: Path) -> dict[str, str]:
    return {item["subject"]: item["pathology"] for item in load_datalist(datalist, "test")}


@pytest.fixture
def prepare(tmp_path):
    """Prepare a folder of `tmp_path`."""
    return lambda source, **options: prepare_folder(tmp_path / source, tmp_path / "out", **options)


@pytest.fixture
def bids(tmp_path) -> Path:
    """Ten subjects, three of them patients; two sessions of one; what is no T1w scan."""
    root = tmp_path / "bids"
    for number in range(1, 11):
        for session in ("ses-1/", "ses-2/") if number == 3 else ("",):
            name = f"sub-{number:02d}_{session.replace('/', '_')}T1w.nii.gz"
            scan(root / f"sub-{number:02d}/{session}anat/{name}")
    for name in (
        "sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-01/func/sub-01_bold.nii.gz",
        "derivatives/prep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
    ):
        scan(root / name)
    (root / "dataset_description.json").write_text("{}")
    return root


def write_participants(root: Path, patients=("08", "09", "10"), **more) -> None:
    group = {f"{n:02d}": "control" for n in range(1, 11)} | dict.fromkeys(patients, "tumour")
    group |= {name[1:]: value for name, value in more.items()}
    rows = [f"sub-{name}\t40\t{value}\n" for name, value in group.items()]
    (root / "participants.tsv").write_text("".join(["participant_id\tage\tdiagnosis\n", *rows]))


def test_bids_dataset(bids, prepare):
    """The same command gives the same list, and another split needs another folder."""
    with pytest.warns(UserWarning, match="2 calibration subjects"):
        datalist = prepare("bids", **EVEN)
    found, before = subjects(datalist), datalist.read_bytes()
    assert [len(found[section]) for section in SECTIONS] == [4, 2, 2, 2]
    assert set().union(*found.values()) == {f"{n:02d}" for n in range(1, 11)}
    items = [item for section in load_sections(datalist).values() for item in section]
    assert Counter(item["subject"] for item in items)["03"] == 2  # both sessions
    assert len(items) == 11 and all(item["image"].endswith("_T1w.nii.gz") for item in items)
    left_out = ["sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz"]
    assert read_notes(datalist) == {"T1w with contrast agent, left out": left_out}
    assert set(groups(datalist).values()) == {"healthy"}
    assert prepare("bids", **EVEN).read_bytes() == before
    with pytest.raises(ConfigError, match="other options"):
        prepare("bids", **EVEN, seed=2)


def test_images_stay_where_they_are_and_the_whole_can_be_moved(bids, tmp_path):
    datalist = prepare_folder(bids, tmp_path / "lists" / "a", **TRAINING_ONLY)
    images = [item["image"] for item in json.loads(datalist.read_text())["training"]]
    assert images[0] == "../../bids/sub-01/anat/sub-01_T1w.nii.gz"
    assert not list(datalist.parent.rglob("*.nii.gz"))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for folder in ("bids", "lists"):
        (tmp_path / folder).rename(moved / folder)
    assert len(load_datalist(moved / "lists/a/datalist.json", "training")) == 11
    beside = prepare_folder(moved / "bids", moved / "bids", **TRAINING_ONLY)
    (first, *_) = json.loads(beside.read_text())["training"]
    assert first["image"] == "sub-01/anat/sub-01_T1w.nii.gz"


def test_only_healthy_subjects_outside_test_and_their_column_is_not_overlooked(bids, tmp_path):
    write_participants(bids)
    message = r"column diagnosis \(control, tumour\): pass it as group_column"
    with pytest.raises(ConfigError, match=message):
        prepare_folder(bids, tmp_path / "out", **EVEN)
    datalist = prepare_folder(bids, tmp_path / "out", **GROUPS)
    found = subjects(datalist)
    assert [len(found[section]) for section in SECTIONS] == [3, 2, 1, 4]
    expected = dict.fromkeys(found["test"], "healthy") | dict.fromkeys(("08", "09", "10"), "tumour")
    assert groups(datalist) == expected
    write_participants(bids, patients=())
    prepare_folder(bids, tmp_path / "same", **EVEN)  # one value tells nothing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_column": "dx"}, "no column dx; it has age, diagnosis"),
        ({"healthy": ["controls"]}, "are control, n/a, tumour: controls is none of them"),
        ({"healthy": []}, "say which mean healthy"),
        ({"group_column": None}, "need the group_column"),
        ({"exclude": ["99"]}, "99 cannot be left out"),
        ({}, "whether 1 subjects are healthy: 04"),
        ({"exclude": ["04"]}, None),
    ],
)
def test_wrong_groups_are_refused_unless_their_subjects_are_excluded(
    bids, prepare, options, message
):
    write_participants(bids, s04="n/a")
    if message:
        with pytest.raises(ConfigError, match=message):
            prepare("bids", **GROUPS | options)
    else:
        datalist = prepare("bids", **GROUPS | options)
        assert "04" not in set().union(*subjects(datalist).values())
        assert read_notes(datalist)["excluded by the user"] == ["04"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"participants\.tsv does not exist"),
        ("id\tdiagnosis\nsub-01\tcontrol\n", "no column participant_id"),
        ("participant_id\tdiagnosis\nsub-01\tx\nsub-01\ty\n", "several rows for sub-01"),
        ("participant_id\tdiagnosis\n01\tcontrol\n02\thealthy\n", '"healthy" of the column diag'),
    ],
)
def test_broken_participants_are_refused(prepare, tmp_path, text, message):
    for name in ("01", "02"):
        scan(tmp_path / f"two/sub-{name}.nii")
    if text:
        (tmp_path / "two/participants.tsv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        prepare("two", **GROUPS)


def test_users_split_is_followed_but_must_not_train_on_patients(bids, prepare, tmp_path):
    sections = {f"{n:02d}": SECTIONS[n % 4] for n in range(1, 11)}
    split, out = tmp_path / "split.csv", tmp_path / "out"

    def write(**moved):
        rows = {**sections, **{name[1:]: section for name, section in moved.items()}}
        split.write_text("\n".join(["subject,section", *map(",".join, rows.items())]))

    write()
    datalist = prepare("bids", split=split)
    assert subjects(datalist) == {
        section: {name for name, of in sections.items() if of == section} for section in SECTIONS
    }
    test = load_datalist(datalist, "test")
    assert not any("pathology" in item for item in test)  # nobody said that they are healthy

    out.rename(tmp_path / "first")
    write_participants(bids, patients=("07", "10"))
    message = r"split\.csv puts 10 in calibration, but participants.tsv says tumour"
    with pytest.raises(ConfigError, match=message):
        prepare("bids", split=split, **GROUPS)
    write(s10="test")
    datalist = prepare("bids", split=split, **GROUPS)
    assert groups(datalist) == {"03": "healthy", "07": "tumour", "10": "tumour"}


@pytest.fixture
def plain(tmp_path) -> Path:
    """Scans by subject folder, two of one subject, two beside them, and derived files."""
    root = tmp_path / "plain"
    scans = "anna/a_T1.nii.gz anna/later/b.nii bert/scan.nii.gz carl.nii.gz dora_T1.nii"
    derived = (
        "anna/a_mask.nii.gz masks/bert.nii.gz derivatives/x/y.nii.gz bert/Labels/1.nii e-seg.nii"
    )
    for name in f"{scans} {derived}".split():
        scan(root / name)
    (root / "readme.txt").write_text("?")
    return root


def test_plain_folder(plain, prepare):
    datalist = prepare("plain", **TRAINING_ONLY)
    items = load_datalist(datalist, "training")
    people = Counter(item["subject"] for item in items)
    assert people == {"anna": 2, "bert": 1, "carl": 1, "dora_T1": 1}
    derived = ["anna/a_mask.nii.gz", "bert/Labels/", "derivatives/", "e-seg.nii", "masks/"]
    assert read_notes(datalist) == {"masks and derived files, not taken for scans": derived}


def test_patterns_choose_scans_and_name_subjects(prepare, tmp_path):
    for name in ("p1_v1", "p1_v2", "p2_v1", "p2_v2"):
        for kind in ("T1", "FLAIR"):
            scan(tmp_path / f"flat/all/{name}_{kind}.nii.gz")
    options = {**TRAINING_ONLY, "scan_pattern": r"_T1\.", "subject_pattern": r"/(p\d)_"}
    items = load_datalist(prepare("flat", **options), "training")
    assert Counter(item["subject"] for item in items) == {"p1": 2, "p2": 2}
    assert all(item["image"].endswith("_T1.nii.gz") for item in items)
    for wrong, message in (
        ({"subject_pattern": None}, "4 scans seem to be of one subject: say with subject_pattern"),
        ({"subject_pattern": r"/(q\d)_"}, "finds no subject in all/p1_v1"),
        ({"subject_pattern": "("}, "not a regular expression"),
        ({"scan_pattern": "T2"}, "no scan whose path matches 'T2'"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            prepare("flat", **options | wrong)


def test_dicom_subjects_are_told_by_patient_id_which_is_not_written(prepare, tmp_path):
    """Two visits of one person in two folders, one of them an archive, and three others, of whom
    one has no id."""
    root = tmp_path / "dicom"
    people = {"2019/a": "SECRET-1", "2020/b": "SECRET-2", "2020/c": "SECRET-3", "2021/d": ""}
    for folder, patient in people.items():
        save(dicom_datasets(head_volume(), PatientID=patient), root / folder)
    again = save(dicom_datasets(head_volume(), PatientID="SECRET-1"), tmp_path / "again")
    zipped(again.iterdir(), root / "2020" / "visit.zip")
    datalist = prepare("dicom", **TRAINING_ONLY)
    items = load_datalist(datalist, "training")
    assert {Path(item["image"]).name: item["subject"] for item in items} == {
        **{"a": "2019_a", "visit.zip": "2019_a", "b": "2020_b", "c": "2020_c"},
        "d": "2021",
    }
    assert not any("SECRET" in path.read_text() for path in datalist.parent.iterdir())


def test_scans_that_cannot_be_read_are_all_named(plain, prepare, tmp_path):
    for name in ("carl.nii.gz", "bert/scan.nii.gz"):
        (plain / name).write_bytes((plain / name).read_bytes()[:200])
    message = r"2 of 5 scans cannot be read.*: bert/scan.nii.gz: \[unreadable\].*; carl"
    with pytest.raises(ConfigError, match=message):
        prepare("plain", **TRAINING_ONLY)
    assert not (tmp_path / "out" / "datalist.json").exists()
    datalist = prepare("plain", **TRAINING_ONLY, exclude=["carl", "bert"])
    assert subjects(datalist)["training"] == {"anna", "dora_T1"}


def test_no_scans(prepare, tmp_path):
    with pytest.raises(InputError, match="not_found"):
        prepare("nowhere")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "dataset_description.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds no sub-\*/"):
        prepare("bare")


@pytest.mark.needs_shared
def test_real_folders(shared_data, tmp_path):
    ill = [f"M{n:03d}" for n in range(14)]
    oasis = subjects(prepare_folder(shared_data / "oasis", tmp_path / "oasis", exclude=ill))
    assert [len(oasis[section]) for section in SECTIONS] == [48, 4, 20, 8]
    options = {"fractions": (0, 0, 0, 1), "check": False}
    glioma = subjects(prepare_folder(shared_data / "glioma", tmp_path / "glioma", **options))
    assert glioma["test"] == {"TCGA-DU-7294_T1w", "TCGA-FG-6692_T1w"}  # and not their masks
