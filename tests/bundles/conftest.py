"""A little cohort of slices, for workflows that need not wait for the embedded one."""

import json
import logging
from pathlib import Path

import pytest
from drawn_slices import disc
from PIL import Image

SECTIONS = {"training": 4, "validation": 1, "calibration": 2, "test": 2}


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """Datalist of PNG slices; the second person of the test section has a lesion, with its box."""
    root = tmp_path_factory.mktemp("cohort")
    datalist, person = {}, 0
    for section, count in SECTIONS.items():
        datalist[section] = []
        for i in range(count):
            name, lesion = f"sub-{person}_T1w.png", section == "test" and i == 1
            Image.fromarray(disc(person, lesion)).save(root / name)
            item = {"image": name, "subject": f"sub-{person}", "axial_slice": True}
            if section == "test":
                item["pathology"] = "lesion" if lesion else "healthy"
            datalist[section].append(item)
            person += 1
    (root / "datalist.json").write_text(json.dumps(datalist))
    return root / "datalist.json"


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)
