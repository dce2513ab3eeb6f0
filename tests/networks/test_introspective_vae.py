import torch

from pathology_screen.networks.introspective_vae import IntrospectiveVAE


def test_embeddings_are_the_pooled_maps():
    shapes = [tuple(e.shape[1:]) for e in IntrospectiveVAE().embeddings(torch.rand(1, 1, 128, 128))]
    assert shapes == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]
