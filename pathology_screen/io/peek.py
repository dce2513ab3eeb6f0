"""What the start of a DICOM file states: whether it is an image, of which series, and where it
lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from pydicom.config import IGNORE
from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.tag import Tag
from pydicom.uid import UID

from pathology_screen.errors import InputError
from pathology_screen.io.file import File, opened

HEAD = 2**16
"""Bytes from the start of a file that are looked at: patient, study, series and position are in them."""
LONGEST_HEAD = 2**19
"""The same, where something long comes before them."""

_SOP_CLASS, _SYNTAX, _SERIES, _LAST = 0x00020002, 0x00020010, 0x0020000E, 0x00200052
_STACK = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_OWN = ("SOPInstanceUID", "ImagePositionPatient")
_TAGS = [int(Tag(keyword)) for keyword in (*_STACK, *_OWN)]


@dataclass(frozen=True)
class DicomStart:
    """What the start of a DICOM file says; every value is as it is stored, without padding, and
    empty where absent.

    Attributes:
        is_image: False for reports, segmentations and all others that hold no image.
        stack: patient, study, series and frame of reference: alike in all slices of one volume.
        instance: SOPInstanceUID.
        position: ImagePositionPatient, of a single-frame image.
    """

    is_image: bool
    stack: tuple[bytes, ...]
    instance: bytes
    position: bytes

    @property
    def series_uid(self) -> str:
        return self.stack[2].decode("ascii", "replace")


def dicom_start(head: bytes) -> DicomStart:
    """Read the start of a DICOM file.

    Args:
        head: its first bytes, with "DICM" at 128.

    Raises:
        InputError: "unreadable" where it does not say what it is, or ends before it says of which
            series.
    """
    source = BytesIO(head)
    source.seek(132)
    meta = _values(source, False, True, lambda tag, *_: tag >> 16 != 2)
    sop_class, syntax = (
        UID(meta.get(tag, b"").decode("ascii", "replace"), IGNORE) for tag in (_SOP_CLASS, _SYNTAX)
    )
    if not sop_class or not syntax:
        raise InputError("unreadable", "SOP class or transfer syntax is not stated")
    is_image = sop_class.name.endswith("Image Storage")
    if (
        not is_image or not syntax.is_transfer_syntax or syntax.is_deflated
    ):  # the reader will say why it reads none
        return DicomStart(is_image, (b"",) * len(_STACK), b"", b"")
    found = _values(
        source, syntax.is_implicit_VR, syntax.is_little_endian, lambda tag, *_: tag > _LAST, _TAGS
    )
    *stack, instance, position = (found.get(tag, b"") for tag in _TAGS)
    return DicomStart(True, tuple(stack), instance, position)


def series_of(file: File) -> str | None:
    """SeriesInstanceUID that a DICOM file states at its start, whatever comes behind; None where it
    states none.

    Raises:
        InputError: if the file cannot be read, as a member of an archive with a wrong checksum.
    """
    with opened(file) as stream:
        start = stream.read(LONGEST_HEAD)
    try:
        return dicom_start(start).series_uid
    except InputError:
        return None


def _values(source: BytesIO, implicit: bool, little: bool, stop, tags=None) -> Mapping[int, bytes]:
    """Elements as they are stored; those before the damage, where the series is among them."""
    found: dict[int, bytes] = {}
    try:
        for element in data_element_generator(
            source, implicit, little, stop_when=stop, specific_tags=tags
        ):
            if isinstance(element, RawDataElement) and element.value:
                if len(element.value) < element.length:
                    raise EOFError
                found[int(element.tag)] = element.value.strip(b" \0")
    except Exception as error:  # whatever a parser raises in the face of damage
        if _SERIES not in found:
            raise InputError("unreadable", type(error).__name__) from None
    return found
