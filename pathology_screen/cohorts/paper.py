"""The cohort of the paper: fastMRI+ and IXI in one datalist (section 4 and Appendix B)."""

import json
import os
from pathlib import Path

from pathology_screen.cohorts.datalist import (
    FILE_KEYS,
    Item,
    load_sections,
    read_notes,
    write_datalist,
)
from pathology_screen.cohorts.preparation import begin, listed, name_some, path_from
from pathology_screen.errors import ConfigError

DESCRIPTION = (
    "Bercea et al., MIDL 2023: training on healthy fastMRI+ and IXI subjects, validation and test "
    "on fastMRI+. No section for calibration: the paper fits its threshold on the test normals."
)
SECTIONS = ("training", "validation", "test")


def prepare_paper(
    fastmri: str | os.PathLike,
    ixi: str | os.PathLike,
    output: str | os.PathLike,
    *,
    allow_missing: bool = False,
) -> Path:
    """Write the datalist of both cohorts; return its path.

    The sections are those of fastMRI+, with all IXI subjects of the paper (`data_lists/ixi.csv`) in
    training, whatever their section in the IXI datalist. The paths lead to both folders.

    Args:
        fastmri, ixi: folders or datalists that `prepare_fastmri` and `prepare_ixi` made.
        output: folder of the new datalist.
        allow_missing: go on where IXI subjects are missing; they stand in the notes.

    Raises:
        ConfigError: see `load_datalist`; or if a datalist is not of its cohort, IXI subjects are
            missing, or theirs are extracted brains.
    """
    of_fastmri, of_ixi = (
        Path(path) / "datalist.json" if Path(path).is_dir() else Path(path)
        for path in (fastmri, ixi)
    )
    sections = load_sections(of_fastmri)
    home = {row["file"]: row["section"] for row in listed("fastmri.csv")}
    there = ((section, item["subject"]) for section in sections for item in sections[section])
    wrong = [subject for section, subject in there if home.get(subject) != section]
    if wrong or sections.keys() != set(SECTIONS):
        named = f": {wrong[0]} does not belong there" if wrong else ""
        raise ConfigError(
            f"{of_fastmri} is not the datalist that `pathology-screen prepare fastmri` makes{named}"
        )
    wanted, people = {row["subject"] for row in listed("ixi.csv")}, _read_ixi(of_ixi)
    missing, further = sorted(wanted - people.keys()), sorted(people.keys() - wanted)
    if wanted == set(missing) or (missing and not allow_missing):
        raise ConfigError(
            f"{of_ixi} lacks {len(missing)} of the {len(wanted)} subjects of the paper: "
            f"{name_some(missing)}. With --allow-missing the cohort is made of those that are there"
        )
    sections["training"] += [people[subject] for subject in sorted(wanted & people.keys())]
    folder = begin(output, {"cohort": "paper"})
    for item in (item for section in SECTIONS for item in sections[section]):
        item |= {key: path_from(folder, item[key]) for key in FILE_KEYS if key in item}
    notes = {
        **read_notes(of_fastmri),
        **read_notes(of_ixi),
        "IXI subject not found": missing,
        "IXI subject that is not in the paper's list, left out": further,
    }
    ordered = {section: sections[section] for section in SECTIONS}
    return write_datalist(folder, ordered, DESCRIPTION, notes=notes)


def _read_ixi(path: Path) -> dict[str, Item]:
    """Subject -> its one item, whatever the section; whole heads, as those of fastMRI are."""
    options = path.with_name("preparation.json")
    made_with = json.loads(options.read_text("utf-8")) if options.is_file() else {}
    if made_with.get("domain") == "brain_extracted":
        raise ConfigError(
            f"{path} holds extracted brains, but the paper trains on whole heads: prepare IXI again"
        )
    people: dict[str, Item] = {}
    for item in (item for section in load_sections(path).values() for item in section):
        if people.setdefault(item["subject"], item) is not item:
            raise ConfigError(
                f"{path} holds several images of {item['subject']}; the paper takes one of each"
            )
    return people
