"""Furniture."""

from __future__ import annotations

import numpy as np

from neuroreel.simulate.pen import Colour, Pen, Tone, box, oval, smooth

WOOD: Colour = (172, 120, 76)
WOOD_DARK: Colour = (124, 84, 56)
LINEN: Colour = (250, 246, 236)
GLOW: Colour = (255, 238, 170)


def chair(pen: Pen, tone: Tone) -> None:
    """Seen from the side: a tall back, a seat cushion and four legs."""
    back = pen.between(-0.98, -0.8)
    for x, y in ((-0.2, 0.8), (0.34, 0.8)):
        pen.stroke([(x, 0.2), (x, y)], 0.1, tone.deep)
    frame = pen.fill(box(-0.56, back, -0.34, 0.24, 0.06), tone.base)
    pen.fill(box(-0.56, 0.12, -0.4, 0.96, 0.04), tone.base, join=frame)
    pen.fill(box(0.42, 0.16, 0.58, 0.96, 0.04), tone.base, join=frame)
    pen.fill(smooth([(-0.4, back + 0.04), (-0.16, back + 0.12), (-0.18, 0.0), (-0.4, 0.04)]), tone.light)
    pen.fill(box(-0.58, 0.06, 0.62, 0.26, 0.05), tone.base)
    pen.fill(box(-0.4, -0.08, 0.6, 0.1, 0.08), tone.light)
    pen.stroke([(-0.46, 0.6), (0.5, 0.6)], 0.07, tone.dark)


def table(pen: Pen, tone: Tone) -> None:
    """A wide top with a cloth on four legs, and a vase on it."""
    deep = pen.between(0.18, 0.3)
    for x in (-0.5, 0.5):
        pen.fill(box(x - 0.06, 0.0, x + 0.06, 0.7), tone.deep)
    for x in (-0.8, 0.8):
        pen.fill(box(x - 0.09, 0.0, x + 0.09, 0.86, 0.02), tone.dark)
    hem = [(x, deep + 0.1 * (k % 2)) for k, x in enumerate(np.linspace(0.98, -0.98, 13))]
    cloth = pen.fill([(-0.98, -0.1), (0.98, -0.1), *hem], tone.base)
    for x in np.linspace(-0.8, 0.8, 6):
        pen.stroke([(x, -0.02), (x, 0.6)], 0.04, tone.light, on=cloth)
    pen.fill([(-0.86, -0.26), (0.86, -0.26), (1.02, -0.06), (-1.02, -0.06)], tone.light)
    x = pen.between(-0.4, 0.4)
    for dx in (-0.12, 0.0, 0.12):
        pen.stroke([(x, -0.4), (x + dx, -0.66)], 0.035, (96, 164, 80))
        pen.fill(oval(x + dx, -0.7, 0.08, 0.08), tone.base)
    pen.fill(
        smooth(
            [
                (x - 0.07, -0.5),
                (x + 0.07, -0.5),
                (x + 0.13, -0.3),
                (x + 0.08, -0.16),
                (x - 0.08, -0.16),
                (x - 0.13, -0.3),
            ]
        ),
        (120, 170, 196),
    )


def bed(pen: Pen, tone: Tone) -> None:
    """A headboard, a pillow and a quilt with patches over a mattress."""
    head = pen.between(-0.56, -0.4)
    for x in (-0.9, 0.88):
        pen.fill(box(x - 0.06, 0.2, x + 0.06, 0.62), WOOD_DARK)
    pen.fill(box(-1.0, head, -0.84, 0.5, 0.06), WOOD)
    pen.fill(box(0.84, -0.1, 0.98, 0.5, 0.06), WOOD)
    pen.fill(box(-0.86, 0.16, 0.86, 0.46, 0.04), tone.dark)
    pen.fill(box(-0.86, -0.02, 0.86, 0.22, 0.08), LINEN)
    pen.fill(smooth([(-0.82, -0.02), (-0.78, -0.26), (-0.5, -0.28), (-0.42, -0.02)]), LINEN)
    hem = [(x, 0.36 + 0.03 * (k % 2)) for k, x in enumerate(np.linspace(0.88, -0.4, 9))]
    quilt = pen.fill(smooth([(-0.44, -0.1), (0.0, -0.2), (0.5, -0.14), (0.86, -0.06), *hem], 6), tone.base)
    for x in np.arange(-0.3, 0.9, 0.26):
        pen.stroke([(x, -0.3), (x, 0.5)], 0.03, tone.light, on=quilt)
    pen.stroke([(-0.6, 0.1), (0.9, 0.1)], 0.03, tone.light, on=quilt)


def lamp(pen: Pen, tone: Tone) -> None:
    """A wide shade that glows below, on a thin stand with a foot."""
    top, wide = pen.between(0.22, 0.34), pen.between(0.6, 0.72)
    pen.fill(oval(0, -0.1, wide * 0.8, 0.13), GLOW)
    pen.stroke([(0, -0.1), (0, 0.86)], 0.1, tone.deep)
    pen.fill(oval(0, 0.3, 0.12, 0.15), tone.base)
    pen.fill(np.concatenate([oval(0, 0.92, 0.44, 0.16, arc=(180, 360)), [(0.44, 0.98), (-0.44, 0.98)]]), tone.base)
    shade = pen.fill([(-top, -0.92), (top, -0.92), (wide, -0.1), (-wide, -0.1)], tone.base)
    for k in np.linspace(-0.75, 0.75, 6):
        pen.stroke([(k * top, -0.92), (k * wide, -0.1)], 0.03, tone.dark, on=shade)
    for y in (-0.86, -0.15):
        pen.stroke([(-1, y), (1, y)], 0.07, tone.light, on=shade)


def sofa(pen: Pen, tone: Tone) -> None:
    """A low wide seat with round arms, two back cushions and a throw pillow."""
    back = pen.between(-0.54, -0.38)
    for x in (-0.78, 0.78):
        pen.fill(box(x - 0.07, 0.4, x + 0.07, 0.66), WOOD_DARK)
    pen.fill(box(-0.84, back, 0.84, 0.3, 0.16), tone.dark)
    for x in (-0.37, 0.37):
        pen.fill(box(x - 0.36, back + 0.1, x + 0.36, 0.2, 0.12), tone.base)
        pen.fill(oval(x, back + 0.3, 0.03, 0.03), tone.deep)
    for x in (-0.37, 0.37):
        pen.fill(box(x - 0.37, 0.06, x + 0.37, 0.3, 0.09), tone.light)
    pen.fill(box(-0.8, 0.26, 0.8, 0.5, 0.04), tone.base)
    for x in (-0.84, 0.84):
        pen.fill(box(x - 0.17, -0.14, x + 0.17, 0.52, 0.15), tone.base)
    x = pen.between(-0.5, 0.5)
    pen.fill([(x - 0.2, -0.1), (x, -0.3), (x + 0.2, -0.1), (x, 0.1)], LINEN)


DRAWINGS = {"chair": chair, "table": table, "bed": bed, "lamp": lamp, "sofa": sofa}
