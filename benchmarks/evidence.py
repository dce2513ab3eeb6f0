"""Write the benchmark page, its charts and its numbers, from the weights that the bundles ship or
from training runs, and from what ablations.py and leave_site_out.py left in the folder of the page.

python benchmarks/evidence.py --dataset_dir ../shared/data/ixi_slices [--runs RUNS] [--strangers
FOLDER ...] [--pictures FOLDER]

A method without weights is named as such and left out. Every ranking on the page is derived from
the numbers of the run that wrote it. `--pictures` takes the whole report, with slices of people,
which the page does not show.
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
from pathology_screen.experiments import ExperimentSetting, Measurements, Report, Row
from pathology_screen.experiments.findings import training_curves
from pathology_screen.experiments.methods import Chosen
from pathology_screen.experiments.report import TABLES, Comparison, markdown_table
from pathology_screen.experiments.synthetic import KINDS, synthetic
from pathology_screen.files import replacing
from pathology_screen.io import discover
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
        missing: names of the methods without weights.
        logs: method -> the log of its training.
    """

    synthetic: Report
    sites: dict[str, Report]
    strangers: pd.DataFrame
    missing: list[str]
    logs: dict[str, Path]


# --- what is measured ---


def choices(names: Iterable[str], runs: Path | None) -> tuple[list[str], list[str]]:
    """The methods as an `ExperimentSetting` takes them, with the weights of their runs or, without
    a folder of runs, those that their bundles ship; and the labels of those that have none yet."""
    texts, missing = [], []
    for name in names:
        label = LABELS.get(name, name)
        home = "" if runs is None or METHODS[name].is_control else f"={runs / name}"
        text = f"{name}:{label}{home}"
        if METHODS[name].is_control or Chosen.parse(text).weights.is_file():
            texts.append(text)
        else:
            missing.append(label)
    return texts, missing


def by_site(setting: ExperimentSetting) -> dict[str, Report]:
    """The synthetic anomalies on the test people of each site that the datalist names; a site of
    one person is left out."""
    items = load_datalist(Path(str(setting.datalist)), "test", base_dir=setting.dataset_dir)
    site_of = {str(item["subject"]): str(item["site"]) for item in items if "site" in item}
    sites = np.array([site_of.get(subject, "") for subject in setting.slices.subjects])
    configured = (setting.shared, setting.compared)
    reports = {}
    for site in sorted(set(site_of.values())):
        if np.count_nonzero(sites == site) > 1:
            prepared = {"test": setting.slices[sites == site]}
            reports[site] = synthetic(replace(setting, configured=configured, prepared=prepared))
    return reports


def screen_strangers(folders: Iterable[Path], runs: Path | None) -> pd.DataFrame:
    """Screen every scan of folders by RA: outcome, and percentile among the healthy people of the
    calibration."""
    rows = []
    weights = None if runs is None else runs / "ra" / "model.pt"
    screener = Screener.from_bundle("ra", weights=weights)
    for folder in folders:
        found = discover(folder)
        for name, scan in zip(found.names, found.scans):
            result = screener(scan.source, series_uid=scan.series_uid)
            told = "-" if result.percentile is None else f"{result.percentile:.0f}"
            outcome = result.outcome + (f" ({result.code})" if result.code else "")
            rows.append([folder.name, name, outcome, told])
    return pd.DataFrame(rows, columns=["folder", "scan", "outcome", "percentile"])


def measure(options: argparse.Namespace, backbone: str) -> Found:
    """Run the experiments."""
    methods, missing = choices(options.methods, options.runs)
    data = str(options.dataset_dir), str(options.datalist)
    setting = ExperimentSetting(methods, *data, backbone=backbone)
    strangers = pd.DataFrame()
    if options.strangers:
        strangers = screen_strangers(options.strangers, options.runs)
    logs = {
        one.label: one.run / "log.csv" if one.run else one.weights.with_name("training_log.csv")
        for one in setting.choices
        if not one.method.is_control
    }
    logs = {label: path for label, path in logs.items() if path.is_file()}
    return Found(synthetic(setting), by_site(setting), strangers, missing, logs)


# --- what it says ---


def own_scorings(rows: Iterable[Row], scoring: str) -> dict[str, str]:
    """Method -> the scoring, or its own where it does not know this one."""
    known: dict[str, list[str]] = {}
    for row in rows:
        if row.scoring:
            known.setdefault(row.method, []).append(row.scoring)
    return {name: scoring if scoring in own else own[0] for name, own in known.items()}


def weighed(pair: Comparison) -> str:
    """A paired difference with its interval, and what this allows to say."""
    verdict = "the interval holds 0, so the order may be chance"
    if pair.low > 0 or pair.high < 0:
        verdict = "the interval leaves out 0"
    return f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]; {verdict}"


def sentence(report: Report, metric: str, own: str, others: str) -> str:
    """Where RA under a scoring stands among the six under another, and how it compares with the
    best other method and the best control."""
    rows = [row for row in report.rows if row.metric == metric]
    scorings = own_scorings(rows, others) | {"RA": own}
    values = {row.method: row.value for row in rows if scorings[row.method] == row.scoring}
    pairs = {
        pair.other: weighed(pair)
        for pair in report.pairs
        if pair[:3] == (metric, "RA", own) and pair.other_scoring == scorings[pair.other]
    }
    ours = values.pop("RA")
    learned = {name: value for name, value in values.items() if name in LABELS.values()}
    controls = {name: value for name, value in values.items() if name not in learned}
    parts = [f"{metric} {ours:.3f}"]
    if learned:
        place = sum(value > ours for value in learned.values())
        parts[0] = f"RA is **{PLACES[place]} of {len(learned) + 1}** in {parts[0]}"
        best = max(learned, key=learned.__getitem__)
        parts.append(f"the best other is {best} {values[best]:.3f} ({pairs[best]})")
    if controls:
        best = max(controls, key=controls.__getitem__)
        parts.append(f"the best control is `{best}` {values[best]:.3f} ({pairs[best]})")
    return "; ".join(parts) + "."


def beside_paper(report: Report, kind: str) -> pd.DataFrame:
    """Table 1a or 1b: each number times 100 and, in brackets, the paper's, which scores RA by Eq. 5
    and the others by the plain residual; controls and MKD have none there."""
    paper = TABLES["synthetic"].set_index("method")
    scorings = own_scorings(report.rows, "residual") | {"RA": "eq5"}
    cells = {row[:3]: f"{100 * row.value:.1f}" for row in report.rows}
    lines = []
    for method, scoring in scorings.items():
        line = {"method": method}
        for error in ("MSE", "LPIPS", "AUPRC"):
            key = (method, scoring if error == "AUPRC" else "", f"{kind} {error}")
            printed = paper[f"{kind} {error} x 100"].get(method)
            line[error] = cells.get(key, "-") + ("" if printed is None else f" ({printed})")
        lines.append(line)
    return pd.DataFrame(lines)


def part(report: Report, *endings: str) -> Report:
    """A report of the metrics whose names end so."""
    kept = Measurements(report.measurements.groups)
    measured = report.measurements.measured
    kept.measured = {key: found for key, found in measured.items() if key[2].endswith(endings)}
    return replace(report, measurements=kept)


def site_table(sites: Mapping[str, Report]) -> pd.DataFrame:
    """AUPRC of both kinds under Eq. 5, or a method's own scoring: a row a method, a column a
    site."""
    table: dict[str, dict[str, str]] = {}
    for site, report in sites.items():
        scorings = own_scorings(report.rows, "eq5")
        for row in report.rows:
            if row.scoring and row.scoring == scorings[row.method]:
                line = table.setdefault(row.method, {"method": row.method})
                name = f"{site} (n = {row.subjects})"
                line[name] = "/".join([*line.get(name, "").split(), f"{row.value:.3f}"])
    return pd.DataFrame([*table.values()])


def training_table(logs: Mapping[str, Path]) -> pd.DataFrame:
    """How long each method was trained, which epoch's weights were kept, by how much its validation
    error changed between the last two validations, and how large the gradients of the introspective
    terms were beside the ELBO's, at the median of the introspective epochs."""
    ratios = {"expELBO": "exp_elbo", "reversed": "reversed", "KL of generated": "kl_generated"}
    lines = []
    for method, path in logs.items():
        log = pd.read_csv(path)
        error = log[next(name for name in log if name.startswith("val_"))].dropna()
        late = log[log["kl_sampled"].notna()] if "kl_sampled" in log else log[:0]
        before, last = error.iloc[-2:]
        epochs = np.diff(log.epoch[error.index[-2:]]).item()
        line = {
            "method": method,
            "epochs": f"{log.epoch.iloc[-1]:.0f}",
            "of these introspective": str(len(late)),
            "kept": f"{log.epoch[error.idxmin()]:.0f}",
            "steps": f"{log.iteration.iloc[-1]:,.0f}",
            "last change": f"{last / before - 1:+.1%} in {epochs:.0f} epochs",
        }
        for name, column in ratios.items():
            value = late[f"gradient_{column}"].median() if len(late) else np.nan
            line[name] = "-" if np.isnan(value) else f"{value:.2g}"
        lines.append(line)
    return pd.DataFrame(lines)


def study(path: Path, index: Sequence[str], scorings: Sequence[str]) -> pd.DataFrame:
    """Of a table that another command left, what stands under these scorings, as people read it: a
    column a metric, `0.58 [0.53, 0.63]` and, where there are several, the values of the seeds;
    empty where it is not there."""
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_csv(path, keep_default_na=False)
    lines: dict[tuple, dict[str, str]] = {}
    for _, row in table[table.scoring.isin(scorings)].iterrows():
        key = tuple(row[index])
        sign = "+" if " minus " in key[0] else ""
        cell = f"{row.value:{sign}.3f} [{row.low:{sign}.3f}, {row.high:{sign}.3f}]"
        if sign and len(seeds := str(row.get("seeds", "")).split()) > 1:
            cell += f"; {', '.join(f'{float(one):+.3f}' for one in seeds)}"
        lines.setdefault(key, dict(zip(index, key)))[row.metric] = cell
    return pd.DataFrame([*lines.values()]).fillna("")


# --- the page ---


def page(found: Found, options: argparse.Namespace, backbone: str) -> str:
    """The page, in Markdown."""
    given = {"--runs RUNS": options.runs, "--strangers FOLDER ...": options.strangers}
    template = (Path(__file__).parent / "evidence.md.jinja").read_text("utf-8")
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    studies, of_site = options.output, ["people", "method", "epochs"]
    return environment.from_string(template).render(
        weights="training runs" if options.runs else "the weights that the bundles ship",
        options="".join(f" {text}" for text, value in given.items() if value),
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
        sites=site_table(found.sites),
        training=training_table(found.logs),
        ablations=study(studies / "ablations.csv", ["compared", "epochs"], ["eq5"]),
        left_out=study(studies / "leave_site_out.csv", of_site, ["", "eq5"]),
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
            shift = 0.12 * (number - (len(scorings) - 1) / 2)
            y = [methods.index(row.method) + shift for row in own]
            middle = np.array([row.value for row in own])
            bounds = np.array([(row.low, row.high) for row in own], dtype=float).T
            style = {"fmt": "o", "color": f"C{number}", "label": scoring, "ms": 4}
            axis.errorbar(middle, y, xerr=np.abs(bounds - middle), **style)
        axis.set_title(metric, fontsize=10)
        axis.set_yticks(range(len(methods)), methods, fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    panels[-1].legend(fontsize=7)
    return figure


def write(found: Found, options: argparse.Namespace, backbone: str) -> Path:
    """Write page, numbers and charts, none before all are made; return the page."""
    text = page(found, options, backbone)
    charts = {
        "synthetic": auprc_chart([row for row in found.synthetic.rows if "AUPRC" in row.metric]),
        "training": training_curves([*found.logs.items()]),
    }
    reports = {"all": found.synthetic, **found.sites}
    tables = {}
    for name, kind in (("benchmarks", "rows"), ("benchmarks_differences", "pairs")):
        rows = {site: pd.DataFrame(getattr(one, kind)) for site, one in reports.items()}
        tables[name] = pd.concat([table.assign(people=site) for site, table in rows.items()])
    if options.pictures:
        found.synthetic.write(options.pictures)
    for name, chart in charts.items():
        with replacing(options.output / "images" / f"benchmarks_{name}.png") as path:
            chart.savefig(path, dpi=110)
    for name, table in tables.items():
        with replacing(options.output / f"{name}.csv") as path:
            table.to_csv(path, index=False, float_format="%.6g")
    with replacing(options.output / "benchmarks.md") as path:
        path.write_text(text, "utf-8")
    return options.output / "benchmarks.md"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dataset_dir", type=Path, required=True, help="folder of the datalist's slices")
    add("--datalist", type=Path, default=ROOT / "data_lists" / "ixi_slices.json")
    add("--runs", type=Path, help="folder of training runs, in place of shipped weights")
    add("--strangers", type=Path, nargs="+", default=[], metavar="FOLDER", help="scans to screen")
    add("--methods", nargs="+", default=list(METHODS), help="RA first (default: all)")
    known = "backbone (default: squeeze where its weights are there, else st_alex)"
    add("--perceptual", help=known)
    add("--pictures", type=Path, help="folder of the report with slices of people")
    add("--output", type=Path, default=ROOT / "docs", help="folder of the page (default: docs)")
    options = parser.parse_args(arguments)
    if "RA" in choices(options.methods, options.runs)[1]:
        parser.error("there are no weights of RA, which all others are compared with")
    backbone = options.perceptual or ("squeeze" if is_installed("squeeze") else "st_alex")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(f"look at: {write(measure(options, backbone), options, backbone)}")


if __name__ == "__main__":
    main()
