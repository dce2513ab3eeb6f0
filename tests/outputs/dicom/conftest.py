from collections.abc import Callable
from pathlib import Path

import highdicom
import pytest
from outputs.dicom.result_builders import make_result
from scan_builders import dicom_datasets, head_volume, save

from pathology_screen.outputs.dicom import write_dicom


@pytest.fixture
def series(tmp_path) -> Callable[..., Path]:
    """Function that writes a phantom series, attributes of `dicom_datasets`, into a folder."""

    def write(name: str = "series", slices: int = 8, **attributes) -> Path:
        return save(dicom_datasets(head_volume(slices), **attributes), tmp_path / name)

    return write


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def write(out):
    """Function that writes the result of a source, see `make_result`, to `out` and gives it."""

    def write(source, **changes):
        result = make_result(source, **changes)
        write_dicom(result, source, out)
        return result

    return write


@pytest.fixture
def report(series, out):
    """Function that writes a result and gives the content of its report."""

    def write(result, source=None):
        write_dicom(result, source or series(), out)
        return highdicom.sr.srread(out / "report.dcm").content

    return write
