"""Finding annotated boxes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from pathology_screen.calibration import pixel_threshold
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.experiments import EXPERIMENTS
from pathology_screen.experiments.localization import box_target, threshold_slices
from pathology_screen.experiments.models import SCORINGS
from pathology_screen.experiments.training_curves import CURVES, training_curves
from pathology_screen.metrics import LocalizationMetric

ablation, detection, localization = (
    EXPERIMENTS[name] for name in ("ablation", "detection", "localization")
)


@pytest.fixture
def slices(make_setting):
    return make_setting().section("test")


@pytest.fixture
def perfect(make_setting, slices, make_model, lookup):
    """A model whose map is 1 in the boxes and 0 elsewhere."""
    normals = make_setting().section("calibration").images
    boxes = torch.stack([(boxes > 0).any(dim=0, keepdim=True).float() for boxes in slices.boxes])
    return make_model(
        lookup([*slices.images, *normals], [*(slices.images + boxes), *normals]), "perfect"
    )


@pytest.fixture
def blur(make_model):
    return make_model(torch.nn.AvgPool2d(5, 1, 2), "blur")


def without(setting, **parts):
    """The setting with other test slices."""
    object.__setattr__(
        setting, "prepared", setting.prepared | {"test": replace(setting.section("test"), **parts)}
    )
    return setting


@pytest.mark.parametrize("protocol", ["pixel_count", "paper", "official_code"])
def test_perfect_and_useless(make_setting, perfect, identity, value, protocol):
    report = localization(make_setting(perfect, identity, protocol=protocol))
    assert value(report, "perfect", "detected") == value(report, "perfect", "f1") == 1
    assert value(report, "identity", "detected") == value(report, "identity", "f1") == 0
    assert value(report, "identity", "fraction ratio") == 0
    assert (
        1000 < value(report, "perfect", "fraction ratio") < 1e6
    )  # as if a single pixel outside were tagged
    classes = report.tables["classes"].set_index(["method", "class"])
    assert classes.loc["perfect", "detected"].tolist() == classes.loc["perfect", "n"].tolist()
    assert classes.loc["identity", "detected"].sum() == 0 and (classes["empty"] == 0).all()


def test_numbers_are_those_of_the_metric(make_setting, slices, blur, value):
    setting = make_setting(blur)
    report = localization(setting)
    boxed = [i for i, labels in enumerate(slices.box_labels) if labels]
    normals = setting.section("calibration")
    threshold = pixel_threshold((blur.predict(normals) - normals.images).abs().numpy(), 0.05)
    metric = LocalizationMetric(threshold, sorted(set(sum(slices.box_labels, ()))), "pixel_count")
    maps = (blur.predict(slices) - slices.images).abs()
    metric([maps[i] for i in boxed], [box_target(slices, i) for i in boxed])
    found = metric.aggregate()
    n = sum(len(labels) for labels in slices.box_labels)
    assert n == found["n"] == report.rows[0].n and report.rows[0].subjects == 5
    assert value(report, "blur", "detected") == pytest.approx(found["detected"] / n)
    assert value(report, "blur", "f1") == pytest.approx(found["f1"])
    assert value(report, "blur", "fraction ratio") == pytest.approx(found["fraction_ratio"])
    table = report.tables["classes"].set_index("class")
    for name, numbers in found["per_class"].items():
        assert table.loc[name, "f1"] == pytest.approx(numbers["f1"])


def test_the_threshold_is_of_the_section_that_the_protocol_names(make_setting, blur):
    for protocol, section, n in (
        ("paper", "test", 3),
        ("official_code", "test", 3),
        ("pixel_count", "calibration", 2),
    ):
        setting = make_setting(blur, protocol=protocol)
        name, normals = threshold_slices(setting)
        assert name == section and len(normals) == n and set(normals.groups) == {"normal"}
        assert (
            f"threshold from {n} normal slices of the {section} section"
            in localization(setting).notes[1]
        )


def test_other_boxes_are_neither_healthy_nor_counted(make_setting, slices, identity):
    """A large box on the other half of a slice changes nothing but which tissue is healthy."""
    other = torch.zeros(1, 128, 128)
    other[:, :, 64:] = 1
    target, before = (
        box_target(
            replace(slices, other_boxes=slices.other_boxes[:3] + (boxes,) + slices.other_boxes[4:]),
            3,
        )
        for boxes in (other, torch.zeros(0, 128, 128))
    )
    assert torch.equal(target["boxes"], before["boxes"]) and target["labels"] == before["labels"]
    assert not target["healthy"][..., 64:].any() and before["healthy"][..., 64:].any()
    assert np.array_equal(target["healthy"][..., :64], before["healthy"][..., :64])
    assert not (target["healthy"][0] * (slices.boxes[3] > 0).any(dim=0).numpy()).any()


def test_without_boxes_or_normal_slices_it_says_so(make_setting, identity):
    nothing = torch.zeros(0, 128, 128)
    with pytest.raises(ConfigError, match="no slice shows a box"):
        localization(without(make_setting(identity), boxes=(nothing,) * 8, box_labels=((),) * 8))
    with pytest.raises(ConfigError, match="needs normal slices, but the section test has none"):
        localization(without(make_setting(identity, protocol="paper"), groups=("local",) * 8))


def test_the_ablation_compares_all_scorings_by_boxes_and_detection(make_setting, make_model):
    residual = make_model(torch.nn.Identity()).scorings["residual"]
    blur = make_model(torch.nn.AvgPool2d(5, 1, 2), "blur", **dict.fromkeys(SCORINGS, residual))
    report = ablation(make_setting(blur, scoring=("residual",)))
    all_scorings = make_setting(blur, scoring=tuple(SCORINGS))
    expected = [*localization(all_scorings).rows, *detection(all_scorings).rows]
    assert [(row.scoring, row.metric, row.value) for row in report.rows] == [
        (row.scoring, row.metric, row.value) for row in expected
    ]
    assert {row.scoring for row in report.rows} == set(SCORINGS) and report.name == "ablation"
    assert set(report.figures) == {"classes", "maps"}
    assert report.provenance["methods"][0]["scorings"].keys() == set(SCORINGS)


def test_the_ablation_of_runs_draws_their_training(make_setting, blur, tmp_path):
    pd.DataFrame({"epoch": [1], "val_mse": [0.1]}).to_csv(tmp_path / "log.csv")
    report = ablation(make_setting(blur, methods=(f"ra:blur={tmp_path}",)))
    assert [line.get_label() for line in report.figures["training"].axes[0].lines] == ["blur"]


class TestTrainingCurves:
    @pytest.fixture
    def run(self, tmp_path):
        def write(name, **columns):
            (tmp_path / name).mkdir()
            pd.DataFrame(columns).to_csv(tmp_path / name / "log.csv", index=False)
            return tmp_path / name

        return write

    def test_a_line_is_the_validated_epochs_of_a_run(self, run):
        a = run(
            "a", epoch=[1, 2, 3], val_mse=[0.3, None, 0.1], val_perceptual_distance=[0.5, None, 0.4]
        )
        b = run("b", epoch=[1, 2], val_mse=[0.2, 0.1])
        figure = training_curves([("ra", a), ("ae_s", b)])
        mse, perceptual = figure.axes
        assert [axis.get_title() for axis in figure.axes] == list(CURVES.values())
        assert [line.get_xydata().tolist() for line in mse.lines] == [
            [[1, 0.3], [3, 0.1]],
            [[1, 0.2], [2, 0.1]],
        ]
        assert len(perceptual.lines) == 1

    def test_runs_of_one_label_share_their_colour(self, run):
        runs = [run(name, epoch=[1], val_mse=[0.1]) for name in "abc"]
        axis = training_curves(list(zip(["ra", "ra", "vae"], runs))).axes[0]
        colours = [line.get_color() for line in axis.lines]
        assert colours[0] == colours[1] != colours[2]
        assert [text.get_text() for text in axis.get_legend().get_texts()] == ["ra", "vae"]

    def test_a_run_without_a_log_is_refused(self, tmp_path):
        with pytest.raises(ArtifactError, match=rf"ra: {tmp_path.name} has no log.csv") as error:
            training_curves([("ra", tmp_path)])
        assert str(tmp_path) not in str(error.value)
