"""From a scan to its slice, past the reader and the acceptance gate."""

from dataclasses import replace

import pytest
from monai.transforms import Compose

from pathology_screen.screening import Finding, Inspector, Screener, context


def test_scans_of_the_other_domain_are_refused(brain, make_screener):
    result = make_screener()(brain)
    assert (result.code, result.map_volume) == ("other_domain", None)


def test_what_the_gate_finds_is_kept_and_refuses(brain, make_brain_screener, monkeypatch):
    found = [Finding("voxel_size", "9 mm", "up to 8 mm", refused=False)]
    monkeypatch.setattr(context, "geometry_findings", lambda *scan: found)
    assert make_brain_screener()(brain).findings == tuple(found)
    found[:] = [Finding("voxel_size", "9 mm", "up to 8 mm", hint="Resample it")]
    result = make_brain_screener()(brain)
    assert (result.code, result.findings) == ("voxel_size", tuple(found))
    assert result.reason.endswith("9 mm; accepted: up to 8 mm. Resample it")


def test_inspecting_goes_as_far_as_screening_without_a_network(
    brain, slices, brain_predictor, make_brain_screener
):
    inspect = Inspector(brain_predictor.preprocessing, brain_predictor.slice_options["domain"])
    for path in (brain, slices[0], "nowhere"):
        found, result = inspect(path), make_brain_screener()(path)
        assert tuple(found.findings) == result.findings and found.source == result.source
        assert found.fit == (result.slice.fit if result.slice else None)
        assert (found.refusal.code if found.refusal else None) == result.code


def test_a_fault_of_the_software_is_none_of_the_scans(slices, predictor, make_screener):
    def broken(item):
        raise ZeroDivisionError

    steps = [*predictor.preprocessing.transforms, broken]
    faulty = replace(predictor, preprocessing=Compose(steps))
    with pytest.raises(ZeroDivisionError):
        Screener(faulty, make_screener().judge.calibration)(slices[0])
    inspected = Inspector(faulty.preprocessing, "whole_head")(slices[0])
    assert "ZeroDivisionError in test_context.py" in str(inspected.refusal)


def test_stages_are_timed_apart(slices, make_screener):
    seconds = make_screener()(slices[0]).seconds
    assert list(seconds) == ["reading", "preparation", "screening"] and min(seconds.values()) > 0
    assert list(make_screener()("nowhere").seconds) == ["reading"]
