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
@pytest.mark.parametrize("protocol", ["paper", "official_code"])
def test_on_the_cohort_of_the_paper_its_table_is_given(experiment, protocol):
    assert published(experiment, setting(protocol=protocol)) == {"paper": TABLES[experiment]}


@pytest.mark.parametrize(
    "change",
    [
        *({"profile": "compact"}, {"protocol": "pixel_count"}, {"missing": 1}),
        *({"boxes": BOXES - 1}, {"file": "IXI002"}),
    ],
    ids=str,
)
def test_elsewhere_it_does_not_compare(change):
    assert published("localization", setting(**change)) == {}


def test_the_protocol_of_boxes_is_no_matter_where_none_are_counted():
    assert published("detection", setting(protocol="pixel_count"))
