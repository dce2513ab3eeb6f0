"""The report says what the result says, and refers to what it was measured on."""

from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
from outputs.dicom.result_builders import THRESHOLD, enhanced, make_refused, make_result
from pydicom.sr.codedict import codes
from scan_builders import SAGITTAL, dicom_datasets, head_volume, save

from pathology_screen.errors import REFUSALS
from pathology_screen.outputs.dicom import structured_report, write_dicom
from pathology_screen.outputs.dicom.codes import MEANINGS, code
from pathology_screen.outputs.dicom.structured_report import refusal_code
from pathology_screen.result import Finding


@pytest.fixture
def report(series, out):
    """Function that writes a result and gives the content of its report."""

    def write(result, source=None):
        write_dicom(result, source or series(), out)
        return highdicom.sr.srread(out / "report.dcm").content

    return write


def whole(content):
    (group,) = content.get_image_measurement_groups()
    return group


def numbers(group):
    return {measurement.name.meaning: measurement.value for measurement in group.get_measurements()}


def evaluations(group):
    """The coded answers; highdicom counts the algorithm's family as one."""
    found = group.get_qualitative_evaluations()
    return {one.name.value: one.value for one in found if one.name != codes.DCM.AlgorithmFamily}


def texts(group, name):
    items = highdicom.sr.utils.find_content_items(group[0], name=name, value_type="TEXT")
    return [item.value for item in items]


def test_numbers_are_those_of_the_result(series, report):
    source = series("a")
    result = make_result(source)
    group = whole(report(result, source))
    assert numbers(group) == {
        "Anomaly score": result.score,
        "Percentile Ranking of measurement": 95.0,
        "Conformal p-value of the anomaly score among healthy people": result.p_value,
        "Threshold of the anomaly score": 0.011,
        "False positive rate that the score threshold is for": 0.05,
        "Number of healthy people of the calibration": 20,
        "Threshold of the anomaly map": THRESHOLD,
        "Number of regions above the map threshold": len(result.regions),
        "Level z of the screened plane in MNI152 space": 23.0,
        "Overlap (Dice) of the brain with that of the template": 0.95,
        "Local correlation of the brain with that of the template": 0.75,
    }
    units = {measurement.unit.value for measurement in group.get_measurements()}
    assert units == {"1", "%", "mm"}


def test_outcome_warnings_and_the_research_label(series, report):
    warning = Finding("contrast_agent", "stated", "none", refused=False)
    source = series("a")
    group = whole(report(make_result(source, outcome="normal", findings=(warning,)), source))
    assert evaluations(group) == {"outcome": code("normal")}
    assert texts(group, codes.DCM.Comment)[0].startswith("Research use only. Not for diagnosis.")
    assert texts(group, code("warning")) == ["contrast_agent: stated; accepted: none"]


def test_algorithm_and_device_are_identified(series, report, out):
    source = series("a")
    content = report(make_result(source), source)
    item = whole(content)[0]
    found = {
        part.name.meaning: part.value for part in item.ContentSequence if hasattr(part, "TextValue")
    }
    assert found["Algorithm Name"] == "Reversed Autoencoder"
    family = highdicom.sr.utils.find_content_items(item, name=codes.DCM.AlgorithmFamily)[0]
    assert family.value == codes.DCM.ArtificialIntelligence
    (observer,) = content.get_observer_contexts()
    device = observer.observer_identifying_attributes
    assert device.serial_number == "d" * 64 and device.manufacturer_name == "pathology_screen"
    dataset = pydicom.dcmread(out / "report.dcm")
    assert (dataset.CompletionFlag, dataset.PreliminaryFlag, dataset.VerificationFlag) == (
        *("COMPLETE", "PRELIMINARY", "UNVERIFIED"),
    )
    (scheme,) = dataset.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99PSCREEN"


def test_regions(series, report, out):
    source = series("a")
    result = make_result(source)
    groups = report(result, source).get_volumetric_roi_measurement_groups()
    assert len(groups) == len(result.regions) >= 3
    dataset, anomaly_map = (
        pydicom.dcmread(out / f"{name}.dcm") for name in ("segmentation", "parametric_map")
    )
    for region, group, segment in zip(result.regions, groups, dataset.SegmentSequence):
        values = {
            (one.name.meaning, getattr(one.derivation, "meaning", None)): one
            for one in group.get_measurements()
        }
        expected = {
            ("Area", None): region.area_mm2,
            ("Anomaly map value", "Maximum"): region.peak,
            ("Anomaly map value", "Mean"): region.mean,
        }
        assert {key: one.value for key, one in values.items()} == expected
        peak = values[("Anomaly map value", "Maximum")]
        assert peak.unit == codes.UCUM.NoUnits
        assert peak.referenced_images[0].referenced_sop_instance_uid == anomaly_map.SOPInstanceUID
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == dataset.SOPInstanceUID
        assert reference.referenced_segment_numbers == [region.label] == [segment.SegmentNumber]
        assert (group.tracking_uid, group.tracking_identifier) == (
            segment.TrackingUID,
            segment.TrackingID,
        )
        assert (group.finding_type, group.finding_category) == (
            *(code("region"), segment.SegmentedPropertyCategoryCodeSequence[0]),
        )
    area = next(one for one in groups[0].get_measurements() if one.name == codes.SCT.Area)
    assert area.unit == codes.UCUM.SquareMillimeter


def test_segments_say_what_they_are_and_no_more(series, out):
    source = series()
    write_dicom(make_result(source), source, out)
    dataset = pydicom.dcmread(out / "segmentation.dcm")
    assert dataset.ContentQualification == "RESEARCH"
    for segment in dataset.SegmentSequence:
        (category,) = segment.SegmentedPropertyCategoryCodeSequence
        assert (category.CodeValue, category.CodingSchemeDesignator) == ("49755003", "SCT")
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == MEANINGS["region"]
        assert (segment.SegmentAlgorithmType, segment.SegmentAlgorithmName) == (
            "AUTOMATIC",
            "Reversed Autoencoder",
        )


def test_map_states_its_quantity(series, out):
    source = series()
    result = make_result(source)
    write_dicom(result, source, out)
    dataset = pydicom.dcmread(out / "parametric_map.dcm")
    (shared,) = dataset.SharedFunctionalGroupsSequence
    (mapping,) = shared.RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert (
        mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning == MEANINGS["map"]
    )
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == 0
    assert mapping.DoubleFloatRealWorldValueLastValueMapped >= result.map_volume.max()
    (window,) = shared.FrameVOILUTSequence
    assert (
        window.VOILUTFunction == "LINEAR_EXACT"
    )  # LINEAR is not defined for a window narrower than 1
    assert dataset.ContentQualification == "RESEARCH"


def test_sources_are_the_images_that_the_plane_cuts_and_the_map(tmp_path, report, out):
    datasets = dicom_datasets(head_volume())
    source = save(datasets, tmp_path / "axial")
    result = make_result(source, tilt=8)
    cut = np.flatnonzero(result.map_volume.any(axis=(0, 1)))
    group = whole(report(result, source))
    uids = [image.referenced_sop_instance_uid for image in group.source_images]
    anomaly_map = pydicom.dcmread(out / "parametric_map.dcm")
    expected = [datasets[k].SOPInstanceUID for k in cut]
    assert 1 < len(cut) < 8 and uids == [*expected, anomaly_map.SOPInstanceUID]
    (study,) = pydicom.dcmread(out / "report.dcm").CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == datasets[0].StudyInstanceUID
    assert {
        one.SeriesInstanceUID: len(one.ReferencedSOPSequence)
        for one in study.ReferencedSeriesSequence
    } == {
        datasets[0].SeriesInstanceUID: 8,
        anomaly_map.SeriesInstanceUID: 1,
        pydicom.dcmread(out / "segmentation.dcm").SeriesInstanceUID: 1,
    }
    picture = pydicom.dcmread(out / "overlay.dcm")
    assert [shown.ReferencedSOPInstanceUID for shown in picture.SourceImageSequence] == expected


@pytest.mark.parametrize(("row", "number"), [(1, 4), (-1, 3)], ids=["to superior", "to inferior"])
def test_the_slice_that_an_upright_plane_lies_in(tmp_path, report, row, number):
    """1 mm above the middle of eight slices of 2 mm lies the fifth from below."""
    datasets = dicom_datasets(head_volume(), orientation=(row, 0, 0, 0, 1, 0))
    source = save(datasets, tmp_path / "axial")
    group = whole(report(make_result(source, tilt=0, off=1), source))
    assert [image.referenced_sop_instance_uid for image in group.source_images[:-1]] == [
        datasets[number].SOPInstanceUID
    ]


def test_an_axial_plane_crosses_every_image_of_a_sagittal_series(tmp_path, report):
    datasets = dicom_datasets(head_volume(), orientation=SAGITTAL)
    source = save(datasets, tmp_path / "sagittal")
    group = whole(report(make_result(source), source))
    uids = {image.referenced_sop_instance_uid for image in group.source_images[:-1]}
    assert uids == {dataset.SOPInstanceUID for dataset in datasets}


def test_frames_of_a_multiframe_source(tmp_path, report, out):
    source = enhanced(dicom_datasets(head_volume())[::-1], tmp_path / "source" / "e.dcm")
    group = whole(report(make_result(source, tilt=0, off=1), source))
    frames = pydicom.dcmread(source).PerFrameFunctionalGroupsSequence
    heights = [frame.PlanePositionSequence[0].ImagePositionPatient[2] for frame in frames]
    expected = int(np.argsort(heights)[4]) + 1
    assert list(group.source_images[0].referenced_frame_numbers) == [expected]
    (shown,) = pydicom.dcmread(out / "overlay.dcm").SourceImageSequence
    assert shown.ReferencedFrameNumber == expected


def test_sides_of_regions_are_coded(series, report):
    source = series("a")
    result = make_result(source)
    places = {"left": -30.0, "right": 30.0, "midline": 0.0}
    regions = tuple(
        replace(region, peak_mni_mm=(x, 0.0, 23.0))
        for region, x in zip(result.regions, places.values(), strict=True)
    )
    groups = report(
        replace(result, regions=regions), source
    ).get_volumetric_roi_measurement_groups()
    sites = [group.finding_sites[0] for group in groups]
    assert [getattr(site.laterality, "meaning", None) for site in sites] == ["Left", "Right", None]
    assert {site.value.meaning for site in sites} == {"Brain"}


def test_no_region(series, report, out):
    source = series("a")
    result = make_result(source, blobs=0)
    assert not result.regions
    content = report(result, source)
    assert numbers(whole(content))["Number of regions above the map threshold"] == 0
    assert not content.get_volumetric_roi_measurement_groups()
    assert sorted(path.name for path in out.iterdir()) == [
        "overlay.dcm",
        "parametric_map.dcm",
        "report.dcm",
    ]


def test_many_regions(series, report, out, monkeypatch):
    monkeypatch.setattr(structured_report, "MOST_REGIONS", 5)
    source = series("a")
    result = make_result(source)
    labels = np.zeros_like(result.regions_volume)
    cut = np.argwhere(result.map_volume > 0)[:12]
    labels[tuple(cut.T)] = np.arange(1, 13)
    regions = tuple(replace(result.regions[0], label=label) for label in range(1, 13))
    content = report(replace(result, regions=regions, regions_volume=labels), source)
    assert len(content.get_volumetric_roi_measurement_groups()) == 5
    assert texts(whole(content), codes.DCM.Comment)[1] == "5 regions with the highest peaks of 12"
    assert numbers(whole(content))["Number of regions above the map threshold"] == 12
    assert pydicom.dcmread(out / "segmentation.dcm").SegmentSequence[-1].SegmentNumber == 12


@pytest.mark.parametrize("refusal", ["missing_slice", "no_tissue"])
def test_refused_scan_has_a_report_that_says_so(series, report, out, refusal):
    reason = f"[{refusal}] {REFUSALS[refusal]}: 12.3; accepted: 4 to 5"
    content = report(make_refused(refusal, reason))
    assert [path.name for path in out.iterdir()] == ["report.dcm"]
    group = whole(content)
    found = evaluations(group)
    assert found["outcome"] == code("not_assessable")
    assert (found["reason"].value, found["reason"].scheme_designator) == (refusal, "99PSCREEN")
    assert texts(group, code("reason")) == [reason]
    assert set(numbers(group)) == {"Number of healthy people of the calibration"}
    assert len(group.source_images) == 8


def test_map_without_score(series, report, out):
    """A plane that the calibration does not cover has a map, but no score."""
    source = series("a")
    nothing = dict.fromkeys(
        ("score", "percentile", "p_value", "image_threshold", "false_positive_rate")
    )
    result = make_result(
        source, outcome="not_assessable", code="not_calibrated", reason="z = 40 mm", **nothing
    )
    group = whole(report(result, source))
    assert "Anomaly score" not in numbers(group)
    assert {name: answer.value for name, answer in evaluations(group).items()} == {
        "outcome": "not_assessable",
        "reason": "not_calibrated",
    }
    assert len(list(out.iterdir())) == 4


@pytest.mark.parametrize("refusal", REFUSALS)
def test_every_refusal_can_be_coded(refusal):
    assert refusal_code(refusal).value == refusal


def test_codes_fit_their_attributes():
    for value, meaning in MEANINGS.items():
        assert len(value) <= 16 and len(meaning) <= 64
