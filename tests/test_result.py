"""What is known of a scan on its way to a result."""

import pytest

from pathology_screen.errors import InputError
from pathology_screen.result import Finding, ScanContext, ScreeningResult

WARNING = Finding("derived_image", "DERIVED", "ORIGINAL", refused=False)
REFUSAL = Finding("voxel_size", "9 mm", "up to 8 mm", hint="Resample it")


def test_findings_are_all_kept_and_the_first_that_refuses_is_raised():
    context, second = ScanContext(), Finding("noisy", "0.1", "0.5")
    with pytest.raises(InputError, match="voxel_size.*9 mm; accepted: up to 8 mm. Resample it"):
        context.accept([WARNING, REFUSAL, second])
    assert context.findings == [WARNING, REFUSAL, second]
    context.accept([WARNING])
    assert context.findings[-1] == WARNING


def test_a_stage_that_fails_is_timed_as_well():
    context = ScanContext()
    with pytest.raises(ZeroDivisionError), context.timed("reading"):
        _ = 1 / 0
    assert context.seconds["reading"] > 0


def test_warnings_are_the_findings_that_do_not_refuse():
    findings = (WARNING, REFUSAL)
    assert ScreeningResult("not_assessable", "voxel_size", "", findings).warnings == (WARNING,)
