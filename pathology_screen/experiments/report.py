"""The results of an experiment on disk: numbers, tables and pictures, beside what the paper prints
(Bercea et al., MIDL 2023)."""

import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from pathology_screen.experiments.slices import NORMAL, AnnotatedSlices
from pathology_screen.files import replacing
from pathology_screen.metrics import pooled
from pathology_screen.metrics.pooled import Groups, PooledStatistic, Subjects
from pathology_screen.pages import data_uri, render

RESAMPLES = 1000
COHORT = {NORMAL: 30, "global_pathology": 27, "global_artefact": 23}
BOXES = 171

_METHODS = ["AE-S", "VAE", "DAE", "SI-VAE", "MKD", "RA"]
_NUMBERS = {
    "synthetic": {
        "method": ["AE-S", "VAE", "DAE", "SI-VAE", "RA"],
        "ellipses MSE x 100": [17.6, 4.4, 25.8, 3.3, 3.1],
        "ellipses LPIPS x 100": [29.3, 44.3, 32.1, 19.8, 17.7],
        "ellipses AUPRC x 100": [5.8, 24.2, 57.9, 27.6, 73.7],
        "copy-paste MSE x 100": [11.8, 5.3, 8.9, 5.3, 4.8],
        "copy-paste LPIPS x 100": [28.8, 41.9, 25.1, 19.4, 18.5],
        "copy-paste AUPRC x 100": [7.9, 20.0, 30.1, 20.5, 57.4],
    },
    "detection": {
        "method": _METHODS,
        "global pathology AUROC x 100": [49.3, 62.0, 58.2, 67.2, 61.3, 89.0],
        "global artefact AUROC x 100": [45.6, 63.8, 57.6, 79.1, 63.2, 89.8],
        "average AUROC x 100": [47.4, 62.9, 57.9, 73.1, 62.2, 89.4],
    },
    "localization": {
        "method": _METHODS,
        "detected of 171": [21, 79, 90, 82, 83, 147],
        "f1 x 100": [2.5, 9.8, 29.0, 9.9, 26.5, 37.9],
    },
    "ablation": {
        "method": ["RA", "w/o reversed loss", "w/o equalisation", "w/o perceptual", "w/o both"],
        "global pathology AUROC x 100": [89.0, 88.5, 85.9, 71.4, 77.4],
        "global artefact AUROC x 100": [89.8, 86.3, 84.6, 79.6, 71.5],
        "average AUROC x 100": [89.4, 87.4, 85.2, 75.5, 74.4],
        "detected of 171": [147, 128, 137, 120, 105],
        "f1 x 100": [37.9, 31.8, 24.8, 14.4, 14.4],
    },
}
TABLES = {name: pd.DataFrame(columns) for name, columns in _NUMBERS.items()}
"""Experiment -> Table 1, 2a, 2b or 3 of the paper."""


class Row(NamedTuple):
    """One measured number: its method's label, its scoring ("" where it does not depend on one) and
    its name; of several runs of one label the mean, and NaN where it is not defined; its 95 %
    bootstrap interval over subjects (None where a group has a single one); the standard deviation
    over the runs (None for a single run); of how many images or boxes and people it is."""

    method: str
    scoring: str
    metric: str
    value: float
    low: float | None
    high: float | None
    deviation: float | None
    n: int
    subjects: int


class Comparison(NamedTuple):
    """The paired difference of two methods under their scorings on the same subjects, the first
    minus the other, its 95 % bootstrap interval over subjects, and the two-sided p-value of no
    difference."""

    metric: str
    first: str
    first_scoring: str
    other: str
    other_scoring: str
    difference: float
    low: float
    high: float
    p_value: float


class _Measured(NamedTuple):
    runs: list[PooledStatistic]
    n: int
    groups: Groups | None

    @property
    def mean(self) -> PooledStatistic:
        return self.runs[0] if len(self.runs) == 1 else pooled.averaged(*self.runs)

    @property
    def is_enough(self) -> bool:
        """Whether every group has the two subjects that a bootstrap needs."""
        people = self.mean.subjects
        return min(Counter(self.groups[name] if self.groups else 0 for name in people).values()) > 1


class Measurements:
    """Statistics by method, scoring and metric; runs that share a label are averaged. Every
    resample keeps the sizes of groups, subject -> group, such as healthy or not."""

    def __init__(self, groups: Groups | None = None) -> None:
        self.groups = groups
        self.measured: dict[tuple[str, str, str], _Measured] = {}

    def add(
        self, method: str, scoring: str, metric: str, statistic: PooledStatistic, n: int
    ) -> None:
        """Note a statistic over n images or boxes."""
        key = (method, scoring, metric)
        self.measured.setdefault(key, _Measured([], n, self.groups)).runs.append(statistic)

    def add_means(self, method: str, values: Mapping[str, Tensor], subjects: Subjects) -> None:
        """Note the means of metrics, name -> (N,), that do not depend on the scoring."""
        for metric, each in values.items():
            self.add(method, "", metric, pooled.pooled_mean(each.numpy(), subjects), len(subjects))

    def rows(self) -> list[Row]:
        """Every number with its interval."""
        rows = []
        for key, found in self.measured.items():
            statistic, low, high = found.mean, None, None
            if found.is_enough:
                low, high = pooled.bootstrap_interval(statistic, found.groups, RESAMPLES)
            values = [run.value for run in found.runs]
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
            people = len(statistic.subjects)
            rows.append(Row(*key, statistic.value, low, high, deviation, found.n, people))
        return rows

    def comparisons(self) -> list[Comparison]:
        """The first method, under each of its scorings, against all others, metric by metric."""
        first = next(iter(self.measured))[0]
        comparisons = []
        for (own, one), (other, another) in permutations(self.measured.items(), 2):
            if own[0] == first and own[2] == other[2] and another.is_enough:
                found = pooled.paired_difference(one.mean, another.mean, one.groups, RESAMPLES)
                comparisons.append(Comparison(own[2], *own[:2], *other[:2], *found))
        return comparisons


@dataclass(frozen=True)
class Report:
    """What an experiment, whose name its files have, found: numbers, what a reader must know of
    them (a sentence each), what made them (JSON values), pictures, and further tables."""

    name: str
    title: str
    measurements: Measurements
    notes: Sequence[str]
    provenance: Mapping[str, Any]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @cached_property
    def rows(self) -> list[Row]:
        """Every number."""
        return self.measurements.rows()

    @cached_property
    def pairs(self) -> list[Comparison]:
        """The first method, under each of its scorings, against all others."""
        return self.measurements.comparisons()

    def table(self) -> pd.DataFrame:
        """The numbers as people read them: a row a method and scoring, a column a metric, `0.58
        [0.53, 0.63]`. What depends on no scoring stands in every row of its method."""
        cells = {row[:3]: _cell(row) for row in self.rows}
        scored = {row.method for row in self.rows if row.scoring}
        lines = [row[:2] for row in self.rows if row.scoring or row.method not in scored]
        table = pd.DataFrame([*dict.fromkeys(lines)], columns=["method", "scoring"])
        for metric in dict.fromkeys(row.metric for row in self.rows):
            shown = zip(table["method"], table["scoring"])
            table[metric] = [
                cells.get((*line, metric), cells.get((line[0], "", metric), "")) for line in shown
            ]
        return table

    def differences(self) -> pd.DataFrame:
        """The paired differences as people read them: the first method minus each other, a column a
        metric, `+0.12 [+0.03, +0.21]`; under the same scoring or, where the other knows none of the
        first's, its own. Numbers that depend on no scoring are left to `pairs`."""
        scored = [pair for pair in self.pairs if pair.first_scoring and pair.other != pair.first]
        shared = {pair.other for pair in scored if pair.first_scoring == pair.other_scoring}
        lines: dict[tuple[str, str], dict[str, str]] = {}
        for pair in scored:
            if pair.first_scoring == pair.other_scoring or pair.other not in shared:
                first = f"{pair.first} ({pair.first_scoring})"
                other = f"{pair.other} ({pair.other_scoring})" if pair.other_scoring else pair.other
                cell = f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]"
                line = lines.setdefault((first, other), {"method": first, "minus": other})
                line[pair.metric] = cell
        return pd.DataFrame([*lines.values()]).fillna("")

    def markdown(self) -> str:
        """Title, table, paired differences where there are some, and notes in Markdown."""
        differences, paired = self.differences(), ""
        if not differences.empty:
            paired = f"Paired differences:\n\n{markdown_table(differences)}\n"
        notes = "".join(f"- {note}\n" for note in self.notes)
        return f"# {self.title}\n\n{markdown_table(self.table())}\n{paired}{notes}"

    def write(self, output: Path) -> Path:
        """Write the report into a folder, each file whole or not at all and none before all are
        made; return its page, `NAME.html`."""
        document = {
            "experiment": self.name,
            "title": self.title,
            "notes": list(self.notes),
            "provenance": dict(self.provenance),
            "results": [_finite(row._asdict()) for row in self.rows],
            "comparisons": [_finite(pair._asdict()) for pair in self.pairs],
        }
        pictures = {}
        for name, figure in self.figures.items():
            figure.savefig(buffer := io.BytesIO(), format="png", dpi=150)
            pictures[name] = buffer.getvalue()
        sources = {name: data_uri(png) for name, png in pictures.items()}
        made_by = json.dumps(dict(self.provenance), indent=2)
        comparisons = pd.DataFrame(self.pairs, columns=Comparison._fields)
        texts = {
            ".csv": pd.DataFrame(self.rows).to_csv(index=False),
            "_comparisons.csv": comparisons.to_csv(index=False),
            ".json": json.dumps(document, indent=2, allow_nan=False) + "\n",
            ".md": self.markdown(),
            ".tex": self.table().to_latex(index=False, escape=True),
            ".html": render("experiment", report=self, pictures=sources, provenance=made_by),
            **{f"_{name}.csv": table.to_csv(index=False) for name, table in self.tables.items()},
        }
        files = {ending: text.encode() for ending, text in texts.items()}
        files |= {f"_{name}.png": picture for name, picture in pictures.items()}
        for ending, content in files.items():
            with replacing(output / f"{self.name}{ending}") as path:
                path.write_bytes(content)
        return output / f"{self.name}.html"


def published(
    experiment: str, profile: str, protocol: str, slices: AnnotatedSlices
) -> dict[str, pd.DataFrame]:
    """The paper's own table where it compares: on the paper's test section (its fastMRI+ files, all
    groups and boxes), under the paper profile and, for boxes, with the paper's protocol or that of
    its code."""
    compares = (
        experiment in TABLES
        and profile == "paper"
        and (experiment in ("synthetic", "detection") or protocol != "pixel_count")
        and {name: np.count_nonzero(slices.groups == name) for name in COHORT} == COHORT
        and sum(map(len, slices.box_labels)) == BOXES
        and all(subject.startswith("file_brain_AXT1_") for subject in slices.subjects)
    )
    return {"paper": TABLES[experiment]} if compares else {}


def markdown_table(table: pd.DataFrame) -> str:
    """A table in Markdown, without its index."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    cells = [[str(cell).replace("|", r"\|") for cell in line] for line in lines]
    return "".join(f"|{'|'.join(line)}|\n" for line in cells)


def _cell(row: Row) -> str:
    if math.isnan(row.value):
        return "not defined"
    runs = "" if row.deviation is None else f" ± {row.deviation:.2g}"
    bounds = "" if row.low is None else f" [{row.low:.3g}, {row.high:.3g}]"
    return f"{row.value:.3g}{runs}{bounds}"


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, None in place of NaN and infinity, which JSON does not know."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
