"""The only place that makes an ONNX Runtime session."""

import contextlib
import re
import sys
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from pdeinfer.errors import DeviceError, MissingDependencyError, ModelPackageError
from pdeinfer.runtime.cpus import available_cpus
from pdeinfer.runtime.external_data import has_external_data
from pdeinfer.runtime.kernel import count_kernels, register_kernel

PdeLayers: TypeAlias = Literal["fused", "standard"]

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True)
class Session:
    """A loaded network; `run` may be called from many threads.

    Attributes:
        device: "cpu" or "cuda:N", the one in use. provider: ONNX Runtime's name for it.
        threads: CPU threads of one run. version: of ONNX Runtime.
        pde_layers: "fused" where they run in pdeinfer's own operator, "standard" where all that runs is ONNX Runtime's.
        inputs, outputs: e.g. "image: tensor(uint8) [batch, 8, 8, 1]", the first dimension "batch" where it is free.
    """

    device: str
    provider: str
    threads: int
    version: str
    pde_layers: PdeLayers
    inputs: list[str]
    outputs: list[str]
    _session: Any

    def run(self, output: str, feeds: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return one output for the given inputs.

        Raises:
            ModelPackageError: ONNX Runtime cannot run the model.
        """
        return self._run([output], feeds)[0]

    def run_all(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return every output by its name for the given inputs.

        Raises:
            ModelPackageError: ONNX Runtime cannot run the model.
        """
        names = [value.name for value in self._session.get_outputs()]
        return dict(zip(names, self._run(names, feeds), strict=True))

    def _run(self, names: list[str], feeds: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        try:
            return cast(list[NDArray[np.float32]], self._session.run(names, feeds))
        except Exception as error:  # ONNX Runtime's own classes have no common base
            raise ModelPackageError(f"ONNX Runtime {self.version} cannot run the model: {error}") from error


def create_session(model: bytes, device: str = "auto", threads: int | None = None, *, fused: bool = True) -> Session:
    """Load a network.

    Args:
        model: a complete ONNX file.
        device: "cpu", "cuda", "cuda:N", or "auto": CUDA where it works, else the CPU.
        threads: CPU threads of one run, by default `available_cpus()`.
        fused: whether PDE layers may run in pdeinfer's own operator.

    Raises:
        DeviceError: `device` is none of these, or it is CUDA and ONNX Runtime would use the CPU.
        ModelPackageError: ONNX Runtime cannot load the model, or the model refers to other files.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device, re.ASCII):
        raise DeviceError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', not {device!r}")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", "cpu", "predicting") from error
    _check_self_contained(model)
    threads = threads or available_cpus()
    if device != "cpu":
        try:
            return _create_cuda_session(onnxruntime, model, device.partition(":")[2] or "0", threads)
        except DeviceError:
            if device != "auto":
                raise
    session = _create_fused_session(onnxruntime, model, threads) if fused else None
    if session is not None:
        return session
    try:
        inference_session = _inference_session(onnxruntime, model, [_CPU], _session_options(onnxruntime, threads))
    except Exception as error:  # ONNX Runtime's own classes have no common base
        raise ModelPackageError(f"ONNX Runtime {onnxruntime.__version__} cannot load the model: {error}") from error
    return _describe(onnxruntime, inference_session, "cpu", threads)


def _check_self_contained(model: bytes) -> None:
    try:
        is_external = has_external_data(model)
    except ValueError as error:
        raise ModelPackageError(f"the model is not an ONNX file: {error}") from error
    if is_external:
        raise ModelPackageError("the model refers to data outside its file; a package's model must be self-contained")


def _create_fused_session(onnxruntime: Any, model: bytes, threads: int) -> Session | None:
    """Return a session on the CPU whose PDE layers run in pdeinfer's operator, or None where they cannot."""
    options = _session_options(onnxruntime, threads)
    if not register_kernel(options):
        return None
    before = count_kernels()
    try:
        session = _inference_session(onnxruntime, model, [_CPU], options)
    except Exception:  # noqa: BLE001  # as above; whether the model is at fault shows without the operator
        return None
    pde_layers: PdeLayers = "fused" if count_kernels() > before else "standard"
    return _describe(onnxruntime, session, "cpu", threads, pde_layers)


def _create_cuda_session(onnxruntime: Any, model: bytes, index: str, threads: int) -> Session:
    """Return a session on a CUDA device, or raise DeviceError: never one that fell back to the CPU."""
    if _CUDA not in onnxruntime.get_available_providers():
        raise DeviceError(
            f"cuda:{index} needs ONNX Runtime with CUDA, and this one has {onnxruntime.get_available_providers()}: "
            "pip install 'pdeinfer[gpu]'"
        )
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21: finds CUDA's libraries where pip installed them
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it misses
            onnxruntime.preload_dlls()
    try:
        # Without the operator, which has no CUDA: the standard operators of its function have. And without TF32, which
        # ONNX Runtime takes by default: its 11 bits are not the float32 that export has proven.
        providers = [(_CUDA, {"device_id": index, "use_tf32": "0"}), _CPU]
        session = _inference_session(onnxruntime, model, providers, _session_options(onnxruntime, threads))
    except Exception as error:  # ONNX Runtime's own classes have no common base
        raise DeviceError(f"cuda:{index} cannot be used: {error}") from error
    if session.get_providers()[0] != _CUDA:
        raise DeviceError(f"cuda:{index} cannot be used: ONNX Runtime fell back to {session.get_providers()}")
    return _describe(onnxruntime, session, f"cuda:{index}", threads)


def _session_options(onnxruntime: Any, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    return options


def _inference_session(onnxruntime: Any, model: bytes, providers: list[Any], options: Any) -> Any:
    # enable_fallback=0: an error is raised, not printed and retried on another device.
    return onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)


def _describe(onnxruntime: Any, session: Any, device: str, threads: int, pde_layers: PdeLayers = "standard") -> Session:
    return Session(
        device=device,
        provider=session.get_providers()[0],
        threads=threads,
        version=onnxruntime.__version__,
        pde_layers=pde_layers,
        inputs=[_signature(value) for value in session.get_inputs()],
        outputs=[_signature(value) for value in session.get_outputs()],
        _session=session,
    )


def _signature(value: Any) -> str:
    first, *rest = value.shape or ["no dimension"]
    dimensions = ["batch" if not isinstance(first, int) else first, *rest]
    return f"{value.name}: {value.type} [{', '.join(map(str, dimensions))}]"
