"""HMAX: simple and complex cells in two stages.

Sources: Riesenhuber & Poggio 1999, Nat. Neurosci. 2:1019; Serre, Wolf, Bileschi, Riesenhuber & Poggio 2007, IEEE PAMI
29:411, sections 2.1-2.2 and Table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import Field

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError
from neuroreel.core.seeds import generator
from neuroreel.features.extractor import Extractor, check_frames, grey, known_layers, resize, restore_array
from neuroreel.features.gabor import gabor

if TYPE_CHECKING:
    from torch import Tensor

LAYERS = ("hmax1", "hmax2", "hmax3")
ASPECT = 0.3


class HmaxConfig(Config):
    """Settings of HMAX.

    Attributes
    ----------
    size : frames are made grey and size x size pixels.
    scales : number of Gabor sizes, 7, 9, 11 ... pixels; two neighbours form one band of C1. 16 in Serre 2007.
    orientations : of the Gabors.
    units : units of hmax1 and hmax2, an even sample of all S1 and C1 cells.
    patches : prototypes of S2, which are the units of hmax3; taken from training frames.
    patch_sizes : sides of the prototypes in C1 cells.
    """

    layers: tuple[str, ...] = LAYERS
    size: int = Field(default=64, ge=32)
    scales: int = Field(default=8, ge=2)
    orientations: int = Field(default=4, ge=1)
    units: int = Field(default=1000, ge=1)
    patches: int = Field(default=200, ge=1)
    patch_sizes: tuple[int, ...] = (4, 8)
    batch: int = Field(default=32, ge=1)


def s1_bank(scales: int, orientations: int) -> list[np.ndarray]:
    """Return the Gabors of S1 by scale, each (orientations, side, side) with mean 0 and norm 1.

    Sides are 7, 9, ... pixels; sigma = 0.0036 s^2 + 0.35 s + 0.18 and wavelength = sigma / 0.8, which are within
    2 % of Table 1 of Serre 2007; outside the circle of the side's diameter they are 0.
    """
    bank = []
    for scale in range(scales):
        side = 7 + 2 * scale
        sigma = 0.0036 * side**2 + 0.35 * side + 0.18
        half = side // 2
        y, x = np.mgrid[-half : half + 1, -half : half + 1]
        circle = x**2 + y**2 <= (side / 2) ** 2
        kernels = []
        for i in range(orientations):
            kernel = gabor(side, sigma / 0.8, sigma, np.pi * i / orientations, ASPECT, 0.0)
            kernel = np.where(circle, kernel - kernel[circle].mean(), 0)
            kernels.append(kernel / np.linalg.norm(kernel))
        bank.append(np.stack(kernels))
    return bank


class HmaxExtractor(Extractor):
    """hmax1 (S1 cells), hmax2 (C1 cells), hmax3 (C2: the best match of each S2 prototype anywhere in the frame)."""

    name = "hmax"
    learns = True

    def __init__(self, config: HmaxConfig | None = None) -> None:
        self.config: HmaxConfig = config or HmaxConfig()
        self.prototypes_: dict[int, np.ndarray] = {}
        known_layers(self.config.layers, LAYERS)
        even = self.config.scales % 2 == 0
        checks.require(even, "scales", "must be even", self.config.scales, error=ConfigError)
        fits = self.c1_shapes[-1][1] >= 1
        rule = f"must be fewer for size {self.config.size}: the largest cells don't fit"
        checks.require(fits, "scales", rule, self.config.scales, error=ConfigError)
        most = self.c1_shapes[0][1]
        sides = self.config.patch_sizes
        fits = len(sides) > 0 and all(1 <= side <= most for side in sides)
        rule = f"must lie within 1..{most}, the C1 cells of a side"
        checks.require(fits, "patch_sizes", rule, sides, error=ConfigError)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order of their units."""
        return self.config.layers

    @cached_property
    def c1_shapes(self) -> list[tuple[int, int, int]]:
        """(orientations, height, width) of each band of C1: pooled over 8 + 2 band pixels, half overlapping."""
        shapes = []
        for band in range(self.config.scales // 2):
            pool, step = 8 + 2 * band, 4 + band
            side = max(0, (self.config.size - pool) // step + 1)
            shapes.append((self.config.orientations, side, side))
        return shapes

    def shape(self, layer: str) -> tuple[int, ...]:
        """Return (units,) of a layer."""
        checks.one_of("layer", layer, LAYERS)
        if layer == "hmax3":
            return (self.config.patches,)
        s1 = self.config.scales * self.config.orientations * self.config.size**2
        cells = s1 if layer == "hmax1" else sum(int(np.prod(shape)) for shape in self.c1_shapes)
        return (min(self.config.units, cells),)

    def fit(self, frames: np.ndarray, *, seed: int = 0) -> Self:
        """Take the S2 prototypes from C1 of training frames: a random frame, band and place each."""
        check_frames(frames)
        rng = generator(seed, "hmax", "prototypes")
        sides = [self.config.patch_sizes[i % len(self.config.patch_sizes)] for i in range(self.config.patches)]
        chosen = rng.integers(len(frames), size=self.config.patches)
        found: dict[int, list[np.ndarray]] = {side: [] for side in self.config.patch_sizes}
        for frame in np.unique(chosen):
            maps = [band[0].numpy() for band in self._c1(self._s1(frames[frame : frame + 1]))]
            for patch in np.flatnonzero(chosen == frame):
                side = sides[patch]
                bands = [i for i, shape in enumerate(self.c1_shapes) if shape[1] >= side]
                c1 = maps[rng.choice(bands)]
                y, x = rng.integers(c1.shape[1] - side + 1, size=2)
                found[side].append(c1[:, y : y + side, x : x + side])
        self.prototypes_ = {side: np.stack(patches) for side, patches in found.items() if patches}
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the prototypes (patches, orientations, side, side) by side."""
        return {f"prototypes{side}": patches for side, patches in self.prototypes_.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Take back the prototypes."""
        axes = ("patches", "orientations", "height", "width")
        sides = {side for side in self.config.patch_sizes if f"prototypes{side}" in arrays} or set(
            self.config.patch_sizes
        )
        self.prototypes_ = {side: restore_array(arrays, f"prototypes{side}", axes, "hmax") for side in sorted(sides)}
        total = sum(len(patches) for patches in self.prototypes_.values())
        checks.same_length("hmax prototypes", total, "patches of the config", self.config.patches)
        return self

    @cached_property
    def _bank(self) -> list[Tensor]:
        import torch

        return [torch.from_numpy(k).float()[:, None] for k in s1_bank(self.config.scales, self.config.orientations)]

    def _s1(self, frames: np.ndarray) -> list[Tensor]:
        """Return |correlation| of each Gabor with the pixels under it, (n, orientations, size, size) by scale."""
        import torch
        import torch.nn.functional as F

        size = self.config.size
        x = torch.from_numpy(grey(resize(frames, size, size)))[:, None]
        maps = []
        for kernels in self._bank:
            side = kernels.shape[-1]
            half = side // 2
            padded = F.pad(x, (half,) * 4, mode="reflect")
            power = F.avg_pool2d(padded.square(), side, 1) * side**2
            maps.append(F.conv2d(padded, kernels).abs() / power.clamp_min(1e-6).sqrt())
        return maps

    def _c1(self, s1: list[Tensor]) -> list[Tensor]:
        """Return the largest of two scales within a neighbourhood, (n, orientations, height, width) by band."""
        import torch
        import torch.nn.functional as F

        return [
            F.max_pool2d(torch.maximum(s1[2 * band], s1[2 * band + 1]), 8 + 2 * band, 4 + band)
            for band in range(len(s1) // 2)
        ]

    def _c2(self, c1: list[Tensor]) -> Tensor:
        """Return exp(-d^2) of the nearest place in all bands for every prototype (Serre 2007, eq. 4 with beta 1)."""
        import torch
        import torch.nn.functional as F

        parts: list[Tensor] = []
        for side, patches in self.prototypes_.items():
            kernels = torch.from_numpy(patches).float()
            ones = torch.ones(1, *kernels.shape[1:])
            energy = kernels.square().sum((1, 2, 3)).view(1, -1, 1, 1)
            nearest = [
                (F.conv2d(band.square(), ones) - 2 * F.conv2d(band, kernels) + energy).amin((2, 3))
                for band in c1
                if band.shape[2] >= side
            ]
            parts.append(torch.exp(-torch.stack(nearest).amin(0).clamp_min(0)))
        return torch.cat(parts, 1)

    def _compute(self, frames: np.ndarray, fps: float) -> dict[str, np.ndarray]:
        import torch

        found: dict[str, Tensor] = {}
        with torch.inference_mode():
            s1 = self._s1(frames)
            found["hmax1"] = self._sample([band.flatten(1) for band in s1], "hmax1")
            if {"hmax2", "hmax3"} & set(self.layers):
                c1 = self._c1(s1)
                found["hmax2"] = self._sample([band.flatten(1) for band in c1], "hmax2")
            if "hmax3" in self.layers:
                found["hmax3"] = self._c2(c1)
        return {layer: found[layer].numpy() for layer in self.layers}

    def _sample(self, bands: list[Tensor], layer: str) -> Tensor:
        """Return the config's number of cells, evenly spread over all cells of the bands."""
        import torch

        total = sum(band.shape[1] for band in bands)
        kept = np.linspace(0, total - 1, self.shape(layer)[0]).astype(np.int64)
        return torch.cat([band[:, kept[(kept >= a) & (kept < a + band.shape[1])] - a] for a, band in _placed(bands)], 1)


def _placed(bands: list[Tensor]) -> list[tuple[int, Tensor]]:
    starts = np.cumsum([0, *[band.shape[1] for band in bands]])[:-1]
    return [(int(start), band) for start, band in zip(starts, bands, strict=True)]
