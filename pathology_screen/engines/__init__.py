"""Training, validation and calibration on MONAI's engines."""

from pathology_screen.engines.averaging import AveragedWeights
from pathology_screen.engines.calibrator import Calibrator, calibrate
from pathology_screen.engines.evaluation import (
    MeanPerceptualDistance,
    improves,
    prepare_healthy_map,
    prepare_reconstruction,
)
from pathology_screen.engines.gradients import AverageGradients
from pathology_screen.engines.introspective import (
    IntrospectiveTrainer,
    IntrospectiveWeights,
    TrainingDiverged,
    introspective_step,
)
from pathology_screen.engines.progress import ProgressBar, ReconstructionPictures
from pathology_screen.engines.random import SeededBatches, rank_and_world_size, seeded_generator
from pathology_screen.engines.training_batch import TrainingBatch, normal_noise
from pathology_screen.engines.training_state import TrainingState, training_values
from pathology_screen.networks.weights import load_weights

__all__ = [
    "AverageGradients",
    "AveragedWeights",
    "Calibrator",
    "IntrospectiveTrainer",
    "IntrospectiveWeights",
    "MeanPerceptualDistance",
    "ProgressBar",
    "ReconstructionPictures",
    "SeededBatches",
    "TrainingBatch",
    "TrainingDiverged",
    "TrainingState",
    "calibrate",
    "improves",
    "introspective_step",
    "load_weights",
    "normal_noise",
    "prepare_healthy_map",
    "prepare_reconstruction",
    "rank_and_world_size",
    "seeded_generator",
    "training_values",
]
