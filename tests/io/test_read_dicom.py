import json
import subprocess
import sys
import zipfile
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless, generate_uid
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
from pathology_screen.io import dicom, read_scan

TILTED = (
    0.9781476007,
    0.0,
    -0.2079116908,
    0.0432273,
    0.9781476007,
    0.2033683,
)  # 12 degrees about two axes
SUPERIOR_TO_INFERIOR = (-1, 0, 0, 0, 1, 0)
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def enhanced(datasets, path: Path) -> Path:
    converted = highdicom.legacy.LegacyConvertedEnhancedMRImage(
        datasets, generate_uid(), 1, generate_uid(), 1
    )
    converted.save_as(path)
    return path


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, TILTED, SUPERIOR_TO_INFERIOR])
def test_series_equals_the_same_volume_as_nifti(tmp_path, orientation):
    volume = head_volume()
    save(dicom_datasets(volume, orientation=orientation), tmp_path / "series")
    image = nib.Nifti1Image(volume.transpose(2, 1, 0), ras_affine(orientation=orientation))
    nib.save(image, tmp_path / "volume.nii.gz")
    series, nifti = read_scan(tmp_path / "series"), read_scan(tmp_path / "volume.nii.gz")
    np.testing.assert_array_equal(series.voxels, nifti.voxels)
    np.testing.assert_allclose(series.affine, nifti.affine, atol=1e-4)
    assert series.voxels.dtype == np.float32 and series.affine.dtype == np.float64
    assert series.volume_shape == series.voxels.shape == (16, 20, 8)
    np.testing.assert_array_equal(series.volume_affine, series.affine)


@pytest.mark.parametrize(
    "syntax",
    [*NATIVE, RLELossless, JPEGLSLossless, JPEG2000Lossless],
    ids=lambda syntax: syntax.name,
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_transfer_syntaxes_and_sample_formats(tmp_path, syntax, dtype):
    volume = (head_volume(slices=3, rows=64, columns=48) % 250).astype(dtype)
    stored = volume - 100 if dtype == "int16" else volume
    scan = read_scan(save(dicom_datasets(stored, transfer_syntax=syntax), tmp_path / "s"))
    np.testing.assert_array_equal(scan.voxels, volume.transpose(2, 1, 0))
    assert scan.source["transfer_syntax"] == syntax


@pytest.mark.parametrize(
    "syntax",
    [
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLossless,
        uid.JPEGLosslessSV1,
        uid.JPEG2000,
    ],
)
def test_syntaxes_that_cannot_be_written_here_have_a_decoder(syntax):
    assert get_decoder(syntax).is_available


@pytest.mark.parametrize(
    "name", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"]
)
def test_real_slice_is_the_same_in_every_encoding(name):
    def voxels(file):
        return read_scan(get_testdata_file(file, download=False), axial_slice=True).voxels

    np.testing.assert_array_equal(voxels(f"MR_small_{name}.dcm"), voxels("MR_small.dcm"))


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


def test_rescale_of_each_slice_and_unused_bits(tmp_path):
    volume = head_volume(slices=3)
    datasets = dicom_datasets(
        volume | 0x8000, BitsStored=12, HighBit=11
    )  # overlay bit above the stored ones
    for slope, dataset in zip((1, 2, 0.5), datasets):
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, -10
    scan = read_scan(save(datasets, tmp_path))
    np.testing.assert_allclose(scan.voxels, (volume * [[[1]], [[2]], [[0.5]]]).transpose(2, 1, 0))


def test_monochrome1_is_inverted_within_the_stored_range(tmp_path):
    volume = head_volume(slices=2)
    inverse = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    scan = read_scan(save(dicom_datasets(4095 - volume, **inverse), tmp_path / "plain"))
    np.testing.assert_array_equal(scan.voxels, volume.transpose(2, 1, 0))
    scaled = dicom_datasets(4095 - volume, RescaleSlope=2, RescaleIntercept=5, **inverse)
    np.testing.assert_array_equal(
        read_scan(save(scaled, tmp_path / "s")).voxels, 2 * volume.transpose(2, 1, 0)
    )


def test_series_of_a_folder_is_chosen(tmp_path):
    first, second = head_volume(), head_volume(slices=5)
    save(dicom_datasets(first, series_uid="1.2.3"), tmp_path / "study")
    save(dicom_datasets(second, series_uid="1.2.4"), tmp_path / "study", "other{}.dcm".format)
    with pytest.raises(
        InputError, match=r"several_series.*1\.2\.3 \(8 images\), 1\.2\.4 \(5 images\)"
    ):
        read_scan(tmp_path / "study")
    with pytest.raises(InputError, match="series_not_found"):
        read_scan(tmp_path / "study", series_uid="1.2")
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
    folder = save(dicom_datasets(head_volume(), transfer_syntax=RLELossless), tmp_path / "s")
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, f"a b/ü/{file.name}")
        archive.writestr("__MACOSX/._IM0000", b"hidden")
    for level in (None, "middle"):
        plain, zipped = read_scan(folder, level=level), read_scan(tmp_path / "s.zip", level=level)
        np.testing.assert_array_equal(plain.voxels, zipped.voxels)
        np.testing.assert_array_equal(plain.affine, zipped.affine)
        assert plain.source == zipped.source


@pytest.mark.parametrize("orientation", [AXIAL, SUPERIOR_TO_INFERIOR, TILTED])
@pytest.mark.parametrize("slices", [2, 7, 8])
@pytest.mark.parametrize("multiframe", [False, True])
def test_middle_slice_is_that_of_the_whole(tmp_path, orientation, slices, multiframe):
    datasets = dicom_datasets(
        head_volume(slices), orientation=orientation, RescaleSlope=3, RescaleIntercept=1
    )
    path = enhanced(datasets, tmp_path / "e.dcm") if multiframe else save(datasets, tmp_path / "s")
    whole, middle = read_scan(path), read_scan(path, level="middle")
    rises = whole.affine[2, 2] > 0
    index = slices // 2 if rises else slices - 1 - slices // 2
    np.testing.assert_array_equal(middle.voxels, whole.voxels[:, :, index : index + 1])
    np.testing.assert_allclose(middle.affine[:, 3], whole.affine @ [0, 0, index, 1])
    np.testing.assert_array_equal(middle.affine[:, :3], whole.affine[:, :3])
    assert middle.volume_shape == whole.voxels.shape and middle.voxels.shape[2] == 1
    np.testing.assert_array_equal(middle.volume_affine, whole.affine)
    assert middle.source == whole.source


def test_middle_decodes_the_pixels_of_one_file(tmp_path, monkeypatch):
    volume = head_volume(9)
    folder = save(dicom_datasets(volume), tmp_path)
    for file in folder.iterdir():
        if file.name != "IM0004":
            file.write_bytes(file.read_bytes()[:-300])  # cuts the pixels, not the header
    decoded = []
    monkeypatch.setattr(
        dicom, "dcmread", lambda stream: decoded.append(stream) or pydicom.dcmread(stream)
    )
    np.testing.assert_array_equal(read_scan(folder, level="middle").voxels[:, :, 0], volume[4].T)
    assert len(decoded) == 1
    with pytest.raises(InputError, match="unreadable"):
        read_scan(folder)


@pytest.mark.parametrize("orientation", [CORONAL, SAGITTAL])
def test_middle_reads_a_series_that_is_not_axial_whole(tmp_path, orientation):
    folder = save(dicom_datasets(head_volume(), orientation=orientation), tmp_path)
    np.testing.assert_array_equal(
        read_scan(folder, level="middle").voxels, read_scan(folder).voxels
    )


def test_middle_checks_the_geometry_of_the_whole(tmp_path):
    datasets = dicom_datasets(head_volume(9))
    folder = save(datasets[:1] + datasets[2:], tmp_path)
    with pytest.raises(InputError, match="missing_slice"):
        read_scan(folder, level="middle")


def test_enhanced_multiframe_equals_the_series(tmp_path):
    datasets = dicom_datasets(
        head_volume(), orientation=TILTED, RescaleSlope=2, RescaleIntercept=-7
    )
    series = read_scan(save(datasets, tmp_path / "s"))
    multiframe = read_scan(enhanced(datasets[::-1], tmp_path / "e.dcm"))
    np.testing.assert_array_equal(multiframe.voxels, series.voxels)
    np.testing.assert_allclose(multiframe.affine, series.affine, atol=1e-6)
    assert multiframe.source["file_count"] == 1


def test_single_slice_declared_axial(tmp_path):
    volume = head_volume(1)
    file = save(dicom_datasets(volume, orientation=TILTED), tmp_path) / "IM0000"
    scan = read_scan(file, axial_slice=True, level="middle")
    np.testing.assert_array_equal(scan.voxels, volume.transpose(2, 1, 0))
    np.testing.assert_allclose(
        scan.affine, ras_affine(orientation=TILTED), atol=1e-4
    )  # thickness as declared


def test_source_is_plain(tmp_path):
    attributes = {
        "ContrastBolusAgent": "Gd",
        "BurnedInAnnotation": "NO",
        "InversionTime": None,
        "FlipAngle": 8,
    }
    source = dict(read_scan(save(dicom_datasets(head_volume(), **attributes), tmp_path)).source)
    assert json.loads(json.dumps(source)) == source
    assert source["image_type"] == ["ORIGINAL", "PRIMARY", "M"]
    assert source["scanning_sequence"] == "GR" and source["modality"] == "MR"
    assert source["sop_class"] == "MR Image Storage"
    assert (source["echo_time"], source["repetition_time"], source["field_strength"]) == (
        4.6,
        9.8,
        1.5,
    )
    assert (
        source["contrast_agent"] is True
        and source["burned_in_annotation"] == "NO"
        and source["flip_angle"] == 8.0
    )
    assert (
        "inversion_time" not in source and "acquisition_contrast" not in source
    )  # empty or absent: unknown
    assert source["obliquity_deg"] == 0.0


@pytest.mark.parametrize(
    "text, words",
    {
        "t1_mprage_sag_p2_iso": ["t1"],
        "Ax T1 FLAIR": ["t1", "flair"],
        "AX_T2_TSE": ["t2"],
        "t2_tirm_tra_dark-fluid_4mm": ["t2", "flair"],
        "eFLAIR_longTR": ["flair"],
        "WIP sT1W_3D_TFE": ["t1"],
        "ep2d_diff_3scan_trace_ADC": ["diffusion", "functional"],
        "3D TOF MRA": ["angiography"],
        "3-plane Localizer": ["localizer"],
        "AX T1 +C": ["t1", "contrast_agent"],
        "t1_se_tra_KM": ["t1", "contrast_agent"],
        "AXIAL T1 POST GADOLINIUM": ["t1", "contrast_agent"],
        "T1 post-contrast": ["t1", "contrast_agent"],
        "T1 pre Gd": ["t1", "no_contrast_agent"],
        "T1 without contrast": ["t1", "no_contrast_agent"],
        "T1 post": ["t1", "perhaps_contrast_agent"],
        "T1 posterior fossa": ["t1"],
        "CANARY^PATIENT": [],
    }.items(),
)
def test_description_is_kept_as_words_of_a_fixed_list(tmp_path, text, words):
    folder = save(
        dicom_datasets(head_volume(2), SeriesDescription=text, ProtocolName=text), tmp_path
    )
    source = read_scan(folder).source
    assert source.get("described_as", []) == words
    assert text not in json.dumps(dict(source))


def test_words_cover_series_description_and_protocol_name(tmp_path):
    folder = save(
        dicom_datasets(head_volume(2), SeriesDescription="CANARY", ProtocolName="t2_tse"), tmp_path
    )
    assert read_scan(folder).source["described_as"] == ["t2"]


def coded(meaning):
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99TEST", meaning
    return [item]


@pytest.mark.parametrize(
    "attributes, known",
    [
        *(
            ({"ContrastBolusAgent": agent}, True)
            for agent in ("Gadovist", "gd", "CANARY", "NON-IONIC GADOLINIUM")
        ),
        *(
            ({"ContrastBolusAgent": agent}, False)
            for agent in ("", "NON", "NIL", "-", "OHNE", "NOT ADMINISTERED", "no")
        ),
        ({"ContrastBolusVolume": 7.5}, True),
        ({"ContrastBolusVolume": 0}, False),
        ({"ContrastBolusTotalDose": 15}, True),
        ({"ContrastBolusRoute": "IV"}, True),
        ({"ContrastBolusRoute": "NONE"}, False),
        ({"ContrastBolusAgent": "NONE", "ContrastBolusVolume": 0, "ContrastBolusRoute": ""}, False),
        ({"ContrastBolusAgentSequence": coded("Gadoterate")}, True),
        ({"ContrastBolusAgentSequence": coded("None")}, False),
    ],
)
def test_contrast_agent_is_one_that_is_named(tmp_path, attributes, known):
    source = read_scan(save(dicom_datasets(head_volume(2), **attributes), tmp_path)).source
    assert source.get("contrast_agent", False) is known


def test_enhanced_facts_come_from_the_functional_groups(tmp_path):
    path = enhanced(dicom_datasets(head_volume(2)), tmp_path / "e.dcm")
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
    assert source["acquisition_contrast"] == "T1" and source["sop_class"].startswith(
        "Legacy Converted Enhanced MR"
    )
    assert "contrast_agent" not in source  # of the plan, not of this frame


@pytest.mark.parametrize("multiframe", [False, True])
def test_patient_is_named_neither_in_the_source_nor_in_warnings(
    tmp_path, recwarn, caplog, multiframe
):
    datasets = dicom_datasets(head_volume())
    folder = tmp_path / "CANARY^PATIENT"
    folder.mkdir()
    if multiframe:
        enhanced(datasets, folder / "e.dcm")
    else:
        save(datasets, folder)
    for file in folder.iterdir():
        file.write_bytes(
            file.read_bytes().replace(b"19010203", b"CANARY: ")
        )  # a birth date that is not valid
    recwarn.clear()
    caplog.clear()
    caplog.set_level("DEBUG")
    for level in (None, "middle"):
        assert "CANARY" not in str(dict(read_scan(folder, level=level).source))
    assert not [str(warning.message) for warning in recwarn if "CANARY" in str(warning.message)]
    assert "CANARY" not in caplog.text


def test_obliquity_is_the_angle_to_the_closest_patient_axes(tmp_path):
    angle = np.radians(20)
    orientation = (1, 0, 0, 0, np.cos(angle), np.sin(angle))
    scan = read_scan(
        save(dicom_datasets(head_volume(), orientation=np.round(orientation, 9)), tmp_path)
    )
    assert scan.source["obliquity_deg"] == 20.0


def test_affine_maps_voxels_to_image_positions(tmp_path):
    folder = save(dicom_datasets(head_volume(), orientation=TILTED), tmp_path)
    scan = read_scan(folder)
    for k, file in enumerate(sorted(folder.iterdir())):
        position = np.array(pydicom.dcmread(file).ImagePositionPatient, float)
        np.testing.assert_allclose(
            (scan.affine @ [0, 0, k, 1])[:3], position * [-1, -1, 1], atol=1e-3
        )
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, 2]), 2.0, atol=1e-4)
    assert normal(TILTED) @ (scan.affine[:3, 2] * [-1, -1, 1]) > 0


def test_without_the_extra_the_package_imports_and_says_what_to_install(tmp_path):
    save(dicom_datasets(head_volume()), tmp_path)
    code = f"""
import sys
sys.modules["pydicom"] = sys.modules["highdicom"] = None
from pathology_screen.errors import ConfigError
from pathology_screen.io import read_scan
try:
    read_scan({str(tmp_path)!r})
except ConfigError as error:
    assert "pip install pathology-screen[dicom]" in str(error)
else:
    raise SystemExit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.needs_shared
def test_real_oblique_series(shared_data):
    scan = read_scan(shared_data / "dicom_hanke_t1")
    assert scan.voxels.shape == (274, 384, 48)
    np.testing.assert_allclose(
        np.linalg.norm(scan.affine[:3, :3], axis=0), [0.69999, 0.66667, 5.33333], atol=1e-4
    )
    assert scan.source["obliquity_deg"] == pytest.approx(7.68, abs=0.01)
    assert scan.source["image_type"] == ["DERIVED", "SECONDARY"] and "echo_time" not in scan.source
    middle = read_scan(shared_data / "dicom_hanke_t1", level="middle")
    np.testing.assert_array_equal(
        middle.voxels, scan.voxels[:, :, 24:25]
    )  # slices run from inferior to superior
