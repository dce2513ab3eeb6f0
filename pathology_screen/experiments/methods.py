"""The methods under comparison: predictors with their weights, and the ways of scoring them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from monai.transforms import Compose
from torch import Tensor, nn

from pathology_screen.anomaly import AnomalyMap, DistillationMap, Scoring, perceptual_distance
from pathology_screen.bundles import PROFILES, bundle_root, read_settings
from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.experiments.slices import AnnotatedSlices
from pathology_screen.files import sha256
from pathology_screen.networks.controls import PrincipalComponents, TrainingMean, ZeroReconstruction
from pathology_screen.predictor import Prediction, Predictor, build_preprocessing
from pathology_screen.registry import METHODS, Method

SCORINGS = {
    "residual": {"perceptual": False, "equalize": False},
    "equalised": {"perceptual": False, "equalize": True},
    "perceptual": {"perceptual": True, "equalize": False},
    "eq5": {"perceptual": True, "equalize": True},
}
"""Name -> the terms of Eq. 5 that it takes: those of Table 3 of the paper."""

CONTROLS: dict[str, Callable[[Tensor], nn.Module]] = {
    "template": TrainingMean,
    "principal_components": PrincipalComponents,
}
"""Control that learns from the training slices -> its network."""


class Chosen(NamedTuple):
    """A method as it was asked for: `METHOD`, `METHOD=RUN` or `METHOD:LABEL=RUN`."""

    method: Method
    label: str
    run: Path | None

    @classmethod
    def parse(cls, text: str) -> "Chosen":
        """Read the text of one choice; ConfigError if the method is unknown, or a control, which
        has no runs."""
        name, _, run = text.partition("=")
        name, _, label = name.partition(":")
        if name not in METHODS:
            raise ConfigError(f"there is no method {name!r}; the methods are {', '.join(METHODS)}")
        if run and METHODS[name].is_control:
            raise ConfigError(
                f"the control {name!r} trains no network, so it has no run: leave out ={run}"
            )
        return cls(METHODS[name], label or name, Path(run) if run else None)

    @property
    def weights(self) -> Path:
        """File of the weights: of the run, or those that the bundle ships."""
        return (self.run or bundle_root(self.method.name) / "models") / "model.pt"


@dataclass(frozen=True)
class ComparedMethod:
    """A method ready to look at slices: its name in tables (several runs of one method that share
    it are its seeds), its runtime, and the scorings that are compared by their names."""

    label: str
    predictor: Predictor
    scorings: Mapping[str, Scoring]

    @property
    def weights_sha256(self) -> str | None:
        """Hash of the file of the weights; None for a control."""
        weights = self.predictor.weights
        return sha256(weights) if weights.is_file() else None

    @property
    def reconstructs(self) -> bool:
        """Whether its output is a pseudo-healthy reconstruction."""
        return self.predictor.reconstructs

    def predict(self, slices: AnnotatedSlices) -> dict[str, Prediction]:
        """Return what the method makes of slices under each of its scorings."""
        return {name: self._scored(name).predict(slices.images) for name in self.scorings}

    def reconstruct(self, slices: AnnotatedSlices) -> Tensor:
        """Return the output for slices, (N, 1, H, W), which is the same under all scorings."""
        return self._scored(next(iter(self.scorings))).predict(slices.images).output

    def _scored(self, name: str) -> Predictor:
        return replace(self.predictor, scoring=self.scorings[name])


class Profile(NamedTuple):
    """What all methods of an experiment share: how slices are prepared, the perceptual backbone,
    the profile's name and the section of the datalist that thresholds are fitted on."""

    preprocessing: Compose
    slice_options: Mapping[str, Any]
    backbone: str
    calibration_section: str = "calibration"
    name: str = "configured"


def read_profile(name: str = "compact", backbone: str | None = None) -> Profile:
    """Take the settings that all bundles share from RA's, perhaps with another perceptual backbone;
    ConfigError if there is no such profile."""
    if name not in PROFILES:
        raise ConfigError(f'the profile is "compact" or "paper", not {name!r}')
    settings = read_settings("ra", PROFILES[name])
    return Profile(
        build_preprocessing(settings["preprocessing"]),
        settings["slice"],
        backbone or settings["scoring"]["perceptual"],
        settings["calibration_section"],
        name,
    )


def load_methods(
    choices: Sequence[Chosen],
    profile: Profile,
    training: AnnotatedSlices | None,
    wanted: Sequence[str] = tuple(SCORINGS),
) -> list[ComparedMethod]:
    """Build the chosen methods, all with one and the same perceptual backbone, which is only built
    where a scoring takes it; MKD and `intensity` are scored their own way, whatever is wanted.

    Raises:
        ArtifactError: if weights are missing, do not fit, or are of another profile.
        ConfigError: if `template` or `principal_components` have no training slices.
    """
    perceptual = any(SCORINGS[name]["perceptual"] for name in wanted)
    backbone = perceptual_distance(profile.backbone) if perceptual else "none"
    scorings: dict[str, Scoring] = {
        name: AnomalyMap(backbone if terms["perceptual"] else "none", equalize=terms["equalize"])
        for name, terms in ((name, SCORINGS[name]) for name in wanted)
    }
    return [
        _control(choice, profile, training, scorings)
        if choice.method.is_control
        else _trained(choice, profile, scorings)
        for choice in choices
    ]


def _control(
    choice: Chosen,
    profile: Profile,
    training: AnnotatedSlices | None,
    scorings: Mapping[str, Scoring],
) -> ComparedMethod:
    name = choice.method.name
    network: nn.Module = ZeroReconstruction()
    if name == "intensity":
        scorings = {"equalised": AnomalyMap("none", equalize=True)}
    elif training is None:
        raise ConfigError(f"the control `{name}` needs the training section of the datalist")
    else:
        network = CONTROLS[name](training.images)
    no_weights, first = Path(), next(iter(scorings.values()))
    steps, options = profile.preprocessing, profile.slice_options
    predictor = Predictor(name, network.eval(), first, steps, options, no_weights)
    return ComparedMethod(choice.label, predictor, scorings)


def _trained(choice: Chosen, profile: Profile, scorings: Mapping[str, Scoring]) -> ComparedMethod:
    name, label = choice.method.name, choice.label
    if not choice.weights.is_file():
        ended = "is that the output_dir of a run that ended?"
        advice = ended if choice.run else "train it and name the run"
        raise ArtifactError(f"there are no weights of {label}: {advice} ({name}=RUN)")
    predictor = Predictor.load(name, choice.weights, profile.name)
    if isinstance(predictor.scoring, DistillationMap):
        scorings = {"discrepancy": DistillationMap(predictor.scoring.network)}
    _check_calibration(label, predictor, profile.name, scorings)
    return ComparedMethod(label, predictor, scorings)


def _check_calibration(
    label: str, predictor: Predictor, profile: str, scorings: Mapping[str, Scoring]
) -> None:
    """Refuse weights whose calibration tells of another preprocessing or teacher."""
    path = predictor.weights.with_name("calibration.json")
    if not path.is_file():
        return
    identity = Calibration.load(path).identity
    here: dict[str, Any] = {
        "weights_sha256": sha256(predictor.weights),
        "slice": dict(predictor.slice_options),
    }
    if "discrepancy" in scorings:
        chosen = scorings["discrepancy"].identity
        here |= {name: chosen[name] for name in ("teacher", "mse_weight")}
    made = {**identity, **identity.get("scoring", {})}
    if differing := [name for name, value in here.items() if made.get(name) != value]:
        raise ArtifactError(
            f"{label}: {', '.join(differing)} differ between the run and the profile {profile!r}: "
            "choose the profile that it was trained with"
        )
