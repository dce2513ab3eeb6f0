"""The active-learning strategy of MONAI Label: the worklist."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.strategy import Strategy

from pathology_screen.label.scores import Scores
from pathology_screen.label.studies import READING, study_path

PUT_ASIDE = 3600
"""Seconds for which a study that was given to a reader comes after all others."""


class MostSuspicious(Strategy):
    """Give the unread study with the highest score.

    Unread is what has neither a final label nor a reading (see `label.studies`). Studies that are
    not screened yet come after those with a score, and then those that were not assessable. One
    that was given to a reader less than an hour ago comes after all others, so that two readers
    have different ones.

    Args:
        scores: of the studies.
    """

    def __init__(self, scores: Scores) -> None:
        super().__init__(f"Most suspicious unread study first ({scores.model.title})")
        self.scores = scores

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The study's `id`, what screening found in it (see `Scores`), and how many studies are
        `unread` and how many of them `waiting` to be screened; None where all are read."""
        unread = [
            study for study in datastore.get_unlabeled_images() if _is_unread(datastore, study)
        ]
        if not unread:
            return None
        found = {study: self.scores.of(study) for study in unread}
        now, name = time.time(), request["strategy"]

        def place(study: str) -> tuple[bool, int, float, str]:
            given = datastore.get_image_info(study).get("strategy", {}).get(name, {}).get("ts", 0)
            one = found[study]
            score = None if one is None else one["score"]
            group = 0 if score is not None else 1 if one is None else 2
            return now - given < PUT_ASIDE, group, -(score or 0.0), study

        first = min(unread, key=place)
        study_path(datastore, first)  # MONAI Label fetches it next, and would leave a copy behind
        waiting = sum(one is None for one in found.values())
        return {"id": first, **(found[first] or {}), "unread": len(unread), "waiting": waiting}


def _is_unread(datastore: Datastore, study: str) -> bool:
    labels = datastore.get_labels_by_image_id(
        study
    )  # a PACS is asked for its labels only every now and then
    return DefaultLabelTag.FINAL not in labels and not datastore.get_image_info(study).get(READING)
