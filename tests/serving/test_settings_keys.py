"""Keys in the settings: their sources, what a key may hold, and that none is shown."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.process.arguments import parse_settings
from serving.settings import Settings


@pytest.mark.parametrize("group", ["api", "admin"])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{group}_keys_file = ["{keys}"]', "expected the path of one file"),
        ("{group}_keys_file = []", "expected the path of one file"),
        ("{group}_keys_file = 3", "expected the path of one file"),
        ("{group}_keys = []", "holds no key"),
        ("{group}_keys = 3", "{group}_keys"),
    ],
)
def test_keys_of_another_type_leave_the_server_shut(
    group: str, line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys").write_text("key")
    (tmp_path / "settings.toml").write_text(line.format(group=group, keys=tmp_path / "keys"))
    with pytest.raises(SystemExit) as exit_info:
        parse_settings(["--config", str(tmp_path / "settings.toml")])

    assert exit_info.value.code == 2
    assert message.format(group=group) in capsys.readouterr().err


def test_a_second_file_of_keys_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "a,b"
    keys.write_text("key")
    assert parse_settings(["--api-keys-file", str(keys)]).keys_of_clients() == ["key"]
    with pytest.raises(SystemExit) as exit_info:
        parse_settings(["--api-keys-file", str(keys), f"--api-keys-file={keys}"])

    assert exit_info.value.code == 2
    assert "--api-keys-file: expected one file" in capsys.readouterr().err


def test_files_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("key\n", encoding="utf-8-sig")
    (tmp_path / "settings.toml").write_text("port = 9000\n", encoding="utf-8-sig")

    settings = parse_settings(["--config", str(tmp_path / "settings.toml"), "--api-keys-file", str(tmp_path / "keys")])

    assert (settings.port, settings.keys_of_clients()) == (9000, ["key"])


def test_keys_are_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys").write_text("k3y-of-file\n")
    monkeypatch.setenv("PDEINFER_API_KEYS", "k3y-one, k3y-two")
    monkeypatch.setenv("PDEINFER_ADMIN_KEYS_FILE", str(tmp_path / "keys"))

    settings = parse_settings([])

    assert settings.keys_of_clients() == ["k3y-one", "k3y-two"]
    assert settings.keys_of_admins() == ["k3y-of-file"]
    assert "k3y" not in f"{settings!r} {settings}"
    (tmp_path / "typo.toml").write_text('api_key = "k3y"\n[auth]\nadmin_keys = ["k3y"]\n')
    (tmp_path / "empty.toml").write_text('admin_keys = ["k3y", ""]\n')
    for wrong in (
        ["--max-queue", "1"],
        ["--port", "x"],
        ["--api-keys-file", str(tmp_path)],
        ["--api-keys", "k3y"],
        ["--admin-key=k3y"],
        ["--config", str(tmp_path / "typo.toml")],
        ["--config", str(tmp_path / "empty.toml")],
    ):
        with pytest.raises(SystemExit):
            parse_settings(wrong)
    output = capsys.readouterr()
    assert "k3y" not in output.err + output.out


@pytest.mark.parametrize("value", ['["first", "second"]', " ['first'] ", "[]"])
def test_keys_written_as_json_are_refused(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PDEINFER_API_KEYS", value)
    with pytest.raises(SystemExit) as exit_info:
        parse_settings([])

    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "separated by commas" in line
    assert value.strip() not in line


@pytest.mark.parametrize("key", ["20 \u20ac", "schl\u00fcssel", "\ufeffkey", "a\tb"])
def test_a_key_of_a_file_that_is_not_printable_ascii_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "keys").write_text(f"good key\n{key}\n", encoding="utf-8")
    for name in ("api_keys_file", "admin_keys_file"):
        with pytest.raises(ValidationError, match=name):
            Settings(**{name: tmp_path / "keys"})


def test_white_space_around_a_key_of_a_list_does_not_count() -> None:
    assert Settings(api_keys=(" first\t", "second"), admin_keys=[" admin "]).keys_of_clients() == ["first", "second"]
    with pytest.raises(ValidationError, match="api_keys"):
        Settings(api_keys=("first", " "))
