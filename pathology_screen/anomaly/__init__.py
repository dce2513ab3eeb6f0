"""From an image and what a network makes of it to an anomaly map and an image score."""

from pathology_screen.anomaly.distillation_map import DistillationMap
from pathology_screen.anomaly.map_transform import AnomalyMapd, Scoring
from pathology_screen.anomaly.maps import AnomalyMap, equalize
from pathology_screen.anomaly.perceptual import perceptual_distance

__all__ = [
    "AnomalyMap",
    "AnomalyMapd",
    "DistillationMap",
    "Scoring",
    "equalize",
    "perceptual_distance",
]
