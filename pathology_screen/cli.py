"""The command `pathology-screen`; each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any, cast

from pathology_screen import __version__
from pathology_screen.bundles import bundle_root
from pathology_screen.errors import ConfigError, ScreeningError
from pathology_screen.files import sha256
from pathology_screen.registry import METHODS

NOT_ASSESSABLE = 3
"""Exit status of `screen` and `inspect` where a scan was not assessable."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; return its exit status: 0, 1 after an error that was explained on
    standard error, `NOT_ASSESSABLE` or `INTERRUPTED`."""
    if arguments is None:  # in a process of its own: whoever ends it finds nothing half written
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        cast(TextIOWrapper, sys.stdout).reconfigure(
            errors="backslashreplace"
        )  # paths may be no text
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except (ScreeningError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pathology-screen", description="Unsupervised pathology screening on T1w brain MRI."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    _add_screen(commands)

    info = commands.add_parser("info", help="list the methods, their bundles and weights")
    info.set_defaults(command=_info)

    phantom = commands.add_parser(
        "phantom", help="make the embedded cohort and print where its datalist is"
    )
    phantom.add_argument(
        "--output", type=Path, help="folder of the cohort (default: the cache folder)"
    )
    phantom.add_argument(
        "--extracted", action="store_true", help="extracted brains in place of whole heads"
    )
    phantom.set_defaults(command=_phantom)

    _add_prepare(commands)

    _add_experiment(commands)

    importer = commands.add_parser(
        "import-checkpoint", help="convert a checkpoint of the code released with the RA paper"
    )
    importer.add_argument("checkpoint", type=Path, help="best_model.pt of the released code")
    importer.add_argument(
        "--output", type=Path, required=True, help="folder for model.pt and network.json"
    )
    importer.set_defaults(command=_import_checkpoint)

    publish = commands.add_parser(
        "publish", help="ship the weights of a training run in its bundle"
    )
    publish.add_argument(
        "run", type=Path, help="output_dir of the run: model.pt, calibration.json, log.csv"
    )
    publish.add_argument("--bundle", required=True, help="name or folder of the bundle")
    publish.add_argument(
        "--made-by", required=True, help="the command that made the weights, kept beside them"
    )
    publish.set_defaults(command=_publish)

    label_app = commands.add_parser(
        "label-app", help="write the app with which MONAI Label offers the bundles"
    )
    label_app.add_argument("folder", type=Path, help="of the app")
    label_app.set_defaults(command=_label_app)

    versions = commands.add_parser(
        "label-versions", help="list the weights that were trained in an app, or choose one"
    )
    versions.add_argument("folder", type=Path, help="of the app")
    versions.add_argument(
        "--bundle", default="ra", help="name or folder of the bundle (default: ra)"
    )
    versions.add_argument(
        "--activate", metavar="NAME", help="version to use from now on; the server need not restart"
    )
    versions.set_defaults(command=_label_versions)
    return parser


def _add_screen(commands: Any) -> None:
    """`screen`, and `calibrate` and `inspect`, which take scans likewise."""
    screen = commands.add_parser(
        "screen", help="screen scans: outcome, map, regions, report, worklist"
    )
    screen.add_argument(
        "input", type=Path, help="a NIfTI file, a DICOM folder, a .zip, or a tree of them"
    )
    screen.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    screen.add_argument(
        "--dicom", action="store_true", help="write DICOM objects too, for scans that are DICOM"
    )
    screen.add_argument(
        "--no-report", dest="report", action="store_false", help="do not write HTML reports"
    )
    screen.add_argument(
        "--key", type=Path, help="CSV to write that tells which name is which path: keep it private"
    )
    screen.set_defaults(command=_quiet(_screen))

    calibrate = commands.add_parser(
        "calibrate", help="fit the thresholds on healthy scans of your own scanner"
    )
    calibrate.add_argument(
        "--normals", type=Path, required=True, metavar="DIR", help="scans of healthy people"
    )
    calibrate.add_argument(
        "-o", "--output", type=Path, required=True, help="file of the calibration: FILE.json"
    )
    calibrate.add_argument(
        "--pixel-rate",
        type=float,
        default=0.05,
        help="share of healthy pixels that may lie in regions (default: 0.05)",
    )
    calibrate.set_defaults(command=_quiet(_calibrate))

    inspect = commands.add_parser(
        "inspect",
        help="say what scans are, whether they would be accepted and how well they fit; needs no weights",
    )
    inspect.add_argument("input", type=Path, help="as of `screen`")
    inspect.set_defaults(command=_quiet(_inspect))

    for command in (screen, calibrate, inspect):
        command.add_argument(
            "--names",
            default="pseudonyms",
            choices=["pseudonyms", "paths"],
            help="of the scans: pseudonyms, or letters and digits of the paths, which may identify patients",
        )
        command.add_argument(
            "--bundle", default="ra", help="name or folder of the bundle (default: ra)"
        )
        command.add_argument(
            "--profile", default="compact", choices=["compact", "paper"], help="of the bundle"
        )
        command.add_argument("--series-uid", help="only this series of each folder or archive")
        command.add_argument(
            "--axial-slice",
            action="store_true",
            help="images of one slice are axial slices, used as they are",
        )
    for command in (screen, inspect):
        help_ = "z of another plane of MNI152 space than the one that is judged (+23): mapped, not judged"
        command.add_argument("--plane-mm", type=_millimetres, metavar="Z", help=help_)
    for command in (screen, calibrate):
        command.add_argument("--weights", type=Path, help="model.pt in place of the bundle's own")
        command.add_argument("--device", default="cpu", help="of the network (default: cpu)")
        command.add_argument(
            "--rate",
            type=float,
            default=0.05,
            help="of false positives among healthy people (default: 0.05)",
        )
    screen.add_argument(
        "--calibration", type=Path, help="a calibration of your own, from `calibrate`"
    )


def _quiet(
    command: Callable[[argparse.Namespace], int | None],
) -> Callable[[argparse.Namespace], int | None]:
    """The command without the warnings of parsers, which repeat what headers say."""

    def run(options: argparse.Namespace) -> int | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return command(options)

    return run


def _millimetres(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of millimetres")
    return value


def _screener(options: argparse.Namespace) -> Any:
    from pathology_screen.screening import Screener

    return Screener.from_bundle(
        options.bundle,
        weights=options.weights,
        calibration=options.calibration,
        profile=options.profile,
        rate=options.rate,
        device=options.device,
    )


def _screen(options: argparse.Namespace) -> int:
    from pathology_screen.archive import (
        check_processes,
        is_first_process,
        list_items,
        screen_archive,
    )
    from pathology_screen.io import discover
    from pathology_screen.outputs.worklist import summary

    check_processes()
    if options.output.resolve().is_relative_to(options.input.resolve()):
        raise ConfigError(
            "the folder of the results lies in the input: the next run would screen its own results"
        )
    screener = _screener(options)
    found = discover(options.input)
    items = list_items(found, names=options.names, series_uid=options.series_uid)
    chosen = {item.scan for item in items}
    others = [
        *found.passed_over,
        *(file for scan in found.scans if scan not in chosen for file in scan.files),
    ]
    rows = screen_archive(
        screener,
        items,
        options.output,
        root=options.input,
        others=others,
        key=options.key,
        plane_mm=options.plane_mm,
        axial_slice=options.axial_slice,
        report=options.report,
        dicom=options.dicom,
    )
    if is_first_process():
        print(summary(rows))
        if others:
            print(
                f"passed over: {len(others)} files or links that belong to none of these scans (--key lists them)"
            )
        print(f"look at: {options.output / 'index.html'}")
    return NOT_ASSESSABLE if any(row["outcome"] == "not_assessable" for row in rows) else 0


def _inspect(options: argparse.Namespace) -> int:
    from pathology_screen.archive import list_items
    from pathology_screen.outputs.record import hide_uid
    from pathology_screen.screening import Inspector

    inspect = Inspector.from_bundle(options.bundle, options.profile)
    refused = False
    for item in list_items(options.input, names=options.names, series_uid=options.series_uid):
        found = inspect(
            item.scan.source,
            plane_mm=options.plane_mm,
            series_uid=item.series_uid,
            axial_slice=options.axial_slice,
        )
        refused |= found.refusal is not None
        print(f"{item.name}: {found.refusal or 'accepted'}")
        for finding in found.findings:
            if not finding.refused:
                print(
                    f"    warning     [{finding.code}] {finding.measured}; accepted: {finding.limit}"
                )
        if found.fit is not None:
            print(
                f"    fit         dice {found.fit.dice:.3f}, correlation {found.fit.correlation:.3f}"
            )
        for fact, value in (found if options.names == "paths" else hide_uid(found)).source.items():
            print(f"    {fact:<11} {value}")
    return NOT_ASSESSABLE if refused else 0


def _calibrate(options: argparse.Namespace) -> None:
    from pathology_screen.local_calibration import calibrate_on

    found = calibrate_on(
        options.normals,
        options.output,
        bundle=options.bundle,
        weights=options.weights,
        profile=options.profile,
        series_uid=options.series_uid,
        axial_slice=options.axial_slice,
        device=options.device,
        names=options.names,
        rate=options.rate,
        pixel_rate=options.pixel_rate,
    )
    print(f"{found.report()}\ncalibration: {options.output}")


def _add_prepare(commands: Any) -> None:
    """One subcommand a cohort; what is not given is left to the defaults of the function that makes
    it."""
    prepare = commands.add_parser(
        "prepare",
        help="make a cohort: scans, their datalist, a summary and a contact sheet to look at",
    )
    prepare.set_defaults(command=_prepare)
    cohorts = prepare.add_subparsers(required=True, metavar="COHORT")

    def add_cohort(name: str, made_by: str, summary: str) -> argparse.ArgumentParser:
        cohort = cohorts.add_parser(name, help=summary, argument_default=argparse.SUPPRESS)
        cohort.set_defaults(made_by=made_by)
        return cohort

    fastmri = add_cohort(
        "fastmri",
        "pathology_screen.cohorts.fastmri:prepare_fastmri",
        "the paper's part of fastMRI+",
    )
    fastmri.add_argument(
        "source", type=Path, help="folder of fastMRI's .h5 files, or of DICOM files made of them"
    )
    fastmri.add_argument("--annotations", type=Path, required=True, help="brain.csv of fastMRI+")
    fastmri.add_argument(
        "--slices",
        type=lambda text: int(text) if text.isdecimal() else text,
        help='"table" (default: those that agree with the paper\'s lists), an index, or a CSV with file, slice',
    )
    fastmri.add_argument(
        "--allow-missing", action="store_true", help="make the cohort of the files that are there"
    )

    ixi = add_cohort(
        "ixi",
        "pathology_screen.cohorts.ixi:prepare_ixi",
        "healthy volunteers, registered to MNI152",
    )
    ixi.add_argument("source", type=Path, help="folder of IXI's T1 volumes")
    ixi.add_argument(
        "--no-registration",
        dest="registration",
        action="store_false",
        help="the volumes as they are",
    )
    ixi.add_argument("--n4", action="store_true", help="correct the bias field first")
    ixi.add_argument("--domain", choices=["whole_head", "brain_extracted"])
    ixi.add_argument("--workers", type=int, help="processes")

    paper = add_cohort(
        "paper", "pathology_screen.cohorts.paper:prepare_paper", "fastMRI+ and IXI together"
    )
    paper.add_argument(
        "--fastmri", type=Path, required=True, help="folder that `prepare fastmri` made"
    )
    paper.add_argument("--ixi", type=Path, required=True, help="folder that `prepare ixi` made")
    paper.add_argument(
        "--allow-missing", action="store_true", help="go on where subjects of IXI are missing"
    )

    folder = add_cohort(
        "folder",
        "pathology_screen.cohorts.folder:prepare_folder",
        "your own scans, or a BIDS dataset",
    )
    folder.add_argument("source", type=Path, help="folder of scans; they stay where they are")
    folder.add_argument(
        "--split", type=Path, help="CSV of the columns subject, section, in place of a random split"
    )
    folder.add_argument(
        "--group-column", help="column of participants.tsv that tells who is healthy"
    )
    folder.add_argument(
        "--healthy", nargs="+", metavar="VALUE", help="values of this column that mean healthy"
    )
    folder.add_argument(
        "--subject-pattern", metavar="REGEX", help="whose first group in a path is the subject"
    )
    folder.add_argument(
        "--scan-pattern", metavar="REGEX", help="which the path of a scan has to match"
    )
    folder.add_argument(
        "--no-check", dest="check", action="store_false", help="do not read every scan once"
    )

    for cohort in (ixi, folder):
        sections = ("TRAINING", "VALIDATION", "CALIBRATION", "TEST")
        cohort.add_argument(
            "--fractions", type=float, nargs=4, metavar=sections, help="of the healthy subjects"
        )
        cohort.add_argument("--seed", type=int, help="of the random split")
        cohort.add_argument(
            "--exclude", nargs="+", metavar="SUBJECT", help="leave these subjects out"
        )
    for cohort in (fastmri, ixi, paper, folder):
        cohort.add_argument("--output", type=Path, required=True, help="folder of the cohort")

    phantom = add_cohort(
        "phantom", "pathology_screen.cohorts:make_phantom_cohort", "synthetic volumes"
    )
    phantom.add_argument(
        "--output", dest="root", type=Path, help="folder of the cohort (default: the cache folder)"
    )
    phantom.add_argument(
        "--extracted", action="store_true", help="extracted brains in place of whole heads"
    )


def _add_experiment(commands: Any) -> None:
    experiment = commands.add_parser(
        "experiment", help="compare methods: tables, figures and a page"
    )
    experiment.add_argument(
        "name", help="synthetic, detection, localization, ablation, lesions, latent, gallery"
    )
    experiment.add_argument(
        "--methods",
        nargs="+",
        required=True,
        metavar="METHOD[:LABEL][=RUN]",
        help="with the weights of their bundles or of a run; runs of one label are its seeds",
    )
    experiment.add_argument(
        "--dataset_dir", help="folder that the datalist's paths are relative to"
    )
    experiment.add_argument("--datalist", help="Decathlon datalist (default: the embedded cohort)")
    experiment.add_argument("--section", default="test", choices=["validation", "test"])
    experiment.add_argument("--output", type=Path, required=True, help="folder of the results")
    experiment.add_argument(
        "--scoring",
        nargs="+",
        default=["residual", "eq5"],
        help="residual equalised perceptual eq5",
    )
    experiment.add_argument("--profile", default="compact", choices=["compact", "paper"])
    experiment.add_argument("--perceptual", help="perceptual backbone in place of the profile's")
    experiment.add_argument("--seed", type=int, default=0)
    experiment.add_argument(
        "--protocol",
        default="pixel_count",
        choices=["paper", "official_code", "pixel_count"],
        help="of localisation",
    )
    experiment.add_argument(
        "--percentiles-of", default="image", choices=["image", "tissue"], help="of ellipses"
    )
    experiment.set_defaults(command=_experiment)


def _experiment(options: argparse.Namespace) -> None:
    from pathology_screen.experiments import EXPERIMENTS, ExperimentSetting

    if options.name not in EXPERIMENTS:
        raise ConfigError(
            f"there is no experiment {options.name!r}; there are {', '.join(EXPERIMENTS)}"
        )
    setting = ExperimentSetting(
        methods=options.methods,
        dataset_dir=options.dataset_dir,
        datalist=options.datalist,
        section=options.section,
        scoring=options.scoring,
        profile=options.profile,
        backbone=options.perceptual,
        seed=options.seed,
        percentiles_of=options.percentiles_of,
        protocol=options.protocol,
    )
    report = EXPERIMENTS[options.name](setting)
    page = report.write(options.output)
    print(f"{report.markdown()}\nlook at: {page}")


def _prepare(options: argparse.Namespace) -> None:
    from pathology_screen.cohorts.preparation import contact_sheet, summary

    given = {
        name: value for name, value in vars(options).items() if name not in ("command", "made_by")
    }
    module, _, function = options.made_by.partition(":")
    datalist = getattr(import_module(module), function)(**given)
    print(f"{summary(datalist)}\ndatalist: {datalist}\nlook at:  {contact_sheet(datalist)}")


def _info(options: argparse.Namespace) -> None:
    for method in METHODS.values():
        print(f"{method.name}: {method.title}\n    paper       {method.paper}")
        if method.is_control:
            print("    learns nothing, has no bundle")
            continue
        profiles = ", ".join(
            f"{number:,} ({profile} profile)" for profile, number in method.parameters.items()
        )
        root = bundle_root(method.name)
        print(f"    parameters  {profiles}\n    bundle      {root}")
        print(
            f"    weights     {_shipped_weights(root)}\n    calibration {_shipped_calibration(root)}"
        )


def _shipped_weights(root: Path) -> str:
    weights = root / "models" / "model.pt"
    if not weights.is_file():
        return "none yet: train first"
    return f"{weights.stat().st_size / 1e6:.1f} MB, sha256 {sha256(weights)}"


def _shipped_calibration(root: Path) -> str:
    path = root / "models" / "calibration.json"
    if not path.is_file():
        return "none"
    try:
        document = json.loads(path.read_text("utf-8"))
        slices, subjects = len(document["scores"]), len(set(document["subjects"]))
        return (
            f"{slices} slices of {subjects} healthy subjects, id {document['calibration_id'][:12]}"
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        return "damaged"


def _phantom(options: argparse.Namespace) -> None:
    from pathology_screen.cohorts import make_phantom_cohort

    print(make_phantom_cohort(options.output, extracted=options.extracted))


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
    print(
        f"wrote model.pt and network.json; add {options.output / 'network.json'} after paper.json to --config_file"
    )


def _publish(options: argparse.Namespace) -> None:
    from pathology_screen.publishing import publish

    print(publish(options.run, bundle_root(options.bundle), options.made_by))


def _label_app(options: argparse.Namespace) -> None:
    from pathology_screen.label.app_folder import write_app

    print(
        f"start it, for this machine alone, with: python {write_app(options.folder)} --studies STUDIES"
    )


def _label_versions(options: argparse.Namespace) -> None:
    from pathology_screen.label.versions import Versions

    bundle = bundle_root(options.bundle)
    versions = Versions(options.folder / "model" / bundle.name, bundle)
    if options.activate:
        versions.activate(options.activate)
    print(versions.table())


if __name__ == "__main__":
    sys.exit(main())
