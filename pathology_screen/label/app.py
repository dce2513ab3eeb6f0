"""The app that MONAI Label runs, and its tasks: inference, scoring, worklist and training."""

import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.utils import convert
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.transform.writer import write_itk
from monailabel.utils.async_tasks.utils import tasks
from monailabel.utils.others.generic import device_list, name_to_device, run_command

from pathology_screen import __version__
from pathology_screen.errors import ConfigError, ScreeningError, fault
from pathology_screen.label.fit import READING, Settings, fit_version, normal_studies
from pathology_screen.label.model import Model, Options, find_models, study_path
from pathology_screen.outputs.record import INTENDED_USE, make_record
from pathology_screen.screening import ScreeningResult

logger = logging.getLogger(__name__)
MOST_LABELS = 255
"""Viewers ask for label volumes of 8 bits."""
EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha")
"""Of the volumes that can be asked for."""
PUT_ASIDE = 3600
"""Seconds for which a study that was given to a reader comes after all others."""


class ScreeningApp(MONAILabelApp):
    """Screening, worklist and training, on a folder of scans or the URL of a DICOMweb service, for
    every model that `find_models` offers by the `Options` in `conf`; trained versions and scores
    are kept in `app_dir`."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.models = find_models(Path(app_dir), Options.from_conf(conf or {}))
        logger.info("models: %s", ", ".join(model.name for model in self.models))
        _prepare_dicomweb()
        told = "Unsupervised pathology screening on T1-weighted brain MRI. " + INTENDED_USE
        names = {"name": f"pathology_screen {__version__}", "version": __version__}
        super().__init__(app_dir, studies, conf, description=told, **names)

    def init_infers(self) -> dict[str, InferTask]:
        regions = {f"{model.name}_anomaly_regions": AnomalyRegions(model) for model in self.models}
        maps = {f"{model.name}_anomaly_map": AnomalyVolume(model) for model in self.models}
        return regions | maps

    def init_trainers(self) -> dict[str, TrainTask]:
        return {f"{model.name}_healthy": HealthyTraining(model) for model in self.models}

    def init_strategies(self) -> dict[str, Strategy]:
        return {f"{model.name}_most_suspicious": MostSuspicious(model) for model in self.models}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        return {f"{model.name}_screening": Screening(model) for model in self.models}

    def init_batch_infer(self) -> Callable:
        return BatchScreening()

    def infer(
        self, request: Mapping[str, Any], datastore: Datastore | None = None
    ) -> dict[str, Any]:
        """Run an inference task on a study, which is fetched first where it lies in a PACS."""
        study = request.get("image")
        if isinstance(study, str) and study and not Path(study).exists():
            try:
                study_path(datastore or self.datastore(), study)
            except Exception as error:  # what another package's error says may name the patient
                told = f"the study cannot be had: {type(error).__name__}"
                raise HTTPException(502, told) from None
        return super().infer(request, datastore)

    def async_scoring(self, method: str | None, params: Mapping[str, Any] | None = None) -> Any:
        """Start scoring in the background; where no method is named, only those for which studies
        wait, and not while one is running (each is a process that first has to load everything)."""
        start = super().async_scoring
        if method:
            return start(method, params)
        if any(task["status"] in ("SUBMITTED", "RUNNING") for task in tasks("scoring")):
            return {}
        try:
            studies = self.datastore().list_images()
        except Exception as error:  # of a PACS that is out of reach while the server starts
            logger.warning("no study is screened in the background: %s", type(error).__name__)
            return {}
        waiting = [model.name for model in self.models if model.waiting(studies)]
        return {name: start(f"{name}_screening", params) for name in waiting}


def start_server(app_folder: Path) -> None:
    """Start MONAI Label on an app with the arguments of `monailabel start_server`, which it adds to
    those of this process; it listens on this machine alone unless they say otherwise."""
    from monailabel.main import Main

    sys.argv[1:] = ["start_server", "--app", str(app_folder), "--host", "127.0.0.1", *sys.argv[1:]]
    Main().run()


def _prepare_dicomweb() -> None:
    """Look for MR where MONAI Label would for CT; find dcmqi's programs, which it would download
    otherwise; and let them take over values of a series that break DICOM's rules, such as an age
    without unit, or there is no SEG."""
    if settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER == {"Modality": "CT"}:
        settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER = {"Modality": "MR"}
    programs = str(Path(sys.executable).parent)
    if programs not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = programs + os.pathsep + os.environ["PATH"]

    def run_dcmqi(program: str, args: list[str]) -> None:
        run_command(program, [*args, "--noDicomValueChecks"])

    convert.run_command = run_dcmqi


class AnomalyVolume(InferTask):
    """Screen a study with a model, and show the anomaly map.

    Params of a request: `plane_mm`, z of another plane of MNI152 space, which is mapped and not
    judged (null by default); `result_extension` of the volume, one of `EXTENSIONS` (".nii.gz");
    `result_compress`, whether an NRRD or MHA is compressed.
    """

    kind, shown = InferType.OTHERS, "Map of the differences from a pseudo-healthy brain"
    names: Mapping[str, int] = {}
    params: Mapping[str, Any] = {"plane_mm": None}

    def __init__(self, model: Model) -> None:
        title = f"{self.shown} ({model.title})"
        super().__init__(self.kind, dict(self.names), 3, title, dict(self.params))
        self.model = model

    def is_valid(self) -> bool:
        return True  # a model without weights is not offered

    def get_path(self, validate: bool = True) -> str:
        """The weights in use, which MONAI Label offers for download."""
        return str(self.model.versions.active().weights)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Screen the study `request["image"]`, a path: gives the volume on its voxels, a temporary
        file, and the record (see `make_record`), with `label_names` and the `weights_version` in
        use.

        Raises:
            HTTPException: 404 for an unknown study, 400 for a param that makes no sense, 422 with
                code, reason and hint where the scan is refused, 500 where the software failed.
        """
        try:
            return self._screen(request)
        except HTTPException:
            raise
        except ConfigError as error:
            raise HTTPException(400, str(error)) from error
        except Exception as error:  # what another package's error says may name the patient
            raise HTTPException(500, str(fault(error))) from None

    def _screen(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        extension, plane = request.get("result_extension") or ".nii.gz", request.get("plane_mm")
        if extension not in EXTENSIONS:
            known = ", ".join(EXTENSIONS)
            raise ConfigError(f"result_extension is one of {known}, not {extension!r}")
        if plane is not None and not (isinstance(plane, int | float) and np.isfinite(plane)):
            raise ConfigError(f"plane_mm is a number of millimetres, not {plane!r}")
        if not request.get("image"):
            raise HTTPException(404, "there is no such study")
        version = self.model.versions.active().name
        result = self.model.screen(request["image"], plane)
        if result.map_volume is None or result.affine is None:
            raise HTTPException(422, result.reason)
        volume, names = self.volume(result, request)
        record = make_record(result) | {"label_names": names, "weights_version": version}
        handle, path = tempfile.mkstemp(suffix=extension)  # MONAI Label removes it once it is sent
        os.close(handle)
        if extension in (".nii", ".nii.gz"):  # by nibabel the affine is kept to the last digit
            image = nib.Nifti1Image(volume, result.affine)
            image.header.set_xyzt_units("mm")
            image.to_filename(path)
        else:
            compress = bool(request.get("result_compress"))
            write_itk(volume, path, result.affine, volume.dtype, compress)
        return path, record

    def volume(
        self, result: ScreeningResult, request: Mapping[str, Any]
    ) -> tuple[np.ndarray, dict[str, int]]:
        """The map, (I, J, K) float32, zero outside the screened slice; and no labels."""
        return np.asarray(result.map_volume), {}


class AnomalyRegions(AnomalyVolume):
    """Screen a study, and show the regions above the pixel threshold: one label, or (param
    `numbered`) their numbers in the record."""

    kind, shown = InferType.SEGMENTATION, "Regions unlike healthy people"
    names = {"anomaly": 1}
    params = {"plane_mm": None, "numbered": False}

    def volume(
        self, result: ScreeningResult, request: Mapping[str, Any]
    ) -> tuple[np.ndarray, dict[str, int]]:
        """The regions, (I, J, K) uint8, and the names of its labels; regions beyond the 255th,
        which have the lowest peaks, are merged with it."""
        numbers = np.minimum(np.asarray(result.regions_volume), MOST_LABELS).astype(np.uint8)
        if not request.get("numbered"):
            return (numbers > 0).astype(np.uint8), {"anomaly": 1}
        count = min(len(result.regions), MOST_LABELS)
        return numbers, {f"region {label}": label for label in range(1, count + 1)}


class BatchScreening(BatchInferTask):
    """Inference on many studies, of which one that is refused does not end the run: its `error`
    tells why, in words."""

    def __call__(
        self, request: Mapping[str, Any], datastore: Datastore, infer: Callable
    ) -> dict[str, Any]:
        def told(one: Mapping[str, Any], store: Datastore) -> dict[str, Any]:
            try:
                return infer(one, store)
            except HTTPException as error:
                return {"error": error.detail}

        several = torch.cuda.device_count() > 0  # MONAI Label divides by their number
        return super().__call__({"multi_gpu": several, **request}, datastore, told)


class Screening(ScoringMethod):
    """Screen in the background every study that waits, and keep its score."""

    def __init__(self, model: Model) -> None:
        super().__init__(f"Screen what was not screened yet ({model.title})")
        self.model = model

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, int]:
        """Screen; return how many had each outcome, and how many were not screened because the
        datastore did not give them ("not_read"). Raises ArtifactError or ConfigError if the model
        cannot screen at all."""
        outcomes: Counter[str] = Counter()
        for study in self.model.waiting(datastore.list_images()):
            try:
                path = study_path(datastore, study)
            except Exception as error:  # a PACS out of reach; the next study may be in the cache
                logger.warning("a study cannot be had: %s", type(error).__name__)
                outcomes["not_read"] += 1
                continue
            try:
                result = self.model.screen(path)
            except ScreeningError:
                raise
            except Exception as error:  # that the software fails on one scan stops no other
                result = self.model.screener().judge.refuse(fault(error))
            self.model.keep(study, result)
            outcomes[result.outcome] += 1
        return dict(outcomes)


class MostSuspicious(Strategy):
    """Give the unread study with the highest score.

    Unread is what has neither a final label nor a reading (see `label.fit`). Studies that are
    not screened yet come after those with a score, and then those that were not assessable. One
    that was given to a reader less than an hour ago comes after all others, so that two readers
    have different ones.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(f"Most suspicious unread study first ({model.title})")
        self.model = model

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The study's `id`, what screening found in it, and how many studies are `unread` and how
        many of them `waiting` to be screened; None where all are read."""
        found: dict[str, Mapping[str, Any] | None] = {}
        for study in datastore.get_unlabeled_images():  # a PACS tells labels every now and then
            final = DefaultLabelTag.FINAL in datastore.get_labels_by_image_id(study)
            if not final and not datastore.get_image_info(study).get(READING):
                found[study] = self.model.found(study)
        if not found:
            return None
        now, name = time.time(), request["strategy"]

        def place(study: str) -> tuple[bool, int, float, str]:
            given = datastore.get_image_info(study).get("strategy", {}).get(name, {}).get("ts", 0)
            score = (found[study] or {}).get("score")
            group = 0 if score is not None else 1 if found[study] is None else 2
            return now - given < PUT_ASIDE, group, -(score or 0.0), study

        first = min(found, key=place)
        study_path(datastore, first)  # MONAI Label fetches it next, and would leave a copy behind
        waiting = sum(one is None for one in found.values())
        return {"id": first, **(found[first] or {}), "unread": len(found), "waiting": waiting}


class HealthyTraining(TrainTask):
    """Train a model on the studies that readers marked as normal, without label masks, on its own
    device where a request names none; see `fit_version`."""

    def __init__(self, model: Model) -> None:
        super().__init__("Fit the network on the studies that readers marked as normal")
        self.model = model

    def config(self) -> dict[str, Any]:
        """The settings that a request may change, for viewers to show."""
        config = json.loads((self.model.bundle / "configs" / "train.json").read_text("utf-8"))
        own = {name: config[name] for name in ("max_epochs", "learning_rate")}
        return {**own, "pretrained": True, "device": device_list()}

    def stats(self) -> dict[str, Any]:
        """The version in use, and what is known of all."""
        versions = self.model.versions
        known = {version.name: dict(version.facts) for version in versions.all()}
        return {"active": versions.active().name, "versions": known}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; return the name of the new version and its facts. Raises ConfigError if a setting
        makes no sense or the people are too few."""
        device = name_to_device(request.get("device") or self.model.device)
        asked = Settings.of({**request, "device": device})
        studies, rate = normal_studies(datastore), self.model.options.rate
        version = fit_version(self.model.versions, studies, asked, rate)
        return {"version": version.name, **version.facts}
