"""The categories of the simulated world: forty in eight groups, and how each is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from neuroreel.core import checks
from neuroreel.core.seeds import generator
from neuroreel.simulate.colours import COLOURS, tone_of
from neuroreel.simulate.objects import animals, buildings, foods, furniture, people, plants, tools, vehicles
from neuroreel.simulate.pen import HALF_WIDTH, INK, Pen, Tone

Drawing = Callable[[Pen, Tone], None]

DRAWINGS: dict[str, dict[str, Drawing]] = {
    "animal": animals.DRAWINGS,
    "vehicle": vehicles.DRAWINGS,
    "plant": plants.DRAWINGS,
    "building": buildings.DRAWINGS,
    "food": foods.DRAWINGS,
    "tool": tools.DRAWINGS,
    "furniture": furniture.DRAWINGS,
    "person": people.DRAWINGS,
}

GROUPS: dict[str, tuple[str, ...]] = {group: tuple(drawings) for group, drawings in DRAWINGS.items()}
CATEGORIES: tuple[str, ...] = tuple(category for members in GROUPS.values() for category in members)
GROUP_OF: dict[str, str] = {category: group for group, members in GROUPS.items() for category in members}


@dataclass(frozen=True)
class Sprite:
    """One object, drawn.

    Attributes
    ----------
    rgba : (pixels, pixels, 4) uint8, colours multiplied by their cover, with a soft shadow around the object.
    cover : (pixels, pixels) uint8, 255 on the object, 0 elsewhere.
    centre : (x, y) of the object's centre of mass, in pixels from the corner of the surface.
    extent : longer side of the object's bounding box, in pixels.
    """

    rgba: np.ndarray
    cover: np.ndarray
    centre: tuple[float, float]
    extent: float


def draw_sprite(category: str, colour: str, look: int, pixels: int = 256) -> Sprite:
    """Return one object of a category.

    Parameters
    ----------
    category : one of CATEGORIES.
    colour : one of COLOURS.
    look : number of the object; the same number has the same proportions and texture at every resolution.
    pixels : side of the drawing; the object fills about three quarters of it.
    """
    checks.one_of("category", category, CATEGORIES)
    checks.one_of("colour", colour, COLOURS)
    rng = generator(look, "look", category)
    tone = tone_of(colour, rng)
    pen = Pen(pixels, rng)
    DRAWINGS[GROUP_OF[category]][category](pen, tone)
    rgb, cover = pen.lit()
    cover = cv2.GaussianBlur(cover, (3, 3), 0)
    unit = pixels / (2 * HALF_WIDTH)
    shade = cv2.GaussianBlur(cover, (0, 0), 0.06 * unit)
    shade = 0.42 * cv2.warpAffine(shade, np.array([[1, 0, 0.015 * unit], [0, 1, 0.045 * unit]], np.float32), (pixels, pixels))
    alpha = np.maximum(cover, shade)
    share = (cover / np.maximum(alpha, 1e-6))[..., None]
    painted = np.where(rgb.max(-1, keepdims=True) > 0, rgb, INK)
    premultiplied = (painted * share + np.array((24, 18, 36), np.float32) * (1 - share)) * alpha[..., None]
    rgba = np.dstack([premultiplied, alpha * 255])
    weight = cover.sum()
    grid = np.arange(pixels) + 0.5
    centre = float(cover.sum(0) @ grid / weight), float(cover.sum(1) @ grid / weight)
    columns, rows = np.flatnonzero(cover.max(0) > 0.5), np.flatnonzero(cover.max(1) > 0.5)
    extent = float(max(columns[-1] - columns[0], rows[-1] - rows[0]) + 1)
    return Sprite(np.round(rgba).astype(np.uint8), np.round(cover * 255).astype(np.uint8), centre, extent)
