"""The folder of real scans, where it is at hand."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Folder of real scans beside the checkout; tests that ask for it must be marked `needs_shared`."""
    if not SHARED.is_dir():
        pytest.skip("the real scans in ../shared/data are not at hand")
    return SHARED
