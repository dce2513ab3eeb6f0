"""DICOM series and enhanced objects as volumes."""

import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from bad_scans import multiframe
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder
from scan_builders import (
    AXIAL,
    CORONAL,
    NATIVE,
    SAGITTAL,
    dicom_datasets,
    head_volume,
    normal,
    ras_affine,
    save,
)

from pathology_screen.errors import InputError
from pathology_screen.io import read_scan
from pathology_screen.io.source import read_source_series

TILTED = (0.9781476007, 0.0, -0.2079116908, 0.0432273, 0.9781476007, 0.2033683)
"""12 degrees about two axes."""
SUPERIOR_TO_INFERIOR = (-1, 0, 0, 0, 1, 0)
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def same_scan(scan, expected, atol=1e-6):
    np.testing.assert_array_equal(scan.voxels, expected.voxels)
    np.testing.assert_allclose(scan.affine, expected.affine, atol=atol)


# --- geometry ---


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, TILTED, SUPERIOR_TO_INFERIOR])
def test_series_equals_the_same_volume_as_nifti(tmp_path, orientation):
    volume = head_volume()
    series = read_scan(save(dicom_datasets(volume, orientation=orientation), tmp_path / "series"))
    image = nib.Nifti1Image(volume.transpose(2, 1, 0), ras_affine(orientation=orientation))
    nib.save(image, tmp_path / "volume.nii.gz")
    same_scan(series, read_scan(tmp_path / "volume.nii.gz"), atol=1e-4)
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


def test_affine_maps_voxels_to_image_positions(tmp_path):
    folder = save(dicom_datasets(head_volume(), orientation=TILTED), tmp_path)
    scan = read_scan(folder)
    for k, file in enumerate(sorted(folder.iterdir())):
        position = np.array(pydicom.dcmread(file).ImagePositionPatient, float) * [-1, -1, 1]
        np.testing.assert_allclose((scan.affine @ [0, 0, k, 1])[:3], position, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, 2]), 2.0, atol=1e-4)
    assert normal(TILTED) @ (scan.affine[:3, 2] * [-1, -1, 1]) > 0


def test_obliquity_is_the_angle_to_the_closest_patient_axes(tmp_path):
    angle = np.radians(20)
    orientation = np.round((1, 0, 0, 0, np.cos(angle), np.sin(angle)), 9)
    scan = read_scan(save(dicom_datasets(head_volume(), orientation=orientation), tmp_path))
    assert scan.source["obliquity_deg"] == 20.0


def test_single_slice_declared_axial(tmp_path):
    volume = head_volume(1)
    file = save(dicom_datasets(volume, orientation=TILTED), tmp_path) / "IM0000"
    scan = read_scan(file, axial_slice=True)
    np.testing.assert_array_equal(scan.voxels, volume.transpose(2, 1, 0))
    expected = ras_affine(orientation=TILTED)
    np.testing.assert_allclose(scan.affine, expected, atol=1e-4)  # thickness as declared


def test_small_deviations_of_real_series_are_accepted(tmp_path):
    datasets = dicom_datasets(head_volume())
    datasets[3].PixelSpacing = [1.500001, 1.249999]
    for k, dataset in enumerate(datasets):
        dataset.ImageOrientationPatient = [1, (-1) ** k * 2e-4, 0, 0, 1, (-1) ** k * 2e-4]
    assert read_scan(save(datasets, tmp_path)).voxels.shape == (16, 20, 8)


@pytest.mark.parametrize("step", [0.5, 0.7, 1.0, 3.3])
def test_positions_rounded_to_two_decimals(tmp_path, step):
    place = {"orientation": TILTED, "origin": (-31.237, -4.123, 7.777)}
    datasets = dicom_datasets(head_volume(40), spacing=(step, 1.5, 1.25), **place)
    for dataset in datasets:
        dataset.ImagePositionPatient = [round(float(x), 2) for x in dataset.ImagePositionPatient]
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
    datasets = dicom_datasets(head_volume(), orientation=AXIAL)
    setattr(datasets[3], keyword, value)
    with pytest.raises(InputError, match=message):
        read_scan(save(datasets, tmp_path))


# --- pixels ---

COMPRESSED = (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless)


@pytest.mark.parametrize("syntax", [*NATIVE, *COMPRESSED], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_transfer_syntaxes_and_sample_formats(tmp_path, syntax, dtype):
    volume = (head_volume(slices=3, rows=64, columns=48) % 250).astype(dtype)
    stored = volume - 100 if dtype == "int16" else volume
    scan = read_scan(save(dicom_datasets(stored, transfer_syntax=syntax), tmp_path / "s"))
    np.testing.assert_array_equal(scan.voxels, volume.transpose(2, 1, 0))
    assert scan.source["transfer_syntax"] == syntax


@pytest.mark.parametrize("syntax", [*uid.JPEGTransferSyntaxes, uid.JPEG2000])
def test_syntaxes_that_cannot_be_written_here_have_a_decoder(syntax):
    assert get_decoder(syntax).is_available


ENCODINGS = ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"]


@pytest.mark.parametrize("name", ENCODINGS)
def test_real_slice_is_the_same_in_every_encoding(name):
    files = (f"MR_small_{name}.dcm", "MR_small.dcm")
    paths = [get_testdata_file(file, download=False) for file in files]
    same_scan(*(read_scan(path, axial_slice=True) for path in paths))


def test_rescale_of_each_slice_and_unused_bits(tmp_path):
    volume = head_volume(slices=3)
    datasets = dicom_datasets(volume | 0x8000, BitsStored=12, HighBit=11)  # an overlay bit above
    for slope, dataset in zip((1, 2, 0.5), datasets):
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, -10
    scan = read_scan(save(datasets, tmp_path))
    np.testing.assert_allclose(scan.voxels, (volume * [[[1]], [[2]], [[0.5]]]).transpose(2, 1, 0))


@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2, "RescaleIntercept": 5}])
def test_monochrome1_is_inverted_within_the_stored_range(tmp_path, rescale):
    volume = head_volume(slices=2)
    inverse = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    scan = read_scan(save(dicom_datasets(4095 - volume, **inverse, **rescale), tmp_path / "s"))
    expected = rescale.get("RescaleSlope", 1) * volume.transpose(2, 1, 0)
    np.testing.assert_array_equal(scan.voxels, expected)


# --- files ---


def test_series_of_a_folder_is_chosen(tmp_path, refusal):
    first, second = head_volume(), head_volume(slices=5)
    save(dicom_datasets(first, series_uid="1.2.3"), tmp_path / "study")
    save(dicom_datasets(second, series_uid="1.2.4"), tmp_path / "study", "other{}.dcm".format)
    listed = r"several_series.*1\.2\.3 \(8 images\), 1\.2\.4 \(5 images\)"
    with pytest.raises(InputError, match=listed):
        read_scan(tmp_path / "study")
    assert refusal(tmp_path / "study", series_uid="1.2").code == "series_not_found"
    scan = read_scan(tmp_path / "study", series_uid="1.2.4")
    np.testing.assert_array_equal(scan.voxels, second.transpose(2, 1, 0))
    assert (scan.source["series_uid"], scan.source["file_count"]) == ("1.2.4", 5)


def test_files_that_are_no_images_are_counted(tmp_path):
    folder = save(dicom_datasets(head_volume()), tmp_path / "Müller – série 1" / "sub folder")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".DS_Store").write_bytes(b"hidden: not counted")
    (folder / "DICOMDIR").write_bytes((PYDICOM_FILES / "dicomdirtests" / "DICOMDIR").read_bytes())
    (folder / "report").write_bytes((PYDICOM_FILES / "test-SR.dcm").read_bytes())
    scan = read_scan(folder.parent)
    assert (scan.source["file_count"], scan.source["ignored_file_count"]) == (8, 3)


def test_zip_equals_folder(tmp_path):
    folder = save(dicom_datasets(head_volume(), transfer_syntax=uid.RLELossless), tmp_path / "s")
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, f"a b/ü/{file.name}")
        archive.writestr("__MACOSX/._IM0000", b"hidden")
    plain, zipped = read_scan(folder), read_scan(tmp_path / "s.zip")
    same_scan(plain, zipped, atol=0)
    assert plain.source == zipped.source


ENCODED = [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian]


@pytest.mark.parametrize("syntax", ENCODED)
@pytest.mark.parametrize("undefined_length", [True, False])
def test_a_million_empty_items_are_refused(tmp_path, cheap_refusal, syntax, undefined_length):
    datasets = dicom_datasets(head_volume(2), transfer_syntax=syntax)
    datasets[0].ReferencedImageSequence = [pydicom.Dataset()]
    datasets[0]["ReferencedImageSequence"].is_undefined_length = undefined_length
    file = save(datasets, tmp_path) / "IM0000"
    content = file.read_bytes()
    little = syntax.is_little_endian
    item = (b"\xfe\xff\0\xe0" if little else b"\xff\xfe\xe0\0") + bytes(4)
    at = content.index(item)
    head = bytearray(content[:at])
    if not undefined_length:
        head[-4:] = struct.pack("<I" if little else ">I", 8 * 1_000_000)
    file.write_bytes(head + item * 1_000_000 + content[at + 8 :])
    error = cheap_refusal(tmp_path)
    assert error.code == "too_large" and "items" in error.detail


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


# --- enhanced objects, with as little as states where every frame lies ---


def without_dimensions(image):
    del image.DimensionIndexSequence
    del image.DimensionOrganizationSequence


def without_content(image):
    without_dimensions(image)
    for frame in image.PerFrameFunctionalGroupsSequence:
        del frame.FrameContentSequence


def without_index_values(image):
    for frame in image.PerFrameFunctionalGroupsSequence:
        for keyword in ("DimensionIndexValues", "StackID", "InStackPositionNumber"):
            if keyword in frame.FrameContentSequence[0]:
                delattr(frame.FrameContentSequence[0], keyword)


def compressed(image):
    image.compress(uid.JPEGLSLossless, generate_instance_uid=False)


CHANGES = [lambda image: None, compressed, without_dimensions, without_content]


@pytest.mark.parametrize("change", [*CHANGES, without_index_values])
def test_enhanced_multiframe_equals_the_series(tmp_path, change):
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -7}
    datasets = dicom_datasets(head_volume(6, 64, 48), orientation=TILTED, **rescale)
    plain = read_scan(save(datasets, tmp_path / "s"))
    path = multiframe(datasets[::-1], tmp_path / "e.dcm")
    image = pydicom.dcmread(path)
    change(image)
    image.save_as(path)
    scan = read_scan(path)
    same_scan(scan, plain)
    assert scan.source["file_count"] == 1


@pytest.mark.parametrize("syntax", [None, uid.JPEGLSLossless])
def test_series_of_objects_of_one_frame(tmp_path, syntax):
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -7}
    datasets = dicom_datasets(head_volume(6, 64, 48), orientation=TILTED, **rescale)
    plain = read_scan(save(datasets, tmp_path / "s"))
    paths = [multiframe([one], tmp_path / f"m/{k}") for k, one in enumerate(datasets)]
    frames, series = [pydicom.dcmread(path) for path in paths], uid.generate_uid()
    for frame in frames:
        frame.SeriesInstanceUID = series
        if syntax:
            frame.compress(syntax, generate_instance_uid=False)
    save(frames[::-1], tmp_path / "e")
    scan, source = read_scan(tmp_path / "e"), read_source_series(tmp_path / "e")
    same_scan(scan, plain)
    assert scan.source["file_count"] == 6 and source.stack.frame_numbers is None
    instances = [one.SOPInstanceUID for one in source.datasets]
    assert instances == [frame.SOPInstanceUID for frame in frames]


def test_a_frame_without_a_position_is_refused(tmp_path, refusal):
    path = multiframe(dicom_datasets(head_volume()), tmp_path / "e.dcm")
    image = pydicom.dcmread(path)
    del image.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    image.save_as(path)
    assert refusal(path).code == "missing_geometry"


def test_one_file_of_several_frames_among_others_is_not_one_volume(tmp_path, refusal):
    datasets = dicom_datasets(head_volume())
    volume, single = (
        pydicom.dcmread(multiframe(part, tmp_path / "e.dcm"))
        for part in (datasets[:4], datasets[4:5])
    )
    single.SeriesInstanceUID = volume.SeriesInstanceUID
    save([volume, single], tmp_path / "s")
    assert refusal(tmp_path / "s").code == "not_3d"


# --- facts ---


def source_of(folder, **attributes):
    return dict(read_scan(save(dicom_datasets(head_volume(2), **attributes), folder)).source)


def test_source_is_plain(tmp_path):
    contrast = {"ContrastBolusAgent": "Gd", "BurnedInAnnotation": "NO"}
    source = source_of(tmp_path, InversionTime=None, FlipAngle=8, **contrast)
    assert json.loads(json.dumps(source)) == source
    expected = {
        **{"image_type": ["ORIGINAL", "PRIMARY", "M"], "scanning_sequence": "GR"},
        **{"modality": "MR", "sop_class": "MR Image Storage", "flip_angle": 8.0},
        **{"echo_time": 4.6, "repetition_time": 9.8, "field_strength": 1.5},
        **{"contrast_agent": True, "burned_in_annotation": "NO", "obliquity_deg": 0.0},
    }
    assert {name: source[name] for name in expected} == expected
    assert not {"inversion_time", "acquisition_contrast"} & source.keys()  # empty or absent


@pytest.mark.parametrize(
    "series, protocol, words",
    [
        ("t1_mprage_sag_p2_iso", "", ["t1"]),
        ("AX T1 +C", "AX T1 +C", ["t1", "contrast_agent"]),
        ("CANARY^PATIENT", "", None),
        ("CANARY", "t2_tse", ["t2"]),
    ],
)
def test_descriptions_are_kept_as_words_of_a_fixed_list(tmp_path, series, protocol, words):
    source = source_of(tmp_path, SeriesDescription=series, ProtocolName=protocol)
    assert source.get("described_as") == words and series not in json.dumps(source)


def coded(meaning):
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99TEST", meaning
    return [item]


@pytest.mark.parametrize(
    "known, attributes",
    [
        (True, {"ContrastBolusAgent": "Gadovist"}),
        (True, {"ContrastBolusAgent": "CANARY"}),
        (True, {"ContrastBolusVolume": 7.5}),
        (True, {"ContrastBolusTotalDose": 15}),
        (True, {"ContrastBolusRoute": "IV"}),
        (True, {"ContrastBolusAgentSequence": coded("Gadoterate")}),
        (False, {"ContrastBolusAgent": ""}),
        (False, {"ContrastBolusAgent": "NOT ADMINISTERED"}),
        (False, {"ContrastBolusVolume": 0}),
        (False, {"ContrastBolusRoute": "NONE"}),
        (False, {"ContrastBolusAgent": "NONE", "ContrastBolusVolume": 0}),
        (False, {"ContrastBolusAgentSequence": coded("None")}),
    ],
)
def test_contrast_agent_is_one_that_is_named(tmp_path, known, attributes):
    assert source_of(tmp_path, **attributes).get("contrast_agent", False) is known


def test_enhanced_facts_come_from_the_functional_groups(tmp_path):
    path = multiframe(dicom_datasets(head_volume(2)), tmp_path / "e.dcm")
    dataset = pydicom.dcmread(path)
    timing, echo, administered = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    timing.RepetitionTime, echo.EffectiveEchoTime = 2300.0, 2.5
    administered.ContrastBolusAgentAdministered = "NO"
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.MRTimingAndRelatedParametersSequence, shared.MREchoSequence = [timing], [echo]
    shared.ContrastBolusUsageSequence = [administered]
    dataset.AcquisitionContrast, dataset.ContrastBolusAgentSequence = "T1", [pydicom.Dataset()]
    dataset.save_as(path)
    source = read_scan(path).source
    assert (source["repetition_time"], source["effective_echo_time"]) == (2300.0, 2.5)
    assert source["acquisition_contrast"] == "T1"
    assert source["sop_class"].startswith("Legacy Converted Enhanced MR")
    assert "contrast_agent" not in source  # of the plan, not of this frame


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
