"""What a screening run leaves behind."""

from pathology_screen.outputs.segmentation import AcceptedSliced, Segmented
from pathology_screen.outputs.writer import ScreeningWriter

__all__ = ["AcceptedSliced", "ScreeningWriter", "Segmented"]
