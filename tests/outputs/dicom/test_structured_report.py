"""The report says what the result says, and refers to what it was measured on."""

from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
from outputs.dicom.result_builders import THRESHOLD, make_refused, make_result, whole
from pydicom.sr.codedict import codes

from pathology_screen.errors import REFUSALS
from pathology_screen.outputs.dicom import structured_report
from pathology_screen.outputs.dicom.maker import MEANINGS, code
from pathology_screen.result import Finding


@pytest.fixture
def made(series, report):
    """Function that makes a result of a series, writes it, and gives it with its report."""

    def make(**changes):
        source = series("a")
        result = make_result(source, **changes)
        return result, report(result, source)

    return make


def numbers(group):
    return {measurement.name.meaning: measurement.value for measurement in group.get_measurements()}


def evaluations(group):
    """The coded answers; highdicom counts the algorithm's family as one."""
    found = group.get_qualitative_evaluations()
    return {one.name.value: one.value for one in found if one.name != codes.DCM.AlgorithmFamily}


def texts(group, name):
    items = highdicom.sr.utils.find_content_items(group[0], name=name, value_type="TEXT")
    return [item.value for item in items]


def test_numbers_are_those_of_the_result(made):
    result, content = made()
    group = whole(content)
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
    assert {one.unit.value for one in group.get_measurements()} == {"1", "%", "mm"}


def test_outcome_warnings_and_the_research_label(made):
    warning = Finding("contrast_agent", "stated", "none", refused=False)
    group = whole(made(outcome="normal", findings=(warning,))[1])
    assert evaluations(group) == {"outcome": code("normal")}
    assert texts(group, codes.DCM.Comment)[0].startswith("Research use only. Not for diagnosis.")
    assert texts(group, code("warning")) == ["contrast_agent: stated; accepted: none"]


def test_algorithm_and_device_are_identified(made, out):
    content = made()[1]
    item = whole(content)[0]
    parts = [part for part in item.ContentSequence if hasattr(part, "TextValue")]
    found = {part.name.meaning: part.value for part in parts}
    assert found["Algorithm Name"] == "Reversed Autoencoder"
    family = highdicom.sr.utils.find_content_items(item, name=codes.DCM.AlgorithmFamily)[0]
    assert family.value == codes.DCM.ArtificialIntelligence
    (observer,) = content.get_observer_contexts()
    device = observer.observer_identifying_attributes
    assert device.serial_number == "d" * 64 and device.manufacturer_name == "pathology_screen"
    dataset = pydicom.dcmread(out / "report.dcm")
    flags = dataset.CompletionFlag, dataset.PreliminaryFlag, dataset.VerificationFlag
    assert flags == ("COMPLETE", "PRELIMINARY", "UNVERIFIED")
    (scheme,) = dataset.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99PSCREEN"


def test_regions(made, out):
    result, content = made()
    groups = content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(result.regions) >= 3
    dataset = pydicom.dcmread(out / "segmentation.dcm")
    map_uid = pydicom.dcmread(out / "parametric_map.dcm").SOPInstanceUID
    for region, group, segment in zip(result.regions, groups, dataset.SegmentSequence):
        values = {
            (one.name.meaning, getattr(one.derivation, "meaning", None)): one
            for one in group.get_measurements()
        }
        assert {key: one.value for key, one in values.items()} == {
            ("Area", None): region.area_mm2,
            ("Anomaly map value", "Maximum"): region.peak,
            ("Anomaly map value", "Mean"): region.mean,
        }
        peak = values[("Anomaly map value", "Maximum")]
        assert peak.unit == codes.UCUM.NoUnits
        assert peak.referenced_images[0].referenced_sop_instance_uid == map_uid
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == dataset.SOPInstanceUID
        assert reference.referenced_segment_numbers == [region.label] == [segment.SegmentNumber]
        tracked = group.tracking_uid, group.tracking_identifier
        assert tracked == (segment.TrackingUID, segment.TrackingID)
        (category,) = segment.SegmentedPropertyCategoryCodeSequence
        assert (group.finding_type, group.finding_category) == (code("region"), category)
        assert (category.CodeValue, category.CodingSchemeDesignator) == ("49755003", "SCT")
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == MEANINGS["region"]
        by = segment.SegmentAlgorithmType, segment.SegmentAlgorithmName
        assert by == ("AUTOMATIC", "Reversed Autoencoder")
        assert values[("Area", None)].unit == codes.UCUM.SquareMillimeter
    assert dataset.ContentQualification == "RESEARCH"


def test_sides_of_regions_are_coded(series, report):
    source = series("a")
    result = make_result(source)
    places = (-30.0, 30.0, 0.0)
    regions = tuple(
        replace(region, peak_mni_mm=(x, 0.0, 23.0))
        for region, x in zip(result.regions, places, strict=True)
    )
    content = report(replace(result, regions=regions), source)
    sites = [group.finding_sites[0] for group in content.get_volumetric_roi_measurement_groups()]
    assert [getattr(site.laterality, "meaning", None) for site in sites] == ["Left", "Right", None]
    assert {site.value.meaning for site in sites} == {"Brain"}


def test_no_region(made, out):
    result, content = made(blobs=0)
    assert not result.regions and not content.get_volumetric_roi_measurement_groups()
    assert numbers(whole(content))["Number of regions above the map threshold"] == 0
    names = {path.name for path in out.iterdir()}
    assert names == {"overlay.dcm", "parametric_map.dcm", "report.dcm"}


def test_many_regions(series, report, out, monkeypatch):
    monkeypatch.setattr(structured_report, "MOST_REGIONS", 5)
    source = series("a")
    result = make_result(source)
    labels = np.zeros_like(result.regions_volume)
    labels[tuple(np.argwhere(result.map_volume > 0)[:12].T)] = np.arange(1, 13)
    regions = tuple(replace(result.regions[0], label=label) for label in range(1, 13))
    content = report(replace(result, regions=regions, regions_volume=labels), source)
    assert len(content.get_volumetric_roi_measurement_groups()) == 5
    assert texts(whole(content), codes.DCM.Comment)[1] == "5 regions with the highest peaks of 12"
    assert numbers(whole(content))["Number of regions above the map threshold"] == 12
    assert pydicom.dcmread(out / "segmentation.dcm").SegmentSequence[-1].SegmentNumber == 12


@pytest.mark.parametrize("refusal", ["missing_slice", "no_tissue"])
def test_refused_scan_has_a_report_that_says_so(report, out, refusal):
    reason = f"[{refusal}] {REFUSALS[refusal]}: 12.3; accepted: 4 to 5"
    group = whole(report(make_refused(refusal, reason)))
    assert [path.name for path in out.iterdir()] == ["report.dcm"]
    found = evaluations(group)
    assert found["outcome"] == code("not_assessable")
    assert (found["reason"].value, found["reason"].scheme_designator) == (refusal, "99PSCREEN")
    assert texts(group, code("reason")) == [reason]
    assert set(numbers(group)) == {"Number of healthy people of the calibration"}
    assert len(group.source_images) == 8


def test_map_without_score(made, out):
    """A plane that the calibration does not cover has a map, but no score."""
    scores = ("score", "percentile", "p_value", "image_threshold", "false_positive_rate")
    lacking = {"outcome": "not_assessable", "code": "not_calibrated", "reason": "z = 40 mm"}
    group = whole(made(**lacking, **dict.fromkeys(scores))[1])
    assert "Anomaly score" not in numbers(group)
    answers = {name: answer.value for name, answer in evaluations(group).items()}
    assert answers == {"outcome": "not_assessable", "reason": "not_calibrated"}
    assert len(list(out.iterdir())) == 4
