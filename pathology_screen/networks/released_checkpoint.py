"""Turn a checkpoint of the code released with the RA paper into weights of
`IntrospectiveVAE(norm="affine", extra_projection=True)`.

Its batch normalisation never left evaluation mode, so each one is folded into the scale and shift
that it amounts to.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pathology_screen.errors import ArtifactError
from pathology_screen.networks.weights import read_checkpoint

NETWORK = {
    "size": 128,
    "channels": [64, 128, 256, 512, 512],
    "latent": 128,
    "norm": "affine",
    "extra_projection": True,
}
"""Arguments of the network that the released checkpoints fit."""

_EPSILON = 1e-5  # of torch's BatchNorm
_BLOCKS = {
    "encoder.main.res_in_64": "encoder.blocks.0",
    "encoder.main.res_in_32": "encoder.blocks.1",
    "encoder.main.res_in_16": "encoder.blocks.2",
    "encoder.main.res_in_8": "encoder.blocks.3",
    "encoder.main.res_in_4": "encoder.tail",
    "decoder.main.res_in_4": "decoder.blocks.0",
    "decoder.main.res_in_8": "decoder.blocks.1",
    "decoder.main.res_in_16": "decoder.blocks.2",
    "decoder.main.res_in_32": "decoder.blocks.3",
    "decoder.main.res_in_64": "decoder.blocks.4",
    "decoder.main.res_in_128": "decoder.tail",
}
_LAYERS = {"conv_expand": "project", "conv1": "conv1", "conv2": "conv2"}
_PLAIN = {
    "encoder.main.0": "encoder.stem.0",
    "encoder.fc": "encoder.fc",
    "decoder.fc.0": "decoder.fc",
    "decoder.main.predict": "decoder.predict",
}


def read_released_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a file `{model_weights, ...}` or a bare state dict with weights_only=True and convert
    it.

    Raises:
        ArtifactError: if the file is missing, holds anything but tensors and plain values, or its
            keys or shapes are not those of a released checkpoint.
    """
    content = read_checkpoint(path)
    return convert_released_state(
        content.get("model_weights", content) if isinstance(content, dict) else content
    )


def convert_released_state(released: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and fold a released state dict; every key is used, or the checkpoint is refused.

    Raises:
        ArtifactError: naming the keys that are missing or left over.
    """
    if not (
        isinstance(released, dict) and all(isinstance(value, Tensor) for value in released.values())
    ):
        raise ArtifactError("not a released RA checkpoint: it holds no state dict")
    left = dict(released)
    missing: list[str] = []
    state: dict[str, Tensor] = {}

    def take(key: str) -> Tensor:
        if key not in left:
            missing.append(key)
            return torch.zeros(1)
        return left.pop(key)

    def fold(source: str, target: str) -> None:
        weight, bias, mean, variance = (
            take(f"{source}.{name}") for name in ("weight", "bias", "running_mean", "running_var")
        )
        left.pop(f"{source}.num_batches_tracked", None)
        if not weight.shape == bias.shape == mean.shape == variance.shape:
            raise ArtifactError(
                f"not a released RA checkpoint: the shapes of {source} do not agree"
            )
        scale = weight / torch.sqrt(variance + _EPSILON)
        state[f"{target}.weight"], state[f"{target}.bias"] = scale, bias - mean * scale

    for source, target in _PLAIN.items():
        state[f"{target}.weight"] = take(f"{source}.weight")
        if source != "encoder.main.0":
            state[f"{target}.bias"] = take(f"{source}.bias")
    fold("encoder.main.1", "encoder.stem.1")
    for source, target in _BLOCKS.items():
        for layer, ours in _LAYERS.items():
            if layer == "conv_expand" and (target.endswith("tail") or target == "decoder.blocks.0"):
                continue
            state[f"{target}.{ours}.weight"] = take(f"{source}.{layer}.weight")
        fold(f"{source}.bn1", f"{target}.norm1")
        fold(f"{source}.bn2", f"{target}.norm2")
    if missing or left:
        raise ArtifactError(
            f"not a released RA checkpoint: missing {sorted(missing)[:5]}, left over {sorted(left)[:5]}"
        )
    return state
