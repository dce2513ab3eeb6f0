"""Make `ixi_slices.json` from the table of the people.

    python data_lists/make_ixi_slices.py PARTICIPANTS

PARTICIPANTS: table with the columns ixi_id and site, apart by tabs. Every site gives each section
the same share of its people, who are drawn with one seeded generator, site by site.
"""

import json
import random
import sys
from pathlib import Path

import pandas as pd

from pathology_screen.files import replacing

FOLDER = Path(__file__).parent
SHARES = {"test": 40 / 521, "calibration": 40 / 521, "validation": 20 / 521}
"""The rest is for training."""
PLACES = {"IXI012": "test", "IXI015": "test"}
"""People whose volumes prove the way from a scan to its slice; each changes places with another."""
HEAD = {
    "name": "ixi_slices",
    "description": "IXI T1w brain MRI, whole heads, the axial plane z = 23 mm of MNI152, split by "
    "person; file names only, no pixels",
    "reference": "https://brain-development.org/ixi-dataset/",
    "licence": "not included; IXI is CC BY-SA 3.0",
    "modality": {"0": "T1w"},
    "tensorImageSize": "2D",
}


def draw(people: pd.DataFrame) -> dict[str, str]:
    """Person -> section."""
    generator, sections = random.Random(0), {}
    for _, ids in people.groupby("site")["ixi_id"]:
        order, start = sorted(ids), 0
        generator.shuffle(order)
        for section, share in SHARES.items():
            stop = start + round(share * len(order))
            sections |= dict.fromkeys(order[start:stop], section)
            start = stop
        sections |= dict.fromkeys(order[start:], "training")
    site = dict(zip(people["ixi_id"], people["site"]))
    for person, section in PLACES.items():
        if sections[person] != section:
            there = [
                name for name in sections if (sections[name], site[name]) == (section, site[person])
            ]
            other = next(name for name in there if name not in PLACES)
            sections[person], sections[other] = section, sections[person]
    return sections


def main(participants: str) -> None:
    people = pd.read_csv(participants, sep="\t")
    sections = draw(people)
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in HEAD.items()]
    for section in ("training", "validation", "calibration", "test"):
        more = {"axial_slice": True, "axes": "PRS"}  # the columns run to the right of the person
        more |= {"pathology": "healthy"} if section == "test" else {}
        items = [
            {"image": f"sub-{row.ixi_id}_T1w.png", "subject": row.ixi_id, "site": row.site, **more}
            for row in people.itertuples()
            if sections[row.ixi_id] == section
        ]
        text = ",\n".join(f"  {json.dumps(item)}" for item in items)
        lines.append(f' "{section}": [\n{text}\n ]')
    with replacing(FOLDER / "ixi_slices.json") as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
