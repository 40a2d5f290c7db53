"""Measures how long a new process takes to import pdeinfer, and to predict."""

import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.markdown import machine, milliseconds, table
from benchmarks.targets import TARGET_MISSED
from benchmarks.timing import time_in_turns

EXAMPLE = Path(__file__).parent.parent / "examples/seven.png"
BARE, IMPORT, PREDICT = "bare Python", "import pdeinfer", "pdeinfer predict"
COMMANDS = {
    BARE: ["-c", "pass"],
    IMPORT: ["-c", "import pdeinfer"],
    PREDICT: ["-m", "pdeinfer", "predict", str(EXAMPLE)],
}


def main() -> int:
    """Run the benchmark; return the exit code: 0, or TARGET_MISSED."""
    print(machine())
    timings = time_in_turns({name: partial(run, name) for name in COMMANDS}, rounds=15, sample_seconds=0)
    limits = {IMPORT: 0.2 + timings[BARE].median, PREDICT: 0.6}
    met = {name: timings[name].median < limit for name, limit in limits.items()}
    rows = [
        [
            f"`{shlex.join(['python', *arguments[:-1], Path(arguments[-1]).name])}`",
            milliseconds(timings[name]),
            f"{1000 * limits[name]:.0f}" if name in limits else "",
            ("met" if met[name] else "not met") if name in met else "",
        ]
        for name, arguments in COMMANDS.items()
    ]
    print(table(["a new process", "milliseconds, median (quartiles)", "less than", ""], rows))
    return 0 if all(met.values()) else TARGET_MISSED


def run(name: str) -> None:
    """Run a command of `COMMANDS` to its end.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    subprocess.run([sys.executable, *COMMANDS[name]], check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # our own


if __name__ == "__main__":
    sys.exit(main())
