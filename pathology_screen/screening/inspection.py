"""What is known of a scan before it is scored: what `pathology-screen inspect` tells."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pathology_screen.outputs.record import hide_uid
from pathology_screen.result import ScanContext

SCHEMA_VERSION = 1


def inspection(name: str, context: ScanContext, *, keep_uids: bool = False) -> dict[str, Any]:
    """Put what an `Inspector` found into JSON values.

    Args:
        name: of the scan.
        context: what was found.
        keep_uids: whether the SeriesInstanceUID stays, see `hide_uid`.

    Returns:
        JSON values; within a `schema_version` keys are added, never changed:

        - `schema_version`: 1
        - `name`: of the scan
        - `accepted`: whether screening would take it to the network
        - `code`, `reason`: of the refusal; None where it is accepted
        - `findings`: of the acceptance gate, in each `code`, `measured`, `limit`, `refused`, `hint`
        - `fit`: of the brain to the template, the values of `space.Fit`; None where it was not
          registered
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
        "source": dict((context if keep_uids else hide_uid(context)).source),
    }
    return json.loads(json.dumps(facts, allow_nan=False))  # tuples become lists


def as_text(found: Mapping[str, Any]) -> str:
    """What `inspection` gives, in lines to read."""
    return "\n".join(_lines(found))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{found['name']}: {found['reason'] or 'accepted'}"
    for it in found["findings"]:
        if not it["refused"]:
            yield f"    warning     [{it['code']}] {it['measured']}; accepted: {it['limit']}"
    if fit := found["fit"]:
        yield f"    fit         dice {fit['dice']:.3f}, correlation {fit['correlation']:.3f}"
    for fact, value in found["source"].items():
        yield f"    {fact:<11} {value}"
