"""Unsupervised pathology screening on T1-weighted brain MRI: learn healthy brains, paint the
pseudo-healthy version of a scan, show where it differs.

`__all__` lists what users call; each name is imported when it is first used, so that importing this
package imports neither torch nor MONAI. Make an embedded cohort, read a scan of it, and screen it:

>>> import tempfile
>>> from pathology_screen import Predictor, Screener, load_datalist, make_phantom_cohort, read_scan
>>> numbers = {"training": 1, "validation": 0, "calibration": 0, "healthy": 0, "lesions": 0}
>>> datalist = make_phantom_cohort(tempfile.mkdtemp(), **numbers)
>>> item, = load_datalist(datalist, "training")
>>> item["subject"], item["axial_slice"]
('P000', True)
>>> scan = read_scan(item["image"])
>>> scan.voxels.shape, scan.voxels.dtype.name
((233, 197, 1), 'float32')

`Screener` gives an outcome, `Predictor` what the network alone makes of a slice:

>>> screener = Screener.from_bundle("ra")
>>> result = screener(scan)
>>> result.outcome in ("normal", "suspicious"), 0 <= result.percentile <= 100
(True, True)
>>> result.map_volume.shape
(233, 197, 1)
>>> screener("missing.nii.gz").code
'not_found'
>>> predictor = Predictor.load("ra")
>>> image = predictor.prepare(item)["image"]
>>> output, maps, scores = predictor.predict(image[None])
>>> tuple(output.shape), tuple(maps.shape), tuple(scores.shape)
((1, 1, 128, 128), (1, 1, 128, 128), (1,))

`Batch` does it for many scans, `write_result` writes one, `Inspector` asks the gate alone:

>>> from pathlib import Path
>>> from pathology_screen import Batch, Inspector, list_items, write_result
>>> folder = Path(tempfile.mkdtemp())
>>> batch = Batch(screener.judge, list_items(item["image"]), folder / "results")
>>> batch.screen(screener)[0]["outcome"] == result.outcome
True
>>> Inspector.from_bundle("ra")(item["image"]).refusal is None
True
>>> record = write_result(result, "demo", folder / "results", report=False)
>>> record["outcome"] == result.outcome
True

A calibration says what healthy people look like; make your own of a folder of their scans:

>>> from pathology_screen import calibrate_on, calibration_beside
>>> calibration_beside(predictor).percentile(result.score) == result.percentile
True
>>> own = calibrate_on(item["image"], folder / "calibration.json", subject_fpr=0.5)
>>> own.calibration.n_subjects, own.refused
(1, {})

What cannot be read faithfully is refused with a code of `errors.REFUSALS`:

>>> from pathology_screen import InputError
>>> try:
...     read_scan("missing.nii.gz")
... except InputError as error:
...     print(error.code)
not_found
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "calibration": ["Calibration", "calibration_beside"],
    "calibration.folder": ["calibrate_on"],
    "cohorts": ["load_datalist", "make_phantom_cohort", "resolve_dataset"],
    "errors": ["ArtifactError", "ConfigError", "InputError", "ScreeningError"],
    "io": ["Scan", "discover", "read_scan"],
    "outputs.results": ["write_result"],
    "predictor": ["Predictor"],
    "registry": ["METHODS"],
    "screening": ["Inspector", "Screener", "ScreeningResult"],
    "screening.batch": ["Batch", "list_items"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)
"""What users call, see docs/python.md."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
