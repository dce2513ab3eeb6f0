"""Drawn slices of the standard plane, one a person."""

from pathlib import Path

import numpy as np
from PIL import Image


def disc(person: int, lesion: bool = False) -> np.ndarray:
    """A slice of the standard plane, (233, 197) uint8: a disc of tissue with dark ventricles, and
    perhaps a bright square."""
    row, column = np.mgrid[:233, :197]
    width = 64 + person % 5
    radius = np.hypot((row - 116) / 85, (column - 98) / width)
    image = np.where(radius < 1, 170 + np.random.default_rng(person).normal(0, 6, radius.shape), 0)
    image[(abs(row - 110) < 25) & (abs(abs(column - 98) - 12) < 6)] = 60
    if lesion:
        image[90:110, 120:140] = 255
    return image.clip(0, 255).astype(np.uint8)


def save_discs(folder: Path, names: list[str]) -> list[Path]:
    """PNG files of these names, each of another healthy person."""
    folder.mkdir(parents=True, exist_ok=True)
    for person, name in enumerate(names):
        Image.fromarray(disc(person)).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in names]
