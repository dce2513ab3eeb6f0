"""A calibration fitted to healthy slices."""

import json
import warnings

import numpy as np
import pytest
import torch

from pathology_screen.bundles import bundle_root
from pathology_screen.calibration import Calibration, Calibrator, calibrate, fit_calibration
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.registry import METHODS
from pathology_screen.screening.judge import Judge


def test_scores_rates_and_subjects(healthy, calibration):
    exceeds = healthy["maps"] > calibration.pixel_threshold
    rates = calibration.achieved_pixel_fpr
    assert exceeds.mean() == rates["all_pixels"] <= 0.05 == calibration.pixel_fpr
    assert rates["brain_pixels"] == exceeds[..., 8:].mean()
    assert calibration.scores == tuple(healthy["scores"])
    assert calibration.subjects == (0, 0, 1, 1, 2, 2)
    tensors = {name: torch.from_numpy(healthy[name]) for name in ("maps", "images")}
    assert fit_calibration(**healthy | tensors) == calibration


def test_agreements_are_kept_and_have_to_be_those_of_the_slices(healthy, tmp_path):
    agreements = [0.9, 0.8, 0.7, 0.9, 0.8, 0.7]
    fit_calibration(**healthy, agreements=agreements).save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json").agreements == tuple(agreements)
    with pytest.raises(ConfigError):
        fit_calibration(**healthy, agreements=agreements[:5])
    with pytest.raises(InputError, match="not_finite"):
        fit_calibration(**healthy, agreements=[*agreements[:5], np.nan])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda h: {"maps": np.where(h["maps"] > 0.5, np.nan, 0)}, InputError, "not_finite"),
        (lambda h: {"scores": [*h["scores"][:5], np.inf]}, InputError, "not_finite"),
        (lambda h: {"images": h["images"] * 0}, InputError, "no_tissue"),
        (lambda h: {name: h[name][:0] for name in h if name != "identity"}, ConfigError, "go toge"),
        (lambda h: {"images": h["images"][:5]}, ConfigError, "go together"),
        (lambda h: {"subjects": h["subjects"][:5]}, ConfigError, "go together"),
        (lambda h: {"scores": h["scores"][:5]}, ConfigError, "go together"),
        (lambda h: {"maps": np.where(h["maps"] > 0.99, 1, 0)}, ConfigError, "for a lower rate"),
        *[(lambda h, r=r: {"pixel_fpr": r}, ConfigError, "between 0 and 1") for r in (0, 1, 5)],
    ],
)
def test_sets_that_cannot_calibrate_are_refused(change, error, message, healthy):
    with pytest.raises(error, match=message):
        fit_calibration(**healthy | change(healthy))


def slices(people):
    """One slice of 64 pixels a person, a square of tissue."""
    images = torch.zeros(people, 1, 64, 64)
    generator = torch.Generator().manual_seed(0)
    images[..., 16:48, 16:48] = 0.5 + 0.5 * torch.rand(people, 1, 32, 32, generator=generator)
    return [{"image": image, "subject": str(i)} for i, image in enumerate(images)]


def test_a_calibrator_uses_the_weights_that_training_left(predictor):
    """`Dimmer` paints a tenth darker, or as its weights on disk say."""
    expected = calibrate(predictor, slices(19))
    with torch.no_grad():
        predictor.network.share.fill_(0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Calibrator(predictor, slices(19)).run()
    assert found == expected == Calibration.load(predictor.weights.with_name("calibration.json"))
    assert found.agreements == pytest.approx([1] * 19)


def test_too_few_people_are_told_when_the_calibrator_is_made_and_give_maps_all_the_same(predictor):
    """The paper's split has 15 people to calibrate on: no threshold of 5 %."""
    with pytest.warns(UserWarning, match="15 healthy people .* 0.0625 at best, not 0.05, .* 19"):
        calibrator = Calibrator(predictor, slices(15))
    judge = Judge(predictor, calibrator.run())
    assert judge.image_threshold is None and judge.calibration.pixel_threshold > 0
    assert calibrator.predictor.weights.with_name("calibration.json").is_file()


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.parameters])
def test_every_bundle_makes_its_calibrator_before_it_trains(name):
    config = json.loads((bundle_root(name) / "configs" / "train.json").read_text())
    assert config["training"] == ["$@calibrator", "$@train#trainer.run()", "$@calibrator.run()"]
    assert config["calibrator"]["_target_"] == "pathology_screen.calibration.Calibrator"
