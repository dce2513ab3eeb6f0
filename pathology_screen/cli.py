"""The command `pathology-screen`; each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pathology_screen import __version__
from pathology_screen.bundles import bundle_root
from pathology_screen.errors import ScreeningError
from pathology_screen.registry import METHODS


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; return 0, or 1 after an error that was explained on standard error."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (ScreeningError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pathology-screen", description="Unsupervised pathology screening on T1w brain MRI."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="list the methods, their bundles and weights")
    info.set_defaults(command=_info)

    phantom = commands.add_parser("phantom", help="make the embedded cohort and print where its datalist is")
    phantom.add_argument("--output", type=Path, help="folder of the cohort (default: the cache folder)")
    phantom.add_argument("--head", action="store_true", help="whole heads in place of extracted brains")
    phantom.set_defaults(command=_phantom)

    importer = commands.add_parser(
        "import-checkpoint", help="convert a checkpoint of the code released with the RA paper"
    )
    importer.add_argument("checkpoint", type=Path, help="best_model.pt of the released code")
    importer.add_argument("--output", type=Path, required=True, help="folder for model.pt and network.json")
    importer.set_defaults(command=_import_checkpoint)

    publish = commands.add_parser("publish", help="ship the weights of a training run in its bundle")
    publish.add_argument("run", type=Path, help="output_dir of the run: model.pt, calibration.json, log.csv")
    publish.add_argument("--bundle", required=True, help="name or folder of the bundle")
    publish.add_argument("--made-by", required=True, help="the command that made the weights, kept beside them")
    publish.set_defaults(command=_publish)
    return parser


def _info(options: argparse.Namespace) -> None:
    for method in METHODS.values():
        weights = bundle_root(method.name) / "models" / "model.pt"
        size = f"{weights.stat().st_size / 1e6:.1f} MB" if weights.is_file() else "none yet: train first"
        print(
            f"{method.name}\t{method.title}\n\tpaper: {method.paper}\n\tbundle: {weights.parents[1]}\n\tweights: {size}"
        )


def _phantom(options: argparse.Namespace) -> None:
    from pathology_screen.cohorts import make_phantom_cohort

    print(make_phantom_cohort(options.output, head=options.head))


def _import_checkpoint(options: argparse.Namespace) -> None:
    import torch

    from pathology_screen.files import replacing
    from pathology_screen.networks.introspective_vae import IntrospectiveVAE
    from pathology_screen.networks.released_checkpoint import NETWORK, read_released_checkpoint
    from pathology_screen.networks.weights import load_weights

    network: dict[str, Any] = NETWORK
    state = read_released_checkpoint(options.checkpoint)
    with replacing(options.output / "model.pt") as path:
        torch.save(state, path)
        load_weights(IntrospectiveVAE(**network), path)  # or the checkpoint is refused
    overlay = {f"network_def#{name}": value for name, value in network.items()}
    overlay["ckpt"] = str((options.output / "model.pt").resolve())
    with replacing(options.output / "network.json") as path:
        path.write_text(json.dumps(overlay, indent=4) + "\n")
    print(f"wrote model.pt and network.json; add {options.output / 'network.json'} after paper.json to --config_file")


def _publish(options: argparse.Namespace) -> None:
    from pathology_screen.publishing import publish

    print(publish(options.run, bundle_root(options.bundle), options.made_by))


if __name__ == "__main__":
    sys.exit(main())
