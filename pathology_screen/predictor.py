"""The one runtime: a network with its preprocessing and scoring, from slices to scores."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from monai.inferers import Inferer, SimpleInferer
from monai.transforms import Compose, Resized, SpatialPadd
from torch import Tensor, nn

from pathology_screen import transforms
from pathology_screen.anomaly import AnomalyMap, DistillationMap, Scoring
from pathology_screen.bundles import bundle_root, read_settings
from pathology_screen.errors import ArtifactError, ConfigError, ScreeningError
from pathology_screen.files import sha256
from pathology_screen.networks.weights import load_weights
from pathology_screen.registry import METHODS
from pathology_screen.space import EXTRACTION_GRID
from pathology_screen.versions import brain_extraction_sha256

BATCH = 8

_OWN = (
    *("LoadScand", "ExtractBraind", "StandardPlaned", "ScaleByTissuePercentiled"),
    *("BlackenBackgroundd", "StandardContrastd"),
)
STEPS = {f"pathology_screen.transforms.{name}": getattr(transforms, name) for name in _OWN}
STEPS |= {"Resized": Resized, "SpatialPadd": SpatialPadd}
"""`_target_` of a step of a bundle's `preprocessing` -> its class; no other is built."""


class Prediction(NamedTuple):
    """What a method makes of N slices, on the CPU, float32.

    Attributes:
        output: (N, 1, H, W), the pseudo-healthy reconstruction in [0, 1] (of MKD the anomaly map).
        maps: (N, 1, H, W), the anomaly map, at least 0.
        scores: (N,), the image score.
    """

    output: Tensor
    maps: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Predictor:
    """A method ready to look at slices.

    Attributes:
        method: name in the registry.
        network: (B, 1, H, W) -> the same shape, in evaluation mode.
        scoring: makes maps and image scores of slices and the network's output.
        preprocessing: takes an item with `image` (a path, or a scan that was read) to the slice,
            (1, H, W) in [0, 1].
        slice_options: what decides the slice, part of a calibration's identity: `domain`,
            `plane_mm`, `percentile` and `size`.
        weights: file of the network's weights.
        inferer: applies the network.
    """

    method: str
    network: nn.Module
    scoring: Scoring
    preprocessing: Compose
    slice_options: Mapping[str, Any]
    weights: Path
    inferer: Inferer = SimpleInferer()

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", Path(self.weights))  # configurations hold text

    @classmethod
    def load(
        cls,
        bundle: str | Path = "ra",
        weights: str | Path | None = None,
        profile: str = "compact",
        device: str | torch.device = "cpu",
        scoring: Mapping[str, Any] | None = None,
    ) -> "Predictor":
        """Build a bundle's network from the registry and load its weights; nothing is evaluated.

        Args:
            bundle: name or folder.
            weights: in place of the bundle's own `models/model.pt`; `model.pt` of a training run.
            profile: of `bundles.PROFILES`, which the weights belong to.
            device: of the network; "auto" takes the accelerator of the machine (CUDA, MPS), or
                else the CPU.
            scoring: arguments of the scoring in place of the bundle's.

        Raises:
            ArtifactError: if the weights are missing or damaged, or do not fit the network.
            ConfigError: if there is no such bundle, profile or device.
        """
        settings = read_settings(bundle, profile)
        root = bundle_root(bundle)
        path = root / "models" / "model.pt" if weights is None else Path(weights)
        if not path.is_file():
            advice = f"; train the bundle {root.name} and name the model.pt of the run"
            raise ArtifactError(f"there are no weights {path.name}{'' if weights else advice}")
        method = settings["method"]
        network = load_weights(build_network(method, settings["network_def"]), path)
        try:
            network = network.eval().requires_grad_(False).to(best_device(device))
        except (RuntimeError, AssertionError) as error:  # the latter where torch lacks the device
            said = str(error).splitlines()[0]
            raise ConfigError(f"the device {device} cannot be used: {said}") from error
        chosen = settings["scoring"] if scoring is None else scoring
        return cls(
            method,
            network,
            build_scoring(method, network, chosen),
            build_preprocessing(settings["preprocessing"]),
            settings["slice"],
            path,
        )

    @property
    def reconstructs(self) -> bool:
        """Whether the output is a pseudo-healthy reconstruction."""
        return METHODS[self.method].reconstructs

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the posterior means of slices (N, 1, H, W), as `predict` takes them: (N, Z).

        Raises:
            ConfigError: if the method has no latent vector.
        """
        network = cast(Any, self.network)
        if not hasattr(network, "encode"):
            raise ConfigError(f"{self.method} has no latent vector; ra, si_vae and vae have one")
        return torch.cat([network.encode(batch)[0].cpu() for batch in self._batches(images)])

    def _batches(self, images: Tensor) -> Iterator[Tensor]:
        """Parts of the images, on the device of the network; a control may have no parameter."""
        device = next((one.device for one in self.network.parameters()), torch.device("cpu"))
        return (part.to(device) for part in torch.as_tensor(images).split(BATCH))

    @property
    def identity(self) -> dict[str, Any]:
        """What scores and maps depend on, ready for JSON: what a calibration belongs to."""
        return {
            "weights_sha256": sha256(self.weights),
            "slice": dict(self.slice_options),
            "scoring": self.scoring.identity,
            "brain_extraction_sha256": brain_extraction_sha256(),
            "brain_extraction_grid": EXTRACTION_GRID,
        }

    def prepare(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return an item, `image` (a path or a `Scan`) with what `LoadScand` reads beside it, with
        the slice in its place: a MetaTensor (1, H, W) in [0, 1].

        Raises:
            InputError: if the scan cannot be read, or brought to the standard plane.
        """
        prepared = dict(item)
        for step in self.preprocessing.transforms:
            prepared = cast(Callable, step)(prepared)
        return prepared

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Look at slices (N, 1, H, W) in [0, 1].

        Raises:
            InputError: "not_finite", if a slice holds NaN or infinite values.
            ArtifactError: if the network's output does: the weights are broken.
        """
        outputs, maps, scores = [], [], []
        for batch in self._batches(images):
            output = self.inferer(batch, self.network)
            map_ = self.scoring(batch, output)
            outputs.append(output.cpu())
            maps.append(map_.cpu())
            scores.append(self.scoring.score(batch, map_).cpu())
        return Prediction(torch.cat(outputs), torch.cat(maps), torch.cat(scores))


def build_network(method: str, definition: Mapping[str, Any]) -> nn.Module:
    """Build the network of a method, with random weights, by `network_def` of its bundle; a
    `ConfigError` tells of an unknown method or class, or a wrong argument."""
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r}; the methods are {', '.join(METHODS)}")
    module, _, name = METHODS[method].network.rpartition(".")
    return _build(definition, {METHODS[method].network: getattr(import_module(module), name)})


def best_device(device: str | torch.device) -> str | torch.device:
    """For "auto" the accelerator of this machine, else its CPU; any other device as it is."""
    if device != "auto":
        return device
    return torch.accelerator.current_accelerator(check_available=True) or "cpu"


def build_scoring(method: str, network: nn.Module, options: Mapping[str, Any]) -> Scoring:
    """Build the scoring of a method on its network's device; `ConfigError` of wrong options."""
    with _checked(f"the scoring of {method}"):
        if METHODS[method].reconstructs:
            return AnomalyMap(**options).to(next(network.parameters()).device)
        return DistillationMap(cast(Any, network), **options)


def build_preprocessing(definition: Mapping[str, Any]) -> Compose:
    """Build `preprocessing` of a bundle, a `Compose` of `STEPS` with arguments as data; a
    `ConfigError` tells of another step or a wrong argument."""
    steps = definition.get("transforms")
    if definition.get("_target_") != "Compose" or not isinstance(steps, list):
        raise ConfigError("the preprocessing is a Compose of `transforms`")
    return Compose([_build(step, STEPS) for step in steps])


def _build(definition: Mapping[str, Any], classes: Mapping[str, Callable[..., Any]]) -> Any:
    arguments = dict(definition) if isinstance(definition, Mapping) else {}
    target = arguments.pop("_target_", None)
    if not isinstance(target, str) or target not in classes:
        raise ConfigError(f"{target} is not one of {', '.join(classes)}")
    with _checked(target):
        return classes[target](**arguments)


@contextmanager
def _checked(name: str) -> Iterator[None]:
    """Say of whatever a class raises that its arguments from a file are wrong."""
    try:
        yield
    except ScreeningError:
        raise
    except Exception as error:
        said = str(error) or type(error).__name__
        raise ConfigError(f"the arguments of {name} are wrong: {said}") from error
