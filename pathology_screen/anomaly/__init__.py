"""From an image and its pseudo-healthy reconstruction to an anomaly map and an image score."""

from pathology_screen.anomaly.equalization import equalize
from pathology_screen.anomaly.map_transform import AnomalyMapd
from pathology_screen.anomaly.maps import AnomalyMap, image_score
from pathology_screen.anomaly.perceptual import perceptual_distance

__all__ = ["AnomalyMap", "AnomalyMapd", "equalize", "image_score", "perceptual_distance"]
