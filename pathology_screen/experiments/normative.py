"""How well each method has learnt what is normal: quality, the way from anomalous to
healthy, conservation and correction (see `metrics.normative`)."""

from collections.abc import Callable, Sequence
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
from pathology_screen.experiments.methods import ComparedMethod
from pathology_screen.experiments.pictures import (
    OUTLINES,
    PictureLine,
    add_legend,
    outline_annotations,
    picture_grid,
)
from pathology_screen.experiments.report import Measurements, Report
from pathology_screen.experiments.setting import ExperimentSetting
from pathology_screen.experiments.slices import AnnotatedSlices
from pathology_screen.experiments.synthetic import KINDS, paint
from pathology_screen.metrics.localization import healthy_tissue
from pathology_screen.metrics.normative import (
    NormalFeatures,
    anomaly_to_healthy,
    frechet_distance,
    harmonic_mean,
    normative_score,
    quality_index,
    repaired_share,
)
from pathology_screen.metrics.pooled import PooledStatistic, combined, pooled_mean
from pathology_screen.metrics.reconstruction import (
    masked_mean,
    mean_squared_error,
    perceptual_error,
    structural_similarity,
)

ANNOTATED = "annotated"
"""Kind of the slices whose findings the datalist names."""
TRUNK = "st_alex"
"""Perceptual distance whose network gives the features, in place of Inception v3."""
MICRO_BATCH = 8

Distance = Callable[[Tensor, Tensor], Tensor]


class Anomalies(NamedTuple):
    """Slices with anomalies of one kind.

    Attributes:
        slices: all of them.
        before: the same slices before the anomaly was painted, (N, 1, H, W); None where nobody
            knows them.
        anomaly: (N, 1, H, W) bool, where it is; nowhere if it has no outline.
        tissue: (N, 1, H, W) bool, the tissue outside all annotations.
    """

    slices: AnnotatedSlices
    before: Tensor | None
    anomaly: Tensor
    tissue: Tensor

    @property
    def outlined(self) -> np.ndarray:
        """(N,), whether a slice has an anomaly with an outline, and tissue beside it."""
        found = [each.flatten(1).any(dim=1) for each in (self.anomaly, self.tissue)]
        return (found[0] & found[1]).numpy()


class Normal(NamedTuple):
    """Healthy slices, training slices as a distribution of features, the distance of the former to
    the latter, and what measures both."""

    healthy: AnnotatedSlices
    reference: NormalFeatures
    unseen: PooledStatistic
    features: Callable[[Tensor], np.ndarray]
    lpips: Distance

    def distance(self, images: Tensor, subjects: np.ndarray) -> PooledStatistic:
        """Fréchet distance of slices to the healthy training slices."""
        return frechet_distance(self.features(images), subjects, self.reference)


def normative(setting: ExperimentSetting) -> Report:
    """Compare the reconstructions of methods, by what the authors of RA measured later, on healthy
    slices of the section, on the same with ellipses or a copied rectangle painted in, and on those
    whose finding the datalist names.

    Raises:
        ConfigError: if a method reconstructs nothing, or the section shows nobody healthy.
    """
    if without := [each.label for each in setting.compared if not each.reconstructs]:
        raise ConfigError(f"normative looks at reconstructions, and {', '.join(without)} has none")
    slices, training = setting.slices, setting.slices_of("training")
    if not slices.healthy.any():
        raise ConfigError(f"the {setting.section} section needs slices of healthy people")
    backbone = "alex" if is_installed("alex") else setting.shared.backbone
    trunk, lpips = perceptual_distance(TRUNK), perceptual_distance(backbone)
    training, healthy = training[training.healthy], slices[slices.healthy]

    def features(images: Tensor) -> np.ndarray:
        return deep_features(images, trunk)

    reference = NormalFeatures.of(features(training.images))
    unseen = frechet_distance(features(healthy.images), healthy.subjects, reference)
    normal = Normal(healthy, reference, unseen, features, lpips)
    kinds = anomalies_of(setting)
    before = {
        kind: normal.distance(each.slices.images, each.slices.subjects)
        for kind, each in kinds.items()
    }
    groups = dict(zip(slices.subjects, slices.healthy))
    measured, parts = Measurements(groups), Measurements(groups)
    restored: dict[str, dict[str, Tensor]] = {kind: {} for kind in kinds}
    for method in tqdm(setting.compared, desc="normative", unit="method"):
        rqi = _quality(method, normal, measured, parts)
        for kind, each in kinds.items():
            output = method.reconstruct(each.slices).clamp(0, 1)
            restored[kind].setdefault(method.label, output)
            after = normal.distance(output, each.slices.subjects)
            ahi = combined(anomaly_to_healthy, normal.unseen, before[kind], after)
            parts.add(method.label, "", f"{kind} distance", after, len(each.slices))
            measured.add(method.label, "", f"{kind} AHI*", ahi, len(each.slices))
            if each.outlined.any():
                indices = _correction(method.label, kind, each, output, normal, parts)
                count = int(each.outlined.sum())
                for name, statistic in indices.items():
                    measured.add(method.label, "", f"{kind} {name}", statistic, count)
                score = combined(normative_score, rqi, ahi, indices["CACI*"])
                measured.add(method.label, "", f"{kind} score*", score, count)
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
        f"Distances are Fréchet distances of the {len(reference.mean)} features of ST-LPIPS' "
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
    kinds = {}
    for kind in KINDS:
        painted = paint(healthy, kind, setting)
        tissue = _tissue(healthy.images, list(painted.masks))
        kinds[kind] = Anomalies(painted, healthy.images, painted.masks > 0, tissue)
    if not slices.healthy.all():
        found = slices[~slices.healthy]
        regions = torch.stack([found.region(i) for i in range(len(found))])
        annotations = list(map(torch.cat, zip(found.masks, found.boxes, found.other_boxes)))
        tissue = _tissue(found.images, annotations)
        kinds[ANNOTATED] = Anomalies(found, None, regions, tissue)
    return kinds


@torch.no_grad()
def deep_features(images: Tensor, trunk: PerceptualDistance) -> np.ndarray:
    """Features of slices, (N, 1, H, W) in [0, 1] -> (N, F): the mean over the image of the last map
    of the network inside a perceptual distance, which sees them as grey pictures."""
    metric: Any = trunk.metric
    scaled = (metric.scaling_layer(2 * part - 1) for part in images.float().split(MICRO_BATCH))
    return torch.cat([metric.net(part)[-1].mean(dim=(2, 3)) for part in scaled]).numpy()


def _tissue(images: Tensor, annotations: Sequence[Tensor]) -> Tensor:
    """Tissue (N, 1, H, W) outside annotations, (K, H, W) of each slice."""
    pairs = zip(images[:, 0].numpy(), annotations)
    masks = [healthy_tissue(image, (each > 0).numpy()) for image, each in pairs]
    return torch.from_numpy(np.stack(masks)) > 0


def _quality(
    method: ComparedMethod, normal: Normal, measured: Measurements, parts: Measurements
) -> PooledStatistic:
    """RQI of a method, noted with its parts."""
    healthy = normal.healthy
    pair = healthy.images, method.reconstruct(healthy).clamp(0, 1)
    found = {
        "healthy MAE": (pair[0].double() - pair[1]).abs().mean((1, 2, 3)),
        "healthy LPIPS": perceptual_error(*pair, normal.lpips),
        "healthy SSIM": structural_similarity(*pair),
    }
    parts.add_means(method.label, found, healthy.subjects)
    parts.add(method.label, "", "healthy distance", normal.unseen, len(healthy))
    quality = quality_index(*found.values())
    measured.add_means(method.label, {"RQI*": quality}, healthy.subjects)
    return pooled_mean(quality.numpy(), healthy.subjects)


def _correction(
    label: str, kind: str, each: Anomalies, output: Tensor, normal: Normal, parts: Measurements
) -> dict[str, PooledStatistic]:
    """CACI of one kind of anomaly, and with the slice before it the same of what is restored; the
    parts are noted."""
    chosen = each.outlined
    slices, output = each.slices[chosen], output[chosen]
    image, subjects = slices.images, slices.subjects
    distances = normal.lpips(image.float(), output.float())
    regions = {"tissue": each.tissue[chosen], "anomaly": each.anomaly[chosen]}
    found: dict[str, Tensor] = {}
    for name, mask in regions.items():
        found[f"{kind} {name} MSE"] = mean_squared_error(image, output, mask)
        found[f"{kind} {name} LPIPS"] = masked_mean(distances, mask)
        found[f"{kind} {name} SSIM"] = structural_similarity(image, output, mask)
    conserved, kept = (found[f"{kind} {name} SSIM"] for name in regions)
    means = [pooled_mean(values.clamp(0, 1), subjects) for values in (conserved, 1 - kept)]
    indices = {"CACI*": combined(harmonic_mean, *means)}
    if each.before is not None:
        before = each.before[chosen]
        damage, left = (
            pooled_mean(1 - structural_similarity(before, made, regions["anomaly"]), subjects)
            for made in (image, output)
        )
        repaired = combined(repaired_share, damage, left)
        parts.add(label, "", f"{kind} repaired", repaired, len(image))
        intact = structural_similarity(before, output, regions["tissue"]).clamp(0, 1)
        indices["restored"] = combined(harmonic_mean, pooled_mean(intact, subjects), repaired)
    parts.add_means(label, found, subjects)
    return indices


def _figure(each: Anomalies, restored: dict[str, Tensor]) -> Figure:
    """Slices with an anomaly, what they were before, and what each method makes of them."""
    slices, count = each.slices, len(each.slices)
    chosen = list(range(0, count, max(1, count // 5)))[:5]
    lines = [PictureLine("input", slices.images)]
    if each.before is not None:
        lines.append(PictureLine("before", each.before))
    lines += [PictureLine(label, pictures) for label, pictures in restored.items()]
    titles = list(slices.pathology[chosen])
    figure, axes = picture_grid(slices, lines, chosen, titles, across=False)
    found: set[str] = set()
    for row in axes:
        found |= set().union(*map(outline_annotations, row, [slices] * len(chosen), chosen))
    add_legend(figure, {name: colour for name, colour in OUTLINES.items() if name in found})
    return figure
