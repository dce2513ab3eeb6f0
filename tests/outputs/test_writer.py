import json
from pathlib import Path

import matplotlib.figure
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scan_builders import dicom_datasets, save

from pathology_screen.errors import find_refusal
from pathology_screen.geometry import embed
from pathology_screen.outputs.writer import levels_below
from pathology_screen.transforms import LoadScand

SUFFIXES = (".json", "_anomaly.nii.gz", "_panel.png", "_reconstruction.nii.gz")
ORIENTATIONS = ["RAS", "LPI", "RSP", "IAR", "SPL"]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "scores.csv").set_index("name")


def canonical(path: Path) -> np.ndarray:
    """Voxels in RAS order."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


# --- where a map lands ---


@pytest.mark.parametrize("level", ["middle", 1])
@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_the_map_lies_on_its_slice_of_the_whole_volume(axcodes, level, scan, screen, blob, tmp_path):
    item = scan(axcodes=axcodes) | ({"level": level} if level != "middle" else {})
    chosen = 4 if level == "middle" else level  # of 8 levels, from inferior
    loaded = LoadScand("image", level="middle")(item)["image"]
    assert (1 in loaded.shape[1:]) == (level == "middle")  # only a part was read
    screen([item])
    stored = nib.load(item["image"])
    for suffix in ("anomaly", "reconstruction"):
        result = nib.load(tmp_path / f"out/scan_{suffix}.nii.gz")
        assert result.shape == stored.shape and np.allclose(result.affine, stored.affine, atol=1e-5)
        values = canonical(tmp_path / f"out/scan_{suffix}.nii.gz")
        assert np.flatnonzero(values.any(axis=(0, 1))).tolist() == [chosen]
        correlations = [np.corrcoef(values[..., chosen].ravel(), blob[..., k].ravel())[0, 1] for k in range(8)]
        assert int(np.argmax(correlations)) == chosen and correlations[chosen] > 0.97
    assert json.loads((tmp_path / "out/scan.json").read_text())["level"] == chosen
    assert table(tmp_path / "out").level["scan"] == chosen


@pytest.mark.parametrize("level", ["middle", 2])
def test_the_map_of_a_dicom_series_lies_on_its_slice(level, screen, blob, tmp_path):
    """Rows run to posterior, columns to the patient's left, slices to superior."""
    volume = np.flip(blob, axis=(0, 1)).transpose(2, 1, 0).astype("uint16")
    folder = save(dicom_datasets(volume, spacing=(5.0, 3.0, 3.0)), tmp_path / "series")
    screen([{"image": str(folder), "name": "series"} | ({"level": level} if level != "middle" else {})])
    values = canonical(tmp_path / "out/series_anomaly.nii.gz")
    chosen = 4 if level == "middle" else level
    assert values.shape == blob.shape and np.flatnonzero(values.any(axis=(0, 1))).tolist() == [chosen]
    assert np.corrcoef(values[..., chosen].ravel(), blob[..., chosen].ravel())[0, 1] > 0.97
    assert table(tmp_path / "out").level["series"] == chosen


@pytest.mark.parametrize("flip", [False, True])
def test_levels_below_a_part_count_from_inferior(flip):
    affine, shape, part_shape = np.diag([2.0, 2.0, -3.0 if flip else 3.0, 1.0]), (4, 5, 10), (4, 5, 2)
    part_affine = affine.copy()
    part_affine[:3, 3] = affine[:3, :3] @ [0, 0, 3]
    whole = embed(np.ones(part_shape), part_affine, shape, affine)
    filled = np.flatnonzero(whole[0, 0, ::-1] if flip else whole[0, 0])
    assert levels_below(part_shape, part_affine, shape, affine) == filled[0]
    assert levels_below(shape, affine, shape, affine) == 0


# --- what is written ---


def test_files_and_record_of_a_scan(scan, screen, calibration, tmp_path):
    screen([scan("sub-1")])
    out = tmp_path / "out"
    assert files(out) == {f"sub-1{suffix}" for suffix in SUFFIXES} | {"scores.csv"}
    record = json.loads((out / "sub-1.json").read_text())
    row = table(out).loc["sub-1"]
    assert row.status == "scored" and record["intended_use"] == "research only"
    for key in ("score", "percentile", "brain_fraction_above_threshold"):
        assert record[key] == pytest.approx(row[key])
    assert record["percentile"] == pytest.approx(calibration.percentile(record["score"]))
    assert record["pixel_threshold"] == 0.3
    provenance = record["provenance"]
    assert provenance["method"] == "ra" and provenance["calibration_id"] == calibration.calibration_id
    assert provenance["identity"] == calibration.identity and provenance["source"]["format"] == "nifti"
    # half of the ellipse is 0.2 of the 98th percentile or less, half of the square 0.5: the map's mean is the score
    assert 0 < record["brain_fraction_above_threshold"] < 0.2 and 0.02 < record["score"] < 0.2


def test_a_lesion_raises_the_score_and_the_table_is_sorted(scan, screen, tmp_path):
    class Perfect(torch.nn.Module):
        """Leaves the first scan as it is, and paints half of the others."""

        def __init__(self):
            super().__init__()
            self.factor = 1.0

        def forward(self, x):
            factor, self.factor = self.factor, self.factor / 2
            return x * factor

    screen([scan("a"), scan("b"), scan("c")], network=Perfect())
    assert list(table(tmp_path / "out").index) == ["c", "b", "a"]
    assert table(tmp_path / "out").score["a"] == 0


def test_scans_of_one_file_name_keep_their_own_results(scan, screen, tmp_path):
    items = [scan() | {"name": name} for name in ("sub-1_scan", "sub-2_scan")]
    screen(items)
    expected = {f"{item['name']}{suffix}" for item in items for suffix in SUFFIXES}
    assert files(tmp_path / "out") == expected | {"scores.csv"}


def test_a_slice_of_another_level_than_the_calibrations_has_no_percentile(scan, screen, tmp_path):
    screen([scan("middle"), scan("other") | {"level": 3}])
    rows = table(tmp_path / "out")
    assert rows.percentile.notna().to_dict() == {"middle": True, "other": False}
    assert json.loads((tmp_path / "out/other.json").read_text())["percentile"] is None


# --- refusals ---


@pytest.fixture
def broken(tmp_path):
    nib.save(nib.Nifti1Image(np.full((6, 6, 6), np.nan, np.float32), np.eye(4)), tmp_path / "broken.nii.gz")
    return {"image": str(tmp_path / "broken.nii.gz"), "name": "broken"}


def test_files_of_a_scan_that_is_refused_now_are_removed(scan, broken, screen, tmp_path):
    screen([scan("good"), scan("once-fine")])
    with pytest.raises(SystemExit):
        screen([scan("good"), broken | {"name": "once-fine"}]).finish()
    assert not [name for name in files(tmp_path / "out") if name.startswith("once-fine")]


def test_refused_scans_stand_in_the_table_and_nowhere_else(scan, broken, screen, tmp_path):
    writer = screen([broken, scan("good"), broken | {"name": "broken-2"}])
    with pytest.raises(SystemExit) as end:
        writer.finish()
    assert "2 of 3 scans were refused" in str(end.value) and "[not_finite]" in str(end.value)
    rows = table(tmp_path / "out")
    assert rows.status.to_dict() == {"good": "scored", "broken": "refused", "broken-2": "refused"}
    assert rows.code["broken"] == "not_finite" and rows.score.isna()["broken"]
    assert not [name for name in files(tmp_path / "out") if name.startswith("broken")]


def test_a_run_without_refusals_ends_well(scan, screen):
    assert screen([scan()]).finish() is None


def test_a_run_of_refusals_alone_leaves_a_table(broken, screen, tmp_path):
    with pytest.raises(SystemExit, match="1 of 1"):
        screen([broken]).finish()
    assert table(tmp_path / "out").status.to_dict() == {"broken": "refused"}


# --- interruptions ---


def fail(*arguments, **options):
    raise OSError("no space left on device")


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ((nib.Nifti1Image, "to_filename"), set()),
        ((matplotlib.figure.Figure, "savefig"), {"scan_anomaly.nii.gz", "scan_reconstruction.nii.gz"}),
        ((Path, "write_text"), {"scan_anomaly.nii.gz", "scan_reconstruction.nii.gz", "scan_panel.png"}),
        ((pd.DataFrame, "to_csv"), {f"scan{suffix}" for suffix in SUFFIXES}),
    ],
)
def test_a_failed_write_leaves_whole_files_only_and_the_record_last(where, left, scan, screen, tmp_path, monkeypatch):
    item = scan()
    monkeypatch.setattr(*where, fail)
    with pytest.raises(OSError, match="no space"):
        screen([item])
    assert files(tmp_path / "out") == left


def test_a_network_of_broken_weights_scores_nothing(scan, screen, tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return x * float("nan")

    with pytest.raises(RuntimeError) as error:
        screen([scan()], network=Broken())
    assert find_refusal(error.value) is None and not (tmp_path / "out").exists()


def test_the_table_holds_what_was_done_before_an_error(scan, screen, tmp_path):
    class SecondFails(torch.nn.Module):
        done = False

        def forward(self, x):
            if self.done:
                raise RuntimeError("out of memory")
            self.done = True
            return x

    with pytest.raises(RuntimeError, match="out of memory"):
        screen([scan("a"), scan("b")], network=SecondFails())
    assert table(tmp_path / "out").status.to_dict() == {"a": "scored"}
