"""Choose the perceptual distance of Eq. 5: pixel AUPRC of synthetic anomalies with each backbone,
with and without equalisation, on the healthy people of one section of a datalist.

TORCH_HOME=../shared/torch_home python benchmarks/perceptual_backbones.py --methods ra=RUN \
    template principal_components --dataset_dir ../shared/data/ixi_slices \
    --datalist data_lists/ixi_slices.json --output OUT

"squeeze" and "alex" take part where their weights are in the torch hub cache, "encoder" where the
first method has one.
"""

from dataclasses import replace

from selection import run, selection_parser

from pathology_screen.anomaly import AnomalyMap, perceptual_distance
from pathology_screen.anomaly.perceptual import HUB_WEIGHTS, is_installed
from pathology_screen.experiments import ExperimentSetting, Measurements, Report
from pathology_screen.experiments.methods import ComparedMethod
from pathology_screen.experiments.synthetic import KINDS, paint
from pathology_screen.metrics.pooled import pooled_average_precision


def scorings(first: ComparedMethod) -> dict[str, AnomalyMap]:
    """Each backbone with and without equalisation; the encoder is that of the first method."""
    names = [*(name for name in HUB_WEIGHTS if is_installed(name)), "st_alex"]
    backbones = {name: perceptual_distance(name) for name in names}
    if hasattr(first.predictor.network, "embeddings"):
        backbones["encoder"] = perceptual_distance("encoder", first.predictor.network)
    return {
        f"{name}{', equalised' if equalize else ''}": AnomalyMap(backbone, equalize)
        for name, backbone in (backbones | {"none": "none"}).items()
        for equalize in (True, False)
    }


def compare(setting: ExperimentSetting) -> Report:
    """Measure every method that reconstructs under every scoring."""
    methods = [method for method in setting.compared if method.predictor.reconstructs]
    maps = scorings(methods[0])
    healthy = setting.slices[setting.slices.healthy]
    measurements = Measurements()
    for kind in KINDS:
        painted = paint(healthy, kind, setting)
        labels = (painted.masks > 0).flatten(1).numpy()
        for method in methods:
            for name, prediction in replace(method, scorings=maps).predict(painted).items():
                scores = prediction.maps.flatten(1).numpy()
                statistic = pooled_average_precision(labels, scores, painted.subjects)
                measurements.add(method.label, name, f"{kind} AUPRC", statistic, len(painted))
    people = f"{len(healthy)} healthy slices of {healthy.people} people"
    notes = [f"{people} of the section {setting.section}."]
    identities = {"scorings": {name: map_.identity for name, map_ in maps.items()}}
    provenance = setting.provenance() | identities
    title = "Perceptual backbones of Eq. 5"
    return Report("perceptual_backbones", title, measurements, notes, provenance)


def main(arguments: list[str] | None = None) -> None:
    run(compare, selection_parser(__doc__, scoring=["residual"]), arguments)


if __name__ == "__main__":
    main()
