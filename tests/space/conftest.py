"""Heads and brains of nested ellipsoids."""

import pytest
from head_builder import ellipsoids


@pytest.fixture
def head():
    """Function that makes a head or brain as an array: `head(shape, affine, brain_only=True)`."""
    return ellipsoids
