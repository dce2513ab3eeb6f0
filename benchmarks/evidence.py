"""Write the benchmark page, its charts and its numbers, from the shipped weights or from training runs.

python benchmarks/evidence.py --oasis DIR --glioma DIR [--runs RUNS] [--output docs]

Every conclusion on the page is derived from the numbers of the run that wrote it. The charts show numbers alone, the
pictures scans of the embedded cohort, which are nobody's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import nibabel as nib
import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from scipy import ndimage as ndi

from pathology_screen.anomaly.perceptual import is_installed
from pathology_screen.errors import ConfigError
from pathology_screen.experiments import Measurements, Report, Row, Setting
from pathology_screen.experiments.detection import detection
from pathology_screen.experiments.gallery import SHARE, gallery
from pathology_screen.experiments.localization import localization
from pathology_screen.experiments.models import SCORINGS
from pathology_screen.experiments.report import markdown_table
from pathology_screen.experiments.synthetic import KINDS, synthetic
from pathology_screen.files import replacing
from pathology_screen.metrics import average_precision, masked_mean, pooled_mean
from pathology_screen.registry import METHODS

ROOT = Path(__file__).resolve().parents[1]
LABELS = {"ra": "RA", "si_vae": "SI-VAE", "vae": "VAE", "ae_s": "AE-S", "dae": "DAE", "mkd": "MKD"}
"""Names of the six on the page; controls keep theirs."""
PLAIN = "RA, one pass"
WITH, WITHOUT = "RA, seeds", "RA without reversed loss, seeds"
BRAIN = "the brain itself"
EVERY = 6
AREA = 0.1
"""A level shows a tumour where it covers at least this share of the area that it covers on its fullest level."""
WIDEST = 1800
"""Pixels of a picture's width."""
PLACES = ("first", "second", "third", "fourth", "fifth", "last")
SCORED = {"residual": "the plain residual", "eq5": "Eq. 5"}


class Found(NamedTuple):
    """What was measured.

    Attributes:
        synthetic, detection, false_positives: reports with intervals over people.
        tumours: a row a method and scoring, two patients side by side.
        ablation: report of RA under all scorings, and of seeds with and without the reversed loss.
        pictures: of the best, median and worst case of the embedded cohort.
    """

    synthetic: Report
    detection: Report
    tumours: pd.DataFrame
    false_positives: Report
    ablation: Report
    pictures: Figure


# --- what is measured ---


def choices(names: Iterable[str], runs: Path | None) -> tuple[str, ...]:
    """The methods as a `Setting` takes them; without a folder of runs, with the weights that their bundles ship."""

    def choice(name: str) -> str:
        home = "ra" if name == "principal_components" else name
        run = "" if runs is None or METHODS[home].is_control else f"={runs / home}"
        return f"{name}:{LABELS.get(name, name)}{run}"

    return tuple(map(choice, names))


def tumour_datalist(scans: Path, folder: Path) -> Path:
    """Make a datalist of tumour slices: every sixth axial level on which the tumour is large enough, an item each.

    Args:
        scans: folder of `X_T1w.nii.gz` with `X_mask.nii.gz`, above 0 in the tumour, stored with the axial slices along
            the last axis.
        folder: of the datalist, its binary masks, and links to the scans.

    Returns:
        Path of the datalist, with the section `test` alone; patients are numbered, and name their boxes.

    Raises:
        ConfigError: if there is no such scan, or its axial slices do not lie along its last axis.
    """
    items = []
    for number, path in enumerate(sorted(scans.glob("*_T1w.nii.gz")), start=1):
        stored = cast(nib.Nifti1Image, nib.load(path.with_name(path.name.replace("_T1w", "_mask"))))
        upwards = nib.aff2axcodes(stored.affine)[2]
        if upwards not in ("S", "I"):
            raise ConfigError("the axial slices of a tumour's mask must lie along its last axis")
        tumour = np.asarray(stored.dataobj) > 0
        mask = folder / f"patient{number}_mask.nii.gz"
        nib.save(nib.Nifti1Image(tumour.astype(np.uint8), stored.affine), mask)
        area = tumour.sum(axis=(0, 1))
        for index in np.flatnonzero(area >= AREA * area.max()).tolist():
            level = index if upwards == "S" else len(area) - 1 - index
            if level % EVERY != EVERY // 2:
                continue
            link = folder / f"patient{number}_level{level}_T1w.nii.gz"  # a datalist names no file twice
            link.symlink_to(path.resolve())
            x, y = ndi.find_objects(tumour[..., index].astype(int))[0]
            patient = f"patient {number}"
            box = {"label": patient, "slice": index, "box": [x.start, y.start, x.stop - x.start, y.stop - y.start]}
            item = {"image": link.name, "label": mask.name, "subject": patient, "level": level, "boxes": [box]}
            items.append({**item, "pathology": "glioma"})
    if not items:
        raise ConfigError("the folder holds no X_T1w.nii.gz with a tumour in X_mask.nii.gz")
    datalist = folder / "datalist.json"
    datalist.write_text(json.dumps({"test": items}), "utf-8")
    return datalist


def with_plain_pass(experiment: Callable[[Setting], Report], setting: Setting) -> Report:
    """The report of an experiment, with a row for RA applied once."""
    report = experiment(setting)
    own = [text for text, choice in zip(setting.methods, setting.choices) if choice.label == LABELS["ra"]]
    if not own:
        return report
    plain = replace(setting, methods=[own[0].replace(f":{LABELS['ra']}", f":{PLAIN}", 1)], passes=1)
    return replace(report, measurements=report.measurements.merged(experiment(plain).measurements))


def tumours(setting: Setting) -> tuple[pd.DataFrame, dict[tuple[str, str], float]]:
    """Each patient's boxes that are hit, fraction ratio, and AUPRC over the share of tumour pixels, by method and
    scoring; and the thresholds."""
    classes = localization(setting).tables["classes"]
    boxes = classes.set_index(["method", "scoring", "class"])
    slices = setting.section("test")
    tumour = (slices.masks > SHARE).numpy()
    patients = {name: [i for i, own in enumerate(slices.subjects) if own == name] for name in slices.subjects}
    lines, thresholds = [{"method": BRAIN, "scoring": "", **lifts(patients, tumour, slices.images.numpy() > 0)}], {}
    for model in setting.models:
        predictions = model.predict(slices)
        for scoring in setting.scorings(model):
            maps = model.maps(slices, predictions, scoring).numpy()
            line = {"method": model.label, "scoring": scoring, **lifts(patients, tumour, maps)}
            for patient in patients:
                found = boxes.loc[(model.label, scoring, patient)]
                line[f"{patient}: boxes hit"] = f"{found['detected']:.0f} of {found['n']:.0f}"
                line[f"{patient}: fraction ratio"] = f"{found['fraction_ratio']:.2f}"
                thresholds[model.label, scoring] = float(found["threshold"])
            lines.append(line)
    return pd.DataFrame(lines).fillna(""), thresholds


def lifts(patients: Mapping[str, Sequence[int]], tumour: np.ndarray, maps: np.ndarray) -> dict[str, str]:
    """Each patient's AUPRC over the share of tumour pixels."""
    ratios = {name: average_precision(tumour[own], maps[own]) / tumour[own].mean() for name, own in patients.items()}
    return {f"{name}: AUPRC / base rate": f"{ratio:.2f}" for name, ratio in ratios.items()}


def false_positives(setting: Setting, thresholds: Mapping[tuple[str, str], float]) -> Report:
    """The share of pixels of healthy test slices that exceed the threshold."""
    normal = setting.section("test").healthy()
    brain = (normal.images > 0).float()
    measurements = Measurements()
    for model in setting.models:
        predictions = model.predict(normal)
        for scoring in setting.scorings(model):
            tagged = (model.maps(normal, predictions, scoring) > thresholds[model.label, scoring]).float()
            for name, mask in (("all pixels", None), ("brain pixels", brain)):
                share = pooled_mean(masked_mean(tagged, mask).numpy(), normal.subjects)
                measurements.add(model.label, scoring, f"share of {name}", share, len(normal))
    return Report("false_positives", "False positives", measurements, [], setting.provenance())


def ablation(posed: Setting, screened: Setting, seeds: Mapping[str, Sequence[Path]]) -> Report:
    """RA under all four scorings and, where runs are named, seeds of it by label."""
    own = [text for text, choice in zip(posed.methods, posed.choices) if choice.label == LABELS["ra"]]
    methods = [*(f"ra:{label}={run}" for label, runs in seeds.items() for run in runs), *own]
    settings = (replace(setting, methods=methods, scoring=tuple(SCORINGS)) for setting in (posed, screened))
    first, second = (experiment(setting) for experiment, setting in zip((synthetic, detection), settings))
    return replace(first, measurements=only(first.measurements.merged(second.measurements), "AUPRC", "AUROC"))


def only(measurements: Measurements, *endings: str) -> Measurements:
    """The measurements of metrics whose names end so."""
    kept = Measurements(measurements.groups)
    kept.measured = {key: runs for key, runs in measurements.measured.items() if key[2].endswith(endings)}
    return kept


def measure(options: argparse.Namespace, backbone: str) -> Found:
    """Run the experiments."""
    methods = choices(options.methods, options.runs)
    screened = Setting(methods, str(options.oasis), str(options.datalist), backbone=backbone)
    posed = replace(screened, every=EVERY, random_pose=True, prepared={})
    with tempfile.TemporaryDirectory() as folder:
        shared = {name: screened.section(name) for name in ("training", "calibration")}
        datalist = str(tumour_datalist(options.glioma, Path(folder)))
        rows, thresholds = tumours(replace(screened, dataset_dir=None, datalist=datalist, prepared=shared))
    named = {WITH: options.reversal, WITHOUT: options.no_reversal}
    learned = choices((name for name in options.methods if not METHODS[name].is_control), options.runs)
    return Found(
        with_plain_pass(synthetic, posed),
        with_plain_pass(detection, screened),
        rows,
        false_positives(screened, thresholds),
        ablation(posed, screened, {label: runs for label, runs in named.items() if runs}),
        gallery(Setting(learned, datalist=options.pictures, backbone=backbone)).figures["cases"],
    )


# --- what it says ---


def rivals(rows: Iterable[Row], scoring: str) -> dict[str, str]:
    """Method -> what comparisons call it under a scoring, or under its own where it knows no other."""
    known: dict[str, list[str]] = {}
    for row in rows:
        if row.scoring:
            known.setdefault(row.method, []).append(row.scoring)
    return {name: f"{name} ({scoring if scoring in own else own[0]})" for name, own in known.items()}


def standing(values: Mapping[str, float], of: str) -> tuple[str, str]:
    """Place of a method by its value, and the best of the others."""
    place = sum(value > values[of] for value in values.values())
    return PLACES[min(place, len(PLACES) - 1)], max((name for name in values if name != of), key=values.__getitem__)


def signed(difference: pd.Series) -> str:
    """A paired difference and its interval."""
    return f"{difference.difference:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def weighed(difference: pd.Series) -> str:
    """The same, and what the interval allows to say."""
    sure = difference.low > 0 or difference.high < 0
    return f"{signed(difference)}; the interval " + ("leaves out 0" if sure else "holds 0, so the order may be chance")


class Comparisons:
    """RA against the others, paired by person."""

    def __init__(self, reports: Sequence[Report]) -> None:
        self.rows = [row for report in reports for row in report.rows if row.metric.endswith(("AUPRC", "AUROC"))]
        self.pairs = pd.concat([report.comparisons for report in reports]).set_index(["metric", "first", "other"])
        self.metrics = list(dict.fromkeys(row.metric for row in self.rows))

    def value(self, name: str, metric: str) -> float:
        """Of a method and scoring as comparisons call them."""
        return next(row.value for row in self.rows if f"{row.method} ({row.scoring})" == name and row.metric == metric)

    def pair(self, metric: str, own: str, other: str) -> pd.Series:
        """RA under a scoring minus another method and scoring."""
        return self.pairs.loc[(metric, f"RA ({own})", other)]

    def table(self, own: str, others: str) -> pd.DataFrame:
        """RA under a scoring minus every other method under another."""
        names = {name: called for name, called in rivals(self.rows, others).items() if name != "RA"}
        cells = {name: [signed(self.pair(name, own, other)) for other in names.values()] for name in self.metrics}
        return pd.DataFrame({"RA minus": list(names.values()), **cells})

    def sentence(self, metric: str, own: str, others: str) -> str:
        """Where RA stands among the six, and how it compares with the best other method and the best control."""
        names = rivals(self.rows, others) | {"RA": f"RA ({own})"}
        values = {name: self.value(called, metric) for name, called in names.items() if name != PLAIN}
        learned = {name: value for name, value in values.items() if name in LABELS.values()}
        parts = [f"{metric} {values['RA']:.3f}"]
        if len(learned) > 1:
            place, best = standing(learned, "RA")
            parts[0] = f"RA is **{place} of {len(learned)}** in {parts[0]}"
            place_of = "next is" if place == "first" else "the best other is"
            parts.append(f"{place_of} {best} {values[best]:.3f} ({weighed(self.pair(metric, own, names[best]))})")
        controls = {name: value for name, value in values.items() if name not in learned}
        if controls:
            best = max(controls, key=controls.__getitem__)
            difference = weighed(self.pair(metric, own, names[best]))
            parts.append(f"the best control is `{best}` {values[best]:.3f} ({difference})")
        return "; ".join(parts) + "."

    def gains(self, metric: str) -> str:
        """What of RA's lead over the best baseline with the plain residual the scoring makes, and what the model."""
        names = rivals(self.rows, "residual")
        values = {name: self.value(names[name], metric) for name in LABELS.values() if name in names}
        parts = [f"{metric}: Eq. 5 adds {signed(self.pair(metric, 'eq5', 'RA (residual)'))} to RA's plain residual."]
        if len(values) > 1:
            _, best = standing(values, "RA")
            whole, model = (signed(self.pair(metric, own, names[best])) for own in ("eq5", "residual"))
            parts.append(f"In the paper's comparison RA minus {best} is {whole}, of which the model makes {model}.")
        return " ".join(parts)


def reversal(report: Report) -> pd.DataFrame:
    """What the reversed loss adds to the mean of the seeds, by scoring, paired by person; empty without seeds."""
    pairs = report.comparisons.set_index(["first", "other"])
    scorings = {name: (f"{WITH} ({name})", f"{WITHOUT} ({name})") for name in SCORINGS}
    found = {name: pairs.loc[[pair]].set_index("metric") for name, pair in scorings.items() if pair in pairs.index}
    rows = [{"scoring": name, **{metric: signed(row) for metric, row in own.iterrows()}} for name, own in found.items()]
    return pd.DataFrame(rows)


def chance(rows: Iterable[Row]) -> str:
    """How many AUROCs have an interval that holds 0.5."""
    bounds = [(row.low, row.high) for row in rows if row.metric.endswith("AUROC")]
    found = [(low, high) for low, high in bounds if low is not None and high is not None]
    unsure = sum(low <= 0.5 <= high for low, high in found)
    return f"{unsure} of the {len(found)} intervals hold 0.5, which is chance."


def restorations(provenance: Mapping) -> dict[str, list[str]]:
    """How reconstructing networks were applied -> those that were applied so."""
    made: dict[str, list[str]] = {}
    for method in provenance["methods"]:
        if (known := method["restoration"]) is not None:
            pose = "in the standard pose" if known["pose"] else "as the slice lies"
            times = "1 pass" if known["passes"] == 1 else f"{known['passes']} passes"
            made.setdefault(f"{pose}, {times}", []).append(method["label"])
    return made


# --- the page ---


def part(report: Report, *endings: str) -> Report:
    """A report of some of its metrics."""
    return replace(report, measurements=only(report.measurements, *endings))


def counted(report: Report) -> str:
    """Of how many slices of how many people the numbers of a report are."""
    counts = dict.fromkeys((row.n, row.subjects) for row in report.rows)
    return "n = " + ", ".join(f"{n} slices of {subjects} people" for n, subjects in counts)


def page(found: Found, compared: Comparisons, options: argparse.Namespace, backbone: str) -> str:
    """The page, in Markdown."""
    given = {"--runs RUNS": options.runs, "--reversal RUN": options.reversal, "--no-reversal RUN": options.no_reversal}
    chosen = [text for text, value in given.items() if value]
    template = (Path(__file__).parent / "evidence.md.jinja").read_text("utf-8")
    return (
        Environment(undefined=StrictUndefined, keep_trailing_newline=True)
        .from_string(template)
        .render(
            weights="training runs" if options.runs else "the weights that the bundles ship",
            options="".join(f" {text}" for text in [*chosen, f"--perceptual {backbone}"]),
            backbone=backbone,
            restorations=restorations(found.detection.provenance),
            plain=PLAIN,
            brain=BRAIN,
            scored=SCORED,
            found=found,
            compared=compared,
            painted=[metric for metric in compared.metrics if metric.endswith("AUPRC")],
            healthy=part(found.synthetic, "healthy MSE", "healthy SSIM", "healthy LPIPS", "sharpness"),
            altered=part(found.synthetic, *(f"{kind} {error}" for kind in KINDS for error in ("MSE", "LPIPS"))),
            localised=part(found.synthetic, "AUPRC"),
            counted=counted,
            table=markdown_table,
            chance=chance(found.detection.rows),
            seeds=options.reversal or options.no_reversal,
            reversal=reversal(found.ablation) if options.reversal and options.no_reversal else None,
            schedule=options.schedule,
            made_by=found.detection.provenance,
        )
    )


# --- charts ---


def auprc_chart(rows: Sequence[Row]) -> Figure:
    """A panel a kind of anomaly: each method's AUPRC and interval, by scoring."""
    metrics = list(dict.fromkeys(row.metric for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    scorings = list(dict.fromkeys(row.scoring for row in rows))
    figure = Figure(figsize=(9, 0.5 + 0.36 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axis, metric in zip(panels, metrics):
        for number, scoring in enumerate(scorings):
            own = [row for row in rows if row.metric == metric and row.scoring == scoring]
            y = [methods.index(row.method) + 0.12 * (number - (len(scorings) - 1) / 2) for row in own]
            draw_intervals(axis, y, own, f"C{number}", scoring)
        axis.set_title(metric, fontsize=10)
        axis.set_yticks(range(len(methods)), methods, fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    panels[-1].legend(fontsize=7)
    return figure


def comparison_chart(compared: Comparisons) -> Figure:
    """A panel a metric: RA minus each other method, in the paper's comparison and in the fair ones."""
    kinds = {"the paper's": ("eq5", "residual"), **{f"fair, {text}": (name, name) for name, text in SCORED.items()}}
    names = [name for name in rivals(compared.rows, "residual") if name not in ("RA", PLAIN)]
    figure = Figure(figsize=(10, 0.6 + 0.4 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(compared.metrics), sharey=True, squeeze=False)[0]
    for axis, metric in zip(panels, compared.metrics):
        for number, (kind, (own, others)) in enumerate(kinds.items()):
            called = rivals(compared.rows, others)
            pairs = [compared.pair(metric, own, called[name]).rename({"difference": "value"}) for name in names]
            draw_intervals(axis, [i + 0.2 * (number - 1) for i in range(len(names))], pairs, f"C{number}", kind)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(f"RA minus ..., {metric}", fontsize=9)
        axis.set_yticks(range(len(names)), names, fontsize=8)
    panels[0].invert_yaxis()
    panels[-1].legend(fontsize=7)
    return figure


def draw_intervals(axis, y: Sequence[float], values: Sequence, colour: str, label: str) -> None:
    """Values with their intervals, a line each."""
    middle = np.array([value.value for value in values])
    bounds = np.array([(value.low, value.high) for value in values], dtype=float).T
    axis.errorbar(
        middle, y, xerr=np.abs(bounds - middle), fmt="o", color=colour, label=label, markersize=4, linewidth=1
    )


def numbers(found: Found) -> pd.DataFrame:
    """Every number with an interval."""
    reports = {name: report for name, report in found._asdict().items() if isinstance(report, Report)}
    return pd.concat([pd.DataFrame(report.rows).assign(part=name) for name, report in reports.items()])


def write(found: Found, options: argparse.Namespace, backbone: str) -> Path:
    """Write page, numbers and charts, none before all are made; return the page."""
    compared = Comparisons([found.synthetic, found.detection])
    text = page(found, compared, options, backbone)
    charts = {
        "synthetic": auprc_chart([row for row in compared.rows if row.metric.endswith("AUPRC")]),
        "comparisons": comparison_chart(compared),
        "pictures": found.pictures,
    }
    for name, figure in charts.items():
        with replacing(options.output / "images" / f"benchmarks_{name}.png") as path:
            figure.savefig(path, dpi=min(110, WIDEST / figure.get_figwidth()))
    with replacing(options.output / "benchmarks.csv") as path:
        numbers(found).to_csv(path, index=False, float_format="%.6g")
    with replacing(options.output / "benchmarks.md") as path:
        path.write_text(text, "utf-8")
    return options.output / "benchmarks.md"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--oasis", type=Path, required=True, help="folder of the scans that the datalist names")
    parser.add_argument("--glioma", type=Path, required=True, help="folder of X_T1w.nii.gz with X_mask.nii.gz")
    parser.add_argument("--runs", type=Path, help="folder of training runs, one a bundle, in place of shipped weights")
    parser.add_argument("--reversal", type=Path, nargs="+", default=[], metavar="RUN", help="seeds of RA")
    parser.add_argument("--no-reversal", type=Path, nargs="+", default=[], metavar="RUN", help="without reversed loss")
    parser.add_argument("--pictures", help="datalist of scans with masks that may be shown (default: embedded cohort)")
    parser.add_argument("--schedule", default="not stated", help="how the seeds were trained, for the page")
    parser.add_argument("--datalist", type=Path, default=ROOT / "data_lists" / "oasis.json")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="RA first (default: all)")
    parser.add_argument("--perceptual", help="backbone (default: squeeze where its weights are there, else st_alex)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder of the page (default: docs)")
    options = parser.parse_args(arguments)
    backbone = options.perceptual or ("squeeze" if is_installed("squeeze") else "st_alex")
    print(f"look at: {write(measure(options, backbone), options, backbone)}")


if __name__ == "__main__":
    main()
