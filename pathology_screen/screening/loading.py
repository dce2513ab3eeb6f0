"""Load a bundle without evaluating its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import nn

from pathology_screen.anomaly import AnomalyMap, DistillationMap, Scoring
from pathology_screen.bundles import PROFILES, bundle_root, read_settings
from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.networks.build import build_inferer, build_network, checked
from pathology_screen.networks.weights import load_weights
from pathology_screen.registry import METHODS
from pathology_screen.transforms import eval_transforms


class Loaded(NamedTuple):
    """A bundle ready to look at slices: `preprocessing_options` are the keyword arguments of `eval_transforms`; the
    inferer applies the network."""

    method: str
    network: nn.Module
    scoring: Scoring
    weights: Path
    preprocessing_options: Mapping[str, Any]
    level: str | int | float
    inferer: Inferer = SimpleInferer()


def load_bundle(
    bundle: str | Path, weights: str | Path | None = None, profile: str = "compact", device: str | torch.device = "cpu"
) -> Loaded:
    """Build a bundle's network from the registry and load its weights (`weights_only=True`).

    Args:
        bundle: name or folder.
        weights: in place of the bundle's own `models/model.pt`.
        profile: "compact" or "paper", which the weights belong to.
        device: of the network.

    Raises:
        ArtifactError: if the weights are missing or damaged, or do not fit the network.
        ConfigError: if there is no such bundle, profile or device.
    """
    if profile not in PROFILES:
        raise ConfigError(f"the profile is one of {', '.join(PROFILES)}, not {profile!r}")
    root = bundle_root(bundle)
    path = root / "models" / "model.pt" if weights is None else Path(weights)
    if not path.is_file():
        advice = f"; train the bundle {root.name} and name the model.pt of the run" if weights is None else ""
        raise ArtifactError(f"there are no weights {path.name}{advice}")
    settings = read_settings(bundle, PROFILES[profile])
    method = settings["method"]
    network = load_weights(build_network(method, settings["network_def"]), path).eval().requires_grad_(False)
    try:
        network = network.to(device)
    except (RuntimeError, AssertionError) as error:  # AssertionError where torch was built without it
        raise ConfigError(f"the device {device} cannot be used: {str(error).splitlines()[0]}") from error
    scoring: Scoring
    with checked("scoring"):
        if METHODS[method].reconstructs:
            scoring = AnomalyMap(**settings["scoring"]).to(device)
        else:
            scoring = DistillationMap(cast(Any, network), **settings["scoring"])
    with checked("the preprocessing"):
        eval_transforms(level=settings["level"], **settings["preprocessing_options"])
    inferer = build_inferer(settings["inferer"])
    return Loaded(method, network, scoring, path, settings["preprocessing_options"], settings["level"], inferer)
