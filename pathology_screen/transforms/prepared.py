"""The slices of a section of a datalist, prepared once and kept in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import Dataset
from monai.transforms import Transform
from tqdm import tqdm

from pathology_screen.errors import ConfigError


def prepare_slices(data: Sequence[Mapping[str, Any]], transform: Transform) -> Dataset:
    """Apply a transform without random parts to each item once, so that epochs need not.

    Args:
        data: items of a datalist.
        transform: of an item.

    Returns:
        A dataset of the transformed items, in memory.

    Raises:
        ConfigError: if there is no item.
        InputError: (as such, or as the cause of a RuntimeError of MONAI's) if a scan is refused; a
            note names its file.
    """
    if not data:
        raise ConfigError(
            "there is no scan to take slices from: the section of the datalist is empty"
        )
    prepared = []
    for item in tqdm(data, desc="preparing", unit="scan"):
        try:
            prepared.append(transform(item))
        except Exception as error:
            error.add_note(f"while preparing {Path(str(item['image'])).name}")
            raise
    return Dataset(prepared)
