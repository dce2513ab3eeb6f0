"""VGG-16 as a teacher: its values are the published ones, and other weights are refused."""

import sys

import pytest
import torch
from torch import nn
from vgg_state import VGG16_FILE, torchvision_state

from pathology_screen.errors import ArtifactError, ConfigError
from pathology_screen.networks.vgg import ST_VGG16_SHA256, MaxBlurPool, vgg16


def test_vgg16_is_that_of_torchvision(random_vgg16, random_file, images):
    expected, x = [], images.expand(-1, 3, -1, -1)
    for layer in random_vgg16:
        x = layer(x)
        expected += [x] if isinstance(layer, nn.MaxPool2d) else []
    result = vgg16("vgg16", random_file)(images.expand(-1, 3, -1, -1))
    shapes = [(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]
    assert [tuple(f.shape[1:]) for f in result] == shapes
    for a, b in zip(result, expected[1:]):
        torch.testing.assert_close(a, b)


def test_vgg16_is_found_in_the_torch_hub_cache(random_file, tmp_path, monkeypatch):
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / VGG16_FILE).symlink_to(random_file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert vgg16("vgg16").identity == vgg16("vgg16", random_file).identity


def test_st_vgg16_gives_the_values_of_the_published_implementation():
    """Reference values from stlpips-pytorch 0.0.2 itself, pooled features of block 2. Its
    poolings pad by a pixel more, so its grid is that of an image moved by 3 pixels."""
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    image = (0.5 + 0.5 * torch.sin(rows / 5) * torch.cos(columns / 7)).roll((3, 3), (0, 1))
    features = vgg16("st_vgg16")(image.expand(1, 3, -1, -1))[0][0]
    result = features[[41, 15, 124, 118]][:, [10, 12], [10, 15]]
    first, second = (0.135260, 0.117458), (0.127921, 0.137892)
    expected = torch.tensor([first, second, (0.120889, 0.112471), (0.101166, 0.105193)])
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)


def test_blur_pooling_by_hand():
    """Maxima of 1 3 3 4, reflected 3 1 3 3 4 3, blurred at every second place."""
    row = torch.tensor([0.0, 1.0, 3.0, 2.0, 4.0]).expand(1, 1, 5, 5)
    blurred = torch.tensor([3 + 2 * 1 + 3, 3 + 2 * 3 + 4]) / 4
    torch.testing.assert_close(MaxBlurPool(1)(row)[0, 0], blurred.expand(2, 2))


def test_identity_names_the_content_and_not_the_file(random_vgg16, random_file, tmp_path):
    assert vgg16("st_vgg16").identity == f"st_vgg16:{ST_VGG16_SHA256}"
    assert "stlpips_pytorch" not in sys.modules  # no foreign code is imported
    first = vgg16("vgg16", random_file).identity
    more = torchvision_state(random_vgg16) | {"classifier.0.bias": torch.zeros(3)}
    torch.save(more, tmp_path / "a.pth")
    assert vgg16("vgg16", tmp_path / "a.pth").identity == first
    torch.save(torchvision_state(random_vgg16, factor=1.01), tmp_path / "b.pth")
    assert vgg16("vgg16", tmp_path / "b.pth").identity != first


def test_missing_weights_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ArtifactError, match=VGG16_FILE) as refusal:
        vgg16("vgg16")
    message = str(refusal.value)
    assert "https://download.pytorch.org" in message and "st_vgg16" in message
    assert str(tmp_path) not in message


def test_wrong_weights_are_refused(random_vgg16, random_file, tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(ArtifactError, match=r"no weights weights\.pth") as refusal:
        vgg16("vgg16", path)
    assert str(tmp_path) not in str(refusal.value)
    wrong = torchvision_state(random_vgg16) | {"features.0.bias": torch.zeros(3)}
    for content in (wrong, [1, 2]):
        torch.save(content, path)
        with pytest.raises(ArtifactError, match=r"features\.0 is missing or has another shape"):
            vgg16("vgg16", path)
    with pytest.raises(ArtifactError, match=r"slice1\.0 is missing"):
        vgg16("st_vgg16", random_file)
    path.write_bytes(b"not weights")
    with pytest.raises(ArtifactError, match="damaged"):
        vgg16("vgg16", path)
    with pytest.raises(ConfigError, match="vgg19"):
        vgg16("vgg19")


def test_other_weights_under_the_published_names_are_refused(tmp_path):
    places = [(0, 2), (6, 8), (12, 14, 16), (20, 22, 24), (28, 30, 32)]
    names = [f"net.slice{k}.{i}" for k, block in enumerate(places, start=1) for i in block]
    layers = [layer for layer in vgg16("st_vgg16").modules() if hasattr(layer, "weight")]
    state = {f"{name}.weight": layer.weight for name, layer in zip(names, layers)}
    state |= {f"{name}.bias": layer.bias for name, layer in zip(names, layers)}
    torch.save(state, tmp_path / "same.pth")
    assert vgg16("st_vgg16", tmp_path / "same.pth").identity == f"st_vgg16:{ST_VGG16_SHA256}"
    state["net.slice1.0.bias"] = state["net.slice1.0.bias"] + 0.01
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ArtifactError, match="sha256"):
        vgg16("st_vgg16", tmp_path / "other.pth")
