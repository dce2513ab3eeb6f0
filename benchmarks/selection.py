"""What the benchmarks share that compare methods on the selection people of a datalist."""

import argparse
from collections.abc import Callable
from pathlib import Path

from pathology_screen.experiments import ExperimentSetting, Report


def selection_parser(description: str | None, **defaults: object) -> argparse.ArgumentParser:
    """The options of an `ExperimentSetting`, and the folder of the results; defaults by name."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=form)
    add = parser.add_argument
    add("--methods", nargs="+", default=["ra"], metavar="METHOD[:LABEL][=RUN]", help="default: ra")
    add("--dataset_dir", required=True)
    add("--datalist", required=True)
    add("--section", default="validation")
    add("--profile", default="compact", choices=["compact", "paper"], help="of the weights")
    add("--scoring", nargs="+")
    add("--perceptual", dest="backbone", help="backbone in place of the profile's")
    add("--output", required=True, type=Path, help="folder of the results")
    parser.set_defaults(**defaults)
    return parser


def run(
    compare: Callable[[ExperimentSetting], Report],
    parser: argparse.ArgumentParser,
    arguments: list[str] | None,
) -> None:
    """Compare what was asked for, write the report and print it."""
    given = vars(parser.parse_args(arguments))
    output = given.pop("output")
    report = compare(ExperimentSetting(**given))
    report.write(output)
    print(report.markdown())
