"""The MNI152 brain to which scans are registered: in the nilearn package, so nothing is fetched."""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from pathology_screen.errors import ConfigError

SPACE = "MNI152NLin2009aSym"
TEMPLATE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
TISSUES: dict[Literal["grey", "white"], str] = {
    "grey": "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
    "white": "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
}
"""Tissue -> map of its probability."""


def template_folder() -> Path:
    """Folder of the MNI152 maps inside the nilearn package; ConfigError if it is not installed.

    >>> template_folder().name
    'data'
    """
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("The MNI152 maps are those of the package nilearn: pip install nilearn.")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


@cache
def load_brain_template() -> nib.Nifti1Image:
    """Read the ICBM 152 2009a symmetric T1w brain: 197 x 233 x 189, 1 mm, RAS+, float32, 0 outside
    the brain; ConfigError if it is not there.

    >>> load_brain_template().shape
    (197, 233, 189)
    """
    return _read(TEMPLATE, np.float32)


@cache
def load_tissue(tissue: Literal["grey", "white"]) -> nib.Nifti1Image:
    """Read the probability of a tissue of that brain, a key of `TISSUES`, on the same voxels:
    uint8, 255 being 1; ConfigError if it is not there.

    >>> load_tissue("white").get_data_dtype().name
    'uint8'
    """
    return _read(TISSUES[tissue])


def _read(name: str, dtype: type | None = None) -> nib.Nifti1Image:
    path = template_folder() / name
    if not path.is_file():
        raise ConfigError(f"The installed nilearn does not hold {name}, a map of MNI152.")
    image = nib.Nifti1Image.from_filename(path)
    return nib.Nifti1Image(np.asarray(image.dataobj, dtype), image.affine)
