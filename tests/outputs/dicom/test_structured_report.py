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
from pathology_screen.outputs.dicom.maker import MEANINGS, code
from pathology_screen.result import Finding


@pytest.fixture
def report(series, out):
    """Function that writes a result and gives the content of its report."""

    def write(result, source=None):
        write_dicom(result, source or series(), out)
        return highdicom.sr.srread(out / "report.dcm").content

    return write


@pytest.fixture
def made(series, report):
    """Function that makes a result of a series, writes it, and gives it with its report."""

    def make(**changes):
        source = series("a")
        result = make_result(source, **changes)
        return result, report(result, source)

    return make


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


def test_map_states_its_quantity(made, out):
    result = made()[0]
    dataset = pydicom.dcmread(out / "parametric_map.dcm")
    (shared,) = dataset.SharedFunctionalGroupsSequence
    (mapping,) = shared.RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    (concept,) = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence
    assert concept.CodeMeaning == MEANINGS["map"]
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == 0
    assert mapping.DoubleFloatRealWorldValueLastValueMapped >= result.map_volume.max()
    (window,) = shared.FrameVOILUTSequence
    assert window.VOILUTFunction == "LINEAR_EXACT"  # LINEAR needs a window not narrower than 1
    assert dataset.ContentQualification == "RESEARCH"


def test_sources_are_the_images_that_the_plane_cuts_and_the_map(tmp_path, report, out):
    datasets = dicom_datasets(head_volume())
    source = save(datasets, tmp_path / "axial")
    result = make_result(source, tilt=8)
    cut = np.flatnonzero(result.map_volume.any(axis=(0, 1)))
    group = whole(report(result, source))
    uids = [image.referenced_sop_instance_uid for image in group.source_images]
    made = {path.stem: pydicom.dcmread(path) for path in out.iterdir()}
    expected = [datasets[k].SOPInstanceUID for k in cut]
    assert 1 < len(cut) < 8 and uids == [*expected, made["parametric_map"].SOPInstanceUID]
    (study,) = made["report"].CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == datasets[0].StudyInstanceUID
    counts = {
        one.SeriesInstanceUID: len(one.ReferencedSOPSequence)
        for one in study.ReferencedSeriesSequence
    }
    assert counts == {
        datasets[0].SeriesInstanceUID: 8,
        made["parametric_map"].SeriesInstanceUID: 1,
        made["segmentation"].SeriesInstanceUID: 1,
    }
    shown = made["overlay"].SourceImageSequence
    assert [image.ReferencedSOPInstanceUID for image in shown] == expected


@pytest.mark.parametrize(("row", "number"), [(1, 4), (-1, 3)], ids=["to superior", "to inferior"])
def test_the_slice_that_an_upright_plane_lies_in(tmp_path, report, row, number):
    """1 mm above the middle of eight slices of 2 mm lies the fifth from below."""
    datasets = dicom_datasets(head_volume(), orientation=(row, 0, 0, 0, 1, 0))
    source = save(datasets, tmp_path / "axial")
    group = whole(report(make_result(source, tilt=0, off=1), source))
    uids = [image.referenced_sop_instance_uid for image in group.source_images[:-1]]
    assert uids == [datasets[number].SOPInstanceUID]


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


def test_codes_fit_their_attributes_and_every_refusal_has_one():
    for value, meaning in MEANINGS.items():
        assert len(value) <= 16 and len(meaning) <= 64
    assert all(code(refusal).value == refusal for refusal in REFUSALS)
