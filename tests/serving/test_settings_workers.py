"""How many workers the settings ask for, and how many threads each has."""

import pytest

from serving.process.arguments import parse_settings
from serving.process.run import count_workers
from serving.settings import Settings


def test_workers_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.settings.settings.available_cpus", lambda: 8)

    assert [Settings(workers=workers).worker_threads for workers in (1, 3, 8, 20)] == [8, 2, 1, 1]
    assert Settings(workers=2, threads=3).worker_threads == 3


@pytest.mark.parametrize(
    ("arguments", "has_gpu", "workers"),
    [
        ([], False, 8),
        (["--device=cpu"], True, 8),
        ([], True, 1),
        (["--device=cuda:1"], False, 1),
        (["--threads=3"], False, 2),
        (["--threads=20"], False, 1),
        (["--workers=3"], True, 3),
    ],
)
def test_auto_is_a_worker_for_each_cpu_or_one_on_a_gpu(
    arguments: list[str], has_gpu: bool, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.process.run.available_cpus", lambda: 8)
    monkeypatch.setattr("serving.process.run.has_cuda_device", lambda: has_gpu)
    monkeypatch.setattr("serving.process.run.has_cuda", lambda _: has_gpu)

    settings, reason = count_workers(parse_settings(arguments))

    assert settings.workers == settings.num_workers == workers
    assert reason


def test_workers_are_auto_or_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_settings([]).workers == parse_settings(["--workers", "auto"]).workers == "auto"
    monkeypatch.setenv("PDEINFER_WORKERS", "3")
    assert parse_settings([]).workers == 3
    monkeypatch.setenv("PDEINFER_WORKERS", "auto")
    assert parse_settings([]).workers == "auto"
    assert parse_settings(["--workers=2"]).workers == 2
