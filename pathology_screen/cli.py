"""The command `pathology-screen`; each subcommand imports what it needs when it runs."""

import argparse
import json
import math
import signal
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any, cast

from pathology_screen import __version__
from pathology_screen.bundles import PROFILES, bundle_root
from pathology_screen.errors import NOT_ASSESSABLE, ConfigError, ScreeningError

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; return its exit status: 0, 1 after an error that was explained on
    standard error, `NOT_ASSESSABLE` or `INTERRUPTED`."""
    if arguments is None:  # in a process of its own: whoever ends it finds nothing half written
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        cast(TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace")  # for odd paths
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            if options.command in (_demo, _screen, _bids, _watch, _calibrate, _inspect):
                warnings.simplefilter("ignore")  # parsers repeat what headers say
            return options.command(options) or 0
    except (ScreeningError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept", file=sys.stderr)
        return INTERRUPTED


def _demo(options: Namespace) -> int:
    """Screen embedded heads, with and without lesions: a first try without data."""
    from pathology_screen.demo import demo

    return demo(options.output)


def _screen(options: Namespace) -> int:
    """Screen scans: outcome, map, regions, report, tables of all."""
    from pathology_screen.io import discover
    from pathology_screen.screening.batch import Batch, check_processes, list_items

    check_processes()
    _check_apart(options)
    screener = _screener(options)
    found = discover(options.input)
    items = list_items(found, **_chosen(options, "names", "series_uid"))
    of_run = _chosen(options, "key", "plane_mm", "axial_slice", "report", "dicom")
    batch = Batch(screener.judge, items, options.output, found=found, **of_run)
    if options.dry_run:
        return batch.rehearse()
    batch.screen(screener)
    return batch.summarize()


def _check_apart(options: Namespace) -> None:
    if options.output.resolve().is_relative_to(options.input.resolve()):
        raise ConfigError("the folder of the results lies in the input: it would be screened too")


def _watch(options: Namespace) -> None:
    """Screen what arrives in a folder, and send the results to an archive."""
    from pathology_screen.screening.watch import watch

    _check_apart(options)
    chosen = _chosen(options, "dicomweb", "settle", "once")
    watch(_screener(options), options.input, options.output, **chosen)


def _bids(options: Namespace) -> int:
    """Screen a BIDS dataset as BIDS Apps do, into a BIDS derivative."""
    from pathology_screen.screening.bids import find_images, save_group, screen_participants

    if options.level == "group":
        print(f"{save_group(options.out_dir)} scans\nlook at: {options.out_dir / 'index.html'}")
        return 0
    chosen = _chosen(options, "participants", "sessions", "validate")
    items, passed_over = find_images(options.bids_dir, **chosen)
    for path in passed_over:
        print(f"passed over: {path.name}", file=sys.stderr)
    return screen_participants(_screener(options), items, options.out_dir, options.report)


def _screener(options: Namespace) -> Any:
    from pathology_screen.screening import Screener

    chosen = _chosen(options, "weights", "calibration", "profile", "rate", "device")
    return Screener.from_bundle(options.bundle, **chosen)


def _inspect(options: Namespace) -> int:
    """Say what scans are, whether they are accepted and how well they fit; needs no weights."""
    from pathology_screen.screening import Inspector
    from pathology_screen.screening.batch import list_items
    from pathology_screen.screening.inspection import as_text, inspection

    inspect = Inspector.from_bundle(options.bundle, options.profile)
    keep, as_words, status = options.names == "paths", json.dumps if options.json else as_text, 0
    for item in list_items(options.input, **_chosen(options, "names", "series_uid")):
        taken = _chosen(options, "plane_mm", "axial_slice")
        found = inspect(item.scan.source, series_uid=item.series_uid, **taken)
        print(as_words(inspection(item.name, found, keep_uids=keep)), flush=True)
        status = NOT_ASSESSABLE if found.refusal else status
    return status


def _calibrate(options: Namespace) -> None:
    """Fit the thresholds on healthy scans of your own scanner."""
    from pathology_screen.calibration.folder import calibrate_on

    names = ("bundle", "weights", "profile", "series_uid", "axial_slice", "device", "names")
    rates = {"subject_fpr": options.rate, "pixel_fpr": options.pixel_rate}
    found = calibrate_on(options.normals, options.output, **_chosen(options, *names), **rates)
    print(f"{found.report()}\ncalibration: {options.output}")


def _info(options: Namespace) -> None:
    """List the methods, their bundles and weights."""
    from pathology_screen.catalogue import as_text, catalogue

    print(json.dumps(catalogue(), indent=2) if options.json else as_text(catalogue()))


def _phantom(options: Namespace) -> None:
    """Make the embedded cohort and print where its datalist is."""
    from pathology_screen.cohorts import make_phantom_cohort

    print(make_phantom_cohort(options.output, extracted=options.extracted))


def _prepare(options: Namespace) -> None:
    from pathology_screen.cohorts.contact_sheet import contact_sheet, summary

    given = {name: vars(options)[name] for name in vars(options).keys() - {"command", "made_by"}}
    module, _, function = options.made_by.partition(":")
    datalist = getattr(import_module(module), function)(**given)
    print(f"{summary(datalist)}\ndatalist: {datalist}\nlook at:  {contact_sheet(datalist)}")


def _experiment(options: Namespace) -> None:
    """Compare methods: tables, figures and a page."""
    from pathology_screen.experiments import EXPERIMENTS, ExperimentSetting

    if options.name not in EXPERIMENTS:
        there = ", ".join(EXPERIMENTS)
        raise ConfigError(f"there is no experiment {options.name!r}; there are {there}")
    names = ("methods", "dataset_dir", "datalist", "section", "scoring", "profile", "backbone")
    setting = ExperimentSetting(**_chosen(options, *names, "seed", "percentiles_of", "protocol"))
    report = EXPERIMENTS[options.name](setting)
    page = report.write(options.output)
    print(f"{report.markdown()}\nlook at: {page}")


def _import_checkpoint(options: Namespace) -> None:
    """Convert a checkpoint of the code released with the RA paper."""
    from pathology_screen.networks.released_checkpoint import import_checkpoint

    settings = import_checkpoint(options.checkpoint, options.output)
    print(f"wrote model.pt and network.json; add {settings} after paper.json to --config_file")


def _publish(options: Namespace) -> None:
    """Ship the weights of a training run in its bundle."""
    from pathology_screen.publishing import publish

    print(publish(options.run, bundle_root(options.bundle), options.made_by))


def _export(options: Namespace) -> None:
    """Write network, scoring and thresholds as one file that runs without this package."""
    from pathology_screen.exporting import export
    from pathology_screen.screening import Screener

    chosen = _chosen(options, "weights", "calibration", "profile", "rate")
    written = export(Screener.from_bundle(options.bundle, **chosen), options.output, options.format)
    for name in ("method", "calibration_id", "image_threshold", "pixel_threshold"):
        print(f"{name:<15} {written[name]}")
    print(f"wrote {options.output}")


def _label_app(options: Namespace) -> None:
    """Write the app with which MONAI Label offers the bundles."""
    from pathology_screen.label.app_folder import write_app

    app = write_app(options.folder)
    print(f"start it, for this machine alone, with: python {app} --studies STUDIES")


def _label_versions(options: Namespace) -> None:
    """List the weights that were trained in an app, or choose one."""
    from pathology_screen.label.app_folder import Versions

    bundle = bundle_root(options.bundle)
    versions = Versions(options.folder / "model" / bundle.name, bundle)
    if options.activate:
        versions.activate(options.activate)
    print(versions.table())


def _chosen(options: Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


def _millimetres(text: str) -> float:
    with suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of millimetres")


def _index_or_text(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


Argument = tuple[list[str], dict[str, Any]]


def _arg(names: str, help_: str, type_: Callable[[str], Any] = str, **options: Any) -> Argument:
    return names.split(), {"help": help_, "type": type_, **options}


def _flag(name: str, help_: str, **options: Any) -> Argument:
    """A switch; `--no-NAME` with `dest` turns NAME off."""
    action = "store_false" if "dest" in options else "store_true"
    return [name], {"help": help_, "action": action, **options}


def _labels(names: str, dest: str) -> Argument:
    return _arg(names, "only these", nargs="+", default=[], dest=dest, metavar="LABEL")


_BUNDLE = _arg("--bundle", "name or folder of the bundle (default: ra)", default="ra")
_PROFILE = _arg("--profile", "of the bundle", default="compact", choices=[*PROFILES])
_EXTRACTED = _flag("--extracted", "extracted brains in place of whole heads")
_NAMES_HELP = "of the scans: pseudonyms, or parts of the paths, which may identify patients"
_SCANS = (
    _arg("--names", _NAMES_HELP, default="pseudonyms", choices=["pseudonyms", "paths"]),
    _BUNDLE,
    _PROFILE,
    _arg("--series-uid", "only this series of each folder or archive"),
    _flag("--axial-slice", "images of one slice are axial slices, used as they are"),
)
_PLANE_HELP = "z of another plane of MNI152 space than +23, which is mapped and not judged"
_PLANE = _arg("--plane-mm", _PLANE_HELP, _millimetres, metavar="Z")
_WEIGHTS = _arg("--weights", "model.pt in place of the bundle's own", Path)
_RATE = _arg("--rate", "of false positives among the healthy (default: 0.05)", float, default=0.05)
_DEVICE_HELP = "of the network: cpu (default), cuda, mps, or auto, the best that is there"
_NETWORK = (_WEIGHTS, _arg("--device", _DEVICE_HELP, default="cpu"), _RATE)
_CALIBRATION = _arg("--calibration", "a calibration of your own, from `calibrate`", Path)
_NO_REPORT = _flag("--no-report", "do not write HTML reports", dest="report")
_LEVEL_HELP = "participant screens, group writes the page over all results alone"
_EXPERIMENTS_HELP = (
    "synthetic, detection, localization, ablation, lesions, latent, normative, gallery"
)
_SCORING, _SECTION = ["residual", "eq5"], ["validation", "test"]
_PROTOCOLS = ["paper", "official_code", "pixel_count"]
_METHODS_HELP = "with the weights of their bundles or of a run; runs of one label are its seeds"
_COMMANDS: dict[Callable[[Namespace], int | None], tuple[Argument, ...]] = {
    _demo: (_arg("output", "folder of the heads and the results", Path),),
    _screen: (
        _arg("input", "a NIfTI file, a DICOM folder, a .zip, or a tree of them", Path),
        _arg("-o --output", "folder of the results", Path, required=True),
        _flag("--dicom", "write DICOM objects too, for scans that are DICOM"),
        _NO_REPORT,
        _flag("--dry-run", "write nothing; say what would be screened, refused or passed over"),
        _arg("--key", "CSV to write of which name is which path: keep it private", Path),
        *(*_SCANS, _PLANE, *_NETWORK, _CALIBRATION),
    ),
    _bids: (
        _arg("bids_dir", "the BIDS dataset", Path),
        _arg("out_dir", "folder of the derivative", Path),
        _arg("level", _LEVEL_HELP, choices=["participant", "group"]),
        _labels("--participant_label --participant-label", "participants"),
        _labels("--session-id", "sessions"),
        _flag("--skip-bids-validation", "do not check the dataset", dest="validate"),
        *(_NO_REPORT, _BUNDLE, _PROFILE, *_NETWORK, _CALIBRATION),
    ),
    _watch: (
        _arg("input", "folder that a DICOM receiver writes to", Path),
        _arg("-o --output", "folder of the results", Path, required=True),
        _arg("--dicomweb", "address of the archive (https://HOST/dicom-web)", metavar="URL"),
        _arg("--settle", "seconds without a change of a scan (30)", float, default=30.0),
        _flag("--once", "look once in place of for ever"),
        *(_BUNDLE, _PROFILE, *_NETWORK, _CALIBRATION),
    ),
    _calibrate: (
        _arg("--normals", "scans of healthy people", Path, required=True, metavar="DIR"),
        _arg("-o --output", "file of the calibration: FILE.json", Path, required=True),
        _arg("--pixel-rate", "share of healthy pixels in regions (0.05)", float, default=0.05),
        *(*_SCANS, *_NETWORK),
    ),
    _inspect: (
        _arg("input", "as of `screen`", Path),
        _flag("--json", "print a JSON object a line, one a scan"),
        *(*_SCANS, _PLANE),
    ),
    _info: (_flag("--json", "print a JSON object"),),
    _phantom: (_arg("--output", "folder (default: the cache folder)", Path), _EXTRACTED),
    _experiment: (
        _arg("name", _EXPERIMENTS_HELP),
        _arg("--methods", _METHODS_HELP, nargs="+", required=True, metavar="METHOD[:LABEL][=RUN]"),
        _arg("--dataset_dir", "folder that the datalist's paths are relative to"),
        _arg("--datalist", "Decathlon datalist (default: the embedded cohort)"),
        _arg("--section", "of the datalist (default: test)", default="test", choices=_SECTION),
        _arg("--output", "folder of the results", Path, required=True),
        _arg("--scoring", "of residual equalised perceptual eq5", nargs="+", default=_SCORING),
        _PROFILE,
        _arg("--perceptual", "backbone in place of the profile's", dest="backbone"),
        _arg("--seed", "of every random draw", int, default=0),
        _arg("--protocol", "of localisation", default="pixel_count", choices=_PROTOCOLS),
        _arg("--percentiles-of", "of ellipses", default="image", choices=["image", "tissue"]),
    ),
    _import_checkpoint: (
        _arg("checkpoint", "best_model.pt of the released code", Path),
        _arg("--output", "folder for model.pt and network.json", Path, required=True),
    ),
    _publish: (
        _arg("run", "output_dir of the run: model.pt, calibration.json, log.csv", Path),
        _arg("--bundle", "name or folder of the bundle", required=True),
        _arg("--made-by", "command that made the weights, kept beside them", required=True),
    ),
    _export: (
        *(_BUNDLE, _PROFILE, _WEIGHTS, _CALIBRATION, _RATE),
        _arg("-o --output", "file to write", Path, required=True),
        _arg("--format", "of the file", default="onnx", choices=["onnx", "torchscript"]),
    ),
    _label_app: (_arg("folder", "of the app", Path),),
    _label_versions: (
        *(_arg("folder", "of the app", Path), _BUNDLE),
        _arg("--activate", "version to use; the server need not restart", metavar="NAME"),
    ),
}
"""Function, called by its name and explained by its docstring -> arguments of the command."""

_COHORT = _arg("--output", "folder of the cohort", Path, required=True)
_ALLOW_MISSING = _flag("--allow-missing", "make the cohort of what is there")
_SECTIONS = ("TRAINING", "VALIDATION", "CALIBRATION", "TEST")
_SPLIT = (
    _arg("--fractions", "of the healthy subjects", float, nargs=4, metavar=_SECTIONS),
    _arg("--seed", "of the random split", int),
    _arg("--exclude", "leave these subjects out", nargs="+", metavar="SUBJECT"),
)
_SLICES_HELP = '"table" (default, by the paper\'s lists), an index, or a CSV with file, slice'
_COHORTS: dict[str, tuple[Any, ...]] = {
    "fastmri": (
        "cohorts.fastmri:prepare_fastmri",
        "the paper's part of fastMRI+",
        _arg("source", "folder of fastMRI's .h5 files, or of DICOM files made of them", Path),
        _arg("--annotations", "brain.csv of fastMRI+", Path, required=True),
        _arg("--slices", _SLICES_HELP, _index_or_text),
        *(_ALLOW_MISSING, _COHORT),
    ),
    "ixi": (
        "cohorts.ixi:prepare_ixi",
        "healthy volunteers, registered to MNI152",
        _arg("source", "folder of IXI's T1 volumes", Path),
        _flag("--no-registration", "the volumes as they are", dest="registration"),
        _flag("--n4", "correct the bias field first"),
        _arg("--domain", "what is kept", choices=["whole_head", "brain_extracted"]),
        _arg("--workers", "processes", int),
        *(*_SPLIT, _COHORT),
    ),
    "paper": (
        "cohorts.fastmri:prepare_paper",
        "fastMRI+ and IXI together",
        _arg("--fastmri", "folder that `prepare fastmri` made", Path, required=True),
        _arg("--ixi", "folder that `prepare ixi` made", Path, required=True),
        *(_ALLOW_MISSING, _COHORT),
    ),
    "folder": (
        "cohorts.folder:prepare_folder",
        "your own scans, or a BIDS dataset",
        _arg("source", "folder of scans; they stay where they are", Path),
        _arg("--split", "CSV of subject, section, in place of a random split", Path),
        _arg("--group-column", "column of participants.tsv that tells who is healthy"),
        _arg("--healthy", "its values that mean healthy", nargs="+", metavar="VALUE"),
        _arg("--subject-pattern", "its first group in a path is the subject", metavar="REGEX"),
        _arg("--scan-pattern", "which the path of a scan has to match", metavar="REGEX"),
        _flag("--no-check", "do not read every scan once", dest="check"),
        *(*_SPLIT, _COHORT),
    ),
    "phantom": (
        "cohorts:make_phantom_cohort",
        "synthetic volumes",
        _arg("--output", "folder (default: the cache folder)", Path, dest="root"),
        _EXTRACTED,
    ),
}
"""Cohort -> function that makes it and whose defaults apply, help, arguments."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pathology-screen", description="Unsupervised pathology screening on T1w brain MRI."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(to: Any, name: str, help_: str, arguments: Iterable[Argument], **options: Any) -> Any:
        command = to.add_parser(name, help=help_, **options)
        for names, how in arguments:
            command.add_argument(*names, **how)
        return command

    for function, arguments in _COMMANDS.items():
        name = function.__name__[1:].replace("_", "-")
        add(commands, name, str(function.__doc__), arguments).set_defaults(command=function)
    help_ = "Make a cohort: scans, datalist, a summary and a contact sheet to look at."
    cohorts = add(commands, "prepare", help_, ()).add_subparsers(required=True, metavar="COHORT")
    for name, (made_by, summary, *options) in _COHORTS.items():
        cohort = add(cohorts, name, summary, options, argument_default=argparse.SUPPRESS)
        cohort.set_defaults(command=_prepare, made_by=f"pathology_screen.{made_by}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
