"""Enhanced MR with as little as states where every frame lies; and the small deviations that real
series have."""

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless, generate_uid
from scan_builders import AXIAL, dicom_datasets, head_volume, save

from pathology_screen.errors import InputError
from pathology_screen.io import read_scan
from pathology_screen.io.source import read_source_series

TILTED = (0.9781476007, 0.0, -0.2079116908, 0.0432273, 0.9781476007, 0.2033683)


def enhanced(datasets):
    return highdicom.legacy.LegacyConvertedEnhancedMRImage(
        datasets, generate_uid(), 1, generate_uid(), 1
    )


def without_dimensions(image):
    del image.DimensionIndexSequence
    del image.DimensionOrganizationSequence
    return image


def without_content(image):
    without_dimensions(image)
    for frame in image.PerFrameFunctionalGroupsSequence:
        del frame.FrameContentSequence
    return image


def without_index_values(image):
    for frame in image.PerFrameFunctionalGroupsSequence:
        for keyword in ("DimensionIndexValues", "StackID", "InStackPositionNumber"):
            if keyword in frame.FrameContentSequence[0]:
                delattr(frame.FrameContentSequence[0], keyword)
    return image


@pytest.mark.parametrize("strip", [without_dimensions, without_content, without_index_values])
@pytest.mark.parametrize("level", [None, "middle"])
def test_positions_are_enough(tmp_path, strip, level):
    datasets = dicom_datasets(head_volume(), orientation=TILTED, RescaleSlope=2, RescaleIntercept=0)
    plain = read_scan(save(datasets, tmp_path / "s"), level=level)
    strip(enhanced(datasets[::-1])).save_as(tmp_path / "e.dcm")
    scan = read_scan(tmp_path / "e.dcm", level=level)
    np.testing.assert_array_equal(scan.voxels, plain.voxels)
    np.testing.assert_allclose(scan.affine, plain.affine, atol=1e-6)


@pytest.mark.parametrize("syntax", [None, JPEGLSLossless])
def test_series_of_objects_of_one_frame(tmp_path, syntax):
    datasets = dicom_datasets(
        head_volume(6, 64, 48), orientation=TILTED, RescaleSlope=2, RescaleIntercept=-7
    )
    plain = read_scan(save(datasets, tmp_path / "s"))
    frames, series = [enhanced([dataset]) for dataset in datasets], generate_uid()
    for frame in frames:
        frame.SeriesInstanceUID = series
        if syntax:
            frame.compress(syntax, generate_instance_uid=False)
    save(frames[::-1], tmp_path / "e")
    scan = read_scan(tmp_path / "e")
    np.testing.assert_array_equal(scan.voxels, plain.voxels)
    np.testing.assert_allclose(scan.affine, plain.affine, atol=1e-6)
    assert scan.source["file_count"] == 6
    source = read_source_series(tmp_path / "e")
    assert source.stack.frame_numbers is None
    assert [one.SOPInstanceUID for one in source.datasets] == [
        frame.SOPInstanceUID for frame in frames
    ]


def test_compressed_multiframe(tmp_path):
    datasets = dicom_datasets(head_volume(5, 64, 48))
    plain = read_scan(save(datasets, tmp_path / "s"))
    image = enhanced(datasets)
    image.compress(JPEGLSLossless, generate_instance_uid=False)
    image.save_as(tmp_path / "e.dcm")
    for level in (None, "middle"):
        expected = plain.voxels if level is None else plain.voxels[:, :, 2:3]
        np.testing.assert_array_equal(read_scan(tmp_path / "e.dcm", level=level).voxels, expected)


def test_a_frame_without_a_position_is_refused(tmp_path):
    image = enhanced(dicom_datasets(head_volume()))
    del image.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    image.save_as(tmp_path / "e.dcm")
    with pytest.raises(InputError, match="missing_geometry"):
        read_scan(tmp_path / "e.dcm")


# --- small deviations ---


def test_pixel_spacing_that_differs_by_a_millionth(tmp_path):
    datasets = dicom_datasets(head_volume())
    datasets[3].PixelSpacing = [1.500001, 1.249999]
    assert read_scan(save(datasets, tmp_path)).voxels.shape == (16, 20, 8)


@pytest.mark.parametrize("step", [0.5, 0.7, 1.0, 3.3])
def test_positions_rounded_to_two_decimals(tmp_path, step):
    datasets = dicom_datasets(
        head_volume(40),
        orientation=TILTED,
        spacing=(step, 1.5, 1.25),
        origin=(-31.237, -4.123, 7.777),
    )
    for dataset in datasets:
        dataset.ImagePositionPatient = [round(float(x), 2) for x in dataset.ImagePositionPatient]
    scan = read_scan(save(datasets, tmp_path))
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, 2]), step, rtol=1e-3)
    np.testing.assert_array_equal(scan.voxels, head_volume(40).transpose(2, 1, 0))


def test_jitter_of_the_orientation(tmp_path):
    datasets = dicom_datasets(head_volume())
    for k, dataset in enumerate(datasets):
        dataset.ImageOrientationPatient = [1, (-1) ** k * 2e-4, 0, 0, 1, (-1) ** k * 2e-4]
    assert read_scan(save(datasets, tmp_path)).voxels.shape == (16, 20, 8)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda one: setattr(one, "PixelSpacing", [1.5, 1.26]), "mixed_size.*1.25 to 1.26 mm"),
        (
            lambda one: setattr(one, "ImageOrientationPatient", [1, 0, 0, 0, 0.99995, 0.01]),
            "mixed_orientation.*0.01; ",
        ),
        (
            lambda one: setattr(
                one, "ImagePositionPatient", [*map(float, one.ImagePositionPatient[:2]), -43.8]
            ),
            r"uneven_spacing.*1\.800 to 2\.200 mm",
        ),
    ],
)
def test_refusals_name_the_values(tmp_path, change, message):
    datasets = dicom_datasets(head_volume(), orientation=AXIAL)
    change(datasets[3])
    with pytest.raises(InputError, match=message):
        read_scan(save(datasets, tmp_path))


def test_one_file_of_several_frames_among_others_is_not_one_volume(tmp_path):
    datasets = dicom_datasets(head_volume())
    volume, single = enhanced(datasets[:4]), enhanced(datasets[4:5])
    single.SeriesInstanceUID = volume.SeriesInstanceUID
    save([volume, single], tmp_path)
    with pytest.raises(InputError, match="not_3d"):
        read_scan(tmp_path)
    assert pydicom.dcmread(tmp_path / "IM0000").NumberOfFrames == 4
