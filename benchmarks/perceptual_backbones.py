"""Choose the perceptual distance of Eq. 5: pixel AUPRC of synthetic anomalies with each backbone,
with and without equalisation, on the healthy people of one section of a datalist.

TORCH_HOME=../shared/torch_home python benchmarks/perceptual_backbones.py --methods ra=RUN template
\
    principal_components --dataset_dir ../shared/data/ixi_slices --datalist
    data_lists/ixi_slices.json --output OUT

"squeeze" and "alex" take part where their weights are in the torch hub cache, "encoder" where the
first method has one.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from pathology_screen.anomaly import AnomalyMap, perceptual_distance
from pathology_screen.anomaly.perceptual import HUB_WEIGHTS, is_installed
from pathology_screen.experiments import Measurements, Report, Setting
from pathology_screen.experiments.models import ComparedMethod
from pathology_screen.experiments.synthetic import KINDS, paint
from pathology_screen.metrics import pooled_average_precision


def scorings(first: ComparedMethod) -> dict[str, AnomalyMap]:
    """Each backbone with and without equalisation; the encoder is that of the first method."""
    names = [*(name for name in HUB_WEIGHTS if is_installed(name)), "st_alex"]
    backbones = {name: perceptual_distance(name) for name in names}
    if hasattr(first.network, "embeddings"):
        backbones["encoder"] = perceptual_distance("encoder", first.network)
    return {
        f"{name}{', equalised' if equalize else ''}": AnomalyMap(
            backbones.get(name, "none"), equalize
        )
        for name in (*backbones, "none")
        for equalize in (True, False)
    }


def compare(setting: Setting, section: str) -> Report:
    """Measure every method that reconstructs under every scoring."""
    models = [model for model in setting.models if model.method.reconstructs]
    maps = scorings(models[0])
    models = [replace(model, scorings=maps) for model in models]
    healthy = setting.section(section).healthy()
    measurements = Measurements()
    for kind in KINDS:
        painted = paint(healthy, kind, setting)
        labels = (painted.masks > 0).flatten(1).numpy()
        for model in models:
            predictions = model.predict(painted)
            for name in maps:
                scores = model.maps(painted, predictions, name).flatten(1).numpy()
                statistic = pooled_average_precision(labels, scores, painted.subjects)
                measurements.add(model.label, name, f"{kind} AUPRC", statistic, len(painted))
    notes = [
        f"{len(healthy)} healthy slices of {len(set(healthy.subjects))} people of the section {section}."
    ]
    provenance = setting.provenance() | {
        "scorings": {name: map_.identity for name, map_ in maps.items()}
    }
    return Report(
        "perceptual_backbones", "Perceptual backbones of Eq. 5", measurements, notes, provenance
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--methods", nargs="+", default=["ra"], metavar="METHOD[:LABEL][=RUN]", help="default: ra"
    )
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--datalist", required=True)
    parser.add_argument("--section", default="validation")
    parser.add_argument(
        "--profile", default="compact", choices=["compact", "paper"], help="of the weights"
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        help="folder of the table, its numbers and differences",
    )
    options = parser.parse_args(arguments)
    setting = Setting(
        options.methods,
        options.dataset_dir,
        options.datalist,
        scoring=("residual",),
        profile=options.profile,
    )
    report = compare(setting, options.section)
    report.write(options.output)
    print(report.markdown())


if __name__ == "__main__":
    main()
