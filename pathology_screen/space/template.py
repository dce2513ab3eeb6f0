"""The MNI152 brain to which scans are registered: in the nilearn package, so nothing is fetched."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np

from pathology_screen.errors import ConfigError

SPACE = "MNI152NLin2009aSym"
TEMPLATE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def template_folder() -> Path:
    """Folder of the MNI152 maps inside the nilearn package; ConfigError if it is not installed."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("The MNI152 maps are those of the package nilearn: pip install nilearn.")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


@cache
def load_brain_template() -> nib.Nifti1Image:
    """Read the ICBM 152 2009a symmetric T1w brain: 197 x 233 x 189, 1 mm, RAS+, 0 outside the
    brain.

    Raises:
        ConfigError: if it is not there.
    """
    path = template_folder() / TEMPLATE
    if not path.is_file():
        raise ConfigError(f"The installed nilearn does not hold {path.name}, the template brain.")
    image = nib.Nifti1Image.from_filename(path)
    return nib.Nifti1Image(np.asarray(image.dataobj, np.float32), image.affine)
