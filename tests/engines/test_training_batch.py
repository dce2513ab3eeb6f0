"""Augmentation and noise of a training batch."""

from functools import partial

import pytest
import torch
from ignite.engine import Engine

from pathology_screen.engines import TrainingBatch, normal_noise, seeded_generator
from pathology_screen.engines import training_batch as module
from pathology_screen.synthetic import add_coarse_noise, coarse_noise
from pathology_screen.transforms import RandomAffineBatch

CPU = torch.device("cpu")


@pytest.fixture
def images():
    return torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def at():
    """Function that tells a batch its iteration and hands it images."""

    def call(batch, iteration, images):
        batch.iteration = iteration
        return batch({"image": images}, CPU)

    return call


def vector_noise(seed=3):
    return TrainingBatch(seed, noise=partial(normal_noise, shape=(5,)))


def test_normal_noise_is_a_function_of_its_generator():
    draw = normal_noise(3, seeded_generator(1), (2, 2))
    assert draw.shape == (3, 2, 2) and torch.equal(
        draw, normal_noise(3, seeded_generator(1), (2, 2))
    )
    assert normal_noise(2000, seeded_generator(1), (1,)).std() == pytest.approx(1, abs=0.05)


def test_without_options_input_and_target_are_the_images(images, at):
    image, target = at(TrainingBatch(), 1, images)
    assert torch.equal(image, images) and image is target
    assert image.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_is_that_of_the_seed_and_the_iteration(images, at):
    augmentation = RandomAffineBatch()
    batch = TrainingBatch(3, augmentation)
    image, target = at(batch, 7, images)
    parameters = augmentation.draw(4, seeded_generator(3, 2, 7))
    torch.testing.assert_close(image, augmentation.apply(images, parameters))
    assert torch.equal(image, target)
    again = at(TrainingBatch(3, RandomAffineBatch()), 7, images)[0]
    assert torch.equal(image, again)
    assert not torch.allclose(image, at(batch, 8, images)[0])
    assert not torch.allclose(image, at(TrainingBatch(4, augmentation), 7, images)[0])


def test_noise_is_handed_to_the_inferer(images, at):
    image, target, (noise,), options = at(vector_noise(), 7, images)
    assert torch.equal(image, images) and torch.equal(target, images) and options == {}
    assert torch.equal(noise, normal_noise(4, seeded_generator(3, 1, 7), (5,)))
    assert not torch.equal(noise, at(vector_noise(), 8, images)[2][0])
    assert not torch.equal(noise, at(vector_noise(4), 7, images)[2][0])


def test_noise_does_not_depend_on_whether_there_is_augmentation(images, at):
    augmented = TrainingBatch(3, RandomAffineBatch(), partial(normal_noise, shape=(5,)))
    assert torch.equal(at(augmented, 7, images)[2][0], at(vector_noise(), 7, images)[2][0])


def test_corruption_changes_the_input_alone(images, at):
    noise = partial(coarse_noise, size=16, resolution=4)
    batch = TrainingBatch(3, RandomAffineBatch(), noise, add_coarse_noise)
    corrupted, target = at(batch, 7, images)
    clean = at(TrainingBatch(3, RandomAffineBatch()), 7, images)[0]
    assert torch.equal(target, clean)
    expected = add_coarse_noise(clean, noise(4, seeded_generator(3, 1, 7)))
    torch.testing.assert_close(corrupted, expected)
    assert not torch.allclose(corrupted, target)


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_parts_of_all_ranks_are_the_batch_of_one_process(images, at, monkeypatch, world_size):
    options = RandomAffineBatch(), partial(coarse_noise, size=16, resolution=4)
    whole = at(TrainingBatch(3, *options), 7, images)
    parts = []
    for rank, own in enumerate(images.split(4 // world_size)):
        monkeypatch.setattr(module, "rank_and_world_size", lambda rank=rank: (rank, world_size))
        parts.append(at(TrainingBatch(3, *options), 7, own))
    torch.testing.assert_close(torch.cat([image for image, *_ in parts]), whole[0])
    assert torch.equal(torch.cat([noise for _, _, (noise,), _ in parts]), whole[2][0])


def test_the_trainer_tells_the_iteration(images):
    batch, seen = vector_noise(), []
    trainer = Engine(lambda engine, data: seen.append(batch(data, CPU)[2][0]))
    batch.attach(trainer)
    trainer.run([{"image": images}] * 2, max_epochs=2)
    expected = [
        normal_noise(4, seeded_generator(3, 1, iteration), (5,)) for iteration in (1, 2, 3, 4)
    ]
    assert all(torch.equal(noise, other) for noise, other in zip(seen, expected, strict=True))


def test_a_batch_that_is_no_handler_is_an_error(images):
    with pytest.raises(RuntimeError, match="handler of the trainer"):
        TrainingBatch()({"image": images}, CPU)
