"""Buildings."""

from __future__ import annotations

import numpy as np

from neuroreel.simulate.pen import INK, Colour, Pen, Tone, box, oval

GLOW: Colour = (255, 228, 140)
STONE: Colour = (168, 162, 166)
DOOR: Colour = (122, 80, 56)
ROOF: Colour = (110, 74, 74)


def bricks(pen: Pen, part: int, colour: Colour, left: float, top: float, right: float, low: float) -> None:
    """Paint courses of bricks on a part."""
    for row, y in enumerate(np.arange(top, low, 0.12)):
        pen.stroke([(left, y), (right, y)], 0.018, colour, on=part)
        for x in np.arange(left + 0.11 * (row % 2), right, 0.22):
            pen.stroke([(x, y), (x, y + 0.12)], 0.018, colour, on=part)


def pane(pen: Pen, x: float, y: float, half: float, colour: Colour = GLOW) -> None:
    """Draw a window with a cross."""
    pen.fill(box(x - half, y - half, x + half, y + half), colour)
    pen.stroke([(x - half, y), (x + half, y)], 0.025, INK)
    pen.stroke([(x, y - half), (x, y + half)], 0.025, INK)


def house(pen: Pen, tone: Tone) -> None:
    """A wall under a tiled gable roof, a door, two windows and a chimney."""
    eaves, half = pen.between(-0.22, -0.06), pen.between(0.62, 0.74)
    side = 1 if pen.chance(0.5) else -1
    pen.fill(box(side * 0.4 - 0.1, -0.86, side * 0.4 + 0.1, -0.3), STONE)
    wall = pen.fill(box(-half, eaves, half, 0.86), tone.base)
    bricks(pen, wall, tone.dark, -half, eaves, half, 0.9)
    roof = pen.fill([(0, -0.98), (half + 0.22, eaves + 0.06), (-half - 0.22, eaves + 0.06)], tone.deep)
    for y in np.arange(-0.8, eaves, 0.16):
        pen.stroke([(-1, y), (1, y)], 0.025, INK, on=roof)
    pane(pen, 0, eaves - 0.22, 0.11)
    pen.fill(box(-0.17, 0.3, 0.17, 0.86, 0.02), DOOR)
    pen.fill(oval(0.09, 0.6, 0.03, 0.03), GLOW)
    for x in (-0.44, 0.44):
        pane(pen, x, 0.36, 0.14)


def castle(pen: Pen, tone: Tone) -> None:
    """A curtain wall between two round towers with battlements, a gate and flags."""
    tall, pole = pen.between(-0.6, -0.4), pen.between(0.66, 0.74)
    keep = pen.fill(box(-0.3, -0.5, 0.3, 0.2), tone.dark)
    for x in (-0.24, 0.0, 0.24):
        pen.fill(box(x - 0.08, -0.64, x + 0.08, -0.48), tone.dark, join=keep)
    pen.fill(oval(0, -0.3, 0.07, 0.1), INK)
    wall = pen.fill(box(-0.7, 0.06, 0.7, 0.88), tone.base)
    for x in np.linspace(-0.36, 0.36, 4):
        pen.fill(box(x - 0.07, -0.08, x + 0.07, 0.1), tone.base, join=wall)
    bricks(pen, wall, tone.dark, -0.7, -0.08, 0.7, 0.9)
    for x in (-pole, pole):
        tower = pen.fill(box(x - 0.24, tall + 0.1, x + 0.24, 0.9), tone.base)
        bricks(pen, tower, tone.dark, x - 0.24, tall + 0.2, x + 0.24, 0.9)
        for dx in (-0.22, 0.0, 0.22):
            pen.fill(box(x + dx - 0.08, tall - 0.08, x + dx + 0.08, tall + 0.1), tone.base, join=tower)
        pen.fill(box(x - 0.05, tall + 0.28, x + 0.05, tall + 0.52, 0.04), INK)
        pen.stroke([(x, tall - 0.42), (x, tall - 0.08)], 0.03, INK)
        pen.fill([(x, tall - 0.44), (x + 0.22, tall - 0.36), (x, tall - 0.26)], GLOW)
    gate = np.concatenate([oval(0, 0.5, 0.2, 0.22, arc=(180, 360)), [(0.2, 0.88), (-0.2, 0.88)]])
    door = pen.fill(gate, DOOR)
    for x in (-0.1, 0.0, 0.1):
        pen.stroke([(x, 0.2), (x, 0.9)], 0.02, INK, on=door)


def skyscraper(pen: Pen, tone: Tone) -> None:
    """A tall block with rows of lit and dark windows and an aerial."""
    half, top = pen.between(0.32, 0.48), pen.between(-0.84, -0.6)
    pen.stroke([(0, -1.06), (0, top)], 0.04, INK)
    step = pen.fill(box(-half * 0.55, top, half * 0.55, -0.3), tone.dark)
    pen.fill(box(-half * 0.4, top + 0.08, half * 0.4, top + 0.13), GLOW, on=step)
    pen.fill(box(-half, top + 0.2, half, 0.96), tone.base)
    columns = 4
    for y in np.arange(top + 0.32, 0.7, 0.19):
        for x in np.linspace(-half + 0.13, half - 0.13, columns):
            pen.fill(box(x - 0.055, y - 0.05, x + 0.055, y + 0.065), GLOW if pen.chance(0.6) else (70, 84, 116))
    pen.fill(box(-0.12, 0.74, 0.12, 0.96), DOOR)


def windmill(pen: Pen, tone: Tone) -> None:
    """A tapering tower with a cap and four latticed sails."""
    turn = pen.between(0, 90)
    tower = pen.fill([(-0.24, -0.24), (0.24, -0.24), (0.42, 0.96), (-0.42, 0.96)], tone.base)
    for y in (0.12, 0.44):
        pen.stroke([(-0.6, y), (0.6, y)], 0.03, tone.dark, on=tower)
    pen.fill(np.concatenate([oval(0, -0.22, 0.3, 0.3, arc=(180, 360))]), tone.deep)
    pen.fill(box(-0.13, 0.6, 0.13, 0.96, 0.04), DOOR)
    pane(pen, 0, 0.26, 0.1)
    hub = np.array([0.0, -0.26])
    for angle in np.radians(turn + np.arange(0, 360, 90)):
        along, aside = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        corners = [
            hub + 0.18 * along,
            hub + 0.78 * along,
            hub + 0.78 * along + 0.2 * aside,
            hub + 0.18 * along + 0.2 * aside,
        ]
        sail = pen.fill(np.array(corners), tone.light)
        for r in (0.33, 0.48, 0.63):
            pen.stroke(np.array([hub + r * along, hub + r * along + 0.2 * aside]), 0.022, tone.deep, on=sail)
        pen.stroke(np.array([hub, hub + 0.8 * along]), 0.05, ROOF)
    pen.fill(oval(0, -0.26, 0.08, 0.08), INK)


def lighthouse(pen: Pen, tone: Tone) -> None:
    """A banded tower with a gallery and a lit lamp, on a rock."""
    bands, foot = int(pen.rng.integers(3, 5)), pen.between(0.28, 0.4)
    pen.fill([(-0.7, 0.98), (-0.5, 0.74), (-0.2, 0.66), (0.3, 0.68), (0.56, 0.8), (0.7, 0.98)], STONE)
    tower = pen.fill([(-0.19, -0.42), (0.19, -0.42), (foot, 0.8), (-foot, 0.8)], tone.base)
    for k in range(bands):
        y = -0.3 + 1.1 * (k + 0.5) / bands
        pen.fill(box(-0.5, y, 0.5, y + 0.26 / bands), (250, 246, 236), on=tower)
    pen.fill(box(-0.07, 0.54, 0.07, 0.8, 0.04), DOOR)
    pen.fill(box(-0.16, -0.74, 0.16, -0.42), GLOW)
    pen.stroke([(0, -0.74), (0, -0.42)], 0.03, INK)
    pen.fill(box(-0.28, -0.46, 0.28, -0.36, 0.02), tone.deep)
    pen.fill([(-0.24, -0.72), (0, -1.0), (0.24, -0.72)], tone.deep)
    for side in (-1, 1):
        pen.fill(
            [(side * 0.2, -0.62), (side * 0.62, -0.78), (side * 0.62, -0.42), (side * 0.2, -0.54)], (255, 244, 190)
        )


DRAWINGS = {"house": house, "castle": castle, "skyscraper": skyscraper, "windmill": windmill, "lighthouse": lighthouse}
