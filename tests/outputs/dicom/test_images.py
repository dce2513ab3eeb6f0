"""What is read back lies, voxel by voxel, where the result has it."""

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outputs.dicom.result_builders import make_result
from scan_builders import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    TILTED,
    dicom_datasets,
    head_volume,
    multiframe,
    save,
    zipped,
)
from scipy.spatial.transform import Rotation

from pathology_screen.outputs.dicom import write_dicom
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


def embed(part, part_affine, shape, affine) -> np.ndarray:
    """Put a block of whole voxels of a volume back into a zero volume of this shape and affine."""
    to_volume = np.linalg.solve(affine, part_affine)  # voxel of the part -> voxel of the volume
    long_axes = np.asarray(part.shape) > 1  # along an axis of one voxel the spacing has no meaning
    offset = np.rint(to_volume[:3, 3]).astype(int)
    np.testing.assert_allclose(to_volume[:3, 3], offset, atol=1e-3)
    np.testing.assert_allclose(to_volume[:3, :3][:, long_axes], np.eye(3)[:, long_axes], atol=1e-4)
    assert np.all(offset >= 0) and np.all(offset + part.shape <= shape)
    volume = np.zeros(shape, part.dtype)
    volume[tuple(slice(o, o + n) for o, n in zip(offset, part.shape))] = part
    return volume


def on_voxels_of(volume: highdicom.Volume, result) -> np.ndarray:
    """What was read back, as an array on the voxels of the result."""
    image = nib.Nifti1Image(np.asarray(volume.array, np.float32), volume.get_affine("RAS"))
    axes = nib.io_orientation(image.affine), nib.io_orientation(result.affine)
    turned = image.as_reoriented(nib.orientations.ornt_transform(*axes))
    part = turned.get_fdata(dtype=np.float32)
    return embed(part, turned.affine, result.map_volume.shape, result.affine)


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


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_series(series, write, out, orientation):
    source = series(orientation=ORIENTATIONS[orientation])
    result = write(source)
    assert len(result.regions) >= 3
    check_round_trip(result, out)
    check_references([pydicom.dcmread(file) for file in source.iterdir()], out)


@pytest.mark.parametrize("orientation", ["axial", "sagittal", "tilted", "reversed axial"])
@pytest.mark.parametrize("per_frame", [False, True], ids=["shared", "in every frame"])
def test_enhanced_multiframe_with_frames_in_any_order(tmp_path, write, out, orientation, per_frame):
    datasets = dicom_datasets(head_volume(), orientation=ORIENTATIONS[orientation])
    shuffled = [datasets[k] for k in (5, 0, 7, 2, 1, 6, 4, 3)]
    for number, dataset in enumerate(shuffled):
        dataset.InstanceNumber = number + 1
    source = multiframe(shuffled, tmp_path / "source" / "e.dcm", per_frame)
    check_round_trip(write(source), out)
    frames = pydicom.dcmread(source).PerFrameFunctionalGroupsSequence
    for groups in pydicom.dcmread(out / "parametric_map.dcm").PerFrameFunctionalGroupsSequence:
        referenced = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert groups.PlanePositionSequence == frames[referenced - 1].PlanePositionSequence


def test_archive_list_of_files_and_one_axial_slice(series, write, out, tmp_path):
    files = sorted(series().iterdir(), reverse=True)
    for source in (zipped(files, tmp_path / "scan.zip"), files, series("one", slices=1)):
        check_round_trip(write(source), out)


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


def test_parametric_map_has_the_frames_that_the_plane_cuts(series, write, out):
    """Of slices 2 mm apart, over 30 mm, a plane that is tilted by 8 degrees cuts some."""
    result = write(series(), tilt=8)
    dataset = pydicom.dcmread(out / "parametric_map.dcm")
    cut = np.flatnonzero(result.map_volume.any(axis=(0, 1)))
    shape = dataset.NumberOfFrames, dataset.Rows, dataset.Columns
    assert 1 < len(cut) < 8 and shape == (len(cut), 20, 16)
    assert dataset.pixel_array.dtype == np.float32 and dataset.pixel_array.any(axis=(1, 2)).all()
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SpacingBetweenSlices == 2.0  # from the positions: the source states 99


@settings(max_examples=6, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-7, 7)] * 3),
    base=st.sampled_from([*ORIENTATIONS.values()]),
    spacing=st.tuples(*[st.floats(0.7, 6.0)] * 3),
)
def test_any_orientation(tmp_path_factory, angles, base, spacing):
    folder = tmp_path_factory.mktemp("any")
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    orientation = np.concatenate([turn @ base[:3], turn @ base[3:]]).round(10)
    geometry = {"orientation": orientation, "spacing": tuple(round(mm, 4) for mm in spacing)}
    source = save(dicom_datasets(head_volume(), **geometry), folder / "series")
    result = make_result(source, block=10)
    write_dicom(result, source, folder / "out")
    check_round_trip(result, folder / "out")


def test_map_states_its_quantity(series, write, out):
    result = write(series())
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
