"""Write into the pages and model cards what the code says: the command line, the codes of refusals,
the fields of a record, what the profiles set; and what docs/benchmarks.csv says of the weights.

python docs/make_tables.py
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from monai.bundle import ConfigParser

from pathology_screen import cli, outputs
from pathology_screen.bundles import bundle_root
from pathology_screen.errors import REFUSALS, WARNINGS
from pathology_screen.registry import METHODS

DOCS = Path(__file__).resolve().parent
SCHEMA = Path(outputs.__file__).with_name("screening.schema.json")
BUNDLES = [method.name for method in METHODS.values() if not method.is_control]
PROFILES = {"compact": [], "ship": ["ship.json"], "paper": ["paper.json"]}
COMMON = (
    *("patience", "batch_size", "averaging", "calibration_section"),
    *("augmentation#rotation_degrees", "augmentation#translation", "augmentation#scale"),
    *("augmentation#flip", "augmentation#contrast"),
    *("slice#domain", "slice#plane_mm", "slice#percentile", "slice#background"),
    *("slice#median", "slice#size"),
)
"""Settings that are alike in all bundles."""

OWN = (
    *("max_epochs", "warm_up", "learning_rate"),
    *("loss_weights#beta_rec", "loss_weights#beta_kl"),
    *("loss_weights#beta_neg", "loss_weights#reversed_embedding", "deviation"),
    *("network_def#channels", "network_def#latent", "network_def#teacher", "network_def#norm"),
    *("network_def#mse_weight", "train#prepare_batch#noise#deviation"),
    *("train#prepare_batch#noise#resolution", "scoring#perceptual", "scoring#equalize"),
    *("scoring#kind", "scoring#sigma"),
)
"""Settings of each bundle's own; it has the rows of what it knows."""

OFF = {"none", "False", "0.0"}


def command_line() -> str:
    """Every subcommand with its arguments; what was said of an argument is not said again."""
    said: dict[tuple[Any, ...], str] = {}
    parts = []
    for name, help_, parser in _subcommands(cli._parser()):
        arguments = "".join(_arguments(name, parser, said))
        parts.append(f"## {name}\n\n{help_}\n" + (f"\n{arguments}" if arguments else ""))
    return "\n".join(parts)


def record() -> str:
    """The fields of the record of a scan, from its JSON Schema."""
    return "".join(_fields(json.loads(SCHEMA.read_text("utf-8"))))


def codes(meanings: Mapping[str, str]) -> str:
    """A list of codes."""
    return "".join(f"- `{code}`: {meaning}\n" for code, meaning in meanings.items())


def profiles() -> str:
    """What the profiles set alike in all bundles.

    Raises:
        ValueError: if the bundles do not agree.
    """
    (rows,) = {tuple(_settings(bundle, COMMON)) for bundle in BUNDLES}
    return "".join(rows)


def recipe(bundle: str) -> str:
    """What the profiles of one bundle set, without what is off in all of them."""
    counts = METHODS[bundle].parameters
    values = [f"{counts.get(profile, counts['compact']):,}" for profile in PROFILES]
    return "".join([*_settings(bundle, OWN), f"- parameters: {_in_each(*values)}\n"])


def results(bundle: str) -> str:
    """What the shipped weights of one bundle reach, from what `benchmarks/evidence.py` wrote."""
    numbers = pd.read_csv(DOCS / "benchmarks.csv", keep_default_na=False)
    own = numbers[(numbers.method == CARD_LABELS[bundle]) & (numbers.people == "all")]
    own = own[~own.metric.isin(ON_NO_CARD)]
    if own.empty:
        return "Not measured yet: `python benchmarks/evidence.py` does.\n"
    parts = []
    for (slices, people), rows in own.groupby(["n", "subjects"], sort=False):
        parts.append(f"Of {slices} slices of {people} people:\n\n")
        for row in rows.itertuples():
            name = f"{row.metric}, {SCORED[row.scoring]}" if row.scoring else row.metric
            low, value, high = (float(number) for number in (row.low, row.value, row.high))
            parts.append(f"- {name}: {value:.3g} [{low:.3g}, {high:.3g}]\n")
    return "".join(parts)


def fill(page: str, name: str, table: str) -> str:
    """Replace what stands between the two comments of a name, which the page must hold.

    Raises:
        ValueError: if it does not.
    """
    pattern = rf"(<!-- {name}:start.*? -->\n).*?(<!-- {name}:end -->)"
    filled, number = re.subn(
        pattern, lambda match: f"{match[1]}\n{table}\n{match[2]}", page, flags=re.DOTALL
    )
    if number != 1:
        raise ValueError(f"the page has {number} places for the table {name}, not 1")
    return filled


CARD_LABELS = {
    "ra": "RA",
    "si_vae": "SI-VAE",
    "vae": "VAE",
    "ae_s": "AE-S",
    "dae": "DAE",
    "mkd": "MKD",
}
"""Names of the methods in docs/benchmarks.csv."""

ON_NO_CARD = ("healthy SSIM", "healthy LPIPS", "sharpness", "ellipses MSE", "ellipses LPIPS")
ON_NO_CARD += ("copy-paste MSE", "copy-paste LPIPS")
"""What the page of benchmarks alone says."""

SCORED = {"residual": "plain residual", "eq5": "Eq. 5", "discrepancy": "discrepancy"}

TABLES = [
    ("cli.md", "cli", command_line),
    ("screening.md", "record", record),
    ("refusals.md", "refusals", partial(codes, REFUSALS)),
    ("refusals.md", "warnings", partial(codes, WARNINGS)),
    ("training.md", "profiles", profiles),
    *(
        (f"../bundles/{name}/docs/README.md", f"{kind}-{name}", partial(table, name))
        for kind, table in (("recipe", recipe), ("results", results))
        for name in BUNDLES
    ),
]
"""Page from here, name of the table, and what makes it."""


def _subcommands(
    parser: argparse.ArgumentParser, above: str = ""
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, help and parser of every subcommand, those of `prepare` after it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: str(choice.help) for choice in action._choices_actions}
            for name, below in action.choices.items():
                yield f"{above}{name}", helps[name], below
                yield from _subcommands(below, f"{name} ")


def _arguments(
    command: str, parser: argparse.ArgumentParser, said: dict[tuple[Any, ...], str]
) -> Iterator[str]:
    """A line for each argument of a command, and one for those that an earlier one has alike."""
    again: dict[str, list[str]] = {}
    for action in parser._actions:
        if action.dest == "help" or isinstance(action, argparse._SubParsersAction):
            continue
        key = (*action.option_strings, action.dest, action.help)
        name = ", ".join(f"`{option}`" for option in action.option_strings)
        if said.setdefault(key, command) == command:
            yield f"- {name or f'`{action.dest.upper()}`'}: {_meaning(action)}\n"
        else:
            again.setdefault(said[key], []).append(name or f"`{action.dest.upper()}`")
    for earlier, names in again.items():
        yield f"- {', '.join(names)}: as of `{earlier}`\n"


def _meaning(action: argparse.Action) -> str:
    """Help of an argument, with what else the parser knows of it."""
    parts = [str(action.help)]
    if action.choices:
        parts.append(" or ".join(f"`{choice}`" for choice in action.choices))
    default = " ".join(map(str, action.default)) if _is_list(action.default) else action.default
    unsaid = default not in (None, argparse.SUPPRESS) and str(default) not in str(action.help)
    if unsaid and not isinstance(default, bool):
        parts.append(f"default `{default}`")
    if action.required and action.option_strings:
        parts.append("required")
    return "; ".join(parts)


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    """A line for each property that is described, with the names of those that it holds."""
    for name, field in schema["properties"].items():
        text = field.get("description", "")
        values = [f"`{value}`" for value in field.get("enum", ()) if value]
        if "const" in field:
            values.append(f"`{field['const']}`")
        held = field.get("items", field).get("properties", {})
        names = f" ({', '.join(f'`{key}`' for key in held)})" if held else ""
        said = "; ".join(filter(None, [text, " or ".join(values)]))
        if said or names:
            yield f"- `{name}`{names}{said and f': {said}'}\n"


def _settings(bundle: str, keys: Iterable[str]) -> Iterator[str]:
    """A line for each setting that the bundle has and that is not off in all profiles."""
    configs = bundle_root(bundle) / "configs"
    parsers = [
        ConfigParser(
            ConfigParser.load_config_files(
                [configs / "train.json", *(configs / name for name in overlays)]
            )
        )
        for overlays in PROFILES.values()
    ]
    for key in keys:
        values = [_text(_setting(parser, key) if key in parser else None) for parser in parsers]
        if key in parsers[0] and set(values) - OFF:
            yield f"- `{key}`: {_in_each(*values)}\n"


def _in_each(compact: str, ship: str, paper: str) -> str:
    """The value of the compact profile, and those of the others where they differ."""
    others = {"ship": ship, "paper": paper}
    differ = [f"{name}: {value}" for name, value in others.items() if value != compact]
    return f"{compact} ({'; '.join(differ)})" if differ else compact


def _setting(parser: ConfigParser, key: str) -> Any:
    """A value of a configuration; where it refers to another ("@beta"), that one."""
    value = parser[key]
    return (
        _setting(parser, value[1:]) if isinstance(value, str) and value.startswith("@") else value
    )


def _text(value: object) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    for file, name, table in TABLES:
        path = DOCS / file
        path.write_text(fill(path.read_text("utf-8"), name, table()), "utf-8")
