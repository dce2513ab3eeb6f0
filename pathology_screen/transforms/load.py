"""Load a scan with this package's strict readers as a MONAI MetaTensor, and prepare many once."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import Dataset, MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from tqdm import tqdm

from pathology_screen.errors import ConfigError
from pathology_screen.io import Scan, read_scan

READ_BY_READER = ("series_uid", "axial_slice", "axes", "pixel_mm")
"""Keys of an item that are options of `io.read_scan`."""


def scan_image(scan: Scan) -> MetaTensor:
    """Wrap a scan that was read as `LoadScand` gives it."""
    meta = {
        MetaKeys.AFFINE: scan.affine.copy(),
        MetaKeys.ORIGINAL_AFFINE: scan.affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.asarray(scan.voxels.shape),
        MetaKeys.SPACE: SpaceKeys.RAS,
        "volume_shape": list(scan.voxels.shape),
        "volume_affine": scan.affine.tolist(),
        "source": json.dumps(dict(scan.source)),  # batches cannot hold dictionaries that differ
    }
    return MetaTensor(scan.voxels[None], meta=meta)


class LoadScand(MapTransform):
    """Load a scan with `io.read_scan`: path, or a `Scan` that was read -> MetaTensor (1, I, J, K),
    float32, affine RAS+ in mm.

    The item may hold `series_uid`, `axial_slice`, `axes` and `pixel_mm`, which are handed to the
    reader; `axial_slice: true` is there afterwards where there is one slice. The meta data hold
    `volume_shape`, `volume_affine` (lists) and `source` (JSON text of `Scan.source`), also once the
    scan has become a slice.

    Args:
        keys: keys of the paths, or of lists of the DICOM files of one series.

    Raises:
        InputError: where a scan cannot be read (within `Compose`, cause of its RuntimeError).
    """

    def __call__(self, data: Mapping) -> dict:
        d = dict(data)
        options = {name: d[name] for name in READ_BY_READER if name in d}
        for key in self.key_iterator(d):
            scan = d[key]
            if not isinstance(scan, Scan):
                paths = [Path(path).expanduser() for path in ensure_tuple(scan)]
                scan = read_scan(paths[0] if len(paths) == 1 else paths, **options)
            d[key] = scan_image(scan)
            if min(d[key].shape[1:]) == 1:
                d["axial_slice"] = True
            else:
                d.pop("axial_slice", None)
        return d


def prepare_slices(data: Sequence[Mapping[str, Any]], transform: Transform) -> Dataset:
    """Apply a transform without random parts once to each item of a datalist, kept in memory.

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
