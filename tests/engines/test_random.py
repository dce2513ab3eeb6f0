import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pathology_screen.engines.random import SeededBatches, seeded_generator
from pathology_screen.errors import ConfigError


def test_generators_repeat_and_differ():
    draws = [
        torch.rand(3, generator=seeded_generator(*position)).tolist()
        for position in [(1, 2), (1, 2), (1, 3), (2, 2)]
    ]
    assert draws[0] == draws[1] and draws[0] != draws[2] and draws[0] != draws[3]


@given(st.integers(4, 40), st.integers(1, 4), st.integers(0, 30))
def test_batches_cover_each_epoch_once_and_resume_anywhere(length, batch_size, start):
    batches = SeededBatches(length, batch_size, seed=3)
    stream = list(itertools.islice(batches, start + 2 * len(batches)))
    epoch = [index for batch in stream[: len(batches)] for index in batch]
    assert len(set(epoch)) == len(epoch) == len(batches) * batch_size
    batches.iteration = start
    assert (
        list(itertools.islice(batches, 5)) == stream[start : start + 5] or len(stream) < start + 5
    )


def test_ranks_share_one_batch():
    whole = SeededBatches(12, 4, seed=1)
    parts = []
    for rank in range(2):
        part = SeededBatches(12, 2, seed=1)
        part.rank, part.world_size = rank, 2
        parts.append(list(itertools.islice(part, 6)))
    assert [a + b for a, b in zip(*parts)] == list(itertools.islice(whole, 6))


def test_too_few_samples_are_refused():
    with pytest.raises(ConfigError, match="do not fill"):
        SeededBatches(3, 4)
