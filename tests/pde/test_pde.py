"""The numerical scheme against naive loops."""

import numpy as np
import pytest

from pdeinfer import pde
from tests.pde.pde_solver import STRETCHED_GRID, UNIT_GRID, assert_close, random_fields, solve
from tests.references import naive_solve

SHAPES = [
    (2, 7, 5, 3),
    (1, 4, 9, 1),
    (1, 1, 6, 2),
    (1, 6, 1, 2),
    (1, 2, 5, 1),
    (1, 5, 2, 1),
    (2, 2, 2, 1),
    (1, 1, 1, 1),
]
NUM_STEPS = [1, 2, 5, 10]


@pytest.mark.parametrize("grid", [UNIT_GRID, STRETCHED_GRID], ids=["unit-grid", "stretched-grid"])
@pytest.mark.parametrize("num_steps", NUM_STEPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_fields_evolve_as_in_the_naive_reference(
    shape: tuple[int, ...], num_steps: int, grid: dict[str, float]
) -> None:
    fields = random_fields(shape)
    expected = naive_solve(**fields, num_steps=num_steps, **grid)
    actual = solve(
        fields["h"],
        fields["h_previous"],
        fields["source"],
        (fields["u"], fields["v"]),
        (fields["diffusivity_x"], fields["diffusivity_y"]),
        num_steps=num_steps,
        **grid,
    )
    assert_close(actual[0], expected[0])
    assert_close(actual[1], expected[1])


@pytest.mark.parametrize("diffusivity", ["field", "constant", "none"])
@pytest.mark.parametrize("velocity", ["field", "constant", "none"])
def test_constant_and_absent_fields_evolve_as_in_the_naive_reference(velocity: str, diffusivity: str) -> None:
    shape = (2, 5, 6, 2)
    fields = random_fields(shape)
    constants = {"u": 0.3, "v": -0.2, "diffusivity_x": 1.0, "diffusivity_y": 0.4}
    for kind, names in ((velocity, ("u", "v")), (diffusivity, ("diffusivity_x", "diffusivity_y"))):
        for name in names:
            if kind != "field":
                fields[name] = np.full(shape, constants[name] if kind == "constant" else 0.0)
    expected, _ = naive_solve(**fields, num_steps=5, **STRETCHED_GRID)

    u_and_v = (fields["u"], fields["v"])
    if velocity == "constant":
        u_and_v = (np.full((1, 1, 1), constants["u"]), np.full((1, 1, 1), constants["v"]))
    both_diffusivities = {
        "field": (fields["diffusivity_x"], fields["diffusivity_y"]),
        "constant": (constants["diffusivity_x"], constants["diffusivity_y"]),
        "none": None,
    }
    actual, _ = solve(
        fields["h"],
        fields["h_previous"],
        fields["source"],
        None if velocity == "none" else u_and_v,
        both_diffusivities[diffusivity],
        num_steps=5,
        **STRETCHED_GRID,
    )
    assert_close(actual, expected)


@pytest.mark.parametrize("leading_axes", [(), (2, 3)], ids=["no-batch", "two-batch-axes"])
def test_any_number_of_leading_axes_is_a_batch(leading_axes: tuple[int, ...]) -> None:
    fields = random_fields((*leading_axes, 4, 5, 2))
    as_batch = {name: field.reshape(-1, 4, 5, 2) for name, field in fields.items()}
    expected, _ = naive_solve(**as_batch, num_steps=2, **UNIT_GRID)
    actual, _ = solve(
        fields["h"],
        fields["h_previous"],
        fields["source"],
        (fields["u"], fields["v"]),
        (fields["diffusivity_x"], fields["diffusivity_y"]),
        num_steps=2,
        **UNIT_GRID,
    )
    assert_close(actual, expected.reshape(actual.shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_velocity_gradients_are_central_differences(shape: tuple[int, ...]) -> None:
    fields = random_fields(shape)
    u, v = fields["u"], fields["v"]
    u_x, v_y = pde.velocity_gradients((u, v), dx=0.5, dy=0.8, roll=np.roll)
    _, height, width, _ = shape
    for n, y, x, c in np.ndindex(shape):
        assert u_x[n, y, x, c] == pytest.approx((u[n, y, (x + 1) % width, c] - u[n, y, (x - 1) % width, c]) / 1.0)
        assert v_y[n, y, x, c] == pytest.approx((v[n, (y + 1) % height, x, c] - v[n, (y - 1) % height, x, c]) / 1.6)
