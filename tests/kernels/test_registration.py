"""Which sessions have the fused operator, and that they say so; that no library can break prediction."""

from pathlib import Path

import numpy as np
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


def test_the_operator_runs_where_its_library_loads() -> None:
    session = create_session(MODEL.SerializeToString(), "cpu", 1)
    assert session.pde_layers == "fused"
    assert np.allclose(run(session), LAYER.reference(), rtol=1e-5, atol=1e-6)


def test_a_session_can_do_without() -> None:
    session = create_session(MODEL.SerializeToString(), "cpu", 1, fused=False)
    assert session.pde_layers == "standard"
    assert np.allclose(run(session), LAYER.reference(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", ["0", "avx1024"])
def test_the_environment_turns_it_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PDEINFER_KERNEL", value)
    check_function_runs()


def test_the_function_runs_where_there_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel, "LIBRARY", tmp_path / "none.so")
    check_function_runs()


@pytest.mark.parametrize("content", [b"", b"\x7fELF for another machine"])
def test_the_function_runs_where_the_library_does_not_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "broken.so").write_bytes(content)
    monkeypatch.setattr(kernel, "LIBRARY", tmp_path / "broken.so")
    check_function_runs()


def test_the_function_runs_where_the_operator_refuses_the_layer() -> None:
    model = LAYER.model()
    del model.graph.node[0].attribute[1]  # its source
    session = create_session(model.SerializeToString(), "cpu", 1)
    assert session.pde_layers == "standard"
    assert run(session).shape == LAYER.reference().shape


def test_the_function_runs_where_the_file_is_of_another_version_of_the_operator() -> None:
    model = LAYER.model()
    model.opset_import[1].version = 1
    session = create_session(model.SerializeToString(), "cpu", 1)
    assert session.pde_layers == "standard"
    assert np.allclose(run(session), LAYER.reference(), rtol=1e-5, atol=1e-6)


def test_a_network_without_pde_layers_has_none_that_are_fused(package_folder: Path) -> None:
    create_session(MODEL.SerializeToString(), "cpu", 1)  # whose layer is not counted for the next session
    with Predictor(package_folder, device="cpu") as predictor:
        assert predictor.info().pde_layers == "standard"
