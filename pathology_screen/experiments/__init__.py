"""Experiments, those of the paper and later ones, and their results on disk."""

from pathology_screen.experiments.bundle_evaluation import BundleEvaluation
from pathology_screen.experiments.findings import ablation, detection, localization
from pathology_screen.experiments.gallery import gallery
from pathology_screen.experiments.latent import latent
from pathology_screen.experiments.methods import ExperimentSetting
from pathology_screen.experiments.normative import normative
from pathology_screen.experiments.report import Measurements, Report, Row
from pathology_screen.experiments.synthetic import lesions, synthetic

_ALL = (synthetic, detection, localization, ablation, lesions, latent, normative, gallery)
EXPERIMENTS = {experiment.__name__: experiment for experiment in _ALL}
"""Name -> function of an `ExperimentSetting` that gives a `Report`."""

__all__ = ["EXPERIMENTS", "BundleEvaluation", "Measurements", "Report", "Row", "ExperimentSetting"]
