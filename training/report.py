"""The results page: `python -m training.report` makes `docs/results.md` from the runs in `results/`."""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from pdeinfer.backend import import_keras
from pdeinfer.errors import PdeinferError, TrainingError
from pdeinfer.spec.presets import PRESETS
from training.files import replace_file
from training.published import NOTHING, PUBLISHED, WITH_CONFUSION
from training.results import Run, add_run, by_num_steps, by_recipe, read_runs

EXAMPLES = """examples:
  python -m training.report
  python -m training.report --add runs/mnist-pde runs/mnist-cnn
"""


_FIELDS = [
    "`pdeinfer inspect` draws these for every PDE layer of the bundled models: diffusivity (Dx, Dy), velocity (u, v),",
    "its gradients (u_x, v_y) and the feature map H after every step, channel by channel. [Fields](fields.md) explains",
    "them.",
]


def render(runs: dict[str, list[Run]], costs: dict[str, tuple[int, int]], pictures: str, fields: Sequence[str]) -> str:
    """Return the page.

    Args:
        runs: by preset.
        costs: parameters and MACs by preset.
        pictures: folder of the pictures, relative to the page.
        fields: file names of the pictures of PDE layers.
    """
    digits, mnist, cifar10 = (
        {preset: group for preset, group in runs.items() if preset.startswith(f"{data}-")}
        for data in ("digits", "mnist", "cifar10")
    )
    lines = [
        "# Results",
        "",
        "`python -m training.report` writes this page from the runs in `results/`. Accuracies are measured on the",
        "test images, at the epoch that did best on held-out training images. Each row is one network with one",
        "recipe. A spread is the standard deviation over seeds. Minutes are medians per device. The paper is Kag &",
        "Saligrama, CVPR 2022; the article is the TensorFlow reproduction that this project began with. [Notes on the",
        "results](lab/results.md) discusses the figures.",
        "",
    ]
    if mnist:
        lines += ["## MNIST", "", *_table(mnist, costs, with_confusion=True), ""]
    if not mnist.keys().isdisjoint(WITH_CONFUSION):
        lines += [f"![Confusion matrices]({pictures}/mnist-confusion.png)", ""]
    if cifar10:
        lines += ["## CIFAR-10", "", *_table(cifar10, costs, with_confusion=False), ""]
        lines += [f"![Accuracy against cost]({pictures}/cifar10-cost.png)", ""]
    if by_num_steps(runs):
        lines += ["## Time steps", "", f"![Accuracy against the number of time steps]({pictures}/time-steps.png)", ""]
    if digits:
        lines += ["## scikit-learn's digits", "", *_table(digits, costs, with_confusion=True), ""]
    lines += [f"![Learning curves]({pictures}/learning-curves.png)", "", "## How they were trained", ""]
    lines += _recipes(runs)
    if fields:
        lines += ["", "## What the PDE layers compute", "", *_FIELDS]
        lines += [line for name in fields for line in ("", f"![Fields of a PDE layer]({pictures}/{name})")]
    return "\n".join(lines) + "\n"


def _table(runs: dict[str, list[Run]], costs: dict[str, tuple[int, int]], *, with_confusion: bool) -> list[str]:
    header = [
        "network",
        "parameters",
        "MACs",
        "test accuracy (%)",
        "runs",
        "epochs",
        "minutes a run",
        "paper",
        "article",
    ]
    if with_confusion:
        header += ["3 and 5 confused (%)", "the article's"]
    rows = []
    for preset, group in by_recipe(runs):
        published = PUBLISHED.get(preset, NOTHING)
        parameters, macs = costs[preset]
        row = [
            f"`{preset}`",
            f"{parameters:,}",
            f"{macs:,}",
            f"**{_mean([run.accuracy for run in group])}**",
            str(len(group)),
            str(group[0].epochs),
            _minutes(group),
            _number(published.paper),
            _number(published.article),
        ]
        if with_confusion:
            row += [_mean([run.confusion_of_3_and_5 for run in group]), _number(published.article_confusion)]
        rows.append(row)
    alignment = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, alignment, *rows)]


def _recipes(runs: dict[str, list[Run]]) -> list[str]:
    """Return a line for each recipe in use, with the networks that were trained by it."""
    presets_by_recipe: dict[str, list[str]] = {}
    for preset, group in runs.items():
        for run in group:
            recipe = {name: value for name, value in run.metrics["recipe"].items() if value not in (None, 0, False)}
            device = run.metrics["device"]
            text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in recipe.items())
            presets = presets_by_recipe.setdefault(f"{text}; on {device}, {run.metrics['versions']['backend']}", [])
            if preset not in presets:
                presets.append(preset)
    return [
        f"- {', '.join(f'`{preset}`' for preset in presets)}: {text}" for text, presets in presets_by_recipe.items()
    ]


def _minutes(runs: Sequence[Run]) -> str:
    by_device: dict[str, list[float]] = {}
    for run in runs:
        by_device.setdefault(run.metrics["device"], []).append(run.minutes)
    return ", ".join(f"{statistics.median(minutes):.0f} ({device})" for device, minutes in sorted(by_device.items()))


def _mean(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.2f}" if len(values) == 1 else f"{mean:.2f} ± {statistics.stdev(values):.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def write_report(results: Path, page: Path) -> None:
    """Write the page, and its pictures into the folder `page` without its suffix.

    Raises:
        TrainingError: there are no runs, or one is damaged.
    """
    runs = read_runs(results)
    if not runs:
        raise TrainingError(f"{results}: expected runs in {results}/<preset>/seed-<n>; --add RUN adds one")
    import_keras()
    from pdeinfer.nn import Classifier, count_macs, count_parameters
    from training import figures

    costs = {}
    for preset in runs:
        classifier = Classifier(PRESETS[preset])
        costs[preset] = (count_parameters(classifier), count_macs(classifier))
    pictures = page.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    figures.plot_mnist_confusion(runs, pictures / "mnist-confusion.png")
    figures.plot_cost(runs, costs, pictures / "cifar10-cost.png")
    figures.plot_time_steps(runs, pictures / "time-steps.png")
    figures.plot_learning_curves(runs, pictures / "learning-curves.png")
    fields = figures.draw_fields(pictures)
    text = render(runs, costs, pictures.name, fields)
    replace_file(page, lambda path: path.write_text(text))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 2 for a wrong argument or run."""
    parser = argparse.ArgumentParser(
        prog="python -m training.report",
        description="Write the results page and its pictures from the runs in a folder.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="(default: %(default)s)")
    parser.add_argument(
        "--page", type=Path, default=Path("docs/results.md"), metavar="FILE", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--add", type=Path, nargs="+", default=[], metavar="RUN", help="finished trainings to add first"
    )
    arguments = parser.parse_args(argv)
    try:
        for folder in arguments.add:
            print(f"added {add_run(folder, arguments.results)}")
        write_report(arguments.results, arguments.page)
    except (PdeinferError, OSError) as error:
        print(f"report: error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {arguments.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
