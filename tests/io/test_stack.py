"""Slices become a volume by their positions and orientations alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_builders import TILTED, dicom_datasets, head_volume, ras_affine, save

from pathology_screen.errors import InputError
from pathology_screen.io import read_scan


@settings(max_examples=15, deadline=None)
@given(
    order=st.permutations(range(7)), numbers=st.lists(st.integers(0, 99), min_size=7, max_size=7)
)
def test_order_comes_from_positions_alone(tmp_path_factory, order, numbers):
    folder = tmp_path_factory.mktemp("series")
    volume = head_volume(slices=7, rows=4, columns=3)
    datasets = dicom_datasets(volume, orientation=TILTED)
    for dataset, number in zip(datasets, numbers):
        dataset.InstanceNumber = number
    save([datasets[i] for i in order], folder)
    for files in (folder, sorted(folder.iterdir(), reverse=True)):
        scan = read_scan(files)
        np.testing.assert_array_equal(scan.voxels, volume.transpose(2, 1, 0))
        np.testing.assert_allclose(scan.affine, ras_affine(orientation=TILTED), atol=1e-4)


@pytest.mark.parametrize("step", [0.5, 0.7, 1.0, 3.3])
def test_small_deviations_of_real_series_are_accepted(tmp_path, step):
    """Positions rounded to two decimals, and other digits of spacings and cosines."""
    place = {"orientation": TILTED, "origin": (-31.237, -4.123, 7.777)}
    datasets = dicom_datasets(head_volume(40), spacing=(step, 1.5, 1.25), **place)
    datasets[3].PixelSpacing = [1.500001, 1.249999]
    for k, dataset in enumerate(datasets):
        dataset.ImagePositionPatient = [round(float(x), 2) for x in dataset.ImagePositionPatient]
        tilt = (-1) ** k * 2e-4 * np.array([0, 1, 0, 0, 0, 1])
        dataset.ImageOrientationPatient = (np.array(TILTED) + tilt).round(9).tolist()
    scan = read_scan(save(datasets, tmp_path))
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, 2]), step, rtol=1e-3)
    np.testing.assert_array_equal(scan.voxels, head_volume(40).transpose(2, 1, 0))


@pytest.mark.parametrize(
    "keyword, value, message",
    [
        ("PixelSpacing", [1.5, 1.26], "mixed_size.*1.25 to 1.26 mm"),
        ("ImageOrientationPatient", [1, 0, 0, 0, 0.99995, 0.01], "mixed_orientation.*0.01; "),
        ("ImagePositionPatient", [-30, -40, -43.8], r"uneven_spacing.*1\.800 to 2\.200 mm"),
    ],
)
def test_refusals_name_the_values(tmp_path, keyword, value, message):
    datasets = dicom_datasets(head_volume())
    setattr(datasets[3], keyword, value)
    with pytest.raises(InputError, match=message):
        read_scan(save(datasets, tmp_path))
