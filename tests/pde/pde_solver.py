"""Runs the scheme in NumPy, on given or random fields."""

import numpy as np

from pdeinfer import pde
from tests.references import Field

UNIT_GRID = {"dt": 0.2, "dx": 1.0, "dy": 1.0}
STRETCHED_GRID = {"dt": 0.1, "dx": 0.5, "dy": 0.8}


def solve(
    h: Field,
    h_previous: Field,
    source: Field,
    velocity: tuple[Field, Field] | None,
    diffusivity: tuple[Field, Field] | tuple[float, float] | None,
    *,
    num_steps: int,
    **grid: float,
) -> tuple[Field, Field]:
    factors = pde.coefficients(velocity, diffusivity, **grid, roll=np.roll)
    return pde.solve(h, h_previous, source, factors, num_steps=num_steps, roll=np.roll)


def random_fields(shape: tuple[int, ...]) -> dict[str, Field]:
    rng = np.random.default_rng(0)
    return {
        **{name: rng.standard_normal(shape) for name in ("h", "h_previous", "source")},
        **{name: rng.uniform(-0.5, 0.5, shape) for name in ("u", "v")},
        **{name: rng.uniform(0, 1, shape) for name in ("diffusivity_x", "diffusivity_y")},
    }


def assert_close(actual: Field, expected: Field, tolerance: float = 1e-12) -> None:
    """Assert that no difference exceeds the tolerance times the largest expected value, or the tolerance."""
    assert actual.shape == expected.shape
    assert np.max(np.abs(actual - expected)) <= tolerance * max(1.0, np.max(np.abs(expected)))
