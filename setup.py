"""Name the packages, with the bundles and the data lists among them; all else stands in
setup.cfg."""

from setuptools import find_packages, setup

CARRIED = ["pathology_screen._bundles", "pathology_screen._data_lists"]

setup(packages=[*find_packages(include=["pathology_screen", "pathology_screen.*"]), *CARRIED])
