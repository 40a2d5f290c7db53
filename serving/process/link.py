"""A worker's end of the pipe to its supervisor: that it works, and changes of the models that it serves."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from pdeinfer.package.package import MODEL_FILES
from serving.engine.models import Action, Change, Models
from serving.errors import ChangeRefusedError, NotReadyError, ServingError

logger = logging.getLogger(__name__)


class Link:
    """What a worker and its supervisor tell each other, as lists in JSON; `serving.process.changes` has the other end.

    Args:
        pipe: to the supervisor.
        names: the models to serve at first, as `Models` takes them; None: all, and those that there are are told.
    """

    def __init__(self, pipe: Connection, names: list[str] | None) -> None:
        self.names = names
        self._pipe = pipe
        self._prepared: Change | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._asked: deque[asyncio.Future[tuple[str, ...]]] = deque()

    def connect(self, models: Models, lost: Callable[[], None]) -> None:
        """Make the changes of `models` that come from the supervisor, on this event loop.

        Args:
            lost: called where the supervisor has ended.
        """
        loop = asyncio.get_running_loop()
        self.names = models.names

        def read() -> None:
            try:
                message = json.loads(self._pipe.recv_bytes())
            except (EOFError, OSError):
                loop.remove_reader(self._pipe.fileno())
                self._pipe.close()
                for answer in self._asked:
                    _fail(answer, _stopping())
                lost()
                return
            match message:
                case ["ping"]:
                    self._send("pong")
                case ["prepare", name, action]:
                    self._preparing = loop.create_task(self._prepare(models, name, action))
                case ["apply"] if self._prepared is not None:
                    models.apply(self._prepared)
                    self._prepared = None
                    self._send("applied")
                case ["discard"]:
                    self._prepared = None
                case ["changed", versions]:
                    answer = self._asked.popleft()
                    if not answer.done():
                        answer.set_result(tuple(versions))
                case ["refused", *error]:
                    _fail(self._asked.popleft(), ChangeRefusedError(*error))

        loop.add_reader(self._pipe.fileno(), read)

    def started(self) -> None:
        """Say that requests are accepted, and for which models; `connect` comes first."""
        self._send("started", self.names)

    async def change(self, name: str, action: Action) -> tuple[str, ...]:
        """Load, reload or unload a model in all workers, and return its versions that they serve then.

        Raises:
            ChangeRefusedError: it was refused, and all serve what they served.
            NotReadyError: the server is stopping.
        """
        if self._pipe.closed:
            raise _stopping()
        answer: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self._send("change", name, action)
        return await answer

    async def _prepare(self, models: Models, name: str, action: Action) -> None:
        try:
            change = await models.prepare(name, action)
        except ServingError as error:
            self._send("refused", error.code, str(error))
        except Exception:
            logger.exception("the server failed to %s %s", action, name)
            self._send("refused", "internal_error", "the server failed to answer; its log has the details")
        else:
            self._prepared = change
            versions = {
                version: model.card.files[MODEL_FILES[model.info.precision]].sha256
                for version, model in change.models.items()
            }
            self._send("prepared", {"versions": versions, "names": change.names_after(models.names)})

    def _send(self, *message: object) -> None:
        with suppress(OSError):  # the supervisor has ended: `lost` follows
            self._pipe.send_bytes(json.dumps(message).encode())


def _fail(answer: asyncio.Future[tuple[str, ...]], error: ServingError) -> None:
    if not answer.done():
        answer.set_exception(error)


def _stopping() -> NotReadyError:
    return NotReadyError("the server is stopping")
