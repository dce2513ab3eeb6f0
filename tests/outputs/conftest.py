"""A screening run on small scans: the transforms, engine and handlers of the bundles around a network of no weights."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, CopyItemsd, Invertd

from pathology_screen.anomaly import AnomalyMap, AnomalyMapd
from pathology_screen.calibration import Calibration
from pathology_screen.engines import prepare_reconstruction
from pathology_screen.outputs import ScreeningWriter
from pathology_screen.screening import AcceptedScans
from pathology_screen.transforms import eval_transforms

LEVELS = 8
AFFINE = np.array([[3.0, 0, 0, -58.5], [0, 3, 0, -70.5], [0, 0, 5, -17.5], [0, 0, 0, 1]])


class Darkness(torch.nn.Module):
    """Paints every slice at half its intensity, so that the plain residual is the other half."""

    def forward(self, x):
        return x / 2


@pytest.fixture
def blob() -> np.ndarray:
    """(40, 48, LEVELS) float32 in RAS: an ellipse with a bright square that wanders from level to level."""
    x, y = np.meshgrid(np.arange(40) - 19.5, np.arange(48) - 23.5, indexing="ij")
    volume = np.repeat((400.0 * ((x / 17) ** 2 + (y / 21) ** 2 < 1))[..., None], LEVELS, axis=-1)
    for level in range(LEVELS):
        volume[10 + level : 16 + level, 28 - 2 * level : 36 - 2 * level, level] = 1000
    return volume.astype(np.float32)


@pytest.fixture
def calibration() -> Calibration:
    rates = {"all_pixels": 0.05, "brain_pixels": 0.1}
    return Calibration(0.3, 0.05, rates, (0.02, 0.04, 0.2), (0, 1, 2), {"weights_sha256": "a" * 64, "level": "middle"})


@pytest.fixture
def scan(blob, tmp_path):
    """Function that saves the blob as NIfTI, in any orientation and with any header texts, and gives its item."""

    def save(name="scan", axcodes="RAS", **texts):
        image = nib.Nifti1Image(blob, AFFINE)
        target = nib.orientations.axcodes2ornt(axcodes)
        image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), target))
        for field, text in texts.items():
            image.header[field] = text
        nib.save(image, tmp_path / f"{name}.nii.gz")
        return {"image": str(tmp_path / f"{name}.nii.gz"), "name": name}

    return save


@pytest.fixture
def screen(tmp_path, calibration):
    """Function that screens items into a folder and gives the writer; the slice is the middle one, read alone where the
    format allows it."""

    def run(items, output=tmp_path / "out", network=None, **options):
        options = {"level": "middle", "domain": "whole_head", "size": 96} | options
        level = options["level"]
        preprocessing = eval_transforms(**options)
        dataset = AcceptedScans(items, preprocessing)
        writer = ScreeningWriter(str(output), calibration, dataset, "ra", level)
        volumes = ["anomaly_map_volume", "reconstruction_volume"]
        back = Invertd(volumes, preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True)
        SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(dataset, batch_size=1, num_workers=0),
            network=network or Darkness(),
            prepare_batch=prepare_reconstruction,
            postprocessing=Compose(
                [
                    AnomalyMapd(anomaly_map=AnomalyMap("none", equalize=False)),
                    CopyItemsd(["anomaly_map", "pred"], names=volumes),
                    back,
                ]
            ),
            val_handlers=[writer],
        ).run()
        return writer

    return run
