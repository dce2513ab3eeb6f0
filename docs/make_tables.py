"""Write into the pages what the code says: the codes of refusals, and what the training profiles
set; and into the model cards what docs/benchmarks.csv says of their weights.

python docs/make_tables.py
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from monai.bundle import ConfigParser

from pathology_screen.bundles import bundle_root
from pathology_screen.errors import REFUSALS, WARNINGS
from pathology_screen.registry import METHODS

DOCS = Path(__file__).resolve().parent
BUNDLES = [method.name for method in METHODS.values() if not method.is_control]
PROFILES = {"compact": [], "ship": ["ship.json"], "paper": ["paper.json"]}
COMMON = {
    "patience in epochs": "patience",
    "batch size": "batch_size",
    "averaging (decay)": "averaging",
    "section to calibrate on": "calibration_section",
    "rotation in degrees": "augmentation#rotation_degrees",
    "shift": "augmentation#translation",
    "scale": "augmentation#scale",
    "mirrored": "augmentation#flip",
    "domain": "slice#domain",
    "plane, mm of MNI152": "slice#plane_mm",
    "percentile of the brain": "slice#percentile",
    "air below": "slice#background",
    "median of the brain": "slice#median",
    "pixels a side": "slice#size",
}
"""Row of the table -> where the setting is in the configuration; alike in all bundles."""

OWN = {
    "epochs": "max_epochs",
    "warm-up in epochs": "warm_up",
    "learning rate": "learning_rate",
    "`beta_rec`": "loss_weights#beta_rec",
    "`beta_kl`": "loss_weights#beta_kl",
    "`beta_neg`": "loss_weights#beta_neg",
    "`reversed_embedding` (lambda)": "loss_weights#reversed_embedding",
    "`deviation` of the likelihood": "deviation",
    "channels": "network_def#channels",
    "latent vector": "network_def#latent",
    "teacher": "network_def#teacher",
    "normalisation": "network_def#norm",
    "`mse_weight`": "network_def#mse_weight",
    "deviation of the noise": "train#prepare_batch#noise#deviation",
    "grid of the noise": "train#prepare_batch#noise#resolution",
    "perceptual distance": "scoring#perceptual",
    "equalisation": "scoring#equalize",
    "score": "scoring#score",
    "map": "scoring#kind",
    "blur of the map (sigma)": "scoring#sigma",
}
"""The same of what each bundle sets for itself; it has the rows of what it knows."""

OFF = {"none", "False", "0.0"}


def refusals() -> str:
    """The table of refusal codes."""
    return _table(
        ["code", "meaning"], [[f"`{code}`", meaning] for code, meaning in REFUSALS.items()]
    )


def warnings() -> str:
    """The table of the codes of warnings."""
    return _table(
        ["code", "meaning"], [[f"`{code}`", meaning] for code, meaning in WARNINGS.items()]
    )


def profiles() -> str:
    """The table of what the profiles set alike in all bundles.

    Raises:
        ValueError: if the bundles do not agree.
    """
    tables = {tuple(map(tuple, _rows(bundle, COMMON))) for bundle in BUNDLES}
    (rows,) = tables
    return _table(["", *PROFILES], rows)


def recipe(bundle: str) -> str:
    """The table of what the profiles of one bundle set, without what is off in all of them."""
    rows = [row for row in _rows(bundle, OWN) if set(row[1:]) - OFF]
    counts = METHODS[bundle].parameters
    parameters = [
        "parameters",
        *(f"{counts.get(profile, counts['compact']):,}" for profile in PROFILES),
    ]
    return _table(["", *PROFILES], [*rows, parameters])


def results(bundle: str) -> str:
    """The table of what the shipped weights of one bundle reach, from what `benchmarks/evidence.py`
    wrote."""
    numbers = pd.read_csv(DOCS / "benchmarks.csv", keep_default_na=False)
    own = numbers[(numbers.method == CARD_LABELS[bundle]) & (numbers.people == "all")]
    if own.empty:
        return "Not measured yet: `python benchmarks/evidence.py` does.\n"
    rows = [
        [
            f"{row.metric}, {SCORED[row.scoring]}" if row.scoring else row.metric,
            f"{float(row.value):.3g} [{float(row.low):.3g}, {float(row.high):.3g}]",
            f"{row.n} of {row.subjects}",
        ]
        for row in own.itertuples()
    ]
    return _table(["", "value, 95 % interval", "slices of people"], rows)


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

SCORED = {"residual": "plain residual", "eq5": "Eq. 5", "discrepancy": "discrepancy"}

TABLES = [
    ("refusals.md", "refusals", refusals),
    ("acceptance.md", "warnings", warnings),
    ("training.md", "profiles", profiles),
    *(
        ("training.md" if name == "ra" else "baselines.md", f"recipe-{name}", partial(recipe, name))
        for name in BUNDLES
    ),
    *(
        (f"../bundles/{name}/docs/README.md", f"results-{name}", partial(results, name))
        for name in BUNDLES
    ),
]
"""Page from here, name of the table, and what makes it."""


def _rows(bundle: str, settings: dict[str, str]) -> list[list[str]]:
    """A row for each setting that the bundle has: its name, and its value in each profile."""
    configs = bundle_root(bundle) / "configs"
    parsers = [
        ConfigParser(
            ConfigParser.load_config_files(
                [configs / "train.json", *(configs / name for name in overlays)]
            )
        )
        for overlays in PROFILES.values()
    ]
    known = {row: key for row, key in settings.items() if key in parsers[0]}
    return [
        [row, *(_text(_setting(parser, key)) for parser in parsers)] for row, key in known.items()
    ]


def _table(header: list[str], rows: Any) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


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
