"""Motion energy: a pyramid of spatio-temporal Gabors in quadrature.

Sources: Adelson & Bergen 1985, J. Opt. Soc. Am. A 2:284; Nishimoto et al. 2011, Curr. Biol. 21:1641 (the pyramid).

A direction is that of the grating which a filter answers to. Numbers agree with pymoten 0.1.3 where its direction is
turned by 180 degrees: its responses are convolutions in time, which answer to the reverse of the filter that it draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from pydantic import Field

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.features.extractor import Extractor, grey, resize


class MotionEnergyConfig(Config):
    """Settings of the pyramid.

    Attributes
    ----------
    size : frames are made grey and size x size pixels.
    directions : number of directions of motion, from 0 (right) anticlockwise.
    cycles : spatial frequencies in cycles per image.
    hertz : temporal frequencies; at 0 opposite directions are one filter and only half of them are kept.
    window_s : length of the filters in seconds.
    cycles_per_sigma : standard deviation of a filter in wavelengths, at most `max_sigma` image heights.
    spacing : distance between neighbouring filters in standard deviations.
    log : return log(1 + energy) in place of the energy's root.
    """

    size: int = Field(default=64, ge=8)
    directions: int = Field(default=8, ge=2)
    cycles: tuple[float, ...] = (2.0, 4.0, 8.0)
    hertz: tuple[float, ...] = (0.0, 2.0, 4.0)
    window_s: float = Field(default=2 / 3, gt=0)
    cycles_per_sigma: float = Field(default=0.6, gt=0)
    max_sigma: float = Field(default=0.3, gt=0)
    max_sigma_time: float = Field(default=0.3, gt=0)
    spacing: float = Field(default=3.5, gt=0)
    log: bool = False


@dataclass(frozen=True)
class MotionFilter:
    """One spatio-temporal Gabor.

    Attributes
    ----------
    x, y : centre from the left and from the top, in image heights.
    direction : of the motion that it prefers, degrees; 0 is right, 90 is up.
    cycles : spatial frequency in cycles per image height.
    hertz : temporal frequency.
    sigma : standard deviation in image heights.
    sigma_time : standard deviation in windows.
    """

    x: float
    y: float
    direction: float
    cycles: float
    hertz: float
    sigma: float
    sigma_time: float

    @property
    def name(self) -> str:
        """Direction, frequencies and centre as text."""
        return f"{self.direction:g}deg/{self.cycles:g}cpi/{self.hertz:g}Hz/x{self.x:.3f}/y{self.y:.3f}"


def pyramid(config: MotionEnergyConfig) -> list[MotionFilter]:
    """Return the filters: at every spatial frequency a centred square grid, all directions and temporal frequencies."""
    filters = []
    for cycles in config.cycles:
        sigma = min(config.cycles_per_sigma / cycles, config.max_sigma) if cycles else config.max_sigma
        apart = config.spacing * sigma
        each_side = max(0, int(np.floor((1 - apart) / (2 * apart) + 1e-9)))
        centres = 0.5 + apart * np.arange(-each_side, each_side + 1)
        for i in range(config.directions):
            direction = 360 * i / config.directions
            for x in centres:
                for y in centres:
                    for hertz in config.hertz:
                        if hertz == 0 and direction >= 180:
                            continue
                        sigma_time = min(10 / hertz, config.max_sigma_time) if hertz else config.max_sigma_time
                        filters.append(MotionFilter(x, y, direction, cycles, hertz, sigma, sigma_time))
    return filters


def spatial_pair(filters: list[MotionFilter], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sine and the cosine Gabors in space, each (filters, height * width) float32."""
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, width / height, width), indexing="ij")
    sines, cosines = [], []
    for one in filters:
        dx, dy = (x - one.x).ravel(), (y - one.y).ravel()
        angle = np.deg2rad(one.direction)
        phase = 2 * np.pi * one.cycles * (dx * np.cos(angle) - dy * np.sin(angle))
        envelope = np.exp(-(dx**2 + dy**2) / (2 * one.sigma**2))
        sines.append(envelope * np.sin(phase))
        cosines.append(envelope * np.cos(phase))
    return np.asarray(sines, np.float32), np.asarray(cosines, np.float32)


def temporal_pair(one: MotionFilter, taps: int, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the sine and the cosine Gabor in time, each (taps,); the middle is at tap taps / 2."""
    place = np.arange(taps) / taps - 0.5  # in windows
    phase = 2 * np.pi * one.hertz * (taps / fps) * place
    envelope = np.exp(-(place**2) / (2 * one.sigma_time**2))
    return envelope * np.sin(phase), envelope * np.cos(phase)


def motion_energy(pictures: np.ndarray, fps: float, filters: list[MotionFilter], window_s: float = 2 / 3) -> np.ndarray:
    """Return the root of the energy of each quadrature pair, (frames, filters) float32.

    A separable pair s_sin, s_cos in space and t_sin, t_cos in time gives the two phases of a moving grating:
    s_sin t_cos + s_cos t_sin and s_cos t_cos - s_sin t_sin. Before the first and after the last frame all is 0.

    Parameters
    ----------
    pictures : (frames, height, width) float.
    fps : frames per second.
    filters : what to respond to.
    window_s : length of the filters.

    Raises
    ------
    DataError : the window is shorter than one frame.
    """
    checks.dimensions("pictures", pictures, ("frames", "height", "width"))
    taps = int(window_s * fps + 1e-9)
    checks.require(taps >= 1, "window_s", "must hold 1 frame or more", f"{window_s} s at {fps} fps")
    flat = np.asarray(pictures, np.float32).reshape(len(pictures), -1)
    # A filter is told apart in space by 5 numbers; temporal frequencies share its products with the pictures.
    places = [(one.x, one.y, one.direction, one.cycles, one.sigma) for one in filters]
    index = {place: i for i, place in enumerate(dict.fromkeys(places))}
    firsts = [filters[places.index(place)] for place in index]
    found_sin = np.empty((len(flat), len(firsts)), np.float32)
    found_cos = np.empty_like(found_sin)
    for start in range(0, len(firsts), 256):
        block = slice(start, start + 256)
        sine, cosine = _spatial_cached(tuple(firsts[block]), *pictures.shape[1:])
        found_sin[:, block], found_cos[:, block] = flat @ sine.T, flat @ cosine.T
    energy = np.empty((len(flat), len(filters)), np.float32)
    kinds: dict[tuple[float, float], list[int]] = {}
    for i, one in enumerate(filters):
        kinds.setdefault((one.hertz, one.sigma_time), []).append(i)
    for members in kinds.values():
        sine, cosine = temporal_pair(filters[members[0]], taps, fps)
        columns = [index[places[i]] for i in members]
        a, b = found_sin[:, columns], found_cos[:, columns]
        first = _in_time(a, cosine) + _in_time(b, sine)
        second = _in_time(b, cosine) - _in_time(a, sine)
        energy[:, members] = np.sqrt(first**2 + second**2)
    return energy


@lru_cache(maxsize=16)
def _spatial_cached(filters: tuple[MotionFilter, ...], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return spatial_pair(list(filters), height, width)


def _in_time(x: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Convolve each column of x (frames, columns) with the taps, their middle at 0, zeros outside."""
    out = np.zeros_like(x)
    middle = (len(taps) + 1) // 2 - 1
    for i, weight in enumerate(taps.astype(np.float32)):
        lag = i - middle
        if abs(lag) >= len(x):
            continue
        if lag >= 0:
            out[lag:] += weight * x[: len(x) - lag]
        else:
            out[:lag] += weight * x[-lag:]
    return out


class MotionEnergyExtractor(Extractor):
    """Motion energy of a pyramid of Gabors; a frame's features depend on the frames around it."""

    name = "motion-energy"
    layers = ("motion-energy",)

    def __init__(self, config: MotionEnergyConfig | None = None) -> None:
        self.config: MotionEnergyConfig = config or MotionEnergyConfig()
        self.filters = pyramid(self.config)

    @property
    def reach_s(self) -> float:
        """Half of the filters' window, and a little more for its rounding to frames."""
        return self.config.window_s / 2 + 1e-3

    def shape(self, layer: str) -> tuple[int, ...]:
        """Return (filters,)."""
        checks.one_of("layer", layer, self.layers)
        return (len(self.filters),)

    def unit_names(self, layer: str) -> np.ndarray:
        """Return direction, frequencies and centre of every filter as text."""
        checks.one_of("layer", layer, self.layers)
        return np.array([one.name for one in self.filters])

    def _compute(self, frames: np.ndarray, fps: float) -> dict[str, np.ndarray]:
        pictures = grey(resize(frames, self.config.size, self.config.size))
        energy = motion_energy(pictures, fps, self.filters, self.config.window_s)
        return {"motion-energy": np.log1p(energy) if self.config.log else energy}
