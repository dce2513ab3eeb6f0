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
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from pathology_screen.cohorts.bias_field import correct_bias_field, import_itk
from pathology_screen.cohorts.datalist import write_datalist
from pathology_screen.cohorts.preparation import (
    begin,
    check_excluded,
    check_failures,
    check_scans,
    path_from,
    save_scan,
)
from pathology_screen.cohorts.splits import SECTIONS, draw_split, warn_of_few
from pathology_screen.errors import ConfigError, InputError
from pathology_screen.files import replacing, write_text
from pathology_screen.io import read_scan
from pathology_screen.space import PLANE_Z, SPACE, load_brain_template, plane_affine
from pathology_screen.transforms import ExtractBraind, StandardPlaned, scan_image

FILE_NAME = re.compile(r"IXI\d{3}-(Guys|HH|IOP)-\d{4}[-_]T1\.nii(\.gz)?")
Domain = Literal["whole_head", "brain_extracted"]
DESCRIPTION = (
    "IXI (brain-development.org), T1w of healthy volunteers, CC BY-SA 3.0: what is made of it is "
    "shared under the same licence. "
)


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

    With registration, the brain is extracted (deepbet), registered to MNI152, and the original
    voxels are resampled once, to `sub-<id>_space-..._T1w.nii.gz`: (233, 197, 1) float32, affine in
    MNI space. The `.json` beside it holds the affine map and how well the brain fits,
    `registration.csv` all fits, the worst first. What is there is kept, so that an interrupted run
    goes on, and the same volume gives the same slice at every run.

    Without registration, nothing is written but the datalist, which leads to the volumes; the
    standard plane is taken of a volume when it is loaded.

    Args:
        source: holds, at any depth, `IXI###-<site>-####-T1.nii.gz`; others are passed over.
        output: folder of the cohort.
        registration: to MNI152.
        n4: correct the bias field first; needs ITK.
        domain: "whole_head", as in the paper; "brain_extracted" sets all else to 0.
        fractions: for training, validation, calibration and test; the paper trains on all.
        seed: of the split.
        exclude: subjects ("IXI002") to leave out; the notes of the datalist name them.
        workers: processes.

    Raises:
        ConfigError: if the folder holds no T1w volume or two of one subject; if a volume cannot be
            read or registered (all are tried first, and named); if options contradict each other,
            or the output was begun with others.
    """
    if not registration and (n4 or domain != "whole_head"):
        raise ConfigError("without registration volumes are kept: n4 and domain do not apply")
    paths = _find(Path(source))
    excluded = check_excluded(exclude, paths)
    kept = {subject: path for subject, path in paths.items() if subject not in excluded}
    split = draw_split(kept, fractions, seed)
    warn_of_few(split)
    options = {"cohort": "ixi", "registration": registration, "n4": n4, "domain": domain}
    folder = begin(output, options)
    if registration:
        load_brain_template()
        if n4:
            import_itk()
        make = partial(_make_slice, folder=folder, n4=n4, domain=domain)
        check_failures(_run(make, kept, workers), len(kept))
        _tabulate(folder, kept)
    else:
        check_scans({path.name: path for path in kept.values()})
    sections: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
    for subject, path in kept.items():
        image = slice_path(folder, subject).name if registration else path_from(folder, path)
        item: dict[str, Any] = {"image": image, "subject": subject, "site": path.name.split("-")[1]}
        item |= {"axial_slice": True} if registration else {}
        item |= {"pathology": "healthy"} if split[subject] == "test" else {}
        sections[split[subject]].append(item)
    slices = f"Axial slices at z = {PLANE_Z:g} mm of {SPACE}, {domain}."
    description = DESCRIPTION + (slices if registration else "Native volumes.")
    return write_datalist(folder, sections, description, notes={"excluded by the user": excluded})


def _find(folder: Path) -> dict[str, Path]:
    """IXI's T1w volumes below a folder: subject -> path, in order of subjects."""
    paths: dict[str, Path] = {}
    for path in sorted(folder.rglob("IXI*T1.nii*"), key=lambda path: path.name):
        subject = path.name[:6]
        if FILE_NAME.fullmatch(path.name) and paths.setdefault(subject, path) is not path:
            raise ConfigError(
                f"{folder} holds several T1w volumes of {subject}: keep the right one"
            )
    if not paths:
        raise ConfigError(f"{folder} holds no file named like IXI002-Guys-0828-T1.nii.gz")
    return paths


def slice_path(folder: Path, subject: str, suffix: str = ".nii.gz") -> Path:
    """File of a subject's registered slice, or, with another suffix, what stands beside it."""
    return folder / f"sub-{subject}_space-{SPACE}_T1w{suffix}"


def _run(make: partial[str | None], paths: dict[str, Path], workers: int) -> list[str]:
    """Make the slices, in processes if several; return why some could not be made."""
    bar = partial(tqdm, desc="Registering IXI", total=len(paths), unit="volume")
    if workers == 1:
        return list(filter(None, bar(map(make, paths.items()))))
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        return list(filter(None, bar(pool.map(make, paths.items()))))


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
        save_scan(image, lambda: (np.asarray(plane[0]), plane_affine()), space="mni")
    except InputError as error:
        return f"{path.name}: {error}"
    return None


def _tabulate(folder: Path, subjects: Iterable[str]) -> None:
    """Write `registration.csv`, the worst fit first."""
    records = [
        json.loads(slice_path(folder, name, ".json").read_text("utf-8")) for name in subjects
    ]
    table = pd.DataFrame(records).assign(subject=list(subjects))
    table = table.sort_values("correlation", kind="stable").round(4)
    with replacing(folder / "registration.csv") as path:
        table.to_csv(path, columns=["subject", "correlation", "dice"], index=False)
