"""Load a network's weights without running anything that a file may hold."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import nn

from pathology_screen.errors import ArtifactError


def load_weights(network: nn.Module, path: str | Path | None) -> nn.Module:
    """Load a plain state dict into the network, every key accounted for, and return the network.

    Args:
        network: of the architecture that the weights belong to.
        path: file written by `torch.save(network.state_dict(), path)`; None leaves the network as it is.

    Raises:
        ArtifactError: if the file is missing, is no plain state dict (it is read with weights_only=True), or
            does not fit the network.
    """
    if path is None:
        return network
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"there are no weights at {path}; train first, or name other weights with --ckpt")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ArtifactError(f"{path.name} is damaged or holds more than a state dict") from error
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path.name} does not fit {type(network).__name__}: {error}") from error
    return network
