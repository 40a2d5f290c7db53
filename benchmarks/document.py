"""Writes docs/performance.md from what the benchmarks print.

The outputs are kept in results/benchmarks/, from which `--render` writes the page again without measuring.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.targets import TARGET_MISSED

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/performance.md"
OUTPUTS = ROOT / "results/benchmarks"


class Section(NamedTuple):
    """A part of a page: its title, what it measures, and the arguments of Python that measure it."""

    title: str
    text: str
    arguments: tuple[str, ...]

    @property
    def output(self) -> str:
        """The name of the file that keeps what the command printed."""
        return f"{self.arguments[1].removeprefix('benchmarks.')}.txt"


INTRODUCTION = """# Performance

`make bench-all` writes this page. It installs what is compared (the extra `bench`) and runs the commands below, each of
which prints its own section. Times cover whole runs, from `uint8` pixels in a NumPy array to probabilities in one.
Routes take turns, so other work on the machine slows all of them alike. All compute in float32 unless a table says
otherwise, and are timed only after their probabilities agreed within 1e-5.

[The notes](lab/performance.md) discuss the runs. [GPU runs](lab/gpu.md) has figures of an NVIDIA H100.

The networks are `cifar10-global` with K time steps, as `global-k1` and so on, and ResNet32. Their weights are random,
with batch-norm statistics of real activations and slow velocities, as after a training; times do not depend on the
weights otherwise. ResNet32 has no PDE layers, so its file is the same with and without the fused operator.
"""
SECTIONS = [
    Section(
        "Every route side by side",
        """\
Each route runs in its own process for each number of threads. ONNX Runtime runs three files: pdeinfer's with the fused
operator, the same file with the function inlined (`PDEINFER_KERNEL=0`), and tf2onnx's. OpenVINO runs with its
latency hint, on the file of `pdeinfer export --inline` and on tf2onnx's, compiled for each batch size, in float32 and,
where that is its default, in bf16. PyTorch runs an equal network (`benchmarks/torch_network.py`) with the same weights,
eagerly and compiled for each batch size with constant weights. A column such as `global-k1 x cifar10-resnet32` says how
many times as fast the first is as the second.""",
        ("-m", "benchmarks.speed"),
    ),
    Section(
        "Larger images, more time steps",
        """![Cost by image size](performance/sides.png)

![Cost by time steps](performance/steps.png)""",
        ("-m", "benchmarks.scaling", "--plots", "docs/performance"),
    ),
    Section(
        "Peak memory",
        "A new process imports the route, loads one network and runs it at batch 1 and 64. The figure is VmHWM.",
        ("-m", "benchmarks.memory"),
    ),
    Section(
        "Start-up",
        "Each row starts new processes; their files are in the system's cache.",
        ("-m", "benchmarks.startup"),
    ),
    Section(
        "Threads and batches",
        """\
256 images in runs of several sizes: on one thread, with two of ONNX Runtime's threads per run, and with two runs at a
time. The defaults of `Predictor` come from these tables.""",
        ("-m", "benchmarks.batching"),
    ),
]


def main() -> int:
    """Write the page; return the exit code, the largest of the benchmarks'."""
    return write_page(__doc__, PAGE, INTRODUCTION, SECTIONS)


def write_page(description: str | None, page: Path, introduction: str, sections: Sequence[Section]) -> int:
    """Run the command of every section, keep its output and write the page; change nothing where one fails.

    Returns:
        The largest exit code: 0, TARGET_MISSED if a target was missed, or the code of a command that failed.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="write the page from the kept outputs, without measuring")
    outputs, exit_code = {}, 0
    if not parser.parse_args().render:
        for section in sections:
            command = shlex.join(["python", *section.arguments])
            print(f"benchmark: {command}", file=sys.stderr, flush=True)
            run = subprocess.run(  # noqa: S603  # our own
                [sys.executable, *section.arguments], check=False, cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
            if run.returncode not in (0, TARGET_MISSED):
                print(f"benchmark: {command} failed; {page} is left as it was", file=sys.stderr)
                return run.returncode
            outputs[section.output] = run.stdout
            exit_code = max(exit_code, run.returncode)
        OUTPUTS.mkdir(exist_ok=True)
        for name, output in outputs.items():
            (OUTPUTS / name).write_text(output, encoding="utf-8")
    page.write_text(render(introduction, sections, kept_output), encoding="utf-8")
    return exit_code


def kept_output(section: Section) -> str:
    """Return what the section's command printed when it was last run."""
    return (OUTPUTS / section.output).read_text(encoding="utf-8")


def render(introduction: str, sections: Sequence[Section], output: Callable[[Section], str]) -> str:
    """Return the page: the introduction, and each section with its output, which names its command."""
    parts = [f"## {section.title}\n\n{section.text}\n\n{output(section).strip()}\n" for section in sections]
    return "\n".join([introduction, *parts])


if __name__ == "__main__":
    sys.exit(main())
