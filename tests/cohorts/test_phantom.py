"""The phantom cohort on disk: files, datalist, boxes, and what happens when the making is
interrupted or doubled."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pathology_screen.cohorts import load_datalist, make_phantom_cohort
from pathology_screen.cohorts import phantom as module
from pathology_screen.cohorts.datalist import load_sections
from pathology_screen.cohorts.phantom import find_boxes
from pathology_screen.cohorts.simulation import KINDS
from pathology_screen.errors import ConfigError
from pathology_screen.io import read_scan
from pathology_screen.space import PLANE_SHAPE

TINY = {"training": 2, "validation": 1, "calibration": 0, "healthy": 0, "lesions": 0}


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file; none is hidden."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert not any(name.startswith(".") for name in found)
    return found


def test_healthy_people_to_learn_from_are_slices_of_the_standard_plane(phantom):
    sections = load_sections(phantom)
    assert [len(items) for items in sections.values()] == [2, 1, 1, 6]
    assert len({item["subject"] for items in sections.values() for item in items}) == 10
    assert [item["pathology"] for item in sections["test"]] == ["healthy", *KINDS]
    contents(phantom.parent)
    content = json.loads(phantom.read_text())
    for item in content["training"] + content["validation"] + content["calibration"]:
        name = item["subject"]
        assert item == {"image": f"sub-{name}_T1w.png", "subject": name, "axial_slice": True}
        scan = read_scan(phantom.parent / item["image"])
        assert scan.voxels.shape == (*PLANE_SHAPE, 1)
        assert nib.aff2axcodes(scan.affine) == ("P", "L", "S")


def test_test_volumes_are_whole_heads_in_different_orientations_that_readers_accept(phantom):
    """Masks have the geometry of their image, and boxes bound them."""
    codes = set()
    for item in load_datalist(phantom, "test"):
        image, label = (nib.load(item[key]) for key in ("image", "label"))
        scan = read_scan(item["image"])
        assert image.get_data_dtype() == np.int16
        assert 2.5 <= image.header.get_zooms()[2] <= 3
        assert np.all(np.multiply(image.shape, image.header.get_zooms()) > 180)
        assert image.header["sform_code"] == image.header["qform_code"] == 1
        codes.add("".join(nib.aff2axcodes(image.affine)))
        assert np.allclose(scan.affine, image.affine, atol=1e-4)
        air = image.get_fdata()[scan.voxels > 0] - scan.voxels[scan.voxels > 0]
        assert np.ptp(air) == 0 and 0 <= air[0] < 20  # its least noise is the reader's background

        assert image.shape == label.shape and np.array_equal(image.affine, label.affine)
        mask = np.asarray(label.dataobj)
        assert bool(item["boxes"]) == bool(mask.any()) == (item["pathology"] != "healthy")
        assert item["boxes"] == find_boxes(mask, item["pathology"])
    assert codes == {"RAS", "LPS", "LAS", "RAI"}


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 1)))
def test_boxes_are_tight_and_cover_any_mask(mask):
    covered = np.zeros_like(mask)
    for box in find_boxes(mask, "x"):
        x, y, w, h = box["box"]
        part = mask[x : x + w, y : y + h, box["slice"]]
        assert part.shape == (w, h) and box["label"] == "x"
        assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
        covered[x : x + w, y : y + h, box["slice"]] = 1
    assert not np.any((mask == 1) & (covered == 0))


def test_the_same_options_give_the_same_voxels_at_every_run(tmp_path):
    """With another number of workers, and without skull: the same people."""
    options = TINY | {"lesions": 1}
    head = make_phantom_cohort(tmp_path / "a", **options, workers=1).parent
    assert contents(head) == contents(make_phantom_cohort(tmp_path / "b", **options).parent)
    brain = make_phantom_cohort(tmp_path, **options, extracted=True).parent
    for name in ("sub-P000_T1w.png", "sub-P003_T1w.nii.gz"):
        whole, alone = (read_scan(folder / name).voxels for folder in (head, brain))
        assert np.ptp(alone[alone > 0] - whole[alone > 0]) == 0  # the air's noise is background
        assert 0.1 < np.mean(alone > 0) < 0.6 and np.mean(whole > 0) > 0.6
    masks = [read_scan(folder / "sub-P003_mask.nii.gz").voxels for folder in (head, brain)]
    assert np.array_equal(*masks)


def test_the_folder_is_named_by_the_options_lies_in_the_cache_and_is_not_made_again(
    phantom, monkeypatch, tmp_path
):
    monkeypatch.setattr(module, "load_template", None)
    content = json.loads(phantom.read_text())["options"]
    assert make_phantom_cohort(phantom.parent.parent, **content) == phantom
    monkeypatch.setenv("PATHOLOGY_SCREEN_CACHE", str(tmp_path / "cache"))
    for options, end in (
        ({}, ""),
        ({"extracted": True}, "-extracted1"),
        ({"seed": 1}, "-seed1"),
        ({"training": 1, "lesions": 0}, "-training1-lesions0"),
    ):
        path = tmp_path / f"cache/phantom-{module.VERSION}{end}/datalist.json"
        path.parent.mkdir(parents=True)
        path.touch()
        assert make_phantom_cohort(**options) == path
    monkeypatch.delenv("PATHOLOGY_SCREEN_CACHE")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cache").rename(tmp_path / ".cache/pathology_screen")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert make_phantom_cohort().parents[1] == tmp_path / ".cache" / "pathology_screen"


def test_interrupted_making_leaves_no_datalist_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    real, numbers, stop = module.simulate_plane, [], [1]

    def simulate_plane(template, seed):
        numbers.append(seed[1])
        if seed[1] in stop:
            raise KeyboardInterrupt
        return real(template, seed)

    monkeypatch.setattr(module, "simulate_plane", simulate_plane)
    with pytest.raises(KeyboardInterrupt):
        make_phantom_cohort(tmp_path, **TINY, workers=1)
    folder = next(tmp_path.iterdir())
    finished = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert finished and folder / "datalist.json" not in finished and contents(folder)
    numbers.clear(), stop.clear()
    make_phantom_cohort(tmp_path, **TINY)
    assert 1 in numbers and 0 not in numbers
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())


def test_two_makers_at_once_agree(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: make_phantom_cohort(tmp_path, **TINY), range(2))
    assert first == second
    alone = make_phantom_cohort(tmp_path / "alone", **TINY)
    assert contents(alone.parent) == contents(first.parent)


@pytest.mark.parametrize("options", [{"training": -1}, {"lesions": -2}, {"workers": 0}])
def test_nonsense_is_refused(tmp_path, options):
    with pytest.raises(ConfigError):
        make_phantom_cohort(tmp_path, **options)
