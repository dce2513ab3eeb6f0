"""The embedded cohort: synthetic T1w heads, made on first use.

Healthy people to learn from are slices of the standard plane, as a registered scan shows it; those
to test on, with and without lesions, are whole volumes in the pose of the scanner. So every part of
the software can be tried on a fresh machine; a figure measured on them says nothing about patients.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image
from scipy import ndimage as ndi
from tqdm import tqdm

from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.datalist import write_datalist
from pathology_screen.cohorts.preparation import save_image
from pathology_screen.cohorts.simulation import IN_PLANE, KINDS, simulate, simulate_plane
from pathology_screen.errors import ConfigError
from pathology_screen.files import replacing

VERSION = 2
"""Part of the folder's name; raise it when the voxels change."""
DESCRIPTION = "Synthetic T1w MRI, healthy and with lesions, after the ICBM 2009a MNI152 template"
STORED = ("RAS", "LPS", "LAS", "RAI")
"""Orientations in which the test volumes are stored, in turn."""


def make_phantom_cohort(
    root: str | os.PathLike | None = None,
    *,
    extracted: bool = False,
    seed: int = 0,
    training: int = 160,
    validation: int = 12,
    calibration: int = 40,
    healthy: int = 8,
    lesions: int = 10,
    workers: int = 2,
) -> Path:
    """Make the cohort unless it is there, and return the path of its datalist.

    The folder `phantom-<version>[-<options>]` holds `sub-P000_T1w.png` (see `simulate_plane`), of
    test subjects `sub-P000_T1w.nii.gz` (int16) and `sub-P000_mask.nii.gz` (uint8, 1 in the lesion),
    and `datalist.json`, written last, with `pathology` ("healthy" or one of `simulation.KINDS`),
    `label` and `boxes` (see `find_boxes`) of test subjects. The same options give the same voxels,
    whatever the number of workers. Several processes may make the same cohort at once, and an
    interrupted making goes on where it stopped.

    Args:
        root: folder that holds the cohorts; default `$PATHOLOGY_SCREEN_CACHE`, or
            `~/.cache/pathology_screen`.
        extracted: everything outside the brain is exactly 0; otherwise whole heads.
        training, validation, calibration: number of healthy subjects in these sections.
        healthy, lesions: number of test subjects without and with a lesion; kinds take turns.
        workers: threads.

    Raises:
        ConfigError: if nilearn's MNI152 maps are not installed, or a number makes no sense.
    """
    counts = {"training": training, "validation": validation, "calibration": calibration}
    options = {"seed": seed, **counts, "healthy": healthy, "lesions": lesions}
    options["extracted"] = extracted
    if min(options.values()) < 0 or workers < 1:
        raise ConfigError("the phantom cohort needs numbers of at least 0 and one worker")
    usual = make_phantom_cohort.__kwdefaults__ or {}
    other = [f"{name}{value:d}" for name, value in options.items() if value != usual[name]]
    cache = os.environ.get("PATHOLOGY_SCREEN_CACHE") or Path.home() / ".cache" / "pathology_screen"
    folder = Path(root or cache) / "-".join([f"phantom-{VERSION}", *other])
    datalist = folder / "datalist.json"
    if datalist.is_file():
        return datalist

    slices = sum(counts.values())
    kinds = ["healthy"] * (slices + healthy) + [KINDS[i % len(KINDS)] for i in range(lesions)]
    load_template()  # once, for all threads

    def make(number: int) -> dict[str, Any]:
        kind = kinds[number] if number >= slices else None
        return _make_subject(folder, seed, number, kind, extracted)

    with ThreadPoolExecutor(workers) as pool:
        made = pool.map(make, range(len(kinds)))
        items = iter(list(tqdm(made, "Making the phantom cohort", len(kinds), unit="subject")))
    sections = {section: list(islice(items, count)) for section, count in counts.items()}
    sections["test"] = list(items)
    return write_datalist(folder, sections, DESCRIPTION, options=options)


def _make_subject(
    folder: Path, seed: int, number: int, kind: str | None, extracted: bool
) -> dict[str, Any]:
    """Write the slice of a subject, or, of a kind, the scan and mask; return its item."""
    subject = f"P{number:03d}"
    stem = folder / f"sub-{subject}"
    if kind is None:
        path = Path(f"{stem}_T1w.png")
        if not path.is_file():
            picture, inside = simulate_plane(load_template(), (seed, number))
            with replacing(path) as temporary:
                Image.fromarray(picture * inside if extracted else picture).save(temporary, "PNG")
        return {"image": path.name, "subject": subject, "axial_slice": True}

    image, mask = Path(f"{stem}_T1w.nii.gz"), Path(f"{stem}_mask.nii.gz")
    if not (image.is_file() and mask.is_file()):
        volume = simulate(load_template(), (seed, number), kind)
        scan = volume.image * volume.brain if extracted else volume.image
        stored_as = axcodes2ornt(STORED[number % len(STORED)])
        turn = ornt_transform(io_orientation(volume.affine), stored_as)
        for path, voxels in ((image, scan), (mask, volume.mask)):
            stored = nib.Nifti1Image(voxels, volume.affine).as_reoriented(turn)
            save_image(stored.dataobj, stored.affine, path)
    boxes = find_boxes(np.asarray(nib.Nifti1Image.from_filename(mask).dataobj), kind)
    item = {"image": image.name, "subject": subject, "label": mask.name}
    return {**item, "pathology": kind, "boxes": boxes}


def find_boxes(mask: np.ndarray, label: str) -> list[dict[str, Any]]:
    """Bound the parts of a mask (I, J, K), stored with the axial slices along the last axis: one
    `{"label", "slice", "box": [x, y, w, h]}` for each part of each slice, in voxel indices of the
    stored array, with the name of the finding. The box holds the voxels `[x : x + w, y : y + h,
    slice]`."""
    parts, _ = ndi.label(mask, IN_PLANE)
    found = sorted(ndi.find_objects(parts), key=lambda part: part[2].start)
    boxes = [(k.start, [i.start, j.start, i.stop - i.start, j.stop - j.start]) for i, j, k in found]
    return [{"label": label, "slice": level, "box": box} for level, box in boxes]
