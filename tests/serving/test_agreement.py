"""The agreement of stand-ins for workers: changes made by all or by none, and the workers that are let in."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdeinfer import ModelPackage
from pdeinfer.package.writing import write_card
from serving.engine.models import Models
from serving.errors import ChangeRefusedError, ModelLoadError
from serving.process.agreement import ModelAgreement
from serving.process.channel import PeerLostError
from serving.process.membership import Membership
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
        self.has_joined = True
        self.is_outdated = self.was_killed = False
        self.changes = 0

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


def agreeing(*answers: dict[str, Any] | Exception) -> tuple[ModelAgreement, list[Worker]]:
    """Return the agreement of workers that answer "prepare" with these, and the workers."""
    workers = [Worker(answer) for answer in answers]
    return ModelAgreement(workers), workers


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


def test_a_change_is_prepared_by_all_before_any_applies_it_and_answered_when_all_have() -> None:
    async def test() -> None:
        agreement, (first, second) = agreeing(prepared(), prepared())
        second.may_answer.clear()
        change = asyncio.create_task(agreement.change(first, "grey", "reload"))
        await asyncio.sleep(0.01)
        assert first.calls == second.calls == ["prepare grey reload"]
        second.may_answer.set()

        assert await change == ["1"]
        assert first.calls == second.calls == ["prepare grey reload", "apply"]
        assert agreement.served == prepared()

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
        agreement, workers = agreeing(*answers)
        with pytest.raises(error) as caught:
            await agreement.change(workers[0], "grey", "reload")

        assert caught.value.code == "model_load_failed"  # type: ignore[attr-defined]
        assert [worker.calls[1:] for worker in workers] == [["discard"], ["discard"]]
        assert agreement.served is None
        workers[0].prepared = workers[1].prepared = prepared()
        assert await agreement.change(workers[0], "grey", "reload") == ["1"]

    run(test)


def test_changes_are_made_one_after_the_other() -> None:
    async def test() -> None:
        agreement, (worker,) = agreeing(prepared())
        worker.may_answer.clear()
        changes = [asyncio.create_task(agreement.change(worker, name, "reload")) for name in ("grey", "rgb")]
        await asyncio.sleep(0.01)
        assert worker.calls == ["prepare grey reload"]
        worker.may_answer.set()
        await asyncio.gather(*changes)

        assert worker.calls == ["prepare grey reload", "apply", "prepare rgb reload", "apply"]

    run(test)


def test_a_worker_that_dies_while_it_applies_a_change_does_not_undo_it() -> None:
    async def test() -> None:
        agreement, (first, second) = agreeing(prepared(), prepared())
        second.applied = PeerLostError()

        assert await agreement.change(first, "grey", "reload") == ["1"]
        assert first.calls[-1] == "apply"

    run(test)


def test_a_worker_that_fails_to_apply_a_change_is_killed() -> None:
    async def test() -> None:
        agreement, (first, second) = agreeing(prepared(), prepared())
        second.applied = REFUSAL

        assert await agreement.change(first, "grey", "reload") == ["1"]
        assert (first.was_killed, second.was_killed) == (False, True)

    run(test)


def test_a_change_that_a_dead_worker_was_asked_for_is_not_made() -> None:
    async def test() -> None:
        agreement, (worker,) = agreeing(prepared())
        with pytest.raises(PeerLostError):
            await agreement.change(Worker(prepared()), "grey", "reload")
        assert worker.calls == []

    run(test)


def test_a_worker_that_was_loading_during_a_change_is_started_again() -> None:
    async def test() -> None:
        agreement, (worker, loading) = agreeing(prepared(names=("rgb",)), prepared())
        loading.has_joined = False
        worker.may_answer.clear()
        change = asyncio.create_task(agreement.change(worker, "grey", "unload"))
        await asyncio.sleep(0.01)
        joining = asyncio.create_task(agreement.join(loading, prepared()))
        await asyncio.sleep(0.01)
        assert not loading.was_killed
        worker.may_answer.set()
        await asyncio.gather(change, joining)

        assert (loading.was_killed, loading.is_outdated, loading.has_joined) == (True, True, False)
        assert loading.calls == []
        assert agreement.served == prepared(names=("rgb",))

    run(test)


@pytest.mark.parametrize("other", [prepared("b"), prepared(names=("rgb", "grey")), prepared(names=("grey",))])
def test_a_worker_that_would_serve_other_models_than_the_others_is_not_let_in(other: dict[str, Any]) -> None:
    async def test() -> None:
        agreement, (first, second) = agreeing(prepared(), prepared())
        first.has_joined = second.has_joined = False
        assert agreement.expected() is None
        await agreement.join(first, prepared())
        assert agreement.expected() == prepared()
        await agreement.join(second, other)

        assert (first.has_joined, first.was_killed) == (True, False)
        assert (second.has_joined, second.was_killed, second.is_outdated) == (False, True, True)
        assert agreement.served == prepared()

    run(test)


def test_workers_serve_what_is_on_the_disk_when_none_serves_the_former_packages() -> None:
    async def test() -> None:
        agreement, workers = agreeing(prepared(), prepared())
        first, second = workers
        first.has_joined = second.has_joined = False
        await agreement.join(first, prepared())
        workers.remove(first)
        assert agreement.expected() == {"grey": None, "rgb": None}
        await agreement.join(second, prepared("b"))

        assert (second.has_joined, second.was_killed) == (True, False)
        assert agreement.served == prepared("b")

    run(test)


def test_models_that_were_all_unloaded_stay_so_when_all_workers_are_replaced() -> None:
    async def test() -> None:
        agreement, workers = agreeing({})
        workers[0].has_joined = False
        await agreement.join(workers[0], prepared(names=("grey",)))
        assert await agreement.change(workers[0], "grey", "unload") == []
        workers.clear()

        assert agreement.expected() == {}

    run(test)
