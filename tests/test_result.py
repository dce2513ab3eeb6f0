"""What is known of a scan on its way to a result."""

import pytest

from pathology_screen.errors import InputError
from pathology_screen.result import Finding, ScanContext


def test_findings_are_all_kept_the_first_that_refuses_is_raised_and_time_is_taken_all_the_same():
    warning = Finding("derived_image", "DERIVED", "ORIGINAL", refused=False)
    refusal = Finding("voxel_size", "9 mm", "up to 8 mm", hint="Resample it")
    found = [warning, refusal, Finding("noisy", "0.1", "0.5")]
    context = ScanContext(findings=[warning])
    with (
        pytest.raises(InputError, match="voxel_size.*9 mm; accepted: up to 8 mm. Resample it"),
        context.timed("reading"),
    ):
        context.accept(found)
    assert context.findings == [warning, *found] and context.seconds["reading"] > 0
