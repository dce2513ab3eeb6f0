"""The methods under comparison: networks with their weights, and the ways of scoring what they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn

from pathology_screen.anomaly import AnomalyMap, DistillationMap, Scoring, perceptual_distance
from pathology_screen.bundles import PROFILES, bundle_root, read_settings
from pathology_screen.calibration import Calibration
from pathology_screen.engines import load_weights
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.experiments.slices import Slices
from pathology_screen.files import sha256
from pathology_screen.networks.build import build_inferer, build_network
from pathology_screen.networks.controls import Black, Template
from pathology_screen.networks.distillation import MultiresolutionDistillation
from pathology_screen.networks.restoration import Restoration
from pathology_screen.registry import METHODS, Method

BATCH = 8
SCORINGS = {
    "residual": {"perceptual": False, "equalize": False},
    "equalised": {"perceptual": False, "equalize": True},
    "perceptual": {"perceptual": True, "equalize": False},
    "eq5": {"perceptual": True, "equalize": True},
}
"""Name -> the terms of Eq. 5 that it takes: those of Table 3 of the paper."""


class Chosen(NamedTuple):
    """A method as it was asked for: `METHOD`, `METHOD=RUN` or `METHOD:LABEL=RUN`."""

    method: Method
    label: str
    run: Path | None

    @classmethod
    def parse(cls, text: str) -> Chosen:
        """Read the text of one choice.

        Raises:
            ConfigError: if the method is unknown, or a control that has no runs; that of `principal_components` is a
                run of RA.
        """
        name, _, run = text.partition("=")
        name, _, label = name.partition(":")
        if name not in METHODS:
            raise ConfigError(f"there is no method {name!r}; the methods are {', '.join(METHODS)}")
        if run and METHODS[name].is_control and name != "principal_components":
            raise ConfigError(f"the control {name!r} learns nothing, so it has no run: leave out ={run}")
        return cls(METHODS[name], label or name, Path(run) if run else None)


@dataclass(frozen=True)
class Model:
    """A method ready to look at slices.

    Attributes:
        label: its name in tables; several runs of one method that share it are its seeds.
        method: of the registry.
        networks: level -> network; under None the one for every level.
        scorings: name -> from images and predictions to maps and scores.
        weights_sha256: of the weights' file; None for a control.
        device: where the networks are.
        inferer: how they are applied.
    """

    label: str
    method: Method
    networks: Mapping[int | None, nn.Module]
    scorings: Mapping[str, Scoring]
    weights_sha256: str | None = None
    device: torch.device | str = "cpu"
    inferer: Inferer = field(default_factory=SimpleInferer)

    @torch.no_grad()
    def predict(self, slices: Slices) -> Tensor:
        """Return what the network makes of each slice: (N, 1, H, W), float32.

        Raises:
            ConfigError: if it knows nothing of a level (a template without training slices there).
        """
        predictions = torch.empty_like(slices.images)
        for level in dict.fromkeys(slices.levels):
            network = self.networks.get(level, self.networks.get(None))
            if network is None:
                raise ConfigError(f"{self.label}: no training slice lies at level {level}")
            places = [i for i, other in enumerate(slices.levels) if other == level]
            for part in (places[i : i + BATCH] for i in range(0, len(places), BATCH)):
                predictions[part] = self.inferer(slices.images[part].to(self.device), network).cpu()
        return predictions

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the posterior means of images (N, 1, H, W): (N, Z), float32.

        Raises:
            ConfigError: if the method has no latent vector.
        """
        encode = getattr(self.networks.get(None), "encode", None)
        if encode is None:
            raise ConfigError(f"{self.label} has no latent vector; ra, si_vae and vae have one")
        return torch.cat([encode(part.to(self.device))[0].cpu() for part in images.split(BATCH)])

    @torch.no_grad()
    def maps(self, slices: Slices, predictions: Tensor, scoring: str) -> Tensor:
        """Return the anomaly maps of slices and predictions, (N, 1, H, W), under one of the scorings."""
        score = self.scorings[scoring]
        pairs = zip(slices.images.split(BATCH), predictions.split(BATCH))
        return torch.cat([score(x.to(self.device), y.to(self.device)).cpu() for x, y in pairs])

    @torch.no_grad()
    def scores(self, slices: Slices, maps: Tensor, scoring: str) -> Tensor:
        """Return the image scores of slices and their maps, (N,)."""
        score = self.scorings[scoring].score
        pairs = zip(slices.images.split(BATCH), maps.split(BATCH))
        return torch.cat([score(x.to(self.device), y.to(self.device)).cpu() for x, y in pairs])


class Profile(NamedTuple):
    """What all methods of an experiment share: how slices are prepared, the perceptual backbone, the configurations
    laid over `inference.json`, the section of the datalist that thresholds are fitted on, its name, and where asked for
    the inferer of all networks in place of the bundles' own."""

    preprocessing_options: Mapping[str, Any]
    level: str | int | float
    backbone: str
    overlays: tuple[str, ...]
    calibration_section: str = "calibration"
    name: str = "configured"
    inferer: Inferer | None = None


def read_profile(name: str = "compact", backbone: str | None = None, inferer: Inferer | None = None) -> Profile:
    """Take the settings that all bundles share from RA's.

    Args:
        name: "compact" or "paper".
        backbone: another perceptual backbone than the profile's.
        inferer: of the networks that reconstruct, in place of their bundles' own.

    Raises:
        ConfigError: if there is no such profile.
    """
    if name not in PROFILES:
        raise ConfigError(f'the profile is "compact" or "paper", not {name!r}')
    overlays = PROFILES[name]
    config = read_settings("ra", overlays)
    backbone = backbone or config["scoring"]["perceptual"]
    section = config["calibration_section"]
    return Profile(config["preprocessing_options"], config["level"], backbone, overlays, section, name, inferer)


def load_models(
    choices: Sequence[Chosen], profile: Profile, training: Slices | None, wanted: Sequence[str] = tuple(SCORINGS)
) -> list[Model]:
    """Build the chosen methods, all with one and the same perceptual backbone.

    Args:
        choices: without a run, a method has the weights that its bundle ships.
        profile: of the bundles.
        training: slices for the controls `template` and `registered_template`, at the levels that are looked at.
        wanted: names of the scorings that may be asked for; the backbone is only built where one takes it.

    Raises:
        ArtifactError: if weights are missing or do not fit, or their calibration belongs to another profile.
        ConfigError: if one of these is chosen and there are no training slices.
    """
    offered = {name: SCORINGS[name] for name in (*wanted, "equalised")}
    perceptual = any(terms["perceptual"] for terms in offered.values())
    backbone = perceptual_distance(profile.backbone) if perceptual else "none"
    scorings = {
        name: AnomalyMap(backbone if terms["perceptual"] else "none", equalize=terms["equalize"])
        for name, terms in offered.items()
    }
    return [_load(choice, profile, training, scorings) for choice in choices]


def _load(choice: Chosen, profile: Profile, training: Slices | None, scorings: Mapping[str, Scoring]) -> Model:
    method, label, run = choice
    if method.name == "intensity":
        return Model(label, method, {None: Black()}, {"equalised": scorings["equalised"]})
    if method.name in ("template", "registered_template"):
        if training is None:
            raise ConfigError(f"the control `{method.name}` needs the training section of the datalist")
        levels = dict.fromkeys(training.levels)
        places = {level: [i for i, other in enumerate(training.levels) if other == level] for level in levels}
        posed = Restoration(pose=method.name == "registered_template", passes=1)
        images = posed.standardize(training.images)
        templates = {level: Template(images[at]) for level, at in places.items()}
        return Model(label, method, templates, scorings, inferer=posed)
    if method.name == "principal_components":
        return _principal_components(choice, profile, scorings)
    weights = (run or bundle_root(method.name) / "models") / "model.pt"
    if not weights.is_file():
        advice = "train it and name the run" if run is None else "is that the output_dir of a run that ended?"
        raise ArtifactError(f"there are no weights of {label}: {advice} ({method.name}=RUN)")
    settings = read_settings(method.name, profile.overlays)
    network = load_weights(build_network(method.name, settings["network_def"]), weights).eval().requires_grad_(False)
    own_inferer = build_inferer(settings["inferer"])
    inferer = profile.inferer if profile.inferer and method.reconstructs else own_inferer
    own: dict[str, Scoring] = dict(scorings)
    if isinstance(network, MultiresolutionDistillation):
        own = {"discrepancy": DistillationMap(network)}
    _check_calibration(label, weights, profile, own)
    return Model(label, method, {None: network}, own, sha256(weights), inferer=inferer)


def _principal_components(choice: Chosen, profile: Profile, scorings: Mapping[str, Scoring]) -> Model:
    """The linear part of the shipped RA, or of a run of RA, applied as RA is.

    Raises:
        ConfigError: if RA of this profile has none.
    """
    settings = read_settings("ra", profile.overlays)
    network = build_network("ra", settings["network_def"])
    if getattr(network, "principal", None) is None:
        raise ConfigError(f"RA of the profile {profile.name!r} does not start from principal components")
    weights = (choice.run or bundle_root("ra") / "models") / "model.pt"
    linear: nn.Module = load_weights(network, weights).eval().requires_grad_(False).principal  # type: ignore[assignment]
    inferer = profile.inferer or build_inferer(settings["inferer"])
    return Model(choice.label, choice.method, {None: linear}, scorings, sha256(weights), inferer=inferer)


def _check_calibration(label: str, weights: Path, profile: Profile, scorings: Mapping[str, Scoring]) -> None:
    """Refuse weights whose calibration, if there is one beside them, tells of another preprocessing or teacher."""
    path = weights.with_name("calibration.json")
    if not path.is_file():
        return
    identity = Calibration.load(path).identity
    here = {"weights_sha256": sha256(weights), "preprocessing": dict(profile.preprocessing_options)}
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
