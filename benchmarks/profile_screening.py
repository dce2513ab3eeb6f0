"""Measure where the time of a screening goes, and write docs/performance.md.

python benchmarks/profile_screening.py [--cases NAME ...] [--growth N ...] [--page FILE]

Each scan is screened in a process of its own on one thread: once cold, then some times more. CPU
time is measured: wall time says little where other work shares the cores. The scans are drawn from
the embedded phantom.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from time import process_time as now
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
ALONE = os.environ | {"OMP_NUM_THREADS": "1"}
STAGES = {
    "reading": ("screening.screener", "read_scan"),
    "extraction": ("transforms.standard_plane", "find_brain"),
    "registration": ("transforms.standard_plane", "register"),
    "plane": ("transforms.standard_plane", "take_plane"),
    "network": ("networks.introspective_vae", "IntrospectiveVAE.forward"),
    "map": ("anomaly.maps", "AnomalyMap.forward"),
    "way back": ("screening.judge", "slice_to_scan"),
    "report": ("outputs.results", "report_html"),
}
"""Stage -> module of the package and the function, or method, that is it. What lies between is
"other", and what `write_result` does beside the report "outputs"."""
HEAD = """# Performance

What a screening costs on one thread (`OMP_NUM_THREADS=1`), in CPU seconds: other work shared the
machine. The network is that of the bundle `ra`, untrained: what it costs does not depend on its
weights, and its outcomes mean nothing. Made by:

```bash title="needs time"
{command}
```
"""
STAGES_HEAD = """
## By stage

Warm: the median of {repeats} scans after the first of a process; in brackets the share. A process
imports and loads once ("loading", nearly all of it `import torch` and `import monai`).

"""
PAIRS_HEAD = """
## Beside other ways to the same numbers

By `benchmarks/pairs.py`: CPU seconds of both, in turn, each the median of {repeats}; the median of
the ratios, above 1 where here is faster; and the greatest difference between the numbers. Maps gain
little more than the layout in memory gives: most of their time is that of the perceptual network,
whose layers do the same work either way.

|here|the other way|s|other, s|ratio|difference|
|---|---|---|---|---|---|
"""
GROWTH_HEAD = """
## By number of scans

Copies of one scan, shared out among processes of `pathology-screen screen` that run at once; CPU
seconds a scan with those of loading in them, and the most memory of a process.

|scan|scans|processes|CPU s a scan|peak, MiB|
|---|---|---|---|---|
"""


class Stopwatch:
    """CPU seconds by stage, without those of the stages inside it."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.running: list[str] = []
        self.since = now()

    def _note(self) -> None:
        at = now()
        if self.running:
            self.spent[self.running[-1]] += at - self.since
        self.since = at

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._note()
        self.running.append(name)
        try:
            yield
        finally:
            self._note()
            self.running.pop()

    def watch(self, owner: Any, function: str, name: str) -> None:
        """Put a function of a module or class on the watch."""
        inner: Callable = getattr(owner, function)

        def outer(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return inner(*arguments, **options)

        setattr(owner, function, outer)


# --- scans ---


def head(millimetres: tuple[float, ...]) -> tuple[Any, Any, Any]:
    """A phantom head with voxels of this size: intensities, brain, affine."""
    import numpy as np
    from scipy import ndimage as ndi

    from pathology_screen.cohorts.anatomy import load_template
    from pathology_screen.cohorts.simulation import simulate
    from pathology_screen.geometry import spacing

    volume = simulate(load_template(), (7, 1))
    factors = spacing(volume.affine) / millimetres
    voxels, brain = (
        ndi.zoom(array.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True)
        for array in (volume.image, volume.brain)
    )
    affine = volume.affine @ np.diag([*np.divide(volume.image.shape, voxels.shape), 1.0])
    return voxels.astype(np.int16), brain > 0.5, affine


def nifti(path: Path, millimetres: tuple[float, ...] = (1.0, 1.0, 1.0), extracted=False) -> Path:
    import nibabel as nib

    voxels, brain, affine = head(millimetres)
    nib.save(nib.Nifti1Image(voxels * brain if extracted else voxels, affine), path)
    return path


def dicom(folder: Path) -> Path:
    """384 axial slices with pixels of 1 mm."""
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    voxels, _, affine = head((1.0, 1.0, 188 / 384))
    folder.mkdir()
    uids = {name: generate_uid() for name in ("Study", "Series", "FrameOfReference")}
    for number in range(voxels.shape[2]):
        x, y, z = affine[:3, 3] + number * affine[:3, 2]
        one = Dataset()
        one.SOPClassUID, one.SOPInstanceUID = MRImageStorage, generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID = uids["Study"], uids["Series"]
        one.FrameOfReferenceUID = uids["FrameOfReference"]
        one.Modality, one.SeriesDescription, one.InstanceNumber = "MR", "T1w", number + 1
        one.ImagePositionPatient = [f"{value:.6g}" for value in (-x, -y, z)]
        one.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
        one.PixelSpacing = [f"{affine[1, 1]:.6g}", f"{affine[0, 0]:.6g}"]
        one.SliceThickness = f"{affine[2, 2]:.6g}"
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.Rows, one.Columns = voxels.shape[1], voxels.shape[0]
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.PixelData = np.ascontiguousarray(voxels[..., number].T).tobytes()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)
    return folder


def single_slice(path: Path) -> Path:
    import nibabel as nib

    from pathology_screen.cohorts.anatomy import load_template
    from pathology_screen.cohorts.simulation import simulate_plane
    from pathology_screen.space import plane_affine

    plane = simulate_plane(load_template(), (7, 1))[0]
    nib.save(nib.Nifti1Image(plane[..., None], plane_affine()), path)
    return path


FINE = (208 / 512, 244 / 512, 188 / 400)
CASES: dict[str, Callable[[Path], Path]] = {
    "whole head, 1 mm": lambda folder: nifti(folder / "head.nii.gz"),
    "DICOM, 384 slices": lambda folder: dicom(folder / "series"),
    "512 x 512 x 400": lambda folder: nifti(folder / "fine.nii.gz", FINE),
    "extracted brain": lambda folder: nifti(folder / "brain.nii.gz", extracted=True),
    "single slice": lambda folder: single_slice(folder / "slice.nii.gz"),
}
"""Name of a case -> function that makes its scan in a folder."""


# --- measurement ---


def measure(scan: Path, repeats: int, bundle: str) -> dict[str, Any]:
    """Screen a scan in this process, which nothing was imported in yet.

    Returns:
        `loading`, the CPU seconds of imports and bundle; `cold` and `warm`, those by stage;
        `outcome` with the code of a refusal; and the most memory, `loaded_mib` before the first
        scan and `peak_mib`.
    """
    start = now()
    from importlib import import_module

    from pathology_screen.outputs import results

    with tempfile.TemporaryDirectory() as folder:
        screener = untrained(bundle, Path(folder))
    loading = now() - start
    loaded = peak_mib()
    runs: list[dict[str, float]] = []
    watch = Stopwatch()
    for name, (module, path) in STAGES.items():
        owner: Any = import_module(f"pathology_screen.{module}")
        *inside, function = path.split(".")
        watch.watch(getattr(owner, inside[0]) if inside else owner, function, name)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(1 + repeats):
            watch.spent.clear()
            with watch.stage("other"):
                result = screener(scan, axial_slice=scan.name.startswith("slice"))
            with watch.stage("outputs"):
                results.write_result(result, "scan", Path(folder))
            outcome = " ".join(filter(None, (result.outcome, result.code)))
            del result  # and its volumes
            runs.append(dict(watch.spent))
    warm = {name: statistics.median(run[name] for run in runs[1:]) for name in runs[-1]}
    memory = {"loaded_mib": loaded, "peak_mib": peak_mib()}
    return {"loading": loading, "cold": runs[0], "warm": warm, "outcome": outcome, **memory}


def peak_mib() -> float:
    """The most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def untrained(bundle: str, folder: Path) -> Any:
    """A screener with the network of a bundle as it is before training, and 19 invented people."""
    import torch

    from pathology_screen.bundles import read_settings
    from pathology_screen.calibration import Calibration
    from pathology_screen.predictor import Predictor, build_network
    from pathology_screen.screening import Screener

    settings = read_settings(bundle)
    torch.manual_seed(0)
    weights = folder / "model.pt"
    torch.save(build_network(settings["method"], settings["network_def"]).state_dict(), weights)
    predictor = Predictor.load(bundle, weights)
    scores, rates = tuple(number / 1000 for number in range(19)), {"all_pixels": 0.05}
    rates["brain_pixels"] = 0.1
    identity = predictor.identity
    return Screener(predictor, Calibration(0.2, 0.05, rates, scores, tuple(range(19)), identity))


def make_case(name: str, folder: Path) -> Path:
    return CASES[name](folder)


def make_weights(bundle: str, folder: Path) -> None:
    untrained(bundle, folder).judge.calibration.save(folder / "calibration.json")


def apart(function: Callable, *arguments: Any) -> Any:
    """Call a function in a process of its own: what this one used would count as a child's peak."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def in_a_process(scan: Path, repeats: int, bundle: str) -> dict[str, Any]:
    words = [sys.executable, "-W", "ignore", __file__, "--measure", str(scan)]
    words += ["--repeats", str(repeats), "--bundle", bundle]
    done = subprocess.run(words, env=ALONE, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def stage_table(found: dict[str, dict[str, Any]]) -> str:
    """Warm CPU seconds, stages down and cases across, as Markdown."""
    lines = [f"||{'|'.join(found)}|", "|---" * (1 + len(found)) + "|"]
    totals = {name: sum(one["warm"].values()) for name, one in found.items()}
    for stage in (*STAGES, "outputs", "other"):
        spent = {name: one["warm"].get(stage, 0.0) for name, one in found.items()}
        cells = [f"{part:.2f} ({part / totals[name]:.0%})" for name, part in spent.items()]
        lines.append(f"|{stage}|{'|'.join(cells)}|")
    rows = {
        "**all, warm**": [f"**{total:.2f}**" for total in totals.values()],
        "first scan": [f"{sum(one['cold'].values()):.2f}" for one in found.values()],
        "loading": [f"{one['loading']:.2f}" for one in found.values()],
        "memory when loaded, MiB": [f"{one['loaded_mib']:.0f}" for one in found.values()],
        "most memory, MiB": [f"{one['peak_mib']:.0f}" for one in found.values()],
        "outcome": [one["outcome"] for one in found.values()],
    }
    return "\n".join([*lines, *(f"|{name}|{'|'.join(row)}|" for name, row in rows.items())])


def screen_copies(scan: Path, count: int, processes: int, bundle: str) -> tuple[float, float]:
    """Screen copies of a scan by the command: CPU seconds a scan, and the peak in MiB."""
    words = [sys.executable, "-W", "ignore", "-m", "pathology_screen.cli", "screen"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        apart(make_weights, bundle, folder)
        options = ["--bundle", bundle, "--weights", folder / "model.pt"]
        options += ["--axial-slice"] if scan.name.startswith("slice") else []
        running = []
        for process in range(processes):
            share = folder / f"scans{process}"
            share.mkdir()
            for number in range(process, count, processes):
                os.link(scan, share / f"{number:04}{''.join(scan.suffixes)}")
            words_of_one = [*words, share, "-o", folder / f"out{process}", *options]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            running.append(subprocess.Popen([*map(str, words_of_one)], env=ALONE, **quiet))
        spent, peaks = 0.0, []
        for one in running:
            _, status, used = os.wait4(one.pid, 0)
            if code := os.waitstatus_to_exitcode(status):
                raise RuntimeError(f"screening ended with {code}")
            spent += used.ru_utime + used.ru_stime
            peaks.append(used.ru_maxrss / 1024)
    return spent / count, max(peaks)


def growth_rows(name: str, scan: Path, counts: list[int], bundle: str) -> Iterator[str]:
    for count in counts:
        for processes in (1, 2)[:count]:
            seconds, peak = screen_copies(scan, count, processes, bundle)
            yield f"|{name}|{count:,}|{processes}|{seconds:.2f}|{peak:.0f}|\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--growth", nargs="*", type=int, default=[1, 10, 100, 1000])
    parser.add_argument("--bundle", default="ra")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=5, help="repeats; 0: none")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.measure, options.repeats, options.bundle)))
        return
    words = [f"--repeats {options.repeats}", "--growth", *map(str, options.growth)]
    if options.cases != list(CASES):
        words.append("--cases " + " ".join(f'"{name}"' for name in options.cases))
    command = f"python benchmarks/profile_screening.py {' '.join(words)}"
    text, found = HEAD.format(command=command), {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.cases:
            scan = apart(make_case, name, Path(folder))
            found[name] = in_a_process(scan, options.repeats, options.bundle)
            print(stage_table(found), flush=True)
        text += STAGES_HEAD.format(repeats=options.repeats) + stage_table(found)
        text += "\n" + GROWTH_HEAD
        counts = {"single slice": options.growth, "whole head, 1 mm": options.growth[:2]}
        for name, several in counts.items():
            (made := Path(folder) / "grown").mkdir(exist_ok=True)
            for row in growth_rows(name, apart(make_case, name, made), several, options.bundle):
                print(row, end="", flush=True)
                text += row
    if options.pairs:
        import pairs

        table = "\n".join(pairs.rows(list(pairs.PAIRS), options.pairs))
        text += PAIRS_HEAD.format(repeats=options.pairs) + table + "\n"
    options.page.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
