"""Results of screening with a network that needs no training."""

import pytest


@pytest.fixture
def result(brain, make_brain_screener):
    """Of a volume, with several regions."""
    return make_brain_screener(pixel_threshold=0.093)(brain)


@pytest.fixture
def single(slices, make_screener):
    """Of a single slice, which is not registered."""
    return make_screener()(slices[1])
