"""The agreement of several workers on their models: all of them change one, or none does."""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from serving.errors import ModelLoadError, ServingError
from serving.process.channel import PeerLostError

if TYPE_CHECKING:  # the supervisor starts sooner without what serves
    from serving.engine.models import Expected

logger = logging.getLogger(__name__)

Digests: TypeAlias = dict[str, dict[str, str]]  # of the packages that a worker serves, by name and version


class Worker(Protocol):
    """What the agreement needs of a worker, as `WorkerProcess` describes it."""

    changes: int
    has_joined: bool
    is_outdated: bool

    async def call(self, function: str, *arguments: Any) -> Any: ...

    def tell(self, function: str) -> object: ...

    def kill(self) -> None: ...


class ModelAgreement:
    """Keep workers on the same models.

    Models change in all workers or in none, one change at a time: every worker prepares the change, and when all have
    prepared the same, every worker applies it. A worker joins the others once it has loaded the packages that they
    serve, compared by their digests, and no change is being made; if the models changed while it was loading, it is
    killed, to be started again.

    Args:
        workers: those that run; the caller adds and removes them.

    Attributes:
        served: what the workers serve; None until the first of them has joined.
        changes: how many have been made.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.served: Digests | None = None
        self.changes = 0
        self._workers = workers
        self._changing = asyncio.Lock()

    def expected(self) -> "Expected | None":
        """Return what a new worker must serve: the same as the others, or the same models if there are no others."""
        if self.served is None or self._joined():
            return self.served
        return dict.fromkeys(self.served)

    async def join(self, worker: Worker, served: Digests) -> None:
        """Let a worker that has loaded its models take part in changes, or kill it as outdated."""
        async with self._changing:
            differs = self.served is not None and list(served.items()) != list(self.served.items())
            if worker.changes != self.changes or (differs and self._joined()):
                worker.is_outdated = True
                worker.kill()
                return
            if differs:
                logger.warning("no worker serves the former packages any more; those on the disk are served")
            self.served = served
            worker.has_joined = True

    async def change(self, asked: Worker, name: str, action: str) -> list[str]:
        """Change a model in all workers, and return the versions that they serve then.

        Args:
            asked: the worker that was asked for the change.
            action: a `serving.engine.models.Action`.

        Raises:
            ServingError: a worker could not prepare the change, or not the same as another; nothing was changed.
            PeerLostError: `asked` has died; nothing was changed.
        """
        async with self._changing:
            workers = self._joined()
            if asked not in workers:
                raise PeerLostError  # nobody waits for the answer
            preparing = (worker.call("prepare", name, action) for worker in workers)
            prepared = await asyncio.gather(*preparing, return_exceptions=True)
            try:
                states = [_state(name, result) for result in prepared]
                if any(list(state.items()) != list(states[0].items()) for state in states):
                    raise ModelLoadError(f"the package of {name!r} changed while it was loaded; nothing was changed")
            except ServingError:
                for worker in workers:
                    worker.tell("discard")
                raise
            self.changes += 1
            self.served = states[0]
            applying = (worker.call("apply") for worker in workers)
            for worker, result in zip(workers, await asyncio.gather(*applying, return_exceptions=True), strict=True):
                if isinstance(result, ServingError):  # it serves the former models still
                    worker.kill()
            return list(states[0].get(name, ()))

    def _joined(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.has_joined]


def _state(name: str, result: Any) -> Digests:
    if isinstance(result, PeerLostError):
        raise ModelLoadError(f"a worker died while it prepared {name!r}; nothing was changed")
    if isinstance(result, BaseException):
        raise result
    state: Digests = result
    return state
