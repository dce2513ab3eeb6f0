"""Training on a MONAI Label server: who is trained on, what is refused, and a real server that gets
better weights."""

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from bad_scans import multiframe
from drawn_slices import save_discs
from hypothesis import given
from hypothesis import strategies as st
from scan_builders import AXIAL, CORONAL, dicom_datasets, head_volume, ras_affine, save
from servers import NO_SCORING, RATE, make_tiny_bundle, running_server

from pathology_screen.calibration import Calibration
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.files import sha256
from pathology_screen.label.app_folder import write_app
from pathology_screen.label.fit import SHARES, Settings, check_people, fit_version, section_of
from pathology_screen.label.studies import Study, normal_studies, read_study
from pathology_screen.label.versions import SHIPPED, Versions
from pathology_screen.screening import Screener

PEOPLE = st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=50)


@given(PEOPLE, PEOPLE)
def test_nobody_moves_to_another_section_when_more_people_are_marked(some, more):
    before = {person: section_of(person) for person in some}
    after = {person: section_of(person) for person in [*more, *some]}
    assert before.items() <= after.items()


def test_sections_have_their_shares():
    counts = Counter(section_of(f"person {number}") for number in range(5000))
    assert set(counts) == set(SHARES)
    for name, share in SHARES.items():
        assert counts[name] / 5000 == pytest.approx(share, abs=0.03)


def test_too_few_people_are_refused_with_how_many_it_takes():
    enough = {"training": 1, "validation": 1, "calibration": 19, "test": 1}
    check_people(enough, 0.05)
    with pytest.raises(ConfigError, match=r"21 people .*calibration 18 of 19.*mark about 6 more"):
        check_people(enough | {"calibration": 18}, 0.05)
    check_people(enough | {"calibration": 3}, 0.25)
    with pytest.raises(ConfigError, match="test 0 of 1.*mark about 29 more"):
        check_people(enough | {"test": 0}, 0.05)
    with pytest.raises(ConfigError, match=r"0 people .*mark about \d\d more"):
        check_people({}, 0.05)


@pytest.mark.parametrize(
    "request_",
    [
        {"max_epochs": 0},
        {"max_epochs": True},
        {"max_epochs": "$__import__('os').system('true')"},
        {"learning_rate": "@seed"},
        {"learning_rate": float("nan")},
        {"learning_rate": -1e-3},
        {"pretrained": "yes"},
        {"device": "$1"},
        {"device": "toaster"},
    ],
)
def test_a_request_that_makes_no_sense_is_refused(request_):
    with pytest.raises(ConfigError):
        Settings.of(request_)


def test_what_is_not_asked_for_is_left_to_the_bundle():
    assert Settings.of({"model": "ra_healthy", "gpus": "all"}) == Settings()
    assert Settings.of(
        {"max_epochs": 3, "learning_rate": 1e-4, "pretrained": False, "device": "cpu"}
    ) == Settings(3, 1e-4, False, "cpu")


class Datastore(SimpleNamespace):
    """As much of MONAI Label's as is used here: id -> info."""

    def list_images(self):
        return list(self.infos)

    def get_image_info(self, name):
        return self.infos[name]

    def get_image_uri(self, name):
        return f"/studies/{name}.nii.gz"

    def get_labels_by_image_id(self, name):
        return {}


def test_people_are_told_by_what_is_known_of_them():
    normal = {"reading": "normal"}
    infos = {
        "sub-A_ses-1_T1w": normal,
        "sub-A_ses-2_T1w": normal,
        "sub-B_T1w": {"reading": "abnormal"},
        "sub-C_T1w": {},
        "x": normal | {"PatientID": "7"},
        "y": normal | {"PatientID": " 7"},
        "z": normal | {"PatientID": "UNK"},
        "w": normal | {"PatientID": ""},
        "v": normal | {"PatientID": "7", "subject": "somebody"},
    }
    found = {study.path.name: study.person for study in normal_studies(Datastore(infos=infos))}
    assert len(found) == 7 and "sub-B_T1w.nii.gz" not in found and "sub-C_T1w.nii.gz" not in found
    assert found["sub-A_ses-1_T1w.nii.gz"] == found["sub-A_ses-2_T1w.nii.gz"]
    assert found["x.nii.gz"] == found["y.nii.gz"]
    assert len(set(found.values())) == 5


def as_monai_label_keeps_it(folder, datasets, affine, volume):
    """`UID.nii.gz` with the series `UID/` beside it; return the NIfTI's path."""
    series = save(datasets, folder / "1.2.3", "{}.dcm".format)
    nib.save(
        nib.Nifti1Image(volume.transpose(2, 1, 0).astype(np.float32), affine), f"{series}.nii.gz"
    )
    return folder / "1.2.3.nii.gz"


def test_headers_of_the_dicom_series_come_back(tmp_path):
    volume = head_volume()
    path = as_monai_label_keeps_it(
        tmp_path,
        dicom_datasets(volume, ContrastBolusAgent="CANARY gadolinium"),
        ras_affine(),
        volume,
    )
    scan = read_study(path)
    assert scan.source["format"] == "nifti" and scan.source["contrast_agent"] is True
    assert scan.source["echo_time"] == 4.6 and scan.source["modality"] == "MR"
    assert "CANARY" not in json.dumps(dict(scan.source))
    np.testing.assert_array_equal(scan.voxels, volume.transpose(2, 1, 0))


def test_a_scan_without_a_series_beside_it_is_read_as_it_is(tmp_path):
    volume = head_volume()
    nib.save(
        nib.Nifti1Image(volume.transpose(2, 1, 0).astype(np.float32), ras_affine()),
        tmp_path / "a.nii.gz",
    )
    assert "modality" not in read_study(tmp_path / "a.nii.gz").source


def test_dicom_files_are_refused_with_what_to_do(tmp_path):
    series = save(dicom_datasets(head_volume()), tmp_path / "series", "{}.dcm".format)
    for path in (series, series / "0.dcm"):
        with pytest.raises(ConfigError, match="DICOMweb"):
            read_study(path)


def test_a_stack_that_lacks_a_slice_is_refused(tmp_path):
    volume = head_volume()
    datasets = dicom_datasets(volume)
    del datasets[3]
    path = as_monai_label_keeps_it(tmp_path, datasets, ras_affine(), np.delete(volume, 3, axis=0))
    with pytest.raises(InputError) as refused:
        read_study(path)
    assert refused.value.code == "missing_slice" and "1 missing between" in refused.value.detail


def test_a_multiframe_object_is_judged_by_its_frames(tmp_path):
    volume = head_volume()
    datasets = dicom_datasets(volume, ContrastBolusAgent="CANARY gadolinium")
    path = as_monai_label_keeps_it(tmp_path, [], ras_affine(), volume)
    multiframe(datasets, tmp_path / "1.2.3" / "0.dcm")
    source = read_study(path).source
    assert (
        source["contrast_agent"] is True
        and source["modality"] == "MR"
        and source["echo_time"] == 4.6
    )
    del datasets[3]
    multiframe(datasets, tmp_path / "1.2.3" / "0.dcm")
    with pytest.raises(InputError, match="missing_slice"):
        read_study(path)


def test_slices_that_do_not_say_where_they_lie_are_refused(tmp_path):
    volume = head_volume()
    datasets = dicom_datasets(volume)
    del datasets[2].ImagePositionPatient
    with pytest.raises(InputError, match="missing_geometry"):
        read_study(as_monai_label_keeps_it(tmp_path, datasets, ras_affine(), volume))


def test_stacks_of_two_directions_are_refused(tmp_path):
    volume = head_volume()
    datasets = (
        dicom_datasets(volume, orientation=AXIAL)[:4]
        + dicom_datasets(volume, orientation=CORONAL)[4:]
    )
    with pytest.raises(InputError, match="mixed_orientation"):
        read_study(as_monai_label_keeps_it(tmp_path, datasets, ras_affine(), volume))


PEOPLE_OF = {"training": 2, "validation": 1, "calibration": 3, "test": 1}
"""The fewest that a rate of 0.25 can do with."""


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    """A folder of studies `sub-LABEL_T1w.png` of healthy people, enough for every section."""
    labels = [label for section, count in PEOPLE_OF.items() for label in labels_in(section, count)]
    return save_discs(tmp_path_factory.mktemp("healthy"), [f"sub-{label}_T1w" for label in labels])[
        0
    ].parent


def labels_in(section: str, count: int) -> list[str]:
    """Labels of people who belong to a section."""
    found = (f"X{number}" for number in range(10000))
    return [label for label in found if section_of(f"subject:{label}") == section][:count]


@pytest.fixture(scope="module")
def untrained(healthy, tmp_path_factory) -> Path:
    return make_tiny_bundle(
        tmp_path_factory.mktemp("bundle") / "tiny", sorted(healthy.iterdir()), steps=0
    )


def test_only_weights_that_are_better_come_into_use(healthy, untrained, tmp_path):
    bundle = shutil.copytree(untrained, tmp_path / "bundle")
    config = json.loads((bundle / "configs" / "train.json").read_text())
    (bundle / "configs" / "train.json").write_text(
        json.dumps(config | {"slice": config["slice"] | {"percentile": 90.0}})
    )  # which is not what is screened
    versions = Versions(tmp_path / "versions", bundle)
    studies = [
        Study(path, f"subject:{path.name.split('_')[0][4:]}")
        for path in sorted(healthy.glob("*.png"))
    ]
    new = fit_version(versions, studies, Settings(max_epochs=8, learning_rate=5e-3), RATE)
    assert new.facts["better"] and new == versions.active() and new.name == "v1"
    assert new.facts["people"] == PEOPLE_OF and new.facts["refused"] == {}
    assert new.facts["error"]["new"] < new.facts["error"]["old"]
    assert Calibration.load(new.calibration).identity["slice"]["percentile"] == 98.0
    worse = fit_version(
        versions, studies, Settings(max_epochs=6, learning_rate=1e-7, pretrained=False), RATE
    )
    assert (
        not worse.facts["better"]
        and worse.facts["compared_with"] == "v1"
        and worse.facts["started_from"] is None
    )
    assert versions.active() == new
    assert worse.facts["error"]["old"] == pytest.approx(new.facts["error"]["new"])
    with pytest.raises(ConfigError, match="more than 5 epochs, not 5"):
        fit_version(versions, studies, Settings(max_epochs=5, pretrained=False), RATE)
    assert {path.name for path in versions.folder.iterdir()} == {"active.json", "v1", "v2"}


def test_people_whose_scans_are_refused_do_not_count(healthy, untrained, tmp_path):
    studies = [
        Study(path, f"subject:{path.name.split('_')[0][4:]}")
        for path in sorted(healthy.glob("*.png"))
    ]
    (tmp_path / "broken.nii.gz").write_bytes(b"")
    broken = [
        Study(tmp_path / "broken.nii.gz", study.person)
        if section_of(study.person) == "test"
        else study
        for study in studies
    ]
    with pytest.raises(ConfigError, match="test 0 of 1"):
        fit_version(Versions(tmp_path / "versions", untrained), broken, Settings(), RATE)


@pytest.fixture(scope="module")
def server(healthy, untrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("label")
    app = write_app(folder / "app").parent
    shutil.copytree(healthy, folder / "studies")
    conf = {"models": str(untrained), "rate": str(RATE), "device": "cpu"}
    with running_server(app, folder / "studies", folder / "log", conf, NO_SCORING) as server:
        yield server, Versions(app / "model" / "tiny", untrained)


@pytest.mark.label
def test_a_server_trains_on_what_readers_marked_and_screens_with_it(server, healthy, untrained):
    server, versions = server
    names = sorted(path.name.removesuffix(".png") for path in healthy.glob("sub-*.png"))
    before = record(server, names[0])
    assert (
        before["score"]
        == Screener.from_bundle(untrained, rate=RATE)(healthy / f"{names[0]}.png").score
    )

    refused = server.train("tiny_healthy", max_epochs=1)
    assert refused["status"] == "ERROR"
    assert "0 people are too few for a rate of 0.25" in refused["details"][-1]

    for name in names:
        server.mark(name, "normal")
    done = server.train("tiny_healthy", max_epochs=8, learning_rate=5e-3)
    assert done["status"] == "DONE", done["details"]
    told = server.json("/info/")["train_stats"]["tiny_healthy"]
    assert told["active"] == "v1" and told["versions"]["v1"]["people"] == PEOPLE_OF

    new = Screener.from_bundle(
        untrained,
        weights=versions.active().weights,
        calibration=versions.active().calibration,
        rate=RATE,
    )
    after, expected = record(server, names[0]), new(healthy / f"{names[0]}.png")
    assert after["score"] == expected.score != before["score"]
    assert after["provenance"]["identity"]["weights_sha256"] == sha256(versions.active().weights)
    assert after["image_threshold"] == expected.image_threshold
    assert len(after["provenance"]["healthy"]["scores"]) == PEOPLE_OF["calibration"]

    versions.activate(SHIPPED)
    assert record(server, names[0])["score"] == before["score"]


@pytest.mark.label
def test_a_training_that_is_stopped_leaves_no_version(server, healthy):
    server, versions = server
    for path in healthy.glob("sub-*.png"):
        server.mark(path.name.removesuffix(".png"), "normal")
    before = [version.name for version in versions.all()], versions.active().name
    options = ("-H", "Content-Type: application/json", "-d", json.dumps({"max_epochs": 1000}))
    server.json("/train/tiny_healthy", "POST", *options)
    for _ in range(3000):
        if (versions.folder / "training").exists():
            break
        time.sleep(0.2)
    assert server.json("/train/", "DELETE")["status"] == "STOPPED"
    assert ([version.name for version in versions.all()], versions.active().name) == before


def record(server, study):
    return json.loads(server.infer("tiny_anomaly_map", study, "json"))
