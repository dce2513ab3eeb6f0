"""What healthy people look like to one method: fitted, kept in a file, asked, and compared.

`calibration.folder` fits on a folder of scans, past the gate: import it by its own name.
"""

from pathology_screen.calibration.fit import Calibrator, calibrate, fit_calibration
from pathology_screen.calibration.store import (
    Calibration,
    Rate,
    calibration_beside,
    count_rate,
    fewest_people,
    pixel_threshold,
)

__all__ = [
    "Calibration",
    "Calibrator",
    "Rate",
    "calibrate",
    "calibration_beside",
    "count_rate",
    "fewest_people",
    "fit_calibration",
    "pixel_threshold",
]
