"""A pen that draws an object from parts: labelled shapes in object units, lit and outlined when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Colour = tuple[float, float, float]
Points = Sequence[tuple[float, float]] | np.ndarray

HALF_WIDTH = 1.25
"""Half the side of the drawing surface in object units; objects are drawn within about -1..1."""

INK: Colour = (44, 38, 56)
SUBPIXEL_BITS = 6


@dataclass(frozen=True)
class Tone:
    """A named colour as paint: `base` covers most of an object, `light`, `dark` and `deep` its details."""

    base: Colour
    light: Colour
    dark: Colour
    deep: Colour


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour that lies `share` (0 to 1) of the way from the first to the second."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def smooth(points: Points, steps: int = 10) -> np.ndarray:
    """Return the closed Catmull-Rom curve through the points, (points * steps, 2)."""
    p = np.asarray(points, dtype=np.float64)
    before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    u = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (q[:, None, :] for q in (before, p, after, beyond))
    curve = b + 0.5 * u * ((c - a) + u * ((2 * a - 5 * b + 4 * c - d) + u * (3 * (b - c) + d - a)))
    return curve.reshape(-1, 2)


def oval(
    x: float, y: float, rx: float, ry: float, angle: float = 0.0, arc: tuple[float, float] = (0, 360)
) -> np.ndarray:
    """Return an ellipse, or the part of it between two angles, as points; degrees, clockwise from the right."""
    a = np.radians(np.linspace(*arc, 48))
    turn = np.radians(angle)
    u, v = rx * np.cos(a), ry * np.sin(a)
    return np.stack([x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)], axis=1)


def box(x0: float, y0: float, x1: float, y1: float, corner: float = 0.0) -> np.ndarray:
    """Return a rectangle with round corners of the given radius as points."""
    if corner <= 0:
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    centres = ((x1 - corner, y1 - corner, 0), (x0 + corner, y1 - corner, 90), (x0 + corner, y0 + corner, 180))
    quarters = [
        oval(x, y, corner, corner, arc=(a, a + 90))[::6] for x, y, a in (*centres, (x1 - corner, y0 + corner, 270))
    ]
    return np.concatenate(quarters)


class Pen:
    """Draws shapes one over the other on a square surface; x to the right, y down, the middle is (0, 0).

    Parameters
    ----------
    pixels : side of the surface in pixels.
    rng : generator of the look; all proportions come from it, and first of all how wide the whole is.
    """

    def __init__(self, pixels: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.rgb = np.zeros((pixels, pixels, 3), np.uint8)
        self.labels = np.zeros((pixels, pixels), np.uint8)
        self._stencil = np.zeros((pixels, pixels), np.uint8)
        self._scale = pixels / (2 * HALF_WIDTH)
        self._parts = 0
        self._proportion = np.diag([self.between(0.9, 1.08), 1.0])
        self._turn = self._proportion

    def between(self, low: float, high: float) -> float:
        """Return a proportion drawn evenly between two limits."""
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        """Return True in the given share of all looks."""
        return bool(self.rng.random() < share)

    def tilt(self, degrees: float) -> None:
        """Turn all that is drawn from now on around the middle, clockwise."""
        a = np.radians(degrees)
        self._turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ self._proportion

    def fill(self, points: Points, colour: Colour, *, join: int | None = None, on: int | None = None) -> int:
        """Fill a closed shape and return its part number.

        Parameters
        ----------
        points : (points, 2) corners in object units.
        colour : RGB, 0 to 255.
        join : a part that the shape becomes one with, without a line between them.
        on : a part that the shape is painted on: only what lies on it is coloured, and its relief stays.
        """
        pixels = self._pixels(points)
        cv2.fillPoly(self._stencil, [pixels], 1, cv2.LINE_8, SUBPIXEL_BITS)
        return self._lay(pixels, 2, colour, join, on)

    def stroke(
        self, points: Points, width: float, colour: Colour, *, join: int | None = None, on: int | None = None
    ) -> int:
        """Draw an open line with round ends; the arguments are those of `fill`, and a width in object units."""
        pixels = self._pixels(points)
        thick = max(1, round(width * self._scale))
        cv2.polylines(self._stencil, [pixels], False, 1, thick, cv2.LINE_8, SUBPIXEL_BITS)
        return self._lay(pixels, thick + 2, colour, join, on)

    def erase(self, points: Points) -> None:
        """Cut a hole of a closed shape through all that is there."""
        pixels = self._pixels(points)
        cv2.fillPoly(self.labels, [pixels], 0, cv2.LINE_8, SUBPIXEL_BITS)

    def _pixels(self, points: Points) -> np.ndarray:
        placed = (np.asarray(points, dtype=np.float64) @ self._turn.T + HALF_WIDTH) * self._scale - 0.5
        return np.round(placed * (1 << SUBPIXEL_BITS)).astype(np.int32)

    def _lay(self, pixels: np.ndarray, margin: int, colour: Colour, join: int | None, on: int | None) -> int:
        low = np.maximum((pixels.min(0) >> SUBPIXEL_BITS) - margin, 0)
        high = (pixels.max(0) >> SUBPIXEL_BITS) + margin + 1
        window = slice(low[1], max(high[1], 0)), slice(low[0], max(high[0], 0))
        chosen = self._stencil[window].astype(bool)
        self._stencil[window] = 0
        if on is not None:
            chosen &= self.labels[window] == on
            self.rgb[window][chosen] = colour
            return on
        if join is None:
            self._parts += 1
            join = self._parts
        self.rgb[window][chosen] = colour
        self.labels[window][chosen] = join
        return join

    def window(self, multiple: int) -> tuple[slice, slice]:
        """Return the rows and columns around what was drawn, with room for a shadow, in whole multiples of pixels."""
        margin = 0.25 * self._scale
        bounds = []
        for axis in (1, 0):
            used = np.flatnonzero(self.labels.any(axis))
            low = int(max(used[0] - margin, 0)) // multiple * multiple
            high = -(-int(min(used[-1] + 1 + margin, len(self.labels))) // multiple) * multiple
            bounds.append(slice(low, high))
        return bounds[0], bounds[1]

    def lit(self, window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """Return what was drawn in a window, rounded by light from the top left and outlined.

        Returns
        -------
        rgb : (rows, columns, 3) float32, 0 to 255; the colour of the outline where nothing was drawn.
        cover : (rows, columns) float32, 1 on the object with its outline, 0 elsewhere.
        """
        unit, labels = self._scale, self.labels[window]
        inside = labels > 0
        edge = np.zeros(inside.shape, bool)
        edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
        edge[1:] |= labels[1:] != labels[:-1]
        depth = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, 5) / unit
        bulge = np.sqrt(1 - (1 - np.minimum(depth / 0.16, 1)) ** 2) * inside
        bulge = cv2.GaussianBlur(bulge, (0, 0), 0.025 * unit)
        slope_x = cv2.Sobel(bulge, cv2.CV_32F, 1, 0) * (0.02 * unit)
        slope_y = cv2.Sobel(bulge, cv2.CV_32F, 0, 1) * (0.02 * unit)
        light = (0.8 + 0.5 * slope_x + 0.75 * slope_y) / np.sqrt(1 + slope_x**2 + slope_y**2) - 0.8
        height = np.linspace(0.07, -0.10, len(self.labels), dtype=np.float32)[window[0], None]
        light = np.clip(0.55 * light + height, -0.4, 0.4)
        seam = np.clip(1.5 - depth / 0.014, 0, 1) * 0.55
        # paint * (1 + light) in shade, paint + (255 - paint) * 1.1 * light in light, then the seams in ink
        factor, offset = 1 + np.minimum(light, 0) - 1.1 * np.maximum(light, 0), 255 * 1.1 * np.maximum(light, 0)
        factor, offset = factor * (1 - seam), offset * (1 - seam)
        rgb = self.rgb[window] * factor[..., None]
        rgb += offset[..., None] + seam[..., None] * np.array(INK, np.float32)
        rgb[~inside] = INK
        outside = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5) / unit
        return rgb, (outside < 0.035).astype(np.float32)
