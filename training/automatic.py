"""Chooses the settings of a training on a folder of images from their number and their size."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from statistics import median_low

from training.recipes import Recipe

_MIN_STEPS = 8  # in an epoch, from 64 images on: with fewer steps, the averages of the normalisations hardly move
_BATCH_SIZES = (8, 16, 32, 64, 128)
_VIEWS = 400_000  # of images in a training, where that gives a number of epochs between the next two
_MAX_EPOCHS, _MIN_EPOCHS = 100, 30


def choose_side(sizes: Sequence[tuple[int, int]]) -> int:
    """Choose the height and width that images of these sizes (width, height) are resized to: 32 or 64 pixels."""
    return 32 if sizes and median_low([min(size) for size in sizes]) < 48 else 64


def choose_recipe(base: Recipe, train: int, side: int, epochs: int | None = None) -> Recipe:
    """Adapt a recipe to a number of training images and to their smaller side in pixels.

    Args:
        epochs: if they are given and not to be chosen.
    """
    fitting = [size for size in _BATCH_SIZES if size <= train / _MIN_STEPS]
    epochs = epochs or min(_MAX_EPOCHS, max(_MIN_EPOCHS, round(_VIEWS / train)))
    return replace(
        base,
        batch_size=max(fitting, default=min(_BATCH_SIZES[0], train)),
        epochs=epochs,
        warmup_epochs=max(1, epochs // 20),
        crop_padding=side // 8 if base.crop_padding else 0,
    )


def describe_recipe(recipe: Recipe, train: int, given: Collection[str]) -> list[str]:
    """Return a line for each option that sets a value of the recipe, with the value and the reason for it.

    Args:
        recipe: the final one.
        train: the number of training images.
        given: the names of values that came from options.
    """
    steps = train // recipe.batch_size
    warmup = min(recipe.warmup_epochs, recipe.epochs - 1)
    all_steps = recipe.epochs * steps
    seen = f"{all_steps * recipe.batch_size:,} images seen in {all_steps:,} steps, {warmup} epochs to warm up"
    shift = "pixels of random shift: an eighth of the side" if recipe.crop_padding else "as in the recipe"
    mirrored = "half of the images are mirrored, as photos may be" if recipe.flip else "as in the recipe"
    reasons = {
        "batch_size": ("--batch-size", recipe.batch_size, f"{steps:,} steps an epoch for {train:,} training images"),
        "epochs": ("--epochs", recipe.epochs, seen),
        "learning_rate": ("--lr", recipe.learning_rate, f"the peak, as in the recipe for {recipe.optimizer}"),
        "crop_padding": ("--crop-padding", recipe.crop_padding, shift),
        "flip": ("--no-flip", "no" if recipe.flip else "yes", mirrored),
        "mixup": ("--mixup", recipe.mixup, "as in the recipe"),
    }
    return [
        f"  {option:<15} {value:<6} {'as given' if name in given else reason}"
        for name, (option, value, reason) in reasons.items()
    ]
