"""Decodes images in processes of their own, which the system ends if an image takes too much memory or time.

What decoding costs cannot be told from a file's size or pixels, and a thread cannot be stopped. Here, a file that costs
too much is an ImageTooCostlyError, and nothing else is affected. `pdeinfer.images.decoding_process` is the other end.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pdeinfer.errors import ImageError, ImageTooCostlyError, ImageTooLargeError
from pdeinfer.images.convert import NeedsIsolationError, describe, open_image, to_array
from pdeinfer.images.cost import Estimate
from pdeinfer.images.decoding_messages import RUNNING, receive, receive_bytes, send
from pdeinfer.images.limits import DecodingLimits
from pdeinfer.images.reading import open_path, read_file
from pdeinfer.processes import deaf_to_ctrl_c
from pdeinfer.spec.networks import InputSpec

_IS_SUPPORTED = hasattr(os, "fork") and hasattr(socket, "send_fds")  # not on Windows

_START = """\
import json, socket, sys
sys.path[:] = json.loads(sys.argv[1])
from pdeinfer.images.decoding_process import main
main(socket.socket(fileno=int(sys.argv[2])))
"""

_DEFAULT_LIMITS = DecodingLimits()


class IsolatedDecoder:
    """Decodes one image at a time, in a process that is replaced when it ends.

    Args:
        fork: starts a decoding process and returns the connection to it.
    """

    def __init__(self, fork: Callable[[], socket.socket]) -> None:
        self._fork = fork
        self._connection: socket.socket | None = None
        self._is_running = False  # the process at the other end

    def start(self) -> None:
        """Start the process unless it runs."""
        self._connect()

    def _connect(self) -> socket.socket:
        """Return the connection to the process, which is started unless it runs."""
        if self._connection is not None and _is_closed(self._connection):
            self.close()
        if self._connection is None:
            self._connection = self._fork()
        return self._connection

    def decode(
        self, content: bytes, spec: InputSpec, name: str, limits: DecodingLimits
    ) -> NDArray[np.uint8] | Estimate:
        """Return an image as `pdeinfer.images.convert.to_array` does, or its estimate if that is above `limits.bytes`.

        Raises:
            ImageTooCostlyError: the limits did not suffice.
            ImageError: as `to_array` raises it.
            RuntimeError: the process failed for another reason, or the system could not start it.
        """
        connection = self._running()
        request = {
            "name": name,
            "spec": asdict(spec),
            "limits": asdict(limits),
            "address_space": limits.address_space(len(content)),
        }
        try:
            send(connection, request, content)
            answer, array = receive(connection)
        except (EOFError, OSError):
            self.close()
            raise _too_costly(name, limits) from None
        except BaseException:  # the next image would get this one's answer
            self.close()
            raise
        if not answer["is_fresh"]:
            self.close()
            with suppress(OSError):  # the next image tries again, and reports it
                self.start()
        match answer["kind"]:
            case "array":
                return np.frombuffer(array, np.uint8).reshape(spec.height, spec.width, spec.channels)
            case "over_memory":
                return Estimate(*answer["estimate"])
            case "too_many_pixels":
                raise ImageTooLargeError(answer["message"], answer["pixels"])
            case "costly":
                raise _too_costly(name, limits)
            case "error":
                raise ImageError(answer["message"])
            case _:
                raise RuntimeError(answer["message"])

    def _running(self) -> socket.socket:
        """Return the connection to the process once this runs: an image is not to blame if it does not."""
        try:
            connection = self._connect()
            if not self._is_running:
                receive_bytes(connection, len(RUNNING))
                self._is_running = True
        except (EOFError, OSError) as error:
            self.close()
            raise RuntimeError(f"the system could not start a decoding process {error}".rstrip()) from error
        except BaseException:
            self.close()
            raise
        return connection

    def stop(self) -> None:
        """End the process from another thread while it decodes; `decode` raises then."""
        connection = self._connection
        if connection is not None:
            with suppress(OSError):  # it was closed just now
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the process."""
        self.stop()
        if self._connection is not None:
            self._connection.close()
            self._connection, self._is_running = None, False


class InProcessDecoder:
    """Decodes in this process, where the system cannot fork: nothing limits the time, and only headers the memory."""

    def start(self) -> None:
        """Do nothing."""

    def decode(
        self, content: bytes, spec: InputSpec, name: str, limits: DecodingLimits
    ) -> NDArray[np.uint8] | Estimate:
        """Return an image or its estimate, as `IsolatedDecoder.decode` does."""
        with open_image(content, spec, name, max_pixels=limits.pixels) as opened:
            estimate = opened.estimate()
            return estimate if estimate.bytes > limits.bytes else opened.to_array()

    def stop(self) -> None:
        """Do nothing: a thread cannot be stopped."""

    def close(self) -> None:
        """Do nothing."""


AnyDecoder: TypeAlias = IsolatedDecoder | InProcessDecoder


class IsolatedDecoders:
    """A pool of decoders, as many as images are decoded at a time; threads may share it.

    The decoding processes are forked from one that has imported Pillow. They start when they are needed, or by `start`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._host = _Host() if _IS_SUPPORTED else None
        self._idle: list[AnyDecoder] = []
        self._busy: set[AnyDecoder] = set()

    def start(self, count: int) -> None:
        """Start so many decoders ahead."""
        for decoder in [self.take() for _ in range(count)]:
            decoder.start()
            self.give(decoder)

    def take(self) -> AnyDecoder:
        """Return a decoder for exclusive use, which `give` returns to the pool."""
        with self._lock:
            decoder = self._idle.pop() if self._idle else self._make()
            self._busy.add(decoder)
            return decoder

    def give(self, decoder: AnyDecoder) -> None:
        """Return a decoder to the pool."""
        with self._lock:
            self._busy.discard(decoder)
            self._idle.append(decoder)

    def to_array(
        self,
        image: bytes | str | os.PathLike[str],
        spec: InputSpec,
        name: str | None = None,
        limits: DecodingLimits = _DEFAULT_LIMITS,
    ) -> NDArray[np.uint8]:
        """Return an image as `pdeinfer.images.convert.to_array` does.

        Args:
            image: a path, or a file's bytes.

        Raises:
            ImageTooCostlyError: decoding it takes more than the limits.
            ImageTooLargeError: its header tells that already, or the file is too large.
            ImageError: as `pdeinfer.images.convert.to_array` raises it.
        """
        name, content = describe(image, name), _read(image, name)
        decoder = self.take()
        try:
            decoded = decoder.decode(content, spec, name, limits)
        finally:
            self.give(decoder)
        if isinstance(decoded, Estimate):
            raise decoded.too_large(name, limits.bytes)
        return decoded

    def to_array_where_needed(
        self, image: bytes | str | os.PathLike[str], spec: InputSpec, name: str | None = None
    ) -> NDArray[np.uint8]:
        """Return an AVIF or HEIC image as `to_array` does, and any other as `pdeinfer.images.convert.to_array` does."""
        if not isinstance(image, bytes) and not os.path.isfile(image):  # noqa: PTH113  # Path is slower
            name, image = describe(image, name), _read(image, name)  # a pipe can be read only once
        with suppress(NeedsIsolationError):
            return to_array(image, spec, name)
        return self.to_array(image, spec, name)

    def close(self) -> None:
        """End all processes: what they decode fails."""
        with self._lock:
            for decoder in self._busy:
                decoder.stop()
            for decoder in self._idle:
                decoder.close()
        if self._host is not None:
            self._host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self) -> AnyDecoder:
        return InProcessDecoder() if self._host is None else IsolatedDecoder(self._host.fork)


class _Host:
    """The process that forks decoding processes; it is started again if it was ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def fork(self) -> socket.socket:
        """Return the connection to a new decoding process."""
        connection, other_end = socket.socketpair()
        with other_end, self._lock:
            try:
                socket.send_fds(self._connection or self._start(), [b"\0"], [other_end.fileno()])
            except BrokenPipeError:
                self._end()
                socket.send_fds(self._start(), [b"\0"], [other_end.fileno()])
            except BaseException:
                connection.close()
                raise
        return connection

    def close(self) -> None:
        """End the process; those that it forked go on."""
        with self._lock:
            self._end()

    def _start(self) -> socket.socket:
        self._connection, other_end = socket.socketpair()
        with other_end, deaf_to_ctrl_c():
            self._process = subprocess.Popen(  # noqa: S603  # Python itself
                [sys.executable, "-P", "-c", _START, json.dumps(sys.path), str(other_end.fileno())],
                pass_fds=[other_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # threads would not survive a fork
            )
        return self._connection

    def _end(self) -> None:
        if self._connection is not None and self._process is not None:
            self._connection.close()
            self._process.kill()  # it may be importing still
            self._process.wait()
        self._connection = self._process = None


def _read(image: bytes | str | os.PathLike[str], name: str | None) -> bytes:
    if isinstance(image, bytes):
        return image
    name = describe(image, name)
    with open_path(image, name) as file:
        return read_file(file, name)


def _is_closed(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _too_costly(name: str, limits: DecodingLimits) -> ImageTooCostlyError:
    return ImageTooCostlyError(
        f"{name}: decoding it took more memory than its header suggests, or more than {limits.seconds:g} s of CPU "
        "time: save it again as a PNG or a baseline JPEG"
    )
