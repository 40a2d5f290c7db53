"""Changes of the served models over many workers: each is made in all of them or in none."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol


class Peer(Protocol):
    """A worker as the supervisor sees it; `serving.process.link.Link` is the other end."""

    def send(self, *message: object) -> None: ...


@dataclass(slots=True, eq=False)
class _Change:
    """A change that is being made.

    Attributes:
        origin: the worker that was asked for it, and gets the answer.
        awaited: those that have not answered what all were sent last.
        prepared: what the workers will serve, as each has said.
        refused: why the first that cannot make it cannot.
        is_applied: whether all were told to serve it.
    """

    origin: Peer
    name: str
    action: str
    awaited: set[Peer] = field(default_factory=set)
    prepared: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Any] | None = None
    is_applied: bool = False


class Changes:
    """The changes that workers ask for, one at a time, in the order in which they were asked for.

    Every worker first loads what is to be served, and says what that is. Where all have the same, all are told to serve
    it, and the one that was asked gets its answer once they do; otherwise all drop it. A worker that dies is not waited
    for, and one that is started meanwhile takes part. (Between the first worker that serves it and the last there is
    an instant: the time that a message takes.)

    Attributes:
        names: the models that a worker started now must serve, in order; None, until the first worker has started: all.
    """

    def __init__(self) -> None:
        self.names: list[str] | None = None
        self._workers: set[Peer] = set()
        self._asked: deque[_Change] = deque()
        self._current: _Change | None = None

    def join(self, worker: Peer) -> None:
        """Take in a worker that was just started with `names`."""
        self._workers.add(worker)
        if self._current is not None and not self._current.is_applied:
            self._prepare(self._current, worker)

    def leave(self, worker: Peer) -> None:
        """Do without a worker that has died."""
        self._workers.discard(worker)
        if self._current is not None:
            self._current.awaited.discard(worker)
            self._advance()

    def receive(self, worker: Peer, message: list[Any]) -> None:
        """Take a worker's message: what it serves, a change it was asked for, or its answer to what it was sent."""
        match message:
            case ["started", names]:
                if self.names is None:  # later there may be packages of more, which the others do not serve
                    self.names = names
                return
            case ["change", name, action]:
                self._asked.append(_Change(worker, name, action))
            case ["prepared", state] if self._current is not None:
                self._current.prepared.append(state)
            case ["refused", *error] if self._current is not None:
                self._current.refused = self._current.refused or error
        if self._current is not None and message[0] != "change":
            self._current.awaited.discard(worker)
        self._advance()

    def _advance(self) -> None:
        """Take the steps for which no worker is waited for."""
        while self._current is None or not self._current.awaited:
            if self._current is None:
                if not self._asked:
                    return
                self._current = self._asked.popleft()
                for worker in self._workers:
                    self._prepare(self._current, worker)
            elif not self._current.is_applied:
                self._decide(self._current)
            else:
                self._end("changed", list(self._current.prepared[0]["versions"]))

    def _prepare(self, change: _Change, worker: Peer) -> None:
        change.awaited.add(worker)
        worker.send("prepare", change.name, change.action)

    def _decide(self, change: _Change) -> None:
        if change.refused is None and any(state != change.prepared[0] for state in change.prepared):
            message = f"the package of {change.name!r} changed while it was loaded: what was served still is"
            change.refused = ["model_load_failed", message]
        if change.refused is not None:
            for worker in self._workers:
                worker.send("discard")
            self._end("refused", *change.refused)
        elif change.prepared:
            self.names = change.prepared[0]["names"]
            change.is_applied = True
            change.awaited = set(self._workers)
            for worker in self._workers:
                worker.send("apply")
        else:  # all that were asked have died
            self._current = None

    def _end(self, *answer: object) -> None:
        if self._current is not None:
            self._current.origin.send(*answer)
            self._current = None
