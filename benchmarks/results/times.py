"""Measures the networks of the results page in one interleaved run: `python -m benchmarks.results.times`.

One thread, float32, the file that `pdeinfer export` writes, random weights. The times are kept in
`results/benchmarks/times.json`, from which `python -m training.report` writes them into its tables and pictures.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.markdown import milliseconds, table
from benchmarks.networks import smooth_images, write_fusable
from benchmarks.results.runs import network_label, read_groups
from benchmarks.routes import open_fused
from benchmarks.timing import Timing, time_in_turns
from pdeinfer.errors import PdeinferError, TrainingError
from pdeinfer.files import replace_file
from pdeinfer.spec.presets import PRESETS, Preset

BATCH_SIZES = (1, 64)
REFERENCE = "cifar10-global"

BySize = Mapping[int, Timing]  # seconds per batch, by batch size


@dataclass(frozen=True)
class Times:
    """What one interleaved run measured.

    Attributes:
        machine: lines on the command, the hardware and the versions.
        rounds: samples of each time.
        networks: each network, as it was measured, with its times.
    """

    machine: Sequence[str] = ()
    rounds: int = 0
    networks: Sequence[tuple[Preset, BySize]] = ()

    def of(self, preset: Preset) -> BySize | None:
        """Return the times of the preset's network at its image size; None if they were not measured."""
        return next((times for other, times in self.networks if _identity(other) == _identity(preset)), None)

    @property
    def summary(self) -> str:
        """How and where they were measured; empty without times."""
        if not self.networks:
            return ""
        runtime = dict(version.rsplit(" ", 1) for version in self._line("versions").split(", "))["onnxruntime"]
        return (
            f"float32 on one thread of {self.hardware}, ONNX Runtime {runtime} with the fused operator, median of "
            f"{self.rounds} turns in one run of all networks"
        )

    @property
    def hardware(self) -> str:
        """The processor, its instruction sets and the number of CPUs."""
        return self._line("hardware").partition(", load average")[0]

    def _line(self, name: str) -> str:
        """Return what the line of the machine says that begins with a name."""
        return next(line.removeprefix(name).strip() for line in self.machine if line.startswith(name))

    def to_dict(self) -> dict[str, Any]:
        """Return the times as JSON values."""
        networks = [
            {"preset": preset.to_dict(), "seconds": {str(size): astuple(timing) for size, timing in times.items()}}
            for preset, times in self.networks
        ]
        return {"machine": list(self.machine), "rounds": self.rounds, "networks": networks}


def read_times(results: Path) -> Times:
    """Return the kept times; none if there is no file.

    Raises:
        TrainingError: the file is damaged.
    """
    path = _path(results)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        networks = [
            (
                Preset.from_dict(one["preset"]),
                {int(size): Timing(*seconds) for size, seconds in one["seconds"].items()},
            )
            for one in values["networks"]
        ]
        return Times(values["machine"], values["rounds"], networks)
    except FileNotFoundError:
        return Times()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError(f"{path}: expected the times of `python -m benchmarks.results.times`: {error!r}") from error


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit code: 0, or 2 if a network cannot be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results.times",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=41, help="samples of each time, at least 2 (default: 41)")
    arguments = parser.parse_args(argv)
    try:
        presets = networks_of(arguments.results)
        machine = describe()
        times = Times(machine, arguments.rounds, measure(presets, arguments.rounds))
    except (PdeinferError, RuntimeError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    print(*machine, "", _table(times), sep="\n")
    path = _path(arguments.results)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda partial: partial.write_text(json.dumps(times.to_dict(), indent=1) + "\n"))
    print(f"wrote {path}")
    return 0


def networks_of(results: Path) -> list[Preset]:
    """Return the CIFAR-10 presets, and the networks of runs whose preset has changed since."""
    presets = [preset for name, preset in PRESETS.items() if name.startswith("cifar10-")]
    trained = [group.preset for group in read_groups(results) if group.dataset == "cifar10"]
    networks: dict[object, Preset] = {}
    for preset in (*presets, *trained):
        networks.setdefault(_identity(preset), preset)
    return list(networks.values())


def measure(presets: Sequence[Preset], rounds: int) -> list[tuple[Preset, BySize]]:
    """Return the times of networks, measured in turns.

    Raises:
        RuntimeError: the fused operator is missing.
    """
    classifiers = []
    with tempfile.TemporaryDirectory() as folder:
        for preset in presets:
            write_fusable(preset, Path(folder))
            classifiers.append(open_fused(preset, Path(folder), threads=1))
    measured: list[dict[int, Timing]] = [{} for _ in presets]
    for size in BATCH_SIZES:
        functions = {}
        for index, (preset, classify) in enumerate(zip(presets, classifiers, strict=True)):
            spec = preset.input
            functions[str(index)] = partial(classify, smooth_images(spec.height, spec.width, spec.channels, size))
        for index, timing in time_in_turns(functions, rounds=rounds).items():
            measured[int(index)][size] = timing
    return list(zip(presets, measured, strict=True))


def _table(times: Times) -> str:
    reference = times.of(PRESETS[REFERENCE])
    header = ["network", *(cell for size in BATCH_SIZES for cell in (f"batch {size} (ms)", f"x {REFERENCE}"))]
    rows = []
    for preset, by_size in times.networks:
        row = [network_label(preset)]
        for size, timing in by_size.items():
            row += [milliseconds(timing), f"{timing.median / reference[size].median:.3f}" if reference else ""]
        rows.append(row)
    return table(header, rows)


def _identity(preset: Preset) -> object:
    return preset.input, preset.network


def _path(results: Path) -> Path:
    return results / "benchmarks" / "times.json"


if __name__ == "__main__":
    sys.exit(main())
