"""What the paper prints (Bercea et al., MIDL 2023), for results on the paper's cohort."""

import numpy as np
import pandas as pd

from pathology_screen.experiments.methods import ExperimentSetting
from pathology_screen.experiments.slices import NORMAL

COHORT = {NORMAL: 30, "global_pathology": 27, "global_artefact": 23}
BOXES = 171

_METHODS = ["AE-S", "VAE", "DAE", "SI-VAE", "MKD", "RA"]
_NUMBERS = {
    "synthetic": {
        "method": ["AE-S", "VAE", "DAE", "SI-VAE", "RA"],
        "ellipses MSE x 100": [17.6, 4.4, 25.8, 3.3, 3.1],
        "ellipses LPIPS x 100": [29.3, 44.3, 32.1, 19.8, 17.7],
        "ellipses AUPRC x 100": [5.8, 24.2, 57.9, 27.6, 73.7],
        "copy-paste MSE x 100": [11.8, 5.3, 8.9, 5.3, 4.8],
        "copy-paste LPIPS x 100": [28.8, 41.9, 25.1, 19.4, 18.5],
        "copy-paste AUPRC x 100": [7.9, 20.0, 30.1, 20.5, 57.4],
    },
    "detection": {
        "method": _METHODS,
        "global pathology AUROC x 100": [49.3, 62.0, 58.2, 67.2, 61.3, 89.0],
        "global artefact AUROC x 100": [45.6, 63.8, 57.6, 79.1, 63.2, 89.8],
        "average AUROC x 100": [47.4, 62.9, 57.9, 73.1, 62.2, 89.4],
    },
    "localization": {
        "method": _METHODS,
        "detected of 171": [21, 79, 90, 82, 83, 147],
        "f1 x 100": [2.5, 9.8, 29.0, 9.9, 26.5, 37.9],
    },
    "ablation": {
        "method": ["RA", "w/o reversed loss", "w/o equalisation", "w/o perceptual", "w/o both"],
        "global pathology AUROC x 100": [89.0, 88.5, 85.9, 71.4, 77.4],
        "global artefact AUROC x 100": [89.8, 86.3, 84.6, 79.6, 71.5],
        "average AUROC x 100": [89.4, 87.4, 85.2, 75.5, 74.4],
        "detected of 171": [147, 128, 137, 120, 105],
        "f1 x 100": [37.9, 31.8, 24.8, 14.4, 14.4],
    },
}
TABLES = {name: pd.DataFrame(columns) for name, columns in _NUMBERS.items()}
"""Experiment -> Table 1, 2a, 2b or 3 of the paper."""


def published(experiment: str, setting: ExperimentSetting) -> dict[str, pd.DataFrame]:
    """Return the paper's own table where it compares: on the paper's test section (its fastMRI+
    files, all groups and boxes), under the paper profile and, for boxes, with the paper's protocol
    or that of its code."""
    slices = setting.slices
    compares = (
        setting.shared.name == "paper"
        and (experiment in ("synthetic", "detection") or setting.protocol != "pixel_count")
        and {name: np.count_nonzero(slices.groups == name) for name in COHORT} == COHORT
        and sum(map(len, slices.box_labels)) == BOXES
        and all(subject.startswith("file_brain_AXT1_") for subject in slices.subjects)
    )
    return {"paper": TABLES[experiment]} if compares else {}
