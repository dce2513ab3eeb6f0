"""What a screening run leaves behind."""

from pathology_screen.outputs.writer import ScreeningWriter

__all__ = ["ScreeningWriter"]
