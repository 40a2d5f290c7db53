"""The process that decodes images for `pdeinfer.images.isolation`, within limits that the system enforces.

A host process of one thread imports Pillow once, and forks a decoding process for each socket that it receives. A
decoding process answers one image after another. It ends

- when an image has used up its CPU time (the signal SIGPROF ends a process);
- when the other end of its socket is closed, even while it decodes (SIGIO ends it);
- after an image that left it larger than before.

It cannot write files or dump its memory.
"""

import ctypes
import errno
import fcntl
import gc
import os
import resource
import signal
import socket
import sys
import warnings
from contextlib import suppress
from typing import Any

from PIL import TiffImagePlugin, WebPImagePlugin  # noqa: F401  # Pillow would import them at their first file
from PIL.Image import preinit

from pdeinfer.errors import ImageError, ImageTooLargeError
from pdeinfer.images.convert import open_image
from pdeinfer.images.decoding_messages import RUNNING, receive, send
from pdeinfer.images.formats import HAS_AVIF, HAS_HEIF
from pdeinfer.images.limits import UNLIMITED, DecodingLimits
from pdeinfer.spec.networks import InputSpec

_LEFT_OVER = 16 * 2**20  # bytes by which a process may have grown after an image
# What glibc keeps of freed memory: the next photograph is decoded without new pages. The parameters are those of
# malloc.h: freed memory beyond the first goes back to the system, and so do allocations of at least the second.
_KEPT = 8 * 2**20
_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3
_THREAD_STACK = 2**20  # of libde265's thread; by default it is often 8 MiB, all of it address space
_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def main(connection: socket.socket) -> None:
    """Fork a decoding process for each socket that arrives on the connection, until its other end is closed."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)  # the other end decides when this process ends
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # which was blocked until it is ignored
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets ended children by itself
    warnings.simplefilter("ignore")  # Pillow's quote the images
    preinit()
    if HAS_AVIF:
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # threads take address space, and CPU time beside the image's own
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform.startswith("linux"):
        with suppress(AttributeError, OSError):  # musl has no mallopt
            for parameter in (_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD):
                ctypes.CDLL(None).mallopt(parameter, _KEPT)
    if HAS_HEIF:
        _prepare_heif()
    gc.collect()
    gc.freeze()  # the collector would write into pages that the decoding processes share
    while True:
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        if not descriptors:
            return
        accepted = socket.socket(fileno=descriptors[0])
        try:
            pid = os.fork()
        except OSError:  # the other end finds its socket closed
            pid = None
        if pid == 0:
            connection.close()
            with suppress(EOFError, OSError):
                _DecodingProcess(accepted).serve()
            os._exit(0)
        accepted.close()


def _prepare_heif() -> None:
    """Import libheif, and bound the threads and their address space that decoding a HEIC takes."""
    from pillow_heif import options

    options.DECODE_THREADS = 0  # beside the one that libde265 always starts
    options.AUX_IMAGES = options.DEPTH_IMAGES = options.THUMBNAILS = False
    with suppress(AttributeError, OSError):  # macOS has no default to set, and does not limit address space
        library, attributes = ctypes.CDLL(None), ctypes.create_string_buffer(128)  # at least a pthread_attr_t
        library.pthread_attr_init(attributes)
        library.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_THREAD_STACK))
        library.pthread_setattr_default_np(attributes)


class _DecodingProcess:
    """Decodes the images that arrive on a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._memory = _Memory()
        fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())

    def serve(self) -> None:
        """Answer images until the connection is closed, or this process has grown."""
        self._connection.sendall(RUNNING)
        size_at_start = self._memory.size()
        is_fresh = True
        while is_fresh:
            request, content = receive(self._connection)
            self._end_when_closed(True)
            answer, array = self._decode(request, content)
            self._end_when_closed(False)
            del content
            is_fresh = self._memory.size() <= size_at_start + _LEFT_OVER
            send(self._connection, {**answer, "is_fresh": is_fresh}, array)

    def _decode(self, request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        limits = DecodingLimits(**request["limits"])
        spec = InputSpec(**{**request["spec"], **{name: tuple(request["spec"][name]) for name in ("mean", "std")}})
        signal.setitimer(signal.ITIMER_PROF, limits.seconds)
        self._memory.limit(request["address_space"])
        try:
            with open_image(content, spec, request["name"], max_pixels=limits.pixels, limits=UNLIMITED) as opened:
                estimate = opened.estimate()
                if estimate.bytes > limits.bytes:
                    return {"kind": "over_memory", "estimate": estimate}, b""
                return {"kind": "array"}, opened.to_array().tobytes()
        except MemoryError:
            return {"kind": "costly"}, b""
        except ImageTooLargeError as error:
            return {"kind": "too_many_pixels", "message": str(error), "pixels": error.pixels}, b""
        except ImageError as error:
            # Libraries take a failed allocation for a damaged file.
            return {"kind": "costly" if self._memory.has_failed() else "error", "message": str(error)}, b""
        except Exception as error:  # noqa: BLE001  # not the image's fault
            return {"kind": "failed", "message": f"{type(error).__name__}: {error}"}, b""
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._memory.limit(None)

    def _end_when_closed(self, is_wanted: bool) -> None:
        """Set whether the system ends this process when the other end of the connection is closed."""
        flags = fcntl.fcntl(self._connection, fcntl.F_GETFL)
        fcntl.fcntl(self._connection, fcntl.F_SETFL, flags | os.O_ASYNC if is_wanted else flags & ~os.O_ASYNC)
        if is_wanted:
            with suppress(BlockingIOError):
                if not self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    raise EOFError  # it was closed just before


class _Memory:
    """The address space of this process; without /proc, as on macOS, it is neither known nor limited."""

    def __init__(self) -> None:
        self._statm: int | None = None
        self._soft, self._hard = resource.getrlimit(resource.RLIMIT_AS)  # of `ulimit -v`: the hard one cannot be raised
        with suppress(OSError):
            self._statm = os.open("/proc/self/statm", os.O_RDONLY)
            errno_location = ctypes.CDLL(None)["__errno_location"]
            errno_location.restype = ctypes.POINTER(ctypes.c_int)
            self._errno = errno_location().contents

    def size(self) -> int:
        """Return the bytes of address space; 0 if they are not known."""
        if self._statm is None:
            return 0
        return int(os.pread(self._statm, 32, 0).split()[0]) * resource.getpagesize()

    def limit(self, growth: int | None) -> None:
        """Let the address space grow by at most so many bytes; None: up to the limit that the process began with."""
        if self._statm is None:
            return
        most = self._soft if growth is None else self.size() + growth
        if self._soft != resource.RLIM_INFINITY:
            most = min(most, self._soft)
        resource.setrlimit(resource.RLIMIT_AS, (most, self._hard))
        if growth is not None:
            self._errno.value = 0

    def has_failed(self) -> bool:
        """Return whether the last system call that failed since `limit` was for want of memory."""
        return self._statm is not None and self._errno.value == errno.ENOMEM
