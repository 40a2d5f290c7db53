"""Measures servers in turns: starts each anew in every round, runs every case, and stops it."""

import asyncio
import multiprocessing
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, field
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from uvicorn.config import Config

from benchmarks.serving.cases import MANY, Case, Sample, check, images_per_second, requests_of
from benchmarks.serving.load import LOST, Client, closed_loop, percentile
from benchmarks.serving.processes import Running, running
from benchmarks.serving.servers import Peer
from pdeinfer import Predictor

CHECKED = 50  # answers of each turn, beside all requests once before


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one turn of a case.

    Attributes:
        rate: images per second. p50, p99: seconds until an answer.
        client: the load generator's CPU seconds per second.
    """

    rate: float
    p50: float
    p99: float
    client: float


@dataclass(slots=True)
class Results:
    """All turns.

    Attributes:
        figures: by server and case, of the requests that were answered.
        lost: how many were not, in all turns together, by server and case: a median would hide those of one turn.
        ready: seconds from the start until it answers, by server. peak: MiB.
        alone: images per second of the Predictor in a process, the mean of before and after each turn of a server, by
            the server and by how many images it is given at a time.
        ceiling: answers per second that the load generator gets of a server that does nothing else.
    """

    figures: dict[tuple[str, Case], list[Figures]] = field(default_factory=dict)
    lost: Counter[tuple[str, Case]] = field(default_factory=Counter)
    ready: dict[str, list[float]] = field(default_factory=dict)
    peak: dict[str, list[float]] = field(default_factory=dict)
    alone: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    ceiling: float = 0.0

    def median(self, peer: str, case: Case) -> Figures | None:
        """Return the median of each figure over the rounds; None if the server lacks this case."""
        if (turns := self.figures.get((peer, case))) is None:
            return None
        return Figures(*map(statistics.median, zip(*map(astuple, turns), strict=True)))

    def share(self, peer: str, case: Case) -> float:
        """Return the median share of the Predictor's rate, 32 images at a time, that a server reaches in a turn.

        Raises:
            KeyError: the server lacks this case.
        """
        pairs = zip(self.figures[peer, case], self.alone[peer, MANY], strict=True)
        return statistics.median(turn.rate / alone for turn, alone in pairs)

    def alone_rate(self, images: int, peer: str | None = None) -> float:
        """Return the median rate of the Predictor around the turns of a server, or around all turns."""
        return statistics.median(
            rate
            for (server, number), rates in self.alone.items()
            if number == images and peer in (None, server)
            for rate in rates
        )


def measure(
    peers: Mapping[Peer, Path], cases: Sequence[Case], sample: Sample, *, rounds: int, seconds: float
) -> Results:
    """Measure every server, given with the Python that runs it.

    Raises:
        RuntimeError: a server does not start, or answers wrongly.
    """
    results = Results()
    turns = list(peers)
    before = _alone(sample, seconds)  # again after each server, as the machine's speed changes
    for number in range(rounds):
        first = number % len(turns)
        for peer in turns[first:] + turns[:first]:
            print(f"benchmark: round {number + 1} of {rounds}, {peer.name}", file=sys.stderr, flush=True)
            with running(peer, peers[peer], sample.model) as server:
                with _runner() as runner:
                    for case in cases:
                        runner.run(_turn(server, peer, case, sample, seconds, results))
                results.ready.setdefault(peer.name, []).append(server.seconds_to_ready)
                results.peak.setdefault(peer.name, []).append(server.peak_megabytes())
            after = _alone(sample, seconds)
            for images, rate in after.items():
                results.alone.setdefault((peer.name, images), []).append((before[images] + rate) / 2)
            before = after
    results.ceiling = _ceiling(requests_of(turns[0], cases[0], sample) or [], seconds)
    return results


def _runner() -> asyncio.Runner:
    """Return a runner with uvicorn's event loop: uvloop if it is installed."""
    return asyncio.Runner(loop_factory=Config(app="", log_config=None).get_loop_factory())


async def _turn(server: Running, peer: Peer, case: Case, sample: Sample, seconds: float, results: Results) -> None:
    requests = requests_of(peer, case, sample)
    if requests is None:
        return
    if (peer.name, case) not in results.figures:
        client = Client(server.port)
        for number, request in enumerate(requests):
            check(peer, case, sample, number, await client.send(request))
        await client.close()
    await closed_loop(server.port, requests, case.connections, seconds / 3)  # warms up

    client_seconds, started = time.process_time(), time.monotonic()
    answers = await closed_loop(server.port, requests, case.connections, seconds)
    client_share = (time.process_time() - client_seconds) / (time.monotonic() - started)
    answered = [answer for answer in answers if answer.status != LOST]
    if wrong := [answer for answer in answered if answer.status != 200]:
        raise RuntimeError(f"{peer.name}, {case.title}: got {len(wrong)} errors: {wrong[0].status}, {wrong[0].body!r}")
    for answer in islice(answered, 0, None, max(1, len(answered) // CHECKED)):
        check(peer, case, sample, requests.index(answer.request), answer)
    figures = Figures(
        images_per_second(answered, case.images),
        percentile(answered, 50),
        percentile(answered, 99),
        client_share,
    )
    results.lost[peer.name, case] += len(answers) - len(answered)
    results.figures.setdefault((peer.name, case), []).append(figures)


def _alone(sample: Sample, seconds: float) -> dict[int, float]:
    return {images: _in_new_process(sample, images, seconds) for images in (1, MANY)}


def _in_new_process(sample: Sample, images: int, seconds: float) -> float:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(predict_alone, sample.model, sample.files, images, seconds).result()


def predict_alone(model: str, files: Sequence[bytes], images: int, seconds: float) -> float:
    """Return the images per second of a Predictor that gets `images` PNG files at a time."""
    groups = [list(files[start : start + images]) for start in range(0, len(files), images)]
    with Predictor(model, device="cpu") as predictor:
        for group in groups:
            predictor.predict(group)
        done, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            predictor.predict(groups[done % len(groups)])
            done += 1
        return done * images / elapsed


class _Echo(asyncio.Protocol):
    """Answers every request that arrives in one piece, as small ones do."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast(asyncio.Transport, transport).write

    def data_received(self, _: bytes) -> None:
        self._write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + bytes(500))


def _answer_at_once(pipe: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with _runner() as runner:
        runner.run(serve())


def _ceiling(requests: Sequence[bytes], seconds: float) -> float:
    """Return the answers per second that the load generator gets from a minimal server on 32 connections."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_answer_at_once, args=(its,), daemon=True)
    process.start()
    try:
        with _runner() as runner:
            return images_per_second(runner.run(closed_loop(ours.recv(), requests, 32, seconds)), 1)
    finally:
        process.kill()
        process.join()
