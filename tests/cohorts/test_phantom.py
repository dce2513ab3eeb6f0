"""The phantom cohort on disk: files, datalist, boxes, and what happens when the making is
interrupted or doubled."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pathology_screen.cohorts import make_phantom_cohort
from pathology_screen.cohorts import phantom as module
from pathology_screen.cohorts.lesions import KINDS
from pathology_screen.cohorts.phantom import cache_folder, find_boxes
from pathology_screen.errors import ConfigError
from pathology_screen.io import read_scan
from pathology_screen.space import PLANE_SHAPE

TINY = {"training": 2, "validation": 1, "calibration": 0, "healthy": 0, "lesions": 0}
WITH_LESION = TINY | {"lesions": 1}


def hidden(folder: Path) -> list[Path]:
    return list(folder.rglob(".*"))


def test_datalist_is_complete(phantom):
    content = json.loads(phantom.read_text())
    sizes = {
        section: len(content[section])
        for section in ("training", "validation", "calibration", "test")
    }
    assert sizes == {"training": 2, "validation": 1, "calibration": 1, "test": 6}
    items = [item for section in sizes for item in content[section]]
    assert len({item["subject"] for item in items}) == 10
    assert all(
        (phantom.parent / item[key]).is_file()
        for item in items
        for key in ("image", "label")
        if key in item
    )
    assert [item["pathology"] for item in content["test"]] == ["healthy", *KINDS]
    assert all("label" not in item for item in content["training"])
    assert not hidden(phantom.parent)


def test_healthy_people_to_learn_from_are_slices_of_the_standard_plane(phantom):
    content = json.loads(phantom.read_text())
    for item in content["training"] + content["validation"] + content["calibration"]:
        assert item == {
            "image": f"sub-{item['subject']}_T1w.png",
            "subject": item["subject"],
            "axial_slice": True,
        }
        scan = read_scan(phantom.parent / item["image"])
        assert scan.voxels.shape == (*PLANE_SHAPE, 1)
        assert nib.aff2axcodes(scan.affine) == ("P", "L", "S")


def test_test_volumes_cover_the_head_in_different_orientations(phantom):
    codes = set()
    for item in json.loads(phantom.read_text())["test"]:
        image = nib.load(phantom.parent / item["image"])
        assert image.get_data_dtype() == np.int16
        assert 2.5 <= image.header.get_zooms()[2] <= 3
        assert np.all(np.multiply(image.shape, image.header.get_zooms()) > 180)
        assert image.header["sform_code"] == image.header["qform_code"] == 1
        codes.add("".join(nib.aff2axcodes(image.affine)))
    assert codes == {"RAS", "LPS", "LAS", "RAI"}


def test_an_extracted_cohort_shows_the_same_people_without_skull(tmp_path):
    options = [WITH_LESION, WITH_LESION | {"extracted": True}]
    head, brain = (make_phantom_cohort(tmp_path, **choice).parent for choice in options)
    for name in ("sub-P000_T1w.png", "sub-P003_T1w.nii.gz"):
        whole, alone = (read_scan(folder / name).voxels for folder in (head, brain))
        assert (
            np.ptp(alone[alone > 0] - whole[alone > 0]) == 0
        )  # the noise of the air is the head's background
        assert 0.1 < np.mean(alone > 0) < 0.6 and np.mean(whole > 0) > 0.6
    assert np.array_equal(
        *(read_scan(folder / "sub-P003_mask.nii.gz").voxels for folder in (head, brain))
    )


def test_masks_have_the_geometry_of_their_image_and_boxes_bound_them(phantom):
    for item in json.loads(phantom.read_text())["test"]:
        image, label = (nib.load(phantom.parent / item[key]) for key in ("image", "label"))
        assert image.shape == label.shape and np.array_equal(image.affine, label.affine)
        mask = np.asarray(label.dataobj)
        assert bool(item["boxes"]) == bool(mask.any()) == (item["pathology"] != "healthy")
        covered = np.zeros_like(mask)
        for box in item["boxes"]:
            x, y, w, h = box["box"]
            part = mask[x : x + w, y : y + h, box["slice"]]
            assert part.any(axis=1)[[0, -1]].all() and part.any(axis=0)[[0, -1]].all()  # tight
            covered[x : x + w, y : y + h, box["slice"]] = 1
            assert box["label"] == item["pathology"]
        assert not np.any(mask & ~covered)


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 1)))
def test_boxes_are_tight_and_cover_any_mask(mask):
    covered = np.zeros_like(mask)
    for box in find_boxes(mask, "x"):
        x, y, w, h = box["box"]
        part = mask[x : x + w, y : y + h, box["slice"]]
        assert part.shape == (w, h)
        assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
        covered[x : x + w, y : y + h, box["slice"]] = 1
    assert not np.any((mask == 1) & (covered == 0))


def test_same_options_give_the_same_bytes_whatever_the_workers(tmp_path):
    one = make_phantom_cohort(tmp_path / "a", **WITH_LESION, workers=1).parent
    two = make_phantom_cohort(tmp_path / "b", **WITH_LESION, workers=3).parent
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in two.iterdir())
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_second_call_does_nothing(phantom, monkeypatch):
    monkeypatch.setattr(module, "simulate", None)
    monkeypatch.setattr(module, "simulate_plane", None)
    content = json.loads(phantom.read_text())["options"]
    assert make_phantom_cohort(phantom.parent.parent, **content) == phantom


def test_other_options_have_another_folder():
    options = {
        name: value
        for name, value in make_phantom_cohort.__kwdefaults__.items()
        if name != "workers"
    }
    other = [{}, {"extracted": True}, {"seed": 1}, {"training": 1, "lesions": 0}]
    assert [module._folder_name(options | more) for more in other] == [
        f"phantom-{module.VERSION}{end}"
        for end in ("", "-extracted1", "-seed1", "-training1-lesions0")
    ]


def test_interrupted_making_leaves_no_datalist_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    real, numbers = module.simulate_plane, []

    def stop_at_the_second(template, seed):
        numbers.append(seed[1])
        if seed[1] == 1:
            raise KeyboardInterrupt
        return real(template, seed)

    monkeypatch.setattr(module, "simulate_plane", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        make_phantom_cohort(tmp_path, **TINY, workers=1)
    folder = next(tmp_path.iterdir())
    assert not (folder / "datalist.json").exists() and not hidden(folder)
    finished = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert finished

    numbers.clear()
    monkeypatch.setattr(
        module, "simulate_plane", lambda t, seed: numbers.append(seed[1]) or real(t, seed)
    )
    make_phantom_cohort(tmp_path, **TINY)
    assert 1 in numbers and 0 not in numbers
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())


def test_two_makers_at_once_agree(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: make_phantom_cohort(tmp_path, **TINY), range(2))
    assert first == second
    alone = make_phantom_cohort(tmp_path / "alone", **TINY)
    for path in alone.parent.iterdir():
        assert path.read_bytes() == (first.parent / path.name).read_bytes()
    assert not hidden(tmp_path)


@pytest.mark.slow
def test_two_processes_at_once_agree(tmp_path):
    code = f"from pathology_screen.cohorts import *; print(make_phantom_cohort({str(tmp_path)!r}, **{TINY!r}))"
    makers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [maker.communicate()[0].strip() for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0] and outputs[0] == outputs[1]
    alone = make_phantom_cohort(tmp_path / "alone", **TINY).parent
    assert all(
        path.read_bytes() == (Path(outputs[0]).parent / path.name).read_bytes()
        for path in alone.iterdir()
    )


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PATHOLOGY_SCREEN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("PATHOLOGY_SCREEN_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "pathology_screen"


@pytest.mark.parametrize("options", [{"training": -1}, {"lesions": -2}, {"workers": 0}])
def test_nonsense_is_refused(tmp_path, options):
    with pytest.raises(ConfigError):
        make_phantom_cohort(tmp_path, **options)


def test_readers_accept_every_volume_as_it_is_stored(phantom):
    for item in json.loads(phantom.read_text())["test"]:
        stored = nib.load(phantom.parent / item["image"])
        scan = read_scan(phantom.parent / item["image"])
        assert np.allclose(scan.affine, stored.affine, atol=1e-4)
        air = stored.get_fdata()[scan.voxels > 0] - scan.voxels[scan.voxels > 0]
        assert np.ptp(air) == 0 and 0 <= air[0] < 20  # its least noise is the reader's background
