"""Times training steps: in Keras's operations, with fused batch norms, with compiled PDE steps too, and in bfloat16."""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from unittest import mock

import keras
import numpy as np

from benchmarks.machine import describe
from benchmarks.timing import time_in_turns
from pdeinfer.backend import require_tensorflow
from pdeinfer.nn import Classifier, normalization, step_gradient
from pdeinfer.spec.presets import PRESETS
from training.fit import dtype_policy
from training.recipes import RECIPES

NETWORKS = ("mnist-cnn", "mnist-residual", "mnist-pde", "cifar10-resnet32", "cifar10-global", "cifar10-global-k5")
FUSED = (normalization, "_has_fused_kernel"), (step_gradient, "is_faster")
# By variant: the precision, and the operations of Keras that are replaced, by the functions that decide about them.
VARIANTS = {
    "Keras": ("float32", ()),
    "fused norms": ("float32", FUSED[:1]),
    "and PDE steps": ("float32", FUSED),
    "in bfloat16": ("mixed_bfloat16", FUSED),
}
ROW = "{:<28} {:>5}  {:<13} {:>9} {:>15} {:>9} {:>8}"
HEADER = ROW.format("network", "batch", "variant", "median ms", "quartiles", "images/s", "x Keras")


def main() -> int:
    """Run the benchmark, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument(
        "presets", nargs="*", choices=RECIPES, metavar="PRESET", help=f"by default {', '.join(NETWORKS)}"
    )
    presets = parser.parse_args().presets or NETWORKS
    require_tensorflow()
    onednn = f"oneDNN    TF_ENABLE_ONEDNN_OPTS={os.environ.get('TF_ENABLE_ONEDNN_OPTS', 'not set')}"
    print(*describe(), onednn, "", HEADER, sep="\n", flush=True)
    for name in presets:
        batch_size = RECIPES[name].batch_size
        timings = time_in_turns({variant: training_step(name, variant) for variant in VARIANTS})
        for variant, timing in timings.items():
            print(
                ROW.format(
                    name,
                    batch_size,
                    variant,
                    f"{1000 * timing.median:.1f}",
                    f"{1000 * timing.lower_quartile:.1f} - {1000 * timing.upper_quartile:.1f}",
                    f"{batch_size / timing.median:,.0f}",
                    f"{timings['Keras'].median / timing.median:.2f}",
                ),
                flush=True,
            )
    return 0


def training_step(name: str, variant: str) -> Callable[[], object]:
    """Return a function that takes one training step of a preset's network on random images.

    Args:
        variant: one of `VARIANTS`; the last two are what training uses, with `--precision mixed_bfloat16` the last.
    """
    policy, replaced = VARIANTS[variant]
    recipe, spec = RECIPES[name], PRESETS[name].input
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(recipe.batch_size, spec.height, spec.width, spec.channels), dtype=np.uint8)
    labels = np.eye(10, dtype=np.float32)[rng.integers(10, size=recipe.batch_size)]
    with dtype_policy(policy):
        model = Classifier(PRESETS[name])
    model.compile(
        recipe.make_optimizer(steps_per_epoch=400),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    step = partial(model.train_on_batch, images, labels)
    with ExitStack() as stack:
        for module, function in FUSED:
            if (module, function) not in replaced:
                stack.enter_context(mock.patch.object(module, function, return_value=False))
        step()  # traces the step; later calls run the trace
    return step


if __name__ == "__main__":
    sys.exit(main())
