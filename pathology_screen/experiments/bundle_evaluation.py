"""The experiments on one bundle as it is configured: what `evaluating` runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pathology_screen.anomaly import Scoring
from pathology_screen.cohorts import resolve_dataset
from pathology_screen.errors import ConfigError
from pathology_screen.experiments.detection import detection
from pathology_screen.experiments.lesions import lesions
from pathology_screen.experiments.localization import localization
from pathology_screen.experiments.models import Model, Profile
from pathology_screen.experiments.report import Report
from pathology_screen.experiments.setting import Setting
from pathology_screen.experiments.slices import HEALTHY
from pathology_screen.files import sha256
from pathology_screen.registry import METHODS

NEEDS = {
    "detection": lambda items: len({_is_healthy(item) for item in items}) == 2,
    "localization": lambda items: any(item.get("boxes") for item in items),
    "lesions": lambda items: any(item.get("label") for item in items) and any(map(_is_healthy, items)),
}
"""Experiment -> whether the items of a test section allow it."""

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
        protocol: str = "pixel_count",
    ) -> None:
        if unknown := set(experiments or ()) - set(RUNS):
            raise ConfigError(f"`evaluating` has no experiment {', '.join(sorted(unknown))}; it has {', '.join(RUNS)}")
        self.model = Model(
            method, METHODS[method], {None: network.eval()}, {"configured": anomaly_map}, sha256(weights)
        )
        self.setting = Setting(
            (method,),
            dataset_dir,
            datalist,
            scoring=(),
            protocol=protocol,  # type: ignore[arg-type]
        )
        # prepared in advance: what a setting else reads from the bundles
        shared = Profile(preprocessing_options, level, "none", (), calibration_section)
        self.setting.__dict__.update(shared=shared, models=[self.model])
        self.experiments, self.output = experiments, Path(output_dir)

    def run(self) -> list[Report]:
        """Run and write the experiments, and print their tables."""
        setting = self.setting
        head = setting.shared.preprocessing_options["domain"] == "whole_head"
        items = resolve_dataset(setting.dataset_dir, setting.datalist, section="test", head=head)
        allowed = [name for name in RUNS if NEEDS[name](items)]
        chosen = allowed if self.experiments is None else list(self.experiments)
        if left_out := [name for name in RUNS if name not in chosen]:
            print(f"not run, for the test section does not allow it or it was not asked for: {', '.join(left_out)}")
        reports = [RUNS[name](setting) for name in chosen]
        for report in reports:
            report.write(self.output)
            print(report.markdown())
        return reports


def _is_healthy(item: Mapping[str, Any]) -> bool:
    return item.get("pathology", HEALTHY) == HEALTHY
