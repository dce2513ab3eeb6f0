"""The experiments on one bundle as it is configured: what `evaluating` runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.inferers import Inferer, SimpleInferer
from monai.networks.utils import eval_mode
from torch import nn

from pathology_screen.anomaly import Scoring
from pathology_screen.errors import ConfigError
from pathology_screen.experiments.detection import detection
from pathology_screen.experiments.lesions import SHARE, lesions
from pathology_screen.experiments.localization import localization
from pathology_screen.experiments.models import Model, Profile
from pathology_screen.experiments.report import Report
from pathology_screen.experiments.setting import Setting
from pathology_screen.experiments.slices import HEALTHY, NORMAL, Slices
from pathology_screen.files import sha256
from pathology_screen.metrics.localization import Protocol
from pathology_screen.registry import METHODS

NEEDS: dict[str, Callable[[Slices], bool]] = {
    "detection": lambda test: NORMAL in test.groups and len(set(test.groups)) > 1,
    "localization": lambda test: any(test.box_labels),
    "lesions": lambda test: bool((test.masks > SHARE).any()) and HEALTHY in test.pathology,
}
"""Experiment -> whether the test slices allow it."""

RUNS = {"detection": detection, "localization": localization, "lesions": lesions}


class BundleEvaluation:
    """Run experiments on the network and the scoring of a bundle, and write their reports into `output_dir`.

    Args:
        method: name of the bundle.
        network: with its weights.
        weights: file that they came from.
        anomaly_map: the scoring.
        preprocessing_options, level: of the bundle.
        dataset_dir, datalist: see `cohorts.resolve_dataset`.
        output_dir: folder of the reports.
        calibration_section: section of the datalist that thresholds are fitted on.
        experiments: names; None runs those that the datalist's test section allows (scans with a finding and normal
            ones, boxes, masks).
        protocol: of the localisation.
        inferer: how the network is applied; None applies it plainly.

    Raises:
        ConfigError: if there is no such experiment.
    """

    def __init__(
        self,
        method: str,
        network: nn.Module,
        weights: str,
        anomaly_map: Scoring,
        preprocessing_options: Mapping[str, Any],
        level: str | int | float,
        dataset_dir: str | None,
        datalist: str | None,
        output_dir: str,
        calibration_section: str = "calibration",
        experiments: Sequence[str] | None = None,
        protocol: Protocol = "pixel_count",
        inferer: Inferer | None = None,
    ) -> None:
        if unknown := set(experiments or ()) - set(RUNS):
            raise ConfigError(f"`evaluating` has no experiment {', '.join(sorted(unknown))}; it has {', '.join(RUNS)}")
        model = Model(
            method,
            METHODS[method],
            {None: network},
            {"configured": anomaly_map},
            sha256(weights),
            next(network.parameters()).device,
            inferer or SimpleInferer(),
        )
        profile = Profile(preprocessing_options, level, "none", (), calibration_section)
        self.network, self.experiments, self.output = network, experiments, Path(output_dir)
        self.setting = Setting(
            (method,), dataset_dir, datalist, scoring=(), protocol=protocol, configured=(profile, [model])
        )

    def run(self) -> list[Report]:
        """Run the experiments, and write each report and print its table as soon as it is made."""
        test = self.setting.section("test")
        allowed = [name for name in RUNS if NEEDS[name](test)]
        chosen = allowed if self.experiments is None else list(self.experiments)
        if left_out := [name for name in RUNS if name not in chosen]:
            print(f"not run, for the test section does not allow it or it was not asked for: {', '.join(left_out)}")
        reports = []
        with eval_mode(self.network):
            for name in chosen:
                reports.append(RUNS[name](self.setting))
                reports[-1].write(self.output)
                print(reports[-1].markdown())
        return reports
