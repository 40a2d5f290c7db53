"""The scheme and the layer again, naively: float64 NumPy, explicit indices, a loop per pixel, nothing of pdeinfer."""

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]


def naive_solve(
    h: Field,
    h_previous: Field,
    source: Field,
    *,
    u: Field,
    v: Field,
    diffusivity_x: Field,
    diffusivity_y: Field,
    num_steps: int,
    dt: float,
    dx: float = 1.0,
    dy: float = 1.0,
) -> tuple[Field, Field]:
    """Return `(H[num_steps], H[num_steps - 1])`, the update taken term by term from its formula.

    All fields are (N, H, W, C).
    """
    batch, height, width, channels = h.shape
    for _ in range(num_steps):
        h_next = np.empty_like(h)
        for n, y, x, c in np.ndindex(batch, height, width, channels):
            east, west = (x + 1) % width, (x - 1) % width
            south, north = (y + 1) % height, (y - 1) % height
            courant_x = u[n, y, x, c] * dt / dx
            courant_y = v[n, y, x, c] * dt / dy
            number_x = diffusivity_x[n, y, x, c] * dt / dx**2
            number_y = diffusivity_y[n, y, x, c] * dt / dy**2
            u_x = (u[n, y, east, c] - u[n, y, west, c]) / (2 * dx)
            v_y = (v[n, south, x, c] - v[n, north, x, c]) / (2 * dy)
            h_next[n, y, x, c] = (
                (1 - 2 * number_x - 2 * number_y) * h_previous[n, y, x, c]
                - 2 * dt * (u_x + v_y) * h[n, y, x, c]
                + 2 * dt * source[n, y, x, c]
                + (-courant_x + 2 * number_x) * h[n, y, east, c]
                + (courant_x + 2 * number_x) * h[n, y, west, c]
                + (-courant_y + 2 * number_y) * h[n, south, x, c]
                + (courant_y + 2 * number_y) * h[n, north, x, c]
            ) / (1 + 2 * number_x + 2 * number_y)
        h, h_previous = h_next, h
    return h, h_previous


def naive_perona_malik(h: Field, contrast: float) -> Field:
    """Return `1 / (1 + |grad h|^2 / contrast^2)` of (N, H, W, C), periodic, pixels 1 apart."""
    batch, height, width, channels = h.shape
    result = np.empty_like(h)
    for n, y, x, c in np.ndindex(batch, height, width, channels):
        gradient_x = (h[n, y, (x + 1) % width, c] - h[n, y, (x - 1) % width, c]) / 2
        gradient_y = (h[n, (y + 1) % height, x, c] - h[n, (y - 1) % height, x, c]) / 2
        result[n, y, x, c] = 1 / (1 + (gradient_x**2 + gradient_y**2) / contrast**2)
    return result


def naive_convolution(h: Field, kernel: Field) -> Field:
    """Return the convolution (in the sense of neural networks) of (N, H, W, C) with zero 'same' padding.

    The kernel is (3, 3, channels in, channels out), or (1, 1, channels in, channels out).
    """
    batch, height, width, _ = h.shape
    reach = kernel.shape[0] // 2
    result = np.zeros((batch, height, width, kernel.shape[3]))
    for n, y, x, out in np.ndindex(result.shape):
        for i, j in np.ndindex(kernel.shape[:2]):
            row, column = y + i - reach, x + j - reach
            if 0 <= row < height and 0 <= column < width:
                result[n, y, x, out] += np.dot(h[n, row, column, :], kernel[i, j, :, out])
    return result


def naive_depthwise_convolution(h: Field, kernel: Field) -> Field:
    """Return the 3x3 convolution of each channel on its own, with zero 'same' padding; the kernel is (3, 3, C, 1)."""
    channels = [naive_convolution(h[..., c : c + 1], kernel[:, :, c : c + 1, :]) for c in range(h.shape[3])]
    return np.concatenate(channels, axis=3)


def naive_batch_norm(h: Field, gamma: Field, beta: Field, mean: Field, variance: Field) -> Field:
    """Return the batch normalisation of inference, epsilon 1e-5."""
    return gamma * (h - mean) / np.sqrt(variance + 1e-5) + beta


def naive_relu(h: Field) -> Field:
    """Return max(h, 0)."""
    return np.where(h > 0, h, 0.0)
