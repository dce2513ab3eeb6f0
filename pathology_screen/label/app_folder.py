"""Write the folder that MONAI Label starts an app from."""

from pathlib import Path

from pathology_screen.errors import ConfigError
from pathology_screen.files import write_text

MAIN = '''"""Unsupervised pathology screening for MONAI Label; start it with
`python main.py --studies STUDIES`."""

from pathlib import Path

from pathology_screen.label.app import ScreeningApp, start_server

__all__ = ["ScreeningApp"]

if __name__ == "__main__":
    start_server(Path(__file__).resolve().parent)
'''
README = """# pathology_screen in MONAI Label

Start the server on a folder of NIfTI scans, or on the URL of a DICOMweb service, for this machine
alone:

    python main.py --studies STUDIES

It takes the options of `monailabel start_server`, such as `--port 8000` and `--conf models ra`.

`model/` holds the versions of the weights that were trained here, `scores/` what screening found
(without names), and `logs/` what MONAI Label writes, with names of studies and their paths: keep
this folder where the scans may be kept.

Research only. Not a medical device; not for diagnosis.
"""


def write_app(folder: Path) -> Path:
    """Write an app, and return its `main.py`; one that is there is brought up to date, and keeps
    its versions and scores. ConfigError if the folder holds something else."""
    main = folder / "main.py"
    text = main.read_text("utf-8", errors="replace") if main.is_file() else ""
    if "pathology_screen.label" not in text and folder.exists() and any(folder.iterdir()):
        raise ConfigError("the folder of the app holds something else: name a new one")
    write_text(main, MAIN)
    write_text(folder / "README.md", README)
    return main
