"""Gabor kernels, shared by the filter banks."""

from __future__ import annotations

import numpy as np


def gabor(size: int, wavelength: float, sigma: float, orientation: float, aspect: float, phase: float) -> np.ndarray:
    """Return exp(-(u^2 + aspect^2 v^2) / 2 sigma^2) cos(2 pi u / wavelength + phase), (size, size) float64.

    Parameters
    ----------
    size : pixels of a side, odd.
    wavelength, sigma : in pixels.
    orientation : angle of the axis u along which the carrier runs, from the x axis (right) towards y (down), radians.
    aspect : sigma along u over sigma along v.
    phase : radians.
    """
    half = size // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    u = x * np.cos(orientation) + y * np.sin(orientation)
    v = y * np.cos(orientation) - x * np.sin(orientation)
    return np.exp(-(u**2 + (aspect * v) ** 2) / (2 * sigma**2)) * np.cos(2 * np.pi * u / wavelength + phase)
