"""Training on the bundled digits: what it writes, how it resumes, what it refuses."""

import csv
import errno
import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from pdeinfer.datasets import load_dataset
from pdeinfer.errors import TrainingError
from pdeinfer.package import zoo
from pdeinfer.spec.networks import ResidualNetwork
from pdeinfer.spec.pde_spec import PdeSpec
from pdeinfer.spec.presets import PRESETS
from training import run
from training.checkpoints import RunFolder
from training.history import COLUMNS, diverged_since, read_history
from training.outcome import measure
from training.recipes import RECIPES


def train(*arguments: object) -> int:
    return run.main(["digits-pde", *map(str, arguments)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of four epochs."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert train("--epochs", 4, "--seed", 7, "--out", folder) == 0
    return folder


def test_every_preset_has_a_recipe() -> None:
    assert RECIPES.keys() == PRESETS.keys()


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [((), None), ((1, 2), None), ((1, math.nan, 2), None), ((math.nan, 1, math.inf, math.nan), 3), ((math.nan,), 1)],
)
def test_a_training_has_diverged_if_its_last_losses_are_not_finite(
    losses: tuple[float, ...], epoch: int | None
) -> None:
    for column, other in (("loss", "val_loss"), ("val_loss", "loss")):
        rows = [{"epoch": number, column: loss, other: 1, "val_accuracy": 0.5} for number, loss in enumerate(losses, 1)]
        assert diverged_since(rows) == epoch


def test_a_training_without_validation_images_has_not_diverged() -> None:
    assert diverged_since([{"epoch": 1, "loss": 1.0, "val_loss": math.nan, "val_accuracy": math.nan}]) is None


def test_learning_rate_warms_up_to_its_peak_and_ends_at_zero() -> None:
    optimizer = RECIPES["cifar10-global"].make_optimizer(steps_per_epoch=10)
    recipe = RECIPES["cifar10-global"]
    rates = [float(optimizer._learning_rate(step)) for step in range(10 * recipe.epochs + 1)]
    assert max(rates) == pytest.approx(recipe.learning_rate)
    assert rates.index(max(rates)) == 10 * recipe.warmup_epochs
    assert rates[0] == pytest.approx(recipe.learning_rate / 100)
    assert rates[-1] == pytest.approx(0, abs=1e-8)


def test_a_training_leaves_network_history_metrics_and_pictures(finished: Path) -> None:
    with (finished / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    metrics = json.loads((finished / "metrics.json").read_text())
    best = max(reversed(rows), key=lambda row: float(row["val_accuracy"]))
    assert metrics["best_epoch"] == int(best["epoch"])
    assert metrics["seed"] == 7
    assert metrics["model_sha256"] == hashlib.sha256((finished / "model.keras").read_bytes()).hexdigest()
    assert metrics["recipe"]["epochs"] == 4
    assert metrics["parameters"] == 5490
    assert metrics["zero_fields"]["layer1"].keys() == {"channels", "u", "v", "Dx", "Dy"}
    assert metrics["test_images"] == np.sum(metrics["confusion"]) == 359
    assert metrics["test_accuracy"] == np.trace(metrics["confusion"]) / 359
    assert {"python", "keras", "backend", "numpy", "pdeinfer"} <= metrics["versions"].keys()
    for name in ("learning-curves.png", "confusion-matrix.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    assert not list(finished.glob(".partial-*"))


def test_without_validation_images_the_last_epoch_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train("--epochs", 2, "--validation-fraction", 0, "--out", folder) == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["best_epoch"] == 2
    assert "validation_accuracy" not in metrics
    assert (folder / "model.keras").read_bytes() == (folder / "last-2.keras").read_bytes()
    rows = read_history(folder / "history.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(math.isnan(row["val_accuracy"]) and row["accuracy"] > 0 for row in rows)
    assert train("--out", folder, "--resume") == 0


def test_resuming_compares_the_validation_fraction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--epochs", 1, "--out", tmp_path / "run")
    assert train(*options, "--validation-fraction", 0.5) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["recipe"]["validation_fraction"] == 0.5
    capsys.readouterr()
    assert train(*options, "--validation-fraction", 0.25, "--resume") == 2
    assert "was started with validation_fraction 0.5, and cannot resume with 0.25" in capsys.readouterr().err


@pytest.mark.parametrize("fraction", ["-0.1", "0.6", "nan", "half"])
def test_an_impossible_validation_fraction_is_a_usage_error(fraction: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train("--validation-fraction", fraction)
    assert f"expected a number from 0 to 0.5, got '{fraction}'" in capsys.readouterr().err


def test_a_distilled_training_resumes_with_its_teacher_and_mixup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--epochs", 1, "--out", tmp_path / "run")
    assert train(*options, "--teacher", "digits-pde", "--mixup", 0.2) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["teacher"]["model"] == "digits-pde"
    assert metrics["recipe"]["mixup"] == 0.2
    assert metrics["recipe"]["distillation_weight"] > 0
    assert train(*options, "--resume", "--teacher", "digits-pde") == 0
    moved = Path(shutil.copytree(zoo.load("digits-pde").path, tmp_path / "moved"))
    assert train(*options, "--resume", "--teacher", moved) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["teacher_source"] == str(moved)
    for other in (("--teacher", "mnist-pde"), ("--mixup", 0.5)):
        assert train(*options, "--resume", *other) == 2
        assert "was started with" in capsys.readouterr().err


COMPARE_RESUMED_WITH_UNINTERRUPTED = """
import sys
import keras, numpy as np
from training import fit, run

def train(folder, *arguments):
    return run.main(["digits-pde", "--out", folder, *arguments])

def interrupt(callback, batch, logs=None):
    if callback.model.optimizer.iterations > 60:  # in the middle of the second epoch of 40 steps
        raise KeyboardInterrupt

def variables(folder):
    model = keras.saving.load_model(f"{folder}/last-3.keras")
    return [np.asarray(variable) for variable in (*model.variables, *model.optimizer.variables)]

uninterrupted, resumed = sys.argv[1:]
assert train(uninterrupted, "--epochs", "3") == 0
fit.EpochFacts.on_train_batch_end = interrupt
assert train(resumed, "--epochs", "3") == 130
del fit.EpochFacts.on_train_batch_end
assert train(resumed, "--resume") == 0
for a, b in zip(variables(uninterrupted), variables(resumed), strict=True):
    assert np.array_equal(a, b)
"""


def test_a_resumed_training_is_bitwise_equal_to_an_uninterrupted_one(tmp_path: Path) -> None:
    # With more threads TensorFlow itself adds up in a different order from run to run.
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    folders = [str(tmp_path / name) for name in ("uninterrupted", "resumed")]
    result = subprocess.run(
        [sys.executable, "-c", COMPARE_RESUMED_WITH_UNINTERRUPTED, *folders],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    uninterrupted, resumed = (
        [line.rpartition(",")[0] for line in (Path(folder) / "history.csv").read_text().splitlines()]
        for folder in folders
    )  # all columns but the seconds
    assert len(resumed) == 1 + 3
    assert resumed == uninterrupted


@pytest.mark.parametrize(
    ("earlier", "device"),
    [
        ({"device": "gpu:0", "versions": {"backend": "jax 0.11.2"}}, "gpu:0"),
        ({"device": "gpu:0", "versions": {}, "model_sha256": "0" * 64}, "cpu"),
        (None, "cpu"),
    ],
    ids=["the same network", "another network", "damaged"],
)
def test_device_and_versions_are_those_of_the_process_that_trained_the_network(
    earlier: dict[str, object] | None, device: str, finished: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text("{" if earlier is None else json.dumps(metrics | earlier))
    outcome = measure(RunFolder(folder), load_dataset("digits", None), "cpu")
    assert outcome.device == device
    assert outcome.versions["backend"] == ("jax 0.11.2" if device == "gpu:0" else metrics["versions"]["backend"])


def test_resuming_a_finished_training_changes_nothing_but_the_report(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    (folder / "metrics.json").unlink()
    assert train("--out", folder, "--resume") == 0
    assert (folder / "history.csv").read_text() == (finished / "history.csv").read_text()
    before, after = (json.loads((path / "metrics.json").read_text()) for path in (finished, folder))
    assert before == after


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "4"], "--resume continues it, --out DIR names another folder"),
        (["--resume", "--epochs", "5"], "was started with epochs 4, and cannot resume with 5"),
        (["--resume", "--batch-size", "5"], "was started with batch_size 32, and cannot resume with 5"),
        (["--resume", "--seed", "5"], "was started with seed 7, and cannot resume with 5"),
        (["--resume", "--precision", "mixed_bfloat16"], "was started with precision float32, and cannot resume with"),
        (["--resume", "--teacher", "digits-pde"], "was started without a teacher, and cannot resume with digits-pde"),
    ],
)
def test_a_folder_with_a_training_is_not_overwritten(
    finished: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert train("--out", finished, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_resuming_another_preset_or_an_empty_folder_is_an_error(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["mnist-pde", "--out", str(finished), "--resume"]) == 2
    assert "holds a training of digits-pde, not of mnist-pde" in capsys.readouterr().err
    assert train("--out", tmp_path, "--resume") == 2
    assert "no training to resume" in capsys.readouterr().err


def test_a_training_without_its_record_is_not_resumed(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    assert train("--out", tmp_path / "run") == 2
    assert "no run.json" in capsys.readouterr().err


def test_a_missing_data_set_is_a_one_line_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run.main(["mnist-pde", "--data-dir", str(tmp_path), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pdeinfer: error: ")
    assert "no file train-images-idx3-ubyte" in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("run.json", lambda path: path.write_text("{")),
        ("run.json", lambda path: path.write_text('{"preset": "digits-pde", "recipe": {"epochs": 3}}')),
        ("last-4.keras", lambda path: path.write_bytes(b"PK")),
        ("last-4.keras", lambda path: path.unlink()),
        ("history.csv", lambda path: path.unlink()),
        ("history.csv", lambda path: path.write_text("epoch\nfour\n")),
    ],
)
def test_a_damaged_folder_is_a_one_line_error(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], object]
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(finished, folder)
    damage(folder / name)
    assert train("--out", folder, "--resume") == 2
    error = capsys.readouterr().err
    assert name in error
    assert error.count("\n") == 1


def test_a_second_process_is_kept_out_of_the_folder(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    with RunFolder(folder).locked():
        assert train("--out", folder, "--resume") == 2
    assert f"{folder}: another process is training in this folder" in capsys.readouterr().err
    assert train("--out", folder, "--resume") == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_what_killed_processes_left_half_written_is_removed_by_the_one_that_holds_the_lock(tmp_path: Path) -> None:
    kept = ["run.json", ".partial-mine.keras", ".partial-0123456789.keras"]
    for name in (*kept, ".partial-0123abcd.keras", ".partial-9876fedc.png"):
        (tmp_path / name).touch()
    with RunFolder(tmp_path).locked():
        assert {path.name for path in tmp_path.iterdir()} == {*kept}
        (tmp_path / ".partial-00000000.keras").touch()
        with pytest.raises(TrainingError), RunFolder(tmp_path).locked():
            pass
        assert (tmp_path / ".partial-00000000.keras").exists()


def test_initial_weights_cannot_be_judged_without_validation_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "digits-pde", replace(RECIPES["digits-pde"], initializations=2))
    assert train("--out", tmp_path / "run", "--validation-fraction", 0) == 2
    assert "expected --validation-fraction above 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_too_large_a_batch_is_a_one_line_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", tmp_path / "run", "--batch-size", 5000) == 2
    assert "a batch of 5000 is larger than the" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("padding", [8, 100_000])
def test_a_shift_by_whole_images_is_a_one_line_error(
    padding: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--out", tmp_path / "run", "--epochs", 1, "--crop-padding", padding) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"--crop-padding: expected less than 8, the shorter side of the images, got {padding}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_a_one_line_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert train("--out", tmp_path / "file") == 2
    assert "is a file: --out DIR names the folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["card.json", "model.keras"])
def test_a_model_is_not_overwritten(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_text("mine")
    assert train("--out", tmp_path) == 2
    assert f"{tmp_path} holds a model, {name}: --out DIR names another folder" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_more_steps_than_fit_into_a_package_are_refused_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = ResidualNetwork(widths=(9, 9, 9, 9), pde=PdeSpec(num_steps=1000))
    (tmp_path / "long.json").write_text(json.dumps(replace(PRESETS["digits-pde"], network=network).to_dict()))
    assert run.main(["--preset-file", str(tmp_path / "long.json"), "--out", str(tmp_path / "run")]) == 2
    assert re.search(r"expected num_steps of at most 22\d, got 1000", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_a_diverged_training_warns_and_writes_valid_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = replace(PRESETS["digits-pde"], name="small", network=ResidualNetwork(widths=(4,)))
    (tmp_path / "small.json").write_text(json.dumps(preset.to_dict()))
    arguments = ["--epochs", "2", "--lr", "1e30", "--batch-size", "512", "--out", str(tmp_path / "run")]
    assert run.main(["--preset-file", str(tmp_path / "small.json"), *arguments]) == 0
    warning = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"pdeinfer: the loss is not finite since epoch [12]: .* --lr below 1e\+30", warning)
    text = (tmp_path / "run" / "metrics.json").read_text()
    assert "test_loss" not in json.loads(text, parse_constant=pytest.fail)


def test_a_training_that_a_callback_stopped_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--epochs", "3", "--batch-size", "512", "--callback", f"{__name__}:StopAfterOne"]
    assert run.main(["digits-pde", *arguments, "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "pdeinfer: a callback stopped the training after 1 of 3 epochs"


class StopAfterOne(keras.callbacks.Callback):
    """Stops after the first epoch."""

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        del epoch, logs
        self.model.stop_training = True


def test_a_full_disk_tells_how_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run, "_train", write)
    assert train("--out", tmp_path) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1  # it had not begun
    (tmp_path / "run.json").write_text("{}")
    assert train("--out", tmp_path) == 2
    assert f"pdeinfer train digits-pde --out {tmp_path} --resume\n" in capsys.readouterr().err


def test_an_early_interruption_does_not_advise_resuming(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "import_keras", interrupt)
    assert train("--out", tmp_path / "run") == 130
    assert capsys.readouterr().err == "\nInterrupted; nothing began.\n"


@pytest.mark.parametrize(
    "arguments", [["no-such-preset"], ["--epochs", "0"], ["--batch-size", "many"], ["--seed", "-1"], ["--seed", "1.5"]]
)
def test_a_wrong_argument_ends_with_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run.main(arguments)
    assert stop.value.code == 2


def test_ctrl_c_prints_how_to_resume_without_a_traceback(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "training.run", "--epochs", "500", "--out", str(folder), "--tensorboard"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Epoch 3/"):
                break
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"pdeinfer train --out {folder} --resume --tensorboard\n" in error
    assert "Traceback" not in error
    (checkpoint,) = folder.glob("last-*.keras")
    assert checkpoint.with_name("history.csv").read_text().splitlines()[-1].startswith(checkpoint.stem[5:] + ",")
    assert list((folder / "tensorboard").rglob("events.*"))
    assert not list(folder.glob(".partial-*"))
