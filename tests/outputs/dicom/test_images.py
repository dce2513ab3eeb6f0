"""What is read back lies, voxel by voxel, where the result has it; objects refer to the images that
the plane cuts, and stand in the study of the source."""

import logging

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from outputs.dicom.result_builders import make_result, whole
from pydicom.uid import ExplicitVRLittleEndian
from scan_builders import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    SPACING,
    TILTED,
    dicom_datasets,
    head_volume,
    multiframe,
    save,
    zipped,
)
from scipy.spatial.transform import Rotation

from pathology_screen.io.source import PATIENT_AND_STUDY
from pathology_screen.outputs.dicom import NAMES, write_dicom
from pathology_screen.outputs.dicom.maker import MEANINGS

ORIENTATIONS = {
    "axial": AXIAL,
    "coronal": CORONAL,
    "sagittal": SAGITTAL,
    "tilted": TILTED,
    "reversed axial": (-1, 0, 0, 0, 1, 0),
    "reversed coronal": (-1, 0, 0, 0, 0, -1),
    "reversed sagittal": (0, -1, 0, 0, 0, -1),
    "rows up": (0, 1, 0, 0, 0, 1),
    "rows and columns swapped": (0, 1, 0, 1, 0, 0),
}


def on_voxels_of(volume: highdicom.Volume, result) -> np.ndarray:
    """What was read back, whole voxels of the result, as an array on all of its voxels."""
    image = nib.Nifti1Image(np.asarray(volume.array, np.float32), volume.get_affine("RAS"))
    axes = nib.io_orientation(image.affine), nib.io_orientation(result.affine)
    turned = image.as_reoriented(nib.orientations.ornt_transform(*axes))
    to_result = np.linalg.solve(result.affine, turned.affine)  # voxel -> voxel
    long_axes = np.asarray(turned.shape) > 1  # along an axis of one voxel spacing has no meaning
    offset = np.rint(to_result[:3, 3]).astype(int)
    np.testing.assert_allclose(to_result[:3, 3], offset, atol=1e-3)
    np.testing.assert_allclose(to_result[:3, :3][:, long_axes], np.eye(3)[:, long_axes], atol=1e-4)
    assert np.all(offset >= 0) and np.all(offset + turned.shape <= result.map_volume.shape)
    found = np.zeros(result.map_volume.shape, np.float32)
    place = tuple(slice(start, start + size) for start, size in zip(offset, turned.shape))
    found[place] = turned.get_fdata(dtype=np.float32)
    return found


def check_round_trip(result, folder):
    anomaly_map = highdicom.imread(folder / "parametric_map.dcm").get_volume()
    np.testing.assert_array_equal(on_voxels_of(anomaly_map, result), result.map_volume)
    regions = highdicom.seg.segread(folder / "segmentation.dcm")
    labels = regions.get_volume(combine_segments=True, allow_missing_positions=True)
    np.testing.assert_array_equal(on_voxels_of(labels, result), result.regions_volume)
    assert regions.number_of_segments == len(result.regions)


def check_references(source_images, folder):
    """Every frame of the map and the segments names the source image at its own position."""
    positions = {
        image.SOPInstanceUID: np.array(image.ImagePositionPatient, float) for image in source_images
    }
    for name in ("parametric_map", "segmentation"):
        for groups in pydicom.dcmread(folder / f"{name}.dcm").PerFrameFunctionalGroupsSequence:
            (derivation,) = groups.DerivationImageSequence
            (source,) = derivation.SourceImageSequence
            position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
            expected = positions[source.ReferencedSOPInstanceUID]
            np.testing.assert_allclose(position, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("base", ORIENTATIONS.values(), ids=ORIENTATIONS)
@settings(max_examples=3, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-7, 7)] * 3),
    spacing=st.tuples(*[st.floats(0.7, 6.0)] * 3),
    block=st.just(10),
)
@example((0.0, 0.0, 0.0), SPACING, 4)
def test_series_in_any_orientation(tmp_path_factory, base, angles, spacing, block):
    folder = tmp_path_factory.mktemp("any")
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    orientation = np.concatenate([turn @ base[:3], turn @ base[3:]]).round(10)
    geometry = {"orientation": orientation, "spacing": tuple(round(mm, 4) for mm in spacing)}
    datasets = dicom_datasets(head_volume(), **geometry)
    source = save(datasets, folder / "series")
    result = make_result(source, block=block)
    assert len(result.regions) == 3
    write_dicom(result, source, folder / "out")
    check_round_trip(result, folder / "out")
    check_references(datasets, folder / "out")


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "tilted", "reversed axial"])
@pytest.mark.parametrize("per_frame", [False, True], ids=["shared", "in every frame"])
def test_enhanced_multiframe_with_frames_in_any_order(tmp_path, write, out, orientation, per_frame):
    datasets = dicom_datasets(head_volume(), orientation=ORIENTATIONS[orientation])
    shuffled = [datasets[k] for k in (5, 0, 7, 2, 1, 6, 4, 3)]
    for number, dataset in enumerate(shuffled):
        dataset.InstanceNumber = number + 1
    source = multiframe(shuffled, tmp_path / "source" / "e.dcm", per_frame)
    result, made = write(source)
    check_round_trip(result, out)
    frames = pydicom.dcmread(source).PerFrameFunctionalGroupsSequence
    for groups in made["parametric_map.dcm"].PerFrameFunctionalGroupsSequence:
        referenced = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert groups.PlanePositionSequence == frames[referenced - 1].PlanePositionSequence


def test_archive_list_of_files_and_one_axial_slice(series, write, out, tmp_path):
    files = sorted(series().iterdir(), reverse=True)
    for source in (zipped(files, tmp_path / "scan.zip"), files, series("one", slices=1)):
        check_round_trip(write(source)[0], out)


def test_positions_that_are_not_quite_regular_are_those_of_the_source(tmp_path, write, out):
    datasets = dicom_datasets(head_volume())
    for k, dataset in enumerate(datasets):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + 0.004 * (-1) ** k]
        first, _, *rest = dataset.ImageOrientationPatient
        skew = 0.00004 * (k % 2)  # within what the reader takes
        dataset.ImageOrientationPatient = [first, skew, *rest]
    write(save(datasets, tmp_path / "series"))
    check_references(datasets, out)


def test_map_has_the_frames_that_the_plane_cuts_and_states_its_quantity(write):
    """Of slices 2 mm apart, over 30 mm, a plane that is tilted by 8 degrees cuts some."""
    result, made = write(tilt=8)
    dataset = made["parametric_map.dcm"]
    cut = np.flatnonzero(result.map_volume.any(axis=(0, 1)))
    shape = dataset.NumberOfFrames, dataset.Rows, dataset.Columns
    assert 1 < len(cut) < 8 and shape == (len(cut), 20, 16)
    assert dataset.pixel_array.dtype == np.float32 and dataset.pixel_array.any(axis=(1, 2)).all()
    (shared,) = dataset.SharedFunctionalGroupsSequence
    measures = shared.PixelMeasuresSequence[0]
    assert measures.SpacingBetweenSlices == 2.0  # from the positions: the source states 99
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


def test_sources_are_the_images_that_the_plane_cuts_and_the_map(tmp_path, write):
    datasets = dicom_datasets(head_volume())
    result, made = write(save(datasets, tmp_path / "axial"), tilt=8)
    cut = np.flatnonzero(result.map_volume.any(axis=(0, 1)))
    uids = [image.referenced_sop_instance_uid for image in whole(made).source_images]
    map_, segmentation, report, overlay = (made[name] for name in NAMES)
    expected = [datasets[k].SOPInstanceUID for k in cut]
    assert 1 < len(cut) < 8 and uids == [*expected, map_.SOPInstanceUID]
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == datasets[0].StudyInstanceUID
    counts = {
        one.SeriesInstanceUID: len(one.ReferencedSOPSequence)
        for one in study.ReferencedSeriesSequence
    }
    held = (datasets[0], map_, segmentation)
    assert counts == dict(zip((one.SeriesInstanceUID for one in held), (8, 1, 1)))
    shown = overlay.SourceImageSequence
    assert [image.ReferencedSOPInstanceUID for image in shown] == expected


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [((1, 0, 0, 0, 1, 0), [4]), ((-1, 0, 0, 0, 1, 0), [3]), (SAGITTAL, range(8))],
    ids=["to superior", "to inferior", "sagittal"],
)
def test_images_that_an_upright_plane_lies_in_or_crosses(tmp_path, write, orientation, shown):
    """1 mm above the middle of eight slices of 2 mm lies the fifth from below."""
    datasets = dicom_datasets(head_volume(), orientation=orientation)
    group = whole(write(save(datasets, tmp_path / "series"), tilt=0, off=1)[1])
    uids = {image.referenced_sop_instance_uid for image in group.source_images[:-1]}
    assert uids == {datasets[number].SOPInstanceUID for number in shown}


def test_frames_of_a_multiframe_source(tmp_path, write):
    source = multiframe(dicom_datasets(head_volume())[::-1], tmp_path / "source" / "e.dcm")
    made = write(source, tilt=0, off=1)[1]
    frames = pydicom.dcmread(source).PerFrameFunctionalGroupsSequence
    heights = [frame.PlanePositionSequence[0].ImagePositionPatient[2] for frame in frames]
    expected = int(np.argsort(heights)[4]) + 1
    assert list(whole(made).source_images[0].referenced_frame_numbers) == [expected]
    (shown,) = made["overlay.dcm"].SourceImageSequence
    assert shown.ReferencedFrameNumber == expected


HIDDEN = (
    *("PatientComments", "AdditionalPatientHistory", "OtherPatientIDs", "InstitutionName"),
    *("OperatorsName", "ImageComments", "ProtocolName", "StationName", "PatientAddress"),
)


@pytest.mark.parametrize("whole_object", [False, True])
def test_patient_and_study_are_those_of_the_source_and_nothing_else_is(
    tmp_path, write, out, whole_object
):
    study = {"StudyDescription": "MRI HEAD", "StudyDate": "20260102", "StudyTime": "101112.5"}
    hidden = dict.fromkeys(HIDDEN, "CANARY-HIDDEN") | {"RequestAttributesSequence": []}
    datasets = dicom_datasets(head_volume(), StudyID="7", **study, **hidden)
    folder = tmp_path / "source"
    source = multiframe(datasets, folder / "e.dcm") if whole_object else save(datasets, folder)
    objects = write(source)[1]
    assert sorted(objects) == sorted(NAMES)
    for name, made in objects.items():
        for keyword in PATIENT_AND_STUDY:
            assert made.get(keyword) == datasets[0].get(keyword), (name, keyword)
        space = None if "report" in name else datasets[0].FrameOfReferenceUID
        assert made.get("FrameOfReferenceUID") == space
        assert made.SeriesDescription.startswith("RESEARCH ONLY: ")
        assert made.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert b"CANARY-HIDDEN" not in (out / name).read_bytes()


@pytest.mark.parametrize(
    "charset, name",
    [
        (None, "Doe^Jane"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("NOT A CHARSET", "Doe^Jane"),
    ],
)
@pytest.mark.filterwarnings("ignore:Unknown encoding")
def test_names_in_any_character_set(series, write, charset, name):
    stated = {"PatientName": name} | ({"SpecificCharacterSet": charset} if charset else {})
    for made in write(series(**stated))[1].values():
        assert str(made.PatientName) == name
        assert made.get("SpecificCharacterSet") == charset


# warnings of pydicom, when the scan is built
@pytest.mark.filterwarnings("ignore:Invalid value", "ignore:The value")
def test_what_is_invalid_in_the_source_is_copied_and_told_to_nobody(
    series, write, caplog, capfd, recwarn
):
    caplog.set_level(logging.DEBUG)
    wrong = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")
    long = dict.fromkeys(("PatientID", "StudyDescription"), "CANARY" * 12)
    invalid = dict.fromkeys(wrong, "CANARY")
    source = series(**invalid, **long)
    result = make_result(source)
    for record in (caplog, recwarn):
        record.clear()
    capfd.readouterr()
    made = write(source, result)[1]
    said = [caplog.text, *capfd.readouterr(), *(str(warning.message) for warning in recwarn.list)]
    assert not [text for text in said if "CANARY" in text]
    with pydicom.config.disable_value_validation():
        for one in made.values():
            assert {keyword: one[keyword].value for keyword in invalid} == invalid


def test_what_the_source_lacks_is_empty(tmp_path, write):
    datasets = dicom_datasets(head_volume(), NumberOfFrames=1)  # allowed in an object of one frame
    lacking = (
        *("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
        *("StudyTime", "PositionReferenceIndicator", "SliceThickness", "SeriesNumber"),
    )
    for dataset in datasets:
        for keyword in lacking:
            delattr(dataset, keyword)
    for made in write(save(datasets, tmp_path / "series"))[1].values():
        assert not made.PatientName and made.StudyTime == ""
