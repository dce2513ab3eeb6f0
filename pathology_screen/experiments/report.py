"""The results of an experiment on disk: numbers for machines, tables for papers, pictures for
eyes."""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pathology_screen.files import replacing
from pathology_screen.metrics import (
    PooledStatistic,
    bootstrap_interval,
    combined,
    paired_difference,
)
from pathology_screen.pages import render

RESAMPLES = 1000


class Row(NamedTuple):
    """One measured number.

    Attributes:
        method: label of the method.
        scoring: name of the scoring; "" where the number does not depend on it.
        metric: name of what was measured; a column of the table.
        value: the number, of several runs of one label their mean; NaN where it is not defined.
        low, high: bounds of its 95 % bootstrap interval over subjects; None where a group has a
            single one.
        deviation: standard deviation over the runs; None for a single run.
        n: of how many images or boxes it is the summary.
        subjects: of how many people.
    """

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
    """The paired difference of two methods on the same subjects: the first minus the other.

    Attributes:
        metric: name of what was measured.
        first, other: labels of the methods.
        first_scoring, other_scoring: their scorings; "" where the number does not depend on it.
        difference, low, high: the difference and its 95 % bootstrap interval over subjects.
        p_value: two-sided, of no difference.
    """

    metric: str
    first: str
    first_scoring: str
    other: str
    other_scoring: str
    difference: float
    low: float
    high: float
    p_value: float


class Measurements:
    """Statistics as they are measured, by method, scoring and metric; runs that share a label are
    averaged."""

    def __init__(self, groups: Mapping[str, Hashable] | None = None) -> None:
        """Args:
        groups: subject -> group, such as healthy or not, which every resample keeps in size.
        """
        self.groups = groups
        self.measured: dict[tuple[str, str, str], list[_Measured]] = {}

    def add(
        self, method: str, scoring: str, metric: str, statistic: PooledStatistic, n: int
    ) -> None:
        """Note a statistic over n images or boxes."""
        self.measured.setdefault((method, scoring, metric), []).append(
            _Measured(statistic, n, self.groups)
        )

    def merged(self, other: Measurements) -> Measurements:
        """Both together, each with its own groups."""
        both = Measurements()
        both.measured = {**self.measured, **other.measured}
        return both

    def rows(self) -> list[Row]:
        """Every number with its interval."""
        rows = []
        for key, runs in self.measured.items():
            statistic = self._mean(key)
            low, high = None, None
            groups = self._groups(key)
            if _enough(statistic, groups):
                _, low, high = bootstrap_interval(statistic, groups, resamples=RESAMPLES)
            values = [run.statistic.value for run in runs]
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
            rows.append(
                Row(*key, statistic.value, low, high, deviation, runs[0].n, len(statistic.subjects))
            )
        return rows

    def comparisons(self) -> list[Comparison]:
        """The first method, under each of its scorings, against all others, metric by metric."""
        first = next(iter(self.measured))[0]
        found = []
        for method, scoring, metric in self.measured:
            for key in self.measured:
                if method == first and key[2] == metric and key != (method, scoring, metric):
                    statistic, other, groups = (
                        self._mean((method, scoring, metric)),
                        self._mean(key),
                        self._groups(key),
                    )
                    if not _enough(other, groups):
                        continue
                    difference = paired_difference(statistic, other, groups, resamples=RESAMPLES)
                    found.append(Comparison(metric, method, scoring, *key[:2], *difference))
        return found

    def _mean(self, key: tuple[str, str, str]) -> PooledStatistic:
        runs = [run.statistic for run in self.measured[key]]
        return (
            runs[0] if len(runs) == 1 else combined(lambda *values: np.mean(values, axis=0), *runs)
        )

    def _groups(self, key: tuple[str, str, str]) -> dict[str, Hashable] | None:
        groups, subjects = self.measured[key][0].groups, self._mean(key).subjects
        return None if groups is None else {name: groups[name] for name in subjects}


class _Measured(NamedTuple):
    statistic: PooledStatistic
    n: int
    groups: Mapping[str, Hashable] | None


def _enough(statistic: PooledStatistic, groups: Mapping[str, Hashable] | None) -> bool:
    """Whether every group has the two subjects that a bootstrap needs."""
    return min(Counter((groups or dict.fromkeys(statistic.subjects)).values()).values()) > 1


@dataclass(frozen=True)
class Report:
    """What an experiment found.

    Attributes:
        name: of the experiment; names the files.
        title: one line.
        measurements: the numbers.
        notes: what a reader must know to read them, a sentence each.
        provenance: what made them, as JSON values.
        figures: name -> picture.
        tables: name -> further numbers, such as those of each class.
    """

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
        [0.53, 0.63]`.

        What does not depend on the scoring stands in every row of its method.
        """
        metrics = list(dict.fromkeys(row.metric for row in self.rows))
        scorings: dict[str, list[str]] = {}
        for row in self.rows:
            known = scorings.setdefault(row.method, [])
            if row.scoring and row.scoring not in known:
                known.append(row.scoring)
        lines = [
            (method, scoring) for method, known in scorings.items() for scoring in known or [""]
        ]
        cells = {(row.method, row.scoring, row.metric): _cell(row) for row in self.rows}
        numbers = [
            [cells.get((*line, metric), cells.get((line[0], "", metric), "")) for metric in metrics]
            for line in lines
        ]
        return pd.DataFrame(
            [[*line, *cell] for line, cell in zip(lines, numbers)],
            columns=["method", "scoring", *metrics],
        )

    def differences(self) -> pd.DataFrame:
        """The paired differences as people read them: the first method minus each other, a column a
        metric, `+0.12 [+0.03, +0.21]`.

        Both under the same scoring, or where the other knows none of the first's, under its own;
        numbers that do not depend on the scoring are left to `pairs`.
        """
        scored = [pair for pair in self.pairs if pair.first_scoring and pair.other != pair.first]
        shared = {pair.other for pair in scored if pair.first_scoring == pair.other_scoring}
        lines: dict[tuple[str, str], dict[str, str]] = {}
        for pair in scored:
            if pair.first_scoring == pair.other_scoring or pair.other not in shared:
                names = (
                    _named(pair.first, pair.first_scoring),
                    _named(pair.other, pair.other_scoring),
                )
                cell = f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]"
                lines.setdefault(names, {})[pair.metric] = cell
        columns = list(dict.fromkeys(metric for cells in lines.values() for metric in cells))
        rows = [
            [*names, *(cells.get(metric, "") for metric in columns)]
            for names, cells in lines.items()
        ]
        return pd.DataFrame(rows, columns=["method", "minus", *columns])

    def markdown(self) -> str:
        """Title, table, paired differences where there are some, and notes in Markdown."""
        differences = self.differences()
        paired = (
            "" if differences.empty else f"Paired differences:\n\n{markdown_table(differences)}\n"
        )
        notes = "".join(f"- {note}\n" for note in self.notes)
        return f"# {self.title}\n\n{markdown_table(self.table())}\n{paired}{notes}"

    def write(self, output: Path) -> Path:
        """Write the report into a folder, each file whole or not at all and none before all are
        made; return its page.

        `NAME.csv` and `NAME.json` hold the numbers, `NAME_comparisons.csv` the paired differences,
        and `NAME.md`, `NAME.tex` and `NAME.html` the table as people read it; further tables and
        figures have names of their own.
        """
        document = {
            "experiment": self.name,
            "title": self.title,
            "notes": list(self.notes),
            "provenance": dict(self.provenance),
            "results": [_finite(row._asdict()) for row in self.rows],
            "comparisons": [_finite(pair._asdict()) for pair in self.pairs],
        }
        pictures = {name: _png(figure) for name, figure in self.figures.items()}
        texts = {
            ".csv": pd.DataFrame(self.rows).to_csv(index=False),
            "_comparisons.csv": pd.DataFrame(self.pairs, columns=Comparison._fields).to_csv(
                index=False
            ),
            ".json": json.dumps(document, indent=2, allow_nan=False) + "\n",
            ".md": self.markdown(),
            ".tex": self.table().to_latex(index=False, escape=True),
            ".html": self._page(pictures),
            **{f"_{name}.csv": table.to_csv(index=False) for name, table in self.tables.items()},
        }
        files = {ending: text.encode() for ending, text in texts.items()}
        files |= {f"_{name}.png": picture for name, picture in pictures.items()}
        for ending, content in files.items():
            with replacing(output / f"{self.name}{ending}") as path:
                path.write_bytes(content)
        return output / f"{self.name}.html"

    def _page(self, pictures: Mapping[str, bytes]) -> str:
        sources = {
            name: f"data:image/png;base64,{base64.b64encode(png).decode()}"
            for name, png in pictures.items()
        }
        made_by = json.dumps(dict(self.provenance), indent=2)
        return render("experiment", report=self, pictures=sources, provenance=made_by)


def markdown_table(table: pd.DataFrame) -> str:
    """A table in Markdown, without its index."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    cells = [[str(cell).replace("|", r"\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _cell(row: Row) -> str:
    if row.value != row.value:
        return "not defined"
    runs = "" if row.deviation is None else f" ± {row.deviation:.2g}"
    bounds = "" if row.low is None else f" [{row.low:.3g}, {row.high:.3g}]"
    return f"{row.value:.3g}{runs}{bounds}"


def _named(method: str, scoring: str) -> str:
    return f"{method} ({scoring})" if scoring else method


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, None in place of NaN and infinity, which JSON does not know."""
    finite = lambda value: not isinstance(value, float) or math.isfinite(value)  # noqa: E731
    return {name: value if finite(value) else None for name, value in values.items()}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
