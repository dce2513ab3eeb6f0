"""Training and validation on MONAI's engines."""

from pathology_screen.engines.averaging import AveragedWeights
from pathology_screen.engines.evaluation import (
    MeanPerceptualDistance,
    improves,
    prepare_healthy_map,
    prepare_reconstruction,
)
from pathology_screen.engines.introspective import IntrospectiveTrainer, introspective_step
from pathology_screen.engines.progress import ProgressBar, ReconstructionPictures
from pathology_screen.engines.ranks import AverageGradients, rank_and_world_size
from pathology_screen.engines.training_batch import SeededBatches, TrainingBatch, normal_noise
from pathology_screen.engines.training_state import TrainingDiverged, TrainingState, training_values
from pathology_screen.networks.weights import load_weights

__all__ = [
    "AverageGradients",
    "AveragedWeights",
    "IntrospectiveTrainer",
    "MeanPerceptualDistance",
    "ProgressBar",
    "ReconstructionPictures",
    "SeededBatches",
    "TrainingBatch",
    "TrainingDiverged",
    "TrainingState",
    "improves",
    "introspective_step",
    "load_weights",
    "normal_noise",
    "prepare_healthy_map",
    "prepare_reconstruction",
    "rank_and_world_size",
    "training_values",
]
