"""Fixtures: the compiled library, and each instruction set that it has a solver for."""

import pytest

from pdeinfer.runtime import kernel
from pdeinfer.runtime.session import create_session
from tests.kernels.layers import make_layer


@pytest.fixture(scope="session", autouse=True)
def library() -> None:
    if not kernel.LIBRARY.exists():
        pytest.skip(f"{kernel.LIBRARY.name} could not be built here: `pip install --verbose --editable .` says why")


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Select an instruction set; skip the test if this CPU lacks it."""
    monkeypatch.setenv("PDEINFER_KERNEL", request.param)
    model = make_layer("neither", (1, 1, 1, 1)).model()
    if create_session(model.SerializeToString(), "cpu", 1).pde_layers != "fused":
        pytest.skip(f"this CPU has no {request.param}")
    return request.param
