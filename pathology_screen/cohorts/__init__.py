"""Cohorts: the embedded phantom, and datalists of users' scans."""

from pathology_screen.cohorts.datalist import load_datalist, resolve_dataset
from pathology_screen.cohorts.phantom import make_phantom_cohort

__all__ = ["load_datalist", "make_phantom_cohort", "resolve_dataset"]
