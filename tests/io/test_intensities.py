"""The background becomes 0, whatever constant was added, or the scan is refused for what it is."""

import nibabel as nib
import numpy as np
import pytest
from scan_builders import dicom_datasets, save

from pathology_screen.errors import InputError
from pathology_screen.io import read_scan
from pathology_screen.io.intensities import above_background

AFFINE = np.diag([4.0, 4.0, 8.0, 1.0])


def radius(levels, height):
    i, j, k = np.indices((44, 52, levels), float)
    return np.sqrt(((i - 22) / 17) ** 2 + ((j - 26) / 20) ** 2 + ((k - levels / 2) / height) ** 2)


def head(noise=0.0, levels=20):
    """A ball of tissue, 200 to 1000, in air with Rayleigh noise: (44, 52, levels)."""
    inside = radius(levels, levels) < 1
    generator = np.random.default_rng(0)
    tissue = np.where(inside, 200 + 800 * generator.random(inside.shape), 0)
    if noise:
        real, imaginary = generator.normal(0, noise, (2, *inside.shape))
        tissue = np.hypot(tissue + real, imaginary)
    return tissue.astype(np.float32)


def brain():
    """As an extracted brain: its intensities begin near 0 at the outside."""
    return (np.clip(1 - radius(20, 12), 0, None) ** 0.5 * 1000).astype(np.float32)


def z_scored(volume):
    inside = volume > 0
    scored = (volume - volume[inside].mean()) / volume[inside].std()
    return np.where(inside, scored, 0).astype(np.float32)


def padded_corners(volume, value):
    i, j, _ = np.indices(volume.shape)
    return np.where((i - 22) ** 2 + (j - 26) ** 2 > 26**2, value, volume).astype(np.float32)


@pytest.mark.parametrize("make", [head, brain, lambda: head(20)], ids=["head", "brain", "noise"])
@pytest.mark.parametrize("constant", [1000, -500, 7, -1])
def test_an_added_constant_plays_no_part(make, constant):
    plain = above_background(make(), AFFINE)
    assert plain.min() == 0 and plain.dtype == np.float32
    raised = above_background(make() + np.float32(constant), AFFINE)
    np.testing.assert_allclose(raised, plain, atol=2e-3)


def point():
    voxels = np.zeros((44, 52, 20), np.float32)
    voxels[20, 20, 10] = 5
    return voxels


FAR_ABOVE = np.where(head() > 0, head() + 2000, 0).astype(np.float32)
MASK = (head() > 0).astype(np.float32)


@pytest.mark.parametrize("volume", [head(), brain(), FAR_ABOVE, MASK, point()])
def test_what_begins_at_zero_is_left_as_it_is(volume):
    assert above_background(volume, AFFINE) is volume


def test_the_floor_of_the_noise_is_taken_off():
    noisy = head(20)
    assert np.abs(above_background(noisy, AFFINE) - noisy).max() < 20


@pytest.mark.parametrize("volume, shift, scale", [(brain(), 500, 500), (head(), 186, 306)])
def test_scaled_to_minus_one_to_one_or_z_scored_as_a_whole(volume, shift, scale):
    scaled = ((volume - shift) / scale).astype(np.float32)
    np.testing.assert_allclose(above_background(scaled, AFFINE) * scale, volume, atol=1e-2)


@pytest.mark.parametrize("make", [head, brain])
@pytest.mark.parametrize("constant", [0, 5])
def test_z_scored_inside_the_mask_is_refused(make, constant):
    with pytest.raises(InputError, match=r"no_background.*\d+% is darker"):
        above_background(z_scored(make()) + np.float32(constant), AFFINE)


def test_inverted_is_refused():
    with pytest.raises(InputError, match="no_background"):
        above_background(1000 - head(), AFFINE)


@pytest.mark.parametrize("value", [-32768, -2000, -1000])
@pytest.mark.parametrize("constant", [0, 300])
def test_padding_far_below_does_not_count(value, constant):
    plain = above_background(padded_corners(head(15), 0), AFFINE)
    volume = padded_corners(head(15) + constant, value)
    inside = volume != value
    found = above_background(volume, AFFINE)
    assert np.all(found[~inside] == 0)
    assert np.abs(found - plain)[inside].max() < 15


@pytest.mark.parametrize("value", [-1000, -32768])
def test_tissue_in_padding_alone_is_refused(value):
    with pytest.raises(InputError, match="no_background.*padding"):
        above_background(np.where(brain() > 0, brain(), value).astype(np.float32), AFFINE)


@pytest.mark.parametrize("masked", [True, False])
def test_mp2rage_is_named(masked):
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, head().shape)
    uniform = np.where(head() > 0, head() / 800 - 0.75, 0 if masked else noise).astype(np.float32)
    with pytest.raises(InputError, match="mp2rage.*MP2RAGE"):
        above_background(uniform, AFFINE)


def test_denoised_mp2rage_is_read():
    uniform = head() / 1000 - np.float32(0.5)
    np.testing.assert_allclose(above_background(uniform, AFFINE), head() / 1000, atol=1e-6)


def test_a_border_of_tissue_hides_nothing():
    """A field of view inside the head: the darkest is the background."""
    inside = head(20)[14:30, 16:36]
    plain, raised = (above_background(inside + np.float32(c), AFFINE) for c in (0, 1000))
    np.testing.assert_allclose(raised, plain, atol=1e-3)


def test_nifti(tmp_path):
    volumes = {"plain": head(), "raised": head() + 1000, "scored": z_scored(head())}
    for name, volume in volumes.items():
        nib.save(nib.Nifti1Image(volume, AFFINE), tmp_path / f"{name}.nii")
    plain, raised = (read_scan(tmp_path / f"{name}.nii").voxels for name in ("plain", "raised"))
    np.testing.assert_allclose(raised, plain, atol=1e-3)
    with pytest.raises(InputError, match="no_background"):
        read_scan(tmp_path / "scored.nii")


STORED = head(15, levels=6).transpose(2, 1, 0)


@pytest.mark.parametrize(
    "value, limit, dtype",
    [
        (-32768, None, "int16"),
        (-2000, None, "int16"),
        (65535, None, "uint16"),
        (4000, None, "int16"),
        (-900, -850, "int16"),
    ],
)
@pytest.mark.parametrize("slope, intercept", [(1, 0), (0.5, -100)])
def test_padding_value_of_dicom(tmp_path, value, limit, dtype, slope, intercept):
    """Voxels of PixelPaddingValue are background, whatever the rescale makes of them."""
    corners = padded_corners(STORED.transpose(2, 1, 0), 1).transpose(2, 1, 0) == 1
    padding = value if limit is None else (value + limit) // 2
    stored = np.where(corners, padding, STORED).astype(dtype)
    attributes = {"PixelPaddingValue": value}
    attributes |= {} if limit is None else {"PixelPaddingRangeLimit": limit}
    rescale = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    kind = "US" if dtype == "uint16" else "SS"
    datasets = dicom_datasets(stored, spacing=(8, 4, 4), **rescale)
    for dataset in datasets:
        for keyword, number in attributes.items():
            dataset.add_new(keyword, kind, number)
    found = read_scan(save(datasets, tmp_path)).voxels
    assert np.all(found[corners.transpose(2, 1, 0)] == 0)
    tissue = (STORED > 100).transpose(2, 1, 0)
    expected = slope * STORED.transpose(2, 1, 0).astype(int)[tissue]
    np.testing.assert_allclose(found[tissue], expected, atol=15 * slope)


def test_declared_padding_that_is_the_background_changes_nothing(tmp_path):
    stored = head(levels=6).transpose(2, 1, 0).astype("uint16")
    plain = read_scan(save(dicom_datasets(stored, spacing=(8, 4, 4)), tmp_path / "a")).voxels
    declared = dicom_datasets(stored, spacing=(8, 4, 4), PixelPaddingValue=0)
    np.testing.assert_array_equal(read_scan(save(declared, tmp_path / "b")).voxels, plain)
