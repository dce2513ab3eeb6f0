"""DICOM series and enhanced objects as volumes."""

import json
import subprocess
import sys
import zipfile

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.data import get_testdata_file
from scan_builders import (
    AXIAL,
    CORONAL,
    NATIVE,
    SAGITTAL,
    TILTED,
    check_same_scan,
    dicom_datasets,
    head_volume,
    multiframe,
    ras_affine,
    save,
)

from pathology_screen.io import read_scan

SUPERIOR_TO_INFERIOR = (-1, 0, 0, 0, 1, 0)


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, TILTED, SUPERIOR_TO_INFERIOR])
def test_series_equals_the_same_volume_as_nifti(tmp_path, orientation):
    volume = head_volume()
    series = read_scan(save(dicom_datasets(volume, orientation=orientation), tmp_path / "series"))
    image = nib.Nifti1Image(volume.transpose(2, 1, 0), ras_affine(orientation=orientation))
    nib.save(image, tmp_path / "volume.nii.gz")
    check_same_scan(series, read_scan(tmp_path / "volume.nii.gz"), atol=1e-4)
    assert series.voxels.dtype == np.float32 and series.affine.dtype == np.float64


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


def test_single_slice_declared_axial(tmp_path):
    volume = head_volume(1)
    file = save(dicom_datasets(volume, orientation=TILTED), tmp_path) / "IM0000"
    scan = read_scan(file, axial_slice=True)
    np.testing.assert_array_equal(scan.voxels, volume.transpose(2, 1, 0))
    expected = ras_affine(orientation=TILTED)
    np.testing.assert_allclose(scan.affine, expected, atol=1e-4)  # thickness as declared


COMPRESSED = (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless)


@pytest.mark.parametrize("syntax", [*NATIVE, *COMPRESSED], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_transfer_syntaxes_and_sample_formats(tmp_path, syntax, dtype):
    volume = (head_volume(slices=3, rows=64, columns=48) % 250).astype(dtype)
    stored = volume - 100 if dtype == "int16" else volume
    scan = read_scan(save(dicom_datasets(stored, transfer_syntax=syntax), tmp_path / "s"))
    np.testing.assert_array_equal(scan.voxels, volume.transpose(2, 1, 0))
    assert scan.source["transfer_syntax"] == syntax


ENCODINGS = ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"]


@pytest.mark.parametrize("name", ENCODINGS)
def test_real_slice_is_the_same_in_every_encoding(name):
    files = (f"MR_small_{name}.dcm", "MR_small.dcm")
    paths = [get_testdata_file(file, download=False) for file in files]
    check_same_scan(*(read_scan(path, axial_slice=True) for path in paths))


def test_rescale_of_each_slice_and_unused_bits(tmp_path):
    volume = head_volume(slices=3)
    datasets = dicom_datasets(volume | 0x8000, BitsStored=12, HighBit=11)  # an overlay bit above
    for slope, dataset in zip((1, 2, 0.5), datasets):
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, -10
    scan = read_scan(save(datasets, tmp_path))
    np.testing.assert_allclose(scan.voxels, (volume * [[[1]], [[2]], [[0.5]]]).transpose(2, 1, 0))


@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2, "RescaleIntercept": 5}])
@pytest.mark.parametrize("zero", [4095, -1])
def test_monochrome1_is_inverted_within_the_stored_range(tmp_path, rescale, zero):
    volume = head_volume(slices=2).astype("int16" if zero < 0 else "uint16")
    inverse = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    scan = read_scan(save(dicom_datasets(zero - volume, **inverse, **rescale), tmp_path / "s"))
    expected = rescale.get("RescaleSlope", 1) * volume.transpose(2, 1, 0)
    np.testing.assert_array_equal(scan.voxels, expected)


def test_modality_lut_goes_before_slope_and_intercept(tmp_path):
    values, table = np.arange(1000) ** 2 // 20, pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [1000, 0, 16], "US"
    table.LUTData = values.astype("<u2").tobytes()
    lut = {"ModalityLUTSequence": [table], "RescaleSlope": 7, "RescaleIntercept": 0}
    scan = read_scan(save(dicom_datasets(head_volume(), **lut), tmp_path))
    np.testing.assert_array_equal(scan.voxels, values[head_volume().transpose(2, 1, 0)])


@pytest.mark.parametrize("name, dtype", [("Float", "<f4"), ("DoubleFloat", "<f8")])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_pixels_of_floating_point(tmp_path, name, dtype, photometric):
    """The second column is padding."""
    volume = head_volume() / 8
    stored = (-volume if photometric == "MONOCHROME1" else volume).astype(dtype)
    stored[..., 1] = -9e9
    datasets = dicom_datasets(
        head_volume(), PhotometricInterpretation=photometric, BitsAllocated=8 * stored.itemsize
    )
    for dataset, pixels in zip(datasets, stored):
        del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
        setattr(dataset, f"{name}PixelData", pixels.tobytes())
        setattr(dataset, f"{name}PixelPaddingValue", -9e9)
    scan = read_scan(save(datasets, tmp_path))
    np.testing.assert_allclose(scan.voxels, volume.transpose(2, 1, 0), rtol=1e-6)


def test_zip_equals_folder(tmp_path):
    folder = save(dicom_datasets(head_volume(), transfer_syntax=uid.RLELossless), tmp_path / "s")
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, f"a b/ü/{file.name}")
        archive.writestr("__MACOSX/._IM0000", b"hidden")
    plain, zipped = read_scan(folder), read_scan(tmp_path / "s.zip")
    check_same_scan(plain, zipped, atol=0)
    assert plain.source == zipped.source


def test_without_the_extra_the_package_imports_and_says_what_to_install(tmp_path):
    save(dicom_datasets(head_volume()), tmp_path)
    code = f"""
import sys
sys.modules["pydicom"] = sys.modules["highdicom"] = None
from pathology_screen.errors import ConfigError
from pathology_screen.io import discover, read_scan
for function in (discover, read_scan):
    try:
        function({str(tmp_path)!r})
    except ConfigError as error:
        assert "pip install pathology-screen[dicom]" in str(error)
    else:
        raise SystemExit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_source_is_plain(tmp_path):
    contrast = {"ContrastBolusAgent": "Gd", "BurnedInAnnotation": "NO"}
    datasets = dicom_datasets(head_volume(2), InversionTime=None, FlipAngle=8, **contrast)
    source = dict(read_scan(save(datasets, tmp_path)).source)
    assert json.loads(json.dumps(source)) == source
    expected = {
        **{"image_type": ["ORIGINAL", "PRIMARY", "M"], "scanning_sequence": "GR"},
        **{"modality": "MR", "sop_class": "MR Image Storage", "flip_angle": 8.0},
        **{"echo_time": 4.6, "repetition_time": 9.8, "field_strength": 1.5},
        **{"contrast_agent": True, "burned_in_annotation": "NO", "obliquity_deg": 0.0},
    }
    assert source.items() >= expected.items()
    assert not {"inversion_time", "acquisition_contrast"} & source.keys()  # empty or absent


@pytest.mark.parametrize("write", [save, lambda *series: multiframe(*series).parent])
def test_patient_is_named_neither_in_the_source_nor_in_warnings(tmp_path, recwarn, caplog, write):
    folder = tmp_path / "CANARY^PATIENT"
    write(dicom_datasets(head_volume()), folder if write is save else folder / "e.dcm")
    for file in folder.iterdir():  # a birth date that is not valid
        file.write_bytes(file.read_bytes().replace(b"19010203", b"CANARY: "))
    recwarn.clear()
    caplog.clear()
    caplog.set_level("DEBUG")
    assert "CANARY" not in str(dict(read_scan(folder).source))
    assert "CANARY" not in str([str(warning.message) for warning in recwarn]) + caplog.text


@pytest.mark.needs_shared
def test_real_oblique_series(shared_data):
    scan = read_scan(shared_data / "dicom_hanke_t1")
    assert scan.voxels.shape == (274, 384, 48)
    sizes = np.linalg.norm(scan.affine[:3, :3], axis=0)
    np.testing.assert_allclose(sizes, [0.69999, 0.66667, 5.33333], atol=1e-4)
    assert scan.source["obliquity_deg"] == pytest.approx(7.68, abs=0.01)
    assert scan.source["image_type"] == ["DERIVED", "SECONDARY"] and "echo_time" not in scan.source
