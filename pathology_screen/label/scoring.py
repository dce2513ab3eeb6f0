"""The scoring task of MONAI Label: screen in the background what was not screened yet."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod

from pathology_screen.errors import ScreeningError, fault
from pathology_screen.label.scores import Scores
from pathology_screen.label.studies import study_path
from pathology_screen.screening import ScreeningResult

logger = logging.getLogger(__name__)


class Screening(ScoringMethod):
    """Screen every study that waits, and keep its score.

    Args:
        scores: that are filled.
    """

    def __init__(self, scores: Scores) -> None:
        super().__init__(f"Screen what was not screened yet ({scores.model.title})")
        self.scores = scores

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, int]:
        """Screen; return how many had each outcome, and how many were not screened because the
        datastore did not give them ("not_read").

        Raises:
            ArtifactError, ConfigError: if the model cannot screen at all.
        """
        outcomes: Counter[str] = Counter()
        for study in self.scores.waiting(datastore.list_images()):
            try:
                path = study_path(datastore, study)
            except (
                Exception
            ) as error:  # of a PACS that is out of reach, and the next study may be in the cache
                logger.warning("a study cannot be had: %s", type(error).__name__)
                outcomes["not_read"] += 1
                continue
            result = self._screen(path)
            self.scores.keep(study, result)
            outcomes[result.outcome] += 1
        return dict(outcomes)

    def _screen(self, path: Path) -> ScreeningResult:
        try:
            return self.scores.model.screen(path)
        except ScreeningError:
            raise
        except (
            Exception
        ) as error:  # one scan that the software fails on keeps no other from being screened
            return self.scores.model.screener().judge.refuse(fault(error))
