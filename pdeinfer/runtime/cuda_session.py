"""A session on a CUDA device: one thread, fixed batch sizes with buffers on the device, and CUDA graphs."""

import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, TypeVarTuple, cast

import numpy as np

from pdeinfer.arrays import Array
from pdeinfer.errors import ModelPackageError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

OpenSession: TypeAlias = Callable[[], tuple[Any, bool]]

_NO_GRAPH = "-1"  # the gpu_graph_id of a run that neither captures nor replays
_DTYPES: dict[str, type[np.generic]] = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Return the batch sizes that a session runs, ascending: 1, 8, 32, 128 and so on below `largest`, and `largest`."""
    sizes = [1]
    while (size := 2 * 4 ** len(sizes)) < largest:
        sizes.append(size)
    return (*sizes, largest) if largest > 1 else (1,)


class CaptureLock:
    """Keeps all use of CUDA out while one thread captures a graph.

    ONNX Runtime captures in CUDA's global mode: a copy or an allocation by any other thread of the process, on any
    device, would fail and spoil the capture.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._is_capturing = False

    @contextmanager
    def using(self) -> Iterator[None]:
        """Hold the lock with other users, but not during a capture."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_capturing)
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Hold the lock alone. Users that come later wait, so this one waits only for those already there."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_capturing)
            self._is_capturing = True
            self._changed.wait_for(lambda: not self._users)
        try:
            yield
        finally:
            with self._changed:
                self._is_capturing = False
                self._changed.notify_all()


_captures = CaptureLock()


class CudaSession:
    """An ONNX Runtime session on a CUDA device, with the methods of `onnxruntime.InferenceSession` that Session calls.

    One thread of its own opens, runs and closes it: ONNX Runtime keeps graphs and cuDNN's handles by thread, and its
    copies synchronize the current device of the thread. Any thread may call `run`.

    Batches are padded to one of a few sizes. Each size has an input and an output on the device and, with graphs, a
    graph, which is captured here from blank images. Networks whose batch size is fixed, or that have other free
    dimensions, run from the CPU's memory, without graphs.

    Args:
        open_session: returns the `InferenceSession`, and whether its PDE layers are fused; it runs in the thread.
        index: of the device.
        sizes: the batch sizes, ascending.
        has_graphs: whether `open_session` enables CUDA graphs.

    Attributes:
        is_fused: whether PDE layers run in the fused operator.
        has_graphs: whether runs replay CUDA graphs.

    Raises:
        Exception: ONNX Runtime cannot open the session, or run it on blank images, or capture a graph.
    """

    def __init__(
        self, onnxruntime: Any, open_session: OpenSession, index: int, sizes: Sequence[int], has_graphs: bool
    ) -> None:
        self._thread = _Thread(f"cuda:{index}")
        try:
            self._network = self._thread.call(_Network, onnxruntime, open_session, index, sizes, has_graphs)
        except BaseException:
            self._thread.end()
            raise
        # Not at exit, when a daemon thread may be stopped midway: the end of the process frees the device.
        weakref.finalize(self, self._thread.end, self._network.close).atexit = False
        self.is_fused, self.has_graphs = self._network.is_fused, self._network.has_graphs

    def get_inputs(self) -> Sequence[Any]:
        """Return the inputs, each with name, type and shape."""
        return list(self._network.session.get_inputs())

    def get_outputs(self) -> Sequence[Any]:
        """Return the outputs, each with name, type and shape."""
        return list(self._network.session.get_outputs())

    def get_providers(self) -> Sequence[str]:
        """Return the names of the execution providers, CUDA's first."""
        return list(self._network.session.get_providers())

    def run(self, names: Sequence[str], feeds: dict[str, Array]) -> list[Array]:
        """Return the outputs of these names for a batch of any size.

        Raises:
            ModelPackageError: the network has no input of that name, dtype or shape.
            Exception: ONNX Runtime fails.
        """
        return self._thread.call(self._network.run, names, feeds)


class _Thread:
    """A thread that calls functions one after another."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(self._calls,), name=name, daemon=True).start()

    def call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call a function in the thread; return its result, or raise its exception."""
        results: queue.SimpleQueue[T] = queue.SimpleQueue()
        errors: list[BaseException] = []

        def work() -> None:
            try:
                results.put(function(*args))
            except BaseException as error:  # noqa: BLE001  # raised by the caller
                errors.append(error.with_traceback(None))  # whose frames would keep a failed session
                results.put(cast(T, None))

        self._calls.put(work)
        result = results.get()
        if errors:
            raise errors.pop()
        return result

    def end(self, last: Callable[[], None] | None = None) -> None:
        """End the thread after the calls that wait, and `last`. A destructor may call this: it waits for nothing."""
        if last is not None:
            self._calls.put(last)
        self._calls.put(None)


def _work(calls: "queue.SimpleQueue[Callable[[], None] | None]") -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # which would keep the network while the thread waits


class _Network:
    """The session and its buffers. Only the session's thread calls its methods."""

    def __init__(
        self, onnxruntime: Any, open_session: OpenSession, index: int, sizes: Sequence[int], graphs: bool
    ) -> None:
        with _captures.using():
            self.session, self.is_fused = open_session()
            self._input_specs = _specs(self.session.get_inputs())
            self._output_specs = _specs(self.session.get_outputs())
            self._batches: list[_Batch] = []
            if self._input_specs and self._output_specs:
                self._batches = [self._make_batch(onnxruntime, index, size, graphs) for size in sizes]
        self.has_graphs = graphs and bool(self._batches)
        self._plain = _run_options(onnxruntime, _NO_GRAPH) if graphs else None
        for batch in self._batches:
            # A run before the capture lets cuDNN choose its algorithms while other threads may still use CUDA.
            with _captures.using():
                self.session.run_with_iobinding(batch.binding, self._plain)
            if graphs:
                with _captures.capturing():
                    self.session.run_with_iobinding(batch.binding, batch.options)
        if not self._batches:
            with _captures.using():
                self.session.run(None, blank_feeds(self.session), self._plain)

    def run(self, names: Sequence[str], feeds: dict[str, Array]) -> list[Array]:
        """Return the outputs of these names for a batch of any size."""
        with _captures.using():
            if not self._batches:
                return list(self.session.run(names, feeds, self._plain))
            self._check(feeds)
            count = len(next(iter(feeds.values())))
            specs = {name: self._output_specs[name] for name in names}
            results = {name: np.empty((count, *spec.shape), spec.dtype) for name, spec in specs.items()}
            for start in range(0, count, self._batches[-1].size):
                part = slice(start, start + self._batches[-1].size)
                self._run_part({name: array[part] for name, array in feeds.items()}, results, part)
            return list(results.values())

    def close(self) -> None:
        """Free the session and its buffers."""
        with _captures.using():
            self._batches.clear()
            del self.session

    def _run_part(self, feeds: dict[str, Array], results: dict[str, Array], part: slice) -> None:
        count = len(next(iter(feeds.values())))
        batch = next(batch for batch in self._batches if batch.size >= count)
        for name, array in feeds.items():
            padded = array
            if count < batch.size:  # images do not influence each other, so the padding may be any
                padded = batch.padded[name]
                padded[:count] = array
            batch.inputs[name].update_inplace(np.ascontiguousarray(padded))
        self.session.run_with_iobinding(batch.binding, batch.options)
        for name, result in results.items():
            result[part] = batch.outputs[name].numpy()[:count]

    def _check(self, feeds: dict[str, Array]) -> None:
        expected = {name: (np.dtype(spec.dtype), spec.shape) for name, spec in self._input_specs.items()}
        found = {name: (array.dtype, array.shape[1:]) for name, array in feeds.items()}
        if found != expected:
            raise ModelPackageError(f"the network takes the inputs {expected}, got {found}")

    def _make_batch(self, onnxruntime: Any, index: int, size: int, graphs: bool) -> "_Batch":
        def allocate(specs: dict[str, _Spec]) -> dict[str, Any]:
            return {
                name: onnxruntime.OrtValue.ortvalue_from_shape_and_type((size, *spec.shape), spec.dtype, "cuda", index)
                for name, spec in specs.items()
            }

        batch = _Batch(
            size=size,
            binding=self.session.io_binding(),
            inputs=allocate(self._input_specs),
            outputs=allocate(self._output_specs),
            padded={name: np.zeros((size, *spec.shape), spec.dtype) for name, spec in self._input_specs.items()},
            options=_run_options(onnxruntime, str(size)) if graphs else None,
        )
        for name, value in batch.inputs.items():
            value.update_inplace(batch.padded[name])
            batch.binding.bind_ortvalue_input(name, value)
        for name, value in batch.outputs.items():
            batch.binding.bind_ortvalue_output(name, value)
        return batch


@dataclass(frozen=True, slots=True)
class _Spec:
    """The dtype of an input or output, and its shape without the batch."""

    dtype: type[np.generic]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch size: its buffers on the device by name, memory to pad its inputs in, and the options of its runs."""

    size: int
    binding: Any
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    padded: dict[str, Array]
    options: Any


def _specs(values: Sequence[Any]) -> dict[str, _Spec]:
    """Return the spec of each tensor by name; none if one has other free dimensions than the batch."""
    specs = {}
    for value in values:
        batch, *shape = value.shape or [1]
        if isinstance(batch, int) or not all(isinstance(size, int) for size in shape) or value.type not in _DTYPES:
            return {}
        specs[value.name] = _Spec(_DTYPES[value.type], tuple(shape))
    return specs


def blank_feeds(session: Any) -> dict[str, Array]:
    """Return zeros for every input of a session, with 1 for each free dimension."""
    return {
        value.name: np.zeros(
            [size if isinstance(size, int) else 1 for size in value.shape], _DTYPES.get(value.type, np.float32)
        )
        for value in session.get_inputs()
    }


def _run_options(onnxruntime: Any, graph: str) -> Any:
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # fatal only, as for the session
    options.add_run_config_entry("gpu_graph_id", graph)
    return options
