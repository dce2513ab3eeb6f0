import numpy as np
import pytest
import torch

from pathology_screen.errors import ConfigError
from pathology_screen.networks.introspective_vae import IntrospectiveVAE
from pathology_screen.networks.principal_components import PrincipalComponents


def slices(count, size=32, rank=6):
    """Slices (count, 1, size, size) that vary along few directions, symmetric from left to right."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(rank, 1, size, size, generator=generator)
    weights = torch.rand(count, rank, generator=generator) * torch.linspace(1, 0.3, rank)
    images = torch.einsum("nr,rchw->nchw", weights, patterns + patterns.flip(3)) / 8
    return images.clamp(0, 1)


@pytest.fixture
def fitted():
    model = PrincipalComponents(size=32, count=4)
    model.fit(slices(30), noise_variance=0.01)
    return model


def test_posterior_is_that_of_probabilistic_principal_components(fitted):
    """Against the eigenvectors of the covariance, by numpy (Tipping and Bishop 1999, Eq. 12)."""
    inside = slices(30)[:, 0, 2:30, 4:28].flatten(1).double().numpy()
    data = np.concatenate([inside, slices(30).flip(3)[:, 0, 2:30, 4:28].flatten(1).double().numpy()])
    mean = data.mean(0)
    variances, directions = np.linalg.eigh((data - mean).T @ (data - mean) / (len(data) - 1))
    variances, directions = variances[::-1][:4], directions[:, ::-1][:, :4]
    projected = (inside - mean) @ directions * np.sqrt(variances) / (variances + 0.01)
    found, log_variance = fitted.encode(slices(30))
    np.testing.assert_allclose(np.abs(found.numpy()), np.abs(projected), atol=0.01)  # W is in half precision
    np.testing.assert_allclose(log_variance.exp().numpy(), 0.01 / (variances + 0.01), rtol=0.01)


def test_without_noise_it_is_a_projection():
    model = PrincipalComponents(size=32, count=8)
    model.fit(slices(30, rank=6), noise_variance=1e-9)
    back = model.decode(model.encode(slices(5))[0])
    torch.testing.assert_close(back[:, :, 2:30, 4:28], slices(5)[:, :, 2:30, 4:28], atol=0.01, rtol=0)


def test_outside_the_box_it_paints_nothing(fitted):
    painted = fitted.decode(torch.randn(2, 4))
    assert painted.shape == (2, 1, 32, 32)
    assert painted[:, :, 2:30, 4:28].abs().min() > 0
    assert painted.abs().sum() == pytest.approx(painted[:, :, 2:30, 4:28].abs().sum().item())


def test_fitting_twice_gives_the_same():
    first, second = PrincipalComponents(32, 4), PrincipalComponents(32, 4)
    for model in (first, second):
        model.fit(slices(30), 0.01)
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers()))


def test_too_few_slices_are_refused():
    with pytest.raises(ConfigError, match="2 training slices or more, not 1"):
        PrincipalComponents(32, 4).fit(slices(1), 0.01)


def test_network_starts_as_its_components():
    torch.manual_seed(0)
    network = IntrospectiveVAE(size=32, channels=(8, 16), latent=4, principal=True)
    x = slices(3)
    assert not network.principal.fitted and network(x).sum() == 0
    network.principal.fit(slices(30), 0.01)
    assert network.principal.fitted
    mean, log_variance = network.principal.encode(x)
    assert torch.equal(network.encode(x)[0], mean)
    assert torch.equal(network.encode(x)[1], log_variance.expand(3, 4))
    assert torch.equal(network(x), network.principal(x))


def test_state_dict_carries_the_components(fitted):
    other = PrincipalComponents(size=32, count=4)
    other.load_state_dict(fitted.state_dict())
    assert other.fitted and torch.equal(other(slices(3)), fitted(slices(3)))
