"""How good detection, localisation and reconstruction are, and how sure one can be of it."""

from pathology_screen.metrics.bootstrap import bootstrap_interval, paired_difference
from pathology_screen.metrics.localization import (
    box_scores,
    box_summary,
    count_tagged,
    healthy_tissue,
)
from pathology_screen.metrics.pooled import (
    PooledStatistic,
    average_precision,
    averaged,
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
    "PooledStatistic",
    "average_precision",
    "averaged",
    "bootstrap_interval",
    "box_scores",
    "box_summary",
    "brain_correlation",
    "combined",
    "count_tagged",
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
