"""The report says what the result says, and refers to what it was measured on."""

from dataclasses import replace

import numpy as np
from highdicom.sr.utils import find_content_items
from outputs.dicom.result_builders import THRESHOLD, content, make_refused, whole
from pydicom.sr.codedict import codes

from pathology_screen.errors import REFUSALS
from pathology_screen.outputs.dicom import NAMES, structured_report
from pathology_screen.outputs.dicom.maker import MEANINGS, code
from pathology_screen.result import Finding


def numbers(group):
    return {measurement.name.meaning: measurement.value for measurement in group.get_measurements()}


def evaluations(group):
    """The coded answers; highdicom counts the algorithm's family as one."""
    found = group.get_qualitative_evaluations()
    return {one.name.value: one.value for one in found if one.name != codes.DCM.AlgorithmFamily}


def texts(group, name):
    return [one.value for one in find_content_items(group[0], name=name, value_type="TEXT")]


def test_numbers_are_those_of_the_result(write):
    result, made = write()
    group = whole(made)
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


def test_outcome_warnings_research_label_algorithm_and_device(write):
    warning = Finding("contrast_agent", "stated", "none", refused=False)
    made = write(outcome="normal", findings=(warning,))[1]
    group, report = whole(made), made["report.dcm"]
    assert evaluations(group) == {"outcome": code("normal")}
    assert texts(group, codes.DCM.Comment)[0].startswith("Research use only. Not for diagnosis.")
    assert texts(group, code("warning")) == ["contrast_agent: stated; accepted: none"]
    parts = [part for part in group[0].ContentSequence if hasattr(part, "TextValue")]
    found = {part.name.meaning: part.value for part in parts}
    assert found["Algorithm Name"] == "Reversed Autoencoder"
    (family,) = find_content_items(group[0], name=codes.DCM.AlgorithmFamily)
    assert family.value == codes.DCM.ArtificialIntelligence
    (observer,) = content(made).get_observer_contexts()
    device = observer.observer_identifying_attributes
    assert device.serial_number == "d" * 64 and device.manufacturer_name == "pathology_screen"
    flags = report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag
    assert flags == ("COMPLETE", "PRELIMINARY", "UNVERIFIED")
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99PSCREEN"


def test_regions(write):
    result, made = write()
    groups = content(made).get_volumetric_roi_measurement_groups()
    assert len(groups) == len(result.regions) >= 3
    map_, dataset = (made[name] for name in NAMES[:2])
    for region, group, segment in zip(result.regions, groups, dataset.SegmentSequence):
        values = {
            (one.name.meaning, getattr(one.derivation, "meaning", None)): one
            for one in group.get_measurements()
        }
        area, peak = ("Area", None), ("Anomaly map value", "Maximum")
        told = {area: region.area_mm2, peak: region.peak, (peak[0], "Mean"): region.mean}
        assert {key: one.value for key, one in values.items()} == told
        assert values[area].unit == codes.UCUM.SquareMillimeter
        assert values[peak].unit == codes.UCUM.NoUnits
        (image,) = values[peak].referenced_images
        assert image.referenced_sop_instance_uid == map_.SOPInstanceUID
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
    assert dataset.ContentQualification == "RESEARCH"


def test_no_region(write):
    result, made = write(blobs=0)
    assert not result.regions and not content(made).get_volumetric_roi_measurement_groups()
    assert numbers(whole(made))["Number of regions above the map threshold"] == 0
    assert sorted(made) == ["overlay.dcm", "parametric_map.dcm", "report.dcm"]


def test_many_regions_and_their_sides(write, monkeypatch):
    monkeypatch.setattr(structured_report, "MOST_REGIONS", 5)
    result, _ = write()
    labels, first = np.zeros_like(result.regions_volume), result.regions[0]
    labels[tuple(np.argwhere(result.map_volume > 0)[:12].T)] = np.arange(1, 13)
    regions = tuple(
        replace(first, label=label, peak_mni_mm=((-30.0, 30.0, 0.0)[label % 3], 0.0, 23.0))
        for label in range(1, 13)
    )
    made = write(regions=regions, regions_volume=labels)[1]
    groups = content(made).get_volumetric_roi_measurement_groups()
    sites = [group.finding_sites[0] for group in groups]
    sides = [getattr(site.laterality, "meaning", None) for site in sites]
    assert sides == ["Right", None, "Left", "Right", None]
    assert {site.value.meaning for site in sites} == {"Brain"}
    comments = texts(whole(made), codes.DCM.Comment)
    assert comments[1] == "5 regions with the highest peaks of 12"
    assert numbers(whole(made))["Number of regions above the map threshold"] == 12
    assert made["segmentation.dcm"].SegmentSequence[-1].SegmentNumber == 12


def test_refused_scan_has_a_report_that_says_so(write):
    reason = f"[no_tissue] {REFUSALS['no_tissue']}: 12.3; accepted: 4 to 5"
    made = write(result=make_refused("no_tissue", reason))[1]
    group = whole(made)
    assert list(made) == ["report.dcm"]
    found = evaluations(group)
    assert found["outcome"] == code("not_assessable")
    assert (found["reason"].value, found["reason"].scheme_designator) == ("no_tissue", "99PSCREEN")
    assert texts(group, code("reason")) == [reason]
    assert set(numbers(group)) == {"Number of healthy people of the calibration"}
    assert len(group.source_images) == 8


def test_map_without_score(write):
    """A plane that the calibration does not cover has a map, but no score."""
    scores = ("score", "percentile", "p_value", "image_threshold", "false_positive_rate")
    lacking = {"outcome": "not_assessable", "code": "not_calibrated", "reason": "z = 40 mm"}
    made = write(**lacking, **dict.fromkeys(scores))[1]
    assert "Anomaly score" not in numbers(whole(made)) and len(made) == 4
    answers = {name: answer.value for name, answer in evaluations(whole(made)).items()}
    assert answers == {"outcome": "not_assessable", "reason": "not_calibrated"}
