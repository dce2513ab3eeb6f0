"""The training task of MONAI Label: fit a bundle on the studies that readers marked as normal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.others.generic import device_list, name_to_device

from pathology_screen.label.fit import Settings, fit_version
from pathology_screen.label.studies import normal_studies
from pathology_screen.label.versions import Versions


class HealthyTraining(TrainTask):
    """Train on healthy people alone: no label masks; see `fit_version`.

    Args:
        versions: of the bundle's weights.
        rate: of false positives among healthy people, that the calibration has to allow.
        device: of torch, where a request names none.
    """

    def __init__(self, versions: Versions, rate: float, device: str) -> None:
        super().__init__("Fit the network on the studies that readers marked as normal")
        self.versions, self.rate, self.device = versions, rate, device

    def config(self) -> dict[str, Any]:
        """The settings that a request may change, for viewers to show."""
        config = json.loads((self.versions.bundle / "configs" / "train.json").read_text("utf-8"))
        return {
            "max_epochs": config["max_epochs"],
            "learning_rate": config["learning_rate"],
            "pretrained": True,
            "device": device_list(),
        }

    def stats(self) -> dict[str, Any]:
        """The version in use, and what is known of all."""
        known = {version.name: dict(version.facts) for version in self.versions.all()}
        return {"active": self.versions.active().name, "versions": known}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train; return the name of the new version and its facts.

        Raises:
            ConfigError: if a setting makes no sense or the people are too few.
        """
        settings = Settings.of(
            {**request, "device": name_to_device(request.get("device") or self.device)}
        )
        version = fit_version(self.versions, normal_studies(datastore), settings, self.rate)
        return {"version": version.name, **version.facts}
