"""Load a scan with this package's strict readers as a MONAI MetaTensor, and prepare many once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection, PathLike
from monai.data import Dataset, ImageReader, MetaTensor
from monai.transforms import LoadImaged, Transform
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from tqdm import tqdm

from pathology_screen.errors import ConfigError
from pathology_screen.io import Scan, read_scan

READ_BY_READER = ("series_uid", "axial_slice", "axes", "pixel_mm")
"""Keys of an item that are options of `io.read_scan`."""


class ScanReader(ImageReader):
    """MONAI reader of one scan: a NIfTI or PNG file, or a DICOM folder, archive or list of files.

    Args:
        options: keyword arguments of `io.read_scan`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """True: `io.read_scan` looks at the content, and refuses what it does not know."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Scan:
        """Read the scan at a path, or in a list of DICOM files; raises InputError."""
        paths = [Path(path) for path in ensure_tuple(data)]
        return read_scan(paths[0] if len(paths) == 1 else paths, **self.options, **kwargs)

    def get_data(self, img: Scan) -> tuple[np.ndarray, dict]:
        """Voxels (I, J, K) and the meta data that `LoadScand` promises."""
        meta = {
            MetaKeys.AFFINE: img.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: img.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(img.voxels.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: "no_channel",
            MetaKeys.SPACE: SpaceKeys.RAS,
            "volume_shape": list(img.voxels.shape),
            "volume_affine": img.affine.tolist(),
            "source": json.dumps(dict(img.source)),  # batches cannot hold dictionaries that differ
        }
        return img.voxels, meta


def scan_image(scan: Scan) -> MetaTensor:
    """Wrap a scan that was read already as `LoadScand` would give it."""
    voxels, meta = ScanReader().get_data(scan)
    return MetaTensor(voxels[None], meta=meta)


class LoadScand(LoadImaged):
    """Load a scan with `io.read_scan`: path, or a `Scan` that was read -> MetaTensor (1, I, J, K),
    float32, affine RAS+ in mm.

    The item may hold `series_uid`, `axial_slice`, `axes` and `pixel_mm`, which are handed to the
    reader. The meta data hold `volume_shape`, `volume_affine` (lists) and `source` (JSON text of
    `Scan.source`), also once the scan has become a slice.

    Args:
        keys: keys of the paths.

    Raises:
        InputError: where the scan cannot be read faithfully (within `Compose`, as the cause of its
            RuntimeError).
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, ensure_channel_first=True, allow_missing_keys=allow_missing_keys)

    def __call__(self, data: Mapping, reader: ImageReader | None = None) -> dict:
        if all(isinstance(data[key], Scan) for key in self.keys):
            d = dict(data) | {key: scan_image(data[key]) for key in self.keys}
        else:
            options = {name: data[name] for name in READ_BY_READER if name in data}
            d = super().__call__(data, reader or ScanReader(**options))
        if any(min(d[key].shape[1:]) == 1 for key in self.key_iterator(d)):
            d["axial_slice"] = True
        return d


def prepare_slices(data: Sequence[Mapping[str, Any]], transform: Transform) -> Dataset:
    """Apply a transform without random parts once to each item of a datalist, so that epochs need
    not.

    Returns:
        A dataset of the transformed items, in memory.

    Raises:
        ConfigError: if there is no item.
        InputError: (as such, or as the cause of a RuntimeError of MONAI's) if a scan is refused; a
            note names its file.
    """
    if not data:
        empty = "the section of the datalist is empty"
        raise ConfigError(f"there is no scan to take slices from: {empty}")
    prepared = []
    for item in tqdm(data, desc="preparing", unit="scan"):
        try:
            prepared.append(transform(item))
        except Exception as error:
            error.add_note(f"while preparing {Path(str(item['image'])).name}")
            raise
    return Dataset(prepared)
