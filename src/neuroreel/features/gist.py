"""GIST: the energy of oriented filters on a coarse grid, the layout of a scene.

Source: Oliva & Torralba 2001, Int. J. Comput. Vis. 42:145: local contrast normalisation, Gabor transfer functions in
log-spaced frequencies, mean magnitude over the cells of a grid.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from pydantic import Field

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.features.extractor import Extractor, grey, resize


class GistConfig(Config):
    """Settings of GIST.

    Attributes
    ----------
    size : frames are made grey and size x size pixels.
    orientations : number of orientations at each scale, from the finest scale to the coarsest.
    grid : cells of a side.
    prefilter_cycles : cycles per image below which the contrast normalisation removes variation; 0 leaves it out.
    """

    size: int = Field(default=128, ge=16)
    orientations: tuple[int, ...] = (8, 8, 8, 8)
    grid: int = Field(default=4, ge=1)
    prefilter_cycles: float = Field(default=4.0, ge=0)
    batch: int = Field(default=32, ge=1)


def transfer_functions(size: int, orientations: tuple[int, ...]) -> np.ndarray:
    """Return the filters in the frequency plane of `numpy.fft`, (filters, size, size) float32.

    Scale i is centred at 0.3 / 1.85^i cycles per pixel with a relative bandwidth set by 3.5:
    exp(-3.5 (f / f_i - 1)^2 - 2 c pi angle^2), c = orientations^2 / 64, one-sided, so that the magnitude of the
    filtered picture is its local energy. Filter j of a scale has its carrier at
    the angle pi j / orientations from the x axis.
    """
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    frequency, angle = np.hypot(fx, fy), np.arctan2(fy, fx)
    filters = []
    for scale, count in enumerate(orientations):
        centre = 0.3 / 1.85**scale
        for j in range(count):
            away = np.angle(np.exp(1j * (angle - np.pi * j / count)))
            sharpness = 2 * np.pi * (16 * count**2 / 32**2)
            filters.append(np.exp(-3.5 * (frequency / centre - 1) ** 2 - sharpness * away**2))
    found = np.stack(filters)
    found[:, 0, 0] = 0
    return found.astype(np.float32)


class GistExtractor(Extractor):
    """Mean Gabor energy by filter and grid cell: (filters, grid, grid)."""

    name = "gist"
    layers = ("gist",)

    def __init__(self, config: GistConfig | None = None) -> None:
        self.config: GistConfig = config or GistConfig()

    def shape(self, layer: str) -> tuple[int, ...]:
        """Return (filters, grid, grid)."""
        checks.one_of("layer", layer, self.layers)
        return (sum(self.config.orientations), self.config.grid, self.config.grid)

    @cached_property
    def _filters(self) -> np.ndarray:
        return transfer_functions(self.config.size, self.config.orientations)

    def normalise(self, frames: np.ndarray) -> np.ndarray:
        """Return frames with equal local contrast, (n, size, size) float32: low frequencies out, local variance out."""
        x = np.log1p(255 * grey(resize(frames, self.config.size, self.config.size)))
        if self.config.prefilter_cycles == 0:
            return x - x.mean((1, 2), keepdims=True)
        size, pad = self.config.size, min(self.config.size // 4, 32)
        wide = np.pad(x, ((0, 0), (pad, pad), (pad, pad)), mode="symmetric")
        side = size + 2 * pad
        fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
        # Half of the amplitude is left at the given cycles per image.
        low = np.exp2(-((np.hypot(fx, fy) * size / self.config.prefilter_cycles) ** 2)).astype(np.float32)
        high = wide - np.fft.ifft2(np.fft.fft2(wide) * low).real
        local = np.sqrt(np.maximum(np.fft.ifft2(np.fft.fft2(high**2) * low).real, 0))
        return (high / (0.2 + local))[:, pad:-pad, pad:-pad].astype(np.float32)

    def _compute(self, frames: np.ndarray, fps: float) -> dict[str, np.ndarray]:
        import scipy.fft

        spectrum = scipy.fft.fft2(self.normalise(frames))  # (n, size, size), complex64
        grid, size = self.config.grid, self.config.size
        edges = np.linspace(0, size, grid + 1).astype(int)
        area = np.outer(np.diff(edges), np.diff(edges))
        found = np.empty((len(frames), *self.shape("gist")), dtype=np.float32)
        for i, transfer in enumerate(self._filters):
            energy = np.abs(scipy.fft.ifft2(spectrum * transfer))
            sums = np.add.reduceat(np.add.reduceat(energy, edges[:-1], axis=1), edges[:-1], axis=2)
            found[:, i] = sums / area
        return {"gist": found.reshape(len(frames), -1)}
