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


def z_scored(volume):
    inside = volume > 0
    return within(volume > 0, (volume - volume[inside].mean()) / volume[inside].std(), 0)


def padded_corners(volume, value):
    i, j, _ = np.indices(volume.shape)
    return within((i - 22) ** 2 + (j - 26) ** 2 <= 26**2, volume, value)


def within(mask, volume, other):
    return np.where(mask, volume, other).astype(np.float32)


HEAD, NOISY = head(), head(20)
BRAIN = (np.clip(1 - radius(20, 12), 0, None) ** 0.5 * 1000).astype(np.float32)
"""As an extracted brain: its intensities begin near 0 at the outside."""
CUT = NOISY[14:30, 16:36]
"""A field of view inside the head: the darkest is the background."""


@pytest.mark.parametrize("volume", [HEAD, BRAIN, NOISY, CUT], ids=["head", "brain", "noise", "cut"])
@pytest.mark.parametrize("constant", [1000, -500, 7, -1])
def test_an_added_constant_plays_no_part(tmp_path, volume, constant):
    plain = above_background(volume, AFFINE)
    assert plain.min() == 0 and plain.dtype == np.float32
    nib.save(nib.Nifti1Image(volume + np.float32(constant), AFFINE), tmp_path / "s.nii")
    np.testing.assert_allclose(read_scan(tmp_path / "s.nii").voxels, plain, atol=2e-3)


def test_what_begins_at_zero_is_left_as_it_is_and_the_floor_of_noise_taken_off():
    point = np.zeros((44, 52, 20), np.float32)
    point[20, 20, 10] = 5
    far_above = within(HEAD > 0, HEAD + 2000, 0)
    for volume in (HEAD, BRAIN, point, far_above, within(HEAD > 0, 1, 0)):
        assert above_background(volume, AFFINE) is volume
    assert np.abs(above_background(NOISY, AFFINE) - NOISY).max() < 20


@pytest.mark.parametrize("volume, shift, scale", [(BRAIN, 500, 500), (HEAD, 186, 306)])
def test_scaled_to_minus_one_to_one_or_z_scored_as_a_whole(volume, shift, scale):
    scaled = ((volume - shift) / scale).astype(np.float32)
    np.testing.assert_allclose(above_background(scaled, AFFINE) * scale, volume, atol=1e-2)


NOISE = np.random.default_rng(1).uniform(-0.5, 0.5, HEAD.shape)
UNREADABLE = {
    **{f"z-scored {n}": (z_scored(HEAD) + n, r"no_background.*\d+% is darker") for n in (0, 5)},
    **{f"z-scored brain {n}": (z_scored(BRAIN) + n, r"no_back.*\d+% is darker") for n in (0, 5)},
    "inverted": (1000 - HEAD, "no_background"),
    "padding of -1000": (within(BRAIN > 0, BRAIN, -1000), "no_background.*padding"),
    "padding of -32768": (within(BRAIN > 0, BRAIN, -32768), "no_background.*padding"),
    "MP2RAGE": (within(HEAD > 0, HEAD / 800 - 0.75, NOISE), "mp2rage.*MP2RAGE"),
    "masked MP2RAGE": (within(HEAD > 0, HEAD / 800 - 0.75, 0), "mp2rage.*MP2RAGE"),
}


@pytest.mark.parametrize("volume, message", UNREADABLE.values(), ids=UNREADABLE)
def test_refused(volume, message):
    with pytest.raises(InputError, match=message):
        above_background(volume.astype(np.float32), AFFINE)


def test_denoised_mp2rage_is_read():
    uniform = HEAD / 1000 - np.float32(0.5)
    np.testing.assert_allclose(above_background(uniform, AFFINE), HEAD / 1000, atol=1e-6)


@pytest.mark.parametrize("value", [-32768, -2000, -1000])
@pytest.mark.parametrize("constant", [0, 300])
def test_padding_far_below_does_not_count(value, constant):
    plain = above_background(padded_corners(head(15), 0), AFFINE)
    volume = padded_corners(head(15) + constant, value)
    found, inside = above_background(volume, AFFINE), volume != value
    assert np.all(found[~inside] == 0)
    assert np.abs(found - plain)[inside].max() < 15


def read_dicom(folder, volume, dtype, **attributes):
    """The voxels that are read of a volume (44, 52, levels) as a series."""
    stored = volume.transpose(2, 1, 0).astype(dtype)
    datasets = dicom_datasets(stored, spacing=(8, 4, 4))
    for dataset in datasets:
        for keyword, value in attributes.items():
            kind = "DS" if "Rescale" in keyword else "US" if dtype == "uint16" else "SS"
            dataset.add_new(keyword, kind, value)
    return read_scan(save(datasets, folder)).voxels


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
    volume, attributes = head(15, levels=6), {"PixelPaddingValue": value}
    attributes |= {} if limit is None else {"PixelPaddingRangeLimit": limit}
    corners = padded_corners(volume, -1) == -1
    stored = within(corners, value if limit is None else (value + limit) // 2, volume)
    rescale = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    found = read_dicom(tmp_path, stored, dtype, **rescale, **attributes)
    assert np.all(found[corners] == 0)
    tissue = volume > 100
    np.testing.assert_allclose(found[tissue], slope * volume[tissue].astype(int), atol=15 * slope)


def test_declared_padding_that_is_the_background_changes_nothing(tmp_path):
    plain, declared = (
        read_dicom(tmp_path / str(len(options)), head(levels=6), "uint16", **options)
        for options in ({}, {"PixelPaddingValue": 0})
    )
    np.testing.assert_array_equal(declared, plain)
