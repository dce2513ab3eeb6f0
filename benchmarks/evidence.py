"""Write the benchmark page, its chart and its numbers, from the weights that the bundles ship or
from training runs.

python benchmarks/evidence.py --dataset_dir ../shared/data/ixi_slices [--runs RUNS] [--strangers
FOLDER ...]

Every ranking on the page is derived from the numbers of the run that wrote it.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from pathology_screen.anomaly.perceptual import is_installed
from pathology_screen.cohorts import load_datalist
from pathology_screen.experiments import Measurements, Report, Row, Setting
from pathology_screen.experiments.published import TABLES
from pathology_screen.experiments.report import Comparison, markdown_table
from pathology_screen.experiments.synthetic import KINDS, synthetic
from pathology_screen.files import replacing
from pathology_screen.io import find_scans
from pathology_screen.registry import METHODS
from pathology_screen.screening import Screener

ROOT = Path(__file__).resolve().parents[1]
LABELS = {"ra": "RA", "si_vae": "SI-VAE", "vae": "VAE", "ae_s": "AE-S", "dae": "DAE", "mkd": "MKD"}
"""Names of the six on the page; controls keep theirs."""
PLACES = ("first", "second", "third", "fourth", "fifth", "last")
SCORED = {"residual": "the plain residual", "eq5": "Eq. 5"}


class Found(NamedTuple):
    """What was measured.

    Attributes:
        synthetic: report on all test people.
        sites: the same on those of each site, by its name.
        strangers: a row a scan of another scanner; empty where none was given.
    """

    synthetic: Report
    sites: dict[str, Report]
    strangers: pd.DataFrame


# --- what is measured ---


def choices(names: Iterable[str], runs: Path | None) -> tuple[str, ...]:
    """The methods as a `Setting` takes them; without a folder of runs, with the weights that their
    bundles ship."""
    homes = {
        name: "" if runs is None or METHODS[name].is_control else f"={runs / name}"
        for name in names
    }
    return tuple(f"{name}:{LABELS.get(name, name)}{home}" for name, home in homes.items())


def by_site(setting: Setting) -> dict[str, Report]:
    """The synthetic anomalies on the test people of each site that the datalist names; a site of
    one person is left out."""
    items = load_datalist(Path(str(setting.datalist)), "test", base_dir=setting.dataset_dir)
    site_of = {str(item["subject"]): str(item["site"]) for item in items if "site" in item}
    test = setting.section("test")
    reports = {}
    for site in sorted(set(site_of.values())):
        places = [i for i, subject in enumerate(test.subjects) if site_of.get(subject) == site]
        if len(places) > 1:
            configured = (setting.shared, setting.models)
            reports[site] = synthetic(
                replace(setting, configured=configured, prepared={"test": test[places]})
            )
    return reports


def screen_strangers(folders: Iterable[Path], runs: Path | None) -> pd.DataFrame:
    """Screen every scan of folders by RA: outcome, and percentile among the healthy people of the
    calibration."""
    rows = []
    screener = Screener.from_bundle(
        "ra", weights=None if runs is None else runs / "ra" / "model.pt"
    )
    for folder in folders:
        for item in find_scans(folder):
            result = screener(item["image"], series_uid=item.get("series_uid"))
            told = "-" if result.percentile is None else f"{result.percentile:.0f}"
            outcome = result.outcome + (f" ({result.code})" if result.code else "")
            rows.append(
                {
                    "folder": folder.name,
                    "scan": item["name"],
                    "outcome": outcome,
                    "percentile": told,
                }
            )
    return pd.DataFrame(rows)


def measure(options: argparse.Namespace, backbone: str) -> Found:
    """Run the experiments."""
    methods = choices(options.methods, options.runs)
    setting = Setting(methods, str(options.dataset_dir), str(options.datalist), backbone=backbone)
    strangers = (
        screen_strangers(options.strangers, options.runs) if options.strangers else pd.DataFrame()
    )
    return Found(synthetic(setting), by_site(setting), strangers)


# --- what it says ---


def own_scorings(rows: Iterable[Row], scoring: str) -> dict[str, str]:
    """Method -> the scoring, or its own where it does not know this one."""
    known: dict[str, list[str]] = {}
    for row in rows:
        if row.scoring:
            known.setdefault(row.method, []).append(row.scoring)
    return {name: scoring if scoring in own else own[0] for name, own in known.items()}


def standing(values: Mapping[str, float], of: str) -> tuple[str, str]:
    """Place of a method by its value, and the best of the others."""
    place = sum(value > values[of] for value in values.values())
    return PLACES[min(place, len(PLACES) - 1)], max(
        (name for name in values if name != of), key=values.__getitem__
    )


def weighed(pair: Comparison) -> str:
    """A paired difference with its interval, and what this allows to say."""
    sure = pair.low > 0 or pair.high < 0
    verdict = (
        "the interval leaves out 0" if sure else "the interval holds 0, so the order may be chance"
    )
    return f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]; {verdict}"


def sentence(report: Report, metric: str, own: str, others: str) -> str:
    """Where RA under a scoring stands among the six under another, and how it compares with the
    best other method and the best control."""
    rows = [row for row in report.rows if row.metric == metric]
    scorings = own_scorings(rows, others) | {"RA": own}
    values = {row.method: row.value for row in rows if scorings[row.method] == row.scoring}
    pairs = {
        pair.other: pair
        for pair in report.pairs
        if (pair.metric, pair.first_scoring, pair.other_scoring)
        == (metric, own, scorings[pair.other])
    }
    learned = {name: value for name, value in values.items() if name in LABELS.values()}
    parts = [f"{metric} {values['RA']:.3f}"]
    if len(learned) > 1:
        place, best = standing(learned, "RA")
        parts[0] = f"RA is **{place} of {len(learned)}** in {parts[0]}"
        parts.append(f"the best other is {best} {values[best]:.3f} ({weighed(pairs[best])})")
    if controls := {name: value for name, value in values.items() if name not in learned}:
        best = max(controls, key=controls.__getitem__)
        parts.append(f"the best control is `{best}` {values[best]:.3f} ({weighed(pairs[best])})")
    return "; ".join(parts) + "."


def beside_paper(report: Report, kind: str) -> pd.DataFrame:
    """Table 1a or 1b: each number times 100 beside the paper's, which scores RA by Eq. 5 and the
    others by the plain residual; controls and MKD have none there."""
    paper = TABLES["synthetic"].set_index("method")
    scorings = own_scorings(report.rows, "residual") | {"RA": "eq5"}
    cells = {(row.method, row.scoring, row.metric): f"{100 * row.value:.1f}" for row in report.rows}
    lines = []
    for method, scoring in scorings.items():
        line = {"method": method, "scoring": scoring}
        for error in ("MSE", "LPIPS", "AUPRC"):
            key = (method, scoring if error == "AUPRC" else "", f"{kind} {error}")
            line[error] = cells.get(key, "-")
            line[f"{error}, paper"] = paper[f"{kind} {error} x 100"].get(method, "-")
        lines.append(line)
    return pd.DataFrame(lines)


def part(report: Report, *endings: str) -> Report:
    """A report of the metrics whose names end so."""
    kept = Measurements(report.measurements.groups)
    kept.measured = {
        key: runs for key, runs in report.measurements.measured.items() if key[2].endswith(endings)
    }
    return replace(report, measurements=kept)


def site_table(sites: Mapping[str, Report]) -> pd.DataFrame:
    """A row a method and scoring, and columns of each site: its people, and AUPRC with their
    intervals."""
    tables = []
    for site, report in sites.items():
        people = max(row.subjects for row in report.rows)
        table = part(report, "AUPRC").table().set_index(["method", "scoring"])
        tables.append(table.add_prefix(f"{site} (n = {people}): "))
    return pd.concat(tables, axis=1).reset_index()


# --- the page ---


def page(found: Found, options: argparse.Namespace, backbone: str) -> str:
    """The page, in Markdown."""
    given = {"--runs RUNS": options.runs, "--strangers FOLDER ...": options.strangers}
    template = (Path(__file__).parent / "evidence.md.jinja").read_text("utf-8")
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(template).render(
        weights="training runs" if options.runs else "the weights that the bundles ship",
        options="".join(f" {text}" for text in [*(text for text, value in given.items() if value)]),
        backbone=backbone,
        scored=SCORED,
        found=found,
        metrics=[f"{kind} AUPRC" for kind in KINDS],
        kinds=list(KINDS),
        people=max(row.subjects for row in found.synthetic.rows),
        sentence=sentence,
        beside_paper=beside_paper,
        healthy=part(found.synthetic, "healthy MSE", "healthy SSIM", "healthy LPIPS", "sharpness"),
        localised=part(found.synthetic, "AUPRC"),
        sites=site_table(found.sites) if found.sites else None,
        table=markdown_table,
        made_by=found.synthetic.provenance,
    )


def auprc_chart(rows: Sequence[Row]) -> Figure:
    """A panel a kind of anomaly: each method's AUPRC and interval, by scoring."""
    metrics, methods, scorings = (
        list(dict.fromkeys(getattr(row, name) for row in rows))
        for name in ("metric", "method", "scoring")
    )
    figure = Figure(figsize=(9, 0.8 + 0.36 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axis, metric in zip(panels, metrics):
        for number, scoring in enumerate(scorings):
            own = [row for row in rows if row.metric == metric and row.scoring == scoring]
            y = [
                methods.index(row.method) + 0.12 * (number - (len(scorings) - 1) / 2) for row in own
            ]
            middle = np.array([row.value for row in own])
            bounds = np.array([(row.low, row.high) for row in own], dtype=float).T
            axis.errorbar(
                middle,
                y,
                xerr=np.abs(bounds - middle),
                fmt="o",
                color=f"C{number}",
                label=scoring,
                ms=4,
            )
        axis.set_title(metric, fontsize=10)
        axis.set_yticks(range(len(methods)), methods, fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    panels[-1].legend(fontsize=7)
    return figure


def write(found: Found, options: argparse.Namespace, backbone: str) -> Path:
    """Write page, numbers and chart, none before all are made; return the page."""
    text = page(found, options, backbone)
    chart = auprc_chart([row for row in found.synthetic.rows if row.metric.endswith("AUPRC")])
    reports = {"all": found.synthetic, **found.sites}
    numbers = pd.concat(
        [pd.DataFrame(report.rows).assign(people=name) for name, report in reports.items()]
    )
    with replacing(options.output / "images" / "benchmarks_synthetic.png") as path:
        chart.savefig(path, dpi=110)
    with replacing(options.output / "benchmarks.csv") as path:
        numbers.to_csv(path, index=False, float_format="%.6g")
    with replacing(options.output / "benchmarks.md") as path:
        path.write_text(text, "utf-8")
    return options.output / "benchmarks.md"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dataset_dir",
        type=Path,
        required=True,
        help="folder of the slices that the datalist names",
    )
    parser.add_argument("--datalist", type=Path, default=ROOT / "data_lists" / "ixi_slices.json")
    parser.add_argument(
        "--runs",
        type=Path,
        help="folder of training runs, one a bundle, in place of shipped weights",
    )
    parser.add_argument(
        "--strangers", type=Path, nargs="+", default=[], metavar="FOLDER", help="scans to screen"
    )
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), help="RA first (default: all)"
    )
    parser.add_argument(
        "--perceptual", help="backbone (default: squeeze where its weights are there, else st_alex)"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "docs", help="folder of the page (default: docs)"
    )
    options = parser.parse_args(arguments)
    backbone = options.perceptual or ("squeeze" if is_installed("squeeze") else "st_alex")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(f"look at: {write(measure(options, backbone), options, backbone)}")


if __name__ == "__main__":
    main()
