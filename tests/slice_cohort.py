"""A small cohort of drawn slices: healthy ones, and test slices with findings, masks and boxes."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn

from pathology_screen.cohorts.datalist import SECTIONS
from pathology_screen.cohorts.phantom import find_boxes

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


def make_slice_cohort(root: Path, healthy: int = 3) -> Path:
    """Write the cohort and return its datalist: training, validation (empty) and calibration, PNG
    files of two healthy people each, and test, healthy people and one with each of `FINDINGS`, in
    NIfTI files of several orientations."""
    sections: dict[str, list[dict]] = {name: [] for name in SECTIONS}
    root.mkdir(parents=True, exist_ok=True)
    for section in ("training", "calibration"):
        for number in range(2):
            subject = f"{section}{number}"
            image, _ = draw_slice(np.random.default_rng([len(section), number]))
            Image.fromarray(image.astype(np.uint8)).save(root / f"sub-{subject}_T1w.png")
            item = {"image": f"sub-{subject}_T1w.png", "subject": subject, "axial_slice": True}
            sections[section].append(item)
    for number, finding in enumerate([None] * healthy + list(FINDINGS)):
        subject, codes = f"test{number}", ORIENTATIONS[number % len(ORIENTATIONS)]
        drawn = draw_slice(np.random.default_rng([4, number]), finding)
        image, mask = (_stored(picture, codes) for picture in drawn)
        nib.save(image, root / f"sub-{subject}_T1w.nii.gz")
        item = {"image": f"sub-{subject}_T1w.nii.gz", "subject": subject, "axial_slice": True}
        if finding:
            nib.save(mask, root / f"sub-{subject}_mask.nii.gz")
            boxes = find_boxes(np.asarray(mask.dataobj) > 0, finding)
            item |= {"label": f"sub-{subject}_mask.nii.gz", "boxes": boxes}
        sections["test"].append(item | {"pathology": finding or "healthy"})
    datalist = root / "datalist.json"
    datalist.write_text(json.dumps(sections))
    return datalist


def _stored(picture: np.ndarray, codes: str) -> nib.Nifti1Image:
    """A picture as a file of one slice in an orientation."""
    affine = np.array([[0, -1.0, 0, 49], [-1.0, 0, 0, 58], [0, 0, 1.0, 0], [0, 0, 0, 1]])
    shown = nib.Nifti1Image(picture.astype(np.float32)[..., None], affine)
    return shown.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(codes)))


class Difference(nn.Module):
    """The absolute difference in place of a perceptual distance, which takes long to load."""

    identity = "difference"

    def forward(self, a, b):
        return (a - b).abs()
