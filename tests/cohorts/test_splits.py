"""Splits: disjoint, complete, repeatable, and the same in whatever order the subjects come."""

import math
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pathology_screen.cohorts.splits import (
    FEWEST_FOR_5_PERCENT,
    FRACTIONS,
    SECTIONS,
    draw_split,
    read_split,
    warn_of_few,
)
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
    """The order rests on SHA-256 alone, so the split of given subjects never changes with a version
    of anything."""
    split = draw_split([f"{i:02d}" for i in range(20)], (0.5, 0.1, 0.3, 0.1), seed=3)
    assert [subject for subject, section in sorted(split.items()) if section == "test"] == [
        "12",
        "19",
    ]
    assert draw_split([f"{i:02d}" for i in range(20)], (0.5, 0.1, 0.3, 0.1), seed=4) != split


def test_seed_changes_who_but_not_how_many():
    subjects = [f"s{i}" for i in range(100)]
    splits = [draw_split(subjects, seed=seed) for seed in range(20)]
    assert {tuple(sorted(Counter(split.values()).items())) for split in splits} == {
        (("calibration", 25), ("test", 10), ("training", 60), ("validation", 5))
    }
    in_test = Counter(
        subject for split in splits for subject, section in split.items() if section == "test"
    )
    assert len(in_test) > 70 and max(in_test.values()) < 10  # 200 draws of 100


def test_default_fractions_give_enough_for_calibration():
    total = round(FEWEST_FOR_5_PERCENT / FRACTIONS[2])
    subjects = random.Random(0).sample(range(10**6), total)
    assert Counter(draw_split(map(str, subjects)).values())["calibration"] == FEWEST_FOR_5_PERCENT


def test_empty_section_is_refused_with_what_to_do():
    with pytest.raises(
        ConfigError, match="0.05 of 8 subjects leaves none for validation: add subjects, or raise"
    ):
        draw_split("abcdefgh")
    assert set(draw_split("abc", (1, 0, 0, 0)).values()) == {"training"}


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.5, 0.2, 0.2, 0.2), (1.2, 0, 0, -0.2), (float("nan"), 0, 0, 1)]
)
def test_fractions_that_make_no_sense_are_refused(fractions):
    with pytest.raises(ConfigError, match="add up to 1"):
        draw_split("abc", fractions)


def test_few_calibration_subjects_are_warned_of(recwarn):
    warn_of_few(0)
    warn_of_few(19)
    assert not recwarn
    with pytest.warns(UserWarning, match="18 calibration subjects.* at least 19"):
        warn_of_few(18)


@pytest.fixture
def table(tmp_path):
    def table(*rows, header="subject,section"):
        path = tmp_path / "split.csv"
        path.write_text("\n".join([header, *rows]) + "\n")
        return path

    return table


def test_users_table_is_followed(table):
    assert read_split(table("a,training", "b , test", "a,training"), "ab") == {
        "a": "training",
        "b": "test",
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,training", "b,test", "a,test"], "split.csv puts a in both training and test"),
        (["a,train", "b,test"], 'split.csv puts a in "train"; the sections are training'),
        (["a,training"], "does not name 1 subjects: b"),
        (["a,training", "b,test", "c,test"], "there is no scan of, 1 subjects: c"),
    ],
)
def test_table_that_does_not_fit_is_refused(table, rows, message):
    with pytest.raises(ConfigError, match=message):
        read_split(table(*rows), "ab")


def test_table_without_its_columns_is_refused(table, tmp_path):
    with pytest.raises(ConfigError, match="no column section"):
        read_split(table("a,test", header="subject,part"), "a")
    with pytest.raises(ConfigError, match="does not exist"):
        read_split(tmp_path / "none.csv", "a")
