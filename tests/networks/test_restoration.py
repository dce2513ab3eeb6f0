import pytest
import torch
from monai.inferers import SimpleInferer

from pathology_screen.errors import ConfigError
from pathology_screen.networks.build import build_inferer
from pathology_screen.networks.restoration import Restoration
from pathology_screen.transforms import eval_transforms

PREPARE = {"grid": "isotropic", "size": 128, "millimetres": 208.0, "percentile": 98.0}


@pytest.fixture(scope="module")
def phantom_slice(phantoms):
    """The screened slice of two phantoms, (2, 1, 128, 128)."""
    prepare = eval_transforms(level=0.55, domain="brain_extracted", **PREPARE)
    return torch.stack([prepare({"image": str(path)})["image"].as_tensor() for path in phantoms])


class Smear(torch.nn.Module):
    """A reconstruction that lets a third of what differs from 0.5 through."""

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return 0.5 + (x - 0.5) / 3


@pytest.fixture
def anomalous():
    image = torch.full((2, 1, 128, 128), 0.5)
    image[:, :, 40:80, 40:80] = 1.0
    return image


def test_one_pass_without_pose_is_the_network(anomalous):
    network = Smear()
    assert torch.equal(Restoration(pose=False, passes=1)(anomalous, network), Smear()(anomalous))
    assert network.calls == 1


def test_more_passes_discount_the_anomaly(anomalous):
    network = Smear()
    first, last = (Restoration(pose=False, passes=n)(anomalous, network)[0, 0, 60, 60] for n in (1, 6))
    assert first == pytest.approx(0.5 + 0.5 / 3)
    assert last == pytest.approx(0.5, abs=0.01)
    assert network.calls == 7


def test_second_pass_by_hand():
    """A flat image: blurring changes nothing."""
    image = torch.full((1, 1, 32, 32), 0.8)
    difference = 0.8 - 0.6
    trust = 1 / (1 + torch.exp(torch.tensor(-8 * (1 - difference / 0.15))))
    mixed = trust * 0.8 + (1 - trust) * 0.6
    restored = Restoration(pose=False, passes=2, tolerance=0.15)(image, Smear())
    assert restored[0, 0, 16, 16] == pytest.approx(float(0.5 + (mixed - 0.5) / 3), abs=1e-6)


def test_what_a_healthy_brain_shows_is_trusted():
    image = 0.5 + 0.05 * torch.rand(1, 1, 32, 32)
    one, many = (Restoration(pose=False, passes=n)(image, Smear()) for n in (1, 6))
    assert (one - many).abs().max() < 0.002


def test_standard_pose_goes_there_and_back(phantom_slice):
    """With the identity for a network, the slice comes back, but for the resampling."""
    back = Restoration(pose=True, passes=1)(phantom_slice, torch.nn.Identity())
    assert back.shape == phantom_slice.shape and back.min() >= 0 and back.max() <= 1
    assert (back - phantom_slice).abs().mean() < 0.01


def test_reconstruction_moves_with_the_slice(phantom_slice):
    """The network always sees the standard pose, so a constant picture of it lands where the brain is."""
    template = phantom_slice.mean(0, keepdim=True)
    shifted = phantom_slice.roll(10, dims=3)
    inferer = Restoration(pose=True, passes=1)
    here, there = (inferer(x, lambda s: template.expand_as(s)) for x in (phantom_slice, shifted))
    assert (there.roll(-10, dims=3) - here).abs().mean() < 0.25 * (there - here).abs().mean()


def test_wrong_settings_are_refused():
    for wrong in ({"passes": 0}, {"tolerance": 0.0}):
        with pytest.raises(ConfigError):
            Restoration(**wrong)


def test_inferers_are_built_from_settings_by_name():
    target = "pathology_screen.networks.restoration.Restoration"
    built = build_inferer({"_target_": target, "pose": False, "passes": 3, "tolerance": 0.2})
    assert built.identity == {"pose": None, "passes": 3, "tolerance": 0.2}
    assert isinstance(build_inferer({"_target_": "SimpleInferer"}), SimpleInferer)
    with pytest.raises(ConfigError, match="not os.system"):
        build_inferer({"_target_": "os.system"})
    with pytest.raises(ConfigError, match="arguments"):
        build_inferer({"_target_": target, "rounds": 3})
