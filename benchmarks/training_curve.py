"""Follow one training of a method on the selection people: healthy error, sharpness, and AUPRC of
painted anomalies under Eq. 5, beside the controls.

TORCH_HOME=../shared/torch_home python benchmarks/training_curve.py --weights 32=RUN/at_32 \
    64=RUN/at_64 --dataset_dir ../shared/data/ixi_slices --datalist data_lists/ixi_slices.json \
    --output docs

RUN/at_32 is a folder with the `model.pt` that the run had after 32 epochs. Writes
METHOD_training.csv and images/METHOD_training.png.
"""

import pandas as pd
from matplotlib.figure import Figure
from selection import selection_parser

from pathology_screen.experiments import ExperimentSetting
from pathology_screen.experiments.synthetic import synthetic
from pathology_screen.files import replacing

CONTROLS = ("template", "principal_components")
METRICS = {"healthy MSE": "", "sharpness": "", "ellipses AUPRC": "eq5", "copy-paste AUPRC": "eq5"}
"""Metric -> the scoring that it is shown under."""


def draw(numbers: pd.DataFrame) -> Figure:
    """A panel a metric: the method over its epochs, controls as lines."""
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    for axis, metric in zip(figure.subplots(1, len(METRICS)), METRICS):
        rows = numbers[numbers.metric == metric]
        own = rows[~rows.method.isin(CONTROLS)].astype({"method": int}).sort_values("method")
        axis.fill_between(own.method, own.low, own.high, alpha=0.2)
        axis.plot(own.method, own.value, marker="o")
        for number, name in enumerate(CONTROLS, start=1):
            for value in rows[rows.method == name].value:
                axis.axhline(value, color=f"C{number}", linestyle="--", label=name)
        axis.set_title(metric, fontsize=10)
        axis.set_xlabel("epochs", fontsize=8)
        axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = selection_parser(__doc__, scoring=["eq5"], backbone="squeeze")
    parser.add_argument("--method", default="ra")
    parser.add_argument("--weights", nargs="+", required=True, metavar="EPOCH=FOLDER")
    given = vars(parser.parse_args(arguments))
    output, method, weights = (given.pop(name) for name in ("output", "method", "weights"))
    methods = [*(f"{method}:{text}" for text in weights), *CONTROLS]
    report = synthetic(ExperimentSetting(**given | {"methods": methods}))
    table = pd.DataFrame(report.rows)
    shown = [METRICS.get(metric) == scoring for metric, scoring in zip(table.metric, table.scoring)]
    numbers = table[shown]
    with replacing(output / f"{method}_training.csv") as path:
        numbers.to_csv(path, index=False, float_format="%.6g")
    with replacing(output / "images" / f"{method}_training.png") as path:
        draw(numbers).savefig(path, dpi=100)


if __name__ == "__main__":
    main()
