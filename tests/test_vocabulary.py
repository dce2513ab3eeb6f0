"""What the software no longer has is named nowhere in it."""

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
GONE = re.compile("principal|standard pose|restoration", re.IGNORECASE)
CONTROL = re.compile("principal[ _-]?components?|PrincipalComponents", re.IGNORECASE)


def found(folder: Path, allowed: re.Pattern | None = None) -> list[str]:
    """Texts in a folder that name what is gone; weights and their calibrations are none."""
    texts = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix in (".py", ".json", ".md", ".txt", ".html")
    ]
    read = {
        file: " ".join(file.read_text("utf-8").split())
        for file in texts
        if file.parent.name != "models"
    }
    return [
        file.name
        for file, text in read.items()
        if GONE.search(allowed.sub("", text) if allowed else text)
    ]


@pytest.mark.parametrize(
    "folder", ["bundles", "pathology_screen/engines", "pathology_screen/screening"]
)
def test_they_are_in_no_part_that_trains_or_screens(folder):
    assert (CHECKOUT / folder).is_dir() and found(CHECKOUT / folder) == []


def test_elsewhere_there_is_the_control_alone():
    assert found(CHECKOUT / "pathology_screen", CONTROL) == []
    assert found(CHECKOUT / "pathology_screen") == ["methods.py", "controls.py", "registry.py"]
