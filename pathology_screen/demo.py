"""A first try without data: embedded heads with and without lesions, by the shipped weights."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
from tqdm import tqdm

from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.preparation import save_image
from pathology_screen.cohorts.simulation import simulate
from pathology_screen.files import write_text
from pathology_screen.screening import Screener
from pathology_screen.screening.batch import Batch, list_items

HEADS = {
    "demo1healthy": ("healthy", 6),
    "demo2healthy": ("healthy", 3),
    "demo3cavity": ("resection cavity", 6),
    "demo4dark": ("hypointense lesion", 2),
    "demo5dark": ("hypointense lesion", 6),
    "demo6mass": ("mass", 3),
}
"""Name -> kind of lesion, and seed of the head; the same seed is the same head."""
WHAT_THEY_ARE = """\
These heads are no scans of people: each is the average brain of MNI152, bent at random, in a drawn
skull and scalp, as a drawn scanner would show it; the lesions are painted. They are for trying the
software, and were chosen to show lesions that are found and one that is missed. An average brain is
smoother than anybody's, so the healthy ones score lower than people do."""


def demo(output: Path) -> int:
    """Make the heads, screen them with the bundle `ra`, print what came of each, and return the
    exit status of `Batch.summarize`.

    The folder gets `heads` and `lesions`, the scans and where they are painted, `README.txt`, and
    `results`, what `pathology-screen screen` writes. What is there is not made again.
    """
    screener = Screener.from_bundle("ra")
    heads, lesions = output / "heads", output / "lesions"
    template = load_template()
    kept = template.smooth.copy()
    kept[0] = 1  # no cortex is drawn anew: the average brain itself
    template = template._replace(smooth=kept)

    def make(name: str) -> None:
        kind, seed = HEADS[name]
        image, mask = heads / f"{name}.nii.gz", lesions / f"{name}.nii.gz"
        if not (image.is_file() and mask.is_file()):
            volume = simulate(template, (seed,), kind)
            save_image(volume.mask, volume.affine, mask)
            save_image(volume.image, volume.affine, image)

    with ThreadPoolExecutor(2) as pool:
        list(tqdm(pool.map(make, HEADS), "Making the heads", len(HEADS), unit="head"))
    write_text(output / "README.txt", WHAT_THEY_ARE + "\n")
    items = [item for item in list_items(heads, names="paths") if item.name in HEADS]
    batch = Batch(screener.judge, items, output / "results")
    batch.screen(screener)
    print(f"\n{WHAT_THEY_ARE}\n")
    for record in sorted(batch.records, key=lambda record: record["name"]):
        print(f"{record['name']:<13} {record['outcome']:<11} {finding(output, record['name'])}")
    return batch.summarize()


def finding(output: Path, name: str) -> str:
    """Say whether a region of the results lies on the lesion that was painted into a head."""
    mask = _voxels(output / "lesions" / f"{name}.nii.gz") > 0
    stem = output / "results" / f"sub-{name}" / f"sub-{name}_desc-anomaly"
    if not mask.any():
        return "no lesion was painted"
    if not Path(f"{stem}_dseg.nii.gz").is_file():
        return "its lesion was not looked at"
    in_plane = mask & (_voxels(Path(f"{stem}_map.nii.gz")) > 0)
    on_it = _voxels(Path(f"{stem}_dseg.nii.gz"))[in_plane]
    if not on_it.any():
        return "its lesion is missed: no region lies on it"
    first, covered = on_it[on_it > 0].min(), 100 * np.mean(on_it > 0)
    return f"its lesion is found: region {first:g} lies on it ({covered:.0f} % of it)"


def _voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_filename(path).dataobj)
