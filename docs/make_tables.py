"""Write into the pages what the code says: the codes of refusals, and what the training profiles set.

python docs/make_tables.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from pathology_screen.bundles import bundle_root
from pathology_screen.errors import REFUSALS

DOCS = Path(__file__).resolve().parent
PROFILES = {"compact": [], "ship": ["ship.json"], "paper": ["paper.json"]}
SETTINGS = {
    "epochs": "max_epochs",
    "patience in epochs": "patience",
    "warm-up in iterations": "warm_up",
    "batch size": "batch_size",
    "learning rate": "learning_rate",
    "channels": "network_def#channels",
    "normalisation": "network_def#norm",
    "`beta_rec`": "train#loss#beta_rec",
    "training levels (none: the screened one alone)": "levels",
    "screened level": "level",
    "domain": "preprocessing_options#domain",
    "grid": "preprocessing_options#grid",
    "perceptual distance": "scoring#perceptual",
}
"""Row of the table -> where the setting is in the configuration."""


def refusals() -> str:
    """The table of refusal codes."""
    return _table(["code", "meaning"], [[f"`{code}`", meaning] for code, meaning in REFUSALS.items()])


def profiles() -> str:
    """The table of what the profiles of the RA bundle set."""
    configs = bundle_root("ra") / "configs"
    parsers = [
        ConfigParser(ConfigParser.load_config_files([configs / "train.json", *(configs / name for name in overlays)]))
        for overlays in PROFILES.values()
    ]
    rows = [[row, *(_text(_setting(parser, key)) for parser in parsers)] for row, key in SETTINGS.items()]
    return _table(["", *PROFILES], rows)


def fill(page: str, name: str, table: str) -> str:
    """Replace what stands between the two comments of a name."""
    pattern = rf"(<!-- {name}:start.*? -->\n).*?(<!-- {name}:end -->)"
    return re.sub(pattern, lambda match: f"{match[1]}\n{table}\n{match[2]}", page, count=1, flags=re.DOTALL)


TABLES = {"refusals.md": ("refusals", refusals), "training.md": ("profiles", profiles)}


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _setting(parser: ConfigParser, key: str) -> Any:
    """A value of a configuration; where it refers to another ("@beta"), that one."""
    value = parser[key]
    return _setting(parser, value[1:]) if isinstance(value, str) and value.startswith("@") else value


def _text(value: object) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    for file, (name, table) in TABLES.items():
        path = DOCS / file
        path.write_text(fill(path.read_text("utf-8"), name, table()), "utf-8")
