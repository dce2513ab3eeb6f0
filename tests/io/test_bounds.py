"""Small files that would take the machine are refused before anything of their claimed size is
made."""

import gzip
import struct
import time
import tracemalloc
import zipfile

import nibabel as nib
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from scan_builders import dicom_datasets, head_volume, save

from pathology_screen.errors import ArtifactError, InputError
from pathology_screen.io import read_scan
from pathology_screen.networks.weights import read_checkpoint


def refused_cheaply(path, code):
    """The refusal, after checking what it cost."""
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            read_scan(path)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert caught.value.code == code and time.perf_counter() - start < 10
    return caught.value


# --- archives ---


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings_than_deflation(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "s.zip", "w", method) as archive:
        archive.writestr("IM0000", bytes(50 * 2**20))
    assert "deflate" in str(refused_cheaply(tmp_path / "s.zip", "unsafe_archive"))


@pytest.mark.parametrize(
    "name", ["a/" * 32_000 + "x", "a/" * 70 + "x", "x" * 5000, "a/" * 100], ids=len
)
def test_long_and_deep_paths(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr(name, b"")
    refused_cheaply(tmp_path / "s.zip", "unsafe_archive")


def test_many_members_of_deep_paths(tmp_path):
    """As deep and as many as is accepted: the folders above them are not listed."""
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for number in range(2000):
            archive.writestr(f"{number}/" + "abcdefgh/" * 60 + "x", b"")
    refused_cheaply(tmp_path / "s.zip", "unreadable")  # empty files


# --- NIfTI ---


def declaring(shape, datatype, bits):
    header = bytearray(nib.Nifti1Image(head_volume(), np.eye(4)).header.binaryblock) + bytes(4)
    header[40:56] = struct.pack("<8h", 3, *shape, *[1] * 4)
    header[70:74] = struct.pack("<2h", datatype, bits)
    header[108:112] = struct.pack("<f", 352)
    header[252:256], header[280:328] = (
        struct.pack("<2h", 0, 1),
        np.eye(4)[:3].astype("<f4").tobytes(),
    )
    header[344:348] = b"n+1\0"
    return bytes(header)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("shape", [(1024, 1024, 256), (512, 512, 512)])
def test_nifti_that_declares_more_than_it_holds(tmp_path, pack, shape):
    content = declaring(shape, 64, 64)
    (tmp_path / "s.nii.gz").write_bytes(pack(content))
    refused_cheaply(tmp_path / "s.nii.gz", "unreadable" if pack is bytes else "unsafe_archive")
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("s.nii", content)
    if pack is bytes:
        refused_cheaply(tmp_path / "s.zip", "unreadable")


def test_nifti_that_unpacks_to_all_that_it_declares(tmp_path):
    """200 MB of zeros in 200 kB."""
    content = declaring((512, 512, 100), 64, 64)
    with gzip.open(tmp_path / "s.nii.gz", "wb", compresslevel=9) as out:
        out.write(content)
        for _ in range(200):
            out.write(bytes(2**20))
    refused_cheaply(tmp_path / "s.nii.gz", "unsafe_archive")


# --- DICOM ---


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize("undefined_length", [True, False])
def test_a_million_empty_items(tmp_path, syntax, undefined_length):
    datasets = dicom_datasets(head_volume(2), transfer_syntax=syntax)
    datasets[0].ReferencedImageSequence = [Dataset()]
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
    assert "items" in refused_cheaply(tmp_path, "too_large").detail


# --- what was not fetched ---

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    "content, what", [(POINTER, "Git LFS"), (b"/annex/objects/MD5E-s12--34.nii.gz\n", "git-annex")]
)
def test_pointers_are_named(tmp_path, content, what):
    (tmp_path / "s.nii.gz").write_bytes(content)
    assert what in refused_cheaply(tmp_path / "s.nii.gz", "unsupported_format").detail


def test_weights_that_are_a_pointer(tmp_path):
    (tmp_path / "model.pt").write_bytes(POINTER)
    with pytest.raises(ArtifactError, match=r"model\.pt is a pointer of Git LFS.*git lfs pull"):
        read_checkpoint(tmp_path / "model.pt")
