"""Properties of every solution of the numerical scheme."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.pde.pde_solver import STRETCHED_GRID, UNIT_GRID, assert_close, solve
from tests.references import Field

Fields = dict[str, Field]
few_examples = settings(max_examples=40, deadline=None)


@st.composite
def problems(draw: st.DrawFn) -> Fields:
    """Draw the fields of a problem on a small map (H, W, C) of any aspect ratio."""
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 2)))

    def field(low: float, high: float) -> Field:
        return draw(arrays(np.float64, shape, elements=st.floats(low, high, width=32)))

    return {
        **{name: field(-10, 10) for name in ("h", "h_previous", "source")},
        **{name: field(-1, 1) for name in ("u", "v")},
        **{name: field(0, 2) for name in ("diffusivity_x", "diffusivity_y")},
    }


def solve_problem(problem: Fields, num_steps: int = 3, **grid: float) -> tuple[Field, Field]:
    return solve(
        problem["h"],
        problem["h_previous"],
        problem["source"],
        (problem["u"], problem["v"]),
        (problem["diffusivity_x"], problem["diffusivity_y"]),
        num_steps=num_steps,
        **(grid or STRETCHED_GRID),
    )


@few_examples
@given(problems(), st.integers(-4, 4), st.integers(-4, 4))
def test_a_translated_problem_has_the_translated_solution(problem: Fields, rows: int, columns: int) -> None:
    def translate(field: Field) -> Field:
        return np.roll(field, (rows, columns), axis=(0, 1))

    solution, _ = solve_problem(problem)
    of_translated, _ = solve_problem({name: translate(field) for name, field in problem.items()})
    np.testing.assert_array_equal(of_translated, translate(solution))


@few_examples
@given(problems())
def test_swapping_x_and_y_everywhere_swaps_them_in_the_solution(problem: Fields) -> None:
    partner = {"u": "v", "v": "u", "diffusivity_x": "diffusivity_y", "diffusivity_y": "diffusivity_x"}
    swapped = {name: problem[partner.get(name, name)].swapaxes(0, 1) for name in problem}
    solution, _ = solve_problem(problem, dt=0.1, dx=0.5, dy=0.8)
    of_swapped, _ = solve_problem(swapped, dt=0.1, dx=0.8, dy=0.5)
    assert_close(of_swapped, solution.swapaxes(0, 1))


@few_examples
@given(problems(), st.floats(-10, 10), st.floats(-1, 1), st.floats(-1, 1))
def test_a_constant_is_preserved_for_constant_velocity_without_source(
    problem: Fields, level: float, u: float, v: float
) -> None:
    constants = {"h": level, "h_previous": level, "source": 0.0, "u": u, "v": v}
    shape = problem["h"].shape
    solution, _ = solve_problem({**problem, **{name: np.full(shape, value) for name, value in constants.items()}})
    assert_close(solution, np.full(shape, level))


@few_examples
@given(problems(), st.floats(-3, 3), st.floats(-3, 3))
def test_the_solution_is_linear_in_both_levels_and_the_source(problem: Fields, a: float, b: float) -> None:
    rng = np.random.default_rng(0)
    levels_and_source = ("h", "h_previous", "source")
    other = {**problem, **{name: rng.standard_normal(problem[name].shape) for name in levels_and_source}}
    combined = {**problem, **{name: a * problem[name] + b * other[name] for name in levels_and_source}}
    expected = a * solve_problem(problem)[0] + b * solve_problem(other)[0]
    magnitude = max(np.max(np.abs(solve_problem(each)[0])) for each in (problem, other))
    assert np.max(np.abs(solve_problem(combined)[0] - expected)) <= 1e-12 * max(1.0, magnitude)


@few_examples
@given(problems())
def test_without_diffusion_only_the_source_changes_the_sum_over_the_map(problem: Fields) -> None:
    dt = STRETCHED_GRID["dt"]
    solution, _ = solve(
        problem["h"],
        problem["h_previous"],
        problem["source"],
        (problem["u"], problem["v"]),
        None,
        num_steps=3,
        **STRETCHED_GRID,
    )

    def total(field: Field) -> Field:
        return field.sum(axis=(0, 1))

    # Leapfrog: three steps take H[0] to H[1] by way of H[-1], and H[1] to H[3].
    assert_close(total(solution), total(problem["h_previous"]) + 4 * dt * total(problem["source"]), 1e-10)


def test_from_equal_levels_the_first_step_counts_twice_and_the_second_adds_little() -> None:
    ones = np.ones((1, 64, 1))
    wave = np.cos(2 * np.pi * np.arange(64) / 64).reshape(ones.shape)
    displacements, sums = [], []
    for num_steps in range(1, 5):
        moved, _ = solve(wave, wave, 0 * ones, (ones, 0 * ones), None, num_steps=num_steps, **UNIT_GRID)
        displacements.append(-np.angle(np.fft.fft(moved.ravel())[1]) * 64 / (2 * np.pi))
        fed, _ = solve(0 * ones, 0 * ones, ones, None, None, num_steps=num_steps, **UNIT_GRID)
        sums.append(fed.mean())
    assert np.allclose(displacements, [0.4, 0.4, 0.8, 0.8], atol=0.003)
    assert np.allclose(sums, [0.4, 0.4, 0.8, 0.8], atol=1e-12)


@few_examples
@given(problems(), st.integers(0, 3), st.integers(0, 3))
def test_a_solution_continues_from_the_two_levels_it_returned(problem: Fields, first: int, second: int) -> None:
    h, h_previous = solve_problem(problem, first)
    continued = solve_problem({**problem, "h": h, "h_previous": h_previous}, second)
    np.testing.assert_array_equal(continued, solve_problem(problem, first + second))
