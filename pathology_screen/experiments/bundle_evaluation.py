"""The experiments on one bundle as it is configured: what `evaluating` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from monai.networks.utils import eval_mode

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.detection import detection
from pathology_screen.experiments.lesions import SHARE, lesions
from pathology_screen.experiments.localization import localization
from pathology_screen.experiments.models import ComparedMethod, Profile
from pathology_screen.experiments.report import Report
from pathology_screen.experiments.setting import Setting
from pathology_screen.experiments.slices import HEALTHY, NORMAL, Slices
from pathology_screen.files import sha256
from pathology_screen.metrics.localization import Protocol
from pathology_screen.predictor import Predictor
from pathology_screen.registry import METHODS

NEEDS: dict[str, Callable[[Slices], bool]] = {
    "detection": lambda test: NORMAL in test.groups and len(set(test.groups)) > 1,
    "localization": lambda test: any(test.box_labels),
    "lesions": lambda test: bool((test.masks > SHARE).any()) and HEALTHY in test.pathology,
}
"""Experiment -> whether the test slices allow it."""

RUNS = {"detection": detection, "localization": localization, "lesions": lesions}


class BundleEvaluation:
    """Run experiments on the network and the scoring of a bundle, and write their reports into
    `output_dir`.

    Args:
        predictor: the bundle's, whose weights are loaded.
        dataset_dir, datalist: see `cohorts.resolve_dataset`.
        output_dir: folder of the reports.
        calibration_section: section of the datalist that thresholds are fitted on.
        experiments: names; None runs those that the datalist's test section allows (scans with a
            finding and normal ones, boxes, masks).
        protocol: of the localisation.

    Raises:
        ConfigError: if there is no such experiment.
    """

    def __init__(
        self,
        predictor: Predictor,
        dataset_dir: str | None,
        datalist: str | None,
        output_dir: str,
        calibration_section: str = "calibration",
        experiments: Sequence[str] | None = None,
        protocol: Protocol = "pixel_count",
    ) -> None:
        if unknown := set(experiments or ()) - set(RUNS):
            raise ConfigError(
                f"`evaluating` has no experiment {', '.join(sorted(unknown))}; it has {', '.join(RUNS)}"
            )
        method = predictor.method
        compared = ComparedMethod(
            method,
            METHODS[method],
            predictor.network,
            {"configured": predictor.scoring},
            sha256(predictor.weights),
        )
        profile = Profile(
            predictor.preprocessing, predictor.slice_options, "none", calibration_section
        )
        self.network, self.experiments, self.output = (
            predictor.network,
            experiments,
            Path(output_dir),
        )
        self.setting = Setting(
            (method,),
            dataset_dir,
            datalist,
            scoring=(),
            protocol=protocol,
            configured=(profile, [compared]),
        )

    def run(self) -> list[Report]:
        """Run the experiments, and write each report and print its table as soon as it is made."""
        test = self.setting.section("test")
        allowed = [name for name in RUNS if NEEDS[name](test)]
        chosen = allowed if self.experiments is None else list(self.experiments)
        if left_out := [name for name in RUNS if name not in chosen]:
            print(
                f"not run, for the test section does not allow it or it was not asked for: {', '.join(left_out)}"
            )
        reports = []
        with eval_mode(self.network):
            for name in chosen:
                reports.append(RUNS[name](self.setting))
                reports[-1].write(self.output)
                print(reports[-1].markdown())
        return reports
