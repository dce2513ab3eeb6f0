"""Score, thresholds and regions as a Structured Report (TID 1500)."""

from collections.abc import Mapping, Sequence
from typing import Any

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pathology_screen import __version__
from pathology_screen.outputs.dicom.images import Reference
from pathology_screen.outputs.dicom.maker import ABNORMAL, FAMILY, PACKAGE, SCHEMES, Maker, code
from pathology_screen.result import Region

SERIES_NUMBER = 9003
MOST_REGIONS = 50
"""Most regions that the report lists, those with the highest peaks; the Segmentation holds all."""
PROCEDURE = sr.CodedConcept("816077007", "SCT", "Magnetic resonance imaging of brain")
LATERALITY = {"left": codes.SCT.Left, "right": codes.SCT.Right}
RESEARCH = "Research use only. Not for diagnosis. A low score does not mean that a scan is healthy."
NO_UNITS = codes.UCUM.NoUnits


def make_structured_report(
    images: Sequence[Dataset], shown: Sequence[Reference], made: Mapping[str, Dataset], maker: Maker
) -> sr.Comprehensive3DSR:
    """Make the report of a result, by the source (see `reference_images`), its images that the
    plane cuts (see `references_to`), and the objects that hold map and regions, by their names, if
    there are any."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=maker.device_uid,
        name=PACKAGE,
        manufacturer_name=PACKAGE,
        model_name=maker.title,
        serial_number=maker.weights,
    )
    observer = sr.ObserverContext(codes.DCM.Device, observer_identifying_attributes=device)
    anomaly_map, segmentation = map(made.get, ("parametric_map.dcm", "segmentation.dcm"))
    groups: list[Any] = [_whole(shown, anomaly_map, maker)]
    if segmentation is not None and anomaly_map is not None:
        for region in maker.result.regions[:MOST_REGIONS]:
            groups.append(_region(region, segmentation, anomaly_map, maker))
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=PROCEDURE,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    return sr.Comprehensive3DSR(
        evidence=[*images, *made.values()],
        content=report,
        **maker.instance(SERIES_NUMBER, "anomaly score and regions"),
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=SCHEMES,
    )


def _whole(
    shown: Sequence[Reference], anomaly_map: Dataset | None, maker: Maker
) -> sr.MeasurementsAndQualitativeEvaluations:
    result = maker.result
    values: list[Any] = [
        (code("score"), result.score, NO_UNITS),
        (codes.DCM.PercentileRankingOfMeasurement, result.percentile, codes.UCUM.Percent),
        (code("p_value"), result.p_value, NO_UNITS),
        (code("score_threshold"), result.image_threshold, NO_UNITS),
        (code("false_positives"), result.false_positive_rate, NO_UNITS),
        (code("healthy"), result.provenance.get("healthy", {}).get("subjects"), NO_UNITS),
        (code("map_threshold"), result.pixel_threshold, NO_UNITS),
    ]
    if result.map_volume is not None:
        values.append((code("regions"), len(result.regions), NO_UNITS))
    if result.slice is not None and (fit := result.slice.fit) is not None:
        values += [
            (code("plane"), result.slice.plane_mm, codes.UCUM.Millimeter),
            (code("dice"), fit.dice, NO_UNITS),
            (code("correlation"), fit.correlation, NO_UNITS),
        ]
    answers = {"outcome": result.outcome} | ({"reason": result.code} if result.code else {})
    if anomaly_map is not None:
        shown = [*shown, (anomaly_map.SOPClassUID, anomaly_map.SOPInstanceUID, None)]
    parameters = [f"{name}={value}" for name, value in maker.parameters.items()]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(maker.tracking_uid(), "Screening"),
        algorithm_id=sr.AlgorithmIdentification(
            maker.title, __version__, parameters, FAMILY, PACKAGE
        ),
        measurements=[sr.Measurement(*one) for one in values if one[1] is not None],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(code(name), code(value)) for name, value in answers.items()
        ],
        source_images=[sr.SourceImageForMeasurementGroup(*reference) for reference in shown],
    )
    texts = [(codes.DCM.Comment, RESEARCH)]
    if result.reason:
        texts.append((code("reason"), result.reason))
    if (count := len(result.regions)) > MOST_REGIONS:
        told = f"{MOST_REGIONS} regions with the highest peaks of {count}"
        texts.append((codes.DCM.Comment, told))
    for warning in result.warnings:
        told = f"{warning.code}: {warning.measured}; accepted: {warning.limit}"
        texts.append((code("warning"), told))
    contains = sr.RelationshipTypeValues.CONTAINS
    group[0].ContentSequence.extend(sr.TextContentItem(*text, contains) for text in texts)
    return group


def _region(
    region: Region, segmentation: Dataset, anomaly_map: Dataset, maker: Maker
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    source = sr.SourceImageForMeasurement(anomaly_map.SOPClassUID, anomaly_map.SOPInstanceUID)
    measurements = [sr.Measurement(codes.SCT.Area, region.area_mm2, codes.UCUM.SquareMillimeter)]
    for derivation, value in ((codes.SCT.Maximum, region.peak), (codes.SCT.Mean, region.mean)):
        how = {"derivation": derivation, "referenced_images": [source]}
        measurements.append(sr.Measurement(code("map"), value, NO_UNITS, **how))
    series = segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID
    tracked, named = maker.tracking_uid(region.label), f"Region {region.label}"
    held = segmentation.SOPClassUID, segmentation.SOPInstanceUID, region.label
    source_series = sr.SourceSeriesForSegmentation(series)
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(tracked, named),
        referenced_segment=sr.ReferencedSegment(*held, source_series=source_series),
        finding_category=ABNORMAL,
        finding_type=code("region"),
        finding_sites=[sr.FindingSite(codes.SCT.Brain, LATERALITY.get(region.side or ""))],
        measurements=measurements,
    )
