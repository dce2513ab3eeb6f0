"""The acceptance gate: rules that refuse a scan that must not be scored, or warn about it.

Every rule measures one thing and compares it with one limit. What a scan does not state is unknown
and breaks no rule.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.utils import ensure_tuple
from scipy import ndimage as ndi

from pathology_screen.errors import InputError
from pathology_screen.geometry import axial_orientation, spacing
from pathology_screen.metrics import brain_correlation
from pathology_screen.result import Finding
from pathology_screen.space import tissue_mask

T1W = "Give a T1-weighted scan without contrast agent"
ORIGINAL = "Give the series that the scanner acquired"


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split(", "))


IMAGE_TYPES = {
    "localizer": _words("LOCALIZER, LOCALISER, SCOUT"),
    "projection": _words(
        "PROJECTION IMAGE, MAX IP, MIN IP, MIP, MINIP, MNIP, VOLREN, VOLUME RENDERED"
    ),
    "secondary_capture": _words("SCREEN SAVE, SCREENSHOT, CSA REPORT"),
    "computed_map": _words(
        "ADC, EADC, FA, TRACEW, DIFFUSION MAP, TENSOR, CBF, CBV, MTT, TTP, RELCBF, RELCBV",
        "T1 MAP, T2 MAP, T2 STAR MAP, R1 MAP, R2 MAP, R2 STAR MAP, DENSITY MAP, FIELD MAP",
        "QUANTITY, P, PHASE, PHASE MAP, PHASE SUBTRACT, VELOCITY, VELOCITY MAP, REAL, IMAGINARY",
        "SUB, SUBTRACTION, MODULUS SUBTRACT, STD DEVIATION, ZSCORE, METABOLITE MAP, FAT FRACTION",
    ),
    "stated_not_t1w": _words(
        "T2, T2 STAR, FLUID ATTENUATED, PROTON DENSITY, STIR, DIFFUSION, PERFUSION, ASL, FMRI",
        "TOF, ANGIO, FLOW ENCODED, SWI, MOSAIC, TAGGING, TEMPERATURE",
    ),
}
"""Code -> values of ImageType, FrameType, ComplexImageComponent or AcquisitionContrast ("_" read as
a space) that refuse: defined terms of DICOM (PS3.3, C.7.6.16, C.8.3.1 and C.8.13.3) and values that
scanners write."""
REFORMATS = _words("MPR, CSA MPR, REFORMATTED, RESAMPLED, CSA RESAMPLED, CPR")
OTHER_BODY_PARTS = _words(
    "ABDOMEN, ABDOMENPELVIS, PELVIS, PELVIC, CHEST, THORAX, THORACIC, HEART, CARDIAC, LIVER",
    "KIDNEY, KIDNEYS, PROSTATE, BREAST, BREASTS, LUNG, LUNGS, UTERUS, PANCREAS, BLADDER, SPINE",
    "CSPINE, TSPINE, LSPINE, SSPINE, CTSPINE, TLSPINE, LSSPINE, WSPINE, CERVICAL, LUMBAR, SACRUM",
    "COCCYX, NECK, SHOULDER, SHOULDERS, CLAVICLE, SCAPULA, STERNUM, RIB, RIBS, ELBOW, WRIST, HAND",
    "HANDS, FINGER, FINGERS, THUMB, HIP, HIPS, KNEE, KNEES, ANKLE, ANKLES, FOOT, FEET, TOE, TOES",
    "LEG, LEGS, ARM, ARMS, FOREARM, EXTREMITY, FEMUR, TIBIA, FIBULA, HUMERUS, THIGH, CALF, AORTA",
    "CAROTID",
)
"""Words of BodyPartExamined that are not the head."""
HEAD = _words("HEAD, HEADNECK, BRAIN, SKULL, CRANIUM, CRANIAL, NEURO, CEREBRUM")
"""Words of BodyPartExamined that are, whatever else it names."""

LONGEST_ECHO = {"spin": 40.0, "gradient": 12.0}
"""ms. T1-weighted spin echoes have up to 30 ms, T2-weighted ones 70 ms or more (Westbrook, Handbook
of MRI Technique, table 2.1); gradient echoes of 15 ms and more are weighted by T2*."""
LONGEST_REPETITION = 1500.0
"""ms, of a spin echo without inversion: T1w ones have up to 900, others 2000 or more (ibid.)."""
LONGEST_INVERSION = 1500.0
"""ms; MPRAGE and T1w inversion recovery have 300 to 1200, FLAIR 1700 or more (ibid.)."""
SHORTEST_INVERSION = 250.0
"""ms, of a spin echo; STIR nulls fat with 100 to 210 ms (ibid.)."""
NOT_T1 = _words(
    "t2, flair, stir, proton_density, diffusion, susceptibility, angiography, perfusion",
    "functional, localizer",
)

LARGEST_PIXEL = 2.5  # mm; the cortex has as much, and `white_to_cortex` fails above
LARGEST_SPACING = 10.0  # mm
SHORTEST_SLAB = 20.0  # mm
WHOLE_BRAIN = 100.0  # mm from the base of the cerebrum to its top
SMALLEST_FIELD = (100.0, 130.0)  # mm, shorter and longer side; an adult section has 120 by 150 mm
SECTION = (80.0, 250.0)  # cm2
LONGEST_CUT = 60.0  # mm; a section of 75 mm radius that touches a border so far is cut by 6 mm
MOST_SATURATED = 0.05
FEWEST_GREY_VALUES = 32
MOST_NOISE = 0.7
LEAST_WHITE_TO_CORTEX = 1.0
LEAST_CORRELATION = 1 / 3
LEARNED = 0.3

LEVELS_LOOKED_AT = 12
FULL = 0.7  # of the largest section
SHADING_MM = 20.0
FLUID = 0.6  # of the intensity around
CORTEX_MM = 4.0
DEEP_MM = (6.0, 20.0)
FROM_VENTRICLES_MM = 3.0
CORTEX_PERCENTILE = 75.0

Facts = Mapping[str, Any]
Findings = Iterator[Finding]


def _warning(code: str, measured: str, limit: str, hint: str = "") -> Finding:
    return Finding(code, measured, limit, refused=False, hint=hint)


# --- what the header says ---


def acquisition_findings(source: Facts) -> Findings:
    """Judge how a scan was taken, by what its header says (of a NIfTI file, only where it lies):
    `Scan.source`, the facts of `io.acquisition`, where a missing one is unknown."""
    for rule in (_object, _image_type, _subject, _timing, _description):
        yield from rule(source)


def _object(source: Facts) -> Findings:
    sop_class = source.get("sop_class", "")
    if source.get("modality", "MR") != "MR":
        yield Finding("not_mr", str(source["modality"]), "MR", hint=T1W)
    if "Secondary Capture" in sop_class:
        yield Finding("secondary_capture", sop_class, "MR Image Storage", hint=ORIGINAL)
    if source.get("burned_in_annotation") == "YES":
        yield Finding("burned_in_annotation", "BurnedInAnnotation YES", "NO", hint=ORIGINAL)
    if source.get("lossy_compression") == "01":
        yield _warning("lossy_compression", "LossyImageCompression 01", "00", ORIGINAL)


def _image_type(source: Facts) -> Findings:
    stated = ("image_type", "frame_type", "complex_component", "acquisition_contrast")
    texts = (str(value) for value in _values(source, *stated))
    values = dict.fromkeys(text.upper().replace("_", " ") for text in texts)
    refused = False
    for code, bad in IMAGE_TYPES.items():
        for value in (value for value in values if value in bad):
            hint = T1W if code == "stated_not_t1w" else ORIGINAL
            yield Finding(code, value, "T1-weighted magnitude slices", hint=hint)
            refused = True
    if refused:
        return
    if reformats := [value for value in values if value in REFORMATS]:
        yield Finding("reformatted", reformats[0], "slices as they were acquired", hint=ORIGINAL)
    elif derived := [value for value in values if value in ("DERIVED", "SECONDARY")]:
        yield _warning("derived_image", "\\".join(derived), "ORIGINAL\\PRIMARY")


def _subject(source: Facts) -> Findings:
    """The part of the body, an agent in it (by the header, or by unmistakable words, see docs), and
    the noise as bright as tissue that surrounds a head in the uniform image of an MP2RAGE."""
    parts = re.findall("[A-Z]+", str(source.get("body_part", "")).upper())
    others = [part for part in parts if part in OTHER_BODY_PARTS]
    if others and not HEAD & {*parts}:
        hint = "If it shows the head, correct BodyPartExamined"
        yield Finding("other_body_part", others[0], "the head", hint=hint)
    words, limit = set(source.get("described_as", ())), "none given"
    if source.get("contrast_agent"):
        yield Finding("contrast_agent", "the header names an agent", limit, hint=T1W)
    elif {"contrast_agent", "no_contrast_agent"} & words == {"contrast_agent"}:
        yield Finding("contrast_agent", "the description of the series says so", limit, hint=T1W)
    elif "contrast_agent" in words:
        yield _warning("perhaps_contrast_agent", "two descriptions contradict", limit, T1W)
    elif "perhaps_contrast_agent" in words:
        yield _warning("perhaps_contrast_agent", '"post", "contrast" or "w/wo"', limit, T1W)
    uniform = "UNI" in _values(source, "image_type") or {"mp2rage", "uniform"} <= words
    if uniform and "denoised" not in words:
        measured, limit = "the uniform image, by its header", "another T1-weighted image"
        hint = "Give the denoised image (UNI-DEN), or another T1-weighted scan"
        yield Finding("mp2rage", measured, limit, hint=hint)


def _timing(source: Facts) -> Findings:
    """TE, TR and TI against the ranges of T1-weighted sequences."""
    sequence = set(_values(source, "scanning_sequence", "echo_pulse_sequence"))
    is_spin, is_gradient = sequence & {"SE", "SPIN"}, sequence & {"GR", "GRADIENT"}
    spin, gradient = is_spin and not is_gradient, is_gradient and not is_spin
    echo = _number(source, "effective_echo_time", "echo_time")
    repetition = _number(source, "repetition_time")
    inversion = _number(source, "inversion_time", "inversion_times")
    inverted = inversion > 0 or "IR" in sequence or source.get("inversion_recovery") == "YES"
    for name, value, least, most in (
        ("TE", echo, 0.0, LONGEST_ECHO["gradient" if gradient else "spin"]),
        ("TR", repetition if spin and not inverted else 0.0, 0.0, LONGEST_REPETITION),
        ("TI", inversion, SHORTEST_INVERSION if spin and inversion else 0.0, LONGEST_INVERSION),
    ):
        if not least <= value <= most:
            limit = f"{least:g} to {most:g} ms"
            yield Finding("stated_not_t1w", f"{name} {value:g} ms", limit, hint=T1W)
    if "EP" in sequence:
        yield Finding("stated_not_t1w", "echo planar imaging", "spin or gradient echo", hint=T1W)
    if source.get("angiography") == "Y":
        yield Finding("stated_not_t1w", "AngioFlag Y", "N", hint=T1W)


def _description(source: Facts) -> Findings:
    words = source.get("described_as", ())
    others = [word for word in words if word in NOT_T1]
    if others and "t1" not in words:
        yield _warning("described_not_t1w", ", ".join(others).replace("_", " "), "T1", T1W)
    if other := source.get("other_orientation"):
        yield _warning("other_orientation", other, "one orientation")


def _values(source: Facts, *names: str) -> list[Any]:
    """The values of facts that may have none, one or several."""
    facts = [source[name] for name in names if source.get(name) is not None]
    return [value for fact in facts for value in ensure_tuple(fact)]


def _number(source: Facts, *names: str) -> float:
    """The first number of the first entry that has one; 0 where none has."""
    return float(next(filter(None, _values(source, *names)), 0.0))


# --- what the volume is ---


def geometry_findings(source: Facts, shape: Sequence[int], affine: np.ndarray) -> Findings:
    """Judge the size of the voxels and what the whole volume spans, by `Scan.source`, its shape and
    its affine."""
    axis, _ = axial_orientation(affine)
    sizes = spacing(affine)
    pixel, across = np.delete(sizes, axis), float(sizes[axis])
    sides, slab = np.sort(np.delete(shape, axis) * pixel), shape[axis] * across
    thickness = max(across, _number(source, "slice_thickness") if axis == 2 else 0.0)
    if pixel.max() > LARGEST_PIXEL:
        limit, hint = f"at most {LARGEST_PIXEL} mm", "Give an axial series"
        yield Finding("coarse_pixels", f"{pixel.max():.2f} mm", limit, hint=hint)
    if thickness > LARGEST_SPACING:
        yield Finding("thick_slices", f"{thickness:.1f} mm", f"at most {LARGEST_SPACING:g} mm")
    if shape[axis] > 1 and slab < SHORTEST_SLAB:
        measured = f"{slab:.0f} mm in {shape[axis]} slices"
        yield Finding("short_slab", measured, f"at least {SHORTEST_SLAB:g} mm")
    elif slab < WHOLE_BRAIN:
        yield _warning("partial_coverage", f"{slab:.0f} mm", f"at least {WHOLE_BRAIN:g} mm")
    if np.any(sides < SMALLEST_FIELD):
        limit = "at least {:g} by {:g} mm".format(*SMALLEST_FIELD)
        yield Finding("small_field_of_view", f"{sides[0]:.0f} by {sides[1]:.0f} mm", limit)


def brain_findings(volume: np.ndarray, affine: np.ndarray) -> Findings:
    """Judge a brain-extracted volume or slab (I, J, K), in any orientation, by its affine (4, 4),
    RAS+ mm: whether it is whole, of plausible size, and looks T1-weighted. InputError "no_tissue"
    where there is none."""
    axis, _ = axial_orientation(affine)
    pixel = np.delete(spacing(affine), axis)
    mask = tissue_mask(volume)
    tissue = np.moveaxis(mask, axis, 0)  # (levels, H, W)
    rows, columns = tissue[:, [0, -1], :].sum(axis=2).max(), tissue[:, :, [0, -1]].sum(axis=1).max()
    cut = float(max(rows * pixel[1], columns * pixel[0]))
    section = float(tissue.sum(axis=(1, 2)).max() * pixel.prod() / 100)
    if cut > LONGEST_CUT:
        limit = f"at most {LONGEST_CUT:g} mm"
        yield Finding("brain_cut_off", f"{cut:.0f} mm along a border", limit)
    if not SECTION[0] <= section <= SECTION[1]:
        limit = f"{SECTION[0]:g} to {SECTION[1]:g} cm2"
        yield Finding("brain_size", f"{section:.0f} cm2", limit)
    values, counts = np.unique(volume[mask], return_counts=True)
    if 0 < values.size < FEWEST_GREY_VALUES:
        yield Finding("few_grey_values", str(values.size), f"at least {FEWEST_GREY_VALUES}")
        return
    if values.size and (saturated := float(counts[-1] / counts.sum())) > MOST_SATURATED:
        measured = f"{saturated:.1%} of the voxels"
        yield Finding("saturated", measured, f"at most {MOST_SATURATED:.0%}")
    if (noise := noise_share(volume, affine)) > MOST_NOISE:
        yield Finding("noisy", f"{noise:.2f} of the deviation", f"at most {MOST_NOISE}")
    elif not (ratio := white_to_cortex(volume, affine)) >= LEAST_WHITE_TO_CORTEX:  # nor NaN
        hint = f"{T1W}, of a person older than about a year"
        measured = f"white matter to cortex {ratio:.3f}"
        yield Finding("seen_not_t1w", measured, "at least 1", hint=hint)


def noise_share(volume: np.ndarray, affine: np.ndarray) -> float:
    """Standard deviation of the noise over that of a brain, as of `brain_findings`: 0 to 1 (nothing
    but noise). It is estimated by Immerkaer's operator (1996), two pixels inside the brain."""
    kernel = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)
    noise, signal = [], []
    for image, outline in full_slices(volume, affine):
        inside = ndi.binary_erosion(outline, iterations=2)
        if inside.any():
            edges = np.abs(ndi.convolve(image, kernel)[inside]).mean()
            noise.append(np.sqrt(np.pi / 2) / 6 * edges)
            signal.append(image[inside].std())
    return float(np.mean(noise) / np.mean(signal)) if np.any(signal) else 0.0


def white_to_cortex(volume: np.ndarray, affine: np.ndarray) -> float:
    """How much brighter deep white matter is than the cortex of a brain, as of `brain_findings`:
    above 1 in adults' T1w scans.

    Fluid is what is darker than 0.6 of its surroundings. The cortex is what lies up to 4 mm from
    the outside and the fluid that is joined to it; deep white matter, what lies 6 to 20 mm from
    there and more than 3 mm from any fluid. The median of the latter is divided by the upper
    quartile of the former, which partial volume with fluid hardly touches. Both are taken from
    intensities divided by their mean over about 4 cm, so that shading by the coils cancels. NaN
    where the sections are too small to have a depth of 6 mm.
    """
    axis, _ = axial_orientation(affine)
    pixel = np.delete(spacing(affine), axis)
    cortex, deep = [], []
    for image, outline in full_slices(volume, affine):
        brain = outline & (image > FLUID * _shading(image, outline, pixel))
        relative = image / _shading(image, brain, pixel)
        brain = outline & (relative > FLUID)
        pieces, _ = ndi.label(np.pad(~brain, 1, constant_values=True))
        depth = _distance(pieces != pieces[0, 0], pixel)
        cortex.append(relative[brain & (depth <= CORTEX_MM)])
        far = _distance(np.pad(brain, 1), pixel) > FROM_VENTRICLES_MM
        deep.append(relative[far & (depth > DEEP_MM[0]) & (depth < DEEP_MM[1])])
    inner, outer = np.concatenate(deep), np.concatenate(cortex)
    if not (inner.size and outer.size):
        return np.nan
    return float(np.median(inner) / np.percentile(outer, CORTEX_PERCENTILE))


def full_slices(volume: np.ndarray, affine: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Up to 12 axial slices (H, W), evenly spread over the levels where the brain covers at least
    0.7 of its largest section, cut to the brain, and its outline (H, W) with the holes filled."""
    axis, _ = axial_orientation(affine)
    slices, tissue = np.moveaxis(volume, axis, 0), np.moveaxis(tissue_mask(volume), axis, 0)
    area = tissue.sum(axis=(1, 2))
    if not area.any():
        raise InputError("no_tissue", "the volume holds no positive intensity")
    levels = np.flatnonzero(area >= FULL * area.max())
    chosen = np.linspace(0, len(levels) - 1, min(len(levels), LEVELS_LOOKED_AT))
    for level in levels[np.rint(chosen).astype(int)]:  # the same ones from either end
        outline = ndi.binary_fill_holes(tissue[level])
        box = ndi.find_objects(outline.astype(np.uint8))[0]
        yield slices[level][box].astype(np.float32), outline[box]


def _shading(image: np.ndarray, brain: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Mean of the brain around each pixel, weighted by a Gaussian."""
    signal, share = (
        ndi.gaussian_filter(part, SHADING_MM / pixel, truncate=3)
        for part in (image * brain, brain.astype(np.float32))
    )
    return signal / np.maximum(share, 1e-6) + 1e-6


def _distance(padded: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Distance in mm to the nearest False pixel of a mask with a margin of one, without it."""
    return ndi.distance_transform_edt(padded, sampling=pixel)[1:-1, 1:-1]


# --- what the network makes of it ---


def distribution_findings(
    image: np.ndarray, reconstruction: np.ndarray, healthy: Sequence[float] = ()
) -> Findings:
    """Judge whether a slice (H, W) in [0, 1] is of the kind trained on, by its correlation with the
    network's output, by the agreements of healthy slices with theirs (`Calibration.agreements`).

    The limit is a third of their median; a distance in their standard deviations would not do:
    every other scanner lies far outside. Where there are none, or their median is below 0.3 after
    hardly any training, nothing is judged.
    """
    typical = float(np.median(healthy)) if len(healthy) else 0.0
    limit = LEAST_CORRELATION * typical
    pair = (torch.as_tensor(part)[None, None] for part in (image, reconstruction))
    if typical >= LEARNED and not (measured := float(brain_correlation(*pair))) >= limit:  # nor NaN
        texts = f"correlation {measured:.3f}", f"at least {limit:.3f}"
        yield Finding("unlike_training", *texts, hint=T1W)
