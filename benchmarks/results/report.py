"""Writes `docs/results.md` from the runs in `results/`: `python -m training.report`."""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.results.published import NOTHING, PUBLISHED, WITH_CONFUSION
from benchmarks.results.runs import Group, Run, add_run, read_groups, studies_of_num_steps
from pdeinfer.backend import import_keras
from pdeinfer.errors import PdeinferError, TrainingError
from pdeinfer.spec.presets import Preset
from training.files import replace_file

EXAMPLES = """examples:
  python -m training.report
  python -m training.report --add runs/mnist-pde runs/mnist-cnn
"""

_INTRODUCTION = """# Results

`python -m training.report` makes this page from the runs in `results/`. Do not edit it.

Each row is one network trained by one recipe. Accuracies are on the test images, as mean ± standard deviation over the
seeds; a single run has no deviation. A recipe with a validation fraction keeps the epoch with the best accuracy on the
images held out for validation, any other recipe keeps the last epoch. Minutes are the median on each device. "Earlier
network" marks runs of a preset whose network has changed since; parameters and multiply-adds (MACs) are those of the
network that was trained.

"Paper" is Kag & Saligrama, CVPR 2022. "Article" is the TensorFlow reproduction that this project began with.
[Notes on the results](lab/results.md) discusses individual runs.
"""
_FIELDS = """## What the PDE layers compute

`pdeinfer inspect` draws these for every PDE layer of the bundled models: diffusivity (Dx, Dy), velocity (u, v), its
gradients (u_x, v_y) and the feature map H after every step, channel by channel. [Fields](fields.md) explains them."""

Costs = Mapping[Preset, tuple[int, int]]  # parameters and MACs


def render(groups: Sequence[Group], costs: Costs, pictures: str, fields: Sequence[str]) -> str:
    """Return the page as Markdown.

    Args:
        pictures: the folder of the pictures, relative to the page.
        fields: the names of the pictures of PDE layers.
    """
    digits, mnist, cifar10 = (
        [group for group in groups if group.dataset == dataset] for dataset in ("digits", "mnist", "cifar10")
    )
    parts = [_INTRODUCTION.rstrip()]
    if mnist:
        parts += ["## MNIST", _table(mnist, costs, with_confusion=True)]
    if any(group.name in WITH_CONFUSION for group in groups):
        parts.append(f"![Confusion matrices]({pictures}/mnist-confusion.png)")
    if cifar10:
        parts += ["## CIFAR-10", _table(cifar10, costs, with_confusion=False)]
        parts.append(f"![Accuracy against cost]({pictures}/cifar10-cost.png)")
    if studies_of_num_steps(groups):
        parts += ["## Time steps", f"![Accuracy against the number of time steps]({pictures}/time-steps.png)"]
    if digits:
        parts += ["## scikit-learn's digits", _table(digits, costs, with_confusion=True)]
    parts += ["## Learning curves", f"![Learning curves]({pictures}/learning-curves.png)"]
    parts += ["## Recipes", _recipes(groups)]
    if fields:
        parts += [_FIELDS, *(f"![Fields of a PDE layer]({pictures}/{name})" for name in fields)]
    return "\n\n".join(parts) + "\n"


def _table(groups: Sequence[Group], costs: Costs, *, with_confusion: bool) -> str:
    header = ["network", "recipe", "parameters", "MACs", "test accuracy (%)", "runs", "minutes", "paper", "article"]
    if with_confusion:
        header += ["3 and 5 confused (%)", "article's"]
    rows = []
    for group in groups:
        published = PUBLISHED.get(group.name, NOTHING)
        parameters, macs = costs[group.preset]
        row = [
            f"`{group.name}`{' (earlier network)' if group.is_earlier else ''}",
            group.recipe_label,
            f"{parameters:,}",
            f"{macs:,}",
            f"**{_mean([run.accuracy for run in group.runs])}**",
            str(len(group.runs)),
            _minutes(group.runs),
            _number(published.paper),
            _number(published.article),
        ]
        if with_confusion:
            row += [_mean([run.confusion_of_3_and_5 for run in group.runs]), _number(published.article_confusion)]
        rows.append(row)
    alignment = ["---", "---", *["---:"] * (len(header) - 2)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, alignment, *rows))


def _recipes(groups: Sequence[Group]) -> str:
    """Return a line per recipe, device and software, with the networks and seeds that they trained."""
    lines: dict[str, list[str]] = {}
    for group in groups:
        recipe = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in group.recipe.items())
        seeds: dict[str, list[int]] = {}
        for run in group.runs:
            text = f"{recipe}; on {run.outcome.device}, {run.outcome.versions['backend']}"
            seeds.setdefault(text, []).append(run.record.seed)
        for text, numbers in seeds.items():
            plural = "s" if len(numbers) > 1 else ""
            networks = f"`{group.name}`{' (earlier network)' if group.is_earlier else ''}"
            lines.setdefault(text, []).append(f"{networks} seed{plural} {', '.join(map(str, numbers))}")
    return "\n".join(f"- {'; '.join(networks)}: {text}" for text, networks in lines.items())


def _minutes(runs: Sequence[Run]) -> str:
    by_device: dict[str, list[float]] = {}
    for run in runs:
        by_device.setdefault(run.outcome.device, []).append(run.minutes)
    return ", ".join(f"{statistics.median(minutes):.0f} ({device})" for device, minutes in sorted(by_device.items()))


def _mean(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.2f}" if len(values) == 1 else f"{mean:.2f} ± {statistics.stdev(values):.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def measure_costs(groups: Sequence[Group]) -> dict[Preset, tuple[int, int]]:
    """Return the parameters and MACs of every network that was trained."""
    import_keras()
    from pdeinfer.nn import Classifier, count_macs, count_parameters

    costs = {}
    for preset in dict.fromkeys(group.preset for group in groups):
        classifier = Classifier(preset)
        costs[preset] = (count_parameters(classifier), count_macs(classifier))
    return costs


def write_report(results: Path, page: Path) -> None:
    """Write the page, and its pictures into the folder of the page's name without its suffix.

    Raises:
        TrainingError: there are no runs, or one is damaged.
    """
    groups = read_groups(results)
    if not groups:
        raise TrainingError(f"{results}: expected runs in {results}/<preset>/<run>; --add RUN adds one")
    costs = measure_costs(groups)
    from benchmarks.results import figures  # imports Matplotlib

    pictures = page.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    figures.plot_mnist_confusion(groups, pictures / "mnist-confusion.png")
    figures.plot_cost(groups, costs, pictures / "cifar10-cost.png")
    figures.plot_time_steps(groups, pictures / "time-steps.png")
    figures.plot_learning_curves(groups, pictures / "learning-curves.png")
    text = render(groups, costs, pictures.name, figures.draw_fields(pictures))
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
