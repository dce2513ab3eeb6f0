"""Splits: disjoint, complete, repeatable, and the same in whatever order the subjects come."""

import math
from collections import Counter

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pathology_screen.cohorts.splits import SECTIONS, draw_split, read_split, warn_of_few
from pathology_screen.errors import ConfigError

names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60)
seeds = st.integers(-(2**40), 2**40)


@st.composite
def shares(draw) -> tuple[float, ...]:
    weights = draw(st.lists(st.integers(0, 20), min_size=4, max_size=4))
    assume(sum(weights) > 0)
    return tuple(weight / sum(weights) for weight in weights)


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(names, seeds, shares(), st.randoms())
def test_split_is_complete_stable_and_of_the_right_size(subjects, seed, fractions, shuffler):
    total = len(set(subjects))
    assume(all(not share or share * total >= 1 for share in fractions))
    split = draw_split(subjects, fractions, seed)
    assert split.keys() == set(subjects)  # everyone, and, as a mapping, each in one section
    sizes = Counter(split.values())
    for section, share in zip(SECTIONS, fractions):
        assert math.floor(share * total - 1e-6) <= sizes[section] <= math.ceil(share * total + 1e-6)
    shuffled = subjects + subjects[:3]
    shuffler.shuffle(shuffled)
    assert draw_split(shuffled, fractions, seed) == split


def test_split_stays_what_it_is():
    """The order rests on SHA-256 alone, so the split never changes with a version."""
    people, fractions = [f"{i:02d}" for i in range(20)], (0.5, 0.1, 0.3, 0.1)
    split = draw_split(people, fractions, seed=3)
    assert [person for person in people if split[person] == "test"] == ["12", "19"]
    assert draw_split(people, fractions, seed=4) != split


def test_seed_changes_who_but_not_how_many():
    subjects = [f"s{i}" for i in range(100)]
    splits = [draw_split(subjects, seed=seed) for seed in range(20)]
    sizes = {"training": 60, "validation": 5, "calibration": 25, "test": 10}
    assert all(Counter(split.values()) == sizes for split in splits)
    in_test = Counter(name for split in splits for name in split if split[name] == "test")
    assert len(in_test) > 70 and max(in_test.values()) < 10  # 200 draws of 100


def test_few_calibration_subjects_are_warned_of(recwarn):
    """The default fractions give enough of 76 subjects."""
    warn_of_few(draw_split(map(str, range(76))))
    warn_of_few({})
    assert not recwarn
    few = draw_split(map(str, range(72)))
    with pytest.warns(UserWarning, match="18 calibration subjects.* at least 19"):
        warn_of_few(few)


def test_empty_section_is_refused_with_what_to_do():
    message = "0.05 of 8 subjects leaves none for validation: add subjects, or raise"
    with pytest.raises(ConfigError, match=message):
        draw_split("abcdefgh")
    assert set(draw_split("abc", (1, 0, 0, 0)).values()) == {"training"}


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.5, 0.2, 0.2, 0.2), (1.2, 0, 0, -0.2), (float("nan"), 0, 0, 1)]
)
def test_fractions_that_make_no_sense_are_refused(fractions):
    with pytest.raises(ConfigError, match="add up to 1"):
        draw_split("abc", fractions)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["subject,section", "a,training", "b , test", "a,training"], None),
        (["subject,section", "a,training", "b,test", "a,test"], "a in both training and test"),
        (["subject,section", "a,train", "b,test"], 'a in "train"; the sections are training'),
        (["subject,section", "a,training"], "does not name 1 subjects: b"),
        (["subject,section", "a,test", "b,test", "c,test"], "there is no scan of, 1 subjects: c"),
        (["subject,part", "a,test"], "no column section"),
        (None, "does not exist"),
    ],
)
def test_users_table_is_followed_or_refused(tmp_path, rows, message):
    path = tmp_path / "split.csv"
    if rows:
        path.write_text("\n".join(rows))
    if message is None:
        assert read_split(path, "ab") == {"a": "training", "b": "test"}
    else:
        with pytest.raises(ConfigError, match=rf"split\.csv.*{message}"):
            read_split(path, "ab")
