"""What is known of a scan while it is screened, and how the acceptance gate looks on as its slice
is taken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Compose

from pathology_screen.errors import InputError
from pathology_screen.predictor import Predictor, run_steps
from pathology_screen.screening.gate import acquisition_findings, brain_findings, geometry_findings
from pathology_screen.screening.result import Finding
from pathology_screen.transforms import ExtractBraind, LoadScand


@dataclass
class ScanContext:
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


def prepare(predictor: Predictor, item: Mapping[str, Any], context: ScanContext) -> MetaTensor:
    """Take the slice of a scan past the acceptance gate.

    Args:
        predictor: whose preprocessing takes it.
        item: `image`, a path or a `Scan`, and what `LoadScand` reads beside it.
        context: where facts and findings are noted.

    Returns:
        The slice, (1, H, W) in [0, 1].

    Raises:
        InputError: if the scan is refused.
    """
    return take_slice(predictor.preprocessing, predictor.slice_options["domain"], item, context)


def take_slice(
    preprocessing: Compose, domain: str, item: Mapping[str, Any], context: ScanContext
) -> MetaTensor:
    """Do what `prepare` does with a preprocessing that accepts one domain."""

    def loaded(item: Mapping[str, Any]) -> None:
        meta = item["image"].meta
        context.source = json.loads(meta["source"])
        context.accept(acquisition_findings(context.source))
        if is_volume(item["image"]):
            shape, affine = tuple(meta["volume_shape"]), np.asarray(meta["volume_affine"])
            context.accept(geometry_findings(context.source, shape, affine))
        else:
            limit = "a volume, which is brought to the standard plane"
            context.accept([Finding("not_registered", "a single slice", limit, refused=False)])

    def extracted(item: Mapping[str, Any]) -> None:
        image = item["image"]
        if not is_volume(image):
            return
        found = "brain_extracted" if image.meta["brain_extracted"] else "whole_head"
        if found != domain:
            hint = "Give the whole head, as it was acquired"
            context.accept([Finding("other_domain", found, domain, hint=hint)])
        brain = np.asarray(image[0]) * np.asarray(item["brain"][0])
        context.accept(brain_findings(brain, np.asarray(image.affine)))

    steps: dict[type, Callable[[Mapping[str, Any]], None]] = {
        LoadScand: loaded,
        ExtractBraind: extracted,
    }
    return run_steps(preprocessing, item, steps)["image"]


def is_volume(image: MetaTensor) -> bool:
    """Whether a loaded scan (1, I, J, K) is more than one slice."""
    return min(image.shape[1:]) > 1


def refusal_of(findings: Sequence[Finding]) -> InputError | None:
    """The first finding that refuses the scan, in words; None where none does."""
    finding = next((finding for finding in findings if finding.refused), None)
    if finding is None:
        return None
    return InputError(finding.code, f"{finding.measured}; accepted: {finding.limit}", finding.hint)
