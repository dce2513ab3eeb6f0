"""The paper's numbers stand beside those on its own cohort alone."""

from types import SimpleNamespace

import numpy as np
import pytest

from pathology_screen.experiments.published import BOXES, COHORT, TABLES, published


def setting(profile="paper", protocol="paper", missing=0, boxes=BOXES, file="file_brain_AXT1_1"):
    groups = np.repeat(list(COHORT), list(COHORT.values()))[missing:]
    labels = [("mass",)] * boxes
    slices = SimpleNamespace(groups=groups, box_labels=labels, subjects=[file] * len(groups))
    shared = SimpleNamespace(name=profile)
    return SimpleNamespace(shared=shared, protocol=protocol, slices=slices)


@pytest.mark.parametrize("experiment", TABLES)
def test_on_the_cohort_of_the_paper_its_table_is_given_and_nowhere_else(experiment):
    for protocol in ("paper", "official_code"):
        assert published(experiment, setting(protocol=protocol)) == {"paper": TABLES[experiment]}
    counts_boxes = experiment in ("localization", "ablation")
    assert bool(published(experiment, setting(protocol="pixel_count"))) != counts_boxes
    for change in ({"profile": "compact"}, {"missing": 1}, {"boxes": BOXES - 1}, {"file": "IXI"}):
        assert published(experiment, setting(**change)) == {}
