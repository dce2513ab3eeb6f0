"""What is known of a scan before it is scored: what `pathology-screen inspect` tells."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

from monai.transforms import Compose

from pathology_screen.bundles import read_settings
from pathology_screen.errors import as_refusal
from pathology_screen.outputs.record import hide_uid
from pathology_screen.predictor import build_preprocessing
from pathology_screen.result import ScanContext
from pathology_screen.screening.screener import ScanOptions, ScanSource, take_slice

SCHEMA_VERSION = 1


class Inspector:
    """Take scans past the reader, the acceptance gate, brain extraction and registration, as
    screening would, by the preprocessing of a bundle and the domain that it accepts; only the
    comparison with the reconstruction is left out."""

    def __init__(self, preprocessing: Compose, domain: str) -> None:
        self.preprocessing, self.domain = preprocessing, domain

    @classmethod
    def from_bundle(cls, bundle: str | Path = "ra", profile: str = "compact") -> "Inspector":
        """Read a bundle's preprocessing; it needs no weights.

        Raises:
            ConfigError: if there is no such bundle.
        """
        settings = read_settings(bundle, profile)
        return cls(build_preprocessing(settings["preprocessing"]), settings["slice"]["domain"])

    def __call__(self, scan: ScanSource, **options: Unpack[ScanOptions]) -> ScanContext:
        """Inspect one scan."""
        context = ScanContext()
        try:
            take_slice(self.preprocessing, self.domain, scan, context, **options)
        except Exception as error:
            context.refusal = as_refusal(error)
        return context


def inspection(name: str, context: ScanContext, *, keep_uids: bool = False) -> dict[str, Any]:
    """Put what an `Inspector` found into JSON values; `keep_uids` keeps the SeriesInstanceUID, see
    `hide_uid`. Within a `schema_version` keys are added, never changed:

    - `schema_version`: 1
    - `name`: of the scan
    - `accepted`: whether screening would take it to the network
    - `code`, `reason`: of the refusal; None where it is accepted
    - `findings`: of the acceptance gate, in each `code`, `measured`, `limit`, `refused`, `hint`
    - `fit`: of the brain to the template, as `space.Fit`; None where it was not registered
    - `source`: facts about the scan, as in the record of a screening
    """
    refusal = context.refusal
    facts = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "accepted": refusal is None,
        "code": refusal and refusal.code,
        "reason": refusal and str(refusal),
        "findings": [asdict(finding) for finding in context.findings],
        "fit": context.fit and asdict(context.fit),
        "source": dict(context.source) if keep_uids else hide_uid(context.source),
    }
    return json.loads(json.dumps(facts, allow_nan=False))  # tuples become lists


def as_text(found: Mapping[str, Any]) -> str:
    """What `inspection` gives, in lines to read."""
    lines = [f"{found['name']}: {found['reason'] or 'accepted'}"]
    for it in (it for it in found["findings"] if not it["refused"]):
        lines += [f"    warning     [{it['code']}] {it['measured']}; accepted: {it['limit']}"]
    if fit := found["fit"]:
        lines += [f"    fit         dice {fit['dice']:.3f}, correlation {fit['correlation']:.3f}"]
    lines += [f"    {fact:<11} {value}" for fact, value in found["source"].items()]
    return "\n".join(lines)
