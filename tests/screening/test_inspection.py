"""What `inspect` tells of a scan, as values and as text."""

from pathology_screen.errors import InputError
from pathology_screen.result import Finding, ScanContext
from pathology_screen.screening import Inspector
from pathology_screen.screening.inspection import as_text, inspection
from pathology_screen.space import Fit

WARNING = Finding("derived_image", "DERIVED", "ORIGINAL", refused=False)
REFUSAL = Finding("coarse_pixels", "9 mm", "up to 3 mm")
KEYS = {"schema_version", "name", "accepted", "code", "reason", "findings", "fit", "source"}
"""They stay; a change of them is a new schema_version."""
TOLD = "    warning     [derived_image] DERIVED; accepted: ORIGINAL"


def test_inspecting_goes_as_far_as_screening_without_a_network(
    brain, slices, brain_predictor, make_brain_screener
):
    inspect = Inspector(brain_predictor.preprocessing, brain_predictor.slice_options["domain"])
    for path in (brain, slices[0], "nowhere"):
        found, result = inspect(path), make_brain_screener()(path)
        assert tuple(found.findings) == result.findings and found.source == result.source
        assert found.fit == (result.slice.fit if result.slice else None)
        assert (found.refusal.code if found.refusal else None) == result.code


def test_an_accepted_scan():
    source = {"format": "dicom", "series_uid": "1.2.3", "image_type": ("DERIVED", "PRIMARY")}
    context = ScanContext(source, [WARNING], fit=Fit(dice=0.91, correlation=0.5))
    told = inspection("a", context)
    assert (told.keys(), told["schema_version"]) == (KEYS, 1)
    assert told["accepted"] and told["code"] is told["reason"] is None
    assert told["findings"][0]["code"] == "derived_image" and told["fit"]["dice"] == 0.91
    assert told["source"]["image_type"] == ["DERIVED", "PRIMARY"]
    assert "1.2.3" not in str(told) and "1.2.3" in str(inspection("a", context, keep_uids=True))
    lines = as_text(told).splitlines()
    assert lines[:3] == ["a: accepted", TOLD, "    fit         dice 0.910, correlation 0.500"]
    assert "    format      dicom" in lines


def test_a_refused_scan():
    refusal = InputError("coarse_pixels", "9 mm; accepted: up to 3 mm")
    told = inspection("b", ScanContext({}, [WARNING, REFUSAL], refusal=refusal))
    assert told.keys() == KEYS and not told["accepted"] and told["fit"] is None
    assert (told["code"], told["reason"]) == ("coarse_pixels", str(refusal))
    assert as_text(told).splitlines() == [f"b: {refusal}", TOLD]
