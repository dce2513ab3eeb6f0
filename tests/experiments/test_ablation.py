"""What each part of Eq. 5, and of the training, adds."""

import pandas as pd
import pytest
from torch import nn

from pathology_screen.errors import ArtifactError
from pathology_screen.experiments.ablation import CURVES, ablation, training_curves
from pathology_screen.experiments.detection import detection
from pathology_screen.experiments.localization import localization
from pathology_screen.experiments.methods import SCORINGS


@pytest.fixture
def run(tmp_path):
    """Function that writes the log of a run."""

    def write(name, **columns):
        (tmp_path / name).mkdir()
        pd.DataFrame(columns).to_csv(tmp_path / name / "log.csv", index=False)
        return tmp_path / name / "log.csv"

    return write


def test_all_scorings_are_compared_by_boxes_and_detection_and_runs_by_their_training(
    make_setting, make_method, identity, run
):
    scorings = dict.fromkeys(SCORINGS, identity.scorings["residual"])
    blur = make_method(nn.AvgPool2d(5, 1, 2), "blur", scorings=scorings)
    log = run("a", epoch=[1], val_mse=[0.1])
    report = ablation(make_setting(blur, scoring=("eq5",), methods=(f"ra:blur={log.parent}",)))
    alone = make_setting(blur, scoring=tuple(SCORINGS))
    assert report.rows == [*localization(alone).rows, *detection(alone).rows]
    assert {row.scoring for row in report.rows} == set(SCORINGS) and report.name == "ablation"
    assert set(report.figures) == {"classes", "maps", "training"}
    assert [line.get_label() for line in report.figures["training"].axes[0].lines] == ["blur"]
    assert report.provenance["methods"][0]["scorings"].keys() == set(SCORINGS)


def test_a_line_is_the_validated_epochs_of_a_run_and_a_label_has_one_colour(run):
    both = {"val_mse": [0.3, None, 0.1], "val_perceptual_distance": [0.5, None, 0.4]}
    logs = [run("a", epoch=[1, 2, 3], **both), run("b", epoch=[1, 2], val_mse=[0.2, 0.1])]
    logs.append(run("c", epoch=[1], val_mse=[0.1]))
    figure = training_curves(list(zip(["ra", "ra", "ae_s"], logs)))
    mse, perceptual = figure.axes
    assert [axis.get_title() for axis in figure.axes] == list(CURVES.values())
    lines = [line.get_xydata().tolist() for line in mse.lines]
    assert lines == [[[1, 0.3], [3, 0.1]], [[1, 0.2], [2, 0.1]], [[1, 0.1]]]
    assert len(perceptual.lines) == 1
    colours = [line.get_color() for line in mse.lines]
    assert colours[0] == colours[1] != colours[2]
    assert [text.get_text() for text in mse.get_legend().get_texts()] == ["ra", "ae_s"]


def test_a_run_without_a_log_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=rf"ra: {tmp_path.name} has no log.csv") as error:
        training_curves([("ra", tmp_path / "log.csv")])
    assert str(tmp_path) not in str(error.value)
