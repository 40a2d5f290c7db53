"""Settings from flags and the environment."""

import pytest
from pydantic import ValidationError

from serving.settings import Settings, parse_settings


def test_the_defaults_listen_on_the_loopback_only_and_serve_the_bundled_models() -> None:
    settings = parse_settings([])

    assert (settings.host, settings.port, settings.device, settings.models) == ("127.0.0.1", 8000, "auto", ())


def test_flags_are_read() -> None:
    settings = parse_settings(["digits-pde", "./mine", "--port", "9000", "--threads=3", "--max-body-bytes", "1000"])

    assert settings.models == ("digits-pde", "./mine")
    assert (settings.port, settings.threads, settings.max_body_bytes) == (9000, 3, 1000)


def test_the_environment_is_read_and_flags_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDEINFER_MODELS", "digits-pde, mnist-pde")
    monkeypatch.setenv("PDEINFER_PORT", "9000")
    monkeypatch.setenv("PDEINFER_MAX_IMAGES", "7")

    settings = parse_settings(["--port", "9001"])

    assert settings.models == ("digits-pde", "mnist-pde")
    assert (settings.port, settings.max_images) == (9001, 7)
    assert parse_settings(["other"]).models == ("other",)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("port", "http"),
        ("port", "65536"),
        ("threads", "0"),
        ("device", "gpu"),
        ("host", ""),
        ("max-body-bytes", "-1"),
        ("max-images", "0"),
        ("max-image-pixels", "1.5"),
        ("shutdown-timeout", "0"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse_settings([f"--{flag}={value}"])

    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--{flag} or PDEINFER_{flag.upper().replace('-', '_')}" in line
    assert repr(value) in line


def test_an_unknown_flag_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse_settings(["--max-bodybytes", "3"])

    assert exit_info.value.code == 2
    assert "--max-bodybytes" in capsys.readouterr().err


def test_help_shows_every_setting_its_default_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse_settings(["--help"])

    text = capsys.readouterr().out
    assert exit_info.value.code == 0
    for name in Settings.model_fields.keys() - {"models"}:
        assert f"--{name.replace('_', '-')}" in text
    assert "127.0.0.1" in text
    assert "curl -F" in text
