"""Rules of the acceptance gate: what they refuse, what they warn about, and what they let pass."""

import numpy as np
import pytest
from phantom_contrasts import CONTRASTS, phantom
from pydicom.data import get_testdata_file
from pydicom.uid import SecondaryCaptureImageStorage
from scan_builders import dicom_datasets, head_volume, save

from pathology_screen.cohorts.lesions import KINDS
from pathology_screen.errors import REFUSALS, WARNINGS, InputError
from pathology_screen.io import read_scan
from pathology_screen.screening.gate import (
    acquisition_findings,
    brain_findings,
    distribution_findings,
    geometry_findings,
    noise_share,
)
from pathology_screen.space import extract_brain, is_brain_extracted, template_folder
from pathology_screen.space.template import TEMPLATE


def timed(sequence, echo=None, repetition=None, inversion=None, **others):
    """Facts of a sequence, without those that are unknown."""
    names = ("scanning_sequence", "echo_time", "repetition_time", "inversion_time")
    facts = dict(zip(names, (sequence, echo, repetition, inversion)))
    return {name: value for name, value in facts.items() if value is not None} | others


def typed(*values):
    return {"image_type": list(values)}


def described(*words):
    return {"described_as": list(words)}


MPRAGE = timed(["GR", "IR"], 2.98, 2300.0, 900.0, body_part="HEAD", modality="MR")
MPRAGE |= typed("ORIGINAL", "PRIMARY", "M", "ND", "NORM") | described("t1")
ENHANCED = timed(None, repetition=7.0, acquisition_contrast="T1", echo_pulse_sequence="GRADIENT")
ENHANCED |= {"sop_class": "Enhanced MR Image Storage", "complex_component": "MAGNITUDE"}
ENHANCED |= {"effective_echo_time": 3.0, "inversion_times": [900.0]}
ENHANCED |= {"frame_type": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]}
DENOISED = described("t1", "mp2rage", "uniform", "denoised")
T1W = {
    "Siemens MPRAGE": MPRAGE,
    "GE BRAVO": MPRAGE | timed("RM", 3.2, 8.2, 450),
    "Philips TFE": timed("GR", 4.6, 9.8, body_part="BRAIN"),
    "2D spin echo": timed("SE", 15.0, 600.0, 0),
    "2D turbo spin echo": timed("SE", 9.4, 950.0),
    "T1-FLAIR": timed(["SE", "IR"], 24.0, 2500.0, 860.0) | described("t1", "flair"),
    "2D FLASH": timed("GR", 4.8, 250.0),
    "enhanced": ENHANCED,
    "before the agent": MPRAGE | described("t1", "no_contrast_agent"),
    "hippocampus": MPRAGE | {"body_part": "HIPPOCAMPUS"},
    "neck and head": MPRAGE | {"body_part": "NECK HEAD"},
    "head and neck": MPRAGE | {"body_part": "HEADNECK"},
    "armature": MPRAGE | {"body_part": "ARMATURE"},
    "denoised MP2RAGE": MPRAGE | typed("PRIMARY", "M", "ND", "UNI") | DENOISED,
    "unknown": {"format": "nifti"},
}
REFUSED = {
    "not_mr": {"CT": {"modality": "CT"}},
    "secondary_capture": {
        "screenshot": {"sop_class": "Secondary Capture Image Storage"},
        "screen save": typed("DERIVED", "SECONDARY", "SCREEN SAVE"),
    },
    "burned_in_annotation": {"text in the pixels": {"burned_in_annotation": "YES"}},
    "localizer": {"localizer": typed("ORIGINAL", "PRIMARY", "LOCALIZER")},
    "projection": {
        "GE projection": typed("DERIVED", "SECONDARY", "PROJECTION IMAGE", "COLLAPSE"),
        "enhanced MinIP": {"frame_type": ["DERIVED", "PRIMARY", "MIN_IP", "NONE"]},
    },
    "computed_map": {
        "ADC": typed("DERIVED", "PRIMARY", "ADC", "ND"),
        "T1 map": typed("DERIVED", "PRIMARY", "T1 MAP", "ND"),
        "Siemens phase": typed("ORIGINAL", "PRIMARY", "P", "ND"),
        "enhanced phase": {"complex_component": "PHASE"},
        "subtraction": typed("DERIVED", "PRIMARY", "M", "ND", "SUB"),
    },
    "other_body_part": {
        part: {"body_part": part} for part in ("KNEE", "KNEE_L", "NECK", "HIPS", "C SPINE")
    },
    "mp2rage": {
        "MP2RAGE": described("t1", "mp2rage", "uniform"),
        "MP2RAGE by its type": typed("ORIGINAL", "PRIMARY", "M", "ND", "UNI"),
    },
    "contrast_agent": {
        "agent": {"contrast_agent": True},
        "agent in words": described("t1", "contrast_agent"),
    },
    "stated_not_t1w": {
        "enhanced T2": {"acquisition_contrast": "T2"},
        "enhanced FLAIR": {"acquisition_contrast": "FLUID_ATTENUATED"},
        "T2 spin echo": timed("SE", 90.0, 4000.0),
        "PD spin echo": timed("SE", 14.0, 2800.0),
        "FLAIR": timed(["SE", "IR"], 120.0, 9000.0, 2500.0),
        "STIR": timed(["SE", "IR"], 30.0, inversion=160.0),
        "T2*": timed("GR", 25.0, 600.0),
        "MP2RAGE, second inversion": timed(["GR", "IR"], inversion=2700.0),
        "diffusion": timed(["EP", "SE"]),
        "angiography": timed("GR", 3.5, angiography="Y"),
        "long echo of an unknown sequence": {"echo_time": 100.0},
    },
    "reformatted": {
        "Siemens MPR": typed("DERIVED", "SECONDARY", "MPR", "CSA MPR", "M", "ND"),
        "GE reformat": typed("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"),
    },
}
WARNED = {
    "derived_image": {"derived": typed("DERIVED", "SECONDARY")},
    "lossy_compression": {"lossy": {"lossy_compression": "01"}},
    "described_not_t1w": {"T2 in words": described("t2", "flair")},
    "perhaps_contrast_agent": {
        "post": described("t1", "perhaps_contrast_agent"),
        "with and without": described("t1", "contrast_agent", "no_contrast_agent"),
        "plain, of both": described("t1", "no_contrast_agent", "perhaps_contrast_agent"),
    },
    "other_orientation": {"two": {"other_orientation": "the qform is turned by 5.0 degrees"}},
}


def cases(table):
    return [
        pytest.param(source, code, id=f"{code}, {name}")
        for code, sources in table.items()
        for name, source in sources.items()
    ]


def codes(findings, refused=None):
    """The codes of findings, each checked to be listed where it belongs."""
    for finding in findings:
        assert finding.code in (REFUSALS if finding.refused else WARNINGS)
        assert finding.measured and finding.limit
    return {finding.code for finding in findings if refused in (None, finding.refused)}


@pytest.mark.parametrize("source", T1W.values(), ids=T1W)
def test_t1w_acquisitions_break_no_rule(source):
    assert acquisition_findings(source) == []


@pytest.mark.parametrize(("source", "code"), cases(REFUSED))
def test_other_acquisitions_are_refused_for_their_reason(source, code):
    assert codes(acquisition_findings(source), refused=True) == {code}


@pytest.mark.parametrize(("source", "code"), cases(WARNED))
def test_doubtful_acquisitions_are_warned_about(source, code):
    found = acquisition_findings(source)
    assert codes(found) == {code} and not codes(found, refused=True)


def test_every_finding_of_one_header_is_told():
    source = typed("DERIVED", "SECONDARY", "MPR") | {"modality": "CT", "body_part": "CHEST"}
    expected = {"not_mr", "reformatted", "other_body_part", "stated_not_t1w"}
    assert codes(acquisition_findings(source | {"echo_time": 99.0})) == expected


@pytest.mark.parametrize(
    "name, expected",
    {
        "CT_small.dcm": {"not_mr"},
        "MR_small.dcm": {"stated_not_t1w", "derived_image"},
        "examples_overlay.dcm": {"other_body_part", "reformatted"},
    }.items(),
)
def test_real_dicom_files_that_are_no_t1w_brain(name, expected):
    source = read_scan(get_testdata_file(name, download=False), axial_slice=True).source
    assert expected <= codes(acquisition_findings(source))


def test_a_series_of_secondary_captures_is_refused(tmp_path):
    datasets = dicom_datasets(head_volume(), SOPClassUID=SecondaryCaptureImageStorage)
    for dataset in datasets:
        dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    source = read_scan(save(datasets, tmp_path)).source
    assert codes(acquisition_findings(source)) == {"secondary_capture"}


@pytest.mark.parametrize(
    "shape, sizes, expected",
    [
        ((256, 256, 176), (1, 1, 1), set()),
        ((176, 208, 25), (1, 1, 1), {"partial_coverage"}),
        ((320, 320, 16), (0.7, 0.7, 6.5), set()),
        ((256, 256, 11), (0.9, 0.9, 12), {"thick_slices"}),
        ((256, 256, 3), (0.9, 0.9, 5), {"short_slab"}),
        ((256, 256, 1), (0.9, 0.9, 5), {"partial_coverage"}),
        ((64, 64, 40), (3.5, 3.5, 3.5), {"coarse_pixels"}),
        ((20, 256, 256), (6, 1, 1), {"coarse_pixels"}),
        ((128, 128, 128), (0.7, 0.7, 1), {"small_field_of_view"}),
    ],
)
def test_geometry(shape, sizes, expected):
    assert codes(geometry_findings({}, shape, np.diag([*sizes, 1.0]))) == expected


def test_thickness_counts_where_slices_overlap():
    shape, affine = (256, 256, 60), np.diag([1, 1, 3.0, 1])
    assert codes(geometry_findings({"slice_thickness": 12.0}, shape, affine)) == {"thick_slices"}


@pytest.mark.parametrize("kind", ["healthy", *KINDS])
def test_phantoms_pass(kind):
    volume, affine = phantom(kind)
    assert brain_findings(volume, affine) == []
    assert codes(geometry_findings({}, volume.shape, affine)) <= {"partial_coverage"}


@pytest.mark.parametrize("name", CONTRASTS)
def test_other_contrasts_of_the_same_tissue_are_refused(name):
    assert codes(brain_findings(*phantom(intensity=CONTRASTS[name]))) == {"seen_not_t1w"}


def test_mni_template_passes():
    scan = read_scan(template_folder() / TEMPLATE)
    assert brain_findings(scan.voxels, scan.affine) == []
    assert geometry_findings(scan.source, scan.voxels.shape, scan.affine) == []


def test_a_cut_brain_is_refused_but_not_one_in_a_tight_box():
    volume, affine = phantom()
    first, last = np.flatnonzero(volume.any(axis=(1, 2)))[[0, -1]]
    assert brain_findings(volume[first : last + 1], affine) == []
    assert codes(brain_findings(volume[first + 20 :], affine)) == {"brain_cut_off"}


def test_implausible_sizes_are_refused():
    volume, affine = phantom()
    for factor in (0.5, 1.5):
        sized = affine @ np.diag([factor, factor, 1, 1])
        assert "brain_size" in codes(brain_findings(volume, sized))


def test_spoilt_intensities_are_refused():
    volume, affine = phantom()
    brain, top = volume > 0, volume.max()
    much, little = (np.minimum(volume, np.percentile(volume[brain], p)) for p in (85, 99))
    assert "saturated" in codes(brain_findings(much, affine))
    assert brain_findings(little, affine) == []
    assert codes(brain_findings(np.ceil(volume / top * 8), affine)) == {"few_grey_values"}
    noise = np.random.default_rng(0).rayleigh(0.5 * top, volume.shape) * brain
    assert codes(brain_findings(noise, affine)) == {"noisy"}
    assert noise_share(noise, affine) == pytest.approx(1, abs=0.1)
    with pytest.raises(InputError, match="no_tissue"):
        brain_findings(np.zeros_like(volume), affine)


def test_agreement_far_below_that_of_healthy_slices_is_refused():
    generator = np.random.default_rng(0)
    image, other = generator.random((2, 64, 64)).astype(np.float32)
    close = np.clip(image + generator.normal(0, 0.1, image.shape), 0, 1).astype(np.float32)
    healthy = (0.85, 0.87, 0.9)
    assert distribution_findings(image, close, healthy) == []
    (finding,) = distribution_findings(image, other, healthy)
    assert finding.refused and finding.limit == "at least 0.290"
    assert codes([finding]) == {"unlike_training"}
    (empty,) = distribution_findings(image, np.zeros_like(image), healthy)
    assert empty.measured == "correlation 0.000"
    for untold in ((), (0.2, 0.1)):
        assert distribution_findings(image, 1 - image, untold) == []


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
        assert brain_findings(voxels, scan.affine) == [], path.name


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
