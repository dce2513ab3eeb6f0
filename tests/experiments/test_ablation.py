"""What each part of Eq. 5, and of the training, adds."""

import pandas as pd
import pytest
from torch import nn

from pathology_screen.errors import ArtifactError
from pathology_screen.experiments.ablation import CURVES, ablation, training_curves
from pathology_screen.experiments.detection import detection
from pathology_screen.experiments.localization import localization
from pathology_screen.experiments.methods import SCORINGS


def test_all_scorings_are_compared_by_boxes_and_detection(make_setting, make_method, identity):
    scorings = dict.fromkeys(SCORINGS, identity.scorings["residual"])
    blur = make_method(nn.AvgPool2d(5, 1, 2), "blur", scorings=scorings)
    report = ablation(make_setting(blur, scoring=("residual",)))
    alone = make_setting(blur, scoring=tuple(SCORINGS))
    assert report.rows == [*localization(alone).rows, *detection(alone).rows]
    assert {row.scoring for row in report.rows} == set(SCORINGS) and report.name == "ablation"
    assert set(report.figures) == {"classes", "maps"}
    assert report.provenance["methods"][0]["scorings"].keys() == set(SCORINGS)


@pytest.fixture
def run(tmp_path):
    """Function that writes the log of a run."""

    def write(name, **columns):
        (tmp_path / name).mkdir()
        pd.DataFrame(columns).to_csv(tmp_path / name / "log.csv", index=False)
        return tmp_path / name / "log.csv"

    return write


def test_the_ablation_of_runs_draws_their_training(make_setting, blur, run):
    log = run("a", epoch=[1], val_mse=[0.1])
    report = ablation(make_setting(blur, methods=(f"ra:blur={log.parent}",)))
    assert [line.get_label() for line in report.figures["training"].axes[0].lines] == ["blur"]


def test_a_line_is_the_validated_epochs_of_a_run(run):
    both = {"val_mse": [0.3, None, 0.1], "val_perceptual_distance": [0.5, None, 0.4]}
    a, b = run("a", epoch=[1, 2, 3], **both), run("b", epoch=[1, 2], val_mse=[0.2, 0.1])
    figure = training_curves([("ra", a), ("ae_s", b)])
    mse, perceptual = figure.axes
    assert [axis.get_title() for axis in figure.axes] == list(CURVES.values())
    lines = [line.get_xydata().tolist() for line in mse.lines]
    assert lines == [[[1, 0.3], [3, 0.1]], [[1, 0.2], [2, 0.1]]]
    assert len(perceptual.lines) == 1


def test_runs_of_one_label_share_their_colour(run):
    runs = [run(name, epoch=[1], val_mse=[0.1]) for name in "abc"]
    axis = training_curves(list(zip(["ra", "ra", "vae"], runs))).axes[0]
    colours = [line.get_color() for line in axis.lines]
    assert colours[0] == colours[1] != colours[2]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["ra", "vae"]


def test_a_run_without_a_log_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=rf"ra: {tmp_path.name} has no log.csv") as error:
        training_curves([("ra", tmp_path / "log.csv")])
    assert str(tmp_path) not in str(error.value)
