"""The methods under comparison: networks with their weights, and the ways of scoring what they
make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.transforms import Compose
from torch import Tensor, nn

from pathology_screen.anomaly import AnomalyMap, DistillationMap, Scoring, perceptual_distance
from pathology_screen.bundles import PROFILES, bundle_root, read_settings
from pathology_screen.calibration import Calibration
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.experiments.slices import Slices
from pathology_screen.files import sha256
from pathology_screen.networks.controls import PrincipalComponents, TrainingMean, ZeroReconstruction
from pathology_screen.predictor import BATCH, Predictor, build_preprocessing
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
    def parse(cls, text: str) -> Chosen:
        """Read the text of one choice.

        Raises:
            ConfigError: if the method is unknown, or a control that has no runs.
        """
        name, _, run = text.partition("=")
        name, _, label = name.partition(":")
        if name not in METHODS:
            raise ConfigError(f"there is no method {name!r}; the methods are {', '.join(METHODS)}")
        if run and METHODS[name].is_control:
            raise ConfigError(
                f"the control {name!r} trains no network, so it has no run: leave out ={run}"
            )
        return cls(METHODS[name], label or name, Path(run) if run else None)


@dataclass(frozen=True)
class ComparedMethod:
    """A method ready to look at slices.

    Attributes:
        label: its name in tables; several runs of one method that share it are its seeds.
        method: of the registry.
        network: (B, 1, H, W) -> the same shape.
        scorings: name -> from images and network outputs to maps and scores.
        weights_sha256: of the weights' file; None for a control.
    """

    label: str
    method: Method
    network: nn.Module
    scorings: Mapping[str, Scoring]
    weights_sha256: str | None = None

    def _in_batches(self, look: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Apply a function to parts of tensors, where the network is; the results on the CPU."""
        device = next(
            (parameter.device for parameter in self.network.parameters()), torch.device("cpu")
        )
        with torch.no_grad():
            parts = zip(*(tensor.split(BATCH) for tensor in tensors))
            return torch.cat([look(*(one.to(device) for one in part)).cpu() for part in parts])

    def predict(self, slices: Slices) -> Tensor:
        """Return what the network makes of each slice: (N, 1, H, W), float32."""
        return self._in_batches(self.network, slices.images)

    def encode(self, images: Tensor) -> Tensor:
        """Return the posterior means of images (N, 1, H, W): (N, Z), float32.

        Raises:
            ConfigError: if the method has no latent vector.
        """
        encode: Any = getattr(self.network, "encode", None)
        if encode is None:
            raise ConfigError(f"{self.label} has no latent vector; ra, si_vae and vae have one")
        return self._in_batches(lambda part: encode(part)[0], images)

    def maps(self, slices: Slices, predictions: Tensor, scoring: str) -> Tensor:
        """Return the anomaly maps of slices and predictions, (N, 1, H, W), under one of the
        scorings."""
        return self._in_batches(self.scorings[scoring], slices.images, predictions)

    def scores(self, slices: Slices, maps: Tensor, scoring: str) -> Tensor:
        """Return the image scores of slices and their maps, (N,)."""
        return self._in_batches(self.scorings[scoring].score, slices.images, maps)


class Profile(NamedTuple):
    """What all methods of an experiment share: how slices are prepared, the perceptual backbone,
    the profile's name and the section of the datalist that thresholds are fitted on."""

    preprocessing: Compose
    slice_options: Mapping[str, Any]
    backbone: str
    calibration_section: str = "calibration"
    name: str = "configured"


def read_profile(name: str = "compact", backbone: str | None = None) -> Profile:
    """Take the settings that all bundles share from RA's.

    Args:
        name: "compact" or "paper".
        backbone: another perceptual backbone than the profile's.

    Raises:
        ConfigError: if there is no such profile.
    """
    if name not in PROFILES:
        raise ConfigError(f'the profile is "compact" or "paper", not {name!r}')
    settings = read_settings("ra", PROFILES[name])
    backbone = backbone or settings["scoring"]["perceptual"]
    preprocessing = build_preprocessing(settings["preprocessing"])
    return Profile(
        preprocessing, settings["slice"], backbone, settings["calibration_section"], name
    )


def load_methods(
    choices: Sequence[Chosen],
    profile: Profile,
    training: Slices | None,
    wanted: Sequence[str] = tuple(SCORINGS),
) -> list[ComparedMethod]:
    """Build the chosen methods, all with one and the same perceptual backbone.

    Args:
        choices: without a run, a method has the weights that its bundle ships.
        profile: of the bundles.
        training: slices for the controls `template` and `principal_components`.
        wanted: names of the scorings that may be asked for; the backbone is only built where one
            takes it.

    Raises:
        ArtifactError: if weights are missing or do not fit, or their calibration belongs to another
            profile.
        ConfigError: if one of these is chosen and there are no training slices.
    """
    offered = {name: SCORINGS[name] for name in (*wanted, "equalised")}
    perceptual = any(terms["perceptual"] for terms in offered.values())
    backbone = perceptual_distance(profile.backbone) if perceptual else "none"
    scorings = {
        name: AnomalyMap(backbone if terms["perceptual"] else "none", equalize=terms["equalize"])
        for name, terms in offered.items()
    }
    return [
        _control(choice, training, scorings)
        if choice.method.is_control
        else _trained(choice, profile, scorings)
        for choice in choices
    ]


def _control(
    choice: Chosen, training: Slices | None, scorings: Mapping[str, Scoring]
) -> ComparedMethod:
    name = choice.method.name
    if name == "intensity":
        return ComparedMethod(
            choice.label, choice.method, ZeroReconstruction(), {"equalised": scorings["equalised"]}
        )
    if training is None:
        raise ConfigError(f"the control `{name}` needs the training section of the datalist")
    return ComparedMethod(choice.label, choice.method, CONTROLS[name](training.images), scorings)


def _trained(choice: Chosen, profile: Profile, scorings: Mapping[str, Scoring]) -> ComparedMethod:
    method, label, run = choice
    weights = (run or bundle_root(method.name) / "models") / "model.pt"
    if not weights.is_file():
        advice = (
            "train it and name the run"
            if run is None
            else "is that the output_dir of a run that ended?"
        )
        raise ArtifactError(f"there are no weights of {label}: {advice} ({method.name}=RUN)")
    predictor = Predictor.load(method.name, weights, profile.name)
    own: dict[str, Scoring] = dict(scorings)
    if isinstance(predictor.scoring, DistillationMap):
        own = {"discrepancy": DistillationMap(predictor.scoring.network)}
    _check_calibration(label, predictor, profile, own)
    return ComparedMethod(label, method, predictor.network, own, sha256(weights))


def _check_calibration(
    label: str, predictor: Predictor, profile: Profile, scorings: Mapping[str, Scoring]
) -> None:
    """Refuse weights whose calibration, if there is one beside them, tells of another preprocessing
    or teacher."""
    path = predictor.weights.with_name("calibration.json")
    if not path.is_file():
        return
    identity = Calibration.load(path).identity
    here = {"weights_sha256": sha256(predictor.weights), "slice": dict(profile.slice_options)}
    if "discrepancy" in scorings:
        chosen = scorings["discrepancy"].identity
        here |= {name: chosen[name] for name in ("teacher", "mse_weight")}
    made = {**identity, **identity.get("scoring", {})}
    differing = [name for name, value in here.items() if made.get(name) != value]
    if differing:
        raise ArtifactError(
            f"{label}: {', '.join(differing)} differ between the run and the profile {profile.name!r}: choose the "
            "profile that it was trained with"
        )
