"""Real scans, from the file to the network grid and back: the right place, the right size, the right geometry."""

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Invertd
from pydicom import dcmread

from pathology_screen.io import read_scan
from pathology_screen.transforms import eval_transforms

OASIS_BRAIN = {"length": (169, 8), "width": (137, 8)}
"""Mean of N000-N049 at the default level in mm, and the per cent by which another brain may differ."""

pytestmark = pytest.mark.needs_shared


def mark_nifti(source, target, voxel):
    image = nib.load(source)
    voxels = np.asarray(image.dataobj).copy()
    voxels[tuple(slice(max(v - 1, 0), v + 2) for v in voxel)] = voxels.max()
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), target)


def mark_dicom(source, target, world):
    """Paint a spot of about 3 mm around a place (RAS, mm) into every file of a series that passes by it."""
    target.mkdir()
    for path in source.iterdir():
        data = dcmread(path)
        along, down = np.reshape(data.ImageOrientationPatient, (2, 3)).astype(float)
        offset = np.asarray(world) * (-1, -1, 1) - np.asarray(data.ImagePositionPatient, float)
        if abs(offset @ np.cross(along, down)) < 3.5:
            row, column = round(offset @ down / data.PixelSpacing[0]), round(offset @ along / data.PixelSpacing[1])
            pixels = data.pixel_array.copy()
            pixels[row - 3 : row + 4, column - 3 : column + 4] = pixels.max()
            data.PixelData = pixels.tobytes()
        data.save_as(target / path.name)


@pytest.mark.parametrize("name", ["oasis/sub-N003_T1w.nii.gz", "whole_head/IXI012-HH-1211_T1.nii.gz", "dicom_hanke_t1"])
def test_a_marked_place_comes_back_to_its_place(shared_data, tmp_path, name):
    """The mark, 20 mm in front of the brain's centre, is where the slices with and without it differ most."""
    path = shared_data / name
    transforms = eval_transforms()
    invert = Invertd("image", transforms, orig_keys="image", nearest_interp=False)
    clean = transforms({"image": str(path)})
    grid = np.asarray(clean["image"][0])
    rows, columns = (np.flatnonzero((grid > 0.1).any(axis)) for axis in (1, 0))
    level = clean["image"].meta["level"]
    for extent, (mean, per_cent) in zip((np.ptp(rows), np.ptp(columns)), OASIS_BRAIN.values()):
        assert extent * 208 / 128 == pytest.approx(mean, rel=per_cent / 100)

    plain = invert(dict(clean))["image"]
    scan = read_scan(path)
    assert plain.shape[1:] == scan.voxels.shape
    np.testing.assert_allclose(plain.affine, scan.affine, atol=1e-9)
    shown = np.argwhere(np.asarray(plain[0]) > 0.3)
    world = nib.affines.apply_affine(scan.affine, shown).mean(0) + (0, 20, 0)
    voxel = np.round(nib.affines.apply_affine(np.linalg.inv(scan.affine), world)).astype(int)

    copy = tmp_path / path.name
    if path.is_dir():
        mark_dicom(path, copy, world)
    else:
        mark_nifti(path, copy, voxel)
    marked = transforms({"image": str(copy), "level": level})
    difference = np.abs(np.asarray(invert(dict(marked))["image"][0]) - np.asarray(plain[0]))
    found = nib.affines.apply_affine(scan.affine, np.unravel_index(difference.argmax(), difference.shape))
    placed = nib.affines.apply_affine(scan.affine, voxel)
    assert np.linalg.norm(found - placed) < 2 * nib.affines.voxel_sizes(scan.affine).max()
