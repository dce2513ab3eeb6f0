"""The results of an experiment on disk: numbers for machines, tables for papers, pictures for eyes."""

from __future__ import annotations

import base64
import html
import io
import json
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
from pathology_screen.metrics import PooledStatistic, bootstrap_interval, combined, paired_difference

RESAMPLES = 1000


class Row(NamedTuple):
    """One measured number.

    Attributes:
        method: label of the method.
        scoring: name of the scoring; "" where the number does not depend on it.
        metric: name of what was measured; a column of the table.
        value: the number, of several runs of one label their mean; NaN where it is not defined.
        low, high: bounds of its 95 % bootstrap interval over subjects; None where a group has a single one.
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
        first, other: method and scoring.
        difference, low, high: the difference and its 95 % bootstrap interval over subjects.
        p_value: two-sided, of no difference.
    """

    metric: str
    first: str
    other: str
    difference: float
    low: float
    high: float
    p_value: float


class Measurements:
    """Statistics as they are measured, by method, scoring and metric; runs that share a label are averaged."""

    def __init__(self, groups: Mapping[str, Hashable] | None = None) -> None:
        """Args:
        groups: subject -> group, such as healthy or not, which every resample keeps in size.
        """
        self.groups = groups
        self.measured: dict[tuple[str, str, str], list[tuple[PooledStatistic, int]]] = {}

    def add(self, method: str, scoring: str, metric: str, statistic: PooledStatistic, n: int) -> None:
        """Note a statistic over n images or boxes."""
        self.measured.setdefault((method, scoring, metric), []).append((statistic, n))

    def merged(self, other: Measurements) -> Measurements:
        """Both together, with the groups of the other."""
        both = Measurements(other.groups)
        both.measured = {**self.measured, **other.measured}
        return both

    def rows(self) -> list[Row]:
        """Every number with its interval."""
        rows = []
        for key, runs in self.measured.items():
            statistic = self._mean(key)
            low, high = None, None
            if self._enough(statistic):
                _, low, high = bootstrap_interval(statistic, self._groups(statistic), resamples=RESAMPLES)
            values = [one.value for one, _ in runs]
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
            rows.append(Row(*key, statistic.value, low, high, deviation, runs[0][1], len(statistic.subjects)))
        return rows

    def comparisons(self) -> list[Comparison]:
        """The first method, under each of its scorings, against all others, metric by metric."""
        first = next(iter(self.measured))[0]
        found = []
        for method, scoring, metric in self.measured:
            for key in self.measured:
                if method == first and key[2] == metric and key != (method, scoring, metric):
                    if not self._enough(self._mean(key)):
                        continue
                    statistic, other = self._mean((method, scoring, metric)), self._mean(key)
                    difference = paired_difference(statistic, other, self._groups(statistic), resamples=RESAMPLES)
                    found.append(Comparison(metric, _named(method, scoring), _named(*key[:2]), *difference))
        return found

    def _mean(self, key: tuple[str, str, str]) -> PooledStatistic:
        runs = [statistic for statistic, _ in self.measured[key]]
        return runs[0] if len(runs) == 1 else combined(lambda *values: np.mean(values, axis=0), *runs)

    def _enough(self, statistic: PooledStatistic) -> bool:
        """Whether every group has the two subjects that a bootstrap needs."""
        groups = self._groups(statistic) or dict.fromkeys(statistic.subjects)
        return min(Counter(groups.values()).values()) > 1

    def _groups(self, statistic: PooledStatistic) -> dict[str, Hashable] | None:
        return None if self.groups is None else {name: self.groups[name] for name in statistic.subjects}


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
    def comparisons(self) -> pd.DataFrame:
        """The first method against the others."""
        return pd.DataFrame(self.measurements.comparisons(), columns=Comparison._fields)

    def table(self) -> pd.DataFrame:
        """The numbers as people read them: a row a method and scoring, a column a metric, `0.58 [0.53, 0.63]`.

        What does not depend on the scoring stands in every row of its method.
        """
        metrics = list(dict.fromkeys(row.metric for row in self.rows))
        scorings: dict[str, list[str]] = {}
        for row in self.rows:
            known = scorings.setdefault(row.method, [])
            if row.scoring and row.scoring not in known:
                known.append(row.scoring)
        lines = [(method, scoring) for method, known in scorings.items() for scoring in known or [""]]
        cells = {(row.method, row.scoring, row.metric): _cell(row) for row in self.rows}
        numbers = [
            [cells.get((*line, metric), cells.get((line[0], "", metric), "")) for metric in metrics] for line in lines
        ]
        return pd.DataFrame(
            [[*line, *cell] for line, cell in zip(lines, numbers)], columns=["method", "scoring", *metrics]
        )

    def markdown(self) -> str:
        """Title, table and notes in Markdown."""
        table = self.table()
        lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
        body = "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
        notes = "".join(f"- {note}\n" for note in self.notes)
        return f"# {self.title}\n\n{body}\n{notes}"

    def write(self, output: Path) -> Path:
        """Write the report into a folder, each file whole or not at all, and return its page.

        `NAME.csv` and `NAME.json` hold the numbers, `NAME_comparisons.csv` the paired differences, and `NAME.md`,
        `NAME.tex` and `NAME.html` the table as people read it; further tables and figures have names of their own.
        """
        numbers = pd.DataFrame(self.rows)
        document = {
            "experiment": self.name,
            "title": self.title,
            "notes": list(self.notes),
            "provenance": dict(self.provenance),
            "results": [_without_nan(row._asdict()) for row in self.rows],
            "comparisons": [_without_nan(row) for row in self.comparisons.to_dict("records")],
        }
        _save(output / f"{self.name}.csv", numbers.to_csv(index=False))
        _save(output / f"{self.name}_comparisons.csv", self.comparisons.to_csv(index=False))
        _save(output / f"{self.name}.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
        _save(output / f"{self.name}.md", self.markdown())
        _save(output / f"{self.name}.tex", self.table().to_latex(index=False, escape=True))
        for name, table in self.tables.items():
            _save(output / f"{self.name}_{name}.csv", table.to_csv(index=False))
        pictures = {name: _png(figure) for name, figure in self.figures.items()}
        for name, picture in pictures.items():
            with replacing(output / f"{self.name}_{name}.png") as path:
                path.write_bytes(picture)
        page = output / f"{self.name}.html"
        _save(page, self._page(pictures))
        return page

    def _page(self, pictures: Mapping[str, bytes]) -> str:
        images = "".join(
            f'<figure><img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
            f"<figcaption>{html.escape(name)}</figcaption></figure>\n"
            for name, picture in pictures.items()
        )
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        comparisons = _html_table(self.comparisons)
        further = "".join(
            f"<details><summary>{html.escape(name)}</summary>{_html_table(table)}</details>\n"
            for name, table in self.tables.items()
        )
        made_by = html.escape(json.dumps(dict(self.provenance), indent=2))
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head><body>\n"
            f"<h1>{html.escape(self.title)}</h1>\n{self.table().to_html(index=False, border=0)}\n<ul>{notes}</ul>\n"
            f"<details><summary>Paired differences</summary>{comparisons}</details>\n"
            f"{further}{images}<details><summary>Provenance</summary><pre>{made_by}</pre></details>\n</body></html>\n"
        )


STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.25rem .7rem;border-bottom:1px solid #ddd;text-align:left}"
    "img{max-width:100%}figure{margin:2rem 0}figcaption{color:#555}pre{overflow:auto;background:#f6f6f6;padding:1rem}"
)


def _cell(row: Row) -> str:
    if row.value != row.value:
        return "not defined"
    runs = "" if row.deviation is None else f" ± {row.deviation:.2g}"
    bounds = "" if row.low is None else f" [{row.low:.3g}, {row.high:.3g}]"
    return f"{row.value:.3g}{runs}{bounds}"


def _html_table(table: pd.DataFrame) -> str:
    return table.to_html(index=False, border=0, float_format="{:.3g}".format)


def _named(method: str, scoring: str) -> str:
    return f"{method} ({scoring})" if scoring else method


def _without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and value != value else value for name, value in values.items()}


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _save(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")
