"""The numerical scheme converges to exact and spectral solutions at second order."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.pde.pde_solver import solve
from tests.references import Field

END_TIME = 0.5


def time_steps(dx: float) -> tuple[int, float]:
    """Return the number of steps to END_TIME and dt, proportional to dx^2 as DuFort-Frankel requires."""
    num_steps = round(END_TIME / (0.2 * dx**2))
    return num_steps, END_TIME / num_steps


def orders(errors: list[float]) -> Field:
    """Return the order of convergence between errors at resolutions that double."""
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


@pytest.mark.parametrize(
    ("velocity", "diffusivity"),
    [((0.8, -0.5), (0.3, 0.1)), ((0.8, -0.5), None), (None, (0.3, 0.1))],
    ids=["advection-diffusion", "advection", "diffusion"],
)
def test_a_fourier_mode_converges_to_its_exact_solution_at_second_order(
    velocity: tuple[float, float] | None, diffusivity: tuple[float, float] | None
) -> None:
    u, v = velocity or (0.0, 0.0)
    diffusivity_x, diffusivity_y = diffusivity or (0.0, 0.0)

    def error(width: int) -> float:
        height = width * 3 // 4
        dx, dy = 2 * np.pi / width, 2 * np.pi / height
        x = dx * np.arange(width)[None, :, None]
        y = dy * np.arange(height)[:, None, None]
        num_steps, dt = time_steps(dx)

        def exact(t: float) -> Field:
            return np.exp(-(diffusivity_x + 4 * diffusivity_y) * t) * np.cos(x - u * t + 2 * (y - v * t))

        actual, _ = solve(
            exact(0.0),
            exact(-dt),
            np.zeros((1, 1, 1)),
            None if velocity is None else (np.full((1, 1, 1), u), np.full((1, 1, 1), v)),
            diffusivity,
            num_steps=num_steps,
            dt=dt,
            dx=dx,
            dy=dy,
        )
        return np.max(np.abs(actual - exact(END_TIME)))

    errors = [error(width) for width in (16, 32, 64)]
    assert np.all(np.abs(orders(errors) - 2) < 0.1)


def spectral_solver(
    u: Field, v: Field, diffusivity_x: Field, diffusivity_y: Field, source: Field
) -> Callable[[Field, float], Field]:
    """Return a function of H and t that solves the equation, with diffusion as `Dx d2H/dx2`, by FFT and RK4.

    All fields are (N, N) on the square of side 2 pi.
    """
    wavenumber = np.fft.fftfreq(len(u), 1 / len(u))

    def along_x(field: Field, order: int) -> Field:
        return np.fft.ifft((1j * wavenumber[None, :]) ** order * np.fft.fft(field, axis=1), axis=1).real

    def along_y(field: Field, order: int) -> Field:
        return along_x(field.T, order).T

    def slope(h: Field) -> Field:
        advection = along_x(u * h, 1) + along_y(v * h, 1)
        diffusion = diffusivity_x * along_x(h, 2) + diffusivity_y * along_y(h, 2)
        return diffusion - advection + source

    def evolve(h: Field, time: float) -> Field:
        num_steps = int(np.ceil(time / 0.005))
        dt = time / num_steps
        for _ in range(num_steps):
            k1 = slope(h)
            k2 = slope(h + dt / 2 * k1)
            k3 = slope(h + dt / 2 * k2)
            k4 = slope(h + dt * k3)
            h = h + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return h

    return evolve


@pytest.mark.parametrize("varying", ["velocity", "diffusivity", "both"])
def test_smooth_varying_fields_converge_to_a_spectral_solution_at_second_order(varying: str) -> None:
    finest = 64
    x = 2 * np.pi / finest * np.arange(finest)[None, :]
    y = x.T
    u, v = 0.5 + 0.3 * np.sin(x) * np.cos(y), -0.4 + 0.2 * np.cos(x + y)
    diffusivity_x, diffusivity_y = 0.15 + 0.1 * np.cos(x) + 0 * y, 0.1 + 0.05 * np.sin(x - y)
    if varying == "velocity":
        diffusivity_x, diffusivity_y = np.full_like(u, 0.15), np.full_like(u, 0.1)
    if varying == "diffusivity":
        u, v = np.full_like(u, 0.5), np.full_like(u, -0.4)
    source = 0.5 * np.sin(2 * x) * np.cos(y)
    start = np.exp(np.cos(x) + np.sin(y)) / 3
    evolve = spectral_solver(u, v, diffusivity_x, diffusivity_y, source)
    end = evolve(start, END_TIME)

    def error(n: int) -> float:
        num_steps, dt = time_steps(2 * np.pi / n)

        def on_grid(field: Field) -> Field:
            return field[:: finest // n, :: finest // n, None]

        actual, _ = solve(
            on_grid(evolve(start, dt)),
            on_grid(start),
            on_grid(source),
            (on_grid(u), on_grid(v)),
            (on_grid(diffusivity_x), on_grid(diffusivity_y)),
            num_steps=num_steps - 1,
            dt=dt,
            dx=2 * np.pi / n,
            dy=2 * np.pi / n,
        )
        return np.max(np.abs(actual - on_grid(end)))

    errors = [error(n) for n in (16, 32, 64)]
    assert np.all(np.abs(orders(errors) - 2) < 0.3)
