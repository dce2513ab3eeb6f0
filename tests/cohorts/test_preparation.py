"""Tables; and splits: disjoint, complete, repeatable, the same in whatever order subjects come."""

import math
from collections import Counter

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pathology_screen.cohorts.datalist import SECTIONS
from pathology_screen.cohorts.preparation import (
    draw_split,
    listed,
    read_split,
    read_table,
    warn_of_few,
)
from pathology_screen.errors import ConfigError


def test_tables(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("\ufefffile,slice\na,3\nNA,\n".encode())  # as a spreadsheet writes it
    rows = [{"file": "a", "slice": "3"}, {"file": "NA", "slice": ""}]
    assert read_table(path, ("file", "slice")) == rows
    with pytest.raises(ConfigError, match=r"table\.csv has no column box, label"):
        read_table(path, ("file", "label", "box"))
    with pytest.raises(ConfigError, match="does not exist"):
        listed("none.csv")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"table\.csv cannot be read"):
        read_table(path)


@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60),
    st.integers(-(2**40), 2**40),
    st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any),
    st.randoms(),
)
def test_split_is_complete_stable_and_of_the_right_size(subjects, seed, weights, shuffler):
    total, fractions = len(set(subjects)), [weight / sum(weights) for weight in weights]
    assume(all(not share or share * total >= 1 for share in fractions))
    split = draw_split(subjects, fractions, seed)
    assert split.keys() == set(subjects)  # everyone, and, as a mapping, each in one section
    sizes = Counter(split.values())
    for section, share in zip(SECTIONS, fractions):
        assert math.floor(share * total - 1e-6) <= sizes[section] <= math.ceil(share * total + 1e-6)
    shuffled = subjects + subjects[:3]
    shuffler.shuffle(shuffled)
    assert draw_split(shuffled, fractions, seed) == split


def test_split_stays_what_it_is_and_the_seed_changes_who_but_not_how_many():
    """The order rests on SHA-256 alone, so the split never changes with a version."""
    people = [f"{i:02d}" for i in range(20)]
    split = draw_split(people, (0.5, 0.1, 0.3, 0.1), seed=3)
    assert [person for person in people if split[person] == "test"] == ["12", "19"]
    splits = [draw_split([f"s{i}" for i in range(100)], seed=seed) for seed in range(20)]
    sizes = {"training": 60, "validation": 5, "calibration": 25, "test": 10}
    assert all(Counter(split.values()) == sizes for split in splits)
    in_test = Counter(name for split in splits for name in split if split[name] == "test")
    assert len(in_test) > 70 and max(in_test.values()) < 10  # 200 draws of 100


def test_few_calibration_subjects_are_warned_of(recwarn):
    """The default fractions give enough of 76 subjects."""
    warn_of_few(draw_split(map(str, range(76))))
    warn_of_few({})
    assert not recwarn
    with pytest.warns(UserWarning, match="18 calibration subjects.* at least 19"):
        warn_of_few(draw_split(map(str, range(72))))


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((0.6, 0.05, 0.25, 0.1), "0.05 of 8 subjects leaves none for validation: add subjects"),
        *(((0.5, 0.5), "add up to 1"), ((0.5, 0.2, 0.2, 0.2), "add up to 1")),
        *(((1.2, 0, 0, -0.2), "add up to 1"), ((math.nan, 0, 0, 1), "add up to 1")),
    ],
)
def test_an_empty_section_and_fractions_that_make_no_sense_are_refused(fractions, message):
    with pytest.raises(ConfigError, match=message):
        draw_split("abcdefgh", fractions)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["subject,section", "a,training", "b , test", "a,training"], None),
        (["subject,section", "a,training", "b,test", "a,test"], "a in both training and test"),
        (["subject,section", "a,train", "b,test"], 'a in "train"; the sections are training'),
        (["subject,section", "a,training"], "does not name 1 subjects: b"),
        (["subject,section", "a,test", "b,test", "c,test"], "there is no scan of, 1 subjects: c"),
    ],
)
def test_users_table_is_followed_or_refused(tmp_path, rows, message):
    path = tmp_path / "split.csv"
    path.write_text("\n".join(rows))
    if message is None:
        assert read_split(path, "ab") == {"a": "training", "b": "test"}
    else:
        with pytest.raises(ConfigError, match=rf"split\.csv.*{message}"):
            read_split(path, "ab")
