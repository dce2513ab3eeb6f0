"""Training and validation on MONAI's engines."""

from pathology_screen.engines.introspective import IntrospectiveTrainer
from pathology_screen.engines.progress import ProgressBar, ReconstructionPictures
from pathology_screen.engines.training_batch import (
    AverageGradients,
    SeededBatches,
    TrainingBatch,
    normal_noise,
    rank_and_world_size,
)
from pathology_screen.engines.training_state import TrainingDiverged, TrainingState, training_values
from pathology_screen.engines.validation import (
    AveragedWeights,
    MeanPerceptualDistance,
    improves,
    prepare_healthy_map,
    prepare_reconstruction,
)
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
    "load_weights",
    "normal_noise",
    "prepare_healthy_map",
    "prepare_reconstruction",
    "rank_and_world_size",
    "training_values",
]
