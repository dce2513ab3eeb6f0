"""Versions of what a result depends on."""

import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path

from pathology_screen import __version__
from pathology_screen.errors import ArtifactError
from pathology_screen.files import sha256, text_sha256


def versions() -> dict[str, str]:
    """Return the versions of packages that a score depends on, and deepbet's weights' hash."""
    packages = ("torch", "monai", "numpy", "scikit-image", "lpips", "deepbet")
    return {
        "pathology_screen": __version__,
        **{name: importlib.metadata.version(name) for name in packages},
        "brain_extraction_sha256": brain_extraction_sha256(),
    }


@cache
def brain_extraction_sha256() -> str:
    """Return the SHA-256 over those of the weights of the two networks of `deepbet`, which is not
    imported; raise ArtifactError if it or they are not installed."""
    package = importlib.util.find_spec("deepbet")
    if package is None or package.origin is None:
        raise ArtifactError("brain extraction needs the package deepbet: pip install deepbet")
    folder = Path(package.origin).parents[1] / "data" / "models"  # where deepbet looks for them
    files = [folder / name for name in ("bbox_model.pt", "model.pt")]
    if not all(file.is_file() for file in files):
        advice = "pip install --force-reinstall deepbet"
        raise ArtifactError(f"the weights of brain extraction are not installed: {advice}")
    return text_sha256("".join(map(sha256, files)))
