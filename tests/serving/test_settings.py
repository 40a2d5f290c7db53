"""Settings from flags, the environment and a file."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pdeinfer.images.limits import MAX_IMAGE_PIXELS
from pdeinfer.runtime.cuda import has_cuda_device
from serving.process.arguments import parse_settings
from serving.process.run import count_workers
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
    assert parse_settings(["--api-keys-file", str(keys)]).keys() == ["key"]
    with pytest.raises(SystemExit) as exit_info:
        parse_settings(["--api-keys-file", str(keys), f"--api-keys-file={keys}"])

    assert exit_info.value.code == 2
    assert "--api-keys-file: expected one file" in capsys.readouterr().err


def test_files_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("key\n", encoding="utf-8-sig")
    (tmp_path / "settings.toml").write_text("port = 9000\n", encoding="utf-8-sig")

    settings = parse_settings(["--config", str(tmp_path / "settings.toml"), "--api-keys-file", str(tmp_path / "keys")])

    assert (settings.port, settings.keys()) == (9000, ["key"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("port = ", "is not TOML"),
        ("prot = 3", "unknown setting 'prot'"),
        ("port = -1", "port"),
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


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", "cpu\n", "cuda:\u0661"])
def test_an_unknown_device_is_refused_with_the_names_of_devices(
    device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--device", device])

    assert "expected auto, cpu, cuda or cuda:N, not " in capsys.readouterr().err


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


def test_workers_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.settings.available_cpus", lambda: 8)

    assert [Settings(workers=workers).worker_threads for workers in (1, 3, 8, 20)] == [8, 2, 1, 1]
    assert Settings(workers=2, threads=3).worker_threads == 3


@pytest.mark.parametrize(
    ("arguments", "has_gpu", "workers"),
    [
        ([], False, 8),
        (["--device=cpu"], True, 8),
        ([], True, 1),
        (["--device=cuda:1"], False, 1),
        (["--threads=3"], False, 2),
        (["--threads=20"], False, 1),
        (["--workers=3"], True, 3),
    ],
)
def test_auto_is_a_worker_for_each_cpu_or_one_on_a_gpu(
    arguments: list[str], has_gpu: bool, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.process.run.available_cpus", lambda: 8)
    monkeypatch.setattr("serving.process.run.has_cuda_device", lambda: has_gpu)
    monkeypatch.setattr("serving.process.run.has_cuda", lambda _: has_gpu)

    settings, reason = count_workers(parse_settings(arguments))

    assert settings.workers == settings.num_workers == workers
    assert reason


def test_workers_are_auto_or_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_settings([]).workers == parse_settings(["--workers", "auto"]).workers == "auto"
    monkeypatch.setenv("PDEINFER_WORKERS", "3")
    assert parse_settings([]).workers == 3
    monkeypatch.setenv("PDEINFER_WORKERS", "auto")
    assert parse_settings([]).workers == "auto"
    assert parse_settings(["--workers=2"]).workers == 2


def test_keys_are_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keys").write_text("k3y-of-file\n")
    monkeypatch.setenv("PDEINFER_API_KEYS", "k3y-one, k3y-two")
    monkeypatch.setenv("PDEINFER_ADMIN_KEYS_FILE", str(tmp_path / "keys"))

    settings = parse_settings([])

    assert settings.keys() == ["k3y-one", "k3y-two"]
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


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--max-queue", "63"], {}, "max_queue must be at least max_images, 64"),
        (["--per-model", '{"a": {"max_queue": 63}}'], {}, "max_queue must be at least max_images, 64"),
        (["--per-model", "a=text"], {}, "PDEINFER_PER_MODEL"),
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


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://example.org",
        "http://localhost:3000",
        "http://127.0.0.1:8080",
        "http://[::1]:3000",
        "https://example.org:80",
        "https://xn--bcher-kva.example",
        "chrome-extension://abcdefgh",
        "capacitor://localhost",
    ],
)
def test_origins_as_browsers_send_them_are_accepted(origin: str) -> None:
    assert Settings(cors_origins=(origin,)).cors_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        "example.org",
        "https://example.org/",
        "https://example.org/app",
        "https://example.org?a=b",
        "https://Example.org",
        "HTTPS://example.org",
        "https://example.org:443",
        "http://example.org:80",
        "https://example.org:0",
        "https://example.org:65536",
        "https://example.org:",
        "https://*.example.org",
        "https://user@example.org",
        "https://b\u00fccher.example",
        "https://",
        "https:/example.org",
        "https://a b.org",
        "null",
    ],
)
def test_origin_that_can_never_match_is_an_error(origin: str) -> None:
    with pytest.raises(ValidationError, match="cors_origins"):
        Settings(cors_origins=("https://example.org", origin))


def test_idle_connections_stay_open_for_75_seconds_unless_set() -> None:
    assert parse_settings([]).keep_alive_timeout == 75
    assert parse_settings(["--keep-alive-timeout", "120"]).keep_alive_timeout == 120


@pytest.mark.parametrize("key", ["20 \u20ac", "schl\u00fcssel", "\ufeffkey", "a\tb"])
def test_a_key_of_a_file_that_is_not_printable_ascii_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "keys").write_text(f"good key\n{key}\n", encoding="utf-8")
    for name in ("api_keys_file", "admin_keys_file"):
        with pytest.raises(ValidationError, match=name):
            Settings(**{name: tmp_path / "keys"})


def test_white_space_around_a_key_of_a_list_does_not_count() -> None:
    assert Settings(api_keys=(" first\t", "second"), admin_keys=[" admin "]).keys() == ["first", "second"]
    with pytest.raises(ValidationError, match="api_keys"):
        Settings(api_keys=("first", " "))


class Driver:
    """A stand-in for CUDA's driver."""

    def __init__(self, result: int, devices: int) -> None:
        self._result = result
        self._devices = devices

    def cuInit(self, _: int) -> int:  # noqa: N802  # the driver's name
        return self._result

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._devices
        return 0


@pytest.mark.parametrize(
    ("driver", "has_device"), [(Driver(0, 2), True), (Driver(0, 0), False), (Driver(100, 1), False), (None, False)]
)
def test_a_gpu_is_one_that_the_driver_offers(
    driver: Driver | None, has_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: str) -> Driver:
        if driver is None:
            raise OSError("no such library")
        return driver

    monkeypatch.setattr("pdeinfer.runtime.cuda.ctypes.CDLL", load)

    assert has_cuda_device() == has_device
