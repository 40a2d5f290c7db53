"""Prints the verdicts and the tables: medians over the rounds."""

import statistics
from collections.abc import Callable, Sequence

from benchmarks.markdown import table
from benchmarks.serving.cases import MANY, SINGLE, Case
from benchmarks.serving.rounds import Figures, Results
from benchmarks.serving.servers import OURS, Peer

# The targets. Shares are of the Predictor's rate with many images at a time.
SHARE, SHARE_GOAL = 0.65, 0.75
RATIO = 2
LATENCY_FACTOR, LATENCY_SECONDS = 2, 0.00015

TARGETS = """\
Targets, on single images. The machine's speed drifts, so each server is compared with the Predictor timed around its
own turns. In brackets: by its median rate around all turns. The p50 may be twice the Predictor's time for one image,
plus 0.15 ms."""
ALONE = """\
Images per second of a Predictor alone in a process, given the same PNG files, without server and load generator,
around the turns of each server:"""


def print_results(results: Results, peers: Sequence[Peer], cases: Sequence[Case]) -> None:
    """Print every table."""

    def rows(cell: Callable[[Peer, Case, Figures], str], of: Sequence[Peer] = peers) -> list[list[str]]:
        return [[peer.name, *(_cell(results, peer, case, cell) for case in cases)] for peer in of]

    def ratio(_: Peer, case: Case, figures: Figures) -> str:
        reference = results.median(OURS.name, case)
        return f"{reference.rate / figures.rate:.2f}" if reference else ""

    print(f"{TARGETS}\n")
    print(table(["", "wanted", "measured", ""], verdicts(results, peers)))
    header = ["server", *(case.title for case in cases)]
    print("Images per second:\n")
    print(table(header, rows(lambda _, __, figures: f"{figures.rate:,.0f}")))
    others = [peer for peer in peers if peer is not OURS]
    print(f"Throughput of `{OURS.name}` relative to each:\n")
    print(table(header, rows(ratio, others)))
    print("Milliseconds until an answer, p50 / p99:\n")
    print(table(header, rows(lambda _, __, figures: f"{1000 * figures.p50:.1f} / {1000 * figures.p99:.1f}")))
    print("Requests without an answer, in all rounds together, which no other figure counts:\n")
    print(table(header, rows(lambda peer, case, _: f"{results.lost[peer.name, case]:,}")))
    print("Seconds from start to the first answer, and peak memory in MiB, of all processes together:\n")
    medians = [
        (peer.name, *map(statistics.median, (results.ready[peer.name], results.peak[peer.name]))) for peer in peers
    ]
    print(table(["server", "seconds", "MiB"], [[name, f"{ready:.1f}", f"{peak:.0f}"] for name, ready, peak in medians]))

    print(f"{ALONE}\n")
    rates: list[tuple[str, str | None]] = [*((peer.name, peer.name) for peer in peers), ("all of them", None)]
    print(
        table(
            ["server", f"{MANY} at a time", "one at a time"],
            [[name, *(f"{results.alone_rate(images, peer):,.0f}" for images in (MANY, 1))] for name, peer in rates],
        )
    )
    print(f"Share of the Predictor's rate around a server's own turns, {MANY} images at a time:\n")
    print(table(header, rows(lambda peer, case, _: f"{results.share(peer.name, case):.0%}")))
    many = results.alone_rate(MANY)
    print(f"Share of the Predictor's median rate around all turns, {MANY} images at a time:\n")
    print(table(header, rows(lambda _, __, figures: f"{figures.rate / many:.0%}")))
    print("CPU use of the load generator:\n")
    print(table(header, rows(lambda _, __, figures: f"{100 * figures.client:.0f} %")))
    print(f"A server that only answers gives it {results.ceiling:,.0f} answers per second.")


def verdicts(results: Results, peers: Sequence[Peer]) -> list[list[str]]:
    """Return a row for each target: what it is on, what is wanted, what was measured, and whether it is met."""
    others = [peer.name for peer in peers if peer is not OURS]
    rows = []
    for case in SINGLE:
        ours = results.median(OURS.name, case)
        theirs = [(figures, name) for name in others if (figures := results.median(name, case)) is not None]
        if ours is None:
            continue
        on = f"{case.connections} connection{'s' * (case.connections > 1)}"
        if case.connections >= MANY:
            share = results.share(OURS.name, case)
            wanted = f"{SHARE:.0%} of the Predictor, goal {SHARE_GOAL:.0%}"
            found = f"{share:.0%} ({ours.rate / results.alone_rate(MANY):.0%})"
            rows.append([on, wanted, found, _word(share >= SHARE, share >= SHARE_GOAL)])
        if theirs:
            best, name = max(theirs, key=lambda entry: entry[0].rate)
            ratio = ours.rate / best.rate
            rows.append([on, f"{RATIO} times the best peer", f"{ratio:.2f} ({name})", _word(ratio >= RATIO)])
            least, name = min(theirs, key=lambda entry: entry[0].p99)
            found = f"{1000 * ours.p99:.1f} ms against {1000 * least.p99:.1f} ms ({name})"
            rows.append([on, "a lower p99 than any peer", found, _word(ours.p99 < least.p99)])
        if case.connections == 1:
            bound, by_all = (
                LATENCY_FACTOR / results.alone_rate(1, peer) + LATENCY_SECONDS for peer in (OURS.name, None)
            )
            wanted = f"p50 of at most {1000 * bound:.2f} ms ({1000 * by_all:.2f} ms)"
            rows.append([on, wanted, f"{1000 * ours.p50:.2f} ms", _word(ours.p50 <= bound)])
    return rows


def _word(is_met: bool, is_goal_met: bool = False) -> str:
    return "met, and the goal" if is_goal_met else "met" if is_met else "**not met**"


def _cell(results: Results, peer: Peer, case: Case, cell: Callable[[Peer, Case, Figures], str]) -> str:
    figures = results.median(peer.name, case)
    return "" if figures is None else cell(peer, case, figures)
