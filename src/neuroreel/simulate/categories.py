"""The categories of the simulated world: forty in eight groups, and how each is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from neuroreel.core import checks
from neuroreel.core.seeds import generator
from neuroreel.simulate.colours import COLOURS, tone_of
from neuroreel.simulate.objects import animals, buildings, foods, furniture, people, plants, tools, vehicles
from neuroreel.simulate.pen import HALF_WIDTH, Colour, Pen, Tone

Drawing = Callable[[Pen, Tone], None]

DRAWINGS: Mapping[str, Mapping[str, Drawing]] = {
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


SHADOW: Colour = (24, 18, 36)

WINDOW_MULTIPLE = 32
"""Sprites are cut out to multiples of so many pixels, so that they can be halved five times."""


@dataclass(frozen=True)
class Sprite:
    """One object, drawn.

    Attributes
    ----------
    rgba : (rows, columns, 4) uint8, colours multiplied by their cover, with a soft shadow around the object.
    cover : (rows, columns) uint8, 255 on the object, 0 elsewhere.
    centre : (x, y) of the object's centre of mass, in pixels from the corner of the picture.
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
    pixels : side of the surface that it is drawn on, in multiples of 32; the object fills about three quarters of it.
    """
    checks.one_of("category", category, CATEGORIES)
    checks.one_of("colour", colour, COLOURS)
    whole = isinstance(pixels, int) and pixels > 0 and pixels % WINDOW_MULTIPLE == 0
    checks.require(whole, "pixels", f"must be a multiple of {WINDOW_MULTIPLE}", pixels)
    rng = generator(look, "look", category)
    tone = tone_of(colour, rng)
    pen = Pen(pixels, rng)
    DRAWINGS[GROUP_OF[category]][category](pen, tone)
    rgb, cover = pen.lit(pen.window(WINDOW_MULTIPLE))
    cover = cv2.GaussianBlur(cover, (3, 3), 0)
    unit = pixels / (2 * HALF_WIDTH)
    shadow = cv2.GaussianBlur(cover, (0, 0), 0.06 * unit)
    lower = np.array([[1, 0, 0.015 * unit], [0, 1, 0.045 * unit]], np.float32)
    shadow = 0.42 * cv2.warpAffine(shadow, lower, shadow.shape[::-1])
    rest = np.maximum(shadow - cover, 0)[..., None]
    rgb *= cover[..., None]
    rgb += rest * np.array(SHADOW, np.float32)
    rgba = np.dstack([rgb, (cover + rest[..., 0]) * 255])
    down, across = cover.sum(1), cover.sum(0)
    x, y = (float(mass @ (np.arange(len(mass)) + 0.5) / mass.sum()) for mass in (across, down))
    columns, rows = np.flatnonzero(cover.max(0) > 0.5), np.flatnonzero(cover.max(1) > 0.5)
    extent = float(max(columns[-1] - columns[0], rows[-1] - rows[0]) + 1)
    return Sprite(np.round(rgba).astype(np.uint8), np.round(cover * 255).astype(np.uint8), (x, y), extent)
