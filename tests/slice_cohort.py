"""A small cohort of drawn slices: healthy PNG files, and test slices with findings, their masks and
boxes."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image
from scipy.ndimage import gaussian_filter

SHAPE = (116, 98)  # rows from anterior, columns to the patient's left
FINDINGS = {"lesion": 200, "edema": 100, "mass": 240, "resection": 15, "white matter lesion": 220}
ORIENTATIONS = ("RAS", "LPS", "LAS", "ARS")


def draw_slice(
    rng: np.random.Generator, finding: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A head with cortex and ventricles, 0 to 255, and the mask of its finding, both (H, W)."""
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    row, column = row - 58 - rng.normal(0, 1), column - 49 - rng.normal(0, 1)
    radius = np.hypot(row / (48 + rng.normal(0, 1)), column / (38 + rng.normal(0, 1)))
    image = np.select(
        [radius < 0.75, radius < 0.9, radius < 1, radius < 1.12], [160, 110, 20, 130], 0
    ).astype(float)
    image[np.hypot(row / 14, (abs(column) - 7) / (4 + rng.normal(0, 0.5))) < 1] = 40
    mask = np.zeros(SHAPE, bool)
    if finding:
        side, axes = rng.choice([-1, 1]), rng.uniform(6, 10, 2)
        mask = np.hypot((row - rng.uniform(-12, 12)) / axes[0], (column - 18 * side) / axes[1]) < 1
        image[mask] = FINDINGS[finding]
    texture = gaussian_filter(rng.normal(0, 12, SHAPE), 1)
    return np.where(image > 0, image + texture, 0).clip(0, 255), mask


def make_slice_cohort(
    root: Path, training: int = 2, calibration: int = 2, healthy: int = 3
) -> Path:
    """Write the cohort and return its datalist. Its sections are training, validation (empty) and
    calibration, PNG
    files of healthy people, and test: healthy people, and one with each of `FINDINGS`, in NIfTI
    files of several orientations."""
    sections: dict[str, list[dict]] = {
        "training": [],
        "validation": [],
        "calibration": [],
        "test": [],
    }
    root.mkdir(parents=True, exist_ok=True)
    for section, count in (("training", training), ("calibration", calibration)):
        for number in range(count):
            name = f"sub-{section}{number}_T1w.png"
            image, _ = draw_slice(np.random.default_rng([len(section), number]))
            Image.fromarray(image.astype(np.uint8)).save(root / name)
            sections[section].append(
                {"image": name, "subject": f"{section}{number}", "axial_slice": True}
            )
    for number, finding in enumerate([None] * healthy + list(FINDINGS)):
        subject, codes = f"test{number}", ORIENTATIONS[number % len(ORIENTATIONS)]
        image, mask = (
            _stored(picture, codes)
            for picture in draw_slice(np.random.default_rng([4, number]), finding)
        )
        nib.save(image, root / f"sub-{subject}_T1w.nii.gz")
        item = {"image": f"sub-{subject}_T1w.nii.gz", "subject": subject, "axial_slice": True}
        if finding:
            nib.save(mask, root / f"sub-{subject}_mask.nii.gz")
            item |= {"label": f"sub-{subject}_mask.nii.gz", "boxes": [_box(mask, finding)]}
        sections["test"].append(item | {"pathology": finding or "healthy"})
    datalist = root / "datalist.json"
    datalist.write_text(json.dumps(sections))
    return datalist


def _stored(picture: np.ndarray, codes: str) -> nib.Nifti1Image:
    """A picture as a file of one slice in an orientation."""
    shown = nib.Nifti1Image(
        picture.astype(np.float32)[..., None],
        np.array([[0, -1.0, 0, 49], [-1.0, 0, 0, 58], [0, 0, 1.0, 0], [0, 0, 0, 1]]),
    )
    return shown.as_reoriented(ornt_transform(io_orientation(shown.affine), axcodes2ornt(codes)))


def _box(mask: nib.Nifti1Image, label: str) -> dict:
    x, y, _ = (np.unique(places) for places in np.nonzero(mask.get_fdata()))
    return {"label": label, "slice": 0, "box": [int(x[0]), int(y[0]), len(x), len(y)]}
