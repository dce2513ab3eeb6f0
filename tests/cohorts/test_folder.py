"""Folders and BIDS datasets: which scans are taken, who is who, who is healthy, and that nobody is
in two sections."""

import json
import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scan_builders import dicom_datasets, head_volume, save

from pathology_screen.cohorts import load_datalist
from pathology_screen.cohorts.folder import prepare_folder
from pathology_screen.cohorts.splits import SECTIONS
from pathology_screen.errors import ConfigError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:with .* calibration subjects")
EVEN = (0.4, 0.2, 0.2, 0.2)
TRAINING_ONLY = (1, 0, 0, 0)


def scan(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    image = nib.Nifti1Image(voxels, np.diag([2, 2, 5, 1]))
    image.set_sform(image.affine, code=1)
    nib.save(image, path)
    return path


def sections(datalist: Path) -> dict[str, list[dict]]:
    return {section: load_datalist(datalist, section) for section in SECTIONS}


def subjects(datalist: Path) -> dict[str, set[str]]:
    return {
        section: {item["subject"] for item in items}
        for section, items in sections(datalist).items()
    }


def everyone(datalist: Path) -> set[str]:
    return set().union(*subjects(datalist).values())


def notes(datalist: Path) -> dict[str, list[str]]:
    return json.loads(datalist.read_text())["notes"]


@pytest.fixture
def bids(tmp_path) -> Path:
    """Ten subjects, three of them patients; two sessions of one; what is no T1w scan."""
    root = tmp_path / "bids"
    for number in range(1, 11):
        scan(root / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_T1w.nii.gz")
    shutil.move(root / "sub-03", root / "away")
    for session in ("ses-1", "ses-2"):
        scan(root / "sub-03" / session / "anat" / f"sub-03_{session}_T1w.nii.gz")
    shutil.rmtree(root / "away")
    scan(root / "sub-01" / "anat" / "sub-01_ce-gadolinium_T1w.nii.gz")
    scan(root / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    scan(root / "sub-01" / "func" / "sub-01_bold.nii.gz")
    scan(root / "derivatives" / "prep" / "sub-01" / "anat" / "sub-01_desc-preproc_T1w.nii.gz")
    (root / "dataset_description.json").write_text("{}")
    return root


def write_participants(root: Path, patients=("08", "09", "10"), **more) -> None:
    rows = [
        f"sub-{n:02d}\t{30 + n}\t{'tumour' if f'{n:02d}' in patients else 'control'}"
        for n in range(1, 11)
    ]
    for subject, value in more.items():
        rows[int(subject[1:]) - 1] = f"sub-{subject[1:]}\t40\t{value}"
    (root / "participants.tsv").write_text(
        "\n".join(["participant_id\tage\tdiagnosis", *rows]) + "\n"
    )


def test_bids_dataset(bids, tmp_path):
    datalist = prepare_folder(bids, tmp_path / "out", fractions=EVEN)
    found = subjects(datalist)
    assert {section: len(names) for section, names in found.items()} == dict(
        zip(SECTIONS, (4, 2, 2, 2))
    )
    assert everyone(datalist) == {f"{n:02d}" for n in range(1, 11)}
    images = [item["image"] for items in sections(datalist).values() for item in items]
    assert len(images) == 11 and all(image.endswith("_T1w.nii.gz") for image in images)
    (home,) = [
        items
        for items in sections(datalist).values()
        if any(item["subject"] == "03" for item in items)
    ]
    assert Counter(item["subject"] for item in home)["03"] == 2  # both sessions
    assert notes(datalist) == {
        "T1w with contrast agent, left out": ["sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz"]
    }
    assert {item["pathology"] for item in sections(datalist)["test"]} == {"healthy"}


def test_images_stay_where_they_are_and_the_whole_can_be_moved(bids, tmp_path):
    datalist = prepare_folder(bids, tmp_path / "lists" / "a", fractions=TRAINING_ONLY)
    images = [item["image"] for item in json.loads(datalist.read_text())["training"]]
    assert images[0] == "../../bids/sub-01/anat/sub-01_T1w.nii.gz"
    assert not list(datalist.parent.rglob("*.nii.gz"))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(bids, moved)
    shutil.move(tmp_path / "lists", moved)
    assert len(load_datalist(moved / "lists" / "a" / "datalist.json", "training")) == 11


def test_datalist_beside_the_scans(bids):
    datalist = prepare_folder(bids, bids, fractions=TRAINING_ONLY)
    assert (
        json.loads(datalist.read_text())["training"][0]["image"] == "sub-01/anat/sub-01_T1w.nii.gz"
    )


def test_only_healthy_subjects_outside_test(bids, tmp_path):
    write_participants(bids)
    datalist = prepare_folder(
        bids, tmp_path / "out", fractions=EVEN, group_column="diagnosis", healthy=["control"]
    )
    found = subjects(datalist)
    assert found["test"] > {"08", "09", "10"} and len(everyone(datalist)) == 10
    assert {section: len(names) for section, names in found.items()} == dict(
        zip(SECTIONS, (3, 2, 1, 4))
    )
    groups = {item["subject"]: item["pathology"] for item in sections(datalist)["test"]}
    assert all(groups.pop(name) == "tumour" for name in ("08", "09", "10"))
    assert set(groups.values()) == {"healthy"}


def test_group_column_is_not_overlooked(bids, tmp_path):
    write_participants(bids)
    with pytest.raises(
        ConfigError, match=r"column diagnosis \(control, tumour\): pass it as group_column"
    ):
        prepare_folder(bids, tmp_path / "out", fractions=EVEN)
    write_participants(bids, patients=())
    prepare_folder(bids, tmp_path / "out", fractions=EVEN)  # one value tells nothing


@pytest.mark.parametrize(
    ("column", "healthy", "message"),
    [
        ("dx", ["control"], "no column dx; it has age, diagnosis"),
        ("diagnosis", ["controls"], "are control, tumour: controls is none of them"),
        ("diagnosis", [], "say which mean healthy"),
        (None, ["control"], "need the group_column"),
    ],
)
def test_wrong_groups_are_refused(bids, tmp_path, column, healthy, message):
    write_participants(bids)
    with pytest.raises(ConfigError, match=message):
        prepare_folder(bids, tmp_path / "out", fractions=EVEN, group_column=column, healthy=healthy)


def test_subject_whose_group_is_not_known_is_refused_or_excluded(bids, tmp_path):
    write_participants(bids, s04="n/a")
    options = {"fractions": EVEN, "group_column": "diagnosis", "healthy": ["control"]}
    with pytest.raises(ConfigError, match="whether 1 subjects are healthy: 04"):
        prepare_folder(bids, tmp_path / "out", **options)
    datalist = prepare_folder(bids, tmp_path / "out", **options, exclude=["04"])
    assert "04" not in everyone(datalist) and notes(datalist)["excluded by the user"] == ["04"]
    with pytest.raises(ConfigError, match="99 cannot be left out"):
        prepare_folder(bids, tmp_path / "out", **options, exclude=["99"])


def test_broken_participants_are_refused(bids, tmp_path):
    options = {"fractions": EVEN, "group_column": "diagnosis", "healthy": ["control"]}
    with pytest.raises(ConfigError, match=r"participants\.tsv does not exist"):
        prepare_folder(bids, tmp_path / "out", **options)
    (bids / "participants.tsv").write_text("id\tdiagnosis\nsub-01\tcontrol\n")
    with pytest.raises(ConfigError, match="no column participant_id"):
        prepare_folder(bids, tmp_path / "out", **options)
    (bids / "participants.tsv").write_text(
        "participant_id\tdiagnosis\nsub-01\tcontrol\nsub-01\ttumour\n"
    )
    with pytest.raises(ConfigError, match="several rows for sub-01"):
        prepare_folder(bids, tmp_path / "out", **options)
    write_participants(bids, s04="healthy")
    with pytest.raises(ConfigError, match='"healthy" of the column diagnosis is not among'):
        prepare_folder(bids, tmp_path / "out", **options)


def write_split(path: Path, **moved: str) -> Path:
    rows = {f"{n:02d}": SECTIONS[n % 4] for n in range(1, 11)} | {
        name[1:]: section for name, section in moved.items()
    }
    path.write_text(
        "subject,section\n" + "".join(f"{name},{section}\n" for name, section in rows.items())
    )
    return path


def test_users_split_is_followed(bids, tmp_path):
    datalist = prepare_folder(bids, tmp_path / "out", split=write_split(tmp_path / "split.csv"))
    assert subjects(datalist) == {
        "training": {"04", "08"},
        "validation": {"01", "05", "09"},
        "calibration": {"02", "06", "10"},
        "test": {"03", "07"},
    }
    assert all(
        "pathology" not in item for item in sections(datalist)["test"]
    )  # nobody said that they are healthy


def test_users_split_must_not_share_subjects_or_train_on_patients(bids, tmp_path):
    table = write_split(tmp_path / "split.csv")
    table.write_text(table.read_text() + "03,training\n")
    with pytest.raises(ConfigError, match="03 in both test and training"):
        prepare_folder(bids, tmp_path / "out", split=table)
    write_participants(bids, patients=("07", "10"))
    options = {"group_column": "diagnosis", "healthy": ["control"]}
    with pytest.raises(
        ConfigError, match="puts 10 in calibration, but participants.tsv says tumour"
    ):
        prepare_folder(bids, tmp_path / "out", split=write_split(tmp_path / "split.csv"), **options)
    datalist = prepare_folder(
        bids, tmp_path / "out", split=write_split(tmp_path / "split.csv", s10="test"), **options
    )
    groups = {item["subject"]: item["pathology"] for item in sections(datalist)["test"]}
    assert groups == {"03": "healthy", "07": "tumour", "10": "tumour"}


@pytest.fixture
def plain(tmp_path) -> Path:
    """Scans by subject folder, two of one subject, with masks and derived files; two beside the
    folders."""
    root = tmp_path / "plain"
    for name in (
        "anna/a_T1.nii.gz",
        "anna/later/b.nii",
        "bert/scan.nii.gz",
        "carl.nii.gz",
        "dora_T1.nii",
    ):
        scan(root / name)
    for name in (
        "anna/a_mask.nii.gz",
        "masks/bert.nii.gz",
        "derivatives/x/y.nii.gz",
        "bert/Labels/1.nii",
        "e-seg.nii",
    ):
        scan(root / name)
    (root / "readme.txt").write_text("?")
    return root


def test_plain_folder(plain, tmp_path):
    datalist = prepare_folder(plain, tmp_path / "out", fractions=TRAINING_ONLY)
    items = load_datalist(datalist, "training")
    assert Counter(item["subject"] for item in items) == {
        "anna": 2,
        "bert": 1,
        "carl": 1,
        "dora_T1": 1,
    }
    assert notes(datalist) == {
        "masks and derived files, not taken for scans": [
            *("anna/a_mask.nii.gz", "bert/Labels/", "derivatives/", "e-seg.nii", "masks/")
        ]
    }


def test_patterns_choose_scans_and_name_subjects(tmp_path):
    root = tmp_path / "flat"
    for subject in ("p1", "p2"):
        for kind in ("T1", "FLAIR"):
            for visit in ("v1", "v2"):
                scan(root / "all" / f"{subject}_{visit}_{kind}.nii.gz")
    with pytest.raises(
        ConfigError, match="8 scans seem to be of one subject: say with subject_pattern"
    ):
        prepare_folder(root, tmp_path / "out", fractions=TRAINING_ONLY)
    options = {"fractions": TRAINING_ONLY, "scan_pattern": r"_T1\.", "subject_pattern": r"/(p\d)_"}
    items = load_datalist(prepare_folder(root, tmp_path / "out", **options), "training")
    assert Counter(item["subject"] for item in items) == {"p1": 2, "p2": 2}
    assert all(item["image"].endswith("_T1.nii.gz") for item in items)
    for pattern, message in (
        (r"/(q\d)_", "finds no subject in all/p1_v1"),
        ("(", "not a regular expression"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            prepare_folder(root, tmp_path / "out", **options | {"subject_pattern": pattern})
    with pytest.raises(ConfigError, match="no scan whose path matches 'T2'"):
        prepare_folder(root, tmp_path / "out", **options | {"scan_pattern": "T2"})


@pytest.fixture
def dicom(tmp_path) -> Path:
    """Two visits of one person in two folders, one of them an archive, and three others, of whom
    one has no id."""
    root = tmp_path / "dicom"
    for folder, patient in {
        "2019/a": "SECRET-1",
        "2020/b": "SECRET-2",
        "2020/c": "SECRET-3",
        "2021/d": "",
    }.items():
        save(dicom_datasets(head_volume(), PatientID=patient), root / folder)
    again = save(dicom_datasets(head_volume(), PatientID="SECRET-1"), tmp_path / "again")
    with zipfile.ZipFile(root / "2020" / "visit.zip", "w") as archive:
        for file in again.iterdir():
            archive.write(file, file.name)
    return root


def test_dicom_subjects_are_told_by_patient_id_which_is_not_written(dicom, tmp_path):
    datalist = prepare_folder(dicom, tmp_path / "out", fractions=TRAINING_ONLY)
    items = json.loads(datalist.read_text())["training"]
    assert {Path(item["image"]).name: item["subject"] for item in items} == {
        **{"a": "2019_a", "visit.zip": "2019_a", "b": "2020_b", "c": "2020_c"},
        "d": "2021",
    }
    assert not any("SECRET" in path.read_text() for path in datalist.parent.iterdir())


def test_scans_that_cannot_be_read_are_all_named(plain, tmp_path):
    for name in ("carl.nii.gz", "bert/scan.nii.gz"):
        (plain / name).write_bytes((plain / name).read_bytes()[:200])
    with pytest.raises(
        ConfigError, match=r"2 of 5 scans cannot be read: bert/scan.nii.gz: \[unreadable\].*; carl"
    ):
        prepare_folder(plain, tmp_path / "out", fractions=TRAINING_ONLY)
    assert not (tmp_path / "out" / "datalist.json").exists()
    datalist = prepare_folder(
        plain, tmp_path / "out", fractions=TRAINING_ONLY, exclude=["carl", "bert"]
    )
    assert everyone(datalist) == {"anna", "dora_T1"}


def test_too_few_subjects_and_no_scans(plain, tmp_path):
    with pytest.raises(ConfigError, match="0.05 of 4 subjects leaves none for validation"):
        prepare_folder(plain, tmp_path / "out")
    with pytest.raises(InputError, match="not_found"):
        prepare_folder(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "dataset_description.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds no sub-\*/"):
        prepare_folder(tmp_path / "bare", tmp_path / "out")


def test_small_calibration_section_is_warned_of(bids, tmp_path):
    with pytest.warns(UserWarning, match="2 calibration subjects"):
        prepare_folder(bids, tmp_path / "out", fractions=EVEN)


def test_same_command_gives_the_same_list_and_another_split_needs_another_folder(bids, tmp_path):
    first = prepare_folder(bids, tmp_path / "out", fractions=EVEN, seed=1).read_bytes()
    assert prepare_folder(bids, tmp_path / "out", fractions=EVEN, seed=1).read_bytes() == first
    with pytest.raises(ConfigError, match="other options"):
        prepare_folder(bids, tmp_path / "out", fractions=EVEN, seed=2)


@pytest.mark.needs_shared
def test_real_folders(shared_data, tmp_path):
    oasis = prepare_folder(
        shared_data / "oasis", tmp_path / "oasis", exclude=[f"M{n:03d}" for n in range(14)]
    )
    assert {section: len(names) for section, names in subjects(oasis).items()} == dict(
        zip(SECTIONS, (48, 4, 20, 8))
    )
    glioma = prepare_folder(
        shared_data / "glioma", tmp_path / "glioma", fractions=(0, 0, 0, 1), check=False
    )
    assert everyone(glioma) == {"TCGA-DU-7294_T1w", "TCGA-FG-6692_T1w"}  # and not their masks
