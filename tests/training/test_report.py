"""The results page is what its command makes of the runs in `results/`."""

import json
import statistics
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from training import report
from training.history import COLUMNS
from training.results import add_run, by_num_steps, read_runs

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"


def test_the_committed_page_is_what_the_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert report.main(["--page", str(tmp_path / "results.md")]) == 0
    assert (tmp_path / "results.md").read_text() == PAGE.read_text()
    pictures = {path.name for path in (tmp_path / "results").iterdir()}
    assert pictures == {path.name for path in (ROOT / "docs" / "results").iterdir()}
    for name in pictures:
        assert f"(results/{name})" in PAGE.read_text()
        written, committed = (
            np.asarray(PIL.Image.open(folder / "results" / name).convert("RGB"), int)
            for folder in (tmp_path, PAGE.parent)
        )
        assert written.shape == committed.shape
        # A digit of a title is some 100 pixels of a million; fields are rounded otherwise on other processors.
        assert np.mean(np.abs(written - committed).max(axis=-1) > 48) < 2e-5


def test_every_committed_run_is_what_its_history_and_confusion_say() -> None:
    runs = read_runs(ROOT / "results")
    assert runs
    for group in runs.values():
        for run in group:
            confusion = run.metrics["confusion"]
            right = sum(row[index] for index, row in enumerate(confusion))
            assert run.metrics["test_accuracy"] == pytest.approx(right / run.metrics["test_images"])
            assert run.metrics["test_images"] == sum(map(sum, confusion))
            best = max(row["val_accuracy"] for row in run.history)
            assert run.metrics["validation_accuracy"] == best
            assert len(run.history) == run.metrics["recipe"]["epochs"]
            assert run.metrics["seconds"] == pytest.approx(sum(row["seconds"] for row in run.history), abs=0.1)


def test_a_row_has_mean_and_standard_deviation_over_seeds(tmp_path: Path) -> None:
    accuracies = [0.91, 0.92, 0.96]
    for seed, accuracy in enumerate(accuracies):
        write_run(tmp_path / "runs" / str(seed), seed=seed, test_accuracy=accuracy)
        add_run(tmp_path / "runs" / str(seed), tmp_path / "results")
    runs = read_runs(tmp_path / "results")
    page = report.render(runs, {"mnist-cnn": (522, 14_602)}, "pictures", [], "- mind the gap\n")
    assert page.endswith("\n\n## What to know of these figures\n\n- mind the gap\n")
    mean, spread = statistics.fmean(accuracies) * 100, statistics.stdev(accuracies) * 100
    (row,) = [line for line in page.splitlines() if line.startswith("| `mnist-cnn`")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    accuracy = f"**{mean:.2f} ± {spread:.2f}**"
    assert cells[:7] == ["`mnist-cnn`", "522", "14,602", accuracy, "3", "7", "2 (cpu)"]
    assert cells[7:] == ["92.01", "91.50", "15.00 ± 0.00", "2.53"]


def test_minutes_are_told_for_each_device(tmp_path: Path) -> None:
    for seed, (device, seconds) in enumerate([("gpu:0", 240.0), ("cpu", 600.0), ("gpu:0", 480.0), ("gpu:0", 360.0)]):
        write_run(tmp_path / "results/mnist-cnn" / f"seed-{seed}", seed=seed, device=device, seconds=seconds)
    page = report.render(read_runs(tmp_path / "results"), {"mnist-cnn": (522, 14_602)}, "pictures", [], "")
    (row,) = [line for line in page.splitlines() if line.startswith("| `mnist-cnn`")]
    assert row.split(" | ")[6] == "10 (cpu), 6 (gpu:0)"


def test_runs_of_another_recipe_are_in_no_mean(tmp_path: Path) -> None:
    for seed, (preset, accuracy, epochs) in enumerate(
        [("mnist-pde", 0.91, 28), ("mnist-pde", 0.92, 28), ("mnist-pde", 0.96, 100), ("mnist-pde-k2", 0.93, 100)]
    ):
        recipe = {"dataset": "mnist", "epochs": epochs}
        folder = tmp_path / "results" / preset / f"seed-{seed}"
        write_run(folder, seed=seed, preset=preset, test_accuracy=accuracy, recipe=recipe)
    runs = read_runs(tmp_path / "results")
    page = report.render(runs, dict.fromkeys(runs, (524, 0)), "pictures", [], "")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `mnist-pde`")]
    assert [(row[3], row[4], row[5]) for row in rows] == [("**91.50 ± 0.71**", "2", "28"), ("**96.00**", "1", "100")]
    assert by_num_steps(runs) == [("mnist-pde", {2: runs["mnist-pde-k2"], 5: runs["mnist-pde"][2:]})]


def test_runs_that_differ_in_the_time_steps_alone_are_studied_together(tmp_path: Path) -> None:
    for preset in ("mnist-cnn", "mnist-pde", "mnist-pde-k10", "mnist-pde-k2", "cifar10-global"):
        write_run(tmp_path / "results" / preset / "seed-0", seed=0, preset=preset)
    runs = read_runs(tmp_path / "results")
    (study,) = by_num_steps(runs)
    assert study[0] == "mnist-pde"
    assert list(study[1].items()) == [
        (2, runs["mnist-pde-k2"]),
        (5, runs["mnist-pde"]),
        (10, runs["mnist-pde-k10"]),
    ]
    costs = dict.fromkeys(runs, (0, 0))
    assert "](pictures/time-steps.png)" in report.render(runs, costs, "pictures", [], "")


def test_adding_a_run_leaves_out_the_folders_of_the_machine(tmp_path: Path) -> None:
    write_run(tmp_path / "run", seed=4, data_dir="/home/somebody/data")
    target = add_run(tmp_path / "run", tmp_path / "results")
    assert target == tmp_path / "results" / "mnist-cnn" / "seed-4"
    assert "somebody" not in (target / "metrics.json").read_text()
    assert (target / "history.csv").read_text() == (tmp_path / "run" / "history.csv").read_text()


def test_what_is_published_is_not_replaced_by_another_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "published", seed=0)
    write_run(tmp_path / "again", seed=0, test_accuracy=0.95)
    write_run(tmp_path / "longer", seed=0, recipe={"dataset": "mnist", "epochs": 70})
    write_run(tmp_path / "photos", seed=1, recipe={"dataset": "folder", "epochs": 3})

    def add(name: str) -> int:
        arguments = ["--results", str(tmp_path / "results"), "--page", str(tmp_path / "page.md")]
        return report.main([*arguments, "--add", str(tmp_path / name)])

    assert add("published") == 0
    assert add("longer") == 2
    assert "is of another recipe than" in capsys.readouterr().err
    assert add("photos") == 2
    assert "got one on a folder of images" in capsys.readouterr().err
    (run,) = read_runs(tmp_path / "results")["mnist-cnn"]
    assert run.accuracy == 90
    assert add("again") == 0
    (run,) = read_runs(tmp_path / "results")["mnist-cnn"]
    assert run.accuracy == 95


@pytest.mark.parametrize("missing", ["metrics.json", "history.csv"])
def test_an_unfinished_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str) -> None:
    write_run(tmp_path / "run", seed=0)
    (tmp_path / "run" / missing).unlink()
    arguments = ["--results", str(tmp_path / "results"), "--add", str(tmp_path / "run")]
    assert report.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("report: error: ")
    assert "expected a finished training" in error
    assert not (tmp_path / "results").exists()


def test_a_run_without_what_is_reported_of_it_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", seed=0)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    del metrics["classifier"]
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    assert report.main(["--results", str(tmp_path / "results"), "--add", str(tmp_path / "run")]) == 2
    assert "metrics.json has no classifier" in capsys.readouterr().err


def test_other_folders_are_no_runs(tmp_path: Path) -> None:
    for name in ("seed-0", "seed-0-old", "notes"):
        write_run(tmp_path / "results" / "mnist-cnn" / name, seed=0)
    assert len(read_runs(tmp_path / "results")["mnist-cnn"]) == 1


def test_no_runs_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--results", str(tmp_path / "results"), "--page", str(tmp_path / "page.md")]) == 2
    assert "--add RUN adds one" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def write_run(folder: Path, seed: int, **changes: object) -> None:
    """Write a run of mnist-cnn in which 3 and 5 are confused in 15 % of the cases."""
    confusion = [[10 if row == column else 0 for column in range(10)] for row in range(10)]
    confusion[3][3], confusion[3][5] = 8, 2
    confusion[5][5], confusion[5][3] = 9, 1
    metrics = {
        "preset": "mnist-cnn",
        "classifier": {"name": changes.get("preset", "mnist-cnn")},
        "seed": seed,
        "recipe": {"dataset": "mnist", "epochs": 7},
        "device": "cpu",
        "versions": {"backend": "tensorflow"},
        "seconds": 120.0,
        "test_accuracy": 0.9,
        "confusion": confusion,
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "history.csv").write_text(f"{','.join(COLUMNS)}\n1{',0.5' * 6}\n")
