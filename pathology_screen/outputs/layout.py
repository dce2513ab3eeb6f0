"""Where the files of a scan lie in the folder of all results, and what their names begin with."""

from pathology_screen.io.bids import folder_of


def stem_of(name: str) -> str:
    """What the names of the files begin with: `sub-NAME`, or the entities that are the name of a
    BIDS image (`sub-01_ses-1`)."""
    return name if name.startswith("sub-") else f"sub-{name}"


def place_of(name: str) -> str:
    """Folder of the files: `sub-NAME`; of a BIDS image, that of the image (`sub-01/ses-1/anat`),
    where others may lie beside it."""
    return folder_of(name) if name.startswith("sub-") else f"sub-{name}"
