"""Batches, augmentation and noise are functions of the seed and the iteration."""

from functools import partial
from itertools import islice

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

IMAGES = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
AFFINE = RandomAffineBatch()
VECTOR = partial(normal_noise, shape=(5,))
COARSE = partial(coarse_noise, size=16, resolution=4)


def at(batch, iteration=7, images=IMAGES):
    """Tell a batch its iteration and hand it images."""
    batch.iteration = iteration
    return batch({"image": images}, torch.device("cpu"))


@given(st.integers(4, 40), st.integers(1, 4), st.integers(0, 30))
def test_batches_cover_each_epoch_once_and_resume_anywhere(length, batch_size, start):
    batches = SeededBatches(length, batch_size, seed=3)
    stream = list(islice(batches, start + 5 + len(batches)))
    epoch = [index for batch in stream[: len(batches)] for index in batch]
    assert len(set(epoch)) == len(epoch) == len(batches) * batch_size
    batches.iteration = start
    assert list(islice(batches, 5)) == stream[start : start + 5]


def test_ranks_share_one_batch_and_too_few_samples_are_refused():
    whole, parts = SeededBatches(12, 4, seed=1), []
    for rank in range(2):
        part = SeededBatches(12, 2, seed=1)
        part.rank, part.world_size = rank, 2
        parts.append(islice(part, 6))
    assert [a + b for a, b in zip(*parts)] == list(islice(whole, 6))
    with pytest.raises(ConfigError, match="do not fill"):
        SeededBatches(3, 4)


def test_augmentation_depends_on_seed_and_iteration():
    image, target = at(TrainingBatch(3, AFFINE))
    parameters = AFFINE.draw(4, seeded_generator(3, 2, 7))
    torch.testing.assert_close(image, AFFINE.apply(IMAGES, parameters))
    assert torch.equal(image, target) and torch.equal(image, at(TrainingBatch(3, AFFINE))[0])
    for other in (at(TrainingBatch(3, AFFINE), 8), at(TrainingBatch(4, AFFINE))):
        assert not torch.allclose(image, other[0])


def test_noise_is_handed_to_the_inferer():
    image, target, (noise,), options = at(TrainingBatch(3, noise=VECTOR))
    assert torch.equal(image, IMAGES) and torch.equal(target, IMAGES) and options == {}
    assert torch.equal(noise, VECTOR(4, seeded_generator(3, 1, 7)))
    augmented = TrainingBatch(3, AFFINE, VECTOR)
    assert torch.equal(at(augmented)[2][0], noise)
    for batch, iteration in ((augmented, 8), (TrainingBatch(4, noise=VECTOR), 7)):
        assert not torch.equal(noise, at(batch, iteration)[2][0])


def test_corruption_changes_the_input_alone():
    corrupted, target = at(TrainingBatch(3, AFFINE, COARSE, add_coarse_noise))
    clean = at(TrainingBatch(3, AFFINE))[0]
    assert torch.equal(target, clean) and not torch.allclose(corrupted, target)
    expected = add_coarse_noise(clean, COARSE(4, seeded_generator(3, 1, 7)))
    torch.testing.assert_close(corrupted, expected)


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_parts_of_all_ranks_are_the_batch_of_one_process(monkeypatch, world_size):
    whole = at(TrainingBatch(3, AFFINE, COARSE))
    parts = []
    for rank, own in enumerate(IMAGES.split(4 // world_size)):
        monkeypatch.setattr(module, "rank_and_world_size", lambda rank=rank: (rank, world_size))
        parts.append(at(TrainingBatch(3, AFFINE, COARSE), images=own))
    torch.testing.assert_close(torch.cat([image for image, *_ in parts]), whole[0])
    assert torch.equal(torch.cat([noise for _, _, (noise,), _ in parts]), whole[2][0])


def test_the_trainer_tells_the_iteration():
    batch, seen = TrainingBatch(3, noise=VECTOR), []
    with pytest.raises(RuntimeError, match="handler of the trainer"):
        batch({"image": IMAGES}, "cpu")
    trainer = Engine(lambda engine, data: seen.append(batch(data, "cpu")[2][0]))
    batch.attach(trainer)
    trainer.run([{"image": IMAGES}] * 2, max_epochs=2)
    expected = [VECTOR(4, seeded_generator(3, 1, iteration)) for iteration in (1, 2, 3, 4)]
    assert all(torch.equal(noise, other) for noise, other in zip(seen, expected, strict=True))
