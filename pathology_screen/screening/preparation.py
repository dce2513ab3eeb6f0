"""From a scan that was read to slices on the network grid, past the acceptance gate."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Compose

from pathology_screen.screening.gate import acquisition_findings, brain_findings, geometry_findings
from pathology_screen.screening.judge import refusal_of
from pathology_screen.screening.result import Finding
from pathology_screen.transforms import AxialSliced, slice_step, tissue_extent
from pathology_screen.transforms.factories import MaskBraind

Slices = str | int | float
"""Which axial slices: "middle" (the level of the bundle, at mid-ventricle), "all", or a level (see `AxialSliced`)."""


@dataclass
class Account:
    """What is known of a scan so far.

    Attributes:
        source: facts about it (`Scan.source`).
        findings: of the acceptance gate.
        seconds: wall time by stage.
    """

    source: Mapping[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def accept(self, findings: Sequence[Finding]) -> None:
        """Note findings of the gate; raise InputError if one of them refuses the scan."""
        self.findings += findings
        if refusal := refusal_of(findings):
            raise refusal

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long a stage takes, also where it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = time.perf_counter() - start


class Preparation:
    """Judge a scan by the acceptance gate and take its slices.

    Args:
        transforms: from `eval_transforms`.
    """

    def __init__(self, transforms: Compose) -> None:
        self.transforms, self.at_slice = transforms, slice_step(transforms)
        self.take = cast(AxialSliced, transforms.transforms[self.at_slice])
        extraction = [step for step in transforms.transforms if isinstance(step, MaskBraind)]
        self.sees_brains_alone = any(step.when != "never" for step in extraction)

    def __call__(self, image: MetaTensor, slices: Slices, account: Account) -> list[dict[str, Any]]:
        """Take slices.

        Args:
            image: the scan, (1, I, J, K), as `LoadScand` or `scan_image` gives it.
            slices: which.
            account: where the findings are noted.

        Returns:
            From inferior to superior, items with `image`, a MetaTensor (1, size, size) in [0, 1] whose `meta` holds
            `level`, and `own`: whether it is the slice that was asked for, or of "all" the one "middle" would be.

        Raises:
            InputError: (as such, or as the cause of a RuntimeError of MONAI's) if the scan is refused.
        """
        account.source = json.loads(image.meta["source"])
        account.accept(acquisition_findings(account.source))
        shape, affine = tuple(image.meta["volume_shape"]), np.asarray(image.meta["volume_affine"])
        account.accept(geometry_findings(account.source, shape, affine))
        volume = self.transforms({"image": image}, start=1, end=self.at_slice)  # what loads the scan comes first
        image = volume["image"]
        if self.sees_brains_alone:
            account.accept(brain_findings(np.asarray(image[0]), np.asarray(image.affine)))
        own = self.take.choose(image, None if slices in ("middle", "all") else slices)
        levels = range(*tissue_extent(np.asarray(image[0]))) if slices == "all" else [own]
        return [
            self.transforms({**volume, "level": level}, start=self.at_slice) | {"own": level == own} for level in levels
        ]
