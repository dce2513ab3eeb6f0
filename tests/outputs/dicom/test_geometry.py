"""What is read back lies, voxel by voxel, where the result has it."""

import zipfile
from dataclasses import replace

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outputs.dicom.result_builders import enhanced, make_result
from scan_builders import AXIAL, CORONAL, SAGITTAL, dicom_datasets, head_volume, save
from scipy import ndimage as ndi

from pathology_screen.io.source import read_source_series
from pathology_screen.outputs.dicom import write_dicom
from pathology_screen.outputs.dicom.maker import Maker
from pathology_screen.outputs.dicom.secondary_capture import draw_overlay, make_secondary_capture
from pathology_screen.outputs.dicom.source_images import reference_images
from pathology_screen.space import PLANE_SHAPE

TILTED = (
    0.9781476007,
    0.0,
    -0.2079116908,
    0.0432273,
    0.9781476007,
    0.2033683,
)  # 12 degrees about two axes
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
every_orientation = pytest.mark.parametrize(
    "orientation", ORIENTATIONS.values(), ids=ORIENTATIONS.keys()
)


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
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.io_orientation(result.affine)
    )
    turned = image.as_reoriented(turn)
    return embed(
        turned.get_fdata(dtype=np.float32), turned.affine, result.map_volume.shape, result.affine
    )


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
            np.testing.assert_allclose(
                position, positions[source.ReferencedSOPInstanceUID], rtol=0, atol=1e-9
            )


@every_orientation
def test_series(series, out, orientation):
    source = series(orientation=orientation)
    result = make_result(source)
    assert len(result.regions) >= 3
    write_dicom(result, source, out)
    check_round_trip(result, out)
    check_references([pydicom.dcmread(file) for file in source.iterdir()], out)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, TILTED, REVERSED["axial"]])
@pytest.mark.parametrize(
    "per_frame", [False, True], ids=["shared orientation", "orientation in every frame"]
)
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
    result = make_result(source)
    write_dicom(result, source, out)
    check_round_trip(result, out)


def test_positions_that_are_not_quite_regular_are_those_of_the_source(tmp_path, out):
    datasets = dicom_datasets(head_volume())
    for k, dataset in enumerate(datasets):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + 0.004 * (-1) ** k]
        row = dataset.ImageOrientationPatient
        dataset.ImageOrientationPatient = [
            row[0],
            0.00004 * (k % 2),
            *row[2:],
        ]  # within what the reader takes
    source = save(datasets, tmp_path / "series")
    write_dicom(make_result(source), source, out)
    check_references(datasets, out)


def test_parametric_map_has_the_frames_that_the_plane_cuts(series, out):
    """Of slices 2 mm apart, over 30 mm, a plane that is tilted by 8 degrees cuts some."""
    source = series()
    result = make_result(source, tilt=8)
    write_dicom(result, source, out)
    dataset = pydicom.dcmread(out / "parametric_map.dcm")
    cut = np.flatnonzero(result.map_volume.any(axis=(0, 1)))
    assert 1 < len(cut) < 8 and (dataset.NumberOfFrames, dataset.Rows, dataset.Columns) == (
        len(cut),
        20,
        16,
    )
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
    turn = np.linalg.multi_dot([rotation(axis, angle) for axis, angle in enumerate(angles)])
    orientation = np.concatenate([turn @ base[:3], turn @ base[3:]]).round(10)
    source = save(
        dicom_datasets(
            head_volume(), orientation=orientation, spacing=tuple(round(mm, 4) for mm in spacing)
        ),
        folder / "series",
    )
    result = make_result(source, block=10)
    write_dicom(result, source, folder / "out")
    check_round_trip(result, folder / "out")


def rotation(axis: int, degrees: float) -> np.ndarray:
    matrix = np.eye(3)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [k for k in range(3) if k != axis]
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return matrix


@pytest.mark.parametrize("skew", [0.0, 0.1])
def test_picture_lies_where_the_slice_lies(series, out, skew):
    """The bright square of the slice shows at its place in the patient, also where the registration
    skews the plane."""
    source = series()
    result = make_result(source, tilt=10, blobs=0)
    image = np.full(PLANE_SHAPE, 0.1, np.float32)
    image[150:160, 60:70] = 1
    shear = np.eye(4)
    shear[0, 1], shear[2, 0] = skew, -skew
    one = replace(
        result.slice, image=image, anomaly_map=0 * image, affine=shear @ result.slice.affine
    )
    picture = draw_overlay(replace(result, slice=one))
    assert abs(np.dot(picture.affine[:3, 0], picture.affine[:3, 1])) < 1e-9
    made = make_secondary_capture(
        reference_images(read_source_series(source))[0], picture, [], Maker(result, "1.2.3")
    )
    parts, _ = ndi.label(made.pixel_array.min(axis=2) > 150)  # the square, and digits
    row, column = ndi.center_of_mass(parts == np.bincount(parts.ravel())[1:].argmax() + 1)
    cosines, (by_rows, by_columns) = (
        np.array(made.ImageOrientationPatient, float),
        map(float, made.PixelSpacing),
    )
    found = np.array(made.ImagePositionPatient, float)
    found += cosines[:3] * by_columns * column + cosines[3:] * by_rows * row
    expected = (one.affine @ [154.5, 64.5, 0, 1])[:3] * [-1, -1, 1]
    assert np.allclose(found, expected, atol=0.7)
    assert cosines[0] > 0.9 and cosines[4] > 0.9 and max(made.Rows, made.Columns) == 768
