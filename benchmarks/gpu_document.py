"""Writes docs/performance-gpu.md from the results of `make gpu-check`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.markdown import table

ROOT = Path(__file__).parents[1]


def main(argv: list[str] | None = None) -> int:
    """Write the page; return the exit code: 1 if a part of the check failed, 2 if its results cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_document", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=ROOT / "build/gpu-check.json")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/performance-gpu.md")
    options = parser.parse_args(argv)
    try:
        results = json.loads(options.results.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{options.results}: {error}", file=sys.stderr)
        return 2
    failed = [name for name, part in results.items() if part["passed"] is False]
    if failed:
        print(f"{options.results}: these parts failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    options.output.write_text(page(results), encoding="utf-8")
    return 0


def page(results: dict[str, Any]) -> str:
    """Return the page as Markdown: the machine, what was checked, and every measured time."""
    parts = [
        "# Performance on a GPU",
        "Written by `python -m benchmarks.gpu_document` from one run of `make gpu-check`. Routes take turns, once "
        "their probabilities agree within 1e-5, without TF32. ONNX Runtime without a graph and pdeinfer's session take "
        "the images from the CPU's memory; the others have them on the GPU before.",
        "\n".join(["```text", f"gpu       {results['machine']['gpu']}", *results["machine"]["machine"], "```"]),
        "## Checked",
        table(["part", "outcome"], [[name, _outcome(part)] for name, part in results.items()]).rstrip(),
    ]
    for name, entry in results.get("speed", {}).get("networks", {}).items():
        rows = [
            [route, f"{median:.3f} ({entry['quartiles'][route][0]:.3f}-{entry['quartiles'][route][1]:.3f})"]
            for route, median in entry["milliseconds"].items()
        ]
        parts += [f"## {name}", table(["route", "milliseconds, median (quartiles)"], rows).rstrip()]
        parts += [f"Left out, {line}" for line in entry["left_out"]]
        if ratio := entry.get("times_as_fast_as_torch_compile"):
            parts.append(f"The faster CUDA graph is {ratio:.2f} times as fast as torch.compile.")
    return "\n\n".join(parts) + "\n"


def _outcome(part: dict[str, Any]) -> str:
    return "passed" if part["passed"] else f"skipped: {part['reason']}"


if __name__ == "__main__":
    sys.exit(main())
