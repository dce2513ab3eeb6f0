"""A screening run as the bundles make it, transforms, engine and handlers, around a network that needs no training."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, CopyItemsd, Invertd

from pathology_screen.anomaly import AnomalyMapd
from pathology_screen.engines import prepare_reconstruction
from pathology_screen.outputs import ScreeningWriter
from pathology_screen.screening import AcceptedScans
from pathology_screen.screening.judge import Judge
from pathology_screen.transforms import eval_transforms

VOLUMES = ["anomaly_map_volume", "reconstruction_volume"]


@pytest.fixture
def phantom(phantoms) -> nib.Nifti1Image:
    """The healthy scan, RAS and float32: about 200 x 230 pixels of 1 mm, eleven levels of 5 mm."""
    image = nib.load(phantoms[0])
    return nib.Nifti1Image(np.asarray(image.dataobj, dtype=np.float32), image.affine)


@pytest.fixture
def scan(phantom, tmp_path):
    """Function that saves the phantom in any orientation and with any header texts, and gives its item."""

    def save(name="scan", axcodes="RAS", **texts):
        target = nib.orientations.axcodes2ornt(axcodes)
        image = phantom.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(phantom.affine), target))
        for field, text in texts.items():
            image.header[field] = text
        nib.save(image, tmp_path / f"{name}.nii.gz")
        return {"image": str(tmp_path / f"{name}.nii.gz"), "name": name}

    return save


@pytest.fixture
def screen(tmp_path, loaded, make_calibration):
    """Function that screens items into a folder and gives the writer."""

    def run(items, output=tmp_path / "out", network=loaded.network, calibration=None, rate=0.05):
        preprocessing = eval_transforms(level=loaded.level, **loaded.preprocessing_options)
        dataset = AcceptedScans(items, preprocessing)
        judge = Judge(loaded.method, calibration or make_calibration(), rate)
        writer = ScreeningWriter(str(output), judge, dataset, loaded.level)
        back = Invertd(VOLUMES, preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True)
        SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(dataset, batch_size=1, num_workers=0),
            network=network,
            prepare_batch=prepare_reconstruction,
            postprocessing=Compose(
                [
                    AnomalyMapd(anomaly_map=loaded.scoring),
                    CopyItemsd(["anomaly_map", "pred"], names=VOLUMES),
                    back,
                ]
            ),
            val_handlers=[writer],
        ).run()
        return writer

    return run


@pytest.fixture
def broken(phantom, tmp_path):
    """Item of a scan with a voxel that is no number."""
    voxels = np.array(phantom.dataobj)
    voxels[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(voxels, phantom.affine), tmp_path / "broken.nii.gz")
    return {"image": str(tmp_path / "broken.nii.gz"), "name": "broken"}
