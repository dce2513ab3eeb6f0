"""Score, thresholds and regions as a Structured Report (TID 1500) that refers to source, map and
segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from highdicom.pm import ParametricMap
from highdicom.seg import Segmentation
from highdicom.sr import (
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceImageForMeasurement,
    SourceImageForMeasurementGroup,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pathology_screen.outputs.dicom.codes import DESIGNATOR, code, coding_schemes
from pathology_screen.outputs.dicom.maker import PACKAGE, Maker
from pathology_screen.outputs.dicom.segmentation import CATEGORY
from pathology_screen.outputs.dicom.source_images import Reference
from pathology_screen.result import Region, ScreeningResult

SERIES_NUMBER = 9003
MOST_REGIONS = 50
"""Most regions that the report lists, those with the highest peaks; the Segmentation holds all."""
PROCEDURE = CodedConcept("816077007", "SCT", "Magnetic resonance imaging of brain")
LATERALITY = {"left": codes.SCT.Left, "right": codes.SCT.Right}
RESEARCH = "Research use only. Not for diagnosis. A low score does not mean that a scan is healthy."


def make_structured_report(
    images: Sequence[Dataset],
    screened: Sequence[Reference],
    anomaly_map: ParametricMap | None,
    segmentation: Segmentation | None,
    result: ScreeningResult,
    maker: Maker,
) -> Comprehensive3DSR:
    """Make the report.

    Args:
        images: the source, see `reference_images`.
        screened: the source images that the plane cuts, see `references_to`.
        anomaly_map: the object that holds the map; None where there is no map.
        segmentation: the object that holds the regions; None where there is no region.
        result: what is reported.
        maker: of the result.
    """
    device = DeviceObserverIdentifyingAttributes(
        maker.device_uid,
        PACKAGE,
        manufacturer_name=PACKAGE,
        model_name=maker.title,
        serial_number=maker.weights,
    )
    observer = ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device
    )
    groups: list[Any] = [_whole(result, screened, anomaly_map, maker)]
    if segmentation is not None and anomaly_map is not None:
        groups += [
            _region(region, segmentation, anomaly_map, maker)
            for region in result.regions[:MOST_REGIONS]
        ]
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=PROCEDURE,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    return Comprehensive3DSR(
        evidence=[*images, *(made for made in (anomaly_map, segmentation) if made is not None)],
        content=report,
        **maker.instance(SERIES_NUMBER, "anomaly score and regions"),
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=coding_schemes(),
    )


def _whole(
    result: ScreeningResult,
    screened: Sequence[Reference],
    anomaly_map: ParametricMap | None,
    maker: Maker,
) -> MeasurementsAndQualitativeEvaluations:
    evaluations = [QualitativeEvaluation(code("outcome"), code(result.outcome))]
    if result.code is not None:
        evaluations.append(QualitativeEvaluation(code("reason"), refusal_code(result.code)))
    sources = [SourceImageForMeasurementGroup(*reference) for reference in screened]
    if anomaly_map is not None:
        sources.append(
            SourceImageForMeasurementGroup(anomaly_map.SOPClassUID, anomaly_map.SOPInstanceUID)
        )
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(maker.tracking_uid(), "Screening"),
        algorithm_id=maker.algorithm_content,
        measurements=_measurements(result),
        qualitative_evaluations=evaluations,
        source_images=sources,
    )
    texts = [(codes.DCM.Comment, RESEARCH)]
    if result.reason:
        texts.append((code("reason"), result.reason))
    if len(result.regions) > MOST_REGIONS:
        texts.append(
            (
                codes.DCM.Comment,
                f"{MOST_REGIONS} regions with the highest peaks of {len(result.regions)}",
            )
        )
    for warning in result.warnings:
        texts.append(
            (code("warning"), f"{warning.code}: {warning.measured}; accepted: {warning.limit}")
        )
    for name, text in texts:
        group[0].ContentSequence.append(
            TextContentItem(name, text, RelationshipTypeValues.CONTAINS)
        )
    return group


def refusal_code(refusal: str) -> CodedConcept:
    """Return a key of `errors.REFUSALS` as a code of the private scheme."""
    return CodedConcept(refusal, DESIGNATOR, refusal.replace("_", " "))


def _measurements(result: ScreeningResult) -> list[Measurement]:
    count = len(result.regions) if result.map_volume is not None else None
    values: list[tuple[Any, float | None, Any]] = [
        (code("score"), result.score, codes.UCUM.NoUnits),
        (codes.DCM.PercentileRankingOfMeasurement, result.percentile, codes.UCUM.Percent),
        (code("p_value"), result.p_value, codes.UCUM.NoUnits),
        (code("score_threshold"), result.image_threshold, codes.UCUM.NoUnits),
        (code("false_positives"), result.false_positive_rate, codes.UCUM.NoUnits),
        (code("healthy"), result.provenance.get("healthy", {}).get("subjects"), codes.UCUM.NoUnits),
        (code("map_threshold"), result.pixel_threshold, codes.UCUM.NoUnits),
        (code("regions"), count, codes.UCUM.NoUnits),
    ]
    one = result.slice
    if one is not None and one.fit is not None:
        values += [
            (code("plane"), one.plane_mm, codes.UCUM.Millimeter),
            (code("dice"), one.fit.dice, codes.UCUM.NoUnits),
            (code("correlation"), one.fit.correlation, codes.UCUM.NoUnits),
        ]
    return [Measurement(name, value, unit) for name, value, unit in values if value is not None]


def _region(
    region: Region, segmentation: Segmentation, anomaly_map: ParametricMap, maker: Maker
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    source = SourceImageForMeasurement(anomaly_map.SOPClassUID, anomaly_map.SOPInstanceUID)
    measurements = [Measurement(codes.SCT.Area, region.area_mm2, codes.UCUM.SquareMillimeter)]
    for derivation, value in ((codes.SCT.Maximum, region.peak), (codes.SCT.Mean, region.mean)):
        measurements.append(
            Measurement(
                *(code("map"), value, codes.UCUM.NoUnits),
                derivation=derivation,
                referenced_images=[source],
            )
        )
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            maker.tracking_uid(region.label), f"Region {region.label}"
        ),
        referenced_segment=ReferencedSegment(
            segmentation.SOPClassUID,
            segmentation.SOPInstanceUID,
            region.label,
            source_series=SourceSeriesForSegmentation(
                segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID
            ),
        ),
        finding_category=CATEGORY,
        finding_type=code("region"),
        finding_sites=[FindingSite(codes.SCT.Brain, LATERALITY.get(region.side or ""))],
        measurements=measurements,
    )
