"""From an image and what a network makes of it to an anomaly map and an image score."""

from pathology_screen.anomaly.maps import (
    AnomalyMap,
    AnomalyMapd,
    DistillationMap,
    Scoring,
    equalize,
)
from pathology_screen.anomaly.perceptual import perceptual_distance

__all__ = ["AnomalyMap", "AnomalyMapd", "DistillationMap", "Scoring"]
__all__ += ["equalize", "perceptual_distance"]
