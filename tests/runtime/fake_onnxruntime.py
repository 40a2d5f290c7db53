"""An ONNX Runtime with a CUDA device that needs no GPU: it records what is asked of it, and breaks where CUDA would."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def probabilities(images: np.ndarray) -> np.ndarray:
    """Return what the fake network computes for images (N, 2, 2, 1): their pixels, float32 (N, 4)."""
    return images.reshape(len(images), 4).astype(np.float32)


class FakeOnnxRuntime:
    """The module `onnxruntime`.

    Args:
        outcome: of the use of CUDA. "works"; "absent": a build without CUDA; "falls back": to the CPU; "fails": there
            is no device; "no graphs": a node runs on the CPU; "no capture": a node cannot be captured; "no cuDNN":
            sessions open and runs fail; "rejects": every model, on the CPU too; "broken": every run fails, on the CPU
            too.
        is_fixed: whether the network's batch size is fixed.

    Attributes:
        sessions: those that were opened, with what is asked of them.
        severities: those that its process-wide log was set to.
        buffers: the shape, the dtype, and the device of each buffer that was allocated.
    """

    def __init__(self, outcome: str = "works", *, is_fixed: bool = False) -> None:
        self.__version__ = "9.9"
        self.outcome = outcome
        self.is_fixed = is_fixed
        self.sessions: list[FakeSession] = []
        self.severities: list[int] = []
        self.buffers: list[tuple[tuple[int, ...], type, str, int]] = []
        self.GraphOptimizationLevel = SimpleNamespace(ORT_ENABLE_ALL="all")
        self.ExecutionMode = SimpleNamespace(ORT_SEQUENTIAL="sequential")
        self.SessionOptions = FakeSessionOptions
        self.RunOptions = FakeRunOptions
        self.OrtValue = SimpleNamespace(ortvalue_from_shape_and_type=self._allocate)
        self._device = FakeDevice()

    def get_available_providers(self) -> list[str]:
        return [CPU] if self.outcome == "absent" else [CUDA, CPU]

    def preload_dlls(self) -> None:
        threading.Event().wait(0.01)  # lets other threads in
        if self.outcome == "falls back":
            sys.stdout.write("Failed to load libcudart.so: no such file\nPlease follow the instructions\n")

    def set_default_logger_severity(self, severity: int) -> None:
        self.severities.append(severity)

    def InferenceSession(  # noqa: N802  # ONNX Runtime's name
        self, _: bytes, options: SimpleNamespace, providers: list, enable_fallback: int
    ) -> "FakeSession":
        assert enable_fallback == 0
        session = FakeSession(self, options, providers)
        self.sessions.append(session)
        if self.outcome == "rejects":
            raise RuntimeError("INVALID_GRAPH")
        if session.is_on_cuda:
            if self.outcome == "fails":
                raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
            if session.has_graphs and self.outcome == "no graphs":
                raise RuntimeError("not all nodes have been partitioned to the CUDAExecutionProvider")
        return session

    def cuda_options(self) -> list[dict[str, str]]:
        """Return the options of CUDA of each session that was asked for on CUDA."""
        return [session.providers[0][1] for session in self.sessions if session.is_on_cuda]

    def _allocate(self, shape: Sequence[int], dtype: type, device: str, index: int) -> "FakeBuffer":
        self.buffers.append((tuple(shape), dtype, device, index))
        return FakeBuffer(np.full(shape, 99, dtype), self._device)


class FakeDevice:
    """CUDA's rule: nothing else happens on any device while one thread captures."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0

    @contextmanager
    def use(self, *, capture: bool = False) -> Iterator[None]:
        with self._lock:
            assert self._users >= 0, "CUDA failure 900: operation not permitted when stream is capturing"
            assert not (capture and self._users), "CUDA failure 901: the capture was invalidated"
            self._users += -1 if capture else 1
        try:
            threading.Event().wait(0.001)  # lets other threads in
            yield
        finally:
            with self._lock:
                self._users -= -1 if capture else 1


class FakeBuffer:
    def __init__(self, array: np.ndarray, device: FakeDevice) -> None:
        self.array = array
        self._device = device

    def update_inplace(self, data: np.ndarray) -> None:
        assert data.flags.c_contiguous
        assert (data.dtype, data.shape) == (self.array.dtype, self.array.shape)
        with self._device.use():
            self.array[...] = data

    def numpy(self) -> np.ndarray:
        with self._device.use():
            return self.array.copy()


class FakeBinding:
    def __init__(self) -> None:
        self.inputs: dict[str, FakeBuffer] = {}
        self.outputs: dict[str, FakeBuffer] = {}

    def bind_ortvalue_input(self, name: str, value: FakeBuffer) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: FakeBuffer) -> None:
        self.outputs[name] = value


class FakeSessionOptions(SimpleNamespace):
    def register_custom_ops_library(self, _: str) -> None:
        raise RuntimeError("it takes no operators")


class FakeRunOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.log_severity_level = 2

    def add_run_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


class FakeSession:
    """An `InferenceSession` of a network with the input `image` and the output `probabilities`.

    Attributes:
        runs: the batch size and the graph of each run with bound buffers: "-1" or None without one.
        threads: those that have called it.
    """

    def __init__(self, runtime: FakeOnnxRuntime, options: SimpleNamespace, providers: list) -> None:
        self.options = options
        self.providers = providers
        self.is_on_cuda = providers != [CPU]
        self.has_graphs = self.is_on_cuda and providers[0][1]["enable_cuda_graph"] == "1"
        self.runs: list[tuple[int, str | None]] = []
        self.threads = {threading.current_thread()}
        self.fails_now = False
        self._runtime = runtime
        self._graphs: dict[str, FakeBinding] = {}

    def get_providers(self) -> list[str]:
        return [CUDA, CPU] if self.is_on_cuda and self._runtime.outcome != "falls back" else [CPU]

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="image", type="tensor(uint8)", shape=[self._batch, 2, 2, 1])]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="probabilities", type="tensor(float)", shape=[self._batch, 4])]

    @property
    def _batch(self) -> int | str:
        return 3 if self._runtime.is_fixed else "batch"

    def io_binding(self) -> FakeBinding:
        return FakeBinding()

    def run(self, _: list[str] | None, feeds: dict[str, np.ndarray], options: Any = None) -> list[np.ndarray]:
        """Run from the CPU's memory, where a graph would keep the addresses of one call."""
        assert not self.has_graphs or options.entries == {"gpu_graph_id": "-1"}
        self._check()
        return [probabilities(feeds["image"])]

    def run_with_iobinding(self, binding: FakeBinding, options: FakeRunOptions | None) -> None:
        assert self.is_on_cuda
        graph = options.entries["gpu_graph_id"] if options else None
        assert self.has_graphs == (graph is not None)
        self.runs.append((len(binding.inputs["image"].array), graph))
        self._check()
        captures = graph not in (None, "-1", *self._graphs)
        if captures and self._runtime.outcome == "no capture":
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")
        with self._runtime._device.use(capture=captures):
            if graph not in (None, "-1"):
                binding = self._graphs.setdefault(graph, binding)  # a replay uses the buffers of the capture
            binding.outputs["probabilities"].array[...] = probabilities(binding.inputs["image"].array)

    def _check(self) -> None:
        self.threads.add(threading.current_thread())
        if self.fails_now or self._runtime.outcome == "broken":
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")
        if self.is_on_cuda and self._runtime.outcome == "no cuDNN":
            raise RuntimeError("cuDNN is not available")
