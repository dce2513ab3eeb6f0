"""Refusals, and what becomes of other errors."""

import pickle

import pytest

from pathology_screen.errors import (
    REFUSALS,
    WARNINGS,
    ArtifactError,
    InputError,
    as_refusal,
    fault,
    find_refusal,
)


def raised(error, cause=None):
    try:
        raise error from cause
    except Exception as caught:
        return caught


def test_a_refusal_has_a_listed_code_and_says_what_was_wrong_and_what_to_do():
    refusal = InputError("voxel_size", "30 mm", "Resample it")
    assert str(refusal) == f"[voxel_size] {REFUSALS['voxel_size']}: 30 mm. Resample it"
    copy = pickle.loads(pickle.dumps(refusal))  # as between worker processes
    assert (copy.code, copy.detail, str(copy)) == ("voxel_size", "30 mm", str(refusal))
    with pytest.raises(KeyError):
        InputError("a_code_of_nobody")
    assert not REFUSALS.keys() & WARNINGS.keys()


def test_a_fault_tells_the_kind_and_place_of_an_error_and_not_its_text():
    found = fault(raised(ValueError("CANARY")))
    assert found.code == "unexpected_error" and "CANARY" not in str(found)
    assert "ValueError in test_errors.py, line " in found.detail
    assert "no weights" in str(fault(ArtifactError("no weights")))  # of this package
    refusal = InputError("empty")
    assert fault(refusal) is refusal


def test_the_refusal_behind_an_error_is_found():
    refusal = InputError("empty")
    assert find_refusal(raised(RuntimeError(), raised(ValueError(), refusal))) is refusal
    circle, other = ValueError(), ValueError()
    circle.__context__, other.__context__ = other, circle
    assert find_refusal(circle) is None


def test_of_many_scans_one_is_refused_unless_the_error_concerns_the_run():
    refusal = InputError("empty")
    assert as_refusal(raised(RuntimeError(), refusal)) is refusal
    assert as_refusal(raised(RuntimeError())).code == "unexpected_error"
    with pytest.raises(ArtifactError):
        as_refusal(ArtifactError("no weights"))
