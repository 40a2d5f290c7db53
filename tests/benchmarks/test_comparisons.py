"""The results page compares the networks of one recipe: in accuracy, and in accuracy at equal measured time."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from benchmarks.results import figures, report, times
from benchmarks.results.comparisons import Comparison, compare, plain_front
from benchmarks.results.runs import Group, read_groups
from benchmarks.results.series import split_by_recipe
from benchmarks.results.tables import fill_tables
from benchmarks.results.times import Times, read_times
from benchmarks.timing import Timing
from pdeinfer.errors import TrainingError
from pdeinfer.spec.presets import PRESETS
from tests.benchmarks.runs import page, tables_of, write_run

MACHINE = (
    "command   python -m benchmarks.results.times",
    "hardware  Some CPU (AVX2), 4 CPUs, load average 0.1",
    "versions  Python 3.11.7, onnxruntime 1.31.1",
)
TEACHER = {"model": "cifar10-resnet32", "sha256": "0"}


def write(results: Path, preset: str, *accuracies: float, epochs: int = 40, distilled: bool = False) -> None:
    """Write a run of a CIFAR-10 network for each accuracy in percent."""
    recipe: dict[str, Any] = {"dataset": "cifar10", "epochs": epochs}
    changes: dict[str, Any] = {}
    if distilled:
        recipe["distillation_weight"], changes["teacher"] = 0.9, TEACHER
    for seed, accuracy in enumerate(accuracies):
        folder = results / preset / f"{epochs}-{seed}-{distilled}"
        write_run(folder, seed, preset, test_accuracy=accuracy / 100, recipe=recipe, **changes)


def times_of(milliseconds: dict[str, float]) -> Times:
    """Return times per image of networks, half as long in batches of 64."""

    def timing(seconds: float) -> Timing:
        return Timing(seconds, seconds, seconds)

    networks = [
        (PRESETS[name], {1: timing(value / 1000), 64: timing(32 * value / 1000)})
        for name, value in milliseconds.items()
    ]
    return Times(MACHINE, 41, networks)


TIMES = times_of(
    {
        "cifar10-resnet8": 0.2,
        "cifar10-resnet14": 0.4,
        "cifar10-resnet20": 0.6,
        "cifar10-global": 0.3,
        "cifar10-global-no-pde": 0.25,
        "cifar10-global-depthwise7": 0.28,
    }
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Made-up runs by a short recipe, and two by a long one."""
    write(tmp_path, "cifar10-resnet8", 87)
    write(tmp_path, "cifar10-resnet14", 90, 92)
    write(tmp_path, "cifar10-global", 91, 92, 93)
    write(tmp_path, "cifar10-global-no-pde", 90, 91, 92)
    write(tmp_path, "cifar10-global-depthwise7", 91.5)
    write(tmp_path, "cifar10-global-depthwise-sum", 91)
    write(tmp_path, "cifar10-global", 93, epochs=150)
    write(tmp_path, "cifar10-global", 94, epochs=150, distilled=True)
    return tmp_path


def short(groups: list[Group]) -> tuple[Group, ...]:
    (series,) = (series for series in split_by_recipe(groups) if series.title == "40 epochs")
    return series.groups


def test_a_network_is_compared_with_those_trained_alike(results: Path) -> None:
    (found,) = compare(short(read_groups(results)), TIMES)

    assert found.group.name == "cifar10-global"
    assert found.without_pde is not None
    assert found.best_control is not None
    assert (found.without_pde.other.name, found.without_pde.points) == ("cifar10-global-no-pde", pytest.approx(1))
    assert found.without_pde.error == pytest.approx(math.sqrt(2 / 3))  # two deviations of 1 over three seeds each
    assert found.best_control.other.name == "cifar10-global-depthwise7"
    assert found.best_control.points == pytest.approx(0.5)
    assert found.best_control.error is None  # a single seed
    # 0.3 ms are log2(1.5) of the way from 0.2 to 0.4 ms, where the line rises by 4 points.
    assert found.plain == {size: pytest.approx(92 - (87 + 4 * math.log2(1.5))) for size in (1, 64)}


def test_a_distilled_network_is_not_compared_with_networks_that_are_not(results: Path) -> None:
    write(results, "cifar10-global-no-pde", 89, epochs=150)
    (long,) = (series for series in split_by_recipe(read_groups(results)) if series.title == "150 epochs")

    found = compare(long.groups, TIMES)

    assert [(one.group.teacher, one.without_pde and one.without_pde.points) for one in found] == [
        (None, pytest.approx(4))
    ]


def test_a_network_is_not_compared_with_one_that_has_another_teacher_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path, "cifar10-global", 94, distilled=True)
    write(tmp_path, "cifar10-global-no-pde", 93, distilled=True)
    (found,) = compare(read_groups(tmp_path), TIMES)
    assert found.without_pde is not None

    for path in tmp_path.glob("cifar10-global-no-pde/*/metrics.json"):
        metrics = json.loads(path.read_text())
        path.write_text(json.dumps(metrics | {"teacher": {**TEACHER, "sha256": "1"}}))
    assert compare(read_groups(tmp_path), TIMES) == []


def test_nothing_is_said_of_networks_that_are_missing(tmp_path: Path) -> None:
    write(tmp_path, "cifar10-global", 92)
    write(tmp_path, "cifar10-resnet8", 87)
    assert compare(read_groups(tmp_path), TIMES) == []

    write(tmp_path, "cifar10-resnet14", 91)
    assert compare(read_groups(tmp_path), Times()) == []
    (found,) = compare(read_groups(tmp_path), TIMES)
    assert found == Comparison(found.group, None, None, found.plain)
    slow = times_of({"cifar10-resnet8": 0.2, "cifar10-resnet14": 0.4, "cifar10-global": 0.5})
    assert compare(read_groups(tmp_path), slow) == []  # outside the line


def test_the_front_leaves_out_a_plain_network_that_a_faster_one_beats(tmp_path: Path) -> None:
    for name, accuracy in {"resnet8": 88.0, "resnet14": 87.0, "resnet20": 91.0, "global": 92.0}.items():
        write(tmp_path, f"cifar10-{name}", accuracy)

    front = plain_front(read_groups(tmp_path), TIMES, 1)

    assert front == [(0.0002, pytest.approx(88)), (0.0006, pytest.approx(91))]


def test_the_page_shows_times_and_comparisons_by_recipe(results: Path) -> None:
    text = page(read_groups(results), times=TIMES)

    tables = tables_of(text)
    assert list(tables) == ["40 epochs", "150 epochs"]
    rows = {row[0]: row for row in tables["40 epochs"]}
    assert rows["`cifar10-global`"][4:8] == ["0.300", "0.150", "**92.00 ± 1.00**", "3"]
    assert rows["`cifar10-global-depthwise-sum`"][4:8] == ["", "", "**91.00**", "1"]  # not timed
    assert [row[1] for row in tables["150 epochs"]] == ["-", "cifar10-resnet32"]
    assert "| +1.00 ± 0.82 (`cifar10-global-no-pde`) | +0.50 (`cifar10-global-depthwise7`) | +2.66 | +2.66 |" in text
    assert "float32 on one thread of Some CPU (AVX2), 4 CPUs, ONNX Runtime 1.31.1" in text
    assert MACHINE[1] in text
    assert "](pictures/cifar10-times-40-epochs.png)" in text
    assert "cifar10-times-150-epochs" not in text  # all of its networks have PDE layers


def test_without_times_the_page_has_no_columns_and_no_picture_of_them(results: Path) -> None:
    text = page(read_groups(results))

    assert "ms per image" not in text
    assert "cifar10-times" not in text
    assert "`cifar10-global-no-pde`)" in text


def drawn(results: Path, monkeypatch: pytest.MonkeyPatch, title: str, found: Times = TIMES) -> Figure:
    """Return the picture of accuracy against time."""
    saved: list[Figure] = []
    monkeypatch.setattr(figures, "_save", lambda figure, _: saved.append(figure))
    (series,) = (series for series in split_by_recipe(read_groups(results)) if series.title == title)
    figures.plot_times(series, found, Path("picture.png"))
    return saved[0]


def test_the_picture_has_every_timed_network_at_its_time_and_accuracy(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawn(results, monkeypatch, "40 epochs")

    assert "Some CPU (AVX2)" in figure.get_suptitle()
    for axes, scale in zip(figure.axes, (1, 0.5), strict=True):
        assert axes.get_xscale() == "log"
        points = {
            tuple(float(value) for value in container.lines[0].get_xydata()[0])
            for container in axes.containers
            if isinstance(container, ErrorbarContainer)
        }
        expected = {(0.2, 87), (0.4, 91), (0.3, 92), (0.25, 91), (0.28, 91.5)}  # depthwise-sum was not timed
        assert sorted(points) == [pytest.approx((scale * x, y)) for x, y in sorted(expected)]
        assert {text.get_text() for text in axes.texts} == {
            *("resnet8", "resnet14", "global", "global-no-pde", "global-depthwise7")
        }
        (front,) = (line.get_xydata().tolist() for line in axes.lines if len(line.get_xydata()) > 1)
        assert front == [pytest.approx((0.2 * scale, 87)), pytest.approx((0.4 * scale, 91))]


def test_a_distilled_network_is_hollow_in_the_picture(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn(results, monkeypatch, "150 epochs")

    faces = [container.lines[0].get_markerfacecolor() for container in figure.axes[0].containers]
    assert faces == ["#0072B2", "white"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "with PDE layers",
        "with PDE layers, distilled",
    ]


def test_labels_are_inside_the_plot_and_do_not_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in PRESETS if name.startswith("cifar10-")]
    for index, name in enumerate(names):
        write(tmp_path, name, 88 + index % 5)

    figure = drawn(tmp_path, monkeypatch, "40 epochs", times_of({name: 0.3 + len(name) / 1000 for name in names}))

    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [Text.get_window_extent(text) for text in axes.texts]
        assert len(boxes) == len(names)
        assert all(axes.bbox.fully_containsx(box.x0) and axes.bbox.fully_containsx(box.x1) for box in boxes)
        assert all(axes.bbox.fully_containsy(box.y0) and axes.bbox.fully_containsy(box.y1) for box in boxes)
        assert [box.count_overlaps(boxes) for box in boxes] == [1] * len(boxes)  # with itself


def test_times_are_kept_for_the_network_that_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks" / "times.json"
    path.parent.mkdir()
    path.write_text(json.dumps(TIMES.to_dict()))

    found = read_times(tmp_path)

    assert found.of(PRESETS["cifar10-global"]) == TIMES.of(PRESETS["cifar10-global"])
    assert found.of(PRESETS["cifar10-global-k5"]) is None
    assert found.summary == TIMES.summary
    assert read_times(tmp_path / "empty") == Times()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"machine": [], "rounds": 1, "networks": [{}]}'])
def test_damaged_times_are_one_line(results: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (results / "benchmarks").mkdir()
    (results / "benchmarks" / "times.json").write_text(text)

    assert report.main(["--results", str(results), "--page", str(results / "page.md")]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert "times.json" in line


def test_every_network_is_timed_at_every_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "cifar10-global", 92)
    monkeypatch.setattr(times, "networks_of", lambda _: [PRESETS["cifar10-global"], PRESETS["cifar10-resnet8"]])

    assert times.main(["--results", str(tmp_path), "--rounds", "2"]) == 0

    found = read_times(tmp_path)
    for preset in (PRESETS["cifar10-global"], PRESETS["cifar10-resnet8"]):
        by_size = found.of(preset)
        assert by_size is not None
        assert 0 < by_size[1].median < by_size[64].median


def test_networks_whose_preset_has_changed_since_are_timed_as_they_were_trained(tmp_path: Path) -> None:
    earlier = PRESETS["cifar10-global"].to_dict()
    earlier["network"] |= {"strided_padding": "same"}
    recipe = {"dataset": "cifar10", "epochs": 40}
    write_run(tmp_path / "cifar10-global" / "earlier", 0, "cifar10-global", classifier=earlier, recipe=recipe)
    write(tmp_path, "cifar10-global", 92)
    write_run(tmp_path / "mnist-cnn" / "a", 0)

    found = times.networks_of(tmp_path)

    names = [preset.name for preset in found]
    assert names == [*(name for name in PRESETS if name.startswith("cifar10-")), "cifar10-global"]
    assert found[-1].to_dict() == earlier


def test_a_document_is_filled_with_the_tables_that_it_names(results: Path) -> None:
    groups = read_groups(results)
    costs = dict.fromkeys((group.preset for group in groups), (161_402, 15_008_384))
    before = "first\n<!-- results: 150 epochs -->\nold\n<!-- end of results -->\nlast\n"

    text = fill_tables(before, groups, costs, TIMES)

    assert text.startswith("first\n<!-- results: 150 epochs -->\n| CIFAR-10, 150 epochs |")
    assert "| `cifar10-global` | 161,402 | 15.0 M | 93.00 | 1 | 0.300 | 0.150 |" in text
    assert "| `cifar10-global`, distilled from cifar10-resnet32 | 161,402 | 15.0 M | 94.00 | 1 |" in text
    assert "old" not in text
    assert text.endswith("<!-- end of results -->\nlast\n")
    assert fill_tables(text, groups, costs, TIMES) == text


def test_a_table_that_does_not_exist_is_an_error_that_names_those_that_do(results: Path) -> None:
    with pytest.raises(TrainingError, match="40 epochs, 150 epochs"):
        fill_tables("<!-- results: 7 epochs -->\n<!-- end of results -->", read_groups(results), {}, TIMES)
