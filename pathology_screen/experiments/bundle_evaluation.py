"""The experiments on one bundle as it is configured: what `evaluating` runs."""

from collections.abc import Sequence
from pathlib import Path

from monai.networks.utils import eval_mode

from pathology_screen.errors import ConfigError
from pathology_screen.experiments.findings import detection, localization
from pathology_screen.experiments.methods import ComparedMethod, ExperimentSetting, Profile
from pathology_screen.experiments.report import Report
from pathology_screen.experiments.slices import NORMAL
from pathology_screen.experiments.synthetic import lesions
from pathology_screen.metrics.localization import Protocol
from pathology_screen.predictor import Predictor

RUNS = {"detection": detection, "localization": localization, "lesions": lesions}


class BundleEvaluation:
    """Run experiments on a bundle's network and scoring; write reports into `output_dir`.

    Args:
        predictor: the bundle's, whose weights are loaded.
        dataset_dir, datalist: see `cohorts.resolve_dataset`.
        calibration_section: of the datalist, that thresholds are fitted on.
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
            named = ", ".join(sorted(unknown))
            raise ConfigError(f"`evaluating` has no experiment {named}; it has {', '.join(RUNS)}")
        self.network, self.experiments = predictor.network, experiments
        self.output = Path(output_dir)
        method = ComparedMethod(predictor.method, predictor, {"configured": predictor.scoring})
        steps, options = predictor.preprocessing, predictor.slice_options
        configured = Profile(steps, options, "none", calibration_section), [method]
        data = (predictor.method,), dataset_dir, datalist
        self.setting = ExperimentSetting(
            *data, scoring=(), protocol=protocol, configured=configured
        )

    def run(self) -> list[Report]:
        """Run the experiments, and write each report and print its table as soon as it is made."""
        test, chosen = self.setting.slices, self.experiments
        if chosen is None:
            allows = {
                "detection": NORMAL in test.groups and len(set(test.groups)) > 1,
                "localization": any(test.box_labels),
                "lesions": test.shows_lesion.any() and test.healthy.any(),
            }
            chosen = [name for name in RUNS if allows[name]]
        if left_out := ", ".join(name for name in RUNS if name not in chosen):
            print(f"not run, not asked for or not allowed by the test section: {left_out}")
        reports = []
        with eval_mode(self.network):
            for name in chosen:
                reports.append(RUNS[name](self.setting))
                reports[-1].write(self.output)
                print(reports[-1].markdown())
        return reports
