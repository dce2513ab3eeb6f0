"""The methods with their weights and calibrations, as values and as text."""

from pathology_screen.bundles import bundle_root
from pathology_screen.catalogue import as_text, catalogue
from pathology_screen.files import sha256
from pathology_screen.registry import METHODS


def test_the_keys_stay():
    """A change of them is a new schema_version."""
    told = catalogue()
    assert (told.keys(), told["schema_version"]) == ({"schema_version", "version", "methods"}, 1)
    by_name = {method.pop("name"): method for method in told["methods"]}
    assert by_name.keys() == METHODS.keys()
    keys = {"title", "paper", "is_control", "parameters", "bundle", "weights", "calibration"}
    assert all(method.keys() == keys for method in by_name.values())
    ra, control = by_name["ra"], by_name["template"]
    assert ra["weights"]["sha256"] == sha256(bundle_root("ra") / "models/model.pt")
    assert ra["calibration"].keys() == {"slices", "subjects", "calibration_id"}
    assert control["is_control"] and control["bundle"] is control["weights"] is None


def test_it_tells_whether_there_are_weights_and_a_calibration(
    tmp_path, monkeypatch, make_calibration
):
    monkeypatch.setattr("pathology_screen.catalogue.bundle_root", lambda name: tmp_path / name)
    assert "none yet" in as_text(catalogue())
    weights = tmp_path / "ra/models/model.pt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(bytes(2_340_000))
    calibration = make_calibration((0.1, 0.2, 0.3), (0, 0, 1))
    calibration.save(weights.with_name("calibration.json"))
    text = as_text(catalogue())
    assert f"2.3 MB, sha256 {sha256(weights)}" in text
    assert f"3 slices of 2 healthy subjects, id {calibration.calibration_id[:12]}" in text
    for damage in ("{", "[]", '{"scores": 3}', "[" * 100_000):
        weights.with_name("calibration.json").write_text(damage)
        assert "calibration damaged" in as_text(catalogue())
