"""docs/performance-gpu.md is made of the results of a check without failures."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_document

RESULTS: dict[str, Any] = {
    "machine": {"passed": True, "gpu": "NVIDIA H200, 580.1", "machine": ["command   x", "versions  y"]},
    "speed": {
        "passed": True,
        "networks": {
            "global-k1, batch 1": {
                "milliseconds": {"fused operator, CUDA graph": 0.2, "torch.compile": 0.4},
                "quartiles": {"fused operator, CUDA graph": [0.1, 0.3], "torch.compile": [0.4, 0.5]},
                "left_out": ["PyTorch: no such library"],
                "times_as_fast_as_torch_compile": 2.0,
            }
        },
    },
    "racecheck": {"passed": None, "reason": "compute-sanitizer is not installed"},
}


def write(results: object, tmp_path: Path) -> tuple[int, Path]:
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = tmp_path / "page.md"
    return gpu_document.main([str(tmp_path / "results.json"), "--output", str(page)]), page


def test_the_page_holds_the_machine_the_outcomes_and_the_times(tmp_path: Path) -> None:
    code, page = write(RESULTS, tmp_path)

    text = page.read_text()
    assert code == 0
    for part in ("NVIDIA H200", "| racecheck | skipped: compute-sanitizer", "0.200 (0.100-0.300)", "Left out, PyTorch",
                 "2.00 times as fast as torch.compile"):  # fmt: skip
        assert part in " ".join(text.split()), part


def test_a_failed_part_writes_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, page = write({**RESULTS, "server": {"passed": False, "reason": "exit code 1"}}, tmp_path)

    assert code == 1
    assert "server" in capsys.readouterr().err
    assert not page.exists()


def test_missing_results_are_exit_code_2(tmp_path: Path) -> None:
    page = tmp_path / "page.md"

    assert gpu_document.main([str(tmp_path / "none.json"), "--output", str(page)]) == 2
    assert not page.exists()
