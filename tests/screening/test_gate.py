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

MPRAGE = {
    "modality": "MR",
    "image_type": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"],
    "scanning_sequence": ["GR", "IR"],
    "echo_time": 2.98,
    "repetition_time": 2300.0,
    "inversion_time": 900.0,
    "body_part": "HEAD",
    "described_as": ["t1"],
}
T1W = {
    "Siemens MPRAGE": MPRAGE,
    "GE BRAVO": MPRAGE
    | {"scanning_sequence": "RM", "echo_time": 3.2, "repetition_time": 8.2, "inversion_time": 450},
    "Philips TFE": {
        "scanning_sequence": "GR",
        "echo_time": 4.6,
        "repetition_time": 9.8,
        "body_part": "BRAIN",
    },
    "2D spin echo": {
        "scanning_sequence": "SE",
        "echo_time": 15.0,
        "repetition_time": 600.0,
        "inversion_time": 0,
    },
    "2D turbo spin echo": {"scanning_sequence": "SE", "echo_time": 9.4, "repetition_time": 950.0},
    "T1-FLAIR": {
        **{"scanning_sequence": ["SE", "IR"], "echo_time": 24.0, "repetition_time": 2500.0},
        **{"inversion_time": 860.0, "described_as": ["t1", "flair"]},
    },
    "2D FLASH": {"scanning_sequence": "GR", "echo_time": 4.8, "repetition_time": 250.0},
    "enhanced": {
        **{
            "sop_class": "Enhanced MR Image Storage",
            "acquisition_contrast": "T1",
            "echo_pulse_sequence": "GRADIENT",
        },
        **{"effective_echo_time": 3.0, "repetition_time": 7.0, "inversion_times": [900.0]},
        **{
            "frame_type": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
            "complex_component": "MAGNITUDE",
        },
    },
    "before the agent": MPRAGE | {"described_as": ["t1", "no_contrast_agent"]},
    "hippocampus": MPRAGE | {"body_part": "HIPPOCAMPUS"},
    "neck and head": MPRAGE | {"body_part": "NECK HEAD"},
    "head and neck": MPRAGE | {"body_part": "HEADNECK"},
    "armature": MPRAGE | {"body_part": "ARMATURE"},
    "denoised MP2RAGE": MPRAGE
    | {
        "image_type": ["PRIMARY", "M", "ND", "UNI"],
        "described_as": ["t1", "mp2rage", "uniform", "denoised"],
    },
    "unknown": {"format": "nifti"},
}
REFUSED = {
    "CT": ({"modality": "CT"}, "not_mr"),
    "screenshot": ({"sop_class": "Secondary Capture Image Storage"}, "secondary_capture"),
    "screen save": ({"image_type": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "secondary_capture"),
    "text in the pixels": ({"burned_in_annotation": "YES"}, "burned_in_annotation"),
    "localizer": ({"image_type": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    "GE projection": (
        {"image_type": ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "COLLAPSE"]},
        "projection",
    ),
    "enhanced MinIP": ({"frame_type": ["DERIVED", "PRIMARY", "MIN_IP", "NONE"]}, "projection"),
    "ADC": ({"image_type": ["DERIVED", "PRIMARY", "ADC", "ND"]}, "computed_map"),
    "T1 map": ({"image_type": ["DERIVED", "PRIMARY", "T1 MAP", "ND"]}, "computed_map"),
    "Siemens phase": ({"image_type": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "computed_map"),
    "enhanced phase": ({"complex_component": "PHASE"}, "computed_map"),
    "subtraction": ({"image_type": ["DERIVED", "PRIMARY", "M", "ND", "SUB"]}, "computed_map"),
    "knee": ({"body_part": "KNEE"}, "other_body_part"),
    "left knee": ({"body_part": "KNEE_L"}, "other_body_part"),
    "neck": ({"body_part": "NECK"}, "other_body_part"),
    "both hips": ({"body_part": "HIPS"}, "other_body_part"),
    "MP2RAGE": ({"described_as": ["t1", "mp2rage", "uniform"]}, "mp2rage"),
    "MP2RAGE by its type": ({"image_type": ["ORIGINAL", "PRIMARY", "M", "ND", "UNI"]}, "mp2rage"),
    "cervical spine": ({"body_part": "C SPINE"}, "other_body_part"),
    "agent": ({"contrast_agent": True}, "contrast_agent"),
    "agent in words": ({"described_as": ["t1", "contrast_agent"]}, "contrast_agent"),
    "enhanced T2": ({"acquisition_contrast": "T2"}, "stated_not_t1w"),
    "enhanced FLAIR": ({"acquisition_contrast": "FLUID_ATTENUATED"}, "stated_not_t1w"),
    "T2 spin echo": (
        {"scanning_sequence": "SE", "echo_time": 90.0, "repetition_time": 4000.0},
        "stated_not_t1w",
    ),
    "PD spin echo": (
        {"scanning_sequence": "SE", "echo_time": 14.0, "repetition_time": 2800.0},
        "stated_not_t1w",
    ),
    "FLAIR": (
        {
            "scanning_sequence": ["SE", "IR"],
            "echo_time": 120.0,
            "repetition_time": 9000.0,
            "inversion_time": 2500.0,
        },
        "stated_not_t1w",
    ),
    "STIR": (
        {"scanning_sequence": ["SE", "IR"], "echo_time": 30.0, "inversion_time": 160.0},
        "stated_not_t1w",
    ),
    "T2*": (
        {"scanning_sequence": "GR", "echo_time": 25.0, "repetition_time": 600.0},
        "stated_not_t1w",
    ),
    "MP2RAGE, second inversion": (
        {"scanning_sequence": ["GR", "IR"], "inversion_time": 2700.0},
        "stated_not_t1w",
    ),
    "diffusion": ({"scanning_sequence": ["EP", "SE"]}, "stated_not_t1w"),
    "angiography": (
        {"scanning_sequence": "GR", "angiography": "Y", "echo_time": 3.5},
        "stated_not_t1w",
    ),
    "long echo of an unknown sequence": ({"echo_time": 100.0}, "stated_not_t1w"),
    "Siemens MPR": (
        {"image_type": ["DERIVED", "SECONDARY", "MPR", "CSA MPR", "M", "ND"]},
        "reformatted",
    ),
    "GE reformat": (
        {"image_type": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]},
        "reformatted",
    ),
}
WARNED = {
    "derived": ({"image_type": ["DERIVED", "SECONDARY"]}, "derived_image"),
    "lossy": ({"lossy_compression": "01"}, "lossy_compression"),
    "T2 in words": ({"described_as": ["t2", "flair"]}, "described_not_t1w"),
    "post in words": ({"described_as": ["t1", "perhaps_contrast_agent"]}, "perhaps_contrast_agent"),
    "with and without in words": (
        {"described_as": ["t1", "contrast_agent", "no_contrast_agent"]},
        "perhaps_contrast_agent",
    ),
    "plain, of a protocol of both": (
        {"described_as": ["t1", "no_contrast_agent", "perhaps_contrast_agent"]},
        "perhaps_contrast_agent",
    ),
    "two orientations": (
        {"other_orientation": "the qform is turned by 5.0 degrees"},
        "other_orientation",
    ),
}
ISOTROPIC = np.diag([1.0, 1.0, 1.0, 1.0])


def codes(findings, refused=None):
    """The codes of findings, each checked to be listed where it belongs."""
    for finding in findings:
        assert finding.code in (REFUSALS if finding.refused else WARNINGS)
        assert finding.measured and finding.limit
    return {finding.code for finding in findings if refused in (None, finding.refused)}


@pytest.mark.parametrize("source", T1W.values(), ids=T1W)
def test_t1w_acquisitions_break_no_rule(source):
    assert acquisition_findings(source) == []


@pytest.mark.parametrize("case", REFUSED)
def test_other_acquisitions_are_refused_for_their_reason(case):
    source, code = REFUSED[case]
    assert codes(acquisition_findings(source), refused=True) == {code}


@pytest.mark.parametrize("case", WARNED)
def test_doubtful_acquisitions_are_warned_about(case):
    source, code = WARNED[case]
    assert codes(acquisition_findings(source)) == {code}
    assert not codes(acquisition_findings(source), refused=True)


def test_every_finding_of_one_header_is_told():
    source = {
        "modality": "CT",
        "image_type": ["DERIVED", "SECONDARY", "MPR"],
        "body_part": "CHEST",
        "echo_time": 99.0,
    }
    assert codes(acquisition_findings(source)) == {
        "not_mr",
        "reformatted",
        "other_body_part",
        "stated_not_t1w",
    }


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
    assert codes(acquisition_findings(read_scan(save(datasets, tmp_path)).source)) == {
        "secondary_capture"
    }


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
    assert codes(
        geometry_findings({"slice_thickness": 12.0}, (256, 256, 60), np.diag([1, 1, 3.0, 1]))
    ) == {"thick_slices"}


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
    brain = volume > 0
    top = volume.max()
    clipped = np.minimum(volume, np.percentile(volume[brain], 85))
    assert "saturated" in codes(brain_findings(clipped, affine))
    assert (
        codes(brain_findings(np.minimum(volume, np.percentile(volume[brain], 99)), affine)) == set()
    )
    assert codes(brain_findings(np.ceil(volume / top * 8), affine)) == {"few_grey_values"}
    noise = np.random.default_rng(0).rayleigh(0.5 * top, volume.shape) * brain
    assert codes(brain_findings(noise, affine)) == {"noisy"}
    assert noise_share(noise, affine) == pytest.approx(1, abs=0.1)
    with pytest.raises(InputError, match="no_tissue"):
        brain_findings(np.zeros_like(volume), affine)


def test_agreement_far_below_that_of_healthy_slices_is_refused():
    generator = np.random.default_rng(0)
    image = generator.random((64, 64)).astype(np.float32)
    close = np.clip(image + generator.normal(0, 0.1, image.shape), 0, 1).astype(np.float32)
    healthy = (0.85, 0.87, 0.9)
    assert distribution_findings(image, close, healthy) == []
    (finding,) = distribution_findings(
        image, generator.random((64, 64)).astype(np.float32), healthy
    )
    assert (
        finding.refused
        and finding.limit == "at least 0.290"
        and codes([finding]) == {"unlike_training"}
    )
    assert (
        distribution_findings(image, np.zeros_like(image), healthy)[0].measured
        == "correlation 0.000"
    )
    assert (
        distribution_findings(image, 1 - image, ())
        == distribution_findings(image, 1 - image, (0.2, 0.1))
        == []
    )


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    "pattern",
    [
        "oasis/sub-N07[2-5]*",
        "oasis/sub-M01*",
        "glioma/*T1w*",
        "whole_head/IXI012*",
        "dicom_hanke_t1",
    ],
)
def test_real_t1w_brains_pass(shared_data, pattern):
    paths = sorted(shared_data.glob(pattern))
    assert paths
    for path in paths:
        scan = read_scan(path)
        assert not codes(acquisition_findings(scan.source), refused=True)
        assert not codes(
            geometry_findings(scan.source, scan.voxels.shape, scan.affine), refused=True
        )
        brain = is_brain_extracted(scan.voxels, scan.affine)
        voxels = scan.voxels if brain else scan.voxels * extract_brain(scan.voxels, scan.affine)
        assert brain_findings(voxels, scan.affine) == [], path.name


@pytest.mark.needs_shared
@pytest.mark.parametrize(
    "contrast, expected", [("FLAIR", {"seen_not_t1w"}), ("T2w", {"seen_not_t1w"})]
)
def test_real_scans_of_other_contrast_are_refused(shared_data, contrast, expected):
    (path,) = shared_data.glob(f"not_t1w/*_{contrast}.nii.gz")
    scan = read_scan(path)
    assert codes(brain_findings(scan.voxels, scan.affine)) == expected


@pytest.mark.needs_shared
def test_contrast_agent_is_not_seen_in_the_image(shared_data):
    """A known limit: only the header tells."""
    (path,) = shared_data.glob("not_t1w/*_T1w-contrast.nii.gz")
    scan = read_scan(path)
    assert brain_findings(scan.voxels, scan.affine) == []
