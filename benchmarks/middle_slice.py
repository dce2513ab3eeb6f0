"""Time reading the middle axial slice against reading the whole scan (medians of interleaved runs, files cached).

python benchmarks/middle_slice.py [--slices 384] [--size 256] [--runs 5]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless, generate_uid

from pathology_screen.io import read_scan

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from scan_builders import dicom_datasets, ras_affine, save


def synthetic_volume(slices: int, size: int) -> np.ndarray:
    """(slices, size, size), uint16: a ball with noise on a dark background, so that it compresses as a scan does."""
    axes = (np.linspace(-1, 1, n, dtype=np.float32) for n in (slices, size, size))
    distance = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True))
    signal = 600 * (distance < 0.7) + np.random.default_rng(0).normal(40, 15, (slices, size, size)).astype(np.float32)
    return np.clip(signal, 0, 4095).astype(np.uint16)


def write_cases(folder: Path, volume: np.ndarray):
    """Yield the name and path of every kind of scan that is timed."""
    spacing = (0.5, 0.9, 0.9)
    for syntax in (ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless):
        datasets = dicom_datasets(volume, spacing=spacing, transfer_syntax=syntax, BitsStored=12, HighBit=11)
        yield f"dicom {syntax.name}", save(datasets, folder / syntax)
        if syntax == ExplicitVRLittleEndian:
            enhanced = highdicom.legacy.LegacyConvertedEnhancedMRImage(datasets, generate_uid(), 1, generate_uid(), 1)
            enhanced.save_as(folder / "enhanced.dcm")
            yield "dicom enhanced multi-frame", folder / "enhanced.dcm"
    image = nib.Nifti1Image(volume.transpose(2, 1, 0).astype(np.int16), ras_affine(spacing))
    for suffix in (".nii", ".nii.gz"):
        nib.save(image, folder / f"scan{suffix}")
        yield f"nifti {suffix}", folder / f"scan{suffix}"


def seconds(path: Path, level: str | None) -> float:
    start = time.perf_counter()
    read_scan(path, level=level)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=384)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    volume = synthetic_volume(options.slices, options.size)
    with tempfile.TemporaryDirectory() as folder:
        for name, path in write_cases(Path(folder), volume):
            seconds(path, "middle")  # imports, page cache
            pairs = [(seconds(path, None), seconds(path, "middle")) for _ in range(options.runs)]
            whole, middle = (statistics.median(times) for times in zip(*pairs))
            timing = {"whole_s": round(whole, 4), "middle_s": round(middle, 4), "ratio": round(whole / middle, 1)}
            print(json.dumps({"case": name} | vars(options) | timing))


if __name__ == "__main__":
    main()
