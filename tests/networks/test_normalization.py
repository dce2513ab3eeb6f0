import torch

from pathology_screen.networks.introspective_vae import IntrospectiveVAE


def test_affine_is_a_batch_norm_with_frozen_statistics():
    torch.manual_seed(0)
    frozen = IntrospectiveVAE(size=16, channels=(8, 8), latent=4, norm="batch").eval()
    affine = IntrospectiveVAE(size=16, channels=(8, 8), latent=4, norm="affine")
    names, state = affine.state_dict().keys(), frozen.state_dict()
    affine.load_state_dict({name: state[name] for name in names})
    x = torch.rand(2, 1, 16, 16)  # BatchNorm divides by sqrt(1 + 1e-5)
    torch.testing.assert_close(frozen(x), affine(x), rtol=1e-4, atol=1e-4)
