"""The images of a BIDS dataset, told by their names."""

import re
from pathlib import Path

from pathology_screen.io.file import is_nifti

ENTITIES = re.compile(
    r"sub-(?P<subject>[A-Za-z0-9]+)(?:_ses-(?P<session>[A-Za-z0-9]+))?(?:_[a-z]+-[A-Za-z0-9]+)*"
)
"""What the name of an image has before its suffix: `sub-01_ses-1_run-2`."""


def t1w_images(root: Path) -> list[Path]:
    """List `sub-*/[ses-*/]anat/*_T1w.nii[.gz]`, in order of paths."""
    inside = "anat/*_T1w.nii*"
    found = [*root.glob(f"sub-*/{inside}"), *root.glob(f"sub-*/ses-*/{inside}")]
    return sorted(path for path in found if is_nifti(path) and not path.name.startswith("."))


def entities_of(path: Path) -> str | None:
    """Return the entities of a T1w image; None where its name breaks the rules of BIDS or belongs
    to another folder."""
    entities = path.name.partition("_T1w.nii")[0]
    if not ENTITIES.fullmatch(entities):
        return None
    return entities if path.parent.as_posix().endswith(f"/{folder_of(entities)}") else None


def folder_of(entities: str) -> str:
    """Return the folder of an image in a dataset: `sub-01/ses-1/anat` of `sub-01_ses-1_run-2`."""
    found = ENTITIES.fullmatch(entities)
    if found is None:
        raise ValueError(f"{entities!r} are no entities of BIDS")
    session = f"/ses-{found['session']}" if found["session"] else ""
    return f"sub-{found['subject']}{session}/anat"
