"""Settings of single models: batching, precision and threshold."""

from pathlib import Path

import pytest

from serving.process.arguments import parse_settings


def test_per_model_settings_change_the_batching_of_one_model() -> None:
    settings = parse_settings(
        ["--max-delay-ms=1", '--per-model={"mnist-pde": {"max_batch_size": 64, "max_delay_ms": 0, "max_queue": 99}}']
    )

    assert settings.batching("mnist-pde") == (64, 0, 99)
    assert settings.batching("digits-pde") == (None, 1, 256)


def test_per_model_settings_of_several_flags_and_of_the_environment_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = '{"a": {"max_queue": 99}, "b": {}}', '{"b": {"max_queue": 98}}'

    settings = parse_settings(["--per-model", first, f"--per-model={second}"])

    assert {name: settings.batching(name)[2] for name in settings.per_model} == {"a": 99, "b": 98}
    twice = parse_settings(["--per-model", first, '--per-model={"a": {"max_delay_ms": 3}}'])
    assert twice.batching("a") == (None, 3, 99)
    monkeypatch.setenv("PDEINFER_PER_MODEL", first)
    assert parse_settings([]).batching("a")[2] == 99


@pytest.mark.parametrize("value", ["[1]", "{bad", "a=text", "3", '{"a": 3}', '{"a": {}} {}', "null"])
@pytest.mark.parametrize("source", ["flag", "environment", "file"])
def test_per_model_settings_that_are_none_are_refused_with_an_example(
    value: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"flag": [f"--per-model={value}"], "file": ["--config", str(tmp_path / "settings.toml")]}
    (tmp_path / "settings.toml").write_text(f"per_model = '{value}'\n")
    if source == "environment":
        monkeypatch.setenv("PDEINFER_PER_MODEL", value)

    with pytest.raises(SystemExit) as exit_info:
        parse_settings(arguments.get(source, []))

    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert '{"mnist-pde": {"max_delay_ms": 2}}' in line
    assert "--per-model or PDEINFER_PER_MODEL" in line


def test_per_model_settings_change_the_precision_of_one_model() -> None:
    settings = parse_settings(["--precision=int8", '--per-model={"digits-pde": {"precision": "float32"}}'])

    assert settings.precision_of("cifar10-global") == "int8"
    assert settings.precision_of("digits-pde") == "float32"
    assert parse_settings([]).precision_of("digits-pde") == "float32"


def test_per_model_settings_change_the_threshold_of_one_model() -> None:
    settings = parse_settings(["--threshold=0.8", '--per-model={"digits-pde": {"threshold": 0}}'])

    assert settings.threshold_of("cifar10-global") == 0.8
    assert settings.threshold_of("digits-pde") == 0


def test_a_batch_is_no_larger_than_the_queue() -> None:
    assert parse_settings(["--max-batch-size=1000"]).batching("digits-pde") == (256, 0, 256)
