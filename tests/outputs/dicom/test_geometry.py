"""What is read back lies, voxel by voxel, where the result has it."""

import zipfile

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outputs.dicom.result_builders import enhanced, make_result
from scan_builders import AXIAL, CORONAL, SAGITTAL, dicom_datasets, head_volume, normal, save

from pathology_screen.geometry import axial_orientation
from pathology_screen.outputs.dicom import write_dicom

TILTED = (0.9781476007, 0.0, -0.2079116908, 0.0432273, 0.9781476007, 0.2033683)  # 12 degrees about two axes
REVERSED = {
    "axial": (-1, 0, 0, 0, 1, 0),
    "coronal": (-1, 0, 0, 0, 0, -1),
    "sagittal": (0, -1, 0, 0, 0, -1),
    "rows up": (0, 1, 0, 0, 0, 1),
    "rows and columns swapped": (0, 1, 0, 1, 0, 0),
}
ORIENTATIONS = {"axial": AXIAL, "coronal": CORONAL, "sagittal": SAGITTAL, "tilted": TILTED} | {
    f"reversed {name}": orientation for name, orientation in REVERSED.items()
}
every_orientation = pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())


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
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.io_orientation(result.affine))
    turned = image.as_reoriented(turn)
    return embed(turned.get_fdata(dtype=np.float32), turned.affine, result.map_volume.shape, result.affine)


def check_round_trip(result, folder):
    anomaly_map = highdicom.imread(folder / "parametric_map.dcm").get_volume()
    assert sorted(anomaly_map.spatial_shape) == sorted(result.map_volume.shape)
    np.testing.assert_array_equal(on_voxels_of(anomaly_map, result), result.map_volume)
    regions = highdicom.seg.segread(folder / "segmentation.dcm")
    labels = regions.get_volume(combine_segments=True, allow_missing_positions=True)
    np.testing.assert_array_equal(on_voxels_of(labels, result), result.regions_volume)
    assert regions.number_of_segments == len(result.regions)


def check_references(source_images, folder):
    """Every frame of the map and the segments names the source image at its own position."""
    positions = {image.SOPInstanceUID: np.array(image.ImagePositionPatient, float) for image in source_images}
    for name in ("parametric_map", "segmentation"):
        for groups in pydicom.dcmread(folder / f"{name}.dcm").PerFrameFunctionalGroupsSequence:
            (derivation,) = groups.DerivationImageSequence
            (source,) = derivation.SourceImageSequence
            position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
            np.testing.assert_allclose(position, positions[source.ReferencedSOPInstanceUID], rtol=0, atol=1e-9)


@every_orientation
def test_series(series, out, orientation):
    source = series(orientation=orientation)
    result = make_result(source, (2, 3, 5))
    assert len(result.regions) >= 3
    write_dicom(result, source, out)
    check_round_trip(result, out)
    check_references([pydicom.dcmread(file) for file in source.iterdir()], out)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, TILTED, REVERSED["axial"]])
@pytest.mark.parametrize("per_frame", [False, True], ids=["shared orientation", "orientation in every frame"])
def test_enhanced_multiframe_with_frames_in_any_order(tmp_path, out, orientation, per_frame):
    datasets = dicom_datasets(head_volume(), orientation=orientation)
    shuffled = [datasets[k] for k in (5, 0, 7, 2, 1, 6, 4, 3)]
    for number, dataset in enumerate(shuffled):
        dataset.InstanceNumber = number + 1
    source = enhanced(shuffled, tmp_path / "source" / "e.dcm", per_frame)
    result = make_result(source)
    write_dicom(result, source, out)
    check_round_trip(result, out)
    frames = pydicom.dcmread(source).PerFrameFunctionalGroupsSequence
    for groups in pydicom.dcmread(out / "parametric_map.dcm").PerFrameFunctionalGroupsSequence:
        referenced = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert groups.PlanePositionSequence == frames[referenced - 1].PlanePositionSequence


def test_archive(series, out, tmp_path):
    source = series()
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for file in source.iterdir():
            archive.write(file, f"folder/{file.name}")
    result = make_result(tmp_path / "scan.zip")
    write_dicom(result, tmp_path / "scan.zip", out)
    check_round_trip(result, out)


def test_list_of_files(series, out):
    files = sorted(series().iterdir(), reverse=True)
    result = make_result(files)
    write_dicom(result, files, out)
    check_round_trip(result, out)


def test_one_axial_slice(series, out):
    source = series(slices=1)
    result = make_result(source, (0,))
    write_dicom(result, source, out)
    check_round_trip(result, out)


def test_positions_that_are_not_quite_regular_are_those_of_the_source(tmp_path, out):
    datasets = dicom_datasets(head_volume())
    for k, dataset in enumerate(datasets):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + 0.004 * (-1) ** k]
        row = dataset.ImageOrientationPatient
        dataset.ImageOrientationPatient = [row[0], 0.00004 * (k % 2), *row[2:]]  # within what the reader takes
    source = save(datasets, tmp_path / "series")
    write_dicom(make_result(source), source, out)
    check_references(datasets, out)


def test_parametric_map_has_the_source_frames_and_zero_where_nothing_was_screened(series, out):
    source = series()
    result = make_result(source, (3,))
    write_dicom(result, source, out)
    dataset = pydicom.dcmread(out / "parametric_map.dcm")
    assert (dataset.NumberOfFrames, dataset.Rows, dataset.Columns) == (8, 20, 16)
    assert dataset.pixel_array.dtype == np.float32
    assert [bool(frame.any()) for frame in dataset.pixel_array].count(True) == 1
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
    turn = np.linalg.multi_dot([rotation(axis, angle) for axis, angle in enumerate(angles)])
    orientation = np.concatenate([turn @ base[:3], turn @ base[3:]]).round(10)
    source = save(
        dicom_datasets(head_volume(), orientation=orientation, spacing=tuple(round(mm, 4) for mm in spacing)),
        folder / "series",
    )
    result = make_result(source)
    if not result.regions:  # all smaller than what is listed
        return
    write_dicom(result, source, folder / "out")
    check_round_trip(result, folder / "out")


def rotation(axis: int, degrees: float) -> np.ndarray:
    matrix = np.eye(3)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [k for k in range(3) if k != axis]
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return matrix


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, TILTED, REVERSED["axial"], REVERSED["rows up"]])
def test_picture_lies_where_the_slice_lies(series, out, orientation):
    """The bright square of the source shows at its place in the patient."""
    volume = np.full((8, 20, 16), 10, "uint16")
    volume[2:5, 8:11, 5:8] = 1000
    datasets = dicom_datasets(volume, orientation=orientation, spacing=(6.0, 5.0, 5.5))
    source = save(datasets, out.parent / "square")
    centre = np.array(datasets[3].ImagePositionPatient, float) + np.array(orientation[:3]) * 6 * 5.5
    centre += np.array(orientation[3:]) * 9 * 5.0
    probe = make_result(source, (0,), blobs=0)
    axis, direction = axial_orientation(probe.affine)
    index = (6, 9, 3)[axis]
    level = index if direction > 0 else probe.map_volume.shape[axis] - 1 - index
    result = make_result(source, (level,), blobs=0, regions=(), pixel_threshold=2.0)
    write_dicom(result, source, out)
    picture = pydicom.dcmread(out / "overlay.dcm")
    grey = picture.pixel_array.astype(int)
    bright = np.argwhere(grey.min(axis=2) > 180)
    row, column = np.median(bright, axis=0)
    cosines = np.array(picture.ImageOrientationPatient, float)
    by_rows, by_columns = map(float, picture.PixelSpacing)
    found = np.array(picture.ImagePositionPatient, float)
    found = found + cosines[:3] * by_columns * column + cosines[3:] * by_rows * row
    np.testing.assert_allclose(found, centre, atol=1.5)
    assert max(picture.Rows, picture.Columns) == 768
    assert cosines[0] > 0.9 and cosines[4] > 0.9  # columns to the left, rows to posterior
    assert abs(normal(cosines)[2]) > 0.9
