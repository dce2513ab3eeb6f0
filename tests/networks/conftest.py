"""Weights of VGG-16 and images for it."""

import pytest
import torch
from torchvision.models import vgg16 as torchvision_vgg16
from vgg_state import VGG16_FILE, torchvision_state


@pytest.fixture
def images():
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def random_file(random_vgg16, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / VGG16_FILE
    torch.save(torchvision_state(random_vgg16), path)
    return path


@pytest.fixture(scope="session")
def random_vgg16():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision_vgg16(init_weights=True).features
