"""Real scans, from the file to the standard plane and back: the right place, the right size, the
right geometry."""

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from pathology_screen.bundles import read_settings
from pathology_screen.io import read_scan
from pathology_screen.predictor import build_preprocessing
from pathology_screen.transforms import LoadScand, slice_affines, slice_to_scan

TEMPLATE_BRAIN = {"length": (171, 8), "width": (139, 10)}
"""Of the MNI152 brain in the plane, in mm, and the mm by which a registered brain may differ."""

pytestmark = [pytest.mark.needs_shared, pytest.mark.slow]


def mark_nifti(source, target, voxel):
    image = nib.load(source)
    voxels = np.asarray(image.dataobj).copy()
    voxels[tuple(slice(max(v - 1, 0), v + 2) for v in voxel)] = voxels.min()  # amid white matter
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), target)


def mark_dicom(source, target, world):
    """Paint a spot of about 3 mm around a place (RAS, mm) into a series."""
    target.mkdir()
    for path in source.iterdir():
        data = dcmread(path)
        along, down = np.reshape(data.ImageOrientationPatient, (2, 3)).astype(float)
        offset = np.asarray(world) * (-1, -1, 1) - np.asarray(data.ImagePositionPatient, float)
        if abs(offset @ np.cross(along, down)) < 3.5:
            row = round(offset @ down / data.PixelSpacing[0])
            column = round(offset @ along / data.PixelSpacing[1])
            pixels = data.pixel_array.copy()
            pixels[row - 3 : row + 4, column - 3 : column + 4] = pixels.min()
            data.PixelData = pixels.tobytes()
        data.save_as(target / path.name)


NIFTI = ("unseen_sites/ds000011/sub-05_T1w.nii.gz", "whole_head/IXI012-HH-1211_T1.nii.gz")


@pytest.mark.parametrize("name", [*NIFTI, "dicom_hanke_t1"])
def test_a_marked_place_comes_back_to_its_place(shared_data, tmp_path, name):
    """The mark, in the plane and amid the brain, is where the volumes with and without it differ
    most, where both lie in the standard space alike."""
    path = shared_data / name
    preprocessing = build_preprocessing(read_settings("ra")["preprocessing"])
    clean = preprocessing({"image": str(path)})
    image = clean["image"]
    brain = np.asarray(clean["brain"][0]) > 0.5  # the mask is left on the plane of 1 mm
    for axis, (mean, differs) in zip((1, 0), TEMPLATE_BRAIN.values()):
        assert np.ptp(np.flatnonzero(brain.any(axis))) == pytest.approx(mean, abs=differs)

    scan, plain = read_scan(path), slice_to_scan(preprocessing, image, image)
    assert plain.shape[1:] == scan.voxels.shape
    np.testing.assert_allclose(plain.affine, scan.affine, atol=1e-9)
    world = (slice_affines(image)[0] @ [48, 64, 0, 1])[:3]
    voxel = np.round(nib.affines.apply_affine(np.linalg.inv(scan.affine), world)).astype(int)
    copy = tmp_path / path.name
    if path.is_dir():
        mark_dicom(path, copy, world)
    else:
        mark_nifti(path, copy, voxel)
    place = {name: image.meta[name] for name in ("to_scan", "fit")}
    marked = {"image": str(copy)}
    for step in preprocessing.transforms:
        marked = step(marked)
        if isinstance(step, LoadScand):
            marked["image"].meta.update(place)
    marked = marked["image"]
    back = np.asarray(slice_to_scan(preprocessing, marked, marked)[0])
    difference = np.abs(back - np.asarray(plain[0]))
    place = np.unravel_index(difference.argmax(), difference.shape)
    found, placed = nib.affines.apply_affine(scan.affine, [place, voxel])
    assert np.linalg.norm(found - placed) < 2 * nib.affines.voxel_sizes(scan.affine).max()
