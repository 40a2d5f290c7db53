"""The serving benchmark starts servers, checks their answers, and prints its measurements."""

import asyncio
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest

from benchmarks.serving import __main__ as command
from benchmarks.serving import cases, environments, report, rounds, servers
from benchmarks.serving.cases import CASES, Case, Sample
from benchmarks.serving.load import LOST, Answer, closed_loop
from benchmarks.serving.rounds import Figures, Results
from pdeinfer.package import zoo

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def sample() -> Sample:
    return cases.draw_sample(zoo.load("digits-pde"))


@pytest.mark.slow
def test_our_server_is_measured_in_every_case(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(
        sys, "argv", ["serving", "--peers", "", "--model", "digits-pde", "--rounds", "1", "--seconds", "0.05"]
    )

    assert command.main() == 0

    text = capsys.readouterr().out
    tables = re.findall(r"\| server .*?\n\n", text, re.DOTALL)
    assert len(tables) == 9
    assert "| 32 connections" in text
    assert "65% of the Predictor, goal 75%" in text
    for rows in (tables[0], tables[2]):
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows.strip().splitlines()]
        assert lines[0] == ["server", *(case.title for case in CASES)]
        assert [line[0] for line in lines[2:]] == [servers.OURS.name]
        assert all(re.match(r"[\d.,]*[1-9]", cell) for line in lines[2:] for cell in line[1:])
    assert re.findall(r"\| pdeinfer (?:\| +0 )+\|\n", tables[3])
    assert re.search(r"\| all of them \| +[\d,]*[1-9][\d,]* \|", text)


def test_requests_are_the_same_images_for_every_peer(sample: Sample) -> None:
    for peer in (servers.OURS, *servers.PEERS.values()):
        assert len(cases.requests_of(peer, Case("PNG", 32, 4), sample) or []) == cases.IMAGES / 32
        assert len(set(cases.requests_of(peer, Case("PNG", 1, 1), sample) or [])) == cases.IMAGES
    assert cases.requests_of(servers.PEERS["ray"], Case("V2, JSON", 1, 1), sample) is None


@pytest.mark.parametrize(
    ("status", "label", "score", "expected"),
    [
        (500, "7", 1.0, "expected status 200, got 500"),
        (200, "0", 0.5, "expected the probabilities"),
        (200, "no label", None, "expected the labels"),
        (200, None, None, None),
    ],
)
def test_a_wrong_answer_is_an_error(
    sample: Sample, status: int, label: str | None, score: float | None, expected: str | None
) -> None:
    row = sample.probabilities[0]
    probabilities = row.tolist() if score is None else [score] * len(row)
    label = sample.labels[int(row.argmax())] if label is None else label
    body = json.dumps({"results": [{"label": label, "probabilities": probabilities}]}).encode()
    answer = Answer(status, 0.0, 0.0, body, 1, b"")

    def check() -> None:
        cases.check(servers.PEERS["ray"], Case("PNG", 1, 1), sample, 0, answer)

    if expected is None:
        check()
    else:
        with pytest.raises(RuntimeError, match=expected):
            check()


def figures(rate: float, p50: float, p99: float) -> list[Figures]:
    return [Figures(rate, p50, p99, 0.1)]


@pytest.mark.parametrize(
    ("rate", "p50", "p99", "words"),
    [
        (3000, 0.00055, 0.004, ["met", "met", "met", "met, and the goal", "met", "met"]),
        (2700, 0.00055, 0.004, ["met", "met", "met", "met", "met", "met"]),
        (2500, 0.00080, 0.006, ["**not met**"] * 6),
    ],
)
def test_the_verdicts_tell_which_targets_are_met(rate: float, p50: float, p99: float, words: list[str]) -> None:
    ours, ray, bentoml = servers.OURS, servers.PEERS["ray"], servers.PEERS["bentoml"]
    name = servers.OURS.name
    # 0.25 ms in process. A Predictor beside others does not count.
    results = Results(alone={(name, 1): [4000.0], (name, 32): [4000.0], ("ray", 1): [1.0], ("ray", 32): [1.0]})
    one, many = (Case("PNG", 1, connections) for connections in (1, 32))
    for case in (one, many):
        results.figures[ours.name, case] = figures(rate, p50, p99)
        results.figures[ray.name, case] = figures(1300, 0.002, 0.005)
        results.figures[bentoml.name, case] = figures(900, 0.001, 0.009)

    rows = report.verdicts(results, [ours, bentoml, ray])

    assert [row[0] for row in rows] == ["1 connection"] * 3 + ["32 connections"] * 3
    assert [row[3] for row in rows] == words
    assert "(ray)" in rows[0][2]
    assert "0.65 ms" in rows[2][1]


def test_without_peers_there_are_verdicts_on_our_server_alone() -> None:
    name = servers.OURS.name
    results = Results(alone={(name, 32): [4000.0, 2000.0, 2000.0]})
    # Of each turn 75 %: the machine was twice as fast in the first. Of the median rate too.
    results.figures[name, Case("PNG", 1, 128)] = [figures(rate, 0.01, 0.02)[0] for rate in (3000, 1500, 1500)]

    (row,) = report.verdicts(results, [servers.OURS])

    assert row[2:] == ["75% (75%)", "met, and the goal"]


def test_a_verdict_also_has_the_share_of_the_median_rate_around_all_turns() -> None:
    name = servers.OURS.name
    results = Results(alone={(name, 1): [1000.0], ("ray", 1): [2000.0], (name, 32): [2000.0], ("ray", 32): [4000.0]})
    for connections in (1, 32):
        results.figures[name, Case("PNG", 1, connections)] = figures(1500, 0.002, 0.02)

    latency, share = report.verdicts(results, [servers.OURS])

    assert latency[1:] == ["p50 of at most 2.15 ms (1.48 ms)", "2.00 ms", "met"]
    assert share[2:] == ["75% (50%)", "met, and the goal"]


def test_unanswered_requests_count_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.serving.load.PATIENCE", 0.05)

    async def ask() -> list[Answer]:
        silent = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        async with silent:
            return await closed_loop(silent.sockets[0].getsockname()[1], [b"x"], 3, 0.05)

    assert [answer.status for answer in asyncio.run(ask())] == [LOST] * 3


def test_lost_requests_of_all_turns_are_counted(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("PNG", 1, 8)
    results = Results({(servers.OURS.name, case): []})  # whose requests were checked before
    (request, *_) = cases.requests_of(servers.OURS, case, sample) or []
    monkeypatch.setattr(rounds, "check", lambda *_: None)

    for lost in (0, 7, 2):
        answers = [Answer(status, 0.0, 0.1, b"", 1, request) for status in [200, *[LOST] * lost]]
        monkeypatch.setattr(rounds, "closed_loop", AsyncMock(return_value=answers))
        asyncio.run(rounds._turn(Mock(port=1), servers.OURS, case, sample, 1.0, results))

    assert results.lost == {(servers.OURS.name, case): 9}
    assert len(results.figures[servers.OURS.name, case]) == 3


def test_a_server_that_fails_to_start_reports_why(sample: Sample) -> None:
    broken = replace(servers.OURS, command=["-c", "raise SystemExit('no such thing')"])

    with pytest.raises(RuntimeError, match=r"pdeinfer does not start:\nno such thing"):
        rounds.measure({broken: Path(sys.executable)}, CASES, sample, rounds=1, seconds=0.01)


def test_a_peer_that_cannot_be_installed_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def fail(name: str) -> Path:
        raise environments.PeerNotInstalledError(f"{name} cannot be installed: no network")

    monkeypatch.setattr(command, "python_of", fail)
    monkeypatch.setattr(command, "measure", lambda servers, *_, **__: print(len(servers)))  # noqa: T201
    monkeypatch.setattr(command, "print_results", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["serving", "--peers", "ray"])

    assert command.main() == 0

    assert "Left out: ray cannot be installed: no network" in capsys.readouterr().out


def test_an_unknown_peer_is_exit_code_2(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(sys, "argv", ["serving", "--peers", "ray,other"])

    with pytest.raises(SystemExit, match="2"):
        command.main()

    assert "got other" in capsys.readouterr().err


@pytest.mark.parametrize("name", servers.PEERS)
def test_peers_pin_our_versions_of_the_computing_packages(name: str) -> None:
    ours = (environments.ROOT / "requirements/constraints.txt").read_text().lower().splitlines()
    theirs = environments.requirements(name).read_text().lower().splitlines()

    assert all(re.fullmatch(r"[a-z0-9._-]+==[a-z0-9.+!_-]+", line) for line in theirs)
    for package in ("numpy", "onnxruntime", "pillow"):
        (version,) = (line for line in ours if line.startswith(f"{package}=="))
        assert version in theirs
