"""What the headers of a DICOM series say of a volume that another program made of it.

It works without highdicom, and with the older pydicom of MONAI Label's environment.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread

from pathology_screen.errors import InputError
from pathology_screen.io.acquisition import acquisition_facts
from pathology_screen.io.stack import check_even, check_parallel


def series_facts(folder: Path) -> dict[str, Any]:
    """Collect the acquisition facts of a series, alone in a folder, whose slices are an evenly
    spaced stack; "missing_geometry" where a slice does not state where it lies, and what
    `check_parallel` and `check_even` raise."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    headers = [dcmread(file, stop_before_pixels=True) for file in files]
    frames = [[header, *frame] for header in headers for frame in described_frames(header)]
    positions, orientations = (
        [next((part[keyword].value for part in frame if keyword in part), None) for frame in frames]
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient")
    )
    if None in positions or None in orientations:
        raise InputError("missing_geometry", "not every slice states where it lies")
    check_parallel(np.array(orientations, float))
    check_even(np.array(positions, float), np.array(orientations[0], float))
    return acquisition_facts(frames[0])


def described_frames(header: Dataset) -> Iterator[list[Dataset]]:
    """The data sets that describe each frame of an image object beside its header: the items of
    the frame's own and of the shared functional groups."""

    def items(groups: Dataset) -> list[Dataset]:
        return [element.value[0] for element in groups if element.VR == "SQ" and element.value]

    shared = header.get("SharedFunctionalGroupsSequence") or []
    for groups in header.get("PerFrameFunctionalGroupsSequence") or [Dataset()]:
        yield [*items(groups), *(item for group in shared for item in items(group))]
