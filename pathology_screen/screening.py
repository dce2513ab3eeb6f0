"""Which scans a run screens, which it refuses, and with which calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset
from tqdm import tqdm

from pathology_screen.anomaly import AnomalyMap
from pathology_screen.calibration import Calibration
from pathology_screen.cohorts import resolve_dataset
from pathology_screen.engines import calibration_identity
from pathology_screen.errors import ArtifactError, find_refusal
from pathology_screen.io import find_scans


@dataclass(frozen=True)
class Refusal:
    """A scan that was not scored, and why; `code` is a key of `errors.REFUSALS`."""

    name: str
    code: str
    reason: str


class AcceptedScans(IterableDataset):
    """Prepare scan after scan, leave out those that are refused, and keep account of them.

    Args:
        data: items with `image` (a path) and `name`.
        transform: item -> item on the network grid.

    Attributes:
        refused: the refusals of the last pass.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable) -> None:
        super().__init__()
        self.data, self.transform = data, transform
        self.refused: list[Refusal] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.refused.clear()
        for item in tqdm(self.data, desc="screening", unit="scan"):
            try:
                prepared = self.transform(item)
            except Exception as error:
                refusal = find_refusal(error)
                if refusal is None:
                    raise
                self.refused.append(Refusal(item["name"], refusal.code, str(refusal)))
            else:
                yield prepared


def scans(dataset_dir: str | None, datalist: str | None) -> list[dict[str, Any]]:
    """List what is to be screened: the datalist's test section, all scans below a path, or the embedded cohort's
    test scans.

    Args:
        dataset_dir: a NIfTI file, a DICOM folder or zip, or a tree of them; with a datalist, the folder its
            paths start from.
        datalist: Decathlon datalist.

    Raises:
        InputError: if there is no scan.
        ConfigError: if the datalist is faulty.
    """
    if dataset_dir and not datalist:
        return find_scans(dataset_dir)
    items = resolve_dataset(dataset_dir, datalist, section="test")
    return [{"name": Path(item["image"]).name.split(".")[0], **item} for item in items]


def calibration_beside(
    weights: str | Path, preprocessing_options: Mapping[str, Any], anomaly_map: AnomalyMap
) -> Calibration:
    """Load `calibration.json` beside the weights.

    Raises:
        ArtifactError: if it is missing, or belongs to other weights, preprocessing or scoring.
    """
    path = Path(weights).with_name("calibration.json")
    if not path.is_file():
        raise ArtifactError(
            f"{path} is missing: scores mean nothing without it; run `calibrating` of train.json for these weights"
        )
    calibration = Calibration.load(path)
    calibration.check_identity(calibration_identity(weights, preprocessing_options, anomaly_map))
    return calibration
