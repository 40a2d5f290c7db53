"""Decoding processes: they are interrupted, stopped, killed, replaced and closed."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pdeinfer import ImageTooCostlyError
from pdeinfer.images import decoding_messages, isolation
from pdeinfer.images.convert import to_array
from pdeinfer.images.decoding_messages import receive, send
from pdeinfer.images.isolation import IsolatedDecoder, IsolatedDecoders
from pdeinfer.images.limits import DecodingLimits
from tests.images.conftest import LIMITS, NEEDS_STATM, SMALL, SPEC
from tests.images.image_makers import encode, padded_jpeg
from tests.servers import is_alive
from tests.waiting import wait_until

pytestmark = NEEDS_STATM


def processes() -> set[int]:
    """Return the ids of all decoding processes and their hosts that descend from this process."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, stat = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state not in "ZX" and b"pdeinfer.images.decoding_process" in command:
            parents[int(folder.name)] = int(parent)
    found, new = set(), {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new}
        found |= new
    return found


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_after_an_interruption_the_next_image_has_its_own_answer(
    interruption: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise interruption

    with IsolatedDecoders() as pool:
        with monkeypatch.context() as patched:
            patched.setattr(isolation, "receive", interrupted)
            with pytest.raises(interruption):
                pool.to_array(encode(PIL.Image.new("L", (64, 64)), "PNG"), SPEC)

        np.testing.assert_array_equal(pool.to_array(SMALL, SPEC), to_array(SMALL, SPEC))


def test_a_message_is_received_whole_although_a_signal_arrives_amidst_it() -> None:
    ours, theirs = socket.socketpair()
    content = bytes(range(256)) * 400
    before = signal.signal(signal.SIGUSR1, lambda *_: None)

    def send_in_parts() -> None:
        for part in (content[:1000], content[1000:]):
            theirs.sendall(part)
            time.sleep(0.2)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    with ours, theirs:
        theirs.sendall(decoding_messages._HEAD.pack(2, len(content)) + b"{}")
        sender = threading.Thread(target=send_in_parts)
        sender.start()
        received = receive(ours)
        sender.join()
        send(theirs, {}, content)
        theirs.close()
        assert receive(ours) == received == ({}, content)
        with pytest.raises(EOFError):
            receive(ours)
    signal.signal(signal.SIGUSR1, before)


def test_images_are_decoded_under_a_limit_of_memory_that_cannot_be_raised() -> None:
    script = f"""
import resource
from pdeinfer.images.isolation import IsolatedDecoders
from pdeinfer.spec.networks import InputSpec
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
with IsolatedDecoders() as decoders:
    for _ in range(2):
        decoders.to_array({SMALL!r}, InputSpec(8, 8, 3, (0.0,) * 3, (1.0,) * 3))
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_decoding_can_be_stopped_from_another_thread(decoder: IsolatedDecoder) -> None:
    content = padded_jpeg(30_000_000)
    decoder.decode(SMALL, SPEC, "first", LIMITS)  # from now on its process runs
    threading.Timer(0.5, decoder.stop).start()
    with pytest.raises(ImageTooCostlyError):
        decoder.decode(content, SPEC, "endless", DecodingLimits(seconds=600))

    assert isinstance(decoder.decode(SMALL, SPEC, "next", LIMITS), np.ndarray)


def test_a_process_that_stays_large_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    others = processes()
    # Where less than nothing may be left over, every image leaves a process too large.
    too_large = "import main\nimport pdeinfer.images.decoding_process as module\nmodule._LEFT_OVER = -(2**40)"
    monkeypatch.setattr(isolation, "_START", isolation._START.replace("import main", too_large))

    def ours() -> set[int]:
        return processes() - others

    with IsolatedDecoders() as pool:
        pool.start(1)
        wait_until(lambda: len(ours()) == 2)
        before = ours()  # the host and its decoding process
        np.testing.assert_array_equal(pool.to_array(SMALL, SPEC), to_array(SMALL, SPEC))
        wait_until(lambda: len(ours() - before) == len(before - ours()) == 1)


def test_killed_processes_are_replaced(decoder: IsolatedDecoder) -> None:
    for _ in range(2):
        for pid in processes():  # the decoding process and its host
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not is_alive(pid))  # before that, it has no command line, but open sockets
        assert isinstance(decoder.decode(SMALL, SPEC, "next", LIMITS), np.ndarray)


def test_closing_ends_all_processes_also_while_they_decode() -> None:
    content = padded_jpeg(30_000_000)
    before = processes()
    failed = threading.Event()

    def decode() -> None:
        with pytest.raises(ImageTooCostlyError):
            pool.to_array(content, SPEC, limits=DecodingLimits(seconds=600))
        failed.set()

    with IsolatedDecoders() as pool:
        pool.start(2)
        pool.to_array(SMALL, SPEC)  # from now on the process of the next image runs
        thread = threading.Thread(target=decode)
        thread.start()
        wait_until(lambda: len(processes() - before) == 3)
        started = processes() - before
        time.sleep(0.5)
    thread.join(10)

    assert failed.is_set()
    wait_until(lambda: not any(is_alive(pid) for pid in started))


def test_an_image_is_not_to_blame_for_a_process_that_cannot_be_started() -> None:
    before = processes()
    with IsolatedDecoders() as pool:
        pool.to_array(SMALL, SPEC)
        decoder = pool.take()
        decoder.close()
        wait_until(lambda: len(processes() - before) == 1)
        (host,) = processes() - before
        resource.prlimit(host, resource.RLIMIT_NOFILE, (0, 0))  # it gets no socket for a new process
        with pytest.raises(RuntimeError):
            decoder.decode(SMALL, SPEC, "image", LIMITS)
        wait_until(lambda: host not in processes())
        assert isinstance(decoder.decode(SMALL, SPEC, "image", LIMITS), np.ndarray)
        pool.give(decoder)
