"""From a datalist item to the network grid."""

from __future__ import annotations

from typing import Any, Literal

from monai.config import KeysCollection
from monai.transforms import Compose, EnsureTyped, LoadImaged, Orientationd
from monai.utils import ensure_tuple

from pathology_screen.errors import ConfigError
from pathology_screen.geometry import DISPLAY_AXES
from pathology_screen.transforms.axial_slice import AxialSliced
from pathology_screen.transforms.boxes import BOX_KEYS, BoxesOnSliced, DrawBoxesd
from pathology_screen.transforms.brain_extraction import ExtractBraind
from pathology_screen.transforms.grid import ResampleToGridd
from pathology_screen.transforms.load import LoadScand
from pathology_screen.transforms.tissue import ScaleByTissuePercentiled

MID_VENTRICLE = 0.55
"""Fraction of the brain's axial extent, from inferior, at which frontal horns and atria of the lateral ventricles show.

Measured on five whole brains, where the best fraction lay between 0.54 and 0.59 (5 mm around the constant); in a slab
that is shorter than the brain it names a level just above the middle, which is where such slabs are centred.
"""


def eval_transforms(
    keys: KeysCollection = "image",
    *,
    mask_keys: KeysCollection = (),
    grid: Literal["isotropic", "padded"] = "isotropic",
    size: int = 128,
    millimetres: float = 208.0,
    level: str | int | float = MID_VENTRICLE,
    percentile: float = 98.0,
    domain: Literal["brain_extracted", "whole_head"] = "brain_extracted",
    brain_extraction: Literal["auto", "always", "never"] = "auto",
    boxes: bool = False,
) -> Compose:
    """Path of a scan -> axial slice on the network grid.

    Args:
        keys: keys of the paths in the item. An item may hold `level`, `series_uid` and `axial_slice`.
        mask_keys: keys of the paths of masks on the voxels of the first image, in NIfTI; an item may lack them. They go
            the same way, but for intensities, and come out as the covered fraction of each pixel, 0 to 1.
        grid: "isotropic": square pixels of `millimetres / size` mm, centred on the tissue; "padded": the slice padded
            to a square and resized, as in the paper.
        size: pixels per side.
        millimetres: side of the isotropic grid in mm.
        level: which axial slice, see `AxialSliced`.
        percentile: of tissue intensity that becomes 1.
        domain: "brain_extracted" sees brains only; "whole_head" sees slices as they are.
        brain_extraction: of scans for the domain "brain_extracted", see `ExtractBraind`.
        boxes: whether annotated boxes come along as masks (see `DrawBoxesd`), one channel a box.

    Returns:
        A Compose that gives MetaTensors (1, size, size), float32, in [0, 1], rows to posterior and columns to the
        patient's left. `monai.transforms.Invertd` takes a result on the grid back to the volume (1, I, J, K) as it was
        loaded, zero outside the slice.

    Raises:
        ConfigError: for an unknown grid or domain, or (in use) a mask that does not fit its image.
    """
    if grid not in ("isotropic", "padded"):
        raise ConfigError(f'grid is "isotropic" or "padded", not {grid!r}')
    if domain not in ("brain_extracted", "whole_head"):
        raise ConfigError(f'domain is "brain_extracted" or "whole_head", not {domain!r}')
    extraction = brain_extraction if domain == "brain_extracted" else "never"
    part_suffices = level == "middle" and extraction == "never" and not mask_keys and not boxes
    load_masks = [LoadImaged(mask_keys, ensure_channel_first=True, allow_missing_keys=True)] if mask_keys else []
    box_masks = tuple(f"{name}_masks" for name in BOX_KEYS) if boxes else ()
    both = (*ensure_tuple(keys), *ensure_tuple(mask_keys), *box_masks)
    return Compose(
        [
            LoadScand(keys, level="middle" if part_suffices else None),
            *load_masks,
            *([DrawBoxesd(ensure_tuple(keys)[0])] if boxes else []),
            ExtractBraind(keys, when=extraction),
            Orientationd(both, axcodes=DISPLAY_AXES, labels=None, allow_missing_keys=True),
            AxialSliced(both, level=level, allow_missing_keys=True),
            *([BoxesOnSliced()] if boxes else []),
            ScaleByTissuePercentiled(keys, percentile=percentile),
            ResampleToGridd(
                both,
                size=size,
                millimetres=millimetres if grid == "isotropic" else None,
                antialias=grid == "isotropic",
                allow_missing_keys=True,
            ),
        ]
    )


def train_transforms(keys: KeysCollection = "image", **options: Any) -> Compose:
    """Path of a scan -> plain tensor (1, size, size), float32, in [0, 1]: `eval_transforms` without the way back.

    Nothing in it is random, so that a result may be kept; batches are augmented by `RandomAffineBatch`.

    Args:
        keys: keys of the paths in the item.
        options: keyword arguments of `eval_transforms`.
    """
    return Compose([*eval_transforms(keys, **options).transforms, EnsureTyped(keys, track_meta=False)])
