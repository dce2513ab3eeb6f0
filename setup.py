"""Name the packages, with the bundles as one of them; all else stands in setup.cfg."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["pathology_screen", "pathology_screen.*"]), "pathology_screen._bundles"])
