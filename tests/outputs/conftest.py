"""A screening run as the bundles make it, transforms, engine and handlers, around a network that
needs no training."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose

from pathology_screen.anomaly import AnomalyMapd
from pathology_screen.engines import prepare_reconstruction
from pathology_screen.outputs import ScreeningWriter
from pathology_screen.screening import AcceptedScans
from pathology_screen.screening.judge import Judge


@pytest.fixture
def result(brain, make_brain_screener):
    """Of a volume, with several regions."""
    return make_brain_screener(pixel_threshold=0.093)(brain)


@pytest.fixture
def single(slices, make_screener):
    """Of a single slice, which is not registered."""
    return make_screener()(slices[1])


@pytest.fixture
def scan(brain, tmp_path):
    """Function that saves the brain in any orientation and with any header texts, and gives its
    item."""

    def write(name="scan", axcodes="RAS", **texts):
        stored = nib.load(brain)
        axes = nib.io_orientation(stored.affine), nib.orientations.axcodes2ornt(axcodes)
        image = stored.as_reoriented(nib.orientations.ornt_transform(*axes))
        for field, text in texts.items():
            image.header[field] = text
        nib.save(image, tmp_path / f"{name}.nii.gz")
        return {"image": str(tmp_path / f"{name}.nii.gz"), "name": name}

    return write


@pytest.fixture
def screen(tmp_path, brain_predictor, make_brain_screener):
    """Function that screens items into the folder "out" and gives the writer."""

    def run(items, network=brain_predictor.network, rate=0.05, **options):
        calibration = make_brain_screener(0.5, **options).judge.calibration
        dataset = AcceptedScans(items, brain_predictor)
        judge = Judge(brain_predictor, calibration, rate)
        writer = ScreeningWriter(str(tmp_path / "out"), judge, dataset)
        SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(dataset, batch_size=1, num_workers=0),
            network=network,
            prepare_batch=prepare_reconstruction,
            postprocessing=Compose([AnomalyMapd(anomaly_map=brain_predictor.scoring)]),
            val_handlers=[writer],
        ).run()
        return writer

    return run


@pytest.fixture
def broken(brain, tmp_path):
    """Item of a scan with a voxel that is no number."""
    image = nib.load(brain)
    voxels = np.array(image.dataobj, dtype=np.float32)
    voxels[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), tmp_path / "broken.nii.gz")
    return {"image": str(tmp_path / "broken.nii.gz"), "name": "broken"}
