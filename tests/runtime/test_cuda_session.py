"""Sessions on CUDA: one thread, batches of fixed sizes in buffers on the device, CUDA graphs, and how they end."""

import gc
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pdeinfer.errors import DeviceError, ModelPackageError
from pdeinfer.package.package import ONNX_FILE
from pdeinfer.runtime.cuda_session import CaptureLock, batch_sizes
from pdeinfer.runtime.session import CPU_BATCH_SIZE, CUDA_BATCH_SIZE, Session, create_session
from tests.runtime.fake_onnxruntime import FakeOnnxRuntime, FakeSession, probabilities
from tests.waiting import wait_until

IMAGES = np.random.default_rng(0).integers(0, 256, (100, 2, 2, 1), dtype=np.uint8)

Open = Callable[..., Session]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeOnnxRuntime:
    return use(monkeypatch, FakeOnnxRuntime())


@pytest.fixture
def open_session(package_folder: Path) -> Open:
    """Return `create_session` for a model that the fake does not read, on CUDA."""
    model = (package_folder / ONNX_FILE).read_bytes()
    return lambda device="cuda", **options: create_session(model, device, 1, fused=False, **options)


def use(monkeypatch: pytest.MonkeyPatch, runtime: FakeOnnxRuntime) -> FakeOnnxRuntime:
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    return runtime


def classify(session: Session, images: np.ndarray) -> np.ndarray:
    return session.run("probabilities", {"image": images})


class TestBatches:
    @pytest.mark.parametrize(
        ("largest", "sizes"),
        [
            (1, (1,)),
            (2, (1, 2)),
            (8, (1, 8)),
            (32, (1, 8, 32)),
            (100, (1, 8, 32, 100)),
            (256, (1, 8, 32, 128, 256)),
            (4096, (1, 8, 32, 128, 512, 2048, 4096)),
        ],
    )
    def test_sizes_grow_fourfold_up_to_the_largest(self, largest: int, sizes: tuple[int, ...]) -> None:
        assert batch_sizes(largest) == sizes

    def test_each_size_has_buffers_and_a_graph_of_its_own(self, runtime: FakeOnnxRuntime, open_session: Open) -> None:
        assert open_session("cuda:2", batch_size=32).cuda_graphs
        assert runtime.buffers == [
            (shape, dtype, "cuda", 2)
            for size in (1, 8, 32)
            for shape, dtype in (((size, 2, 2, 1), np.uint8), ((size, 4), np.float32))
        ]
        (session,) = runtime.sessions
        assert session.runs == [(size, graph) for size in (1, 8, 32) for graph in ("-1", str(size))]

    @pytest.mark.parametrize(
        ("count", "runs"),
        [(0, []), (1, [1]), (2, [8]), (8, [8]), (9, [32]), (32, [32]), (33, [32, 1]), (100, [32, 32, 32, 8])],
    )
    def test_a_batch_is_padded_to_the_next_size_or_divided(
        self, runtime: FakeOnnxRuntime, open_session: Open, count: int, runs: list[int]
    ) -> None:
        opened = open_session(batch_size=32)
        (session,) = runtime.sessions
        session.runs.clear()
        assert np.array_equal(classify(opened, IMAGES[:count]), probabilities(IMAGES[:count]))
        assert session.runs == [(size, str(size)) for size in runs]

    def test_replays_compute_the_new_images(self, runtime: FakeOnnxRuntime, open_session: Open) -> None:  # noqa: ARG002
        opened = open_session(batch_size=8)
        for images in (IMAGES[:8], IMAGES[8:16], IMAGES[:3], IMAGES[20:23], IMAGES[::7][:5], IMAGES[::7][:8]):
            assert np.array_equal(classify(opened, images), probabilities(images))

    def test_the_default_is_larger_on_cuda_than_on_the_cpu(self, runtime: FakeOnnxRuntime, open_session: Open) -> None:
        opened = open_session()
        assert opened.batch_size == max(shape[0] for shape, *_ in runtime.buffers) == CUDA_BATCH_SIZE
        assert open_session("cpu").batch_size == CPU_BATCH_SIZE < CUDA_BATCH_SIZE

    @pytest.mark.parametrize(
        "feeds",
        [
            {"image": IMAGES.astype(np.float32)},
            {"image": IMAGES[:, :1]},
            {"picture": IMAGES},
            {"image": IMAGES, "start": IMAGES},
        ],
    )
    def test_other_inputs_are_a_model_package_error(
        self,
        runtime: FakeOnnxRuntime,  # noqa: ARG002
        open_session: Open,
        feeds: dict[str, np.ndarray],
    ) -> None:
        with pytest.raises(ModelPackageError):
            open_session(batch_size=8).run("probabilities", feeds)

    @pytest.mark.parametrize("outcome", ["works", "no graphs"])
    def test_a_network_of_a_fixed_batch_size_runs_from_the_memory_of_the_cpu(
        self, monkeypatch: pytest.MonkeyPatch, open_session: Open, outcome: str
    ) -> None:
        runtime = use(monkeypatch, FakeOnnxRuntime(outcome, is_fixed=True))
        opened = open_session()
        assert np.array_equal(classify(opened, IMAGES[:3]), probabilities(IMAGES[:3]))
        assert not opened.cuda_graphs
        assert not runtime.buffers


class TestOptions:
    def test_provider(self, runtime: FakeOnnxRuntime, open_session: Open) -> None:
        open_session("cuda:1", gpu_mem_limit=2**30)
        assert runtime.cuda_options() == [
            {
                "device_id": "1",
                "use_tf32": "0",
                "arena_extend_strategy": "kSameAsRequested",
                "cudnn_conv_algo_search": "EXHAUSTIVE",
                "enable_cuda_graph": "1",
                "gpu_mem_limit": str(2**30),
            }
        ]

    def test_memory_is_not_limited_by_default(self, runtime: FakeOnnxRuntime, open_session: Open) -> None:
        open_session()
        assert "gpu_mem_limit" not in runtime.cuda_options()[0]


class TestWithoutGraphs:
    @pytest.mark.parametrize("outcome", ["no graphs", "no capture"])
    def test_it_runs_without_graphs_where_they_cannot_be_and_a_log_says_why(
        self, monkeypatch: pytest.MonkeyPatch, open_session: Open, outcome: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        runtime = use(monkeypatch, FakeOnnxRuntime(outcome))
        with caplog.at_level(logging.INFO):
            opened = open_session(batch_size=8)
        assert (opened.device, opened.cuda_graphs) == ("cuda:0", False)
        assert [options["enable_cuda_graph"] for options in runtime.cuda_options()] == ["1", "0"]
        assert np.array_equal(classify(opened, IMAGES), probabilities(IMAGES))
        assert {graph for _, graph in runtime.sessions[1].runs} == {None}
        (record,) = caplog.records
        assert {"no graphs": "partitioned", "no capture": "900"}[outcome] in record.message


class TestThreads:
    def test_one_thread_uses_a_session_whoever_calls(self, runtime: FakeOnnxRuntime, open_session: Open) -> None:
        opened = open_session(batch_size=8)
        parts = [IMAGES[start : start + 7] for start in range(93)]
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda part: classify(opened, part), parts))
        assert all(np.array_equal(*pair) for pair in zip(results, map(probabilities, parts), strict=True))
        (thread,) = runtime.sessions[0].threads
        assert thread not in (threading.main_thread(), *pool._threads)

    def test_sessions_are_opened_while_others_run(self, runtime: FakeOnnxRuntime, open_session: Open) -> None:
        """The fake breaks what runs during a capture, and the capture."""
        running = [open_session(f"cuda:{index}", batch_size=8) for index in range(2)]
        stop = threading.Event()

        def run(session: Session) -> int:
            count = 0
            while not stop.is_set():
                assert np.array_equal(classify(session, IMAGES[:5]), probabilities(IMAGES[:5]))
                count += 1
            return count

        with ThreadPoolExecutor(4) as pool:
            counts = [pool.submit(run, session) for session in running]
            try:
                opened = list(pool.map(lambda _: open_session(batch_size=32), range(4)))
            finally:
                stop.set()
        assert all(count.result() > 0 for count in counts)
        assert all(session.cuda_graphs for session in opened)
        assert len({thread for session in runtime.sessions for thread in session.threads}) == len(runtime.sessions) == 6

    def test_threads_that_open_sessions_at_once_leave_stdout_and_the_log_as_they_were(
        self, runtime: FakeOnnxRuntime, open_session: Open
    ) -> None:
        before = sys.stdout
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: open_session(batch_size=1), range(4)))
        assert sys.stdout is before
        assert runtime.severities == [4, 2] * 4  # quiet, then as before

    def test_a_failure_of_the_device_is_a_device_error_and_the_next_run_may_work(
        self, runtime: FakeOnnxRuntime, open_session: Open
    ) -> None:
        opened = open_session(batch_size=8)
        runtime.sessions[0].fails_now = True
        with pytest.raises(DeviceError, match=r"cuda:0.*illegal memory access"):
            classify(opened, IMAGES)
        runtime.sessions[0].fails_now = False
        assert np.array_equal(classify(opened, IMAGES), probabilities(IMAGES))


class TestEnd:
    def test_a_session_that_nobody_uses_is_freed_in_its_thread_which_ends(
        self, runtime: FakeOnnxRuntime, open_session: Open
    ) -> None:
        opened = open_session(batch_size=8)
        (thread,) = runtime.sessions[0].threads
        freed_by: list[threading.Thread] = []
        weakref.finalize(runtime.sessions.pop(), lambda: freed_by.append(threading.current_thread()))
        classify(opened, IMAGES)
        assert thread.is_alive()
        del opened
        gc.collect()
        wait_until(lambda: not thread.is_alive())
        assert freed_by == [thread]

    def test_a_session_that_cannot_be_opened_leaves_no_thread_and_no_session(
        self, monkeypatch: pytest.MonkeyPatch, open_session: Open
    ) -> None:
        runtime = use(monkeypatch, FakeOnnxRuntime("no cuDNN"))
        before = threading.active_count()
        with pytest.raises(DeviceError, match="cuDNN is not available"):
            open_session()
        sessions: list[weakref.ref[FakeSession]] = [weakref.ref(session) for session in runtime.sessions]
        runtime.sessions.clear()
        gc.collect()
        wait_until(lambda: threading.active_count() == before)
        assert len(sessions) == 3  # with graphs, without, and on the CPU
        assert not any(reference() for reference in sessions)


class TestCaptureLock:
    def test_users_share_it(self) -> None:
        lock = CaptureLock()
        both = threading.Barrier(2, timeout=10)

        def use() -> bool:
            with lock.using():
                return both.wait() >= 0

        with ThreadPoolExecutor(2) as pool:
            assert all(future.result() for future in [pool.submit(use) for _ in range(2)])

    def test_a_capture_waits_for_users_and_keeps_new_ones_out(self) -> None:
        lock = CaptureLock()
        events: list[str] = []

        def capture() -> None:
            with lock.capturing():
                events.append("capture")

        def use() -> None:
            with lock.using():
                events.append("use")

        with ThreadPoolExecutor(2) as pool:
            with lock.using():
                captured = pool.submit(capture)
                wait_until(lambda: lock._is_capturing)
                used = pool.submit(use)
                time.sleep(0.05)
                assert events == []
            captured.result(10)
            used.result(10)
        assert events == ["capture", "use"]
