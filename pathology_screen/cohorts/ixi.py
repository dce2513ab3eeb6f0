"""The IXI cohort: healthy whole heads, one axial slice each, in the standard plane of MNI space
(paper, Appendix B).

Each slice is what `transforms.StandardPlaned` takes of the volume: the plane of the slices that the
authors of RA released. Their PNGs run to the patient's right, and these slices to the left.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from scipy import ndimage as ndi
from tqdm import tqdm

from pathology_screen.cohorts import preparation
from pathology_screen.cohorts.datalist import SECTIONS, write_datalist
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.files import replacing, write_text
from pathology_screen.geometry import coarsen, spacing
from pathology_screen.io import read_scan
from pathology_screen.space import PLANE_Z, SPACE, load_brain_template, plane_affine
from pathology_screen.transforms import ExtractBraind, StandardPlaned, scan_image

FILE_NAME = re.compile(r"IXI\d{3}-(Guys|HH|IOP)-\d{4}[-_]T1\.nii(\.gz)?")
Domain = Literal["whole_head", "brain_extracted"]
DESCRIPTION = (
    "IXI (brain-development.org), T1w of healthy volunteers, CC BY-SA 3.0: what is made of it is "
    "shared under the same licence. "
)
WORKING_MM = 4.0
"""Voxels on which the bias field is fitted; it varies over centimetres."""
FITTINGS, ITERATIONS = 3, 50
"""A fourth, finer fitting follows the tissue: after it, two IXI scans resembled MNI152 less."""


def prepare_ixi(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    registration: bool = True,
    n4: bool = False,
    domain: Domain = "whole_head",
    fractions: Sequence[float] = (1, 0, 0, 0),
    seed: int = 0,
    exclude: Iterable[str] = (),
    workers: int = 1,
) -> Path:
    """Write a slice of every subject as NIfTI and a datalist; return its path.

    The brain is extracted (deepbet), registered to MNI152, and the original voxels are resampled
    once, to `sub-<id>_space-..._T1w.nii.gz`: (233, 197, 1) float32, affine in MNI space. The
    `.json` beside it holds the affine map and how well the brain fits, `registration.csv` all fits,
    the worst first. What is there is kept, so that an interrupted run goes on, and the same volume
    gives the same slice at every run. Without registration, nothing is written but the datalist,
    which leads to the volumes; the standard plane is taken of a volume when it is loaded.

    The source holds, at any depth, `IXI###-<site>-####-T1.nii.gz`; others are passed over. `n4`
    corrects the bias field first, and needs ITK; the domain "brain_extracted" sets all outside the
    brain to 0. `fractions` and `seed` are those of `draw_split`; the paper trains on all. The notes
    of the datalist name the excluded subjects ("IXI002"). `workers` are processes.

    Raises:
        ConfigError: if the folder holds no T1w volume or two of one subject; if a volume cannot be
            read or registered (all are tried first, and named); if options contradict each other,
            or the output was begun with others.
    """
    if not registration and (n4 or domain != "whole_head"):
        raise ConfigError("without registration volumes are kept: n4 and domain do not apply")
    paths: dict[str, Path] = {}
    for path in sorted(Path(source).rglob("IXI*T1.nii*"), key=lambda path: path.name):
        subject = path.name[:6]
        if FILE_NAME.fullmatch(path.name) and paths.setdefault(subject, path) is not path:
            several = f"{source} holds several T1w volumes of {subject}"
            raise ConfigError(f"{several}: keep the right one")
    if not paths:
        raise ConfigError(f"{source} holds no file named like IXI002-Guys-0828-T1.nii.gz")
    excluded = preparation.check_excluded(exclude, paths)
    kept = {subject: path for subject, path in paths.items() if subject not in excluded}
    split = preparation.draw_split(kept, fractions, seed)
    preparation.warn_of_few(split)
    options = {"cohort": "ixi", "registration": registration, "n4": n4, "domain": domain}
    folder = preparation.begin(output, options)
    if registration:
        _register(kept, folder, n4, domain, workers)
    else:
        preparation.check_scans({path.name: path for path in kept.values()})
    sections: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
    for subject, path in kept.items():
        image = slice_path(folder, subject) if registration else path
        item: dict[str, Any] = {"image": preparation.path_from(folder, image), "subject": subject}
        item |= {"site": path.name.split("-")[1]}
        item |= {"axial_slice": True} if registration else {}
        item |= {"pathology": "healthy"} if split[subject] == "test" else {}
        sections[split[subject]].append(item)
    slices = f"Axial slices at z = {PLANE_Z:g} mm of {SPACE}, {domain}."
    description = DESCRIPTION + (slices if registration else "Native volumes.")
    return write_datalist(folder, sections, description, notes={"excluded by the user": excluded})


def slice_path(folder: Path, subject: str, suffix: str = ".nii.gz") -> Path:
    """File of a subject's registered slice, or, with another suffix, what stands beside it."""
    return folder / f"sub-{subject}_space-{SPACE}_T1w{suffix}"


def _register(paths: dict[str, Path], folder: Path, n4: bool, domain: Domain, workers: int) -> None:
    """Make the slices, in processes if several, and `registration.csv`, the worst fit first."""
    load_brain_template()
    if n4 and find_spec("itk") is None:
        raise ConfigError("bias field correction needs ITK: pip install pathology-screen[ixi]")
    make = partial(_make_slice, folder=folder, n4=n4, domain=domain)
    bar = partial(tqdm, desc="Registering IXI", total=len(paths), unit="volume")
    if workers == 1:
        failures = list(filter(None, bar(map(make, paths.items()))))
    else:
        spawn = get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,)) as pool:
            failures = list(filter(None, bar(pool.map(make, paths.items()))))
    preparation.check_failures(failures, len(paths))
    records = [json.loads(slice_path(folder, name, ".json").read_text("utf-8")) for name in paths]
    table = pd.DataFrame(records).assign(subject=list(paths))
    table = table.sort_values("correlation", kind="stable").round(4)
    with replacing(folder / "registration.csv") as path:
        table.to_csv(path, columns=["subject", "correlation", "dice"], index=False)


def _make_slice(source: tuple[str, Path], folder: Path, n4: bool, domain: Domain) -> str | None:
    """Register a volume and write its slice unless it is there; return why not, or None."""
    subject, path = source
    image, record = slice_path(folder, subject), slice_path(folder, subject, ".json")
    if image.is_file() and record.is_file():
        return None
    try:
        item = ExtractBraind("image")({"image": scan_image(read_scan(path))})
        if n4:
            volume, brain = (np.asarray(item[key][0]) for key in ("image", "brain"))
            corrected = correct_bias_field(volume, np.asarray(item["image"].affine), brain > 0)
            item["image"][0] = torch.as_tensor(corrected)
        plane = StandardPlaned("image", domain=domain)(item)["image"]
        to_scan = plane.meta["to_scan"].round(6).tolist()
        content = {"source": path.name, **plane.meta["fit"], "mni_to_scanner_mm": to_scan}
        write_text(record, json.dumps(content, indent=1) + "\n")
        preparation.save_scan(np.asarray(plane[0]), plane_affine(), image, "mni")
    except InputError as error:
        return f"{path.name}: {error}"
    return None


def correct_bias_field(voxels: np.ndarray, affine: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Divide a volume (I, J, K) of any orientation by the smooth shading by the coils that ITK's N4
    (Tustison et al., TMI 2010) finds in the brain (bool), on one thread; elsewhere the nearest
    value holds. The mean of the brain stays; float32."""
    import itk  # optional, large and slow to import

    coarse = coarsen(nib.Nifti1Image(voxels, affine, dtype=np.float32), WORKING_MM)
    share = coarsen(nib.Nifti1Image(brain.astype(np.float32), affine), WORKING_MM)
    seen = np.asarray(coarse.dataobj)
    inside = (np.asarray(share.dataobj) > 0.5) & (seen > 0)
    image, mask = itk.image_from_array(seen), itk.image_from_array(inside.astype(np.uint8))
    for picture in (image, mask):
        picture.SetSpacing(spacing(coarse.affine)[::-1].tolist())  # ITK names the last axis first
    n4 = itk.N4BiasFieldCorrectionImageFilter.New(image, MaskImage=mask)
    n4.SetMaximumNumberOfIterations([ITERATIONS] * FITTINGS)
    n4.SetNumberOfFittingLevels(FITTINGS)
    n4.SetNumberOfWorkUnits(1)
    n4.Update()
    smooth = itk.array_from_image(n4.GetOutput())
    field = np.divide(seen, smooth, where=inside, out=np.ones_like(seen))
    nearest = ndi.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    ratio = np.divide(voxels.shape, seen.shape)
    field = ndi.zoom(field[tuple(nearest)], ratio, order=1, mode="nearest", grid_mode=True)
    corrected = voxels / field
    return (corrected * (voxels[brain].mean() / corrected[brain].mean())).astype(np.float32)
