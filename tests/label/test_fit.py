"""Training on a MONAI Label server: who is trained on, what is refused, and a real server that gets
better weights."""

import json
import shutil
import time
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from drawn_slices import save_discs
from servers import NO_SCORING, RATE, make_tiny_bundle, running_server

from pathology_screen.calibration import Calibration
from pathology_screen.errors import ConfigError
from pathology_screen.files import sha256
from pathology_screen.label.app_folder import SHIPPED, Versions, write_app
from pathology_screen.label.fit import (
    SHARES,
    Settings,
    Study,
    check_people,
    fit_version,
    normal_studies,
    section_of,
)
from pathology_screen.screening import Screener

PEOPLE_OF = {"training": 2, "validation": 1, "calibration": 3, "test": 1}
"""The fewest that a rate of 0.25 can do with."""


def test_people_are_told_by_what_is_known_of_them():
    known = {"x": {"PatientID": "7"}, "y": {"PatientID": " 7"}, "z": {"PatientID": "UNK"}}
    known |= {"w": {"PatientID": ""}, "v": {"PatientID": "7", "subject": "somebody"}}
    known |= {"sub-A_ses-1_T1w": {}, "sub-A_ses-2_T1w": {}}
    infos = {name: info | {"reading": "normal"} for name, info in known.items()}
    infos |= {"sub-B_T1w": {"reading": "abnormal"}, "sub-C_T1w": {}}
    datastore = SimpleNamespace(
        list_images=infos.keys,
        get_image_info=infos.get,
        get_image_uri=lambda name: f"/studies/{name}.nii.gz",
    )
    studies = normal_studies(datastore)
    found = {study.path.name.removesuffix(".nii.gz"): study.person for study in studies}
    assert found.keys() == known.keys()
    assert found["sub-A_ses-1_T1w"] == found["sub-A_ses-2_T1w"] and found["x"] == found["y"]
    assert len(set(found.values())) == 5


def test_sections_have_their_shares_and_nobody_moves_to_another():
    sections = [section_of(f"person {number}") for number in range(5000)]
    shares = {name: count / 5000 for name, count in Counter(sections).items()}
    assert shares == pytest.approx(SHARES, abs=0.03)
    assert sections[2:8] == ["calibration", "training", *["calibration"] * 3, "test"]


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"calibration": 18}, r"21 people .*calibration 18 of 19.*mark about 6 more"),
        ({"test": 0}, "test 0 of 1.*mark about 29 more"),
        (dict.fromkeys(SHARES, 0), r"0 people .*mark about \d\d more"),
    ],
)
def test_too_few_people_are_refused_with_how_many_it_takes(counts, words):
    enough = {"training": 1, "validation": 1, "calibration": 19, "test": 1}
    check_people(enough, 0.05)
    check_people(enough | {"calibration": 3}, 0.25)
    with pytest.raises(ConfigError, match=words):
        check_people(enough | counts, 0.05)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_epochs", value) for value in (0, True, "$__import__('os').system('true')")),
        *(("learning_rate", value) for value in ("@seed", float("nan"), -1e-3)),
        *(("pretrained", "yes"), ("device", "$1"), ("device", "toaster")),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        Settings.of({name: value})


def test_what_is_not_asked_for_is_left_to_the_bundle():
    assert Settings.of({"model": "ra_healthy", "gpus": "all"}) == Settings()
    asked = {"max_epochs": 3, "learning_rate": 1e-4, "pretrained": False, "device": "cpu"}
    assert Settings.of(asked) == Settings(3, 1e-4, False, "cpu")


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> list[Study]:
    """`sub-LABEL_T1w.png` of healthy people, enough for every section."""
    people = defaultdict(list)
    for label in (f"X{number}" for number in range(1000)):
        people[section_of(f"subject:{label}")].append(label)
    labels = [label for section, count in PEOPLE_OF.items() for label in people[section][:count]]
    folder = tmp_path_factory.mktemp("healthy")
    paths = save_discs(folder, [f"sub-{label}_T1w" for label in labels])
    return sorted(Study(path, f"subject:{label}") for path, label in zip(paths, labels))


@pytest.fixture(scope="module")
def untrained(studies, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    return make_tiny_bundle(folder, [study.path for study in studies], steps=0)


def test_only_weights_that_are_better_come_into_use(studies, untrained, tmp_path):
    bundle = shutil.copytree(untrained, tmp_path / "bundle")
    file = bundle / "configs" / "train.json"
    config = json.loads(file.read_text())
    config["slice"]["percentile"] = 90.0  # which is not what is screened
    file.write_text(json.dumps(config))
    versions = Versions(tmp_path / "versions", bundle)
    new = fit_version(versions, studies, Settings(max_epochs=8, learning_rate=5e-3), RATE)
    assert new.facts["better"] and new == versions.active() and new.name == "v1"
    assert new.facts["people"] == PEOPLE_OF and new.facts["refused"] == {}
    assert new.facts["error"]["new"] < new.facts["error"]["old"]
    assert Calibration.load(new.calibration).identity["slice"]["percentile"] == 98.0

    bad = Settings(max_epochs=6, learning_rate=1e-7, pretrained=False)
    worse = fit_version(versions, studies, bad, RATE)
    told = [worse.facts[name] for name in ("better", "compared_with", "started_from")]
    assert told == [False, "v1", None] and versions.active() == new
    assert worse.facts["error"]["old"] == pytest.approx(new.facts["error"]["new"])

    with pytest.raises(ConfigError, match="more than 5 epochs, not 5"):
        fit_version(versions, studies, Settings(max_epochs=5, pretrained=False), RATE)
    (tmp_path / "broken.nii.gz").touch()
    some = [
        one._replace(path=tmp_path / "broken.nii.gz") if section_of(one.person) == "test" else one
        for one in studies
    ]
    with pytest.raises(ConfigError, match="test 0 of 1"):  # who is refused does not count
        fit_version(versions, some, Settings(), RATE)
    assert {path.name for path in versions.folder.iterdir()} == {"active.json", "v1", "v2"}


@pytest.mark.label
def test_a_server_trains_on_what_readers_marked_and_screens_with_it(studies, untrained, tmp_path):
    app, first = write_app(tmp_path / "app").parent, studies[0].path
    shutil.copytree(first.parent, tmp_path / "studies")
    conf = {"models": str(untrained), "rate": str(RATE), "device": "cpu"}
    versions = Versions(app / "model" / "tiny", untrained)
    with running_server(app, tmp_path / "studies", tmp_path / "log", conf, NO_SCORING) as server:

        def record():
            return json.loads(server.infer("tiny_anomaly_map", first.stem, "json"))

        before = record()
        assert before["score"] == Screener.from_bundle(untrained, rate=RATE)(first).score
        refused = server.train(max_epochs=1)
        assert refused["status"] == "ERROR"
        assert "0 people are too few for a rate of 0.25" in refused["details"][-1]

        for study in studies:
            server.mark(study.path.stem, "normal")
        done = server.train(max_epochs=8, learning_rate=5e-3)
        assert done["status"] == "DONE", done["details"]
        told = server.json("/info/")["train_stats"]["tiny_healthy"]
        assert told["active"] == "v1" and told["versions"]["v1"]["people"] == PEOPLE_OF

        new = versions.active()
        files = {"weights": new.weights, "calibration": new.calibration}
        expected, after = Screener.from_bundle(untrained, **files, rate=RATE)(first), record()
        assert after["score"] == expected.score != before["score"]
        assert after["provenance"]["identity"]["weights_sha256"] == sha256(new.weights)
        assert after["image_threshold"] == expected.image_threshold
        assert len(after["provenance"]["healthy"]["scores"]) == PEOPLE_OF["calibration"]

        server.start_training(max_epochs=1000)  # and stopped, it leaves no version
        for _ in range(3000):
            if (versions.folder / "training").exists():
                break
            time.sleep(0.2)
        assert server.json("/train/", "DELETE")["status"] == "STOPPED"
        assert [version.name for version in versions.all()] == [SHIPPED, "v1"]
        assert versions.active() == new

        versions.activate(SHIPPED)
        assert record()["score"] == before["score"]
