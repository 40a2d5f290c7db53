"""Fixtures: the compiled library, each instruction set that it has a solver for, and CUDA's stand-in."""

import pytest

from pdeinfer.runtime import kernel
from pdeinfer.runtime.session import create_session
from tests.kernels.layers import make_layer
from tests.kernels.stand_in import StandIn


@pytest.fixture(scope="session", autouse=True)
def library() -> None:
    if not kernel.LIBRARY.exists():
        pytest.skip(f"{kernel.LIBRARY.name} could not be built here: `pip install --verbose --editable .` says why")


@pytest.fixture(scope="session")
def built_stand_in(library: None, tmp_path_factory: pytest.TempPathFactory) -> StandIn:  # noqa: ARG001  # may skip
    return StandIn.build(tmp_path_factory.mktemp("stand_in"))


@pytest.fixture
def stand_in(
    built_stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> StandIn:
    """The stand-in for CUDA as it is after it was loaded, with an empty cache folder."""
    built_stand_in.reset()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    return built_stand_in


@pytest.fixture
def cuda_operator(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Let sessions on the CPU run PDE layers in CUDA's operator, on the stand-in."""
    monkeypatch.setattr(kernel, "LIBRARY", stand_in.operator)
    return stand_in


@pytest.fixture(params=["baseline", "avx2", "avx512", "cuda"])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Select an instruction set, or CUDA's operator; skip the test if this CPU lacks the instruction set."""
    if request.param == "cuda":
        request.getfixturevalue("cuda_operator")
        return "cuda"
    monkeypatch.setenv("PDEINFER_KERNEL", request.param)
    model = make_layer("neither", (1, 1, 1, 1)).model()
    if create_session(model.SerializeToString(), "cpu", 1).pde_layers != "fused":
        pytest.skip(f"this CPU has no {request.param}")
    return request.param


@pytest.fixture(params=["cpu", "cuda"])
def operator(request: pytest.FixtureRequest) -> str:
    """Select the operator for CPUs, or CUDA's."""
    if request.param == "cuda":
        request.getfixturevalue("cuda_operator")
    return request.param
