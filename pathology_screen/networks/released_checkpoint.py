"""Turn a checkpoint of the code released with the RA paper into weights of
`IntrospectiveVAE(norm="affine", extra_projection=True)`.

Its batch normalisation never left evaluation mode, so each one is folded into the scale and shift
that it amounts to.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pathology_screen.errors import ArtifactError
from pathology_screen.files import replacing, write_text
from pathology_screen.networks.introspective_vae import IntrospectiveVAE
from pathology_screen.networks.weights import load_weights, read_checkpoint

NETWORK: dict[str, Any] = {
    "size": 128,
    "channels": [64, 128, 256, 512, 512],
    "latent": 128,
    "norm": "affine",
    "extra_projection": True,
}
"""Arguments of the network that the released checkpoints fit."""

_EPSILON = 1e-5  # of torch's BatchNorm
_BLOCKS = {
    **{f"encoder.main.res_in_{64 >> i}": f"encoder.blocks.{i}" for i in range(4)},
    "encoder.main.res_in_4": "encoder.tail",
    **{f"decoder.main.res_in_{4 << i}": f"decoder.blocks.{i}" for i in range(5)},
    "decoder.main.res_in_128": "decoder.tail",
}
_COPIED = {
    "encoder.main.0.weight": "encoder.stem.0.weight",
    **{f"encoder.fc.{part}": f"encoder.fc.{part}" for part in ("weight", "bias")},
    **{f"decoder.fc.0.{part}": f"decoder.fc.{part}" for part in ("weight", "bias")},
    **{f"decoder.main.predict.{part}": f"decoder.predict.{part}" for part in ("weight", "bias")},
    **{f"{s}.conv{i}.weight": f"{t}.conv{i}.weight" for s, t in _BLOCKS.items() for i in (1, 2)},
    **{
        f"{source}.conv_expand.weight": f"{target}.project.weight"
        for source, target in _BLOCKS.items()
        if target not in ("encoder.tail", "decoder.blocks.0", "decoder.tail")
    },
}
_FOLDED = {
    "encoder.main.1": "encoder.stem.1",
    **{f"{s}.bn{i}": f"{t}.norm{i}" for s, t in _BLOCKS.items() for i in (1, 2)},
}
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def import_checkpoint(path: str | Path, output: Path) -> Path:
    """Write a checkpoint, `{model_weights, ...}` or a bare state dict, as `model.pt` into a folder,
    and beside it `network.json`, which is returned: what a bundle's configuration has to be
    overlaid with.

    Raises:
        ArtifactError: if the file is missing, holds anything but tensors and plain values, or its
            keys or shapes are not those of a released checkpoint.
    """
    weights, settings = output / "model.pt", output / "network.json"
    content = read_checkpoint(path)
    released = content.get("model_weights", content) if isinstance(content, dict) else content
    state = convert_released_state(released)
    with replacing(weights) as temporary:
        torch.save(state, temporary)
        load_weights(IntrospectiveVAE(**NETWORK), temporary)
    overlay = {f"network_def#{name}": value for name, value in NETWORK.items()}
    overlay |= {"ckpt": str(weights.resolve())}
    write_text(settings, json.dumps(overlay, indent=4) + "\n")
    return settings


def convert_released_state(released: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and fold a released state dict; every key is used, or ArtifactError names those that
    are missing or left over."""
    refusal = "not a released RA checkpoint"
    if not isinstance(released, dict) or not all(isinstance(v, Tensor) for v in released.values()):
        raise ArtifactError(f"{refusal}: it holds no state dict")
    expected = _COPIED.keys() | {f"{norm}.{part}" for norm in _FOLDED for part in _BATCH_NORM}
    missing = expected - released.keys()
    left = released.keys() - expected - {f"{norm}.num_batches_tracked" for norm in _FOLDED}
    if missing or left:
        found = f"missing {sorted(missing)[:5]}, left over {sorted(left)[:5]}"
        raise ArtifactError(f"{refusal}: {found}")
    state = {target: released[source] for source, target in _COPIED.items()}
    for source, target in _FOLDED.items():
        weight, bias, mean, variance = (released[f"{source}.{part}"] for part in _BATCH_NORM)
        if not weight.shape == bias.shape == mean.shape == variance.shape:
            raise ArtifactError(f"{refusal}: the shapes of {source} do not agree")
        scale = weight / torch.sqrt(variance + _EPSILON)
        state[f"{target}.weight"], state[f"{target}.bias"] = scale, bias - mean * scale
    return state
