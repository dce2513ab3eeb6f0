"""Losses of the methods, each for one batch.

RA and SI-VAE: `squared_error`, `kl_divergence`, `exp_elbo` and, of RA alone,
`reversed_embedding_loss`. VAE: `negative_elbo`. MKD: `feature_discrepancy`. AE-S and DAE: L1 of
torch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def _full_precision(x: Tensor) -> Tensor:
    """What autocast gave in half precision as float32, other tensors as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def squared_error(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Sum the squared differences over each sample's pixels: (B, C, H, W) twice -> (B,).

    >>> squared_error(torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))
    tensor([4., 4.])
    """
    return (_full_precision(image) - reconstruction).square().flatten(1).sum(1)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL[N(mean, exp(log_variance)) || N(0, 1)]: (B, Z) twice -> (B,), in nats (Eq. 1).

    >>> kl_divergence(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2))
    tensor([2.])
    """
    mean, log_variance = _full_precision(mean), _full_precision(log_variance)
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)


def exp_elbo(
    error: Tensor, kl: Tensor, beta_rec: float, beta_neg: float, scale: float, alpha: float = 2.0
) -> Tensor:
    """Return exp(alpha * ELBO) of generated samples, with ELBO = -scale * (beta_rec * error +
    beta_neg * kl) (Eq. 2): (B,) twice -> (B,).

    >>> exp_elbo(torch.tensor([0.0]), torch.tensor([0.0]), beta_rec=1.0, beta_neg=1.0, scale=1.0)
    tensor([1.])
    """
    return torch.exp(-alpha * scale * (beta_rec * error + beta_neg * kl))


def reversed_embedding_loss(image: Sequence[Tensor], reconstruction: Sequence[Tensor]) -> Tensor:
    """Compare the encoder's embeddings of image and reconstruction, one (B, C_l, H_l, W_l) a level,
    (Eq. 3): a scalar, zero where they agree.

    Per level: 1 - cosine similarity of each sample's flattened map, averaged over the batch, plus
    half the mean squared error.

    >>> ones = torch.ones(1, 2, 1, 1)
    >>> reversed_embedding_loss([ones, ones], [ones, 3 * ones])
    tensor(2.)
    """
    levels = [
        (1 - F.cosine_similarity(a.flatten(1), b.flatten(1), eps=1e-8)).mean()
        + 0.5 * F.mse_loss(a, b)
        for a, b in zip(image, reconstruction)
    ]
    return torch.stack(levels).sum()


def negative_elbo(
    output: tuple[Tensor, Tensor, Tensor], image: Tensor, deviation: float = 1.0
) -> Tensor:
    """Return the loss of the VAE: half the squared error over the likelihood's variance plus the KL
    divergence, each summed over a sample and averaged over the batch.

    It is -ELBO for a Gaussian likelihood, up to a constant (Zimmerer et al., 2019): `output` is
    what `VAE.sample` gives, the smaller the `deviation` (source: 1), the closer the reconstruction.

    >>> image, mean, log_variance = torch.ones(1, 1, 2, 2), torch.zeros(1, 3), torch.zeros(1, 3)
    >>> negative_elbo((0 * image, mean, log_variance), image)
    tensor(2.)
    """
    reconstruction, mean, log_variance = output
    error = squared_error(image, reconstruction) / (2 * deviation**2)
    return (error + kl_divergence(mean, log_variance)).mean()


def feature_discrepancy(
    cloner: Sequence[Tensor], teacher: Sequence[Tensor], mse_weight: float = 0.01
) -> Tensor:
    """Compare the features of cloner and teacher, one (B, C_l, H_l, W_l) a layer: the loss of MKD,
    and on three layers its image score (Salehi et al., CVPR 2021); (B,), zero where they agree.

    Per layer and sample 1 - cosine similarity of the flattened maps, plus `mse_weight` times their
    mean squared error (source: 0.5 for MVTec, 0.01 otherwise); summed over the layers. The deepest
    features of the teacher "st_vgg16" are about a hundred times as large as the others; there 1e-4
    keeps the two terms of one size.

    >>> ones = torch.ones(1, 2, 1, 1)
    >>> feature_discrepancy([ones], [3 * ones], mse_weight=0.5)
    tensor([2.])
    """
    layers = [
        1
        - F.cosine_similarity(a.flatten(1), b.flatten(1), eps=1e-8)
        + mse_weight * (a - b).square().flatten(1).mean(1)
        for a, b in zip(cloner, teacher)
    ]
    return torch.stack(layers).sum(0)
