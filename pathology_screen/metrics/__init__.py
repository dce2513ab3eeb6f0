"""How good detection, localisation and reconstruction are, and how sure one can be of it."""

from pathology_screen.metrics.bootstrap import (
    Difference,
    Interval,
    bootstrap_interval,
    paired_difference,
)
from pathology_screen.metrics.boxes import healthy_tissue
from pathology_screen.metrics.detection import auroc, average_precision
from pathology_screen.metrics.localization import LocalizationMetric, box_scores
from pathology_screen.metrics.pooled import (
    PooledStatistic,
    combined,
    pooled_auroc,
    pooled_average_precision,
    pooled_mean,
)
from pathology_screen.metrics.reconstruction import (
    brain_correlation,
    masked_mean,
    mean_squared_error,
    perceptual_error,
    relative_sharpness,
    structural_similarity,
)

__all__ = [
    "Difference",
    "Interval",
    "LocalizationMetric",
    "PooledStatistic",
    "brain_correlation",
    "auroc",
    "average_precision",
    "bootstrap_interval",
    "box_scores",
    "combined",
    "healthy_tissue",
    "masked_mean",
    "mean_squared_error",
    "paired_difference",
    "perceptual_error",
    "pooled_auroc",
    "pooled_average_precision",
    "pooled_mean",
    "relative_sharpness",
    "structural_similarity",
]
