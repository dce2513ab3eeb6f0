"""Tell what the parts of RA are worth: train it, and the same without the reversed embedding loss
(lambda 0, which is SI-VAE), with several seeds; compare both, RA's warm-up alone, and the parts of
Eq. 5 on the test people.

TORCH_HOME=../shared/torch_home python benchmarks/ablations.py --dataset_dir DIR --output_dir RUNS

Runs, RUNS/METHOD_SEED, are finished or interrupted as those of train_all.py. Writes
docs/ablations.csv.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from train_all import comparing_parser, epochs_of, train

from pathology_screen.experiments import ExperimentSetting, Report
from pathology_screen.experiments.methods import SCORINGS
from pathology_screen.experiments.synthetic import synthetic
from pathology_screen.files import replacing

VARIANTS = {"RA": ("ra", ""), "lambda 0": ("si_vae", ""), "warm-up alone": ("ra", "warm_up")}
"""Label -> bundle, and the folder of the weights in its run."""


def numbers(report: Report) -> pd.DataFrame:
    """Every AUPRC, and every difference from RA under the same scoring and of RA's scorings from
    Eq. 5, with intervals over people; `seeds` are the values of the single seeds."""
    runs = {key: found.runs for key, found in report.measurements.measured.items()}

    def lines() -> Iterator[list]:
        for row in report.rows:
            if row.scoring:
                seeds = [run.value for run in runs[row[:3]]]
                yield [row.method, row.scoring, *row[2:6], seeds, row.subjects]
        for pair in report.pairs:
            of_map = pair.first == pair.other and pair.first_scoring == "eq5"
            if of_map or (pair.first != pair.other and pair.first_scoring == pair.other_scoring):
                first, other = pair[:3], (pair.metric, pair.other, pair.other_scoring)
                both = [runs[(method, scoring, name)] for name, method, scoring in (first, other)]
                seeds = [own.value - its.value for own, its in zip(*both)]
                minus = f"{pair.other} ({pair.other_scoring})" if of_map else pair.other
                values = [pair.difference, pair.low, pair.high]
                people = len(both[0][0].subjects)
                name = f"{pair.first} minus {minus}"
                yield [name, pair.first_scoring, pair.metric, *values, seeds, people]

    columns = ["compared", "scoring", "metric", "value", "low", "high", "seeds", "people"]
    table = pd.DataFrame(lines(), columns=columns)
    table = table[table.metric.str.endswith("AUPRC")]
    return table.assign(seeds=[" ".join(f"{one:.4f}" for one in own) for own in table.seeds])


def main(arguments: list[str] | None = None) -> None:
    parser = comparing_parser(__doc__)
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    given = parser.parse_args(arguments)
    places = {"dataset_dir": given.dataset_dir, "datalist": given.datalist}
    for seed in given.seeds:
        for bundle in ("ra", "si_vae"):
            run = given.output_dir / f"{bundle}_{seed}"
            train(bundle, "--seed", seed, max_epochs=given.max_epochs, **places, output_dir=run)
    methods = [
        f"{bundle}:{label}={given.output_dir / f'{bundle}_{seed}' / folder}"
        for label, (bundle, folder) in VARIANTS.items()
        for seed in given.seeds
    ]
    data = str(given.dataset_dir), str(given.datalist)
    scoring = ["eq5", *(name for name in SCORINGS if name != "eq5")]
    setting = ExperimentSetting(methods, *data, scoring=scoring, backbone=given.perceptual)
    epochs = {
        label: " ".join(epochs_of(given.output_dir / f"{bundle}_{seed}") for seed in given.seeds)
        for label, (bundle, folder) in VARIANTS.items()
        if not folder
    }
    table = numbers(synthetic(setting)).assign(epochs=lambda own: own.compared.map(epochs))
    with replacing(given.output / "ablations.csv") as path:
        table.to_csv(path, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
