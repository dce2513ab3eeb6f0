"""Every axial level of a scan, not one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from monai.data import Dataset, MetaTensor
from monai.transforms import Compose
from monai.utils import TraceKeys
from torch import Tensor
from tqdm import tqdm

from pathology_screen.errors import ConfigError
from pathology_screen.geometry import spacing
from pathology_screen.transforms.axial_slice import AxialSliced, tissue_extent
from pathology_screen.transforms.load import READ_BY_READER

READ_BY_LOADER = ("level", *READ_BY_READER)
"""Keys of an item, beside the path, that decide what is read of a scan."""


def each_level(transforms: Compose, item: Mapping[str, Any], key: str = "image") -> Iterator[dict[str, Any]]:
    """Yield the transformed item of every level that holds tissue, from inferior; the volume is read once.

    Args:
        transforms: from `eval_transforms`; every yielded item can be inverted with it.
        item: of a datalist.
        key: key of the path.
    """
    at_slice, volume = _before_slice(transforms, item)
    for level in range(*tissue_extent(np.asarray(volume[key][0]))):
        yield transforms({**volume, "level": level}, start=at_slice)


def axial_slices(
    data: Sequence[Mapping[str, Any]],
    transform: Compose,
    levels: str | None = "all",
    key: str = "image",
    also: Sequence[str] = (),
    kept: Sequence[str] = ("subject",),
) -> Dataset:
    """Prepare the slices of many scans once and keep them in memory; each scan is read once.

    Args:
        data: items of a datalist.
        transform: from `train_transforms` or `eval_transforms`.
        levels: "all": every axial level that holds tissue; None: the one slice that the transform chooses.
        key: key of the path.
        also: other keys that the transform reads or adds, such as those of masks; an item may lack them.
        kept: other keys of the items whose values each of their slices gets, as text.

    Returns:
        A dataset of `{key: slice, "level": index}` with these and what is kept, scan by scan, from inferior to
        superior; whatever else an item holds is left behind. `level` is absent where the transform chose it and gives
        plain tensors.

    Raises:
        ConfigError: if `levels` is neither, or there is no item.
    """
    if levels not in ("all", None):
        raise ConfigError(f'levels is "all" or None, not {levels!r}')
    if not data:
        raise ConfigError("there is no scan to take slices from: the section of the datalist is empty")
    prepared: list[dict[str, Any]] = []
    for item in tqdm(data, desc="preparing", unit="scan"):
        needed = {name: item[name] for name in (key, *also, *READ_BY_LOADER) if name in item}
        try:
            slices = [transform(needed)] if levels is None else list(each_level(transform, needed, key))
        except Exception as error:
            error.add_note(f"while preparing {Path(str(item[key])).name}")
            raise
        own = {name: str(item[name]) for name in kept if name in item}
        prepared += [{name: one[name] for name in (key, *also, "level") if name in one} | own for one in slices]
    return Dataset(prepared)


def slices_to_volume(transforms: Compose, slices: Sequence[MetaTensor], values: Sequence[Tensor]) -> MetaTensor:
    """Take what was computed of slices on the network grid back to the volume that they were taken from.

    Args:
        transforms: from `eval_transforms`, that gave the slices.
        slices: (1, size, size), of one scan at different levels.
        values: of each slice, the same shape.

    Returns:
        (1, I, J, K) as the scan was loaded, float32, zero outside the slices.
    """
    at_slice = slice_step(transforms)
    on_grid, before = Compose(transforms.transforms[at_slice + 1 :]), Compose(transforms.transforms[:at_slice])
    take = cast(AxialSliced, transforms.transforms[at_slice])
    key = take.keys[0]
    volume: MetaTensor | None = None
    for image, value in zip(slices, values, strict=True):
        plane = MetaTensor(value, meta=image.meta, applied_operations=list(image.applied_operations))
        plane = on_grid.inverse({key: plane})[key]
        if volume is None:
            volume = take.inverse({key: plane})[key]
        else:
            volume[..., image.meta["level"]] = plane.as_tensor()
    return before.inverse({key: volume})[key]


def pixel_affine(image: MetaTensor) -> np.ndarray:
    """Affine of a slice on the network grid: (row, column, 0, 1) -> millimetres in RAS+, (4, 4).

    Args:
        image: (1, size, size), as `eval_transforms` gives it.
    """
    taken = next(o for o in image.applied_operations if o[TraceKeys.CLASS_NAME] == AxialSliced.__name__)
    volume = np.asarray(taken[TraceKeys.EXTRA_INFO]["affine"], dtype=float)  # voxel of the volume, levels last -> mm
    in_plane = np.asarray(image.affine, dtype=float) / np.append(spacing(volume)[:2], 1)[:, None]  # pixel -> voxel
    pixel = np.eye(4)
    pixel[:2, :2], pixel[:2, 3] = in_plane[:2, :2], in_plane[:2, 2]
    pixel[2, 3] = taken[TraceKeys.EXTRA_INFO]["index"]
    return volume @ pixel


def slice_step(transforms: Compose) -> int:
    """Place, among transforms from `eval_transforms`, of the one that takes the slice out of the volume."""
    return next(i for i, step in enumerate(transforms.transforms) if isinstance(step, AxialSliced))


def _before_slice(transforms: Compose, item: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    at_slice = slice_step(transforms)
    whole = {**item, "level": "all"}  # so that the reader reads every level
    return at_slice, transforms(whole, end=at_slice)
