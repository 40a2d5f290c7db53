"""Writes `docs/results.md` from the runs in `results/`: `python -m training.report`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results.comparisons import compare
from benchmarks.results.published import WITH_CONFUSION
from benchmarks.results.runs import Group, add_run, read_groups, studies_of_num_steps
from benchmarks.results.series import DATASETS, Series, split_by_recipe
from benchmarks.results.tables import Costs, comparison_table, fill_tables, results_table
from benchmarks.results.times import Times, read_times
from pdeinfer.backend import import_keras
from pdeinfer.errors import PdeinferError, TrainingError
from pdeinfer.files import replace_file
from pdeinfer.spec.presets import Preset

EXAMPLES = """examples:
  python -m training.report
  python -m training.report --add runs/mnist-pde runs/mnist-cnn
"""

_INTRODUCTION = """# Results

`python -m training.report` makes this page from the runs and times in `results/`. Do not edit it.

Each table has the networks that were trained by one recipe, with a teacher or without. Accuracies are on the test
images, as mean ± standard deviation over the seeds; a single run has no deviation, and 10,000 test images alone give it
a standard error of 0.2 to 0.3 points. A recipe with a validation fraction keeps the epoch with the best accuracy on the
images held out for validation; any other recipe keeps the last epoch. Minutes are the median training time on each
device. "Earlier network" marks runs of a preset whose network has changed since; parameters, multiply-adds (MACs) and
times are those of the network that was trained.

"Paper" is Kag & Saligrama, CVPR 2022. "Article" is the TensorFlow reproduction that this project began with; its
ResNet32 and `cifar10-global` are the best of three runs. [Notes on the results](lab/results.md) discusses individual
runs.
"""
_COMPARISONS = """Gains in test accuracy, in points, over the same network without PDE layers, over the best control
(other layers in their place), and over plain ResNets of the same speed. The last is read off their line in the picture;
± is the standard error over seeds:"""
_FIELDS = """## What the PDE layers compute

`pdeinfer inspect` draws these for every PDE layer of the bundled models: diffusivity (Dx, Dy), velocity (u, v), its
gradients (u_x, v_y) and the feature map H after every step, channel by channel. [Fields](fields.md) explains them."""


def render(groups: Sequence[Group], costs: Costs, times: Times, pictures: str, fields: Sequence[str]) -> str:
    """Return the page as Markdown.

    Args:
        pictures: the folder of the pictures, relative to the page.
        fields: the names of the pictures of PDE layers.
    """
    parts = [_INTRODUCTION.rstrip()]
    for dataset, title in DATASETS.items():
        chosen = [group for group in groups if group.dataset == dataset]
        if chosen:
            parts.append(f"## {title}")
        if dataset == "cifar10" and times.summary:
            parts += [f"Times: {times.summary}.", "\n".join(["```text", *times.machine, "```"])]
        for series in split_by_recipe(chosen):
            parts += [f"### {series.title}", results_table(series.groups, costs, times)]
            if comparisons := compare(series.groups, times):
                parts += [_COMPARISONS, comparison_table(comparisons)]
            if is_drawn(series, times):
                parts.append(f"![Accuracy against measured time]({pictures}/{picture_of(series)})")
        if any(group.name in WITH_CONFUSION for group in chosen):
            parts.append(f"![Confusion matrices]({pictures}/mnist-confusion.png)")
    if studies_of_num_steps(groups):
        parts += ["## Time steps", f"![Accuracy against the number of time steps]({pictures}/time-steps.png)"]
    parts += ["## Learning curves", f"![Learning curves]({pictures}/learning-curves.png)"]
    parts += ["## Recipes", _recipes(groups)]
    if fields:
        parts += [_FIELDS, *(f"![Fields of a PDE layer]({pictures}/{name})" for name in fields)]
    return "\n\n".join(parts) + "\n"


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


def measure_costs(groups: Sequence[Group]) -> dict[Preset, tuple[int, int]]:
    """Return the parameters and MACs of every network that was trained."""
    import_keras()
    from pdeinfer.nn import Classifier, count_macs, count_parameters

    costs = {}
    for preset in dict.fromkeys(group.preset for group in groups):
        classifier = Classifier(preset)
        costs[preset] = (count_parameters(classifier), count_macs(classifier))
    return costs


def write_report(results: Path, page: Path, readme: Path) -> None:
    """Write the page, its pictures into the folder of the page's name without its suffix, and the README's tables.

    Raises:
        TrainingError: there are no runs, one is damaged, or the README asks for a table that does not exist.
    """
    groups = read_groups(results)
    if not groups:
        raise TrainingError(f"{results}: expected runs in {results}/<preset>/<run>; --add RUN adds one")
    times = read_times(results)
    costs = measure_costs(groups)
    with_tables = fill_tables(readme.read_text(encoding="utf-8"), groups, costs, times)
    from benchmarks.results import figures  # imports Matplotlib

    pictures = page.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    figures.plot_mnist_confusion(groups, pictures / "mnist-confusion.png")
    for series in split_by_recipe([group for group in groups if group.dataset == "cifar10"]):
        if is_drawn(series, times):
            figures.plot_times(series, times, pictures / picture_of(series))
    figures.plot_time_steps(groups, pictures / "time-steps.png")
    figures.plot_learning_curves(groups, pictures / "learning-curves.png")
    text = render(groups, costs, times, pictures.name, figures.draw_fields(pictures))
    replace_file(page, lambda path: path.write_text(text, encoding="utf-8"))
    replace_file(readme, lambda path: path.write_text(with_tables, encoding="utf-8"))


def is_drawn(series: Series, times: Times) -> bool:
    """Return whether there is a picture of accuracy against time: networks with and without PDE layers were timed."""
    timed = [group for group in series.groups if times.of(group.preset)]
    return len({group.preset.pde is None for group in timed}) == 2


def picture_of(series: Series) -> str:
    """Return the name of the picture of accuracy against time."""
    return f"cifar10-times-{series.slug}.png"


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
        "--readme",
        type=Path,
        default=Path("README.md"),
        metavar="FILE",
        help="its tables are filled in: they stand between <!-- results: RECIPE --> and <!-- end of results --> "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--add", type=Path, nargs="+", default=[], metavar="RUN", help="finished trainings to add first"
    )
    arguments = parser.parse_args(argv)
    try:
        for folder in arguments.add:
            print(f"added {add_run(folder, arguments.results)}")
        write_report(arguments.results, arguments.page, arguments.readme)
    except (PdeinferError, OSError) as error:
        print(f"report: error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {arguments.page} and the tables of {arguments.readme}")
    return 0
