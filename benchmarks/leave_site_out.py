"""Train RA without the people of one site, and look at them: AUPRC of painted anomalies, and how
many are called suspicious, beside the test people of the other sites.

TORCH_HOME=../shared/torch_home python benchmarks/leave_site_out.py --dataset_dir DIR \
    --output_dir RUN

Thresholds are those of the calibration people of the other sites, at 5 %. Writes
docs/leave_site_out.csv.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from train_all import comparing_parser, epochs_of, train

from pathology_screen.calibration import Rate, calibration_beside, count_rate
from pathology_screen.cohorts import load_datalist
from pathology_screen.cohorts.datalist import write_datalist
from pathology_screen.experiments import ExperimentSetting
from pathology_screen.experiments.slices import AnnotatedSlices
from pathology_screen.experiments.synthetic import synthetic
from pathology_screen.files import replacing
from pathology_screen.predictor import Predictor

SECTIONS = ("training", "validation", "calibration", "test")
SUBJECT_FPR = 0.05


def without(site: str, datalist: Path, dataset_dir: Path, output: Path) -> Path:
    """Write a datalist whose people of the site are in a section `unseen`, whatever they were for,
    and in no other."""
    sections: dict[str, list] = {"unseen": []}
    for section in SECTIONS:
        items = load_datalist(datalist, section, base_dir=dataset_dir)
        sections[section] = [item for item in items if item["site"] != site]
        sections["unseen"] += [
            item | {"pathology": "healthy"} for item in items if item["site"] == site
        ]
    return write_datalist(output, sections, f"{datalist.stem}, people of {site} unseen")


def suspicious(predictor: Predictor, slices: AnnotatedSlices) -> Rate:
    """The share of healthy slices that is called suspicious, with its 95 % interval."""
    threshold = calibration_beside(predictor).image_threshold(SUBJECT_FPR)
    above = predictor.predict(slices.images).scores > threshold
    return count_rate(int(above.sum()), len(above))


def main(arguments: list[str] | None = None) -> None:
    parser = comparing_parser(__doc__)
    parser.add_argument("--site", default="IOP", help="site that is left out (default: IOP)")
    given = parser.parse_args(arguments)
    run, dataset_dir = given.output_dir / "ra", given.dataset_dir.resolve()
    datalist = without(given.site, given.datalist, dataset_dir, given.output_dir)
    places = {"dataset_dir": dataset_dir, "datalist": datalist, "output_dir": run}
    train("ra", max_epochs=given.max_epochs, **places)
    trained = {f"RA without {given.site}": run / "model.pt", "RA as shipped": None}
    predictors = {
        label: Predictor.load("ra", *([weights] if weights else []))
        for label, weights in trained.items()
    }
    methods = [f"ra:RA without {given.site}={run}", "ra:RA as shipped"]
    rows = []
    for section, people in (("unseen", given.site), ("test", "other sites")):
        setting = ExperimentSetting(
            [*methods, "template", "principal_components"],
            *(str(dataset_dir), str(datalist), section),
            backbone=given.perceptual,
        )
        for row in synthetic(setting).rows:
            if row.metric.endswith("AUPRC"):
                rows.append([people, *row[:6], row.subjects])
        for label, predictor in predictors.items():
            rate = suspicious(predictor, setting.slices)
            share = rate.count / rate.total, rate.low, rate.high
            rows.append([people, label, "", "called suspicious", *share, rate.total])
    columns = ["people", "method", "scoring", "metric", "value", "low", "high", "n"]
    with replacing(given.output / "leave_site_out.csv") as path:
        table = pd.DataFrame(rows, columns=columns)
        table["epochs"] = table.method.map({f"RA without {given.site}": epochs_of(run)})
        table.to_csv(path, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
