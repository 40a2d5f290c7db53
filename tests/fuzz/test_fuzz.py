"""Coverage-guided fuzzing for PDEINFER_FUZZ_SECONDS: a few by default, many in `make fuzz`."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = int(os.environ.get("PDEINFER_FUZZ_SECONDS", "5"))

pytest.importorskip("atheris", reason="atheris has no wheel for this platform; the Hypothesis tests do without it")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["request", "images"])
def test_no_input_breaks(target: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"tests.fuzz.{target}")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    examples = list(module.seeds())
    for number, seed in enumerate(examples):
        (seeds / f"{number}").write_bytes(seed)
    words = tmp_path / "words"
    words.write_text("".join(f"{json.dumps(word)}\n" for word in module.WORDS))
    options = [
        f"-dict={words}",
        f"-max_total_time={SECONDS}",
        "-timeout=10",
        "-rss_limit_mb=1024",
        "-max_len=20000",
        "-print_final_stats=1",
        f"-artifact_prefix={tmp_path}/",
    ]

    # A child of this process would inherit the peak of its memory, which libFuzzer compares with its limit; a child of
    # the shell does not.
    result = subprocess.run(
        ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", f"tests.fuzz.{target}", str(seeds), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS + 60,
        check=False,
    )

    assert result.returncode == 0, result.stderr[-5000:]
    executed = int(result.stderr.split("stat::number_of_executed_units:")[1].split()[0])
    print(f"\n{target}: {executed:,} inputs in {SECONDS} s")  # noqa: T201  # `make fuzz` shows it
    assert executed > len(set(examples))  # a busy machine hardly gets further in a few seconds
