"""Choose the perceptual distance of Eq. 5: RA with each backbone, with and without equalisation, on the healthy people
of the section `validation`.

python benchmarks/perceptual_backbones.py --dataset_dir DIR --datalist data_lists/oasis.json --output OUT
"""

import argparse
import json
import tempfile
from pathlib import Path

from pathology_screen.anomaly import AnomalyMap, perceptual_distance
from pathology_screen.anomaly.perceptual import is_installed
from pathology_screen.experiments.models import Model, read_profile
from pathology_screen.experiments.setting import Setting
from pathology_screen.experiments.synthetic import synthetic
from pathology_screen.files import sha256
from pathology_screen.registry import METHODS
from pathology_screen.screening.loading import load_bundle

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--dataset_dir", required=True)
parser.add_argument("--datalist", required=True, type=Path)
parser.add_argument("--weights", type=Path, help="of RA, in place of the shipped ones")
parser.add_argument("--every", type=int, default=2, help="every n-th axial level")
parser.add_argument("--output", required=True, type=Path)
options = parser.parse_args()

loaded = load_bundle("ra", options.weights)
backbones = [name for name in ("squeeze", "alex", "st_alex") if name == "st_alex" or is_installed(name)]
distances = {name: perceptual_distance(name) for name in backbones}
distances["encoder"] = perceptual_distance("encoder", loaded.network)
maps = {
    f"{name}{', equalised' if equalize else ''}": AnomalyMap(distances.get(name, "none"), equalize)
    for name in (*distances, "none")
    for equalize in (True, False)
}
model = Model("ra", METHODS["ra"], {None: loaded.network}, maps, sha256(loaded.weights), inferer=loaded.inferer)
with tempfile.TemporaryDirectory() as folder:
    sections = json.loads(options.datalist.read_text("utf-8"))
    selection = Path(folder) / "selection.json"
    people = [{**item, "pathology": "healthy"} for item in sections["validation"]]
    selection.write_text(json.dumps({**sections, "validation": [], "test": people}), "utf-8")
    setting = Setting(
        ("ra",),
        options.dataset_dir,
        str(selection),
        every=options.every,
        random_pose=True,
        configured=(read_profile("compact"), [model]),
    )
    report = synthetic(setting)
    report.write(options.output)
print(report.markdown())
