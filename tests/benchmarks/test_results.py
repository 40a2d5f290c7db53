"""The results page is what its command makes of the runs in `results/`."""

import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure

from benchmarks.results import figures, report
from benchmarks.results.runs import add_run, read_groups, studies_of_num_steps
from benchmarks.results.series import split_by_recipe
from pdeinfer.spec.presets import PRESETS
from tests.benchmarks.runs import page, recipe, rows, tables_of, write_epochs, write_run
from training.history import COLUMNS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"


@pytest.mark.slow
def test_the_committed_page_is_what_the_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shutil.copy(README, tmp_path)
    assert report.main(["--page", str(tmp_path / "results.md"), "--readme", str(tmp_path / "README.md")]) == 0
    assert (tmp_path / "results.md").read_text() == PAGE.read_text()
    assert (tmp_path / "README.md").read_text() == README.read_text()
    pictures = {path.name for path in (tmp_path / "results").iterdir()}
    assert pictures == {path.name for path in (ROOT / "docs" / "results").iterdir()}
    for name in pictures:
        assert f"(results/{name})" in PAGE.read_text()
        written, committed = (
            np.asarray(PIL.Image.open(folder / "results" / name).convert("RGB"), int)
            for folder in (tmp_path, PAGE.parent)
        )
        assert written.shape == committed.shape
        # A digit of a title is some 100 pixels of a million; other processors round fields differently.
        assert np.mean(np.abs(written - committed).max(axis=-1) > 48) < 2e-5


def test_every_committed_run_agrees_with_its_history_and_confusion_matrix() -> None:
    groups = read_groups(ROOT / "results")
    assert groups
    for run in (run for group in groups for run in group.runs):
        outcome = run.outcome
        right = sum(row[index] for index, row in enumerate(run.confusion))
        assert outcome.test_accuracy == pytest.approx(right / outcome.test_images)
        assert outcome.test_images == sum(map(sum, run.confusion))
        if outcome.validation_accuracy is None:
            assert outcome.best_epoch == len(run.history)
        else:
            assert outcome.validation_accuracy == max(row["val_accuracy"] for row in run.history)
        assert len(run.history) == run.record.recipe["epochs"]
        assert outcome.seconds == pytest.approx(sum(row["seconds"] for row in run.history), abs=0.1)


def test_a_row_has_mean_and_standard_deviation_over_seeds(tmp_path: Path) -> None:
    accuracies = [0.91, 0.92, 0.96]
    for seed, accuracy in enumerate(accuracies):
        write_run(tmp_path / "runs" / str(seed), seed=seed, test_accuracy=accuracy)
        add_run(tmp_path / "runs" / str(seed), tmp_path / "results")
    (row,) = rows(read_groups(tmp_path / "results"))
    mean, spread = statistics.fmean(accuracies) * 100, statistics.stdev(accuracies) * 100
    assert row[:4] == ["`mnist-cnn`", "-", "522", "14,602"]
    assert row[4:] == [f"**{mean:.2f} ± {spread:.2f}**", "3", "2 (cpu)", "92.01", "91.50", "15.00 ± 0.00", "2.53"]


def test_minutes_are_told_for_each_device(tmp_path: Path) -> None:
    for seed, (device, seconds) in enumerate([("gpu:0", 240.0), ("cpu", 600.0), ("gpu:0", 480.0), ("gpu:0", 360.0)]):
        write_run(tmp_path / "mnist-cnn" / str(seed), seed=seed, device=device, seconds=seconds)
    (row,) = rows(read_groups(tmp_path))
    assert row[6] == "10 (cpu), 6 (gpu:0)"


def test_runs_of_two_recipes_share_neither_a_mean_nor_a_table(tmp_path: Path) -> None:
    for number, (accuracy, epochs, seed) in enumerate([(0.91, 40, 1), (0.92, 40, 2), (0.96, 150, 1)]):
        write_run(tmp_path / "runs" / str(number), seed=seed, test_accuracy=accuracy, recipe=recipe(epochs))
        add_run(tmp_path / "runs" / str(number), tmp_path / "results")
    names = {folder.name for folder in (tmp_path / "results" / "mnist-cnn").iterdir()}
    assert names == {"40-epochs-seed-1", "40-epochs-seed-2", "150-epochs-seed-1"}
    tables = tables_of(page(read_groups(tmp_path / "results")))
    assert {title: [(row[4], row[5]) for row in rows] for title, rows in tables.items()} == {
        "40 epochs": [("**91.50 ± 0.71**", "2")],
        "150 epochs": [("**96.00**", "1")],
    }


def test_a_distilled_run_has_a_row_of_its_own_that_names_its_teacher(tmp_path: Path) -> None:
    options = recipe(7) | {"mixup": 0.2, "distillation_weight": 0.9, "temperature": 4.0}
    write_run(tmp_path / "runs" / "plain", seed=0, recipe=recipe(7) | {"mixup": 0.2})
    for teacher in ("a", "b"):
        write_run(tmp_path / "runs" / teacher, seed=0, recipe=options, teacher={"model": teacher, "sha256": "0"})
    names = [add_run(folder, tmp_path / "results").name for folder in sorted((tmp_path / "runs").iterdir())]
    assert names[0] == "7-epochs-mixup-0.2-distilled-from-a-seed-0"
    ((title, rows),) = tables_of(page(read_groups(tmp_path / "results"))).items()
    assert title == "7 epochs, mixup 0.2"
    assert [row[1] for row in rows] == ["-", "a", "b"]


def test_titles_name_the_values_in_which_recipes_of_equal_length_differ(tmp_path: Path) -> None:
    for name, changes in {"a": {"learning_rate": 0.1}, "b": {"learning_rate": 0.2, "flip": True}}.items():
        write_run(tmp_path / "mnist-cnn" / name, seed=0, recipe=recipe(7) | changes)
    assert [series.title for series in split_by_recipe(read_groups(tmp_path))] == [
        "7 epochs, flip True, learning rate 0.2",
        "7 epochs, flip none, learning rate 0.1",
    ]


def test_values_that_change_nothing_do_not_split_a_row(tmp_path: Path) -> None:
    older = recipe(7) | {"starts": 1}
    newer = recipe(7) | {"initializations": 1, "mixup": 0.0, "distillation_weight": 0.0, "temperature": 4.0}
    write_run(tmp_path / "mnist-cnn" / "a", seed=0, recipe=older)
    write_run(tmp_path / "mnist-cnn" / "b", seed=1, recipe=newer)
    (group,) = read_groups(tmp_path)
    assert len(group.runs) == 2


def test_a_run_with_a_name_of_its_own_counts_for_its_preset(tmp_path: Path) -> None:
    named = PRESETS["mnist-cnn"].to_dict() | {"name": "mine"}
    write_run(tmp_path / "mnist-cnn" / "a", seed=0)
    write_run(tmp_path / "mnist-cnn" / "b", seed=1, classifier=named)
    (group,) = read_groups(tmp_path)
    assert len(group.runs) == 2
    assert not group.is_earlier


def test_runs_with_other_weights_of_a_teacher_share_no_row(tmp_path: Path) -> None:
    for checksum in ("a", "b"):
        teacher = {"model": "mnist-residual", "sha256": checksum}
        write_run(tmp_path / "mnist-cnn" / checksum, seed=0, teacher=teacher)
    assert len(read_groups(tmp_path)) == 2


def test_runs_of_an_earlier_network_are_marked_and_have_its_costs(tmp_path: Path) -> None:
    earlier = PRESETS["mnist-cnn"].to_dict()
    earlier["network"] |= {"pool_size": 7}
    write_run(tmp_path / "mnist-cnn" / "earlier", seed=0, classifier=earlier)
    write_run(tmp_path / "mnist-cnn" / "today", seed=0)
    groups = read_groups(tmp_path)
    costs = {group.preset: ((200, 300) if group.is_earlier else (522, 14_602)) for group in groups}
    (found,) = tables_of(page(groups, costs)).values()
    assert sorted([row[0], row[2]] for row in found) == [
        ["`mnist-cnn`", "522"],
        ["`mnist-cnn` (earlier network)", "200"],
    ]


def test_a_network_of_one_s_own_is_not_called_an_earlier_one(tmp_path: Path) -> None:
    write_run(tmp_path / "mine" / "a", seed=0)
    metrics = tmp_path / "mine" / "a" / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"preset": "mine"}))
    assert [row[0] for row in rows(read_groups(tmp_path))] == ["`mine`"]


def test_runs_that_differ_in_the_time_steps_alone_are_studied_together(tmp_path: Path) -> None:
    presets = ("mnist-cnn", "mnist-pde", "mnist-pde-k10", "mnist-pde-k2", "cifar10-global")
    for preset in presets:
        write_run(tmp_path / preset / "a", seed=0, preset=preset)
    write_run(tmp_path / "mnist-pde" / "b", seed=0, preset="mnist-pde", recipe=recipe(99))
    groups = read_groups(tmp_path)
    (study,) = studies_of_num_steps(groups)
    found = [(num_steps, group.name, group.epochs) for num_steps, group in study.items()]
    assert found == [(2, "mnist-pde-k2", 7), (5, "mnist-pde", 7), (10, "mnist-pde-k10", 7)]
    assert "](pictures/time-steps.png)" in page(groups)


def test_time_steps_are_not_studied_over_two_teachers_of_one_name(tmp_path: Path) -> None:
    for preset, checksum in {"mnist-pde": "a", "mnist-pde-k2": "b", "mnist-pde-k10": "b"}.items():
        write_run(tmp_path / preset / "a", seed=0, preset=preset, teacher={"model": "teacher", "sha256": checksum})
    (study,) = studies_of_num_steps(read_groups(tmp_path))
    assert list(study) == [2, 10]


def test_a_run_without_validation_images_is_drawn_by_its_training_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "mnist-cnn" / "a", seed=0, recipe=recipe(2))
    history = tmp_path / "mnist-cnn" / "a" / "history.csv"
    history.write_text(f"{','.join(COLUMNS)}\n1,0.5,0.25,,,0.01,3\n2,0.4,0.75,,,0.01,3\n")
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "_save", lambda figure, _: drawn.append(figure))
    figures.plot_learning_curves(read_groups(tmp_path), tmp_path / "curves.png")
    ((axes,),) = (figure.axes for figure in drawn)
    (line,) = axes.lines
    assert (line.get_xydata().tolist(), line.get_label()) == ([[1, 25], [2, 75]], "mnist-cnn")
    assert axes.get_ylabel() == "training accuracy (%)"


def test_adding_a_run_leaves_out_the_paths_of_the_machine(tmp_path: Path) -> None:
    write_run(tmp_path / "run", seed=4, data_dir="/home/somebody/data", teacher_source="/home/somebody/teacher")
    target = add_run(tmp_path / "run", tmp_path / "results")
    assert target == tmp_path / "results" / "mnist-cnn" / "7-epochs-seed-4"
    assert "somebody" not in (target / "metrics.json").read_text()
    assert (target / "history.csv").read_text() == (tmp_path / "run" / "history.csv").read_text()


def test_only_a_run_of_the_same_network_recipe_and_seed_is_replaced(tmp_path: Path) -> None:
    earlier = PRESETS["mnist-cnn"].to_dict()
    earlier["network"] |= {"pool_size": 7}
    for name, changes in {
        "earlier": {"classifier": earlier},
        "today": {},
        "again": {"test_accuracy": 0.95},
    }.items():
        write_run(tmp_path / name, seed=0, **changes)
        add_run(tmp_path / name, tmp_path / "results")
    assert sorted(run.accuracy for group in read_groups(tmp_path / "results") for run in group.runs) == [90, 95]


def test_a_training_on_a_folder_of_images_is_not_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "photos", seed=1, images={"splits": {"test": {"files": 2}}})
    assert report.main(["--results", str(tmp_path / "results"), "--add", str(tmp_path / "photos")]) == 2
    assert "on a folder of images" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["metrics.json", "history.csv", "confusion", "classifier", "best_epoch"])
def test_an_unfinished_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str) -> None:
    write_run(tmp_path / "run", seed=0)
    if missing.endswith((".json", ".csv")):
        (tmp_path / "run" / missing).unlink()
    else:
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        del metrics[missing]
        (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    assert report.main(["--results", str(tmp_path / "results"), "--add", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("report: error: ")
    assert str(tmp_path / "run") in line
    assert not (tmp_path / "results").exists()


def test_a_training_that_a_callback_stopped_is_no_run_of_all_its_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", seed=0)
    write_epochs(tmp_path / "run", 1)
    assert report.main(["--results", str(tmp_path / "results"), "--add", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'run'}: expected a training of 7 epochs, got one that was stopped after 1\n" in error
    assert not (tmp_path / "results").exists()


def test_a_training_that_the_patience_of_its_recipe_stopped_is_added(tmp_path: Path) -> None:
    write_run(tmp_path / "run", seed=0, recipe=recipe(7) | {"patience": 2})
    write_epochs(tmp_path / "run", 3)  # the accuracy never rose
    add_run(tmp_path / "run", tmp_path / "results")
    (group,) = read_groups(tmp_path / "results")
    assert [len(run.history) for run in group.runs] == [3]


def test_a_folder_without_metrics_is_no_run(tmp_path: Path) -> None:
    write_run(tmp_path / "mnist-cnn" / "a", seed=0)
    shutil.copytree(tmp_path / "mnist-cnn" / "a", tmp_path / "mnist-cnn" / "b")
    (tmp_path / "mnist-cnn" / "b" / "metrics.json").unlink()
    (group,) = read_groups(tmp_path)
    assert len(group.runs) == 1


def test_no_runs_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--results", str(tmp_path / "results"), "--page", str(tmp_path / "page.md")]) == 2
    assert "--add RUN adds one" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
