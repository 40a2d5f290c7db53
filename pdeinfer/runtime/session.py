"""Opens ONNX Runtime sessions: nothing else in pdeinfer creates an `InferenceSession`."""

import ctypes
import functools
import logging
import os
import weakref
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from pdeinfer.errors import DeviceError, ModelPackageError
from pdeinfer.graph.rules import check_graph
from pdeinfer.runtime.cpus import available_cpus
from pdeinfer.runtime.cuda import CudaOptions, has_cuda, open_on_cuda
from pdeinfer.runtime.cuda_session import blank_feeds
from pdeinfer.runtime.device import is_device
from pdeinfer.runtime.ending import RunGuard
from pdeinfer.runtime.kernel import count_kernels, register_kernel
from pdeinfer.runtime.onnx_runtime import check_error, import_onnxruntime

logger = logging.getLogger(__name__)

PdeLayers: TypeAlias = Literal["fused", "standard"]

# The most images in one run, unless the caller says otherwise. On an H100 an image takes 9 µs in a batch of 256, and
# 0.4 ms alone (docs/lab/gpu.md).
CPU_BATCH_SIZE, CUDA_BATCH_SIZE = 32, 256

_RUN_GUARD = RunGuard()


class TensorType(NamedTuple):
    """What an input or output is: ONNX Runtime's name of its kind, and its shape, with None for a free dimension."""

    kind: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        """Return text such as "tensor(uint8) [batch, 8, 8, 1]": only the batch is free, as the rules of a graph say."""
        return f"{self.kind} [{', '.join('batch' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Session:
    """A loaded network. Threads may share it; a forked child may not (see `is_inherited`).

    Attributes:
        device: the device in use, "cpu" or "cuda:N".
        provider: ONNX Runtime's name for the device.
        threads: CPU threads of one run.
        version: of ONNX Runtime.
        batch_size: the most images that one run should have.
        pde_layers: "fused" if they run in pdeinfer's own operator, "standard" if in ONNX Runtime's operators.
        cuda_graphs: whether runs replay CUDA graphs.
    """

    device: str
    provider: str
    threads: int
    version: str
    batch_size: int
    pde_layers: PdeLayers
    cuda_graphs: bool
    _session: Any
    _process: int = field(default_factory=os.getpid)

    @property
    def is_inherited(self) -> bool:
        """Whether a parent process opened it: its threads do not exist in this one, so it may hang."""
        return self._process != os.getpid()

    @property
    def inputs(self) -> dict[str, TensorType]:
        """The type of every input by name."""
        return {value.name: _type_of(value) for value in self._session.get_inputs()}

    @property
    def outputs(self) -> dict[str, TensorType]:
        """The type of every output by name."""
        return {value.name: _type_of(value) for value in self._session.get_outputs()}

    def run(self, output: str, feeds: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return one output for the given inputs.

        Raises:
            ModelPackageError: ONNX Runtime cannot run the model.
            DeviceError: the CUDA device fails.
            MemoryError: ONNX Runtime has too little memory.
        """
        return self._run([output], feeds)[0]

    def run_all(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return every output, by name, for the given inputs.

        Raises:
            ModelPackageError: ONNX Runtime cannot run the model.
            DeviceError: the CUDA device fails.
            MemoryError: ONNX Runtime has too little memory.
        """
        names = [value.name for value in self._session.get_outputs()]
        return dict(zip(names, self._run(names, feeds), strict=True))

    def _run(self, names: list[str], feeds: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        try:
            with _RUN_GUARD:
                return cast(list[NDArray[np.float32]], self._session.run(names, feeds))
        except Exception as error:
            check_error(error, self.device)
            # A session on CUDA has run this model before.
            kind = ModelPackageError if self.device == "cpu" else DeviceError
            raise kind(f"ONNX Runtime {self.version} cannot run the model on {self.device}: {error}") from error


_open_sessions: "weakref.WeakSet[Session]" = weakref.WeakSet()


def _keep_inherited_sessions() -> None:
    """Make the parent's sessions immortal in a forked child.

    Destroying one would join its threads, which exist in the parent only: the child would hang or crash when it exits.
    """
    for session in list(_open_sessions):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_keep_inherited_sessions)


@_RUN_GUARD  # the constructor of ONNX Runtime's session takes as long as many runs
def create_session(
    model: bytes,
    device: str = "auto",
    threads: int | None = None,
    *,
    fused: bool = True,
    batch_size: int | None = None,
    gpu_mem_limit: int | None = None,
) -> Session:
    """Load a network.

    Args:
        model: the content of an ONNX file.
        device: "cpu", "cuda", "cuda:N", or "auto": CUDA if it works, else the CPU. If this build of ONNX Runtime has
            CUDA and it does not work, "auto" logs the reason once.
        threads: CPU threads of one run, by default `available_cpus()`.
        fused: whether PDE layers may run in pdeinfer's own operator.
        batch_size: the most images of one run; by default `CPU_BATCH_SIZE` or `CUDA_BATCH_SIZE`. On CUDA larger ones
            run in parts.
        gpu_mem_limit: the most bytes of a CUDA device's memory for the network's weights and values.

    Raises:
        DeviceError: the device is unknown, or CUDA cannot be used.
        ModelPackageError: the model breaks a rule of `pdeinfer.graph`, or ONNX Runtime cannot load it.
        MissingDependencyError: ONNX Runtime is missing or broken.
        MemoryError: ONNX Runtime has too little memory.
    """
    if not isinstance(device, str) or not is_device(device):
        raise DeviceError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', not {device!r}")
    onnxruntime = import_onnxruntime()
    check_graph(model)
    threads = threads or available_cpus()
    if device == "auto" and not has_cuda(onnxruntime):
        device = "cpu"
    cpu_batch_size = batch_size or CPU_BATCH_SIZE
    if device == "cpu":
        return _create_cpu_session(onnxruntime, model, threads, fused, cpu_batch_size)
    options = CudaOptions(int(device.partition(":")[2] or 0), batch_size or CUDA_BATCH_SIZE, gpu_mem_limit)
    make_session_options = functools.partial(_session_options, onnxruntime, threads)
    try:
        session = open_on_cuda(onnxruntime, model, options, make_session_options, fused=fused)
    except DeviceError as error:
        cpu_session = _rule_out_model(onnxruntime, model, threads, fused, cpu_batch_size)
        if device != "auto":
            raise
        _warn_once(f"predicting on the CPU: {error}")
        return cpu_session
    return _describe(
        onnxruntime, session, f"cuda:{options.index}", threads, options.batch_size,
        is_fused=session.is_fused, has_graphs=session.has_graphs,
    )  # fmt: skip


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


def _rule_out_model(onnxruntime: Any, model: bytes, threads: int, fused: bool, batch_size: int) -> Session:
    """Return a session on the CPU after CUDA has failed, where the model works: it is not to blame.

    Raises:
        ModelPackageError: it is.
    """
    session = _create_cpu_session(onnxruntime, model, threads, fused, batch_size)
    if has_cuda(onnxruntime):
        session.run_all(blank_feeds(session._session))
    return session


def _create_cpu_session(onnxruntime: Any, model: bytes, threads: int, fused: bool, batch_size: int) -> Session:
    session = _create_fused_session(onnxruntime, model, threads, batch_size) if fused else None
    if session is not None:
        return session
    try:
        inference_session = _open_on_cpu(onnxruntime, model, _session_options(onnxruntime, threads))
    except Exception as error:
        check_error(error, "cpu")
        raise ModelPackageError(f"ONNX Runtime {onnxruntime.__version__} cannot load the model: {error}") from error
    return _describe(onnxruntime, inference_session, "cpu", threads, batch_size)


def _create_fused_session(onnxruntime: Any, model: bytes, threads: int, batch_size: int) -> Session | None:
    """Return a session that may run PDE layers in pdeinfer's operator, or None if that is impossible."""
    options = _session_options(onnxruntime, threads)
    if not register_kernel(options):
        return None
    before = count_kernels()
    try:
        session = _open_on_cpu(onnxruntime, model, options)
    except Exception as error:  # noqa: BLE001  # the caller tries without the operator, and reports a bad model
        check_error(error, "cpu")
        logger.info("PDE layers run without the fused operator on the CPU: %s", error)
        return None
    return _describe(onnxruntime, session, "cpu", threads, batch_size, is_fused=count_kernels() > before)


def _session_options(onnxruntime: Any, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # fatal only: errors are raised, and need not be printed as well
    return options


def _open_on_cpu(onnxruntime: Any, model: bytes, options: Any) -> Any:
    # enable_fallback=0: raise an error instead of printing it and trying another device.
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _describe(
    onnxruntime: Any,
    session: Any,
    device: str,
    threads: int,
    batch_size: int,
    *,
    is_fused: bool = False,
    has_graphs: bool = False,
) -> Session:
    described = Session(
        device=device,
        provider=session.get_providers()[0],
        threads=threads,
        version=onnxruntime.__version__,
        batch_size=batch_size,
        pde_layers="fused" if is_fused else "standard",
        cuda_graphs=has_graphs,
        _session=session,
    )
    _open_sessions.add(described)
    return described


def _type_of(value: Any) -> TensorType:
    return TensorType(value.type, tuple(size if isinstance(size, int) else None for size in value.shape))
