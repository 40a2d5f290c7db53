"""The benchmarks print tables and targets, and the pages are made of them."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import document, scaling, speed, startup
from benchmarks.machine import processor
from benchmarks.markdown import milliseconds, table
from benchmarks.networks import NO_PDE, RESNET, pde_preset
from benchmarks.routes import FUNCTION, FUSED, INT8_FUSED, PLAIN
from benchmarks.serving import document as serving_document
from benchmarks.targets import TARGET_MISSED, cases_of_targets, targets
from benchmarks.timing import Timing
from benchmarks.workers import Case
from pdeinfer.checks.report import Comparison

Captured = pytest.CaptureFixture[str]
K1 = pde_preset(1).name


def timing(seconds: float) -> Timing:
    return Timing(seconds, seconds, seconds)


def test_targets_are_ratios_of_medians() -> None:
    fused = Case(K1, FUSED, 1, 1)
    timings = {
        fused: timing(1),
        fused._replace(route=PLAIN): timing(2.5),
        fused._replace(network=RESNET.name): timing(4),
        fused._replace(network=NO_PDE.name): timing(0.8),
    }

    found = {target.name: target for target in targets(timings) if target.measured is not None}

    assert {name: (target.measured, target.verdict) for name, target in found.items()} == {
        "tf2onnx / fused operator, K=1, batch 1, one thread": (2.5, "not met"),
        "ResNet32 / fused operator, K=1, batch 1, one thread": (4, "met"),
        "no PDE layers / fused operator, K=1, batch 1, one thread": (0.8, "not met"),
    }
    assert all(target.verdict == "not measured" for target in targets(timings) if target.name not in found)


def test_the_operator_is_compared_with_the_faster_openvino() -> None:
    fused = Case(K1, FUSED, 1, 64)
    timings = {
        fused: timing(2),
        fused._replace(route="pdeinfer --inline, OpenVINO"): timing(4),
        fused._replace(route="tf2onnx, OpenVINO"): timing(3),
    }

    assert [target.measured for target in targets(timings) if "OpenVINO" in target.name] == [None, 1.5, None, None]
    assert cases_of_targets(timings) == [fused, fused._replace(route="tf2onnx, OpenVINO")]


def test_a_missed_target_has_its_own_exit_code(capsys: Captured) -> None:
    one = Case(K1, FUSED, 1, 64)

    assert speed.print_targets({one: timing(3), one._replace(threads=2): timing(1)}) == 0
    assert speed.print_targets({one: timing(3), one._replace(threads=2): timing(2)}) == TARGET_MISSED

    assert "| 1.50 | not met |" in " ".join(capsys.readouterr().out.split())


def test_times_are_printed_with_their_ratios(capsys: Captured) -> None:
    seconds = {
        (RESNET.name, FUSED): 0.4,
        (RESNET.name, PLAIN): 0.3,
        (RESNET.name, INT8_FUSED): 0.4,
        (NO_PDE.name, FUSED): 0.08,
        (NO_PDE.name, PLAIN): 0.09,
        (NO_PDE.name, INT8_FUSED): 0.08,
        (K1, FUSED): 0.1,
        (K1, FUNCTION): 0.2,
        (K1, INT8_FUSED): 0.1,
        (K1, PLAIN): 0.25,
    }
    timings = {
        Case(network, route, threads, size): timing(value)
        for (network, route), value in seconds.items()
        for threads in (1, 2)
        for size in (1, 64)
    }

    speed.print_times(timings, [RESNET, NO_PDE, pde_preset(1)], [FUSED, FUNCTION, PLAIN, INT8_FUSED])

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert rows.count([FUNCTION, "float32", "", "", "200.0 (200.0-200.0)"]) == 4
    assert rows.count([FUSED, "float32", "4.00", "0.80", "2.50"]) == 4
    assert rows.count([INT8_FUSED, "int8", "4.00", "0.80", "2.50"]) == 4
    # Other networks as on the fused route, the same file.
    assert rows.count([FUNCTION, "float32", "2.00", "0.40", "1.25"]) == 4


def test_every_table_of_times_names_the_instruction_set(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "processor", lambda: "Some CPU (AVX2)")
    timings = {Case(K1, FUSED, threads, size): timing(0.1) for threads in (1, 2) for size in (1, 64)}
    timings |= {case._replace(route=PLAIN): timing(0.2) for case in timings}

    speed.print_times(timings, [pde_preset(1)], [FUSED, PLAIN])
    speed.print_targets({})

    headings = [line for line in capsys.readouterr().out.splitlines() if line.endswith(":")]
    assert len(headings) == 9
    assert all(heading.endswith("Some CPU (AVX2):") for heading in headings)


def test_lower_precision_is_printed_with_labels_and_the_largest_difference(capsys: Captured) -> None:
    def found(difference: float, same: int) -> Comparison:
        return Comparison("images", 64, difference, 0.0, batch_size=64, top1_equal=same)

    int8 = Case(K1, INT8_FUSED, 1, 64)
    speed.print_comparisons(
        {int8: found(0.01, 60), int8._replace(threads=2): found(0.02, 62), int8._replace(route=FUSED): found(0.5, 1)}
    )

    (row,) = (line for line in capsys.readouterr().out.splitlines() if K1 in line)
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [K1, INT8_FUSED, "60", "0.0200"]


@pytest.mark.parametrize(
    ("flags", "instructions"),
    [
        ("fpu avx2 avx_vnni", " (AVX2, VNNI)"),
        ("avx2 avx512f avx512_vnni avx512_bf16", " (AVX-512, VNNI, BF16)"),
        ("avx2 avx512f avx512_vnni avx512_bf16 amx_tile", " (AVX-512, VNNI, BF16, AMX)"),
        ("fpu", ""),
    ],
)
def test_the_processor_is_named_with_its_instruction_sets(
    monkeypatch: pytest.MonkeyPatch, flags: str, instructions: str
) -> None:
    text = f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n\nprocessor\t: 1\nmodel name\t: Some CPU\n"
    monkeypatch.setattr(Path, "read_text", lambda _: text)

    assert processor() == f"Some CPU{instructions}"


def test_table_columns_are_aligned() -> None:
    assert table(["route", "ms"], [["a", "1"], ["long name", "10.5"]]).splitlines() == [
        "| route     |   ms |",
        "| --------- | ---: |",
        "| a         |    1 |",
        "| long name | 10.5 |",
    ]


def test_short_times_have_more_digits() -> None:
    assert milliseconds(Timing(0.0012345, 0.001, 0.002)) == "1.234 (1.000-2.000)"
    assert milliseconds(Timing(0.12345, 0.1, 0.2)) == "123.5 (100.0-200.0)"


def test_a_slow_start_up_is_a_missed_target(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    timings = {startup.BARE: timing(0.02), startup.IMPORT: timing(0.15), startup.PREDICT: timing(0.5)}
    monkeypatch.setattr(startup, "time_in_turns", lambda *_, **__: timings)
    assert startup.main() == 0

    timings[startup.IMPORT] = timing(0.3)
    assert startup.main() == TARGET_MISSED

    assert "| 220 | not met |" in " ".join(capsys.readouterr().out.split())


def test_a_new_process_imports_and_predicts() -> None:
    startup.run(startup.IMPORT)
    startup.run(startup.PREDICT)


def test_plots_are_written(tmp_path: Path) -> None:
    curves = {"a": [timing(1), timing(2)], scaling.RESNET32: [timing(3), timing(3)]}

    for name, is_log in (("log.png", True), ("linear.png", False)):
        scaling.plot(curves, (32, 64), "side", tmp_path / name, is_log=is_log)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sys.argv", ["document"])
    monkeypatch.setattr(document, "PAGE", tmp_path / "performance.md")
    monkeypatch.setattr(document, "OUTPUTS", tmp_path / "outputs")
    (tmp_path / "performance.md").write_text("before")
    return tmp_path / "performance.md"


def with_exit_codes(monkeypatch: pytest.MonkeyPatch, exit_codes: dict[str, int]) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, exit_codes.get(command[2], 0), f"| of {command[2]} |\n")

    monkeypatch.setattr(document.subprocess, "run", run)


def test_the_page_has_the_output_of_each_command(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_exit_codes(monkeypatch, {"benchmarks.speed": TARGET_MISSED})

    assert document.main() == TARGET_MISSED

    outputs = re.findall(r"^\| of (.+) \|$", page.read_text(), re.MULTILINE)
    assert outputs == [section.arguments[1] for section in document.SECTIONS]


def test_the_page_is_regenerated_from_the_kept_outputs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_exit_codes(monkeypatch, {})
    document.main()
    written = page.read_text()
    page.unlink()
    monkeypatch.setattr("sys.argv", ["document", "--render"])
    monkeypatch.delattr(document.subprocess, "run")

    assert document.main() == 0

    assert page.read_text() == written


@pytest.mark.parametrize("module", [document, serving_document])
def test_the_committed_page_is_what_the_kept_outputs_give(module: Any) -> None:
    assert module.PAGE.read_text() == document.render(module.INTRODUCTION, module.SECTIONS, document.kept_output)


@pytest.mark.parametrize("exit_code", [1, 2])
def test_a_failing_command_leaves_the_page_unchanged(
    page: Path, monkeypatch: pytest.MonkeyPatch, exit_code: int
) -> None:
    with_exit_codes(monkeypatch, {"benchmarks.memory": exit_code})

    assert document.main() == exit_code

    assert page.read_text() == "before"
