"""The folder beside a result in which it grows: what is to be done, and the parts that are done.

A part appears whole, by renaming, or not at all: a run that is stopped at any moment can go on.

    photos.parquet.parts/
        job.json          the model, the options and the sources
        plan.jsonl        a chunk of images per line
        00000000.jsonl    the rows of the first chunk
        ...
        lock              empty, held by the process that works
        finished          the job and the numbers of rows and errors, from just before the result appears until the
                          folder is removed
"""

import errno
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from pdeinfer.errors import ClassifyError
from pdeinfer.files import naming, replacing, sync_file, sync_folder
from pdeinfer.offline.chunks import Chunk, FileChunk, from_line, to_line
from pdeinfer.offline.results import Count

logger = logging.getLogger(__name__)

# Error numbers of a file system that has no locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

# The names of what a run writes, in the folder; half-written files had the suffix .tmp in earlier versions.
_OWN = re.compile(r"(job\.json|plan\.jsonl|\d{8}\.jsonl|finished)(\.tmp)?|\.partial-[0-9a-f]{8}(\.jsonl?)?|joined|lock")


class Todo(NamedTuple):
    """A chunk that is to be classified: its number, where its line begins in the plan, and how many images it has."""

    number: int
    offset: int
    images: int


class Parts:
    """The parts of a result, for one process at a time, as a context manager.

    Args:
        result: the file that will be written, or a link to it.

    Attributes:
        plan: the file that lists the chunks.
        images: how many images there are; known after `make_plan`.
        done: how many of them were classified before.
    """

    def __init__(self, result: Path) -> None:
        self._names = {result.name}
        if os.path.islink(result):  # noqa: PTH114  # Path.is_symlink raises OSError for a long name
            result = Path(os.path.realpath(result))  # or the result would take the place of the link
            self._names.add(result.name)
        self._result = result
        self._folder = result.with_name(f"{result.name}.parts")
        self._job = self._folder / "job.json"
        self._finished = self._folder / "finished"
        self._lock: IO[bytes] | None = None
        self._chunks = 0
        self.plan = self._folder / "plan.jsonl"
        self.images = self.done = 0

    def __enter__(self) -> Self:
        """Make the folder and lock it.

        Raises:
            ClassifyError: another process holds it, or it is no folder of parts.
        """
        is_new = not self._folder.exists()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._check_own()
        try:
            self._lock = (self._folder / "lock").open("wb")
            self._hold(self._lock)
        except BaseException as error:
            if self._lock is not None:
                self._lock.close()
            if is_new and not isinstance(error, ClassifyError):
                self.remove()
            raise
        if not self._result.exists():
            self._finished.unlink(missing_ok=True)
        if not self._has_parts:
            self._job.unlink(missing_ok=True)
            self.plan.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock the folder, and remove it if it holds nothing to go on from."""
        try:
            if self._folder.exists() and not (self._has_parts or self._finished.exists()):
                self.remove()
        finally:
            if self._lock is not None:
                self._lock.close()

    def _check_own(self) -> None:
        """Raise ClassifyError for a folder of somebody else, whose files are not to be taken for parts.

        The empty file `lock` is created first and removed last. Beside it may be Thumbs.db and the like.
        """
        names = {path.name for path in self._folder.iterdir() if not path.name.startswith(".")}  # such as .DS_Store
        if names and ("lock" not in names or (self._folder / "lock").stat().st_size > 0):
            foreign = [name for name in names if not _OWN.fullmatch(name)]
            raise ClassifyError(
                f"{self._folder}: expected no such folder, or one that pdeinfer has made, got one with "
                f"{min(foreign or names)}: move it, or name another file than {self._result.name}"
            )

    def _hold(self, lock: IO[bytes]) -> None:
        try:
            import fcntl
        except ImportError:  # on Windows, which removes no file that is open
            lock.close()
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ClassifyError(f"{self._folder}: another process works there: wait for it") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logger.warning("%s: no other process may work there: the file system has no locks", self._folder)

    @property
    def is_begun(self) -> bool:
        """Whether the folder is there."""
        return os.path.exists(self._folder)  # noqa: PTH110  # Path.exists raises OSError for a long name

    def take_finished(self, job: dict[str, Any]) -> Count:
        """Return what an earlier run of the job has written, and remove the folder.

        Raises:
            ClassifyError: the result is that of another job.
        """
        mark: dict[str, Any] = {}
        with suppress(FileNotFoundError, ValueError):  # ValueError: an older version left it empty
            mark = json.loads(self._finished.read_bytes())
        if mark.get("job") != job:
            raise already_exists(self._result)
        self.remove()
        return Count(*mark["count"])

    @property
    def _has_parts(self) -> bool:
        return any(self._folder.glob(f"{'[0-9]' * 8}.jsonl"))

    def holds(self, path: Path) -> bool:
        """Return whether a path is the result, the folder or in it: they may lie among the sources."""
        if path.name not in self._names and self._folder.name not in path.parts:
            return False  # without a look at the disk
        path = path.resolve()
        return path == self._result.resolve() or self._folder.resolve() in (path, *path.parents)

    def check_job(self, job: dict[str, Any]) -> None:
        """Note what is to be done, as JSON values by name.

        Raises:
            ClassifyError: the parts are those of another job; the message names what differs.
        """
        if not self._job.exists():
            with _appearing(self._job) as file:
                file.write(json.dumps(job, indent=1).encode())
            return
        begun = json.loads(self._job.read_bytes())
        changes = [_change(name, begun.get(name), new) for name, new in job.items() if begun.get(name) != new]
        if changes:
            raise self._changed(", ".join(changes))

    def make_plan(self, chunks: Iterable[Chunk]) -> None:
        """Write the chunks down or, when the work is resumed, compare them with those written down.

        Raises:
            ClassifyError: there are no images, or they differ; the message names the first that does.
        """
        if self.plan.exists():
            with self.plan.open(encoding="ascii") as lines:
                for line, chunk in zip_longest(lines, chunks):
                    if line is None or chunk is None or line != to_line(chunk):
                        raise self._changed(_difference(from_line(line) if line else None, chunk))
                    self._count(chunk)
            return
        with _appearing(self.plan) as file:
            for chunk in chunks:
                file.write(to_line(chunk).encode("ascii"))
                self._count(chunk)
            if self.images == 0:
                raise ClassifyError("expected sources with images, found none")

    def todo(self) -> Iterator[Todo]:
        """Yield the chunks of which there is no part yet."""
        offset = 0
        with self.plan.open("rb") as lines:
            for number, line in enumerate(lines):
                if not self._part(number).exists():
                    yield Todo(number, offset, from_line(line.decode("ascii")).images)
                offset += len(line)

    def write(self, number: int, rows: bytes) -> None:
        """Write the part of a chunk."""
        with _appearing(self._part(number)) as file:
            file.write(rows)

    def read(self) -> Iterator[bytes]:
        """Yield the parts in order."""
        return (self._part(number).read_bytes() for number in range(self._chunks))

    def finish(self, write: Callable[[Path], Count]) -> Count:
        """Make the result appear, and remove the folder. After a power cut, too, one of the two is whole.

        Args:
            write: writes the result to a path beside it, and returns the numbers of rows and errors.

        Raises:
            ClassifyError: the result exists by now.
        """
        joined = self._folder / "joined"
        with naming(joined):
            count = write(joined)
            sync_file(joined)
        if self._result.exists():
            raise already_exists(self._result)
        with _appearing(self._finished) as file:
            file.write(json.dumps({"job": json.loads(self._job.read_bytes()), "count": count}).encode())
        sync_folder(self._folder)
        joined.replace(self._result)
        sync_folder(self._result.parent)
        self.remove()
        return count

    def remove(self) -> None:
        """Remove the files of the run, and the folder if it holds no others."""
        last = [self._finished, self._folder / "lock"]  # they tell what remains to be done, and whose folder it is
        own = [path for path in self._folder.iterdir() if _OWN.fullmatch(path.name) and path not in last]
        for path in own + last:
            path.unlink(missing_ok=True)
        with suppress(OSError):  # another process has come, or there are others' files
            self._folder.rmdir()

    def _count(self, chunk: Chunk) -> None:
        if self._part(self._chunks).exists():
            self.done += chunk.images
        self.images += chunk.images
        self._chunks += 1

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:08}.jsonl"

    def _changed(self, what: str) -> ClassifyError:
        return ClassifyError(f"{self._folder} was begun with {what}: restore that, or remove the folder to start again")


def already_exists(result: Path) -> ClassifyError:
    """Return the error for a result that exists already."""
    return ClassifyError(f"{result} exists: remove it, or name another file")


def read_chunk(plan: Path, offset: int) -> Chunk:
    """Return the chunk whose line begins at a place of the plan."""
    with plan.open("rb") as file:
        file.seek(offset)
        return from_line(file.readline().decode("ascii"))


def _change(name: str, begun: Any, now: Any) -> str:
    """Describe a changed value, and of the sources the first that has changed."""
    if name == "sources":
        pairs = zip_longest(begun or (), now)
        name, (begun, now) = "the source", next(pair for pair in pairs if pair[0] != pair[1])
    return f"{name} {begun!r}, now {now!r}"


def _difference(before: Chunk | None, now: Chunk | None) -> str:
    """Describe the first difference between a chunk and what the sources hold in its place."""
    pairs = zip_longest(before.names() if before else (), now.names() if now else ())
    for old, new in pairs:
        if old != new:
            return f"{old or 'no further image'} where the sources have {new or 'none'}"
    if isinstance(before, FileChunk) and isinstance(now, FileChunk):
        return f"another {next(old[0] for old, new in zip(before.files, now.files, strict=True) if (*old,) != new)}"
    return f"another {getattr(before, 'path', 'order of images')}"


@contextmanager
def _appearing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside a path, which takes its place once it is complete."""
    with replacing(path) as beside, beside.open("wb") as file:
        yield file
