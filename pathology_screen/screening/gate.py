"""The acceptance gate: rules that refuse a scan that must not be scored, or warn about it, before
its score counts.

Every rule measures one thing and compares it with one limit. What a scan does not state is unknown
and breaks no rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from scipy import ndimage as ndi

from pathology_screen.geometry import axial_orientation, spacing
from pathology_screen.metrics import brain_correlation
from pathology_screen.screening.contrast import full_slices, white_to_cortex
from pathology_screen.screening.result import Finding
from pathology_screen.space import tissue_mask

T1W = "Give a T1-weighted scan without contrast agent"
ORIGINAL = "Give the series that the scanner acquired"
DENOISED = "Give the denoised image (UNI-DEN), or another T1-weighted scan"

IMAGE_TYPES = {
    "localizer": {"LOCALIZER", "LOCALISER", "SCOUT"},
    "projection": {
        "PROJECTION IMAGE",
        "MAX IP",
        "MIN IP",
        "MIP",
        "MINIP",
        "MNIP",
        "VOLREN",
        "VOLUME RENDERED",
    },
    "secondary_capture": {"SCREEN SAVE", "SCREENSHOT", "CSA REPORT"},
    "computed_map": {
        *(
            "ADC",
            "EADC",
            "FA",
            "TRACEW",
            "DIFFUSION MAP",
            "TENSOR",
            "CBF",
            "CBV",
            "MTT",
            "TTP",
            "RELCBF",
            "RELCBV",
        ),
        *(
            "T1 MAP",
            "T2 MAP",
            "T2 STAR MAP",
            "R1 MAP",
            "R2 MAP",
            "R2 STAR MAP",
            "DENSITY MAP",
            "FIELD MAP",
            "QUANTITY",
        ),
        *(
            "P",
            "PHASE",
            "PHASE MAP",
            "PHASE SUBTRACT",
            "VELOCITY",
            "VELOCITY MAP",
            "REAL",
            "IMAGINARY",
        ),
        *(
            "SUB",
            "SUBTRACTION",
            "MODULUS SUBTRACT",
            "STD DEVIATION",
            "ZSCORE",
            "METABOLITE MAP",
            "FAT FRACTION",
        ),
    },
    "stated_not_t1w": {
        *(
            "T2",
            "T2 STAR",
            "FLUID ATTENUATED",
            "PROTON DENSITY",
            "STIR",
            "DIFFUSION",
            "PERFUSION",
            "ASL",
            "FMRI",
        ),
        *("TOF", "ANGIO", "FLOW ENCODED", "SWI", "MOSAIC", "TAGGING", "TEMPERATURE"),
    },
}
"""Code -> values of ImageType, FrameType, ComplexImageComponent or AcquisitionContrast ("_" read as a space) that
refuse: defined terms of DICOM (PS3.3, C.7.6.16, C.8.3.1 and C.8.13.3) and values that scanners write."""
REFORMATS = {"MPR", "CSA MPR", "REFORMATTED", "RESAMPLED", "CSA RESAMPLED", "CPR"}
OTHER_BODY_PARTS = {
    *(
        "ABDOMEN",
        "ABDOMENPELVIS",
        "PELVIS",
        "PELVIC",
        "CHEST",
        "THORAX",
        "THORACIC",
        "HEART",
        "CARDIAC",
        "LIVER",
    ),
    *(
        "KIDNEY",
        "KIDNEYS",
        "PROSTATE",
        "BREAST",
        "BREASTS",
        "LUNG",
        "LUNGS",
        "UTERUS",
        "PANCREAS",
        "BLADDER",
    ),
    *(
        "SPINE",
        "CSPINE",
        "TSPINE",
        "LSPINE",
        "SSPINE",
        "CTSPINE",
        "TLSPINE",
        "LSSPINE",
        "WSPINE",
        "CERVICAL",
        "LUMBAR",
    ),
    *(
        "SACRUM",
        "COCCYX",
        "NECK",
        "SHOULDER",
        "SHOULDERS",
        "CLAVICLE",
        "SCAPULA",
        "STERNUM",
        "RIB",
        "RIBS",
        "ELBOW",
    ),
    *(
        "WRIST",
        "HAND",
        "HANDS",
        "FINGER",
        "FINGERS",
        "THUMB",
        "HIP",
        "HIPS",
        "KNEE",
        "KNEES",
        "ANKLE",
        "ANKLES",
    ),
    *(
        "FOOT",
        "FEET",
        "TOE",
        "TOES",
        "LEG",
        "LEGS",
        "ARM",
        "ARMS",
        "FOREARM",
        "EXTREMITY",
        "FEMUR",
        "TIBIA",
        "FIBULA",
    ),
    *("HUMERUS", "THIGH", "CALF", "AORTA", "CAROTID"),
}
"""Words of BodyPartExamined that are not the head."""
HEAD = {"HEAD", "HEADNECK", "BRAIN", "SKULL", "CRANIUM", "CRANIAL", "NEURO", "CEREBRUM"}
"""Words of BodyPartExamined that are, whatever else it names."""

LONGEST_ECHO = {"spin": 40.0, "gradient": 12.0}
"""ms. T1-weighted spin echoes have up to 30 ms, T2-weighted ones 70 ms or more (Westbrook, Handbook of MRI Technique,
table 2.1); gradient echoes of 15 ms and more are weighted by T2*."""
LONGEST_REPETITION = 1500.0
"""ms, of a spin echo without inversion: T1-weighted ones have up to 900 ms, others 2000 ms or more (ibid.)."""
LONGEST_INVERSION = 1500.0
"""ms; MPRAGE and T1-weighted inversion recovery have 300 to 1200 ms, FLAIR nulls fluid with 1700 ms or more (ibid.)."""
SHORTEST_INVERSION = 250.0
"""ms, of a spin echo; STIR nulls fat with 100 to 210 ms (ibid.)."""
NOT_T1 = {
    *(
        "t2",
        "flair",
        "stir",
        "proton_density",
        "diffusion",
        "susceptibility",
        "angiography",
        "perfusion",
    ),
    *("functional", "localizer"),
}

LARGEST_PIXEL = 2.5  # mm; the cortex has as much, and `white_to_cortex` fails above
LARGEST_SPACING = 10.0  # mm
SHORTEST_SLAB = 20.0  # mm
WHOLE_BRAIN = 100.0  # mm from the base of the cerebrum to its top
SMALLEST_FIELD = (
    100.0,
    130.0,
)  # mm, shorter and longer side; an adult section has at least 120 by 150 mm
SECTION = (80.0, 250.0)  # cm2
LONGEST_CUT = 60.0  # mm; a section of 75 mm radius that touches a border so far is cut by 6 mm
MOST_SATURATED = 0.05
FEWEST_GREY_VALUES = 32
MOST_NOISE = 0.7
LEAST_WHITE_TO_CORTEX = 1.0
LEAST_AGREEMENT = 1 / 3
LEARNED = 0.3


def acquisition_findings(source: Mapping[str, Any]) -> list[Finding]:
    """Judge how a scan was taken, by what its header says (of a NIfTI file, only where it lies).

    Args:
        source: `Scan.source`; the facts of `io.acquisition`, where a missing one is unknown.
    """
    rules: tuple[Callable[[Mapping[str, Any]], list[Finding]], ...]
    rules = (
        _kind_of_object,
        _image_type,
        _body_part,
        _contrast_agent,
        _mp2rage,
        _timing,
        _description,
        _orientation,
    )
    return list(chain.from_iterable(rule(source) for rule in rules))


def _kind_of_object(source: Mapping[str, Any]) -> list[Finding]:
    found = []
    if source.get("modality", "MR") != "MR":
        found.append(Finding("not_mr", str(source["modality"]), "MR", hint=T1W))
    if "Secondary Capture" in source.get("sop_class", ""):
        found.append(
            Finding("secondary_capture", source["sop_class"], "MR Image Storage", hint=ORIGINAL)
        )
    if source.get("burned_in_annotation") == "YES":
        found.append(Finding("burned_in_annotation", "BurnedInAnnotation YES", "NO", hint=ORIGINAL))
    if source.get("lossy_compression") == "01":
        found.append(
            Finding(
                "lossy_compression", "LossyImageCompression 01", "00", refused=False, hint=ORIGINAL
            )
        )
    return found


def _image_type(source: Mapping[str, Any]) -> list[Finding]:
    stated = ("image_type", "frame_type", "complex_component", "acquisition_contrast")
    values = [
        str(value).upper().replace("_", " ")
        for name in stated
        for value in _values(source.get(name))
    ]
    found = [
        Finding(
            code,
            value,
            "T1-weighted magnitude slices",
            hint=T1W if code == "stated_not_t1w" else ORIGINAL,
        )
        for code, refused in IMAGE_TYPES.items()
        for value in dict.fromkeys(values)
        if value in refused
    ]
    if found:
        return found
    if reformats := [value for value in values if value in REFORMATS]:
        return [Finding("reformatted", reformats[0], "slices as they were acquired", hint=ORIGINAL)]
    if derived := [value for value in values if value in ("DERIVED", "SECONDARY")]:
        return [
            Finding(
                "derived_image",
                "\\".join(dict.fromkeys(derived)),
                "ORIGINAL\\PRIMARY",
                refused=False,
            )
        ]
    return []


def _body_part(source: Mapping[str, Any]) -> list[Finding]:
    words = re.findall("[A-Z]+", str(source.get("body_part", "")).upper())
    part = next((word for word in words if word in OTHER_BODY_PARTS), None)
    if part is None or HEAD & {*words}:
        return []
    return [
        Finding(
            "other_body_part",
            part,
            "the head",
            hint="If it shows the head, correct BodyPartExamined",
        )
    ]


def _contrast_agent(source: Mapping[str, Any]) -> list[Finding]:
    """A header that names an agent refuses; so do unmistakable words, for the image itself does not
    tell (see docs)."""
    words, limit = set(source.get("described_as", ())), "none given"
    if source.get("contrast_agent"):
        return [Finding("contrast_agent", "the header names an agent", limit, hint=T1W)]
    if {"contrast_agent", "no_contrast_agent"} & words == {"contrast_agent"}:
        return [Finding("contrast_agent", "the description of the series says so", limit, hint=T1W)]
    if "contrast_agent" in words:
        return [
            Finding(
                "perhaps_contrast_agent",
                "two descriptions contradict",
                limit,
                refused=False,
                hint=T1W,
            )
        ]
    if "perhaps_contrast_agent" in words:
        return [
            Finding(
                "perhaps_contrast_agent",
                '"post", "contrast" or "w/wo"',
                limit,
                refused=False,
                hint=T1W,
            )
        ]
    return []


def _mp2rage(source: Mapping[str, Any]) -> list[Finding]:
    """The uniform image is T1-weighted, but noise surrounds the head as bright as tissue; not in
    the denoised one."""
    words = source.get("described_as", ())
    if "denoised" in words or not (
        "UNI" in _values(source.get("image_type")) or {"mp2rage", "uniform"} <= {*words}
    ):
        return []
    return [
        Finding(
            "mp2rage",
            "the uniform image, by its header",
            "another T1-weighted image",
            hint=DENOISED,
        )
    ]


def _orientation(source: Mapping[str, Any]) -> list[Finding]:
    if other := source.get("other_orientation"):
        return [Finding("other_orientation", other, "one orientation", refused=False)]
    return []


def _timing(source: Mapping[str, Any]) -> list[Finding]:
    """TE, TR and TI against the ranges of T1-weighted sequences."""
    sequence = {
        *_values(source.get("scanning_sequence")),
        *_values(source.get("echo_pulse_sequence")),
    }
    spin = bool(sequence & {"SE", "SPIN"}) and not sequence & {"GR", "GRADIENT"}
    gradient = bool(sequence & {"GR", "GRADIENT"}) and not sequence & {"SE", "SPIN"}
    echo = _number(source, "effective_echo_time", "echo_time")
    inversion = _number(source, "inversion_time", "inversion_times")
    inverted = inversion > 0 or "IR" in sequence or source.get("inversion_recovery") == "YES"
    longest_echo = LONGEST_ECHO["gradient" if gradient else "spin"]
    measured = [
        ("TE", echo, 0.0, longest_echo),
        (
            "TR",
            _number(source, "repetition_time") if spin and not inverted else 0.0,
            0.0,
            LONGEST_REPETITION,
        ),
        ("TI", inversion, SHORTEST_INVERSION if spin and inversion else 0.0, LONGEST_INVERSION),
    ]
    found = [
        Finding("stated_not_t1w", f"{name} {value:g} ms", f"{least:g} to {most:g} ms", hint=T1W)
        for name, value, least, most in measured
        if not least <= value <= most
    ]
    if "EP" in sequence:
        found.append(
            Finding("stated_not_t1w", "echo planar imaging", "spin or gradient echo", hint=T1W)
        )
    if source.get("angiography") == "Y":
        found.append(Finding("stated_not_t1w", "AngioFlag Y", "N", hint=T1W))
    return found


def _description(source: Mapping[str, Any]) -> list[Finding]:
    words = source.get("described_as", ())
    others = [word for word in words if word in NOT_T1]
    if not others or "t1" in words:
        return []
    return [
        Finding(
            "described_not_t1w", ", ".join(others).replace("_", " "), "T1", refused=False, hint=T1W
        )
    ]


def _values(value: Any) -> Sequence[Any]:
    """What may be one value, several or none, as several."""
    return [] if value is None else value if isinstance(value, list | tuple) else [value]


def _number(source: Mapping[str, Any], *names: str) -> float:
    """The first number of the first entry that has one; 0 where none has."""
    return next(
        (float(number) for name in names for number in _values(source.get(name)) if number), 0.0
    )


def geometry_findings(
    source: Mapping[str, Any], shape: Sequence[int], affine: np.ndarray
) -> list[Finding]:
    """Judge the size of the voxels and what the volume spans; `io.checks` has refused what is no
    plausible volume.

    Args:
        source: `Scan.source`.
        shape: (I, J, K), of the whole volume.
        affine: (4, 4), of the whole volume, RAS+ mm.
    """
    axis, _ = axial_orientation(affine)
    sizes = spacing(affine)
    pixel, across = np.delete(sizes, axis), float(sizes[axis])
    sides = np.sort(np.delete(shape, axis) * pixel)
    slab, thickness = (
        shape[axis] * across,
        max(across, _number(source, "slice_thickness") if axis == 2 else 0.0),
    )
    found = []
    if pixel.max() > LARGEST_PIXEL:
        found.append(
            Finding(
                "coarse_pixels",
                f"{pixel.max():.2f} mm",
                f"at most {LARGEST_PIXEL} mm",
                hint="Give an axial series",
            )
        )
    if thickness > LARGEST_SPACING:
        found.append(
            Finding("thick_slices", f"{thickness:.1f} mm", f"at most {LARGEST_SPACING:g} mm")
        )
    if shape[axis] > 1 and slab < SHORTEST_SLAB:
        found.append(
            Finding(
                "short_slab",
                f"{slab:.0f} mm in {shape[axis]} slices",
                f"at least {SHORTEST_SLAB:g} mm",
            )
        )
    elif slab < WHOLE_BRAIN:
        found.append(
            Finding(
                "partial_coverage", f"{slab:.0f} mm", f"at least {WHOLE_BRAIN:g} mm", refused=False
            )
        )
    if np.any(sides < SMALLEST_FIELD):
        limit = " by ".join(f"{side:g}" for side in SMALLEST_FIELD)
        found.append(
            Finding(
                "small_field_of_view",
                f"{sides[0]:.0f} by {sides[1]:.0f} mm",
                f"at least {limit} mm",
            )
        )
    return found


def brain_findings(volume: np.ndarray, affine: np.ndarray) -> list[Finding]:
    """Judge a brain: whether it is whole, of plausible size, and looks T1-weighted.

    Args:
        volume: (I, J, K), a brain-extracted volume or slab, any orientation.
        affine: (4, 4), RAS+ mm.

    Raises:
        InputError: "no_tissue".
    """
    return [*_size_findings(volume, affine), *_intensity_findings(volume, affine)]


def _size_findings(volume: np.ndarray, affine: np.ndarray) -> list[Finding]:
    axis, _ = axial_orientation(affine)
    pixel = np.delete(spacing(affine), axis)
    tissue = np.moveaxis(tissue_mask(volume), axis, 0)  # (levels, H, W)
    rows, columns = tissue[:, [0, -1], :].sum(axis=2).max(), tissue[:, :, [0, -1]].sum(axis=1).max()
    cut = float(max(rows * pixel[1], columns * pixel[0]))
    section = float(tissue.sum(axis=(1, 2)).max() * pixel.prod() / 100)
    found = []
    if cut > LONGEST_CUT:
        found.append(
            Finding("brain_cut_off", f"{cut:.0f} mm along a border", f"at most {LONGEST_CUT:g} mm")
        )
    if not SECTION[0] <= section <= SECTION[1]:
        found.append(
            Finding("brain_size", f"{section:.0f} cm2", f"{SECTION[0]:g} to {SECTION[1]:g} cm2")
        )
    return found


def _intensity_findings(volume: np.ndarray, affine: np.ndarray) -> list[Finding]:
    brain = volume[tissue_mask(volume)]
    values, counts = np.unique(brain, return_counts=True)
    saturated = float(counts[-1] / brain.size) if brain.size else 0.0
    found = []
    if 0 < values.size < FEWEST_GREY_VALUES:
        return [Finding("few_grey_values", str(values.size), f"at least {FEWEST_GREY_VALUES}")]
    if saturated > MOST_SATURATED:
        found.append(
            Finding("saturated", f"{saturated:.1%} of the voxels", f"at most {MOST_SATURATED:.0%}")
        )
    noise = noise_share(volume, affine)
    if noise > MOST_NOISE:
        return [*found, Finding("noisy", f"{noise:.2f} of the deviation", f"at most {MOST_NOISE}")]
    ratio = white_to_cortex(volume, affine)
    if not ratio >= LEAST_WHITE_TO_CORTEX:  # nor NaN
        hint = f"{T1W}, of a person older than about a year"
        found.append(
            Finding("seen_not_t1w", f"white matter to cortex {ratio:.3f}", "at least 1", hint=hint)
        )
    return found


def noise_share(volume: np.ndarray, affine: np.ndarray) -> float:
    """Standard deviation of the noise over that of the brain: 0 to 1, 1 where there is nothing but
    noise.

    The noise is estimated by Immerkaer's operator (1996), which edges touch little, two pixels
    inside the brain.

    Args:
        volume: (I, J, K), a brain-extracted volume or slab, any orientation.
        affine: (4, 4), RAS+ mm.

    Raises:
        InputError: "no_tissue".
    """
    kernel = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)
    noise, signal = [], []
    for image, outline in full_slices(volume, affine):
        inside = ndi.binary_erosion(outline, iterations=2)
        if inside.any():
            noise.append(
                np.sqrt(np.pi / 2) / 6 * np.abs(ndi.convolve(image, kernel)[inside]).mean()
            )
            signal.append(image[inside].std())
    return float(np.mean(noise) / np.mean(signal)) if np.any(signal) else 0.0


def distribution_findings(
    image: np.ndarray, reconstruction: np.ndarray, healthy: Sequence[float] = ()
) -> list[Finding]:
    """Judge whether a slice is of the kind that was trained on, by how well it agrees with its
    reconstruction.

    The limit is a third of the median agreement of the healthy calibration slices. A distance in
    their standard
    deviations would not do: those are so alike that every scan of another scanner lies far outside.

    Args:
        image: (H, W), in [0, 1], a slice on the network grid.
        reconstruction: the same shape.
        healthy: `Calibration.agreements`; where there are none, or a network of hardly any training
            agrees with them by less than 0.3, nothing is judged.
    """
    typical = float(np.median(healthy)) if len(healthy) else 0.0
    if typical < LEARNED:
        return []
    limit = LEAST_AGREEMENT * typical
    measured = float(
        brain_correlation(*(torch.as_tensor(part)[None, None] for part in (image, reconstruction)))
    )
    if measured >= limit:
        return []
    return [
        Finding("unlike_training", f"correlation {measured:.3f}", f"at least {limit:.3f}", hint=T1W)
    ]
