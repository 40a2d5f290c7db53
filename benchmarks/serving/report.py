"""Prints the tables: medians over the rounds."""

import statistics
from collections.abc import Callable, Sequence

from benchmarks.markdown import table
from benchmarks.serving.cases import MANY, Case
from benchmarks.serving.rounds import Figures, Results
from benchmarks.serving.servers import REFERENCE, Peer


def print_results(results: Results, peers: Sequence[Peer], cases: Sequence[Case]) -> None:
    """Print every table."""

    def rows(cell: Callable[[Peer, Case, Figures], str], of: Sequence[Peer] = peers) -> list[list[str]]:
        return [[peer.name, *(_cell(results, peer, case, cell) for case in cases)] for peer in of]

    def ratio(_: Peer, case: Case, figures: Figures) -> str:
        reference = results.median(REFERENCE, case)
        return f"{reference.rate / figures.rate:.2f}" if reference else ""

    header = ["server", *(case.title for case in cases)]
    print("Images per second:\n")
    print(table(header, rows(lambda _, __, figures: f"{figures.rate:,.0f}")))
    others = [peer for peer in peers if peer.name != REFERENCE]
    print(f"Throughput of `{REFERENCE}` relative to each:\n")
    print(table(header, rows(ratio, others)))
    print("Milliseconds until an answer, p50 / p99:\n")
    print(table(header, rows(lambda _, __, figures: f"{1000 * figures.p50:.1f} / {1000 * figures.p99:.1f}")))
    print("Seconds from start to the first answer, and peak memory in MiB, of all processes together:\n")
    medians = [
        (peer.name, *map(statistics.median, (results.ready[peer.name], results.peak[peer.name]))) for peer in peers
    ]
    print(table(["server", "seconds", "MiB"], [[name, f"{ready:.1f}", f"{peak:.0f}"] for name, ready, peak in medians]))

    alone = {images: statistics.median(rates) for images, rates in results.alone.items()}
    print("A Predictor alone in a process, given the same PNG files, without server and load generator:")
    print(f"{alone[MANY]:,.0f} images per second, {MANY} at a time; {alone[1]:,.0f}, one at a time.")
    print("The share of the larger figure that each server reaches:\n")
    print(table(header, rows(lambda _, __, figures: f"{100 * figures.rate / max(alone.values()):.0f} %")))
    print("CPU use of the load generator:\n")
    print(table(header, rows(lambda _, __, figures: f"{100 * figures.client:.0f} %")))
    print(f"A server that only answers gives it {results.ceiling:,.0f} answers per second.")


def _cell(results: Results, peer: Peer, case: Case, cell: Callable[[Peer, Case, Figures], str]) -> str:
    figures = results.median(peer.name, case)
    return "" if figures is None else cell(peer, case, figures)
