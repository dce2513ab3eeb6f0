"""The app that MONAI Label runs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.utils import convert
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.utils import tasks
from monailabel.utils.others.generic import run_command

from pathology_screen import __version__
from pathology_screen.label.infer import AnomalyRegions, AnomalyVolume
from pathology_screen.label.model import find_models
from pathology_screen.label.options import Options
from pathology_screen.label.scores import Scores
from pathology_screen.label.scoring import Screening
from pathology_screen.label.strategy import MostSuspicious
from pathology_screen.label.studies import study_path
from pathology_screen.label.train import HealthyTraining
from pathology_screen.outputs.record import INTENDED_USE

logger = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"


class ScreeningApp(MONAILabelApp):
    """Screening, worklist and training for every model that is offered.

    Args:
        app_dir: folder of the app; trained versions and scores are kept in it.
        studies: folder of scans, or the URL of a DICOMweb service.
        conf: see `Options`.

    Raises:
        ArtifactError, ConfigError: if an option makes no sense, or a model cannot be used.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.folder = Path(app_dir)
        self.models = find_models(self.folder, Options.from_conf(conf or {}))
        self.scores = {
            model.name: Scores(model, self.folder / "scores" / model.name) for model in self.models
        }
        logger.info("models: %s", ", ".join(self.scores))
        _prepare_dicomweb()
        super().__init__(
            app_dir,
            studies,
            conf,
            name=f"pathology_screen {__version__}",
            description=f"Unsupervised pathology screening on T1-weighted brain MRI. {INTENDED_USE}",
            version=__version__,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Regions and map of each model."""
        regions = {f"{model.name}_anomaly_regions": AnomalyRegions(model) for model in self.models}
        return regions | {
            f"{model.name}_anomaly_map": AnomalyVolume(model) for model in self.models
        }

    def init_trainers(self) -> dict[str, TrainTask]:
        """Training of each model on healthy people."""
        return {
            f"{model.name}_healthy": HealthyTraining(
                model.versions, model.options.rate, model.device
            )
            for model in self.models
        }

    def init_strategies(self) -> dict[str, Strategy]:
        """The worklist of each model."""
        return {
            f"{name}_most_suspicious": MostSuspicious(scores)
            for name, scores in self.scores.items()
        }

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """What fills the worklists."""
        return {f"{name}_screening": Screening(scores) for name, scores in self.scores.items()}

    def init_batch_infer(self) -> Callable:
        """Inference on many studies."""
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
                raise HTTPException(
                    502, f"the study cannot be had: {type(error).__name__}"
                ) from None
        return super().infer(request, datastore)

    def async_scoring(self, method: str | None, params: Mapping[str, Any] | None = None) -> Any:
        """Start scoring in the background; where no method is named, only those for which studies
        wait, and not while one is running (each is a process that first has to load everything)."""
        if method:
            return super().async_scoring(method, params)
        if any(task["status"] in ("SUBMITTED", "RUNNING") for task in tasks("scoring")):
            return {}
        try:
            studies = self.datastore().list_images()
        except Exception as error:  # of a PACS that is out of reach while the server starts
            logger.warning("no study is screened in the background: %s", type(error).__name__)
            return {}
        waiting = [name for name, scores in self.scores.items() if scores.waiting(studies)]
        return {
            name: super(ScreeningApp, self).async_scoring(f"{name}_screening", params)
            for name in waiting
        }


class BatchScreening(BatchInferTask):
    """Inference on many studies, of which one that is refused does not end the run."""

    def __call__(
        self, request: Mapping[str, Any], datastore: Datastore, infer: Callable
    ) -> dict[str, Any]:
        """Screen; return what each study gave, `error` in words where it was refused."""

        def told(one: Mapping[str, Any], store: Datastore) -> dict[str, Any]:
            try:
                return infer(one, store)
            except HTTPException as error:
                return {"error": error.detail}

        several = torch.cuda.device_count() > 0  # MONAI Label divides by their number
        return super().__call__({"multi_gpu": several, **request}, datastore, told)


def start_server(app_folder: Path) -> None:
    """Start MONAI Label on an app with the arguments of `monailabel start_server`, which it adds to
    those of this process; it listens on this machine alone unless they say otherwise."""
    from monailabel.main import Main

    sys.argv[1:] = ["start_server", "--app", str(app_folder), "--host", LOOPBACK, *sys.argv[1:]]
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
    convert.run_command = _run_dcmqi


def _run_dcmqi(program: str, args: Sequence[str]) -> None:
    """Run the program that makes a SEG, with values of the series taken over unchecked."""
    run_command(program, [*args, "--noDicomValueChecks"])
