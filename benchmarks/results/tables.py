"""Formats the tables of results: those of the results page, and those of the README."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.results.comparisons import Comparison, Difference
from benchmarks.results.published import NOTHING, PUBLISHED
from benchmarks.results.runs import Group, Run
from benchmarks.results.series import split_by_recipe
from benchmarks.results.times import BATCH_SIZES, Times
from pdeinfer.errors import TrainingError
from pdeinfer.spec.presets import Preset

Costs = Mapping[Preset, tuple[int, int]]  # parameters and MACs

_TABLE = re.compile(r"(<!-- results: (.+?) -->\n).*?(<!-- end of results -->)", re.DOTALL)


def results_table(groups: Sequence[Group], costs: Costs, times: Times) -> str:
    """Return the table of networks that were trained by one recipe; times only where one of them was timed."""
    with_confusion = groups[0].dataset != "cifar10"  # "3" and "5" are classes
    with_times = any(times.of(group.preset) for group in groups)
    header = ["network", "distilled from", "parameters", "MACs"]
    if with_times:
        header += [f"ms per image, batch {size}" for size in BATCH_SIZES]
    header += ["test accuracy (%)", "seeds", "minutes", "paper", "article"]
    if with_confusion:
        header += ["3 and 5 confused (%)", "3 and 5 confused, article (%)"]
    rows = []
    for group in groups:
        published = PUBLISHED.get(group.name, NOTHING)
        parameters, macs = costs[group.preset]
        row = [_network(group), group.teacher or "-", f"{parameters:,}", f"{macs:,}"]
        if with_times:
            row += _times(group, times)
        row += [
            f"**{_mean([run.accuracy for run in group.runs])}**",
            str(len(group.runs)),
            _minutes(group.runs),
            _number(published.paper),
            _number(published.article),
        ]
        if with_confusion:
            row += [_mean([run.confusion_of_3_and_5 for run in group.runs]), _number(published.article_confusion)]
        rows.append(row)
    return _table(header, rows, left=2)


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Return a table with a row per network that has PDE layers."""
    header = ["network", "distilled from", "without PDE layers", "best control"]
    header += [f"plain ResNets, batch {size}" for size in BATCH_SIZES]
    rows = [
        [
            _network(one.group),
            one.group.teacher or "-",
            _difference(one.without_pde),
            _difference(one.best_control),
            *(f"{one.plain[size]:+.2f}" if size in one.plain else "" for size in BATCH_SIZES),
        ]
        for one in comparisons
    ]
    return _table(header, rows, left=2)


def fill_tables(text: str, groups: Sequence[Group], costs: Costs, times: Times) -> str:
    """Write the tables of CIFAR-10 networks into a document, each between the comments that name its recipe.

    The first says how the times were measured.

    Raises:
        TrainingError: no network was trained by a recipe of this name.
    """
    series = {one.title: one for one in split_by_recipe([group for group in groups if group.dataset == "cifar10"])}
    first = text.find("<!-- results: ")

    def table(match: re.Match[str]) -> str:
        start, title, end = match.groups()
        if title not in series:
            raise TrainingError(f"expected a table of CIFAR-10 results, one of {', '.join(series)}; got {title!r}")
        with_summary = match.start() == first
        return f"{start}{_short_table(series[title].groups, title, costs, times, with_summary=with_summary)}\n{end}"

    return _TABLE.sub(table, text)


def _short_table(groups: Sequence[Group], title: str, costs: Costs, times: Times, *, with_summary: bool) -> str:
    header = [f"CIFAR-10, {title}", "parameters", "multiply-adds", "test accuracy (%)", "seeds"]
    header += [f"ms per image, batch {size}" for size in BATCH_SIZES]
    rows = []
    for group in groups:
        parameters, macs = costs[group.preset]
        name = _network(group) + (f", distilled from {group.teacher}" if group.teacher else "")
        accuracy = _mean([run.accuracy for run in group.runs])
        cost = [f"{parameters:,}", f"{macs / 1e6:.1f} M"]
        rows.append([name, *cost, accuracy, str(len(group.runs)), *_times(group, times)])
    notes = []
    if any(len(group.runs) > 1 for group in groups):
        notes.append("Accuracy: mean ± standard deviation over seeds.")
    if any(group.is_earlier for group in groups):
        notes.append("Earlier network: the preset has changed since.")
    if times.summary and with_summary:
        notes.append(f"Times: {times.summary}.")
    return "\n\n".join(filter(None, [_table(header, rows, left=1), "\n".join(notes)]))


def _network(group: Group) -> str:
    return f"`{group.name}`{' (earlier network)' if group.is_earlier else ''}"


def _times(group: Group, times: Times) -> list[str]:
    by_size = times.of(group.preset)
    return [f"{1000 * by_size[size].median / size:.3f}" if by_size else "" for size in BATCH_SIZES]


def _minutes(runs: Sequence[Run]) -> str:
    by_device: dict[str, list[float]] = {}
    for run in runs:
        by_device.setdefault(run.outcome.device, []).append(run.minutes)
    return ", ".join(f"{statistics.median(minutes):.0f} ({device})" for device, minutes in sorted(by_device.items()))


def _mean(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.2f}" if len(values) == 1 else f"{mean:.2f} ± {statistics.stdev(values):.2f}"


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return ""
    error = "" if difference.error is None else f" ± {difference.error:.2f}"
    return f"{difference.points:+.2f}{error} (`{difference.other.name}`)"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """Return a Markdown table whose first columns, `left` of them, are aligned left."""
    alignment = [*["---"] * left, *["---:"] * (len(header) - left)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, alignment, *rows))
