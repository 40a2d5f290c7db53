"""Settings from flags, the environment and a file."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pdeinfer.images.limits import MAX_IMAGE_PIXELS
from serving.process.arguments import parse_settings
from serving.settings import Settings
from tests.servers import ROOT


def test_the_defaults_listen_on_loopback_and_serve_the_bundled_models() -> None:
    settings = parse_settings([])

    assert (settings.host, settings.port, settings.device, settings.models) == ("127.0.0.1", 8000, "auto", ())


def test_flags_are_read() -> None:
    settings = parse_settings(["digits-pde", "./mine", "--port", "9000", "--threads=3", "--max-body-bytes", "1000"])

    assert settings.models == ("digits-pde", "./mine")
    assert (settings.port, settings.threads, settings.max_body_bytes) == (9000, 3, 1000)


def test_flags_precede_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDEINFER_MODELS", "digits-pde, mnist-pde")
    monkeypatch.setenv("PDEINFER_PORT", "9000")
    monkeypatch.setenv("PDEINFER_MAX_IMAGES", "7")

    settings = parse_settings(["--port", "9001"])

    assert settings.models == ("digits-pde", "mnist-pde")
    assert (settings.port, settings.max_images) == (9001, 7)
    assert parse_settings(["other"]).models == ("other",)


def test_flags_and_environment_variables_precede_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        'models = ["digits-pde"]\nport = 9000\nmax_images = 7\nworkers = 3\n[per_model.digits-pde]\nmax_delay_ms = 2\n'
    )
    monkeypatch.setenv("PDEINFER_MAX_IMAGES", "8")

    settings = parse_settings(["--config", str(file), "--port", "9001"])

    assert (settings.models, settings.port, settings.max_images, settings.workers) == (("digits-pde",), 9001, 8, 3)
    assert settings.batching("digits-pde") == (None, 2, 256)
    monkeypatch.setenv("PDEINFER_CONFIG", str(file))
    assert parse_settings([]).port == 9000


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("PDEINFER_API_KEY", "PDEINFER_API_KEYS"),
        ("pdeinfer_admin_key", "PDEINFER_ADMIN_KEYS"),
        ("PDEINFER_HTTP_PORT", "PDEINFER_GRPC_PORT"),
        ("PDEINFER_", "a setting's name"),
    ],
)
def test_an_unknown_variable_is_one_line_and_exit_code_2(
    name: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "s3cret")
    with pytest.raises(SystemExit) as exit_info:
        parse_settings([])

    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert {name.upper(), hint} <= set(re.findall(r"PDEINFER_\w*|a setting's name", line))
    assert "s3cret" not in line


def test_the_variables_of_a_service_in_kubernetes_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "tcp://10.0.0.11:80"
    for service in ("PDEINFER", "PDEINFER_GRPC"):
        for name, value in {
            "SERVICE_HOST": "10.0.0.11",
            "SERVICE_PORT": "80",
            "SERVICE_PORT_HTTP": "80",
            "PORT": address,
            "PORT_80_TCP": address,
            "PORT_80_TCP_PROTO": "tcp",
            "PORT_80_TCP_PORT": "80",
            "PORT_80_TCP_ADDR": "10.0.0.11",
        }.items():
            monkeypatch.setenv(f"{service}_{name}", value)

    assert (parse_settings([]).port, parse_settings([]).grpc_port) == (8000, None)


def test_every_variable_that_the_project_reads_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = re.compile(r"""(?:environ(?:\.get\(|\[)|getenv\()"(PDEINFER_\w+)\"""")
    folders = ("pdeinfer", "serving", "training", "benchmarks", "scripts", "tests")
    files = [path for name in folders for path in (ROOT / name).rglob("*") if path.suffix in (".py", ".cc")]
    names = {name for path in files for name in reads.findall(path.read_text(encoding="utf-8"))}
    assert {"PDEINFER_KERNEL", "PDEINFER_DATA_DIR"} <= names
    for name in names:
        monkeypatch.setenv(name, "1")

    parse_settings([])


@pytest.mark.parametrize("source", ["flag", "environment", "file"])
def test_a_model_without_a_name_is_refused(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"flag": ["digits-pde", ""], "file": ["--config", str(tmp_path / "settings.toml")]}
    (tmp_path / "settings.toml").write_text('models = ["digits-pde", " "]\n')
    if source == "environment":
        monkeypatch.setenv("PDEINFER_MODELS", "digits-pde,")

    with pytest.raises(SystemExit) as exit_info:
        parse_settings(arguments.get(source, []))

    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "models.1 (PDEINFER_MODELS): expected a model's name or its folder" in line


def test_only_text_of_the_environment_and_of_the_file_is_split_at_commas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parse_settings(["pk/a,b", ","]).models == ("pk/a,b", ",")
    (tmp_path / "list.toml").write_text('models = ["pk/a,b"]\n')
    (tmp_path / "text.toml").write_text('models = "a, b"\n')
    assert parse_settings(["--config", str(tmp_path / "list.toml")]).models == ("pk/a,b",)
    assert parse_settings(["--config", str(tmp_path / "text.toml")]).models == ("a", "b")
    monkeypatch.setenv("PDEINFER_MODELS", "a,b")
    assert parse_settings([]).models == ("a", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("port = ", "is not TOML"),
        ("prot = 3", "unknown setting 'prot'"),
        ("port = -1", "port"),
        ("port = true", "port (--port or PDEINFER_PORT): expected a number, not True"),
        ("threads = true", "threads (--threads or PDEINFER_THREADS): expected a number"),
        ("workers = true", "workers (--workers or PDEINFER_WORKERS): expected a number"),
        ("max_delay_ms = false", "expected a number, not False"),
        ("[per_model.a]\nthreshold = true", "per_model.a.threshold"),
        ('config = "/nowhere"', "unknown setting 'config'"),
    ],
)
def test_a_wrong_file_is_one_line_and_exit_code_2(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "settings.toml").write_text(content)
    with pytest.raises(SystemExit) as exit_info:
        parse_settings(["--config", str(tmp_path / "settings.toml")])

    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", "cpu\n", "cuda:\u0661", "cuda:1000"])
def test_an_unknown_device_is_refused_with_the_names_of_devices(
    device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--device", device])

    assert "expected auto, cpu, cuda or cuda:N, not " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--max-queue", "63"], {}, "max_queue must be at least max_images, 64"),
        (["--per-model", '{"a": {"max_queue": 63}}'], {}, "max_queue of a must be at least max_images, 64"),
        (["--per-model", "a=text"], {}, "PDEINFER_PER_MODEL"),
        (["--per-model", '{"a": {"threshold": true}}'], {}, "PDEINFER_PER_MODEL): expected a number, not True"),
        (["--per-model", '{"a": {"max_bach": 1}}'], {}, "unknown setting 'per_model.a.max_bach'"),
        ([], {"PDEINFER_PER_MODEL": "text"}, "per_model"),
        (["--api-keys-file", "/nowhere"], {}, "cannot be read: No such file"),
        (["--api-keys-file", "/dev/null"], {}, "holds no key"),
        ([], {"PDEINFER_API_KEYS": ""}, "api_keys (PDEINFER_API_KEYS): holds no key"),
        ([], {"PDEINFER_ADMIN_KEYS": " , "}, "holds no key"),
        ([], {"PDEINFER_API_KEYS": "key,schl\u00fcssel"}, "api_keys.1 (PDEINFER_API_KEYS): expected printable ASCII"),
        ([], {"PDEINFER_ADMIN_KEYS": "k\x7fey"}, "expected printable ASCII"),
        (["--api-keys", "secret"], {}, "--api-keys-file names a file"),
        (["--admin-keys=secret"], {}, "--admin-keys-file names a file"),
        (["--workers", "0"], {}, "workers (--workers or PDEINFER_WORKERS): expected auto or a number"),
        (["--workers", "many"], {}, "workers (--workers or PDEINFER_WORKERS): expected auto or a number"),
        ([], {"PDEINFER_WORKERS": "1025"}, "workers (--workers or PDEINFER_WORKERS): expected auto or a number"),
        (["--cors-origins", "example.org"], {}, "cors_origins (--cors-origins"),
    ],
)
def test_inconsistent_settings_are_one_line_and_exit_code_2(
    arguments: list[str],
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as exit_info:
        parse_settings(arguments)

    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_limit_on_pixels_is_that_of_predict_and_training() -> None:
    assert Settings().max_image_pixels == MAX_IMAGE_PIXELS


@pytest.mark.parametrize("name", ["config", "api-keys-file"])
def test_files_are_read_as_utf_8_in_any_locale(tmp_path: Path, name: str) -> None:
    file = tmp_path / "file"
    file.write_bytes("# Schlüssel\nport = 9000\n".encode())
    program = "import sys; from serving.process.arguments import parse_settings; parse_settings(sys.argv[1:])"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    command = [sys.executable, "-c", program, f"--{name}", str(file)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr


def test_settings_are_immutable() -> None:
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
        ("max-decoding-bytes", "1000"),
        ("shutdown-timeout", "0"),
        ("load-timeout", "0"),
        ("max-batch-size", "0"),
        ("max-batch-size", "100000000"),
        ("max-delay-ms", "-1"),
        ("max-queue", "many"),
        ("request-timeout", "0"),
        ("body-timeout", "0"),
        ("body-timeout", "nan"),
        ("request-timeout", "inf"),
        ("workers", "0"),
        ("workers", "100000"),
        ("drain-seconds", "-1"),
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


def test_help_shows_every_setting_with_its_default_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse_settings(["--help"])

    text = capsys.readouterr().out
    assert exit_info.value.code == 0
    for name in Settings.model_fields.keys() - {"models", "api_keys", "admin_keys"}:
        assert f"--{name.replace('_', '-')}" in text
    assert "127.0.0.1" in text
    assert "PDEINFER_API_KEYS" in text
    assert "curl -F" in text


def test_help_names_values_and_defaults_without_python_types(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--help"])

    usage, _, options = " ".join(capsys.readouterr().out.split()).partition("options:")
    values = set(re.findall(r"\[--[a-z-]+ ([^]|]+)\]", usage))
    assert values == {"FILE", "HOST", "N", "{N,auto}", "DEVICE", "{float32,int8}", "JSON", "ORIGINS"}
    defaults = re.findall(r"\(default: (\S+)\)", options)
    assert options.count("(default") == len(defaults)
    assert {"None", "()", "dict"}.isdisjoint(defaults)


def test_idle_connections_stay_open_for_75_seconds_unless_set() -> None:
    assert parse_settings([]).keep_alive_timeout == 75
    assert parse_settings(["--keep-alive-timeout", "120"]).keep_alive_timeout == 120
