"""create_session: devices, options, and models that cannot be loaded."""

import logging
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from pdeinfer.errors import DeviceError, MissingDependencyError, ModelPackageError
from pdeinfer.package.package import ONNX_FILE
from pdeinfer.runtime import onnx_runtime, session
from pdeinfer.runtime.cpus import available_cpus
from pdeinfer.runtime.session import TensorType, create_session
from tests.runtime.fake_onnxruntime import CPU, CUDA, FakeOnnxRuntime


@pytest.fixture(scope="module")
def model(package_folder: Path) -> bytes:
    return (package_folder / ONNX_FILE).read_bytes()


def fake(monkeypatch: pytest.MonkeyPatch, outcome: str) -> FakeOnnxRuntime:
    runtime = FakeOnnxRuntime(outcome)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    session._warn_once.cache_clear()
    return runtime


class TestDevices:
    """Only "auto" falls back to the CPU."""

    def test_the_cpu_runs_the_model(self, model: bytes) -> None:
        opened = create_session(model, "cpu", 1)
        assert (opened.device, opened.provider, opened.threads) == ("cpu", CPU, 1)
        assert opened.inputs == {"image": TensorType("tensor(uint8)", (None, 8, 8, 1))}
        assert opened.outputs == {"probabilities": TensorType("tensor(float)", (None, 10))}
        assert np.allclose(opened.run("probabilities", {"image": np.zeros((3, 8, 8, 1), np.uint8)}), 0.1)

    def test_a_failed_run_is_a_model_package_error_and_prints_nothing(
        self, model: bytes, capfd: pytest.CaptureFixture[str]
    ) -> None:
        opened = create_session(model, "cpu", 1)
        for run in (lambda feeds: opened.run("probabilities", feeds), opened.run_all):
            with pytest.raises(ModelPackageError):
                run({"image": np.zeros((3, 8, 9, 1), np.uint8)})
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("device", ["gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:0 ", "", None, 0])
    def test_unknown_devices_are_device_errors(self, model: bytes, device: object) -> None:
        with pytest.raises(DeviceError, match=re.escape(repr(device))):
            create_session(model, device)

    def test_cuda_without_a_cuda_build_is_a_device_error_with_the_cure(
        self, model: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake(monkeypatch, "absent")
        monkeypatch.setattr(onnx_runtime, "installed_packages", lambda: ["onnxruntime"])
        cure = "pip uninstall --yes onnxruntime && pip install 'pdeinfer[gpu]'"
        with pytest.raises(DeviceError, match=f"cuda:0.*{re.escape(cure)}"):
            create_session(model, "cuda")

    @pytest.mark.parametrize(
        ("outcome", "reason"),
        [
            ("falls back", "Failed to load libcudart.so"),
            ("fails", "no CUDA-capable device"),
            ("no cuDNN", "cuDNN is not available"),
        ],
    )
    def test_cuda_that_does_not_work_is_a_device_error_with_the_reason(
        self, model: bytes, monkeypatch: pytest.MonkeyPatch, outcome: str, reason: str
    ) -> None:
        fake(monkeypatch, outcome)
        with pytest.raises(DeviceError, match=f"cuda:1.*{reason}"):
            create_session(model, "cuda:1")

    @pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "auto"])
    @pytest.mark.parametrize("content", [None, b"hello"])
    def test_a_damaged_model_is_a_model_package_error_on_every_device(
        self, model: bytes, content: bytes | None, device: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake(monkeypatch, "rejects")
        with pytest.raises(ModelPackageError):
            create_session(content or model, device)

    @pytest.mark.parametrize("device", ["cuda", "cuda:1", "auto"])
    def test_a_model_that_fails_on_every_device_is_a_model_package_error(
        self, model: bytes, device: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake(monkeypatch, "broken")
        with pytest.raises(ModelPackageError, match="on cpu"):
            create_session(model, device)

    @pytest.mark.parametrize(("device", "index"), [("cuda", "0"), ("cuda:0", "0"), ("cuda:3", "3"), ("auto", "0")])
    def test_cuda_is_used_if_it_works(
        self, model: bytes, monkeypatch: pytest.MonkeyPatch, device: str, index: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        runtime = fake(monkeypatch, "works")
        opened = create_session(model, device)
        assert (opened.device, opened.provider, opened.cuda_graphs) == (f"cuda:{index}", CUDA, True)
        (options,) = runtime.cuda_options()
        assert options["device_id"] == index
        assert {buffer[2:] for buffer in runtime.buffers} == {("cuda", int(index))}
        assert not caplog.records

    @pytest.mark.parametrize(("outcome", "logged"), [("absent", 0), ("falls back", 1), ("fails", 1), ("no cuDNN", 1)])
    def test_auto_uses_the_cpu_if_cuda_does_not_work_and_logs_once_why_a_cuda_build_could_not(
        self,
        model: bytes,
        monkeypatch: pytest.MonkeyPatch,
        outcome: str,
        logged: int,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        runtime = fake(monkeypatch, outcome)
        for _ in range(2):
            opened = create_session(model, "auto")
            assert (opened.device, opened.provider) == ("cpu", CPU)
        assert [(record.levelno, "cuda:0" in record.message) for record in caplog.records] == (
            [(logging.WARNING, True)] * logged
        )
        assert capfd.readouterr() == ("", "")
        assert runtime.severities == ([] if outcome == "absent" else [4, 2] * 2)  # quiet, then as before

    def test_auto_does_not_look_for_a_cure_where_the_build_has_no_cuda(
        self, model: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reading the metadata of every installed package takes longer than opening the session."""
        fake(monkeypatch, "absent")
        monkeypatch.setattr(onnx_runtime, "installed_packages", lambda: pytest.fail("the metadata was read"))
        assert create_session(model, "auto").device == "cpu"

    def test_cpu_does_not_try_cuda(self, model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime = fake(monkeypatch, "works")
        assert create_session(model, "cpu").device == "cpu"
        assert [session.providers for session in runtime.sessions] == [[CPU]]

    def test_options(self, model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime = fake(monkeypatch, "works")
        create_session(model, "cpu", 3)
        (session,) = runtime.sessions
        assert vars(session.options) == {
            "graph_optimization_level": "all",
            "execution_mode": "sequential",
            "intra_op_num_threads": 3,
            "log_severity_level": 4,
        }

    def test_threads_default_to_the_available_cpus(self, model: bytes) -> None:
        assert create_session(model, "cpu").threads == available_cpus()


class TestInstallation:
    """ONNX Runtime is missing, broken or installed twice; and does not send usage data."""

    @pytest.mark.parametrize(
        ("installed", "cure"),
        [
            ([], "pip install 'pdeinfer[cpu]'"),
            (["onnxruntime"], "pip uninstall --yes onnxruntime && pip install 'pdeinfer[cpu]'"),
            (["onnxruntime-gpu"], "pip uninstall --yes onnxruntime-gpu && pip install 'pdeinfer[gpu]'"),
            (
                ["onnxruntime", "onnxruntime-gpu"],
                "pip uninstall --yes onnxruntime onnxruntime-gpu && pip install 'pdeinfer[gpu]'",
            ),
        ],
    )
    @pytest.mark.parametrize("module", [None, ModuleType("onnxruntime")])  # pip can leave an empty package
    def test_an_onnx_runtime_that_cannot_be_imported_names_the_packages_and_the_cure(
        self,
        model: bytes,
        monkeypatch: pytest.MonkeyPatch,
        installed: list[str],
        cure: str,
        module: ModuleType | None,
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", module)
        monkeypatch.setattr(onnx_runtime, "installed_packages", lambda: installed)
        with pytest.raises(MissingDependencyError) as raised:
            create_session(model, "cpu")
        assert str(raised.value).endswith(f": {cure}")
        assert all(package in str(raised.value) for package in installed)

    def test_ctrl_c_while_it_is_imported_is_not_taken_for_a_broken_installation(self, tmp_path: Path) -> None:
        (tmp_path / "onnxruntime.py").write_text(
            """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:  # as pybind11 does, and without the cause as ONNX Runtime's own code does
    raise ImportError("initialization failed") from None
InferenceSession = None
"""
        )
        program = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pdeinfer.runtime.onnx_runtime as runtime\n"
        )
        program += "try: runtime.import_onnxruntime()\nexcept KeyboardInterrupt: print('interrupted')"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == ("interrupted\n", "")

    def test_the_installed_packages_are_found(self) -> None:
        (package,) = onnx_runtime.installed_packages()
        assert package.startswith("onnxruntime")

    @pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
    def test_telemetry_is_off_unless_the_user_set_the_variable(
        self, before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
        if before is not None:
            monkeypatch.setenv("ORT_DISABLE_TELEMETRY", before)
        program = "import os, pdeinfer; print(os.environ['ORT_DISABLE_TELEMETRY'])"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == after


class TestModels:
    """Models that are rejected."""

    @pytest.mark.parametrize("content", [b"", b"\x08\x08", b"hello", b"ORTM" * 8])
    def test_bytes_that_are_not_an_onnx_file_are_rejected(self, content: bytes) -> None:
        with pytest.raises(ModelPackageError):
            create_session(content, "cpu")

    def test_an_unknown_operator_is_rejected(self) -> None:
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
        graph = helper.make_graph([helper.make_node("NoSuchOperator", [], ["y"])], "g", [], [output])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        with pytest.raises(ModelPackageError, match="NoSuchOperator"):
            create_session(model.SerializeToString(), "cpu")

    @pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "absolute"])
    def test_a_model_that_refers_to_another_file_is_rejected(
        self, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "sub").mkdir()
        monkeypatch.chdir(tmp_path / "sub")
        for file in (tmp_path / "weights.bin", tmp_path / "sub" / "weights.bin"):
            np.ones(2, np.float32).tofile(file)
        w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
        path = str(tmp_path / "weights.bin") if location == "absolute" else location
        w.external_data.add(key="location", value=path)
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
        graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [w])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        with pytest.raises(ModelPackageError, match="self-contained"):
            create_session(model.SerializeToString(), "cpu")


class TimeLimitError(Exception):
    """What a signal's handler raises in a job that takes too long, as Celery's and RQ's do."""


class TestErrors:
    """Only ONNX Runtime's own errors are those of a model."""

    @pytest.mark.parametrize("error", [TimeLimitError(), TimeoutError(), type("Limit", (RuntimeError,), {})()])
    def test_an_exception_of_a_signal_handler_passes(
        self, model: bytes, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        opened = create_session(model, "cpu", 1)
        for owner, name, call in (
            (type(opened._session), "run", lambda: opened.run("probabilities", {})),
            (onnxruntime, "InferenceSession", lambda: create_session(model, "cpu", 1)),
            (onnxruntime.SessionOptions, "register_custom_ops_library", lambda: create_session(model, "cpu", 1)),
            (fake(monkeypatch, "works"), "InferenceSession", lambda: create_session(model, "cuda", 1)),
        ):
            with monkeypatch.context() as patch:
                patch.setitem(sys.modules, "onnxruntime", owner if isinstance(owner, FakeOnnxRuntime) else onnxruntime)
                patch.setattr(owner, name, fail)
                with pytest.raises(type(error)):
                    call()

    def test_an_onnx_runtime_whose_import_is_interrupted_is_not_broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Interrupted(ModuleType):
            @property
            def InferenceSession(self) -> None:  # noqa: N802  # ONNX Runtime's name
                raise TimeoutError

        monkeypatch.setitem(sys.modules, "onnxruntime", Interrupted("onnxruntime"))
        with pytest.raises(TimeoutError):
            onnx_runtime.import_onnxruntime()

    @pytest.mark.parametrize(
        "message",
        [
            "std::bad_alloc",
            "bad allocation",  # on Windows
            "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer",
        ],
    )
    def test_too_little_memory_is_a_memory_error(
        self, model: bytes, monkeypatch: pytest.MonkeyPatch, message: str
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise Fail(f"[ONNXRuntimeError] : 1 : FAIL : {message}")

        opened = create_session(model, "cpu", 1)
        monkeypatch.setattr(type(opened._session), "run", fail)
        with pytest.raises(MemoryError):
            opened.run("probabilities", {})
        monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
        with pytest.raises(MemoryError):
            create_session(model, "cpu", 1)
