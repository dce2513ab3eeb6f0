from collections.abc import Callable
from pathlib import Path

import pytest
from scan_builders import dicom_datasets, head_volume, save


@pytest.fixture
def series(tmp_path) -> Callable[..., Path]:
    """Function that writes a phantom series, attributes of `dicom_datasets`, into a folder."""

    def write(name: str = "series", slices: int = 8, **attributes) -> Path:
        return save(dicom_datasets(head_volume(slices), **attributes), tmp_path / name)

    return write


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"
