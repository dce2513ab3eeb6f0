import re

from hypothesis import given
from hypothesis import strategies as st

from pathology_screen.io import bids_labels, safe_names


def test_long_names_are_cut_and_stay_unique():
    names = safe_names(["a" * 300 + "/scan.nii.gz", "a" * 300 + "/other.nii.gz", "short.nii"])
    assert len(set(names)) == 3 and max(map(len, names)) == 120 and names[2] == "short"


def test_names_that_are_no_text_are_hashed_by_their_bytes():
    names = safe_names(
        [b"\xff".decode("utf-8", "surrogateescape") + "a" * 200, "\udcfe" + "a" * 200, "\udcff.nii"]
    )
    assert len(set(names)) == 3 and all(name.isascii() and len(name) <= 120 for name in names)


def test_names_without_latin_letters_are_numbered():
    assert safe_names(["\u8111.nii.gz", "\u5fc3.nii.gz"]) == ["_", "_-2"]


def test_labels_are_letters_and_digits_after_the_entity():
    names = ["sub-1_T1w", "1T1w", "1t1W", "subject.2", "é", "sub-", "日"]
    assert bids_labels(names) == [
        "1T1w",
        "1T1wx2",
        "1t1Wx3",
        "subject2",
        "scan",
        "scanx2",
        "scanx3",
    ]


@given(names=st.lists(st.text("aA1x2-._é", max_size=4)))
def test_labels_are_unique(names):
    labels = bids_labels(names)
    assert len({label.casefold() for label in labels}) == len(names)
    assert all(re.fullmatch("[A-Za-z0-9]+", label) for label in labels)
