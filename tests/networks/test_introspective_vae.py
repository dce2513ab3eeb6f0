import torch

from pathology_screen.networks.introspective_vae import IntrospectiveVAE


def test_embeddings_are_the_pooled_maps():
    shapes = [tuple(e.shape[1:]) for e in IntrospectiveVAE().embeddings(torch.rand(1, 1, 128, 128))]
    assert shapes == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]


def test_affine_is_a_batch_norm_with_frozen_statistics():
    torch.manual_seed(0)
    frozen = IntrospectiveVAE(size=16, channels=(8, 8), latent=4, norm="batch").eval()
    affine = IntrospectiveVAE(size=16, channels=(8, 8), latent=4, norm="affine")
    affine.load_state_dict({name: frozen.state_dict()[name] for name in affine.state_dict()})
    x = torch.rand(2, 1, 16, 16)  # BatchNorm divides by sqrt(1 + 1e-5)
    torch.testing.assert_close(frozen(x), affine(x), rtol=1e-4, atol=1e-4)
