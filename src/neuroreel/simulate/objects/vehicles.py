"""Vehicles, facing right."""

from __future__ import annotations

import numpy as np

from neuroreel.simulate.pen import INK, Colour, Pen, Tone, box, oval, smooth

GLASS: Colour = (176, 222, 240)
TYRE: Colour = (52, 50, 60)
HUB: Colour = (206, 208, 214)
LAMP: Colour = (255, 236, 150)
SAIL: Colour = (250, 244, 226)
FLAME: Colour = (252, 150, 40)


def wheel(pen: Pen, x: float, y: float, radius: float) -> None:
    """Draw a tyre with a hub."""
    pen.fill(oval(x, y, radius, radius), TYRE)
    pen.fill(oval(x, y, 0.52 * radius, 0.52 * radius), HUB)
    pen.fill(oval(x, y, 0.18 * radius, 0.18 * radius), INK)


def window(pen: Pen, points: np.ndarray | list[tuple[float, float]]) -> None:
    """Draw a pane with a streak of light."""
    pane = pen.fill(points, GLASS)
    x, y = np.mean(points, axis=0)
    pen.stroke([(x - 0.12, y + 0.2), (x + 0.1, y - 0.2)], 0.06, (236, 248, 252), on=pane)


def car(pen: Pen, tone: Tone) -> None:
    """A low body with a rounded cabin, two windows and two wheels."""
    roof, back, radius = pen.between(-0.48, -0.34), pen.between(-0.66, -0.5), pen.between(0.19, 0.23)
    body = pen.fill(
        smooth(
            [
                (-0.98, 0.3),
                (-0.94, 0.0),
                (-0.5, -0.08),
                (0.5, -0.06),
                (0.92, 0.06),
                (0.98, 0.32),
                (0.6, 0.38),
                (-0.6, 0.38),
            ]
        ),
        tone.base,
    )
    pen.fill(
        smooth([(back - 0.08, 0.0), (back + 0.18, roof), (0.2, roof), (0.58, 0.0), (0.3, 0.12), (-0.3, 0.12)]),
        tone.base,
        join=body,
    )
    window(pen, [(back + 0.1, -0.06), (back + 0.26, roof + 0.1), (-0.08, roof + 0.1), (-0.08, -0.06)])
    window(pen, [(0.0, -0.06), (0.0, roof + 0.1), (0.18, roof + 0.1), (0.44, -0.06)])
    pen.fill(box(-0.99, 0.24, 0.99, 0.3), tone.deep, on=body)
    pen.stroke([(-0.04, 0.0), (-0.04, 0.34)], 0.025, tone.deep, on=body)
    pen.stroke([(0.06, 0.08), (0.16, 0.08)], 0.04, HUB)
    pen.fill(oval(0.88, 0.14, 0.07, 0.08), LAMP)
    for x in (-0.52, 0.54):
        wheel(pen, x, 0.38, radius)


def truck(pen: Pen, tone: Tone) -> None:
    """A tall cargo box behind a cab, on three wheels."""
    top, cab = pen.between(-0.64, -0.46), pen.between(-0.3, -0.16)
    pen.fill(box(-0.98, 0.26, 0.96, 0.42, 0.04), TYRE)
    load = pen.fill(box(-1.0, top, 0.32, 0.32, 0.05), tone.base)
    for x in np.linspace(-0.8, 0.14, 5):
        pen.stroke([(x, top), (x, 0.4)], 0.025, tone.dark, on=load)
    pen.fill(box(-1.0, -0.12, 0.4, 0.02), tone.light, on=load)
    front = pen.fill(smooth([(0.4, 0.36), (0.38, cab), (0.7, cab), (0.82, 0.02), (0.99, 0.1), (0.98, 0.38)]), tone.dark)
    window(pen, [(0.48, -0.0), (0.48, cab + 0.08), (0.68, cab + 0.08), (0.78, 0.0)])
    pen.fill(oval(0.93, 0.2, 0.06, 0.06), LAMP)
    pen.stroke([(0.5, 0.14), (0.58, 0.14)], 0.035, HUB, on=front)
    for x in (-0.72, -0.32, 0.66):
        wheel(pen, x, 0.42, 0.18)


def boat(pen: Pen, tone: Tone) -> None:
    """A hull with a mast, two sails and a flag."""
    mast, low = pen.between(-0.14, 0.04), pen.between(0.34, 0.42)
    pen.stroke([(mast, -0.92), (mast, 0.5)], 0.06, (150, 104, 66))
    main = pen.fill([(mast + 0.06, -0.82), (mast + 0.06, 0.26), (0.8, 0.26)], tone.light)
    for y in (-0.36, 0.0):
        pen.stroke([(mast, y), (0.9, y)], 0.05, tone.base, on=main)
    pen.fill([(mast - 0.07, -0.62), (mast - 0.07, 0.26), (-0.7, 0.26)], SAIL)
    pen.fill([(mast, -1.02), (mast, -0.84), (mast - 0.3, -0.93)], tone.deep)
    hull = pen.fill(
        smooth([(-0.98, low), (-0.4, low + 0.03), (0.4, low + 0.03), (1.0, low - 0.06), (0.66, 0.84), (-0.62, 0.84)]),
        tone.base,
    )
    pen.fill(box(-1.1, low + 0.12, 1.1, low + 0.2), SAIL, on=hull)
    for x in (-0.4, 0.0, 0.4):
        pen.fill(oval(x, low + 0.31, 0.055, 0.055), INK)


def plane(pen: Pen, tone: Tone) -> None:
    """A slim body with a tail fin, a swept wing and a row of round windows."""
    thick = pen.between(0.17, 0.22)
    pen.fill([(-0.02, -0.06), (-0.36, -0.52), (-0.2, -0.54), (0.32, -0.06)], tone.dark)
    pen.fill([(-0.9, -0.06), (-1.0, -0.56), (-0.82, -0.58), (-0.5, -0.08)], tone.dark)
    body = pen.fill(
        smooth([(-0.98, -0.1), (-0.5, -thick), (0.5, -thick), (0.99, 0.04), (0.5, thick), (-0.5, thick * 0.8)]),
        tone.base,
    )
    pen.fill(box(-1.1, 0.09, 1.1, 0.3), tone.light, on=body)
    for x in np.linspace(-0.5, 0.42, 6):
        pen.fill(oval(x, -0.05, 0.045, 0.05), GLASS)
    pen.fill([(0.6, -0.1), (0.76, -0.08), (0.84, 0.0), (0.6, 0.0)], GLASS)
    pen.fill([(-0.86, 0.0), (-1.06, 0.2), (-0.9, 0.22), (-0.56, 0.04)], tone.dark)
    pen.fill([(-0.06, 0.06), (-0.56, pen.between(0.58, 0.7)), (-0.36, 0.68), (0.36, 0.1)], tone.dark)
    pen.fill(box(-0.06, 0.26, 0.2, 0.4, 0.06), HUB)


def rocket(pen: Pen, tone: Tone) -> None:
    """A pointed cylinder with a porthole, fins and a flame."""
    wide = pen.between(0.27, 0.34)
    pen.tilt(pen.between(0, 30))
    pen.fill(smooth([(-0.18, 0.6), (-0.2, 0.82), (0.0, pen.between(0.98, 1.06)), (0.2, 0.82), (0.18, 0.6)]), FLAME)
    pen.fill(smooth([(-0.08, 0.6), (-0.08, 0.74), (0.0, 0.88), (0.08, 0.74), (0.08, 0.6)]), LAMP)
    for side in (-1, 1):
        pen.fill(
            smooth([(side * 0.2, 0.2), (side * (wide + 0.16), 0.44), (side * (wide + 0.2), 0.78), (side * 0.16, 0.58)]),
            tone.deep,
        )
    body = pen.fill(
        smooth(
            [
                (0.0, -1.04),
                (wide * 0.8, -0.5),
                (wide, 0.1),
                (0.2, 0.64),
                (-0.2, 0.64),
                (-wide, 0.1),
                (-wide * 0.8, -0.5),
            ]
        ),
        tone.base,
    )
    pen.fill(box(-1, -1.2, 1, -0.56), tone.dark, on=body)
    pen.fill(box(-1, 0.4, 1, 0.5), tone.light, on=body)
    pen.fill(oval(0, -0.18, 0.19, 0.19), HUB)
    pen.fill(oval(0, -0.18, 0.125, 0.125), GLASS)


DRAWINGS = {"car": car, "truck": truck, "boat": boat, "plane": plane, "rocket": rocket}
