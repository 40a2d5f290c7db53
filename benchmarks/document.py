"""Writes docs/performance.md: what each benchmark says, below the command that said it."""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from benchmarks.bars import BAR_NOT_MET

Sections: TypeAlias = Mapping[str, tuple[str, Sequence[str]]]

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/performance.md"
INTRODUCTION = """# Performance

Written by `make bench-all`, which installs what is compared (the extra `bench`) and runs the commands below, one after
the other; each table is the output of the command above it. Times are of whole runs, from `uint8` pixels in a NumPy
array to probabilities in one. What is compared takes turns, so that other work on the machine slows all of it alike,
and routes are timed once their probabilities are equal within 1e-5.

The networks are `cifar10-global` with K time steps and ResNet32, in random weights made tame: the batch normalisations
have the statistics of real activations and the velocities are slow, as after a training. The times do not depend on
the weights otherwise. ResNet32 has no PDE layers, so that its file is the same with and without pdeinfer's operator.
"""
SECTIONS = {
    "Every route side by side": (
        """Each route runs in a process of its own for each number of threads. In ONNX Runtime: pdeinfer's file with its
fused operator, the same file where ONNX Runtime inlines the function instead (`PDEINFER_KERNEL=0`), and what tf2onnx
alone makes of the network. OpenVINO runs in float32, with its latency hint, on the file of `pdeinfer export --inline`
and on the plain one, compiled for each batch size. PyTorch runs
[an equal network](../benchmarks/torch_network.py) with the same weights, as it is and compiled for each batch size with
its weights as constants.""",
        ["-m", "benchmarks.speed"],
    ),
    "Larger images, more time steps": (
        """![Cost by image size](performance/sides.png)

![Cost by time steps](performance/steps.png)""",
        ["-m", "benchmarks.scaling", "--plots", "docs/performance"],
    ),
    "Peak memory": (
        "Of a new process that imports the route, loads one network and runs it at batch 1 and 64 (VmHWM of Linux).",
        ["-m", "benchmarks.memory"],
    ),
    "Start-up": (
        "New processes; their files are in the system's cache.",
        ["-m", "benchmarks.startup"],
    ),
    "Threads and batches": (
        """How a Predictor's defaults were chosen: 256 images in runs of several sizes, on one thread, with ONNX
Runtime's two threads in each run, or with two runs at a time.""",
        ["-m", "benchmarks.batching"],
    ),
}
GPU = """## On a GPU

[performance-gpu.md](performance-gpu.md) has latency at batch 1 and throughput at batch 256 on an NVIDIA H100, beside
PyTorch compiled. `pdeinfer.Predictor` on CUDA runs the plain file, without the bound buffers and CUDA graphs that are
faster there.
"""


def main() -> int:
    """Run every benchmark and write the page; return the exit code, the largest of theirs."""
    argparse.ArgumentParser(prog="python -m benchmarks.document", description=__doc__).parse_args()
    return write_page(PAGE, INTRODUCTION, SECTIONS, GPU)


def write_page(page: Path, introduction: str, sections: Sections, ending: str) -> int:
    """Run the command of every section and write the page, or leave it as it was where one fails.

    Args:
        sections: by title, a text and the arguments of Python.

    Returns:
        The largest exit code: 0, BAR_NOT_MET where something was measured and a bar was not met, or the code of a
            command that failed.
    """
    outputs, exit_code = [], 0
    for _, arguments in sections.values():
        command = shlex.join(["python", *arguments])
        print(f"benchmark: {command}", file=sys.stderr, flush=True)
        run = subprocess.run(  # noqa: S603  # our own
            [sys.executable, *arguments], check=False, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        if run.returncode not in (0, BAR_NOT_MET):
            print(f"benchmark: {command} failed; {page} is left as it was", file=sys.stderr)
            return run.returncode
        outputs.append(run.stdout)
        exit_code = max(exit_code, run.returncode)
    page.write_text(render(introduction, sections, outputs, ending))
    return exit_code


def render(introduction: str, sections: Sections, outputs: Sequence[str], ending: str) -> str:
    """Return the page, with the output of each section's command."""
    parts = [
        f"## {title}\n\n{text}\n\n```sh\n{shlex.join(['python', *arguments])}\n```\n\n{output.rstrip()}\n"
        for (title, (text, arguments)), output in zip(sections.items(), outputs, strict=True)
    ]
    return "\n".join([introduction, *parts, ending])


if __name__ == "__main__":
    sys.exit(main())
