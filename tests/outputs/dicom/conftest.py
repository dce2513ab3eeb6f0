from collections.abc import Callable
from pathlib import Path

import pydicom
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
def write(series, out):
    """Function that writes a result (else of `make_result`) of a source (else a phantom series) to
    `out`: gives the result and, by their names, the objects that lie there."""

    def write(source=None, result=None, **changes):
        source = source or series()
        result = result or make_result(source, **changes)
        write_dicom(result, source, out)
        return result, {path.name: pydicom.dcmread(path) for path in sorted(out.glob("*.dcm"))}

    return write
