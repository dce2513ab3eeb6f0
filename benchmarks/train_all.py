"""Train all bundles in turn, each by its documented command, to the weights that they ship.

python benchmarks/train_all.py --dataset_dir DIR --datalist data_lists/ixi_slices.json --output_dir
RUNS [--publish]

A run that has its calibration is finished and passed over; one that was interrupted goes on where
it stopped. With `--publish` the bundles get the weights, once all runs are finished.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd

from pathology_screen.bundles import bundle_root
from pathology_screen.publishing import publish
from pathology_screen.registry import METHODS

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = [method.name for method in METHODS.values() if not method.is_control]
COMMAND = (
    "python -m monai.bundle run training --config_file "
    "\"['bundles/{bundle}/configs/train.json','bundles/{bundle}/configs/ship.json']\" "
    "--dataset_dir {dataset_dir} --datalist {datalist} --output_dir {output_dir}"
)
"""Run in the root of the repository."""


def train(bundle: str, *options: str, max_epochs: str | None = None, **places: Path) -> None:
    """Train a bundle by its documented command and further options of it; a run that has its
    calibration is finished and passed over, another goes on where it stopped."""
    run = places["output_dir"]
    options += ("--max_epochs", max_epochs) if max_epochs else ()
    if (run / "calibration.json").is_file():
        print(f"{run.name}: finished", flush=True)
        return
    print(f"{run.name}: {'resuming' if (run / 'resume.pt').is_file() else 'training'}", flush=True)
    quoted = {name: shlex.quote(str(path.resolve())) for name, path in places.items()}
    words = shlex.split(COMMAND.format(bundle=bundle, **quoted))
    subprocess.run([sys.executable, *words[1:], *options], cwd=ROOT, check=True)


def epochs_of(run: Path) -> str:
    """How many epochs a run was trained for."""
    return str(pd.read_csv(run / "log.csv").epoch.iloc[-1])


def made_by(bundle: str, datalist: Path) -> str:
    """The same command as it is kept beside the weights: paths of this machine are left out."""
    listed = datalist.relative_to(ROOT) if datalist.is_relative_to(ROOT) else datalist.name
    places = {"dataset_dir": "DIR", "datalist": listed, "output_dir": f"RUNS/{bundle}"}
    return COMMAND.format(bundle=bundle, **places)


def training_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every command has that trains."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=form)
    add = parser.add_argument
    add("--dataset_dir", type=Path, required=True, help="folder of the datalist's paths")
    add("--datalist", type=Path, default=ROOT / "data_lists" / "ixi_slices.json")
    add("--output_dir", type=Path, required=True, help="folder of the runs")
    return parser


def comparing_parser(description: str | None) -> argparse.ArgumentParser:
    """Likewise of one that trains, then compares and writes a table."""
    parser = training_parser(description)
    add = parser.add_argument
    add("--max_epochs", help="of each training (default: those of the shipped weights)")
    add("--perceptual", default="squeeze", help="backbone of Eq. 5 (default: squeeze)")
    add("--output", type=Path, default=ROOT / "docs", help="folder of the table (default: docs)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    parser = training_parser(__doc__)
    publishes = "ship the weights in the bundles"
    parser.add_argument("--publish", action="store_true", help=publishes)
    options = parser.parse_args(arguments)
    datalist, runs = options.datalist.resolve(), options.output_dir
    for bundle in BUNDLES:
        places = {"dataset_dir": options.dataset_dir, "datalist": datalist}
        train(bundle, **places, output_dir=runs / bundle)
    if options.publish:
        for bundle in BUNDLES:
            print(publish(runs / bundle, bundle_root(bundle), made_by(bundle, datalist)))


if __name__ == "__main__":
    main()
