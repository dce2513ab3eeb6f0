"""Load a network's weights without running anything that a file may hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pathology_screen.errors import ArtifactError

LFS_POINTER = b"version https://git-lfs"
"""How a file begins that stands for one which was not fetched."""


def read_checkpoint(path: str | Path) -> Any:
    """Read a file that holds tensors and plain values alone, onto the CPU.

    Raises:
        ArtifactError: if the file is missing, damaged, or holds anything else (it is read with
            weights_only=True).
    """
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(
            f"there are no weights {path.name} in the folder {path.parent.name or '.'}"
        )
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ArtifactError(
                f"{path.name} is a pointer of Git LFS, not the weights: run git lfs pull"
            )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, as files can be damaged in many ways
        raise ArtifactError(
            f"{path.name} is damaged or holds more than tensors and plain values"
        ) from error


def load_weights(network: nn.Module, path: str | Path | None) -> nn.Module:
    """Load a plain state dict into the network, every key accounted for, and return the network.

    Args:
        network: of the architecture that the weights belong to.
        path: file written by `torch.save(network.state_dict(), path)`; None leaves the network as
            it is.

    Raises:
        ArtifactError: see `read_checkpoint`; also if the state dict does not fit the network.
    """
    if path is None:
        return network
    try:
        network.load_state_dict(read_checkpoint(path))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{Path(path).name} does not fit {type(network).__name__}: {error}"
        ) from error
    return network


def tensors_sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over the names, types, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
