"""The anomaly map in the postprocessing of a bundle."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, Orientationd, SpatialPadd

from pathology_screen.anomaly import AnomalyMap, AnomalyMapd


@pytest.fixture
def scan() -> MetaTensor:
    """A slice of 40 x 60 pixels of 2 x 1.5 mm, first axis to the left, second to the front."""
    pixels = torch.rand(40, 60, generator=torch.Generator().manual_seed(0))
    return MetaTensor(
        pixels, affine=np.array([[-2.0, 0, 0, 30], [0, 1.5, 0, -40], [0, 0, 5, 12], [0, 0, 0, 1]])
    )


def test_map_and_score_of_one_image(images, reconstructions):
    anomaly_map = AnomalyMap("none")
    data = {"image": images[0], "pred": reconstructions[0], "name": "a"}
    result = AnomalyMapd(anomaly_map=anomaly_map)(data)
    expected = anomaly_map(images[:1], reconstructions[:1])
    torch.testing.assert_close(result["anomaly_map"], expected[0], rtol=0, atol=0)
    assert result["score"] == anomaly_map.score(None, expected).item()
    assert isinstance(result["score"], float)
    assert set(data) == {"image", "pred", "name"}


@pytest.mark.parametrize("prediction", [torch.Tensor, MetaTensor])
def test_invertd_takes_map_and_reconstruction_back_to_the_scan(scan, prediction):
    preprocessing = Compose(
        [
            EnsureChannelFirstd("image", channel_dim="no_channel"),
            Orientationd("image", axcodes="PL"),
            SpatialPadd("image", (64, 64)),
        ]
    )
    data = preprocessing({"image": scan})
    data["pred"] = prediction(data["image"].as_tensor() * 0.5)
    data = AnomalyMapd(anomaly_map=AnomalyMap("none", equalize=False))(data)
    assert data["anomaly_map"].applied_operations == data["image"].applied_operations
    np.testing.assert_array_equal(data["anomaly_map"].affine, data["image"].affine)

    keys = ("anomaly_map", "pred")
    data = Invertd(keys, transform=preprocessing, orig_keys="image")(data)
    for key in keys:  # both are half of the image here
        np.testing.assert_array_equal(data[key][0].numpy(), scan.numpy() * 0.5)
        np.testing.assert_array_equal(data[key].affine, scan.affine)
