"""Each way in which a scan is refused, from a file that really is so."""

import gzip
import os
import time
import traceback
import tracemalloc
import zipfile
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid
from scan_builders import CORONAL, SAGITTAL, dicom_datasets, head_volume, save

from pathology_screen.errors import REFUSALS, InputError
from pathology_screen.io import read_scan

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
HEADER_AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def refusal(path, **options) -> InputError:
    """The refusal of a scan, after checking that neither it nor its traceback repeats the patient's data."""
    with pytest.raises(InputError) as caught:
        read_scan(path, **options)
    text = "".join(traceback.format_exception(caught.value))
    assert "CANARY" not in text and str(Path(path).parent) not in str(caught.value)
    assert caught.value.code in REFUSALS
    return caught.value


# --- DICOM: one change to a series that is read without it ---


def move(k, offset):
    def change(datasets):
        position = np.array(datasets[k].ImagePositionPatient, float) + offset
        datasets[k].ImagePositionPatient = [float(x) for x in position]

    return change


def each(**attributes):
    def change(datasets):
        for dataset in datasets:
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value)

    return change


def one(**attributes):
    return lambda datasets: each(**attributes)(datasets[3:4])


def without(keyword):
    def change(datasets):
        for dataset in datasets:
            delattr(dataset, keyword)

    return change


def raw(keyword, value):
    """Store bytes that pydicom would refuse to write as a value of this attribute."""

    def change(datasets):
        tag = pydicom.tag.Tag(keyword)
        for dataset in datasets:
            dataset[tag] = RawDataElement(tag, None, len(value), value, 0, True, True)

    return change


def shear(datasets):
    for k, dataset in enumerate(datasets):
        move(0, [0, 0.4 * k, 0])([dataset])


def localizer(datasets):
    volume = head_volume(1, rows=32)
    datasets += dicom_datasets(volume, orientation=SAGITTAL, series_uid=datasets[0].SeriesInstanceUID)


def second_echo(datasets):
    echo = dicom_datasets(head_volume(), series_uid=datasets[0].SeriesInstanceUID, EchoTime=9.2)
    each(FrameOfReferenceUID=datasets[0].FrameOfReferenceUID, StudyInstanceUID=datasets[0].StudyInstanceUID)(echo)
    datasets += echo


def smaller_slice(datasets):
    datasets[2:3] = dicom_datasets(head_volume(1, rows=10), series_uid=datasets[0].SeriesInstanceUID)
    datasets[2].FrameOfReferenceUID = datasets[0].FrameOfReferenceUID
    datasets[2].ImagePositionPatient = [-30.0, -40.0, -46.0]


BAD_SERIES = {
    "a slice is missing": (lambda datasets: datasets.pop(3), "missing_slice"),
    "three slices are missing": (lambda datasets: datasets.__delitem__(slice(2, 5)), "missing_slice"),
    "a slice is there twice": (lambda datasets: datasets.append(datasets[2]), "duplicate_slice"),
    "a slice lies beside another": (move(3, [5, 0, -2]), "duplicate_slice"),
    "two echoes": (second_echo, "duplicate_slice"),
    "a slice is off by a fifth": (move(3, [0, 0, 0.4]), "uneven_spacing"),
    "tilted gantry": (shear, "not_a_stack"),
    "a slice is tilted": (one(ImageOrientationPatient=[1, 0, 0, 0, 0.999, 0.0447]), "mixed_orientation"),
    "localizer in the series": (localizer, "mixed_orientation"),
    "two frames of reference": (one(FrameOfReferenceUID=generate_uid()), "mixed_frame_of_reference"),
    "no frame of reference": (without("FrameOfReferenceUID"), "missing_geometry"),
    "a smaller slice": (smaller_slice, "mixed_size"),
    "another pixel spacing": (one(PixelSpacing=[1.5, 1.2]), "mixed_size"),
    "no position": (without("ImagePositionPatient"), "missing_geometry"),
    "no orientation": (without("ImageOrientationPatient"), "missing_geometry"),
    "no pixel spacing": (without("PixelSpacing"), "missing_geometry"),
    "position of one slice is empty": (one(ImagePositionPatient=None), "missing_geometry"),
    "position of two numbers": (one(ImagePositionPatient=[1.0, 2.0]), "missing_geometry"),
    "position is text": (raw("ImagePositionPatient", rb"CANARY\0\0 "), "missing_geometry"),
    "position is NaN": (raw("ImagePositionPatient", rb"nan\0\0 "), "missing_geometry"),
    "pixel spacing is zero": (each(PixelSpacing=[0, 0]), "missing_geometry"),
    "pixel spacing is negative": (each(PixelSpacing=[-1, 1]), "missing_geometry"),
    "orientation is zero": (each(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "missing_geometry"),
    "orientation is skewed": (each(ImageOrientationPatient=[1, 0, 0, 0.3, 0.954, 0]), "missing_geometry"),
    "pixels of a kilometre": (each(PixelSpacing=[1e6, 1e6]), "voxel_size"),
    "pixels of a micrometre": (each(PixelSpacing=[1e-3, 1e-3]), "voxel_size"),
    "rescale slope is zero": (one(RescaleSlope=0, RescaleIntercept=0), "bad_rescale"),
    "rescale slope is NaN": (raw("RescaleSlope", b"nan "), "bad_rescale"),
    "rescale intercept is infinite": (raw("RescaleIntercept", b"inf "), "bad_rescale"),
    "rescale slope is text": (raw("RescaleSlope", b"CANARY"), "bad_rescale"),
    "colour": (each(PhotometricInterpretation="RGB", SamplesPerPixel=3), "not_monochrome"),
    "palette": (one(PhotometricInterpretation="PALETTE COLOR"), "not_monochrome"),
    "no photometric interpretation": (without("PhotometricInterpretation"), "not_monochrome"),
    "no pixels": (without("PixelData"), "no_image"),
    "pixels of one slice are cut short": (one(PixelData=b"\0" * 100), "unreadable"),
    "every voxel is the same": (each(PixelData=b"\7\0" * 320), "constant_image"),
    "no series UID": (without("SeriesInstanceUID"), "unreadable"),
    "rows are absent": (without("Rows"), "unreadable"),
    "one slice": (lambda datasets: datasets.__delitem__(slice(1, None)), "single_slice"),
    "frames without positions": (each(NumberOfFrames=2), "missing_geometry"),
}


@pytest.mark.parametrize(("change", "code"), BAD_SERIES.values(), ids=BAD_SERIES)
def test_series(tmp_path, change, code):
    datasets = dicom_datasets(head_volume(), transfer_syntax=ImplicitVRLittleEndian)
    read_scan(save(datasets, tmp_path / "good"))
    change(datasets)
    assert refusal(save(datasets, tmp_path / "bad")).code == code
    if code not in ("no_image", "unreadable", "constant_image"):  # all but the pixels is checked for one slice too
        assert refusal(tmp_path / "bad", level="middle").code == code


def test_tilt_between_the_patients_axes(tmp_path):
    def series(degrees):
        angle = np.radians(degrees)
        orientation = np.round((1, 0, 0, 0, np.cos(angle), np.sin(angle)), 9)
        return save(dicom_datasets(head_volume(), orientation=orientation), tmp_path / str(degrees))

    assert refusal(series(31)).code == "oblique"
    read_scan(series(29))


def test_single_slice_that_is_not_axial(tmp_path):
    folder = save(dicom_datasets(head_volume(1), orientation=CORONAL), tmp_path / "s")
    assert refusal(folder, axial_slice=True).code == "oblique"


def test_two_multiframe_objects(tmp_path):
    datasets = dicom_datasets(head_volume())
    for k, uid in enumerate((generate_uid(), generate_uid())):
        image = highdicom.legacy.LegacyConvertedEnhancedMRImage(datasets, "1.2.3", 1, uid, k + 1)
        image.save_as(tmp_path / f"{k}.dcm")
    assert refusal(tmp_path).code == "not_3d"


def test_multiframe_with_two_volumes(tmp_path):
    datasets = dicom_datasets(head_volume())
    second_echo(datasets)
    image = highdicom.legacy.LegacyConvertedEnhancedMRImage(datasets, generate_uid(), 1, generate_uid(), 1)
    image.save_as(tmp_path / "echoes.dcm")
    assert refusal(tmp_path / "echoes.dcm").code == "duplicate_slice"


@pytest.mark.parametrize(
    ("name", "code"),
    {
        "MR_truncated.dcm": "unreadable",
        "image_dfl.dcm": "unsupported_compression",
        "meta_missing_tsyntax.dcm": "unreadable",
        "ExplVR_LitEndNoMeta.dcm": "unreadable",
        "ExplVR_BigEndNoMeta.dcm": "unreadable",
        "SC_rgb_rle.dcm": "not_monochrome",
        "SC_rgb_jpeg.dcm": "not_monochrome",
        "examples_palette.dcm": "not_monochrome",
        "SC_rgb_rle_2frame.dcm": "missing_geometry",
        "JPEG2000.dcm": "missing_geometry",
        "test-SR.dcm": "no_image",
        "rtplan_truncated.dcm": "no_image",
        "test1.json": "unsupported_format",
    }.items(),
)
def test_real_files(name, code):
    assert refusal(PYDICOM_FILES / name, axial_slice=True).code == code


def test_cut_at_any_byte_is_refused(tmp_path):
    folder = save(dicom_datasets(head_volume(2)), tmp_path / "s")
    file = folder / "IM0001"
    content = file.read_bytes()
    for length in [*range(140, len(content) - 640, 23), len(content) - 640, len(content) - 2]:
        file.write_bytes(content[:length])
        refusal(folder)


@pytest.mark.parametrize("tail", [30, 400])
def test_compressed_pixels_cut_short(tmp_path, tail):
    volume = head_volume(2, rows=64, columns=64)
    folder = save(dicom_datasets(volume, transfer_syntax=JPEG2000Lossless), tmp_path / "s")
    file = folder / "IM0001"
    file.write_bytes(file.read_bytes()[:-tail])
    assert refusal(folder).code == "unreadable"


def test_damaged_run_lengths(tmp_path):
    folder = save(dicom_datasets(head_volume(2), transfer_syntax=RLELossless), tmp_path / "s")
    header = b"\x02\0\0\0\x40\0\0\0"  # two segments, the first at byte 64
    for damage in (b"\x02\0\0\0\xff\xff\xff\xff", b"\x02\0\0\0\x41\0\0\0"):
        file = folder / "IM0001"
        content = file.read_bytes()
        assert content.count(header) == 1
        file.write_bytes(content.replace(header, damage))
        assert refusal(folder).code == "unreadable"
        file.write_bytes(content)


def test_unknown_transfer_syntax(tmp_path):
    folder = save(dicom_datasets(head_volume(2)), tmp_path / "s")
    for file in folder.iterdir():
        content = file.read_bytes()
        file.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.7\0", 1))
    assert refusal(folder).code == "unsupported_compression"


def test_deeply_nested_sequences(tmp_path):
    datasets = dicom_datasets(head_volume(2))
    datasets[0].ReferencedImageSequence = [Dataset()]
    folder = save(datasets, tmp_path / "s")
    file = folder / "IM0000"
    content = file.read_bytes()
    at = content.index(b"\x08\0\x40\x11SQ")  # a sequence of one empty item: 20 bytes
    start = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    file.write_bytes(content[:at] + start * 5 + end * 5 + content[at + 20 :])
    read_scan(folder)
    file.write_bytes(content[:at] + start * 300 + end * 300 + content[at + 20 :])
    assert refusal(folder).code == "unreadable"


def test_length_field_of_two_gigabytes(tmp_path):
    folder = save(dicom_datasets(head_volume(2)), tmp_path / "s")
    for file in folder.iterdir():
        content = file.read_bytes()
        at = content.index(b"\xe0\x7f\x10\0OW\0\0") + 8
        file.write_bytes(content[:at] + b"\xf0\xff\xff\x7f" + content[at + 4 : -20])
    start = time.perf_counter()
    assert refusal(folder).code == "unreadable"
    assert time.perf_counter() - start < 5


def test_implausibly_large_slices_are_refused_by_their_headers(tmp_path):
    datasets = dicom_datasets(head_volume(2), Rows=60000, Columns=60000)
    assert refusal(save(datasets, tmp_path / "s")).code == "too_large"


# --- NIfTI ---


def nifti(path, voxels=None, affine=HEADER_AFFINE):
    voxels = head_volume().astype("int16") if voxels is None else voxels
    nib.save(nib.Nifti1Image(voxels, affine, dtype=voxels.dtype), path)
    return path


def with_voxel(value):
    voxels = head_volume().astype("float32")
    voxels[1, 2, 3] = value
    return voxels


def rotated(degrees):
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(x=np.radians(degrees))
    return affine


RGB = np.zeros((4, 5, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))

BAD_NIFTI = {
    "NaN": ({"voxels": with_voxel(np.nan)}, "not_finite"),
    "Inf": ({"voxels": with_voxel(np.inf)}, "not_finite"),
    "beyond float32": ({"voxels": with_voxel(1).astype("float64") * 1e300}, "not_finite"),
    "all zero": ({"voxels": np.zeros((8, 9, 10), "uint8")}, "constant_image"),
    "constant": ({"voxels": np.full((8, 9, 10), 7, "int16")}, "constant_image"),
    "four volumes": ({"voxels": head_volume().reshape(8, 10, 8, 4)}, "not_3d"),
    "vectors": ({"voxels": head_volume().reshape(8, 10, 8, 1, 4)}, "not_3d"),
    "a line": ({"voxels": np.arange(9, dtype="int16")}, "not_3d"),
    "complex": ({"voxels": head_volume().astype("complex64")}, "not_monochrome"),
    "RGB": ({"voxels": RGB}, "not_monochrome"),
    "two-dimensional": ({"voxels": head_volume()[0].astype("int16")}, "single_slice"),
    "one slice": ({"voxels": head_volume()[:, :, :1]}, "single_slice"),
    "one sagittal slice": ({"voxels": head_volume()[:1]}, "single_slice"),
    "5000 slices": ({"voxels": np.zeros((2, 2, 5000), "uint8")}, "too_large"),
    "flat": ({"affine": np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])}, "singular_affine"),
    "sheared": ({"affine": np.eye(4) + np.eye(4, k=1) * [0, 0.2, 0, 0]}, "sheared_affine"),
    "huge voxels": ({"affine": np.diag([1e6, 1e6, 1e6, 1])}, "voxel_size"),
    "tiny voxels": ({"affine": np.diag([1e-4, 1e-4, 1e-4, 1])}, "voxel_size"),
    "oblique by 45 degrees": ({"affine": rotated(45)}, "oblique"),
    "oblique by 31 degrees": ({"affine": rotated(31)}, "oblique"),
}


@pytest.mark.parametrize(("content", "code"), BAD_NIFTI.values(), ids=BAD_NIFTI)
def test_nifti(tmp_path, content, code):
    assert refusal(nifti(tmp_path / "scan.nii.gz", **content)).code == code
    assert refusal(nifti(tmp_path / "scan.nii", **content)).code == code


def test_nifti_without_qform_and_sform(tmp_path):
    image = nib.Nifti1Image(head_volume(), None)
    nib.save(image, tmp_path / "scan.nii.gz")
    assert nib.load(tmp_path / "scan.nii.gz").header["sform_code"] == 0
    assert refusal(tmp_path / "scan.nii.gz").code == "missing_geometry"


def test_nifti_slice_declared_axial_that_is_not(tmp_path):
    path = nifti(tmp_path / "scan.nii", head_volume()[:1])
    assert refusal(path, axial_slice=True).code == "oblique"


HEADER_PATCHES = {  # offset in the NIfTI-1 header, bytes written there, refusal
    "magic": (344, b"nope", "unsupported_format"),
    "magic of a pair of files": (344, b"ni1\0", "unsupported_format"),
    "header size": (0, b"\1\2\3\4", "unreadable"),
    "sample format": (70, b"\x77\x77", "unreadable"),
    "negative extent": (42, b"\xff\xff", "unreadable"),
    "extent of zero": (42, b"\0\0", "unreadable"),
    "more voxels than the file holds": (46, b"\xff\x01", "unreadable"),
    "most voxels that fit a header": (42, b"\xff\x7f" * 3, "too_large"),
    "offset of the voxels": (108, np.float32(1e30).tobytes(), "unreadable"),
    "offset of the voxels is NaN": (108, np.float32(np.nan).tobytes(), "unreadable"),
    "infinite slope": (112, np.float32(np.inf).tobytes(), "bad_rescale"),
    "infinite intercept": (112, np.array([2, np.inf], "<f4").tobytes(), "bad_rescale"),
    "NaN in the sform": (280, np.float32(np.nan).tobytes(), "missing_geometry"),
    "voxel of size zero": (280, np.zeros(4, "<f4").tobytes(), "singular_affine"),
    "units": (123, b"\x07", "unreadable"),
}


@pytest.mark.parametrize(("offset", "content", "code"), HEADER_PATCHES.values(), ids=HEADER_PATCHES)
@pytest.mark.parametrize("compressed", [False, True])
def test_nifti_header(tmp_path, offset, content, code, compressed):
    data = bytearray(nifti(tmp_path / "scan.nii").read_bytes())
    data[offset : offset + len(content)] = content
    path = tmp_path / f"bad.nii{'.gz' if compressed else ''}"
    path.write_bytes(gzip.compress(data) if compressed else data)
    assert refusal(path).code == code


def test_nifti_qform_that_is_no_rotation(tmp_path):
    image = nib.Nifti1Image(head_volume(), None)
    image.set_qform(np.eye(4), code=1)
    nib.save(image, tmp_path / "scan.nii")
    data = bytearray((tmp_path / "scan.nii").read_bytes())
    data[256:268] = np.array([0.9, 0.9, 0.9], "<f4").tobytes()
    (tmp_path / "scan.nii").write_bytes(data)
    assert refusal(tmp_path / "scan.nii").code == "missing_geometry"


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9, 0.999])
def test_truncated_nifti(tmp_path, keep):
    for path in (nifti(tmp_path / "scan.nii.gz"), nifti(tmp_path / "scan.nii")):
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        assert refusal(path).code in ("unreadable", "unsupported_format")


def test_compressed_nifti_with_a_flipped_bit(tmp_path):
    path = nifti(tmp_path / "scan.nii.gz")
    stored = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    stored[-1000] ^= 1  # in the voxels: only the checksum at the end tells
    path.write_bytes(stored)
    assert refusal(path).code == "unreadable"


def test_nifti_bomb_costs_little(tmp_path):
    path = tmp_path / "bomb.nii.gz"
    with gzip.open(path, "wb", compresslevel=9) as out:
        out.write(nifti(tmp_path / "scan.nii").read_bytes())
        for _ in range(100):
            out.write(b"\0" * 2**20)
    tracemalloc.start()
    try:
        assert refusal(path).code == "unreadable"
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


# --- paths, folders and archives ---


def test_paths(tmp_path):
    assert refusal(tmp_path / "nowhere").code == "not_found"
    assert refusal(tmp_path / "nowhere.nii").code == "not_found"
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty").code == "empty"
    (tmp_path / "empty" / "loop").symlink_to(tmp_path / "empty")
    os.mkfifo(tmp_path / "empty" / "pipe")
    assert refusal(tmp_path / "empty").code == "empty"
    (tmp_path / "notes.txt").write_text("no scan")
    assert refusal(tmp_path / "notes.txt").code == "unsupported_format"
    (tmp_path / "nothing").write_bytes(b"")
    assert refusal(tmp_path / "nothing").code == "unsupported_format"
    (tmp_path / "nothing.nii.gz").write_bytes(b"")
    assert refusal(tmp_path / "nothing.nii.gz").code == "unsupported_format"


def test_lists_of_files(tmp_path):
    files = sorted(save(dicom_datasets(head_volume()), tmp_path / "s").iterdir())
    read_scan(files)
    with pytest.raises(InputError, match="not_found"):
        read_scan([*files, tmp_path / "IM9999"])
    with pytest.raises(InputError, match="empty"):
        read_scan([])


def test_folder_of_a_dicomdir_alone(tmp_path):
    (tmp_path / "DICOMDIR").write_bytes((PYDICOM_FILES / "dicomdirtests" / "DICOMDIR").read_bytes())
    assert refusal(tmp_path).code == "unsupported_format"
    (tmp_path / "notes.txt").write_text("no scan")
    assert refusal(tmp_path).code == "empty"


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "C:\\evil"])
def test_archive_that_leaves_its_folder(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for file in save(dicom_datasets(head_volume()), tmp_path / "s").iterdir():
            archive.write(file, file.name)
        archive.writestr(name, b"")
    assert refusal(tmp_path / "s.zip").code == "unsafe_archive"


def test_archive_without_a_scan(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("notes.txt", "no scan")
        archive.writestr("inner.zip", b"PK")
    assert refusal(tmp_path / "s.zip").code == "empty"


def test_damaged_member(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for file in save(dicom_datasets(head_volume()), tmp_path / "s").iterdir():
            archive.write(file, file.name)
    content = bytearray((tmp_path / "s.zip").read_bytes())
    content[content.index(b"\xe0\x7f\x10\0OW\0\0") + 40] ^= 0xFF  # in the pixels: the member's checksum tells
    (tmp_path / "s.zip").write_bytes(content)
    assert refusal(tmp_path / "s.zip").code == "unreadable"
