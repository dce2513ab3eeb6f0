"""Batches, augmentation and noise are functions of the seed and the iteration."""

import itertools
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine

from pathology_screen.engines import SeededBatches, TrainingBatch, normal_noise
from pathology_screen.engines import training_batch as module
from pathology_screen.engines.training_batch import seeded_generator
from pathology_screen.errors import ConfigError
from pathology_screen.synthetic import add_coarse_noise, coarse_noise
from pathology_screen.transforms import RandomAffineBatch

CPU = torch.device("cpu")
VECTOR = partial(normal_noise, shape=(5,))
COARSE = partial(coarse_noise, size=16, resolution=4)


@pytest.fixture
def images():
    return torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def at(batch, iteration, images):
    """Tell a batch its iteration and hand it images."""
    batch.iteration = iteration
    return batch({"image": images}, CPU)


def test_generators_repeat_and_differ():
    positions = [(1, 2), (1, 2), (1, 3), (2, 2)]
    draws = [normal_noise(3, seeded_generator(*p), (2,)).tolist() for p in positions]
    assert draws[0] == draws[1] and draws[0] != draws[2] and draws[0] != draws[3]


@given(st.integers(4, 40), st.integers(1, 4), st.integers(0, 30))
def test_batches_cover_each_epoch_once_and_resume_anywhere(length, batch_size, start):
    batches = SeededBatches(length, batch_size, seed=3)
    stream = list(itertools.islice(batches, start + 5 + len(batches)))
    epoch = [index for batch in stream[: len(batches)] for index in batch]
    assert len(set(epoch)) == len(epoch) == len(batches) * batch_size
    batches.iteration = start
    assert list(itertools.islice(batches, 5)) == stream[start : start + 5]


def test_ranks_share_one_batch():
    whole, parts = SeededBatches(12, 4, seed=1), []
    for rank in range(2):
        part = SeededBatches(12, 2, seed=1)
        part.rank, part.world_size = rank, 2
        parts.append(itertools.islice(part, 6))
    assert [a + b for a, b in zip(*parts)] == list(itertools.islice(whole, 6))


def test_too_few_samples_are_refused():
    with pytest.raises(ConfigError, match="do not fill"):
        SeededBatches(3, 4)


def test_augmentation_depends_on_seed_and_iteration(images):
    augmentation = RandomAffineBatch()
    batch = TrainingBatch(3, augmentation)
    image, target = at(batch, 7, images)
    parameters = augmentation.draw(4, seeded_generator(3, 2, 7))
    torch.testing.assert_close(image, augmentation.apply(images, parameters))
    assert torch.equal(image, target)
    assert torch.equal(image, at(TrainingBatch(3, RandomAffineBatch()), 7, images)[0])
    for other in (at(batch, 8, images), at(TrainingBatch(4, augmentation), 7, images)):
        assert not torch.allclose(image, other[0])


def test_noise_is_handed_to_the_inferer(images):
    image, target, (noise,), options = at(TrainingBatch(3, noise=VECTOR), 7, images)
    assert torch.equal(image, images) and torch.equal(target, images) and options == {}
    assert torch.equal(noise, VECTOR(4, seeded_generator(3, 1, 7)))
    augmented = TrainingBatch(3, RandomAffineBatch(), VECTOR)
    assert torch.equal(at(augmented, 7, images)[2][0], noise)
    for batch, iteration in ((augmented, 8), (TrainingBatch(4, noise=VECTOR), 7)):
        assert not torch.equal(noise, at(batch, iteration, images)[2][0])


def test_corruption_changes_the_input_alone(images):
    corrupted, target = at(
        TrainingBatch(3, RandomAffineBatch(), COARSE, add_coarse_noise), 7, images
    )
    clean = at(TrainingBatch(3, RandomAffineBatch()), 7, images)[0]
    assert torch.equal(target, clean) and not torch.allclose(corrupted, target)
    expected = add_coarse_noise(clean, COARSE(4, seeded_generator(3, 1, 7)))
    torch.testing.assert_close(corrupted, expected)


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_parts_of_all_ranks_are_the_batch_of_one_process(images, monkeypatch, world_size):
    options = RandomAffineBatch(), COARSE
    whole = at(TrainingBatch(3, *options), 7, images)
    parts = []
    for rank, own in enumerate(images.split(4 // world_size)):
        monkeypatch.setattr(module, "rank_and_world_size", lambda rank=rank: (rank, world_size))
        parts.append(at(TrainingBatch(3, *options), 7, own))
    torch.testing.assert_close(torch.cat([image for image, *_ in parts]), whole[0])
    assert torch.equal(torch.cat([noise for _, _, (noise,), _ in parts]), whole[2][0])


def test_the_trainer_tells_the_iteration(images):
    batch, seen = TrainingBatch(3, noise=VECTOR), []
    with pytest.raises(RuntimeError, match="handler of the trainer"):
        batch({"image": images}, CPU)
    trainer = Engine(lambda engine, data: seen.append(batch(data, CPU)[2][0]))
    batch.attach(trainer)
    trainer.run([{"image": images}] * 2, max_epochs=2)
    expected = [VECTOR(4, seeded_generator(3, 1, iteration)) for iteration in (1, 2, 3, 4)]
    assert all(torch.equal(noise, other) for noise, other in zip(seen, expected, strict=True))
