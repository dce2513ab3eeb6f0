"""Which subject goes to which section of a datalist: by a seeded draw, or the user's table."""

import hashlib
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pathology_screen.calibration import fewest_people
from pathology_screen.cohorts.preparation import name_some, read_table
from pathology_screen.errors import ConfigError

SECTIONS = ("training", "validation", "calibration", "test")
FRACTIONS = (0.6, 0.05, 0.25, 0.1)
"""Share of the healthy subjects in each of `SECTIONS`; of a hundred, 25 are for calibration."""


def draw_split(
    subjects: Iterable[str], fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> dict[str, str]:
    """Draw a section for every subject.

    The subjects are dealt out in the order of a hash of seed and name. So the result depends on the
    set of subjects and the seed alone, not on their order, the machine or the version of a library.

    Args:
        subjects: names; one that comes several times counts once.
        fractions: for each of `SECTIONS`, adding up to 1; rounded by largest remainder.
        seed: of the draw.

    Raises:
        ConfigError: if the fractions make no sense, or a section would hold none.
    """
    complete = len(fractions) == len(SECTIONS) and math.isclose(sum(fractions), 1, abs_tol=1e-6)
    if not complete or min(fractions) < 0:
        sections = ", ".join(SECTIONS)
        raise ConfigError(
            f"the fractions for {sections} are four numbers that add up to 1, not {fractions}"
        )
    order = sorted(
        set(subjects), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()
    )
    shares = [len(order) * fraction for fraction in fractions]
    counts = [math.floor(share + 1e-9) for share in shares]
    remainders = [round(share - count, 9) for share, count in zip(shares, counts)]
    for i in sorted(range(len(SECTIONS)), key=lambda i: -remainders[i])[: len(order) - sum(counts)]:
        counts[i] += 1
    split: dict[str, str] = {}
    for section, fraction, count in zip(SECTIONS, fractions, counts):
        if fraction and not count:
            raise ConfigError(
                f"{fraction:g} of {len(order)} subjects leaves none for {section}: "
                "add subjects, or raise its fraction"
            )
        split |= dict.fromkeys(order[len(split) : len(split) + count], section)
    return split


def read_split(path: str | os.PathLike, subjects: Iterable[str]) -> dict[str, str]:
    """Read the section of every subject from a CSV file with the columns subject and section.

    Raises:
        ConfigError: if a subject is given two sections, a section is not one of `SECTIONS`, a
            subject is missing, or one is named that is not there.
    """
    name, wanted, split = Path(path).name, set(subjects), dict[str, str]()
    for row in read_table(Path(path), ("subject", "section")):
        subject, section = row["subject"].strip(), row["section"].strip()
        if section not in SECTIONS:
            there = ", ".join(SECTIONS)
            raise ConfigError(f'{name} puts {subject} in "{section}"; the sections are {there}')
        if split.setdefault(subject, section) != section:
            raise ConfigError(f"{name} puts {subject} in both {split[subject]} and {section}")
    for what, names in (
        ("does not name", wanted - split.keys()),
        ("names, but there is no scan of,", split.keys() - wanted),
    ):
        if names:
            raise ConfigError(f"{name} {what} {len(names)} subjects: {name_some(sorted(names))}")
    return split


def warn_of_few(split: Mapping[str, str]) -> None:
    """Warn where a calibration section is so small that it allows no bound of 5 %."""
    count, fewest = list(split.values()).count("calibration"), fewest_people(0.05)
    if 0 < count < fewest:
        warnings.warn(
            f"with {count} calibration subjects no statement at the level of 5 % about a new "
            f"subject is possible; it takes at least {fewest}",
            stacklevel=2,
        )
