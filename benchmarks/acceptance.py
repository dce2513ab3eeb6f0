"""Measure how often the acceptance gate refuses what it should accept, and accepts what it should
refuse.

python benchmarks/acceptance.py [--data ../shared/data] [--phantoms 84] [--every 4]

Prints tables in Markdown. The real scans are those of the development data; whatever is absent is
left out. Contrasts
that are not at hand are rendered: from the tissues of the embedded phantom, or from real T1w
brains, whose intensities are mapped piecewise linearly so that the means of fluid, grey and white
matter become those of the other contrast.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage as ndi
from sklearn.mixture import GaussianMixture
from tqdm import tqdm

from pathology_screen.calibration import count_rate
from pathology_screen.cohorts.anatomy import load_template
from pathology_screen.cohorts.simulation import KINDS, simulate
from pathology_screen.errors import InputError
from pathology_screen.geometry import axial_orientation, spacing
from pathology_screen.io import read_scan
from pathology_screen.screening.gate import (
    brain_findings,
    geometry_findings,
    noise_share,
    white_to_cortex,
)
from pathology_screen.space import extract_brain, is_brain_extracted, template_folder, tissue_mask
from pathology_screen.space.template import TEMPLATE

RELAXATION = {  # T1 and T2 in ms, density: fluid, grey matter, white matter
    1.5: ((4000, 2000, 1.0), (950, 100, 0.86), (600, 80, 0.77)),
    3.0: ((4300, 1900, 1.0), (1330, 105, 0.82), (840, 75, 0.70)),
}
PROTOCOLS = {  # TR, TE, TI in ms
    "T1w spin echo": (600, 12, 0),
    "T2w": (4000, 100, 0),
    "FLAIR": (9000, 120, 2500),
    "PD": (3000, 15, 0),
    "STIR": (5000, 50, 200),
}
CT = (8.0, 38.0, 29.0)  # HU of fluid, grey and white matter
Brain = tuple[np.ndarray, np.ndarray]  # volume and affine


def signals(name: str, tesla: float = 3.0) -> np.ndarray:
    """Signal of fluid, grey and white matter, white matter being 1 (spin echo equation)."""
    if name == "CT":
        return np.array(CT) / CT[2]
    repetition, echo, inversion = PROTOCOLS[name]
    t1, t2, density = np.array(RELAXATION[tesla]).T
    recovered = np.abs(1 - 2 * np.exp(-inversion / t1) + np.exp(-repetition / t1))
    recovered = recovered if inversion else 1 - np.exp(-repetition / t1)
    signal = density * recovered * np.exp(-echo / t2)
    return signal / signal[2]


def remap(volume: np.ndarray, name: str, tesla: float) -> np.ndarray:
    """A T1w brain in another contrast."""
    sample = volume[tissue_mask(volume)][::97, None].astype(float)
    start = np.percentile(sample, [5, 40, 85])[:, None]
    mixture = GaussianMixture(3, means_init=start, random_state=0).fit(sample)
    fluid, grey, white = np.sort(mixture.means_.ravel())
    new = signals(name, tesla)
    brightest = max(volume.max(), white + 1)
    above = new[2] + (new[2] - new[1]) / (white - grey) * (brightest - white) / 2
    mapped = np.interp(volume, [0, fluid, grey, white, brightest], [0, *new, above])
    return (1000 * np.maximum(mapped, 1e-3) * (volume > 0)).astype(np.float32)


def invert(volume: np.ndarray) -> np.ndarray:
    return (1.02 * volume.max() - volume) * (volume > 0)


def degrade(brain: Brain, how: str) -> Brain:
    """A brain with noise (of white matter), a bias field or larger pixels."""
    volume, affine = brain
    axis, _ = axial_orientation(affine)
    generator = np.random.default_rng(0)
    if how.startswith("noise"):
        deviation = int(how.split()[1]) / 100 * np.percentile(volume[volume > 0], 90)
        real, imaginary = deviation * generator.standard_normal((2, *volume.shape), np.float32)
        return np.hypot(volume + real, imaginary) * (volume > 0), affine
    if how.startswith("bias"):
        sign = 1 if "rim" in how else -1
        grid = [np.linspace(-1, 1, count) ** 2 for i, count in enumerate(volume.shape) if i != axis]
        field = np.exp(sign * 0.3 * (np.add.outer(*grid) - 0.7))
        return (volume * np.expand_dims(field, axis)).astype(np.float32), affine
    factors = np.where(np.arange(3) == axis, 1.0, float(how.split()[1]) / spacing(affine))
    smooth = ndi.gaussian_filter(volume, np.maximum(0, (factors - 1) / 2))
    coarser = affine.copy()
    coarser[:3, :3] *= factors
    return ndi.zoom(smooth, 1 / factors, order=1), coarser


def one_slice(brain: Brain, fraction: float) -> Brain:
    """One axial slice, at a fraction of the levels that hold tissue, in the order in which they are
    stored."""
    volume, affine = brain
    axis, _ = axial_orientation(affine)
    within = tuple(other for other in range(3) if other != axis)
    levels = np.flatnonzero(volume.any(axis=within))
    return np.take(volume, [levels[int(fraction * len(levels))]], axis), affine


def brain_of(path: Path) -> Brain:
    scan = read_scan(path)
    voxels = scan.voxels
    if not is_brain_extracted(voxels, scan.affine):
        voxels = voxels * extract_brain(voxels, scan.affine)
    return voxels, scan.affine


def phantom(number: int, kind: str, intensity: tuple[float, float] | None = None) -> Brain:
    """A phantom, T1w or with other intensities of fluid and grey matter (white matter is 1)."""
    volume = simulate(load_template(), (7, number), kind, intensity)
    return np.float32(volume.image * volume.brain), volume.affine


def t1w(data: Path, phantoms: int) -> Iterator[tuple[str, Brain]]:
    """Every T1w brain at hand, and the name of its group."""
    heads = [*sorted(data.glob("whole_head/*")), *data.glob("dicom_hanke_t1")]
    groups = {
        "OASIS, healthy": sorted(data.glob("oasis/sub-N*")),
        "OASIS, dementia": sorted(data.glob("oasis/sub-M*")),
        "glioma": sorted(data.glob("glioma/*T1w*")),
        "whole heads, extracted": heads,
        "MNI152": [template_folder() / TEMPLATE],
    }
    for name, paths in groups.items():
        for path in paths:
            yield name, brain_of(path)
    for number in range(phantoms):
        kind = "healthy" if number % 2 else KINDS[number // 2 % len(KINDS)]
        yield f"phantom, {'healthy' if number % 2 else 'lesion'}", phantom(number, kind)


def others(data: Path, phantoms: int, real: list[Brain]) -> Iterator[tuple[str, Brain]]:
    """Everything else: what should be refused, and T1w brains that are worse than those at hand."""
    for path in sorted(data.glob("not_t1w/*")):
        yield f"real {path.name.split('_')[1].split('.')[0]}", brain_of(path)
    for name in (*PROTOCOLS, "CT"):
        for number in range(phantoms):
            fluid, grey, _ = signals(name, 1.5 if number % 2 else 3.0)
            yield f"{name}, phantom", phantom(number, "healthy", (fluid, grey))
        for i, (volume, affine) in enumerate(real):
            yield f"{name}, remapped", (remap(volume, name, 1.5 if i % 2 else 3.0), affine)
    for volume, affine in real:
        yield "inverted", (invert(volume), affine)
        noise = np.random.default_rng(0).random(volume.shape, np.float32) * (volume > 0)
        yield "noise alone", (noise, affine)
    noises, fields = ("noise 5 %", "noise 10 %"), ("bias, bright rim", "bias, bright centre")
    for how in (*noises, *fields, "pixels 2 mm", "pixels 2.5 mm"):
        for brain in real:
            yield f"T1w, {how}", degrade(brain, how)
    for fraction in (0.3, 0.5, 0.7):
        for brain in real:
            yield "T1w, one slice", one_slice(brain, fraction)


def measure(cases: Iterator[tuple[str, Brain]]) -> dict[str, list]:
    """For every group the codes of refusals by the brain, and what was measured (white matter to
    cortex, noise)."""
    found = defaultdict(list)
    for name, (volume, affine) in tqdm(cases, unit="brain"):
        try:
            geometry = geometry_findings({}, volume.shape, affine)
            findings = [*geometry, *brain_findings(volume, affine)]
            values = white_to_cortex(volume, affine), noise_share(volume, affine)
            found[name].append(([finding.code for finding in findings if finding.refused], values))
        except InputError as error:
            found[name].append(([error.code], (np.nan,) * 2))
    return found


def table(found: dict[str, list]) -> str:
    measured = "white matter to cortex | noise"
    head = f"| scans | n | refused by the brain | 95 % interval | by | {measured} |"
    lines = [head, "|" + "---|" * 7]
    for name, rows in found.items():
        refused = [codes for codes, _ in rows if codes]
        rate = count_rate(len(refused), len(rows))
        by = ", ".join(f"`{code}`" for code in sorted(set().union(*refused)))
        values = np.array([values for _, values in rows])
        spans = " | ".join(
            f"{low:.2f} to {high:.2f}" for low, high in zip(values.min(axis=0), values.max(axis=0))
        )
        cells = [name, rate.total, rate.count, f"{rate.low:.1%} to {rate.high:.1%}", by, spans]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--phantoms", type=int, default=84)
    every = "of the real brains, that other contrasts are made from"
    parser.add_argument("--every", type=int, default=4, help=every)
    options = parser.parse_args()
    accepted = list(t1w(options.data, options.phantoms))
    print(table(measure(iter(accepted))), flush=True)
    oasis = [brain for name, brain in accepted if name.startswith("OASIS")]
    others_at_hand = [pair for pair in accepted if not pair[0].startswith(("OASIS", "phantom"))]
    real = [*oasis[:: options.every], *(brain for _, brain in others_at_hand)]
    print(table(measure(others(options.data, options.phantoms // 4, real))))


if __name__ == "__main__":
    main()
