"""The app that MONAI Label runs."""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.utils import convert
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.utils import tasks
from monailabel.utils.others.generic import run_command

from pathology_screen import __version__
from pathology_screen.label.model import Options, find_models
from pathology_screen.label.studies import study_path
from pathology_screen.label.tasks import (
    AnomalyRegions,
    AnomalyVolume,
    BatchScreening,
    HealthyTraining,
    MostSuspicious,
    Screening,
)
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
        self.models = find_models(Path(app_dir), Options.from_conf(conf or {}))
        logger.info("models: %s", ", ".join(model.name for model in self.models))
        _prepare_dicomweb()
        super().__init__(
            app_dir,
            studies,
            conf,
            name=f"pathology_screen {__version__}",
            description="Unsupervised pathology screening on T1-weighted brain MRI. "
            + INTENDED_USE,
            version=__version__,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Regions and map of each model."""
        regions = {f"{model.name}_anomaly_regions": AnomalyRegions(model) for model in self.models}
        maps = {f"{model.name}_anomaly_map": AnomalyVolume(model) for model in self.models}
        return regions | maps

    def init_trainers(self) -> dict[str, TrainTask]:
        """Training of each model on healthy people."""
        return {f"{model.name}_healthy": HealthyTraining(model) for model in self.models}

    def init_strategies(self) -> dict[str, Strategy]:
        """The worklist of each model."""
        return {f"{model.name}_most_suspicious": MostSuspicious(model) for model in self.models}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """What fills the worklists."""
        return {f"{model.name}_screening": Screening(model) for model in self.models}

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
        waiting = [model.name for model in self.models if model.scores.waiting(studies)]
        return {name: start(f"{name}_screening", params) for name in waiting}


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
