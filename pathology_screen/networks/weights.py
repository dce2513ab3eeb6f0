"""Find and load weights on this machine: nothing in them is run, nothing is downloaded."""

import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pathology_screen.errors import ArtifactError


def read_checkpoint(path: str | Path) -> Any:
    """Read a file that holds tensors and plain values alone, onto the CPU, with weights_only=True;
    ArtifactError if it is missing, damaged, not fetched, or holds anything else."""
    path = Path(path)
    if not path.is_file():
        folder = path.parent.name or "."
        raise ArtifactError(f"there are no weights {path.name} in the folder {folder}")
    with path.open("rb") as file:
        if file.read(23) == b"version https://git-lfs":
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
    """Load a plain state dict of `torch.save(network.state_dict(), path)`, every key accounted for,
    into the network, and return it; None loads nothing.

    Raises:
        ArtifactError: if the file is missing, damaged or holds more than tensors and plain values,
            or the state dict does not fit the network.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "model.pt")
    >>> torch.save(nn.Linear(1, 1).state_dict(), path)
    >>> load_weights(nn.Linear(1, 1), path)
    Linear(in_features=1, out_features=1, bias=True)
    """
    if path is not None:
        try:
            network.load_state_dict(read_checkpoint(path))
        except (RuntimeError, TypeError, AttributeError) as error:
            unfit = f"{Path(path).name} does not fit {type(network).__name__}: {error}"
            raise ArtifactError(unfit) from error
    return network


def tensors_sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the sha256 over the names, types, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def hub_path(url: str) -> Path:
    """Return where the torch hub cache keeps what is published at a URL."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def hub_file(url: str, needed_by: str, otherwise: str) -> Path:
    """Return the path in the torch hub cache of what is published at a URL; where it is not there,
    ArtifactError says what it is `needed_by` and what can be done `otherwise`."""
    file = hub_path(url)
    if not file.is_file():
        raise ArtifactError(
            f"{needed_by} needs {file.name} in the torch hub cache ($TORCH_HOME/hub/checkpoints, "
            f"by default ~/.cache/torch/hub/checkpoints). Download {url} and put it there, or give "
            f"its path, or {otherwise}, which needs no download"
        )
    return file


def st_lpips_file(name: str, needed_by: str) -> Path:
    """Return the path of weights in `stlpips-pytorch`, which is found and not imported;
    ArtifactError if it is not installed."""
    package = importlib.util.find_spec("stlpips_pytorch")
    if package is None or package.origin is None:
        raise ArtifactError(
            f"{needed_by} needs the package stlpips-pytorch: pip install stlpips-pytorch"
        )
    return Path(package.origin).parent / "weights" / "vST0.0" / name
