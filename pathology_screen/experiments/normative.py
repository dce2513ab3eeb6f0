"""How well each method has learnt what is normal: quality, the way from anomalous to healthy,
conservation and correction, after Bercea, Wiestler, Rueckert and Schnabel, Nature Communications 16
(2025), s41467-025-56321-y.

The code released with that paper measures the parts of each index and prints them. How they become
one number stands in the paper alone, which was not at hand, so the formulas of RQI, AHI and CACI
are choices made here: they have the parts and the range of the originals, 0 (worst) to 1 (best),
and their values do not compare with printed ones.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from pathology_screen.anomaly import perceptual_distance
from pathology_screen.anomaly.perceptual import PerceptualDistance, is_installed
from pathology_screen.errors import ConfigError
from pathology_screen.experiments.methods import ExperimentSetting
from pathology_screen.experiments.pictures import PictureLine, outline_annotations, picture_grid
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.slices import AnnotatedSlices
from pathology_screen.experiments.synthetic import KINDS, paint
from pathology_screen.metrics import reconstruction as errors
from pathology_screen.metrics.localization import healthy_tissue
from pathology_screen.metrics.pooled import (
    PooledStatistic,
    Subjects,
    combined,
    in_parts,
    pooled_mean,
    subject_of_each,
)

TRUNK = "st_alex"
"""Perceptual distance whose network gives the features, in place of Inception v3."""
MICRO_BATCH = 8

Normal = tuple[np.ndarray, np.ndarray]
"""Of a normal distribution of features, mean (F,) and covariance (F, F)."""


class Anomalies(NamedTuple):
    """Slices with anomalies of one kind; the same before the anomaly was painted, (N, 1, H, W),
    None where nobody knows them; the tissue outside all annotations, (N, 1, H, W) bool; and (N,),
    which slices have an anomaly with an outline and such tissue."""

    slices: AnnotatedSlices
    before: Tensor | None
    tissue: Tensor
    outlined: np.ndarray


def normative(setting: ExperimentSetting) -> Report:
    """Compare the reconstructions of methods, by what the authors of RA measured later, on healthy
    slices of the section, on the same with ellipses or a copied rectangle painted in, and on those
    whose finding the datalist names.

    Raises:
        ConfigError: if a method reconstructs nothing, or the section shows nobody healthy.
    """
    if without := [each.label for each in setting.compared if not each.predictor.reconstructs]:
        raise ConfigError(f"normative looks at reconstructions, and {', '.join(without)} has none")
    slices, training = setting.slices, setting.slices_of("training")
    if not slices.healthy.any():
        raise ConfigError(f"the {setting.section} section needs slices of healthy people")
    backbone = "alex" if is_installed("alex") else setting.shared.backbone
    trunk, lpips = perceptual_distance(TRUNK), perceptual_distance(backbone)
    training, healthy = training[training.healthy], slices[slices.healthy]
    reference = fit_normal(deep_features(training.images, trunk))

    def distance(images: Tensor, subjects: np.ndarray) -> PooledStatistic:
        return frechet_distance(deep_features(images, trunk), subjects, reference)

    unseen = distance(healthy.images, healthy.subjects)
    kinds = anomalies_of(setting)
    before = {
        kind: distance(each.slices.images, each.slices.subjects) for kind, each in kinds.items()
    }
    groups = dict(zip(slices.subjects, slices.healthy))
    measured, parts = Measurements(groups), Measurements(groups)
    restored: dict[str, dict[str, Tensor]] = {kind: {} for kind in kinds}
    for method in tqdm(setting.compared, desc="normative", unit="method"):
        label, pair = method.label, (healthy.images, method.reconstruct(healthy).clamp(0, 1))
        quality = {
            "healthy MAE": (pair[0].double() - pair[1]).abs().mean((1, 2, 3)),
            "healthy LPIPS": errors.perceptual_error(*pair, lpips),
            "healthy SSIM": errors.structural_similarity(*pair),
        }
        parts.add_means(label, quality, healthy.subjects)
        parts.add(label, "", "healthy distance", unseen, len(healthy))
        rqi = pooled_mean(quality_index(*quality.values()).numpy(), healthy.subjects)
        measured.add(label, "", "RQI*", rqi, len(healthy))
        for kind, each in kinds.items():
            output = method.reconstruct(each.slices).clamp(0, 1)
            restored[kind].setdefault(label, output)
            after = distance(output, each.slices.subjects)
            ahi = combined(anomaly_to_healthy, unseen, before[kind], after)
            parts.add(label, "", f"{kind} distance", after, len(each.slices))
            measured.add(label, "", f"{kind} AHI*", ahi, len(each.slices))
            if count := int(each.outlined.sum()):
                indices = _correction(label, kind, each, output, lpips, parts)
                indices["score*"] = combined(normative_score, rqi, ahi, indices["CACI*"])
                for name, statistic in indices.items():
                    measured.add(label, "", f"{kind} {name}", statistic, count)
    figures = {
        kind.replace("-", "_"): _figure(each, restored[kind]) for kind, each in kinds.items()
    }
    distances = ", ".join(f"{kind} {each.value:.3g}" for kind, each in before.items())
    notes = [
        f"{len(healthy)} healthy slices of {healthy.people} people, {len(training)} healthy "
        f"training slices. Distances to the latter before reconstruction: healthy "
        f"{unseen.value:.3g}, {distances}.",
        *_NOTES,
        f"LPIPS is that of {backbone}, where the released code has AlexNet and, for CACI, "
        "SqueezeNet.",
        f"Distances are Fréchet distances of the {len(reference[0])} features of ST-LPIPS' "
        "anti-aliased AlexNet, where the released code has the 2048 of Inception v3, whose weights "
        "are not installed.",
    ]
    provenance = setting.provenance() | {"lpips": lpips.identity, "features": trunk.identity}
    table = pd.DataFrame(parts.rows())
    table.loc[table["metric"].str.endswith(" distance"), ["low", "high"]] = np.nan
    tables = {"parts": table}
    return Report("normative", "Normative learning", measured, notes, provenance, figures, tables)


_NOTES = (
    "* after Bercea et al., Nature Communications 2025. The released code prints the parts alone "
    "(normative_parts.csv), and how they become an index was not to be had: these formulas are "
    "choices made here, and do not compare with printed values.",
    "RQI*: (1 - MAE) (1 - LPIPS) SSIM on healthy slices. AHI*: the share of the way to healthy "
    "slices, in distance to training slices, that the reconstructions of anomalous slices go. "
    "CACI*: harmonic mean of SSIM in healthy tissue and 1 - SSIM in the anomaly, against the "
    "input; a network that paints nonsense there gains by it. score*: (H + AHI*) / 2, H the "
    "harmonic mean of RQI* and CACI*: this one the code states.",
    "restored: harmonic mean of SSIM in healthy tissue and the share of the painted damage that "
    "is repaired, both against the slice before it was altered; the code has no such thing.",
    "Distances are too high for few slices: compare within a column alone. They have no interval, "
    "since resamples hold fewer different people and lie higher still. That of AHI* is wide where "
    "slices with an anomaly are hardly farther than healthy ones.",
)


def anomalies_of(setting: ExperimentSetting) -> dict[str, Anomalies]:
    """Kind -> slices with anomalies: painted ones, and those that the datalist names, if any."""
    slices = setting.slices
    healthy = slices[slices.healthy]
    kinds = {kind: _outlined(paint(healthy, kind, setting), healthy.images) for kind in KINDS}
    if not slices.healthy.all():
        kinds["annotated"] = _outlined(slices[~slices.healthy], None)
    return kinds


def _outlined(slices: AnnotatedSlices, before: Tensor | None) -> Anomalies:
    annotations = map(torch.cat, zip(slices.masks, slices.boxes, slices.other_boxes))
    images = slices.images if before is None else before
    pairs = zip(images[:, 0].numpy(), annotations)
    masks = [healthy_tissue(image, each.numpy()) for image, each in pairs]
    tissue = torch.from_numpy(np.stack(masks)) > 0
    both = slices.regions.flatten(1).any(dim=1) & tissue.flatten(1).any(dim=1)
    return Anomalies(slices, before, tissue, both.numpy())


@torch.no_grad()
def deep_features(images: Tensor, trunk: PerceptualDistance) -> np.ndarray:
    """Features of slices, (N, 1, H, W) in [0, 1] -> (N, F): the mean over the image of the last map
    of the network inside a perceptual distance, which sees them as grey pictures."""
    metric: Any = trunk.metric
    scaled = (metric.scaling_layer(2 * part - 1) for part in images.float().split(MICRO_BATCH))
    return torch.cat([metric.net(part)[-1].mean(dim=(2, 3)) for part in scaled]).numpy()


def _correction(
    label: str,
    kind: str,
    each: Anomalies,
    output: Tensor,
    lpips: Callable[[Tensor, Tensor], Tensor],
    parts: Measurements,
) -> dict[str, PooledStatistic]:
    """CACI of one kind of anomaly, and with the slice before it the same of what is restored; the
    parts are noted."""
    chosen = each.outlined
    slices, output = each.slices[chosen], output[chosen]
    image, subjects = slices.images, slices.subjects
    tissue, anomaly = each.tissue[chosen], slices.regions
    distances = lpips(image.float(), output.float())
    found: dict[str, Tensor] = {}
    for name, mask in (("tissue", tissue), ("anomaly", anomaly)):
        found[f"{kind} {name} MSE"] = errors.mean_squared_error(image, output, mask)
        found[f"{kind} {name} LPIPS"] = errors.masked_mean(distances, mask)
        found[f"{kind} {name} SSIM"] = errors.structural_similarity(image, output, mask)
    conserved, changed = (
        pooled_mean(values.clamp(0, 1), subjects)
        for values in (found[f"{kind} tissue SSIM"], 1 - found[f"{kind} anomaly SSIM"])
    )
    indices = {"CACI*": combined(harmonic_mean, conserved, changed)}
    if each.before is not None:
        before = each.before[chosen]
        damage, left = (
            pooled_mean(1 - errors.structural_similarity(before, made, anomaly), subjects)
            for made in (image, output)
        )
        intact = errors.structural_similarity(before, output, tissue).clamp(0, 1)
        repaired = combined(repaired_share, damage, left)
        parts.add(label, "", f"{kind} repaired", repaired, len(image))
        restored = combined(harmonic_mean, pooled_mean(intact, subjects), repaired)
        indices["restored"] = restored
    parts.add_means(label, found, subjects)
    return indices


def _figure(each: Anomalies, restored: Mapping[str, Tensor]) -> Figure:
    """Slices with an anomaly, what they were before, and what each method makes of them."""
    slices, count = each.slices, len(each.slices)
    chosen = list(range(0, count, max(1, count // 5)))[:5]
    lines = [PictureLine("input", slices.images)]
    if each.before is not None:
        lines.append(PictureLine("before", each.before))
    lines += [PictureLine(label, pictures) for label, pictures in restored.items()]
    figure, axes = picture_grid(slices, lines, chosen, list(slices.pathology[chosen]))
    outline_annotations(figure, axes, slices, chosen)
    return figure


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
    distance to healthy training slices N, that the reconstructions R(P) go; 0 if there is none."""
    way = pathological - unseen
    share = np.divide(pathological - restored, way, out=np.zeros_like(way), where=way > 0)
    return np.clip(share, 0, 1)


def harmonic_mean(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """2 a b / (a + b) of numbers of at least 0, (R,) each; 0 where either is 0. CACI is that of
    what is conserved and what is changed: the code measures SSIM, LPIPS and MSE of both."""
    total = first + second
    return np.divide(2 * first * second, total, out=np.zeros_like(total), where=total > 0)


def repaired_share(damage: np.ndarray, left: np.ndarray) -> np.ndarray:
    """1 - left / damage, kept within 0 and 1, (R,) each; 0 where there is no damage: the mean
    1 - SSIM, in a painted anomaly, of the altered slice and of the reconstruction with the slice
    before. Has no counterpart in the released code."""
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
