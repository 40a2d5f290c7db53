"""Courant and diffusion numbers, and the stability of the numerical scheme."""

import numpy as np
import pytest

from pdeinfer import pde
from tests.pde.pde_solver import solve
from tests.references import Field


def test_courant_numbers_are_velocity_times_dt_over_the_pixel_distance() -> None:
    u, v = np.array([3.0, -1.0]), np.array([0.5, 2.0])
    courant_x, courant_y = pde.courant_numbers((u, v), dt=0.1, dx=0.5, dy=0.25)
    np.testing.assert_allclose(courant_x, [0.6, -0.2], rtol=1e-15)
    np.testing.assert_allclose(courant_y, [0.2, 0.8], rtol=1e-15)


def test_diffusion_numbers_are_diffusivity_times_dt_over_the_squared_pixel_distance() -> None:
    number_x, number_y = pde.diffusion_numbers((np.array([3.0, 1.0]), 2.0), dt=0.1, dx=0.5, dy=0.25)
    np.testing.assert_allclose(number_x, [1.2, 0.4], rtol=1e-15)
    assert number_y == pytest.approx(3.2, rel=1e-15)


def growth(courant: tuple[float, float], num_steps: int) -> float:
    """Return the factor by which pure advection amplifies random noise on a 32x32 map."""
    h, h_previous = np.random.default_rng(0).standard_normal((2, 32, 32, 1))
    velocity = (np.full((1, 1, 1), courant[0]), np.full((1, 1, 1), courant[1]))
    solution, _ = solve(h, h_previous, np.zeros((1, 1, 1)), velocity, None, num_steps=num_steps, dt=1.0)
    return np.linalg.norm(solution) / np.linalg.norm(h)


@pytest.mark.parametrize("courant", [(0.98, 0.0), (0.0, -0.98), (0.5, 0.48), (-0.2, 0.78)], ids=str)
def test_advection_is_bounded_if_the_courant_numbers_sum_to_less_than_one(
    courant: tuple[float, float],
) -> None:
    assert growth(courant, num_steps=2000) < 5  # measured: 1.4 to 2.5


@pytest.mark.parametrize("courant", [(1.02, 0.0), (0.0, -1.02), (0.5, 0.52), (-0.2, 0.82)], ids=str)
def test_advection_grows_without_bound_if_they_sum_to_more_than_one(courant: tuple[float, float]) -> None:
    assert growth(courant, num_steps=200) > 1e10


@pytest.mark.parametrize("courant", [(0.5, 0.0), (0.3, 0.4), (2.0, -1.5)], ids=str)
def test_one_step_from_equal_levels_amplifies_as_documented(courant: tuple[float, float]) -> None:
    x, y = np.meshgrid(np.arange(8), np.arange(8) * np.sign(courant[1]))
    worst = np.cos(np.pi / 2 * (x + y))[..., np.newaxis]
    noise = np.random.default_rng(0).standard_normal((8, 8, 1))
    velocity = (np.full((1, 1, 1), courant[0]), np.full((1, 1, 1), courant[1]))
    factors = []
    for h in (worst, noise):
        solution, _ = solve(h, h, np.zeros((1, 1, 1)), velocity, None, num_steps=1, dt=1.0)
        factors.append(np.linalg.norm(solution) / np.linalg.norm(h))
    assert factors[0] == pytest.approx(np.hypot(1, 2 * np.abs(courant).sum()))
    assert factors[1] < factors[0]


def amplification(courant: tuple[float, float], diffusion: tuple[float, float] | None) -> float:
    """Return the largest factor by which a step multiplies any wave `exp(i (a x + b y))` (von Neumann's analysis).

    The access to neighbours is passed in, so the step itself is what is analysed: for a wave, a shift is a factor.
    """
    angles = np.concatenate([np.linspace(-np.pi, np.pi, 181), np.linspace(-0.05, 0.05, 21)])
    angle = {pde.X: angles[None, :, None], pde.Y: angles[:, None, None]}

    def shift_wave(wave: Field, shift: int, axis: int) -> Field:
        return wave * np.exp(-1j * shift * angle[axis])

    velocity = (np.full((1, 1, 1), courant[0]), np.full((1, 1, 1), courant[1]))
    factors = pde.coefficients(velocity, diffusion, dt=1.0, roll=np.roll)
    zero, one = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    of_h = pde.step(one, zero, zero, factors, roll=shift_wave)
    of_h_previous = pde.step(zero, one, zero, factors, roll=shift_wave)
    # The factor z of a step solves z^2 = of_h z + of_h_previous.
    root = np.sqrt(of_h**2 + 4 * of_h_previous + 0j)
    return np.max(np.abs([of_h + root, of_h - root])) / 2


@pytest.mark.parametrize("diffusion", [(0.2, 0.2), (5.0, 5.0), (100.0, 0.01), (0.0, 1.0)], ids=str)
def test_diffusion_alone_amplifies_no_wave(diffusion: tuple[float, float]) -> None:
    assert amplification((0.0, 0.0), diffusion) <= 1 + 1e-12


@pytest.mark.parametrize("diffusion", [(0.2, 0.2), (0.2, 0.05), (0.01, 0.3), (3.0, 3.0)], ids=str)
@pytest.mark.parametrize("direction", [0.1, 0.5, 0.9])
def test_diffusion_narrows_the_limit_of_the_courant_numbers_as_documented(
    diffusion: tuple[float, float], direction: float
) -> None:
    def courant_at(criterion: float) -> tuple[float, float]:
        """Return Courant numbers for which (Bx + By) (Ax^2 / Bx + Ay^2 / By) is the criterion."""
        shares = np.array([direction, 1 - direction]) * np.array(diffusion) / sum(diffusion)
        courant_x, courant_y = np.sqrt(criterion * shares)
        return courant_x, courant_y

    assert amplification(courant_at(0.99), diffusion) <= 1 + 1e-12
    assert amplification(courant_at(1.1), diffusion) > 1 + 1e-5
