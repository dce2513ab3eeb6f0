"""Tissue against background."""

from __future__ import annotations

import numpy as np

BACKGROUND_FRACTION = 0.1


def tissue_mask(image: np.ndarray) -> np.ndarray:
    """Tell tissue from background by intensity.

    Tissue is what exceeds a tenth of the 99th percentile of the positive intensities. Air in a
    magnitude image lies below that (2 to 5 % of the brightest tissue), all but the darkest fluid
    above it, and in a brain-extracted image, whose background is zero, the rule keeps the brain. It
    does not depend on the unit of intensity, and hardly on how much background surrounds the head.

    Args:
        image: intensities of any shape; negative values are background.

    Returns:
        bool, same shape; all False where no intensity is positive.
    """
    positive = image[image > 0]
    if positive.size == 0:
        return np.zeros(image.shape, bool)
    return image > BACKGROUND_FRACTION * np.percentile(positive, 99)
