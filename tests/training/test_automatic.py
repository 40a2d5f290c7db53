"""The settings chosen for a folder of photos."""

from dataclasses import replace

import pytest

from training.automatic import choose_recipe, choose_side, describe_recipe
from training.recipes import RECIPES

BASE = RECIPES["cifar10-global"]


@pytest.mark.parametrize(
    ("train", "batch_size", "epochs"),
    [(2, 2, 100), (63, 8, 100), (87, 8, 100), (180, 16, 100), (1_024, 128, 100), (8_000, 128, 50), (10**6, 128, 30)],
)
def test_batches_and_epochs_follow_from_the_number_of_images(train: int, batch_size: int, epochs: int) -> None:
    recipe = choose_recipe(BASE, train, side=64)
    assert (recipe.batch_size, recipe.epochs) == (batch_size, epochs)
    assert recipe.warmup_epochs == epochs // 20


def test_the_shift_is_an_eighth_of_the_side_where_the_recipe_shifts_at_all() -> None:
    assert choose_recipe(BASE, 100, side=96).crop_padding == 12
    assert choose_recipe(replace(BASE, crop_padding=0), 100, side=96).crop_padding == 0


def test_the_warm_up_follows_from_epochs_that_are_given() -> None:
    assert choose_recipe(BASE, 100, side=64, epochs=60).warmup_epochs == 3
    assert choose_recipe(BASE, 100, side=64, epochs=6).warmup_epochs == 1


def test_small_images_are_not_blown_up() -> None:
    assert choose_side([(4000, 3000)] * 3 + [(32, 32)]) == 64
    assert choose_side([]) == 64  # none could be read without a process of its own
    assert choose_side([(32, 40), (32, 32), (640, 480)]) == 32


@pytest.mark.parametrize(("train", "seen"), [(85, "8,000 images seen in 1,000 steps"), (15, "800 images seen in 100")])
def test_images_that_do_not_fill_a_batch_are_not_counted_as_seen(train: int, seen: str) -> None:
    lines = describe_recipe(choose_recipe(BASE, train, side=64), train, given=())
    assert f" {seen}" in lines[1]


def test_each_choice_is_printed_with_its_option_and_its_reason() -> None:
    recipe = choose_recipe(BASE, 180, side=64, epochs=7)
    lines = describe_recipe(recipe, 180, given={"epochs"})
    assert [line.split()[:2] for line in lines] == [
        ["--batch-size", "16"],
        ["--epochs", "7"],
        ["--lr", "0.01"],
        ["--crop-padding", "8"],
        ["--no-flip", "no"],
        ["--mixup", "0.0"],
    ]
    assert lines[1].endswith("as given")
    assert "11 steps an epoch for 180 training images" in lines[0]
