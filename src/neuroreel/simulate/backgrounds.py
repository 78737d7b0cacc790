"""Ten places behind the objects, each a panorama of gradients, silhouettes and 1/f texture."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from neuroreel.core import checks
from neuroreel.core.seeds import generator
from neuroreel.simulate.pen import Colour

ASPECT = 2.5
"""Width of a panorama over its height: what a camera can pan over."""

TEXTURE_ROWS, TEXTURE_COLUMNS = 256, 1024


@lru_cache(maxsize=16)
def pink_noise(kind: int, stretch: float = 1.0, power: float = 1.2) -> np.ndarray:
    """Return a periodic 1/f texture, (256, 1024) float32 with mean 0 and standard deviation 1.

    Parameters
    ----------
    kind : number of the texture.
    stretch : how many times wider than high its blotches are.
    power : exponent of the fall of amplitude with frequency; higher is smoother.
    """
    rng = generator(kind, "pink noise")
    fy = np.fft.fftfreq(TEXTURE_ROWS)[:, None]
    fx = np.fft.rfftfreq(TEXTURE_COLUMNS)[None, :] * stretch
    radius = np.hypot(fy, fx)
    radius[0, 0] = np.inf
    phase = rng.uniform(0, 2 * np.pi, radius.shape)
    field = np.fft.irfft2(np.exp(1j * phase) / radius**power, (TEXTURE_ROWS, TEXTURE_COLUMNS))
    return (field / field.std()).astype(np.float32)


class Land:
    """A panorama in the making.

    Parameters
    ----------
    rows : height in pixels; the width is ASPECT times that.
    rng : generator of the view.
    """

    def __init__(self, rows: int, rng: np.random.Generator) -> None:
        self.rows, self.columns, self.rng = rows, round(ASPECT * rows), rng
        self.x = (np.arange(self.columns, dtype=np.float32) + 0.5) / rows
        self.y = (np.arange(rows, dtype=np.float32)[:, None] + 0.5) / rows
        self.rgb = np.zeros((rows, self.columns, 3), np.float32)

    def between(self, low: float, high: float) -> float:
        """Return a number drawn evenly between two limits."""
        return float(self.rng.uniform(low, high))

    def noise(self, stretch: float = 1.0, zoom: float = 1.0, power: float = 1.2) -> np.ndarray:
        """Return a 1/f texture over the panorama, (rows, columns) float32; `zoom` above 1 enlarges its blotches."""
        field = pink_noise(int(self.rng.integers(4)), stretch, power)
        top, left = (int(self.rng.integers(n)) for n in field.shape)
        rows, columns = min(TEXTURE_ROWS, round(TEXTURE_ROWS / zoom)), min(TEXTURE_COLUMNS, round(640 / zoom))
        window = field.take(np.arange(top, top + rows), 0, mode="wrap").take(
            np.arange(left, left + columns), 1, mode="wrap"
        )
        small = self.rows < rows
        return cv2.resize(window, (self.columns, self.rows), interpolation=cv2.INTER_AREA if small else cv2.INTER_CUBIC)

    def skyline(self, level: float, relief: float) -> np.ndarray:
        """Return the height of a ridge of hills along the panorama, (columns,), in panorama heights from the top."""
        field = pink_noise(int(self.rng.integers(4)))[int(self.rng.integers(TEXTURE_ROWS))]
        at = self.x * 150 + self.rng.integers(TEXTURE_COLUMNS)
        coarse = np.convolve(np.tile(field, 3), np.hanning(41) / 20, "same")[TEXTURE_COLUMNS : 2 * TEXTURE_COLUMNS]
        return level + relief * np.interp(at % TEXTURE_COLUMNS, np.arange(TEXTURE_COLUMNS), coarse)

    def ramp(self, *stops: tuple[float, Colour]) -> np.ndarray:
        """Return a vertical gradient through colours at given heights, (rows, 1, 3)."""
        at = [height for height, _ in stops]
        return np.stack([np.interp(self.y, at, [colour[k] for _, colour in stops]) for k in range(3)], axis=-1)

    def blend(self, colour: np.ndarray | Colour, share: np.ndarray) -> None:
        """Mix a colour into the panorama where `share` (rows, columns), 0 to 1, says so."""
        self.rgb += (np.asarray(colour, np.float32) - self.rgb) * share[..., None]

    def below(self, line: np.ndarray | float) -> np.ndarray:
        """Return 1 below a line and 0 above, with a soft edge of one pixel."""
        return np.clip((self.y - line) * self.rows + 0.5, 0, 1) * np.ones_like(self.x)

    def inside(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
        """Return the window of pixels of a rectangle."""
        r = self.rows
        return slice(max(0, round(y0 * r)), max(0, round(y1 * r))), slice(max(0, round(x0 * r)), max(0, round(x1 * r)))

    def dot(self, colour: Colour, x: float, y: float, radius: float, share: float = 1.0) -> None:
        """Paint a small disc."""
        rows, columns = self.inside(x - radius - 0.02, y - radius - 0.02, x + radius + 0.02, y + radius + 0.02)
        window = self.rgb[rows, columns]
        away = np.hypot(self.x[columns] - x, self.y[rows] - y)
        window += (
            (np.array(colour, np.float32) - window)
            * share
            * np.clip((radius - away) * self.rows + 0.5, 0, 1)[..., None]
        )

    def disc(self, x: float, y: float, radius: float) -> np.ndarray:
        """Return 1 within a disc and 0 outside, with an edge of one pixel."""
        return np.clip((radius - np.hypot(self.x - x, self.y - y)) * self.rows + 0.5, 0, 1)

    def glow(self, x: float, y: float, radius: float) -> np.ndarray:
        """Return a soft light around a point, 1 in its middle."""
        return np.exp(-((self.x - x) ** 2 + (self.y - y) ** 2) / radius**2)


def _clouds(land: Land, level: float, colour: Colour = (255, 255, 255), most: float = 0.85) -> None:
    field = land.noise(stretch=2.2, zoom=1.2, power=1.6)
    share = np.clip((field - 0.4) * 1.3, 0, 1) * np.clip((level - land.y) / 0.25, 0, 1)
    land.blend(colour, most * share)


def sky(land: Land) -> None:
    """Blue air with clouds and a low haze."""
    land.rgb += land.ramp((0, (104, 168, 222)), (0.7, (176, 214, 236)), (1, (222, 234, 236)))
    _clouds(land, 1.2)


def meadow(land: Land) -> None:
    """A meadow under hills."""
    horizon = land.between(0.42, 0.56)
    land.rgb += land.ramp((0, (140, 196, 230)), (horizon, (214, 232, 232)))
    _clouds(land, horizon)
    land.blend((122, 166, 134), land.below(land.skyline(horizon - 0.04, 0.05)))
    field = land.ramp((horizon, (148, 184, 98)), (1, (92, 142, 72)))
    land.blend(field + 9 * land.noise(stretch=0.7)[..., None], land.below(land.skyline(horizon + 0.05, 0.025)))
    for _ in range(26):
        x, y = land.between(0, ASPECT), land.between(horizon + 0.12, 0.98)
        land.dot((250, 240, 190), x, y, 0.006 + 0.01 * (y - horizon), 0.9)


def sea(land: Land) -> None:
    """Water with swell to the horizon."""
    horizon = land.between(0.34, 0.48)
    land.rgb += land.ramp((0, (146, 196, 226)), (horizon, (236, 226, 208)))
    _clouds(land, horizon)
    deep = land.ramp((horizon, (92, 158, 184)), (1, (40, 100, 142)))
    depth = np.clip((land.y - horizon) / (1 - horizon), 0.02, 1)
    swell = np.sin(26 / (depth + 0.25) + 1.2 * land.noise(stretch=3.0, power=1.6))
    water = deep + (10 * swell * (0.4 + depth) + 5 * land.noise(stretch=4.0))[..., None]
    land.blend(water, land.below(horizon))


def desert(land: Land) -> None:
    """Dunes under a warm sky with a sun."""
    horizon = land.between(0.46, 0.58)
    land.rgb += land.ramp((0, (128, 178, 204)), (horizon, (250, 222, 178)))
    x = land.between(0.3, ASPECT - 0.3)
    land.blend((255, 244, 206), 0.8 * land.glow(x, horizon - 0.3, 0.16))
    for k, colour in enumerate(((218, 172, 122), (228, 186, 128), (212, 164, 104))):
        ridge = land.skyline(horizon + 0.13 * k, 0.08)
        ripple = np.sin(land.noise(stretch=2.2, power=1.6) * 3 + land.y * 110)
        shade = np.clip((land.y - ridge) * 2.2, 0, 1) * -34 + 5 * ripple + 4 * land.noise()
        land.blend(np.asarray(colour, np.float32) + shade[..., None], land.below(ridge))


def snow(land: Land) -> None:
    """A white field before mountains."""
    horizon = land.between(0.5, 0.6)
    land.rgb += land.ramp((0, (156, 184, 212)), (horizon, (226, 230, 236)))
    crest = np.abs((land.x * land.between(1.3, 1.8) + land.between(0, 1)) % 1 - 0.5) * 2
    peaks = land.skyline(horizon - 0.32, 0.05) + 0.3 * crest
    rough = land.noise(stretch=0.5)
    land.blend((142, 156, 182) + 9 * rough[..., None], land.below(peaks))
    cap = np.clip((0.1 - (land.y - peaks)) * 16 + 1.1 * rough, 0, 1)
    land.blend((244, 247, 250), cap * land.below(peaks))
    ground = land.ramp((horizon, (206, 216, 230)), (1, (176, 192, 216)))
    land.blend(ground + 5 * land.noise(stretch=2.2)[..., None], land.below(land.skyline(horizon, 0.03)))
    for _ in range(70):
        land.dot((252, 252, 255), land.between(0, ASPECT), land.between(0, 1), land.between(0.005, 0.01), 0.85)


def street(land: Land) -> None:
    """A row of house fronts behind a pavement and a road with a dashed line."""
    land.rgb += land.ramp((0, (178, 200, 214)), (0.5, (226, 222, 212)))
    left = -land.between(0, 0.2)
    walls: tuple[Colour, ...] = ((176, 146, 130), (150, 156, 166), (192, 176, 148), (140, 128, 132), (166, 160, 144))
    while left < ASPECT:
        right, top = left + land.between(0.26, 0.46), land.between(0.04, 0.3)
        land.rgb[land.inside(left, top, right, 0.7)] = walls[int(land.rng.integers(len(walls)))]
        land.rgb[land.inside(left, top, right, top + 0.025)] *= 0.72
        lit = land.between(0.7, 1.0)
        for y in np.arange(top + 0.09, 0.56, 0.14):
            for x in np.arange(left + 0.05, right - 0.07, 0.095):
                land.rgb[land.inside(x, y, x + 0.05, y + 0.08)] = (
                    (96, 112, 130) if land.rng.random() < lit else (236, 214, 150)
                )
        land.rgb[land.inside(right - 0.008, top, right, 0.7)] *= 0.6
        left = right
    land.rgb += 6 * land.noise()[..., None]
    land.blend((190, 184, 176) + 5 * land.noise()[..., None], land.below(0.66))
    land.blend((104, 104, 112) + 7 * land.noise()[..., None], land.below(0.74))
    for x in np.arange(-land.between(0, 0.3), ASPECT, 0.3):
        land.rgb[land.inside(x, 0.86, x + 0.15, 0.885)] = (226, 220, 196)


def room(land: Land) -> None:
    """A papered wall with a window and pictures over a wooden floor."""
    papers: tuple[Colour, ...] = ((206, 196, 176), (176, 194, 190), (200, 184, 190), (184, 190, 208))
    paper = np.asarray(papers[int(land.rng.integers(len(papers)))], np.float32)
    floor = land.between(0.66, 0.74)
    land.rgb += (
        paper + (6 * np.sign(np.sin(land.x * 58)) + 4 * land.noise())[..., None] - 26 * (land.y[..., None] - 0.4)
    )
    for x in np.arange(land.between(0.1, 0.5), ASPECT - 0.3, land.between(0.75, 0.95)):
        land.rgb[land.inside(x - 0.02, 0.1, x + 0.3, 0.5)] = (242, 238, 228)
        view = land.inside(x, 0.12, x + 0.28, 0.48)
        land.rgb[view] = (168, 208, 228)
        land.rgb[land.inside(x, 0.36, x + 0.28, 0.48)] = (150, 182, 132)
        land.rgb[land.inside(x + 0.133, 0.12, x + 0.147, 0.48)] = (242, 238, 228)
        land.rgb[land.inside(x, 0.293, x + 0.28, 0.307)] = (242, 238, 228)
        land.rgb[land.inside(x + 0.42, 0.2, x + 0.6, 0.38)] = (128, 92, 66)
        land.rgb[land.inside(x + 0.44, 0.22, x + 0.58, 0.36)] = (214, 206, 176)
    plank = np.floor(land.y / 0.055)
    board = (170, 128, 92) + (8 * np.sin(plank * 5) + 6 * land.noise(stretch=0.15))[..., None]
    land.blend(board, land.below(floor))
    seam = np.abs(land.y / 0.055 - np.round(land.y / 0.055)) < 0.08
    land.blend((112, 80, 58), 0.6 * seam * land.below(floor))
    land.rgb[land.inside(0, floor - 0.035, ASPECT, floor)] = (236, 230, 220)


def forest(land: Land) -> None:
    """Trunks in layers of haze over mossy ground."""
    land.rgb += land.ramp((0, (138, 170, 142)), (0.75, (196, 208, 168)), (1, (150, 164, 120)))
    for layer, colour in enumerate(((136, 158, 132), (104, 126, 106), (74, 90, 78))):
        for x in np.arange(-0.1, ASPECT, 0.17 + 0.07 * layer):
            left, wide = x + land.between(-0.06, 0.06), (0.02 + 0.016 * layer) * land.between(0.7, 1.4)
            foot = 0.7 + 0.05 * layer
            land.rgb[land.inside(left, 0, left + wide, foot + 0.02)] = colour
            land.rgb[land.inside(left, 0, left + wide * 0.3, foot + 0.02)] *= 1.12
        crowns = np.clip((0.12 - 0.02 * layer - land.y) * 6 + 0.5 * land.noise(zoom=1.2), 0, 1)
        land.blend(np.asarray(colour, np.float32) * (0.9, 1.06, 0.84), crowns)
        ground = np.asarray(colour, np.float32) * (1.0, 1.12, 0.72) + 7 * land.noise(stretch=0.7)[..., None]
        land.blend(ground, land.below(land.skyline(0.7 + 0.06 * layer, 0.02)))


def night(land: Land) -> None:
    """Stars and a moon over dark hills."""
    land.rgb += land.ramp((0, (24, 28, 62)), (0.7, (62, 66, 116)), (1, (96, 84, 128)))
    land.rgb += 5 * land.noise(zoom=1.5)[..., None]
    for _ in range(60):
        bright = land.between(0.4, 1.0)
        land.dot((250, 246, 226), land.between(0, ASPECT), land.between(0, 0.72), 0.004 + 0.004 * bright, bright)
    x, y = land.between(0.2, ASPECT - 0.2), land.between(0.12, 0.26)
    land.blend((206, 204, 214), 0.4 * land.glow(x, y, 0.16))
    land.blend((244, 238, 214), land.disc(x, y, 0.075))
    for level, colour in ((0.72, (46, 52, 88)), (0.84, (32, 38, 64))):
        land.blend(np.asarray(colour, np.float32) + 4 * land.noise()[..., None], land.below(land.skyline(level, 0.06)))


def space(land: Land) -> None:
    """A nebula with stars and a ringed planet."""
    land.rgb += np.asarray((22, 16, 40), np.float32)
    for tint in ((120, 50, 130), (40, 90, 140)):
        land.blend(tint, np.clip(0.32 * land.noise(zoom=1.5), 0, 0.6))
    for _ in range(110):
        bright = land.between(0.3, 1.0)
        land.dot((246, 244, 255), land.between(0, ASPECT), land.between(0, 1), 0.003 + 0.004 * bright, bright)
    x, y, radius = land.between(0.2, ASPECT - 0.2), land.between(0.14, 0.3), land.between(0.07, 0.11)
    globe = (190, 150, 130) + (14 * np.sin(land.y * 90) - 160 * ((land.x - x) + (land.y - y)))[..., None]
    land.blend(globe, land.disc(x, y, radius))
    ring = np.hypot(land.x - x, 3.4 * (land.y - y + 0.25 * (land.x - x))) / radius
    behind = (land.y - y + 0.25 * (land.x - x) < 0) & (np.hypot(land.x - x, land.y - y) < radius)
    land.blend((220, 206, 180), 0.8 * np.exp(-(((ring - 1.7) / 0.16) ** 2)) * ~behind)


PAINTERS: dict[str, Callable[[Land], None]] = {
    "sky": sky,
    "meadow": meadow,
    "sea": sea,
    "desert": desert,
    "snow": snow,
    "street": street,
    "room": room,
    "forest": forest,
    "night": night,
    "space": space,
}
BACKGROUNDS: tuple[str, ...] = tuple(PAINTERS)


@lru_cache(maxsize=256)
def draw_background(background: str, look: int, rows: int = 256) -> np.ndarray:
    """Return a panorama (rows, ASPECT * rows, 3) uint8, read-only; the last ones are kept.

    Parameters
    ----------
    background : one of BACKGROUNDS.
    look : number of the view; the same number is the same place at every resolution.
    rows : height in pixels.
    """
    checks.one_of("background", background, BACKGROUNDS)
    rng = generator(look, "background", background)
    land = Land(rows, rng)
    tint = rng.normal(0, 0.03, 3) + rng.normal(0, 0.04)
    PAINTERS[background](land)
    picture = np.clip(land.rgb * (1 + tint.astype(np.float32)), 0, 255).astype(np.uint8)
    picture.flags.writeable = False
    return picture
