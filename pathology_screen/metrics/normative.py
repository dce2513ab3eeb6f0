"""How well a network has learnt what is normal: the indices RQI, AHI and CACI after Bercea,
Wiestler, Rueckert and Schnabel, Nature Communications 16 (2025), s41467-025-56321-y.

The code released with that paper measures the parts of each index and prints them. How they become
one number stands in the paper alone, which was not at hand, so the formulas of RQI, AHI and CACI
are choices made here: they have the parts and the range of the originals, 0 (worst) to 1 (best),
and their values do not compare with printed ones.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.metrics.pooled import PooledStatistic, Subjects, in_parts


def quality_index(mae: Tensor, lpips: Tensor, ssim: Tensor) -> Tensor:
    """Return the RQI of each healthy slice and its reconstruction, 0 to 1: (1 - MAE) (1 - LPIPS)
    SSIM, each factor kept within 0 and 1.

    The parts, (N,) each over whole slices, are those of the released code; the product is a choice
    made here.

    >>> from torch import tensor
    >>> quality_index(mae=tensor([0.5]), lpips=tensor([0.5]), ssim=tensor([1.0]))
    tensor([0.2500])
    """
    factors = [(1 - mae).clamp(0, 1), (1 - lpips).clamp(0, 1), ssim.clamp(0, 1)]
    return factors[0] * factors[1] * factors[2]


def anomaly_to_healthy(
    unseen: np.ndarray, pathological: np.ndarray, restored: np.ndarray
) -> np.ndarray:
    """Return the AHI, 0 to 1: (FID(P; N) - FID(R(P); N)) / (FID(P; N) - FID(U; N)), kept within 0
    and 1: the share of the way from pathological slices P to unseen healthy ones U, in their
    distance to the healthy training slices N, that the reconstructions R(P) go; 0 where P are as
    near as U, since there is no way to go.

    The three distances, (R,) each, are those of the released code; the share is a choice made here.

    >>> anomaly_to_healthy(np.array([1.0]), pathological=np.array([5.0]), restored=np.array([2.0]))
    array([0.75])
    """
    way = pathological - unseen
    share = np.divide(pathological - restored, way, out=np.zeros_like(way), where=way > 0)
    return np.clip(share, 0, 1)


def harmonic_mean(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return 2 a b / (a + b) of numbers of at least 0, (R,) each; 0 where either is 0.

    CACI is that of what is conserved (SSIM of the reconstruction with the input in healthy tissue)
    and what is changed (1 - SSIM in the anomaly), or repaired (`repaired_share`): a choice made
    here. The released code measures SSIM, LPIPS and MSE in both regions.

    >>> harmonic_mean(np.array([1.0, 1.0]), np.array([0.5, 0.0])).round(3)
    array([0.667, 0.   ])
    """
    total = first + second
    return np.divide(2 * first * second, total, out=np.zeros_like(total), where=total > 0)


def repaired_share(damage: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return 1 - left / damage, kept within 0 and 1, (R,) each: `damage` is the mean 1 - SSIM in a
    painted anomaly of the altered slice with the slice before, `left` that of the reconstruction
    with the slice before. A copy has 0, a full repair 1; 0 where there is no damage. Has no
    counterpart in the released code, which knows no slice without the anomaly.

    >>> repaired_share(damage=np.array([0.8]), left=np.array([0.2]))
    array([0.75])
    """
    share = np.divide(left, damage, out=np.ones_like(damage), where=damage > 0)
    return np.clip(1 - share, 0, 1)


def normative_score(rqi: np.ndarray, ahi: np.ndarray, caci: np.ndarray) -> np.ndarray:
    """Return (H + AHI) / 2 with H the harmonic mean of RQI and CACI, (R,) each, 0 to 1: the one
    number by which the released code ranks methods.

    >>> normative_score(rqi=np.array([1.0]), ahi=np.array([0.5]), caci=np.array([1.0]))
    array([0.75])
    """
    return (harmonic_mean(rqi, caci) + ahi) / 2


class NormalFeatures(NamedTuple):
    """The normal distribution fitted to features of healthy training slices: mean (F,) and
    covariance (F, F)."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: ArrayLike) -> "NormalFeatures":
        """Fit it to features (N, F) of two slices or more, the covariance over N - 1.

        Raises:
            ConfigError: if there are fewer than two.
            InputError: "not_finite".
        """
        features = _checked(features)
        if len(features) < 2:
            raise ConfigError("the distance to healthy slices needs two of them or more")
        return cls(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(
    features: ArrayLike, subjects: Subjects, reference: NormalFeatures
) -> PooledStatistic:
    """Return the squared Fréchet distance of the normal distribution fitted to features (N, F), the
    i-th of which belongs to the i-th of N subjects, to that of a reference, which is kept whatever
    subjects are drawn (Dowson and Landau, 1982; FID of Heusel et al., 2017, where the features are
    those of Inception v3):

        |m - m_ref|^2 + Tr C + Tr C_ref - 2 Tr (C C_ref)^(1/2), C over N - 1.

    C C_ref has the eigenvalues of the N x N matrix X C_ref X', with X the centred features over
    sqrt(N - 1), so that no F x F root is taken. It is too high for few slices, and compares between
    sets of the same size only. NaN for a single slice.

    Raises:
        ConfigError: if the numbers of features, or of slices and subjects, differ.
        InputError: "not_finite".

    >>> slices = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    >>> shifted = frechet_distance(slices + [3.0, 4.0], ["a", "b", "c"], NormalFeatures.of(slices))
    >>> round(shifted.value, 6)
    25.0
    """
    offset = _checked(features)
    if offset.shape != (len(subjects), len(reference.mean)):
        raise ConfigError(
            f"features {offset.shape} go neither with {len(subjects)} subjects nor with a "
            f"reference of {len(reference.mean)} features"
        )
    offset = offset - reference.mean
    inner = offset @ offset.T  # (N, N)
    weighted = offset @ reference.covariance @ offset.T  # (N, N)
    spread = float(np.trace(reference.covariance))
    names, index = np.unique(np.asarray(list(subjects), dtype=str), return_inverse=True)

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


def _checked(features: ArrayLike) -> np.ndarray:
    """Features (N, F) as float64, all finite."""
    values = np.asarray(features, np.float64)
    if values.ndim != 2:
        raise ConfigError(f"features must be (N, F), not {values.shape}")
    if not np.isfinite(values).all():
        raise InputError("not_finite", "features of slices")
    return values
