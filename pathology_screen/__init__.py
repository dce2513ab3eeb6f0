"""Unsupervised pathology screening on T1-weighted brain MRI: learn healthy brains, paint the
pseudo-healthy version of a scan, show where it differs.

Importing this package imports neither torch nor MONAI; every module imports what it needs when it
is used.
"""

__version__ = "0.1.0"
