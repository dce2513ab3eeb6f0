"""The first try without data."""

import nibabel as nib
import numpy as np
import pytest

from pathology_screen import demo as module
from pathology_screen.cli import main
from pathology_screen.cohorts.anatomy import Template
from pathology_screen.cohorts.simulation import Volume

MISSED = "its lesion is missed: no region lies on it"
FOUND = "its lesion is found: region 3 lies on it (75 % of it)"


def save(voxels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


@pytest.mark.parametrize(
    ("labels", "told"),
    [({}, MISSED), ({(7, 7): 1}, MISSED), ({(2, 2): 3, (2, 3): 3, (3, 2): 4}, FOUND)],
)
def test_a_lesion_is_found_where_a_region_lies_on_it_in_the_plane(labels, told, tmp_path):
    """The lesion goes on below the plane, where nothing was looked at."""
    lesion, shown, regions = (np.zeros((9, 9, 2), np.uint8) for _ in range(3))
    lesion[2:4, 2:4] = 1
    shown[..., 1] = 1
    for place, label in labels.items():
        regions[(*place, 1)] = label
    save(lesion, tmp_path / "lesions/x.nii.gz")
    assert module.finding(tmp_path, "x") == "its lesion was not looked at"
    for ending, voxels in (("map", shown), ("dseg", regions)):
        save(voxels, tmp_path / f"results/sub-x/sub-x_desc-anomaly_{ending}.nii.gz")
    assert module.finding(tmp_path, "x") == told


def test_the_command_screens_its_heads_and_says_what_they_are(
    brain, make_brain_screener, tmp_path, monkeypatch, capsys
):
    scan = nib.load(brain)
    voxels = np.asarray(scan.dataobj)
    lesion = np.zeros(voxels.shape, np.uint8)
    made = []

    def simulate(template, seed, kind):
        assert template.smooth[0] == 1  # no cortex is drawn anew
        made.append(kind)
        return Volume(voxels, lesion, voxels > 0, scan.affine)

    screener = make_brain_screener()
    monkeypatch.setattr(module, "simulate", simulate)
    template = Template(None, None, np.zeros((4, 1, 1, 1)), None)
    monkeypatch.setattr(module, "load_template", lambda: template)
    monkeypatch.setattr(module.Screener, "from_bundle", lambda bundle: screener)
    monkeypatch.setattr(module, "HEADS", {"demo1healthy": ("healthy", 1)})
    for _ in range(2):
        assert main(["demo", str(tmp_path / "out")]) == 0
        said = capsys.readouterr().out
    assert made == ["healthy"]  # what is there is not made again
    assert "no scans of people" in said and "no lesion was painted" in said
    page = tmp_path / "out/results/index.html"
    assert said.endswith(f"look at: {page}\n") and page.is_file()
    assert (tmp_path / "out/README.txt").read_text().strip() in said


@pytest.mark.slow
def test_the_shipped_weights_find_lesions_and_miss_one(tmp_path, capsys):
    assert main(["demo", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    lines = {line.split()[0]: line for line in said.splitlines() if line.startswith("demo")}
    assert all("normal" in lines[name] for name in ("demo1healthy", "demo2healthy"))
    assert "suspicious" in lines["demo3cavity"] and "region 1 lies on it" in lines["demo3cavity"]
    assert "missed" in lines["demo6mass"]
