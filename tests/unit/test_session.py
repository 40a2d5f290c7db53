"""Devices, threads, CPU quotas, and what is no network."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper

from pdeinfer.errors import DeviceError, MissingDependencyError, ModelPackageError
from pdeinfer.package.package import ONNX_FILE
from pdeinfer.runtime.cpus import available_cpus
from pdeinfer.runtime.session import create_session

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def model(package_folder: Path) -> bytes:
    return (package_folder / ONNX_FILE).read_bytes()


class FakeOnnxRuntime:
    """An ONNX Runtime with CUDA, which works, falls back to the CPU, or fails.

    Attributes:
        sessions: the providers and options that each session was asked for with.
    """

    def __init__(self, outcome: str) -> None:
        self.__version__ = "9.9"
        self.outcome = outcome
        self.sessions: list[tuple[list, SimpleNamespace]] = []
        self.GraphOptimizationLevel = SimpleNamespace(ORT_ENABLE_ALL="all")
        self.ExecutionMode = SimpleNamespace(ORT_SEQUENTIAL="sequential")
        self.SessionOptions = SimpleNamespace

    def get_available_providers(self) -> list[str]:
        return [CPU] if self.outcome == "absent" else [CUDA, CPU]

    def preload_dlls(self) -> None:
        sys.stdout.write("Failed to load libcudart.so\n")

    def InferenceSession(  # noqa: N802  # ONNX Runtime's name
        self, _: bytes, options: SimpleNamespace, providers: list, enable_fallback: int
    ) -> SimpleNamespace:
        assert enable_fallback == 0
        self.sessions.append((providers, options))
        on_cuda = providers != [CPU]
        if on_cuda and self.outcome == "fails":
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
        used = [CUDA, CPU] if on_cuda and self.outcome == "works" else [CPU]
        return SimpleNamespace(get_providers=lambda: used, get_inputs=list, get_outputs=list)


def fake(monkeypatch: pytest.MonkeyPatch, outcome: str) -> FakeOnnxRuntime:
    runtime = FakeOnnxRuntime(outcome)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    return runtime


class TestDevices:
    """Only "auto" may choose."""

    def test_the_cpu_runs_the_model(self, model: bytes) -> None:
        session = create_session(model, "cpu", 1)
        assert (session.device, session.provider, session.threads) == ("cpu", CPU, 1)
        assert session.inputs == ["image: tensor(uint8) [batch, 8, 8, 1]"]
        assert session.outputs == ["probabilities: tensor(float) [batch, 10]"]
        result = session.run("probabilities", {"image": np.zeros((3, 8, 8, 1), np.uint8)})
        assert np.allclose(result, 0.1)

    def test_what_the_model_cannot_run_is_an_error_of_the_model(self, model: bytes) -> None:
        session = create_session(model, "cpu", 1)
        for run in (lambda feeds: session.run("probabilities", feeds), session.run_all):
            with pytest.raises(ModelPackageError, match="cannot run the model: "):
                run({"image": np.zeros((3, 8, 9, 1), np.uint8)})

    @pytest.mark.parametrize("device", ["gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:0 ", "", None, 0])
    def test_unknown_devices_are_refused(self, model: bytes, device: object) -> None:
        with pytest.raises(DeviceError, match="device must be 'auto', 'cpu', 'cuda' or 'cuda:N', not "):
            create_session(model, device)

    def test_cuda_is_refused_where_this_onnx_runtime_has_none(
        self, model: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake(monkeypatch, "absent")
        with pytest.raises(DeviceError, match=r"cuda:0 needs ONNX Runtime with CUDA.*pip install 'pdeinfer\[gpu\]'"):
            create_session(model, "cuda")

    @pytest.mark.parametrize("outcome", ["falls back", "fails"])
    def test_cuda_is_refused_where_it_would_be_the_cpu(
        self, model: bytes, monkeypatch: pytest.MonkeyPatch, outcome: str
    ) -> None:
        fake(monkeypatch, outcome)
        with pytest.raises(DeviceError, match=r"cuda:1 cannot be used: .*(fell back to|no CUDA-capable device)"):
            create_session(model, "cuda:1")

    @pytest.mark.parametrize(("device", "index"), [("cuda", "0"), ("cuda:0", "0"), ("cuda:3", "3"), ("auto", "0")])
    def test_cuda_is_used_where_it_works(
        self, model: bytes, monkeypatch: pytest.MonkeyPatch, device: str, index: str
    ) -> None:
        runtime = fake(monkeypatch, "works")
        session = create_session(model, device)
        assert (session.device, session.provider) == (f"cuda:{index}", CUDA)
        # Without TF32 float32 is float32.
        expected = [(CUDA, {"device_id": index, "use_tf32": "0"}), CPU]
        assert [providers for providers, _ in runtime.sessions] == [expected]

    @pytest.mark.parametrize("outcome", ["absent", "falls back", "fails"])
    def test_auto_takes_the_cpu_where_cuda_does_not_work(
        self, model: bytes, monkeypatch: pytest.MonkeyPatch, outcome: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fake(monkeypatch, outcome)
        session = create_session(model, "auto")
        assert (session.device, session.provider) == ("cpu", CPU)
        assert capsys.readouterr().out == ""  # what ONNX Runtime prints is not the program's output

    def test_cpu_does_not_touch_cuda(self, model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime = fake(monkeypatch, "works")
        assert create_session(model, "cpu").device == "cpu"
        assert [providers for providers, _ in runtime.sessions] == [[CPU]]

    def test_the_options_are_those_of_production(self, model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime = fake(monkeypatch, "works")
        create_session(model, "cpu", 3)
        ((_, options),) = runtime.sessions
        assert vars(options) == {
            "graph_optimization_level": "all",
            "execution_mode": "sequential",
            "intra_op_num_threads": 3,
            "log_severity_level": 3,
        }

    def test_threads_default_to_the_available_cpus(self, model: bytes) -> None:
        assert create_session(model, "cpu").threads == available_cpus()

    def test_a_missing_onnx_runtime_names_the_install_command(
        self, model: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(MissingDependencyError, match=r"onnxruntime.*pip install 'pdeinfer\[cpu\]'"):
            create_session(model, "cpu")


class TestModels:
    """What ONNX Runtime is not given, and what it rejects."""

    @pytest.mark.parametrize("content", [b"", b"\x08\x08", b"hello", b"ORTM" * 8])
    def test_bytes_that_are_no_model_are_refused(self, content: bytes) -> None:
        with pytest.raises(ModelPackageError, match=r"not an ONNX file|cannot load the model"):
            create_session(content, "cpu")

    def test_an_unknown_operator_is_refused(self) -> None:
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
        graph = helper.make_graph([helper.make_node("NoSuchOperator", [], ["y"])], "g", [], [output])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        with pytest.raises(ModelPackageError, match="cannot load the model"):
            create_session(model.SerializeToString(), "cpu")

    @pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "absolute"])
    def test_a_model_that_refers_to_a_file_is_refused_and_the_file_not_read(
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
        with pytest.raises(ModelPackageError, match="must be self-contained"):
            create_session(model.SerializeToString(), "cpu")


class TestAvailableCpus:
    """Affinity and the quotas of control groups, from files of a made-up system."""

    @pytest.fixture(autouse=True)
    def _eight_cpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    @staticmethod
    def write(root: Path, files: dict[str, str]) -> Path:
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return root

    def test_without_control_groups_the_affinity_counts(self, tmp_path: Path) -> None:
        assert available_cpus(tmp_path) == 8

    def test_without_affinity_the_cpus_count(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "sched_getaffinity")
        monkeypatch.setattr(os, "cpu_count", lambda: 5)
        assert available_cpus(tmp_path) == 5
        monkeypatch.setattr(os, "cpu_count", lambda: None)
        assert available_cpus(tmp_path) == 1

    @pytest.mark.parametrize(
        ("quota", "cpus"),
        [("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("9900000 100000", 8)],
    )
    def test_the_quota_of_version_2_counts(self, tmp_path: Path, quota: str, cpus: int) -> None:
        root = self.write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota}\n"})
        assert available_cpus(root) == cpus

    def test_the_smallest_quota_on_the_way_up_counts(self, tmp_path: Path) -> None:
        files = {
            "proc/self/cgroup": "0::/pod/container\n",
            "sys/fs/cgroup/pod/container/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/cpu.max": "600000 100000\n",
        }
        assert available_cpus(self.write(tmp_path, files)) == 3

    @pytest.mark.parametrize(
        ("quota", "period", "cpus"), [("400000", "100000", 4), ("-1", "100000", 8), ("1000", "100000", 1)]
    )
    @pytest.mark.parametrize("group", ["", "docker/abc"])
    def test_the_quota_of_version_1_counts(
        self, tmp_path: Path, group: str, quota: str, period: str, cpus: int
    ) -> None:
        folder = f"sys/fs/cgroup/cpu/{group}"
        files = {
            "proc/self/cgroup": f"5:memory:/other\n4:cpu,cpuacct:/{group}\n1:name=systemd:/\n",
            f"{folder}/cpu.cfs_quota_us": f"{quota}\n",
            f"{folder}/cpu.cfs_period_us": f"{period}\n",
        }
        assert available_cpus(self.write(tmp_path, files)) == cpus

    def test_in_a_container_that_sees_its_host_path_the_mount_counts(self, tmp_path: Path) -> None:
        files = {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        }
        assert available_cpus(self.write(tmp_path, files)) == 2

    @pytest.mark.parametrize("content", ["", "garbage", "max", "1 0", "-1 100000 3", "x y"])
    def test_files_of_an_unknown_form_are_passed_over(self, tmp_path: Path, content: str) -> None:
        root = self.write(tmp_path, {"proc/self/cgroup": "0::/\nnonsense\n", "sys/fs/cgroup/cpu.max": content})
        assert available_cpus(root) == 8
