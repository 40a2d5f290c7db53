"""When sessions use the fused operator; and that a missing or broken library does not break prediction."""

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from pdeinfer import Predictor
from pdeinfer.runtime import kernel
from pdeinfer.runtime.session import Session, create_session
from tests.kernels.layers import make_layer

LAYER = make_layer("convolutions", (2, 6, 5, 7), 2)
MODEL = LAYER.model()


def run(session: Session) -> np.ndarray:
    return session.run("result", LAYER.feeds(MODEL))


def check_function_runs() -> None:
    session = create_session(MODEL.SerializeToString(), "cpu", 1)
    assert session.pde_layers == "standard"
    assert np.allclose(run(session), LAYER.reference(), rtol=1e-5, atol=1e-6)


def test_the_operator_runs_by_default() -> None:
    session = create_session(MODEL.SerializeToString(), "cpu", 1)
    assert session.pde_layers == "fused"
    assert np.allclose(run(session), LAYER.reference(), rtol=1e-5, atol=1e-6)


def test_a_session_can_run_without_the_operator() -> None:
    session = create_session(MODEL.SerializeToString(), "cpu", 1, fused=False)
    assert session.pde_layers == "standard"
    assert np.allclose(run(session), LAYER.reference(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", ["0", "avx1024"])
def test_the_environment_variable_turns_the_operator_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PDEINFER_KERNEL", value)
    check_function_runs()


@pytest.mark.parametrize(("value", "warnings"), [("0", 0), ("", 0), ("baseline", 0), ("avx1024", 1)])
def test_a_value_that_names_no_instruction_set_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str, warnings: int
) -> None:
    kernel._warn_of_choice.cache_clear()
    monkeypatch.setenv("PDEINFER_KERNEL", value)
    for _ in range(2):
        create_session(MODEL.SerializeToString(), "cpu", 1)
    assert len(caplog.records) == warnings
    for record in caplog.records:
        assert record.levelname == "WARNING"
        assert all(word in record.getMessage() for word in ("PDEINFER_KERNEL", "avx1024", "baseline", "avx2", "avx512"))


def test_the_function_runs_if_the_library_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel, "LIBRARY", tmp_path / "none.so")
    check_function_runs()


@pytest.mark.parametrize("content", [b"", b"\x7fELF for another machine"])
def test_the_function_runs_if_the_library_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "broken.so").write_bytes(content)
    monkeypatch.setattr(kernel, "LIBRARY", tmp_path / "broken.so")
    check_function_runs()


def test_the_function_runs_if_the_operator_rejects_the_layer() -> None:
    model = LAYER.model()
    del model.graph.node[0].attribute[1]  # its source
    session = create_session(model.SerializeToString(), "cpu", 1)
    assert session.pde_layers == "standard"
    assert run(session).shape == LAYER.reference().shape


def test_the_function_runs_if_the_file_needs_another_version_of_the_operator() -> None:
    model = LAYER.model()
    model.opset_import[1].version = 1
    session = create_session(model.SerializeToString(), "cpu", 1)
    assert session.pde_layers == "standard"
    assert np.allclose(run(session), LAYER.reference(), rtol=1e-5, atol=1e-6)


def test_the_library_stays_loaded_and_does_not_leak_its_scratch_memory(tmp_path: Path) -> None:
    library = tmp_path / "own.so"
    shutil.copyfile(kernel.LIBRARY, library)  # pdeinfer never unloads its own
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    del options
    assert str(library) in Path("/proc/self/maps").read_text()


def test_a_network_without_pde_layers_reports_standard_operators(package_folder: Path) -> None:
    create_session(MODEL.SerializeToString(), "cpu", 1)  # must not count for the next session
    with Predictor(package_folder, device="cpu") as predictor:
        assert predictor.info().pde_layers == "standard"
