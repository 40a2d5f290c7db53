"""The numerical scheme: one explicit three-level step of the 2-D diffusion-advection equation.

Every channel H of a feature map obeys, with source f,

    dH/dt + d(uH)/dx + d(vH)/dy = d/dx(Dx dH/dx) + d/dy(Dy dH/dy) + f

Leapfrog in time for advection and DuFort-Frankel for diffusion give, per pixel,

    L H[k+1] = M H[k-1] - 2 dt (u_x + v_y) H[k] + 2 dt f
             + (-Ax + 2 Bx) H[k](x+1, y) + (Ax + 2 Bx) H[k](x-1, y)
             + (-Ay + 2 By) H[k](x, y+1) + (Ay + 2 By) H[k](x, y-1)

    L = 1 + 2 Bx + 2 By          M = 1 - 2 Bx - 2 By
    Ax = u dt / dx               Ay = v dt / dy               Courant numbers
    Bx = Dx dt / dx^2            By = Dy dt / dy^2            diffusion numbers
    u_x = (u(x+1, y) - u(x-1, y)) / (2 dx)                    central differences, v_y likewise

x runs along the width (axis -2, left to right) and y along the height (axis -3, top to bottom) of arrays
`(..., height, width, channels)`; the boundary is periodic. The functions are pure. They use only arithmetic operators
and `roll`, the neighbour access that the caller passes in: `numpy.roll`, or `keras.ops.roll` in the layer.

For any smooth velocity and constant diffusivity the step is consistent with the equation to second order. Where the
diffusivity varies, it approximates `Dx d2H/dx2 + Dy d2H/dy2` instead: it omits the derivatives of Dx and Dy. Without
diffusion it conserves the sum of H exactly.

Source: Kag & Saligrama, "Condensing CNNs With Partial Differential Equations", CVPR 2022, section 3.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

Tensor: TypeAlias = Any  # a NumPy array or a tensor of a Keras backend; a Python float where a field is constant
Roll: TypeAlias = Callable[[Tensor, int, int], Tensor]  # roll(array, shift, axis), periodic, as numpy.roll

X = -2  # axis of x: the width
Y = -3  # axis of y: the height


class Coefficients(NamedTuple):
    """The factors of one pixel's update, which are the same in every step.

    `divergence` is None without advection. The others are arrays, or floats if the fields are constant.
    """

    previous: Tensor  # M, of H[k-1]
    divergence: Tensor | None  # -2 dt (u_x + v_y), of H[k]
    source: float  # 2 dt, of f
    right: Tensor  # -Ax + 2 Bx, of H[k](x+1, y)
    left: Tensor  # Ax + 2 Bx, of H[k](x-1, y)
    below: Tensor  # -Ay + 2 By, of H[k](x, y+1)
    above: Tensor  # Ay + 2 By, of H[k](x, y-1)
    inverse: Tensor  # 1 / L


def courant_numbers(
    velocity: tuple[Tensor, Tensor], *, dt: float, dx: float = 1.0, dy: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the Courant numbers `(Ax, Ay) = (u dt / dx, v dt / dy)` of a velocity field `(u, v)`.

    For constant fields the scheme is stable if `|Ax| + |Ay| < 1` without diffusion. With diffusion numbers `(Bx, By)`,
    both > 0, it is stable if `(Bx + By) (Ax^2 / Bx + Ay^2 / By) <= 1`, which is never less strict.
    """
    u, v = velocity
    return u * (dt / dx), v * (dt / dy)


def diffusion_numbers(
    diffusivity: tuple[Tensor, Tensor], *, dt: float, dx: float = 1.0, dy: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the diffusion numbers `(Bx, By) = (Dx dt / dx^2, Dy dt / dy^2)` of a diffusivity `(Dx, Dy)`.

    Without advection the scheme is stable for every value >= 0. It converges to the equation only if `dt / dx -> 0` and
    `dt / dy -> 0` as the grid is refined: refine with dt ~ dx^2.
    """
    diffusivity_x, diffusivity_y = diffusivity
    return diffusivity_x * (dt / dx**2), diffusivity_y * (dt / dy**2)


def velocity_gradients(
    velocity: tuple[Tensor, Tensor], *, dx: float = 1.0, dy: float = 1.0, roll: Roll
) -> tuple[Tensor, Tensor]:
    """Return `(u_x, v_y)`, the central differences of a velocity field `(u, v)`; their sum is its divergence."""
    u, v = velocity
    return (roll(u, -1, X) - roll(u, 1, X)) / (2 * dx), (roll(v, -1, Y) - roll(v, 1, Y)) / (2 * dy)


def perona_malik_diffusivity(h: Tensor, *, contrast: float, dx: float = 1.0, dy: float = 1.0, roll: Roll) -> Tensor:
    """Return `1 / (1 + |grad H|^2 / contrast^2)`, 0 to 1, of the same shape as h, `(..., height, width, channels)`.

    The gradient is that of each channel, by central differences.

    Source: Perona & Malik, "Scale-space and edge detection using anisotropic diffusion", IEEE PAMI 12(7), 1990.
    """
    gradient_x = (roll(h, -1, X) - roll(h, 1, X)) * (0.5 / (dx * contrast))
    gradient_y = (roll(h, -1, Y) - roll(h, 1, Y)) * (0.5 / (dy * contrast))
    return 1 / (1 + gradient_x * gradient_x + gradient_y * gradient_y)


def coefficients(
    velocity: tuple[Tensor, Tensor] | None,
    diffusivity: tuple[Tensor, Tensor] | None,
    *,
    dt: float,
    dx: float = 1.0,
    dy: float = 1.0,
    roll: Roll,
) -> Coefficients:
    """Return the factors of the scheme for given fields.

    Args:
        velocity: `(u, v)`, arrays `(..., height, width, channels)`, or None for no advection.
        diffusivity: `(Dx, Dy)`, arrays of the same shape or floats, or None for no diffusion.
        dt: time step. dx, dy: distance between neighbouring pixels.
        roll: the periodic shift `roll(array, shift, axis)`.
    """
    bx, by = diffusion_numbers(diffusivity, dt=dt, dx=dx, dy=dy) if diffusivity else (0.0, 0.0)
    spread_x, spread_y = 2 * bx, 2 * by
    spread = spread_x + spread_y
    if velocity is None:
        divergence = None
        right = left = spread_x
        below = above = spread_y
    else:
        u, v = velocity
        ax, ay = courant_numbers(velocity, dt=dt, dx=dx, dy=dy)
        # -2 dt (u_x + v_y), with the 2 of the central difference cancelled.
        divergence = (roll(u, 1, X) - roll(u, -1, X)) * (dt / dx) + (roll(v, 1, Y) - roll(v, -1, Y)) * (dt / dy)
        right, left = spread_x - ax, spread_x + ax
        below, above = spread_y - ay, spread_y + ay
    return Coefficients(1 - spread, divergence, 2 * dt, right, left, below, above, 1 / (1 + spread))


def step(h: Tensor, h_previous: Tensor, forcing: Tensor, factors: Coefficients, *, roll: Roll) -> Tensor:
    """Return `H[k+1]` from `H[k]`, `H[k-1]` and the forcing `2 dt f`.

    All are arrays `(..., height, width, channels)`; the forcing may be a float.
    """
    total = factors.previous * h_previous + forcing
    if factors.divergence is not None:
        total = total + factors.divergence * h
    total = total + factors.right * roll(h, -1, X) + factors.left * roll(h, 1, X)
    total = total + factors.below * roll(h, -1, Y) + factors.above * roll(h, 1, Y)
    return total * factors.inverse


def levels(
    h: Tensor, h_previous: Tensor, source: Tensor, factors: Coefficients, *, num_steps: int, roll: Roll
) -> Iterator[Tensor]:
    """Yield `H[1]` to `H[num_steps]`, from `H[0] = h`, `H[-1] = h_previous` and the source f, an array or a float.

    The loop is plain Python: tracing unrolls it into a static graph.
    """
    forcing = factors.source * source
    for _ in range(num_steps):
        h, h_previous = step(h, h_previous, forcing, factors, roll=roll), h
        yield h


def solve(
    h: Tensor, h_previous: Tensor, source: Tensor, factors: Coefficients, *, num_steps: int, roll: Roll
) -> tuple[Tensor, Tensor]:
    """Return the last two of the `levels`, `(H[num_steps], H[num_steps - 1])`."""
    for level in levels(h, h_previous, source, factors, num_steps=num_steps, roll=roll):
        h, h_previous = level, h
    return h, h_previous
