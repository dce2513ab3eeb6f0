"""Rules of the acceptance gate: what they refuse, what they warn about, and what they let pass."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantom_contrasts import CONTRASTS, phantom
from pydicom.data import get_testdata_file
from pydicom.uid import SecondaryCaptureImageStorage
from scan_builders import dicom_datasets, head_volume, save
from scipy import ndimage as ndi

from pathology_screen.cohorts.simulation import KINDS
from pathology_screen.errors import REFUSALS, WARNINGS, InputError
from pathology_screen.io import read_scan
from pathology_screen.screening import gate
from pathology_screen.screening.gate import (
    acquisition_findings,
    brain_findings,
    distribution_findings,
    full_slices,
    geometry_findings,
    noise_share,
    white_to_cortex,
)
from pathology_screen.space import extract_brain, is_brain_extracted, template_folder
from pathology_screen.space.template import TEMPLATE


def timed(sequence, echo=None, repetition=None, inversion=None, **others):
    """Facts of a sequence, without those that are unknown."""
    names = ("scanning_sequence", "echo_time", "repetition_time", "inversion_time")
    facts = dict(zip(names, (sequence, echo, repetition, inversion)))
    return {name: value for name, value in facts.items() if value is not None} | others


def typed(text):
    return {"image_type": text.split("\\")}


def described(text):
    return {"described_as": text.split()}


MPRAGE = timed(["GR", "IR"], 2.98, 2300.0, 900.0, body_part="HEAD", modality="MR")
MPRAGE |= typed(r"ORIGINAL\PRIMARY\M\ND\NORM") | described("t1")
ENHANCED = timed(None, repetition=7.0, acquisition_contrast="T1", echo_pulse_sequence="GRADIENT")
ENHANCED |= {"sop_class": "Enhanced MR Image Storage", "complex_component": "MAGNITUDE"}
ENHANCED |= {"effective_echo_time": 3.0, "inversion_times": [900.0]}
ENHANCED |= {"frame_type": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]}
DENOISED = typed(r"PRIMARY\M\ND\UNI") | described("t1 mp2rage uniform denoised")
T1W = {
    "Siemens MPRAGE": MPRAGE,
    "GE BRAVO": MPRAGE | timed("RM", 3.2, 8.2, 450),
    "Philips TFE": timed("GR", 4.6, 9.8, body_part="BRAIN"),
    "2D spin echo": timed("SE", 15.0, 600.0, 0),
    "2D turbo spin echo": timed("SE", 9.4, 950.0),
    "T1-FLAIR": timed(["SE", "IR"], 24.0, 2500.0, 860.0) | described("t1 flair"),
    "2D FLASH": timed("GR", 4.8, 250.0),
    "enhanced": ENHANCED,
    "before the agent": MPRAGE | described("t1 no_contrast_agent"),
    "hippocampus": MPRAGE | {"body_part": "HIPPOCAMPUS"},
    "neck and head": MPRAGE | {"body_part": "NECK HEAD"},
    "head and neck": MPRAGE | {"body_part": "HEADNECK"},
    "armature": MPRAGE | {"body_part": "ARMATURE"},
    "denoised MP2RAGE": MPRAGE | DENOISED,
    "unknown": {"format": "nifti"},
}
REFUSED = [
    ("not_mr", {"modality": "CT"}),
    ("secondary_capture", {"sop_class": "Secondary Capture Image Storage"}),
    ("secondary_capture", typed(r"DERIVED\SECONDARY\SCREEN SAVE")),
    ("burned_in_annotation", {"burned_in_annotation": "YES"}),
    ("localizer", typed(r"ORIGINAL\PRIMARY\LOCALIZER")),
    ("projection", typed(r"DERIVED\SECONDARY\PROJECTION IMAGE\COLLAPSE")),
    ("projection", {"frame_type": ["DERIVED", "PRIMARY", "MIN_IP", "NONE"]}),
    ("computed_map", typed(r"DERIVED\PRIMARY\ADC\ND")),
    ("computed_map", typed(r"DERIVED\PRIMARY\T1 MAP\ND")),
    ("computed_map", typed(r"ORIGINAL\PRIMARY\P\ND")),
    ("computed_map", {"complex_component": "PHASE"}),
    ("computed_map", typed(r"DERIVED\PRIMARY\M\ND\SUB")),
    *(
        ("other_body_part", {"body_part": part})
        for part in ("KNEE", "KNEE_L", "NECK", "HIPS", "C SPINE")
    ),
    ("mp2rage", described("t1 mp2rage uniform")),
    ("mp2rage", typed(r"ORIGINAL\PRIMARY\M\ND\UNI")),
    ("contrast_agent", {"contrast_agent": True}),
    ("contrast_agent", described("t1 contrast_agent")),
    ("stated_not_t1w", {"acquisition_contrast": "T2"}),
    ("stated_not_t1w", {"acquisition_contrast": "FLUID_ATTENUATED"}),
    ("stated_not_t1w", timed("SE", 90.0, 4000.0)),  # T2
    ("stated_not_t1w", timed("SE", 14.0, 2800.0)),  # PD
    ("stated_not_t1w", timed(["SE", "IR"], 120.0, 9000.0, 2500.0)),  # FLAIR
    ("stated_not_t1w", timed(["SE", "IR"], 30.0, inversion=160.0)),  # STIR
    ("stated_not_t1w", timed("GR", 25.0, 600.0)),  # T2*
    ("stated_not_t1w", timed(["GR", "IR"], inversion=2700.0)),  # MP2RAGE, second inversion
    ("stated_not_t1w", timed(["EP", "SE"])),  # diffusion
    ("stated_not_t1w", timed("GR", 3.5, angiography="Y")),
    ("stated_not_t1w", {"echo_time": 100.0}),  # of an unknown sequence
    ("reformatted", typed(r"DERIVED\SECONDARY\MPR\CSA MPR\M\ND")),
    ("reformatted", typed(r"DERIVED\SECONDARY\REFORMATTED\AVERAGE")),
]
WARNED = [
    ("derived_image", typed(r"DERIVED\SECONDARY")),
    ("lossy_compression", {"lossy_compression": "01"}),
    ("described_not_t1w", described("t2 flair")),
    ("perhaps_contrast_agent", described("t1 perhaps_contrast_agent")),
    ("perhaps_contrast_agent", described("t1 contrast_agent no_contrast_agent")),
    ("perhaps_contrast_agent", described("t1 no_contrast_agent perhaps_contrast_agent")),
    ("other_orientation", {"other_orientation": "the qform is turned by 5.0 degrees"}),
]


def codes(findings, refused=None):
    """The codes of findings, each checked to be listed where it belongs."""
    findings = list(findings)
    for finding in findings:
        assert finding.code in (REFUSALS if finding.refused else WARNINGS)
        assert finding.measured and finding.limit
    return {finding.code for finding in findings if refused in (None, finding.refused)}


def test_acquisitions_are_accepted_refused_or_warned_about_for_their_reason():
    for name, source in T1W.items():
        assert not codes(acquisition_findings(source)), name
    for code, source in REFUSED:
        assert codes(acquisition_findings(source), refused=True) == {code}, source
    for code, source in WARNED:
        found = list(acquisition_findings(source))
        assert codes(found) == {code} and not codes(found, refused=True), source
    source = typed(r"DERIVED\SECONDARY\MPR") | {"modality": "CT", "body_part": "CHEST"}
    expected = {"not_mr", "reformatted", "other_body_part", "stated_not_t1w"}
    assert codes(acquisition_findings(source | {"echo_time": 99.0})) == expected


def test_real_dicom_files_that_are_no_t1w_brain(tmp_path):
    captures = dicom_datasets(head_volume(), SOPClassUID=SecondaryCaptureImageStorage)
    for dataset in captures:
        dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    source = read_scan(save(captures, tmp_path)).source
    assert codes(acquisition_findings(source)) == {"secondary_capture"}
    for name, expected in {
        "CT_small.dcm": {"not_mr"},
        "MR_small.dcm": {"stated_not_t1w", "derived_image"},
        "examples_overlay.dcm": {"other_body_part", "reformatted"},
    }.items():
        source = read_scan(get_testdata_file(name, download=False), axial_slice=True).source
        assert expected <= codes(acquisition_findings(source))


@pytest.mark.parametrize(
    ("shape", "sizes", "expected"),
    [
        ((256, 256, 176), (1, 1, 1), ""),
        ((256, 256, 60), (1, 1, 3), ""),
        ((176, 208, 25), (1, 1, 1), "partial_coverage"),
        ((320, 320, 16), (0.7, 0.7, 6.5), ""),
        ((256, 256, 11), (0.9, 0.9, 12), "thick_slices"),
        ((256, 256, 3), (0.9, 0.9, 5), "short_slab"),
        ((256, 256, 1), (0.9, 0.9, 5), "partial_coverage"),
        ((64, 64, 40), (3.5, 3.5, 3.5), "coarse_pixels"),
        ((20, 256, 256), (6, 1, 1), "coarse_pixels"),
        ((128, 128, 128), (0.7, 0.7, 1), "small_field_of_view"),
    ],
)
def test_geometry(shape, sizes, expected):
    affine, thick = np.diag([*sizes, 1.0]), {"slice_thickness": 12.0}  # more where they overlap
    assert codes(geometry_findings({}, shape, affine)) == {*expected.split()}
    assert "thick_slices" in codes(geometry_findings(thick, shape, affine))


@pytest.fixture(scope="module")
def healthy():
    return phantom()


@pytest.mark.parametrize("kind", ["healthy", *KINDS])
def test_phantoms_pass(kind):
    volume, affine = phantom(kind)
    assert not codes(brain_findings(volume, affine)) and white_to_cortex(volume, affine) > 1.1
    assert codes(geometry_findings({}, volume.shape, affine)) <= {"partial_coverage"}


def test_the_mni_template_passes():
    scan = read_scan(template_folder() / TEMPLATE)
    assert not codes(brain_findings(scan.voxels, scan.affine))
    assert not codes(geometry_findings(scan.source, scan.voxels.shape, scan.affine))


@pytest.mark.parametrize("name", CONTRASTS)
def test_other_contrasts_of_the_same_tissue_are_refused(name):
    assert codes(brain_findings(*phantom(intensity=CONTRASTS[name]))) == {"seen_not_t1w"}


def test_cut_brains_and_implausible_sizes_are_refused_but_not_a_tight_box(healthy):
    volume, affine = healthy
    first, last = np.flatnonzero(volume.any(axis=(1, 2)))[[0, -1]]
    assert not codes(brain_findings(volume[first : last + 1], affine))
    assert codes(brain_findings(volume[first + 20 :], affine)) == {"brain_cut_off"}
    for factor in (0.5, 1.5):
        sized = affine @ np.diag([factor, factor, 1, 1])
        assert "brain_size" in codes(brain_findings(volume, sized))


def test_spoilt_intensities_are_refused(healthy):
    volume, affine = healthy
    brain, top = volume > 0, volume.max()
    much, little = (np.minimum(volume, np.percentile(volume[brain], p)) for p in (85, 99))
    assert "saturated" in codes(brain_findings(much, affine))
    assert not codes(brain_findings(little, affine))
    assert codes(brain_findings(np.ceil(volume / top * 8), affine)) == {"few_grey_values"}
    noise = np.random.default_rng(0).rayleigh(0.5 * top, volume.shape) * brain
    assert codes(brain_findings(noise, affine)) == {"noisy"}
    assert noise_share(noise, affine) == pytest.approx(1, abs=0.1)
    with pytest.raises(InputError, match="no_tissue"):
        codes(brain_findings(np.zeros_like(volume), affine))


def test_the_weakest_t1w_contrast_lies_above_one_and_an_inverted_brain_below(healthy):
    assert white_to_cortex(*phantom(intensity=(0.45, 0.9))) > 1.01
    volume, affine = healthy
    assert white_to_cortex((1.02 * volume.max() - volume) * (volume > 0), affine) < 0.95


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-3, 1e3), st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_neither_scale_nor_storage_order_matters(healthy, scale, order, flips):
    volume, affine = healthy
    turned, matrix = volume.transpose(order), affine[:, [*order, 3]].copy()
    for axis in np.flatnonzero(flips):
        matrix[:3, 3] += matrix[:3, axis] * (turned.shape[axis] - 1)
        matrix[:3, axis] *= -1
    turned = np.flip(turned, np.flatnonzero(flips)) * np.float32(scale)
    expected = white_to_cortex(volume, affine)
    assert white_to_cortex(turned, matrix) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("sign", [-0.3, 0.3])
def test_shading_by_the_coils_hardly_matters(healthy, sign):
    volume, affine = healthy
    x, y = (np.linspace(-1, 1, count) for count in volume.shape[:2])
    shading = np.exp(sign * (x[:, None] ** 2 + y**2 + 0.5 * y))[..., None].astype(np.float32)
    expected = white_to_cortex(volume, affine)
    assert white_to_cortex(volume * shading, affine) == pytest.approx(expected, abs=0.06)


def test_noise_and_larger_pixels_leave_it_above_one(healthy):
    volume, affine = healthy
    deviation = 0.1 * np.percentile(volume[volume > 0], 90)
    noise = np.random.default_rng(0).normal(0, deviation, volume.shape)
    assert white_to_cortex(np.abs(volume + noise) * (volume > 0), affine) > 1.03
    coarser = affine @ np.diag([2, 2, 1, 1])
    assert white_to_cortex(ndi.zoom(volume, (0.5, 0.5, 1), order=1), coarser) > 1.03


def test_a_brain_too_small_for_its_depths_has_no_ratio():
    volume = np.zeros((30, 30, 4), np.float32)
    volume[10:18, 10:18] = 100
    assert np.isnan(white_to_cortex(volume, np.eye(4)))


def test_slices_are_cut_to_the_brain_and_at_most_twelve(healthy):
    slices = list(full_slices(np.repeat(healthy[0], 6, axis=2), healthy[1]))
    assert len(slices) == 12
    for image, outline in slices:
        assert image.shape == outline.shape and outline[0].any() and outline[:, -1].any()


def test_agreement_far_below_that_of_healthy_slices_is_refused():
    generator = np.random.default_rng(0)
    image, other = generator.random((2, 64, 64)).astype(np.float32)
    close = np.clip(image + generator.normal(0, 0.1, image.shape), 0, 1).astype(np.float32)
    healthy = (0.85, 0.87, 0.9)
    assert not codes(distribution_findings(image, close, healthy))
    (finding,) = distribution_findings(image, other, healthy)
    assert finding.limit == "at least 0.290"
    assert codes([finding], refused=True) == {"unlike_training"}
    (empty,) = distribution_findings(image, np.zeros_like(image), healthy)
    assert empty.measured == "correlation 0.000"
    for untold in ((), (0.2, 0.1)):
        assert not codes(distribution_findings(image, 1 - image, untold))


def test_an_agreement_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setattr(gate, "brain_correlation", lambda *pair: np.nan)
    (finding,) = distribution_findings(np.ones((4, 4)), np.ones((4, 4)), (0.85, 0.9))
    assert finding.code == "unlike_training" and finding.refused


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    "pattern",
    ["oasis/sub-N07[2-5]*", "oasis/sub-M01*", "glioma/*T1w*", "whole_head/IXI012*"]
    + ["dicom_hanke_t1"],
)
def test_real_t1w_brains_pass(shared_data, pattern):
    paths = sorted(shared_data.glob(pattern))
    assert paths
    for path in paths:
        scan = read_scan(path)
        geometry = geometry_findings(scan.source, scan.voxels.shape, scan.affine)
        assert not codes([*acquisition_findings(scan.source), *geometry], refused=True)
        brain = is_brain_extracted(scan.voxels, scan.affine)
        voxels = scan.voxels if brain else scan.voxels * extract_brain(scan.voxels, scan.affine)
        assert not codes(brain_findings(voxels, scan.affine)), path.name


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    ("contrast", "expected"),
    [("FLAIR", {"seen_not_t1w"}), ("T2w", {"seen_not_t1w"}), ("T1w-contrast", set())],
)
def test_real_scans_of_other_contrast_are_refused(shared_data, contrast, expected):
    """A known limit: of a contrast agent only the header tells."""
    (path,) = shared_data.glob(f"not_t1w/*_{contrast}.nii.gz")
    scan = read_scan(path)
    assert codes(brain_findings(scan.voxels, scan.affine)) == expected
