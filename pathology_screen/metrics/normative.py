"""How well a network has learnt what is normal: the indices RQI, AHI and CACI after Bercea,
Wiestler, Rueckert and Schnabel, Nature Communications 16 (2025), s41467-025-56321-y.

The code released with that paper measures the parts of each index and prints them. How they become
one number stands in the paper alone, which was not at hand, so the formulas of RQI, AHI and CACI
are choices made here: they have the parts and the range of the originals, 0 (worst) to 1 (best),
and their values do not compare with printed ones.
"""

import numpy as np
from torch import Tensor

from pathology_screen.errors import ConfigError
from pathology_screen.metrics.pooled import PooledStatistic, Subjects, in_parts, subject_of_each

Normal = tuple[np.ndarray, np.ndarray]
"""Of a normal distribution of features, mean (F,) and covariance (F, F)."""


def quality_index(mae: Tensor, lpips: Tensor, ssim: Tensor) -> Tensor:
    """The RQI (N,) of healthy slices and their reconstructions: (1 - MAE) (1 - LPIPS) SSIM, each
    factor kept within 0 and 1. The parts, (N,) over whole slices, are those of the released code.
    """
    return (1 - mae).clamp(0, 1) * (1 - lpips).clamp(0, 1) * ssim.clamp(0, 1)


def anomaly_to_healthy(
    unseen: np.ndarray, pathological: np.ndarray, restored: np.ndarray
) -> np.ndarray:
    """The AHI, (FID(P; N) - FID(R(P); N)) / (FID(P; N) - FID(U; N)), kept within 0 and 1, (R,)
    each: the share of the way from pathological slices P to unseen healthy ones U, in their
    distance to the healthy training slices N, that the reconstructions R(P) go; 0 where P are as
    near as U, since there is no way to go. The three distances are those of the released code."""
    way = pathological - unseen
    share = np.divide(pathological - restored, way, out=np.zeros_like(way), where=way > 0)
    return np.clip(share, 0, 1)


def harmonic_mean(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """2 a b / (a + b) of numbers of at least 0, (R,) each; 0 where either is 0.

    CACI is that of what is conserved (SSIM of the reconstruction with the input in healthy tissue)
    and what is changed (1 - SSIM in the anomaly), or repaired (`repaired_share`). The released code
    measures SSIM, LPIPS and MSE in both regions.
    """
    total = first + second
    return np.divide(2 * first * second, total, out=np.zeros_like(total), where=total > 0)


def repaired_share(damage: np.ndarray, left: np.ndarray) -> np.ndarray:
    """1 - left / damage, kept within 0 and 1, (R,) each; 0 where there is no damage: the mean
    1 - SSIM, in a painted anomaly, of the altered slice and of the reconstruction with the slice
    before. A copy has 0, a full repair 1. Has no counterpart in the released code."""
    share = np.divide(left, damage, out=np.ones_like(damage), where=damage > 0)
    return np.clip(1 - share, 0, 1)


def normative_score(rqi: np.ndarray, ahi: np.ndarray, caci: np.ndarray) -> np.ndarray:
    """(H + AHI) / 2 with H the harmonic mean of RQI and CACI, (R,) each, 0 to 1: the one number by
    which the released code ranks methods."""
    return (harmonic_mean(rqi, caci) + ahi) / 2


def fit_normal(features: np.ndarray) -> Normal:
    """Fit a normal distribution to features (N, F) of healthy slices, the covariance over N - 1;
    ConfigError if there are fewer than two."""
    features = np.asarray(features, np.float64)
    if len(features) < 2:
        raise ConfigError("the distance to healthy slices needs two of them or more")
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_distance(
    features: np.ndarray, subjects: Subjects, reference: Normal
) -> PooledStatistic:
    """The squared Fréchet distance of the normal distribution fitted to features (N, F), the i-th
    of which belongs to the i-th of N subjects, to a reference, which is kept whatever subjects are
    drawn (Dowson and Landau, 1982; FID of Heusel et al., 2017, where the features are those of
    Inception v3):

        |m - m_ref|^2 + Tr C + Tr C_ref - 2 Tr (C C_ref)^(1/2), C over N - 1.

    C C_ref has the eigenvalues of the N x N matrix X C_ref X', with X the centred features over
    sqrt(N - 1), so that no F x F root is taken. It is too high for few slices, and compares between
    sets of the same size only. NaN for a single slice.
    """
    mean, covariance = reference
    offset = np.asarray(features, np.float64) - mean
    inner = offset @ offset.T  # (N, N)
    weighted = offset @ covariance @ offset.T  # (N, N)
    spread = float(np.trace(covariance))
    names, index = subject_of_each(offset[:, 0], subjects)

    def distance(weights: np.ndarray) -> np.ndarray:
        counts = weights[:, index]  # (R, N)
        total = counts.sum(axis=1)
        free = np.where(total > 1, total - 1, np.nan)
        shares = counts / total[:, None]
        shift = np.einsum("ri,ij,rj->r", shares, inner, shares)
        own = total * (shares @ np.diag(inner) - shift) / free
        return shift + own + spread - 2 * _root_trace(weighted, shares, total / free)

    return PooledStatistic(names, in_parts(distance, len(offset) ** 2))


def _root_trace(kernel: np.ndarray, shares: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Tr (C C_ref)^(1/2), (R,), from x_i' C_ref x_j, (N, N), and the shares (R, N) of the slices in
    each of R resamples."""
    means = shares @ kernel  # (R, N)
    overall = np.einsum("rj,rj->r", means, shares)
    centred = kernel - means[:, :, None] - means[:, None, :] + overall[:, None, None]
    root = np.sqrt(shares * np.nan_to_num(factor)[:, None])
    values = np.linalg.eigvalsh(centred * root[:, :, None] * root[:, None, :])
    noise = len(kernel) * np.finfo(float).eps * values[:, -1:]  # of eigenvalues that are 0
    return np.sqrt(np.where(values > noise, values, 0)).sum(axis=1)
