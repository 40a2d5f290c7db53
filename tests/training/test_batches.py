"""Batches depend on seed and epoch alone."""

from pathlib import Path

import numpy as np
import pytest

from pdeinfer.datasets import Split
from training.batches import Augmentation, Batches, EvaluationBatches

COUNT = 50


@pytest.fixture(scope="module")
def split() -> Split:
    """Images whose pixels are all different (6 x 5 x 2), image i with the label i % 7."""
    pixels = np.random.default_rng(0).permutation(COUNT * 60).reshape(COUNT, 6, 5, 2) % 251
    return Split(pixels.astype(np.uint8), np.arange(COUNT) % 7)


def make(split: Split, **kwargs: object) -> Batches:
    """Return batches of 8 with seed 3 unless `kwargs` say otherwise; the rest of `kwargs` is the augmentation."""
    options = {name: kwargs.pop(name) for name in ("batch_size", "seed", "teacher", "balance") if name in kwargs}
    return Batches(split, **{"classes": 7, "batch_size": 8, "seed": 3, **options}, augmentation=Augmentation(**kwargs))


def test_an_epoch_without_augmentation_is_a_permutation_of_whole_batches(split: Split) -> None:
    batches = make(split)
    assert len(batches) == 6
    images = np.concatenate([batches[index][0] for index in range(6)])
    labels = np.concatenate([batches[index][1] for index in range(6)])
    assert images.dtype == np.uint8
    assert images.shape == (48, 6, 5, 2)
    where = [int(np.flatnonzero((split.images == image).all(axis=(1, 2, 3)))[0]) for image in images]
    assert len(set(where)) == 48
    assert where != sorted(where)
    assert np.array_equal(labels.argmax(axis=1), split.labels[where])
    assert np.array_equal(labels.sum(axis=1), np.ones(48))


def test_a_batch_depends_on_seed_and_epoch(split: Split) -> None:
    batches = make(split, crop_padding=1, flip=True)
    first = batches[2]
    batches[0]
    assert np.array_equal(first[0], batches[2][0])
    batches.epoch = 1
    second = batches[2]
    assert not np.array_equal(first[0], second[0])
    resumed = make(split, crop_padding=1, flip=True)
    resumed.epoch = 1
    assert np.array_equal(resumed[2][0], second[0])
    assert np.array_equal(resumed[2][1], second[1])
    assert not np.array_equal(make(split, seed=4)[2][0], make(split)[2][0])


def test_equal_images_are_varied_in_another_way_in_each_batch_and_epoch(split: Split) -> None:
    equal = Split(np.repeat(split.images[:1], COUNT, axis=0), split.labels)
    batches = make(equal, crop_padding=2, flip=True)
    first, second = batches[0][0], batches[1][0]
    batches.epoch = 1
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, batches[0][0])


def test_every_image_is_a_crop_or_its_mirror_image(split: Split) -> None:
    batches = make(split, crop_padding=2, flip=True, batch_size=COUNT)
    images, labels = batches[0]
    padded = np.pad(split.images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    crops_and_mirrored = set()
    for image, label in zip(images, labels.argmax(axis=1), strict=True):
        found = [
            (y, x, mirrored)
            for index in np.flatnonzero(split.labels == label)
            for y in range(5)
            for x in range(5)
            for mirrored in (False, True)
            if np.array_equal(padded[index, y : y + 6, x : x + 5][:, :: -1 if mirrored else 1], image)
        ]
        assert found
        crops_and_mirrored.add(found[0])
    assert {y for y, _, _ in crops_and_mirrored} == set(range(5))
    assert {x for _, x, _ in crops_and_mirrored} == set(range(5))
    assert {mirrored for _, _, mirrored in crops_and_mirrored} == {False, True}


def test_mixup_mixes_images_and_labels_of_a_batch_at_one_ratio(split: Split) -> None:
    plain_images, plain_labels = make(split)[0]
    images, labels = make(split, mixup=0.5)[0]
    assert images.dtype == np.uint8
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    partners, partner_labels = plain_images[::-1], plain_labels[::-1]
    mixed = 0
    for index in np.flatnonzero((plain_labels != partner_labels).any(axis=1)):
        ratio = labels[index, plain_labels[index].argmax()]
        expected = ratio * plain_images[index] + (1 - ratio) * partners[index].astype(float)
        assert np.abs(images[index] - expected).max() <= 0.51  # rounded to whole numbers
        mixed += 0.01 < ratio < 0.99
    assert mixed


def test_the_teacher_s_logits_of_the_augmented_images_follow_the_labels(split: Split) -> None:
    def teacher(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, :7].astype(np.float32)

    images, targets = make(split, crop_padding=1, flip=True, mixup=0.3, teacher=teacher)[0]
    labels = make(split, crop_padding=1, flip=True, mixup=0.3)[0][1]
    assert np.array_equal(targets, np.concatenate([labels, teacher(images)], axis=1))


def test_balanced_classes_have_equal_weight_in_an_epoch() -> None:
    labels = np.array([0] * 30 + [1] * 10 + [2] * 10)
    split = Split(np.zeros((50, 4, 4, 1), np.uint8), labels)
    batches = Batches(split, classes=3, batch_size=50, seed=0, balance=True)
    _, one_hot, weights = batches[0]
    np.testing.assert_allclose(weights @ one_hot, [50 / 3] * 3, rtol=1e-6)
    assert weights.mean() == pytest.approx(1)
    mixed = Batches(split, classes=3, batch_size=50, seed=0, balance=True, augmentation=Augmentation(mixup=1.0))
    _, shares, mixed_weights = mixed[0]
    np.testing.assert_allclose(mixed_weights, shares @ [50 / 90, 50 / 30, 50 / 30], rtol=1e-6)


def test_evaluation_batches_are_all_images_in_their_order(split: Split) -> None:
    batches = EvaluationBatches(split, classes=7, batch_size=8)
    assert len(batches) == 7
    assert np.array_equal(np.concatenate([batches[index][0] for index in range(7)]), split.images)
    labels = np.concatenate([batches[index][1] for index in range(7)])
    assert np.array_equal(labels, np.eye(7, dtype=np.float32)[split.labels])


def test_images_in_a_file_give_the_same_batches(split: Split, tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "images", np.uint8, "w+", shape=split.images.shape)
    mapped[:] = split.images
    images, labels = make(Split(mapped, split.labels), crop_padding=2, flip=True)[1]
    expected = make(split, crop_padding=2, flip=True)[1]
    assert np.array_equal(images, expected[0])
    assert np.array_equal(labels, expected[1])
