"""The supervisor with stand-ins for its workers: changes made by all or by none, and the workers that it lets in."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pdeinfer import ModelPackage
from pdeinfer.package.writing import write_card
from serving.engine.models import Models
from serving.errors import ChangeRefusedError, ModelLoadError
from serving.process.channel import PeerLostError
from serving.process.membership import Membership
from serving.process.supervisor import Supervisor
from serving.settings import Settings

REFUSAL = ChangeRefusedError("model_load_failed", "it is damaged")


class Worker:
    """Stands for a worker process: answers "prepare" as it is told, and notes what it is told itself."""

    def __init__(self, prepared: dict[str, Any] | Exception) -> None:
        self.prepared = prepared
        self.applied: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.calls: list[str] = []
        self.channel = self
        self.has_joined = True
        self.is_outdated = self.was_killed = False
        self.changes = 0
        self.process = SimpleNamespace(kill=self.kill)

    async def call(self, function: str, *arguments: str) -> Any:
        self.calls.append(" ".join((function, *arguments)))
        await self.may_answer.wait()
        answer = self.prepared if function == "prepare" else self.applied
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tell(self, function: str) -> None:
        self.calls.append(function)

    def kill(self) -> None:
        self.was_killed = True


def prepared(digest: str = "a", names: tuple[str, ...] = ("grey", "rgb")) -> dict[str, Any]:
    return {name: {"1": digest} for name in names}


def supervised(*answers: dict[str, Any] | Exception) -> tuple[Supervisor, list[Worker]]:
    """Return a supervisor of workers that answer "prepare" with these."""
    supervisor = Supervisor(Settings(workers=2), None, nothing)  # type: ignore[arg-type]
    workers = [Worker(answer) for answer in answers]
    supervisor._workers.extend(workers)  # type: ignore[arg-type]
    return supervisor, workers


async def nothing() -> None:
    pass


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


def test_a_change_is_prepared_by_all_before_any_applies_it_and_answered_when_all_have() -> None:
    async def test() -> None:
        supervisor, (first, second) = supervised(prepared(), prepared())
        second.may_answer.clear()
        change = asyncio.create_task(supervisor._change(first, "grey", "reload"))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        assert first.calls == second.calls == ["prepare grey reload"]
        second.may_answer.set()

        assert await change == ["1"]
        assert first.calls == second.calls == ["prepare grey reload", "apply"]
        assert supervisor._served == prepared()

    run(test)


def test_workers_that_load_different_cards_prepare_different_states(package: Path) -> None:
    async def state() -> dict[str, Any]:
        models = Models(Settings(models=(str(package),), device="cpu", threads=1))
        await models.load()
        membership = Membership(None, None, None)  # type: ignore[arg-type]
        membership._models = models
        return await membership._prepare("tiny-grey", "reload")

    before = asyncio.run(state())
    card = ModelPackage.read(package).card
    write_card(package, replace(card, metrics={"test_accuracy": 0.25}))
    after = asyncio.run(state())

    assert before.keys() == after.keys() == {"tiny-grey"}
    assert before["tiny-grey"]["1"] != after["tiny-grey"]["1"]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ((prepared(), REFUSAL), ChangeRefusedError),
        ((prepared(), PeerLostError()), ModelLoadError),
        ((prepared("a"), prepared("b")), ModelLoadError),
    ],
    ids=["refused", "died", "other files"],
)
def test_a_change_that_one_worker_cannot_make_is_made_by_none(
    answers: tuple[dict[str, Any] | Exception, ...], error: type[Exception]
) -> None:
    async def test() -> None:
        supervisor, workers = supervised(*answers)
        with pytest.raises(error) as caught:
            await supervisor._change(workers[0], "grey", "reload")  # type: ignore[arg-type]

        assert caught.value.code == "model_load_failed"  # type: ignore[attr-defined]
        assert [worker.calls[1:] for worker in workers] == [["discard"], ["discard"]]
        assert supervisor._served == {}
        workers[0].prepared = workers[1].prepared = prepared()
        assert await supervisor._change(workers[0], "grey", "reload") == ["1"]  # type: ignore[arg-type]

    run(test)


def test_changes_are_made_one_after_the_other() -> None:
    async def test() -> None:
        supervisor, (worker,) = supervised(prepared())
        worker.may_answer.clear()
        changes = [
            asyncio.create_task(supervisor._change(worker, name, "reload"))  # type: ignore[arg-type]
            for name in ("grey", "rgb")
        ]
        await asyncio.sleep(0.01)
        assert worker.calls == ["prepare grey reload"]
        worker.may_answer.set()
        await asyncio.gather(*changes)

        assert worker.calls == ["prepare grey reload", "apply", "prepare rgb reload", "apply"]

    run(test)


def test_a_worker_that_dies_while_it_applies_a_change_does_not_undo_it() -> None:
    async def test() -> None:
        supervisor, (first, second) = supervised(prepared(), prepared())
        second.applied = PeerLostError()

        assert await supervisor._change(first, "grey", "reload") == ["1"]  # type: ignore[arg-type]
        assert first.calls[-1] == "apply"

    run(test)


def test_a_worker_that_fails_to_apply_a_change_is_killed() -> None:
    async def test() -> None:
        supervisor, (first, second) = supervised(prepared(), prepared())
        second.applied = REFUSAL

        assert await supervisor._change(first, "grey", "reload") == ["1"]  # type: ignore[arg-type]
        assert (first.was_killed, second.was_killed) == (False, True)

    run(test)


def test_a_change_that_a_dead_worker_was_asked_for_is_not_made() -> None:
    async def test() -> None:
        supervisor, (worker,) = supervised(prepared())
        with pytest.raises(PeerLostError):
            await supervisor._change(Worker(prepared()), "grey", "reload")  # type: ignore[arg-type]
        assert worker.calls == []

    run(test)


def test_a_worker_that_was_loading_during_a_change_is_started_again() -> None:
    async def test() -> None:
        supervisor, (worker, loading) = supervised(prepared(names=("rgb",)), prepared())
        loading.has_joined = False
        worker.may_answer.clear()
        change = asyncio.create_task(supervisor._change(worker, "grey", "unload"))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        joining = asyncio.create_task(supervisor._join(loading, prepared()))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        assert not loading.was_killed
        worker.may_answer.set()
        await asyncio.gather(change, joining)

        assert (loading.was_killed, loading.is_outdated, loading.has_joined) == (True, True, False)
        assert loading.calls == []
        assert supervisor._served == prepared(names=("rgb",))

    run(test)


@pytest.mark.parametrize("other", [prepared("b"), prepared(names=("rgb", "grey")), prepared(names=("grey",))])
def test_a_worker_that_would_serve_other_models_than_the_others_is_not_let_in(other: dict[str, Any]) -> None:
    async def test() -> None:
        supervisor, (first, second) = supervised(prepared(), prepared())
        first.has_joined = second.has_joined = False
        assert supervisor._expected() is None
        await supervisor._join(first, prepared())  # type: ignore[arg-type]
        assert supervisor._expected() == prepared()
        await supervisor._join(second, other)  # type: ignore[arg-type]

        assert (first.has_joined, first.was_killed) == (True, False)
        assert (second.has_joined, second.was_killed, second.is_outdated) == (False, True, True)
        assert supervisor._served == prepared()

    run(test)


def test_workers_serve_what_is_on_the_disk_when_none_serves_the_former_packages() -> None:
    async def test() -> None:
        supervisor, (first, second) = supervised(prepared(), prepared())
        first.has_joined = second.has_joined = False
        await supervisor._join(first, prepared())  # type: ignore[arg-type]
        supervisor._workers.remove(first)  # type: ignore[arg-type]
        assert supervisor._expected() == {"grey": None, "rgb": None}
        await supervisor._join(second, prepared("b"))  # type: ignore[arg-type]

        assert (second.has_joined, second.was_killed) == (True, False)
        assert supervisor._served == prepared("b")

    run(test)
