"""Where published weights lie on this machine; nothing is ever downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from pathology_screen.errors import ArtifactError


def hub_file(url: str, needed_by: str, otherwise: str) -> Path:
    """Path of a file in the torch hub cache.

    Args:
        url: that the file is published at.
        needed_by: what needs it, for the message.
        otherwise: what can be done without it, likewise.

    Raises:
        ArtifactError: if it is not there.
    """
    file = hub_path(url)
    if not file.is_file():
        raise ArtifactError(
            f"{needed_by} needs {file.name} in the torch hub cache ($TORCH_HOME/hub/checkpoints, by default "
            f"~/.cache/torch/hub/checkpoints). Download {url} and put it there, or give its path, or {otherwise}, "
            "which needs no download"
        )
    return file


def hub_path(url: str) -> Path:
    """Where the torch hub cache keeps what is published at a URL, whether or not it is there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def st_lpips_file(name: str, needed_by: str) -> Path:
    """Path of weights in the installed package `stlpips-pytorch`, which is found and not imported.

    Raises:
        ArtifactError: if the package is not installed.
    """
    package = importlib.util.find_spec("stlpips_pytorch")
    if package is None or package.origin is None:
        raise ArtifactError(
            f"{needed_by} needs the package stlpips-pytorch: pip install stlpips-pytorch"
        )
    return Path(package.origin).parent / "weights" / "vST0.0" / name
