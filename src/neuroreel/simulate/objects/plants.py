"""Plants."""

from __future__ import annotations

import numpy as np

from neuroreel.simulate.pen import INK, Colour, Pen, Tone, box, oval, smooth

BARK: Colour = (134, 92, 62)
BARK_DARK: Colour = (98, 66, 48)
LEAF: Colour = (92, 158, 78)
POT: Colour = (178, 100, 66)


def tree(pen: Pen, tone: Tone) -> None:
    """A trunk under a crown of round tufts."""
    trunk = pen.fill([(-0.12, 0.0), (0.12, 0.0), (0.2, 0.96), (-0.2, 0.96)], BARK)
    pen.stroke([(-0.02, 0.3), (-0.04, 0.9)], 0.035, BARK_DARK, on=trunk)
    pen.stroke([(0.06, 0.3), (0.32, 0.05)], 0.09, BARK)
    crown = pen.fill(oval(0, -0.3, 0.6, 0.55), tone.base)
    for angle in np.arange(0, 360, 45) + pen.between(0, 45):
        a, r = np.radians(angle), pen.between(0.26, 0.36)
        pen.fill(oval(0.52 * np.cos(a), -0.3 + 0.42 * np.sin(a), r, r * 0.95), tone.base, join=crown)
    for _ in range(12):
        x, y, r = pen.between(-0.65, 0.65), pen.between(-0.85, 0.2), pen.between(0.1, 0.17)
        pen.stroke(oval(x, y, r, r, arc=(200, 330)), 0.05, tone.light if y < -0.3 else tone.dark, on=crown)


def pine(pen: Pen, tone: Tone) -> None:
    """Tiers of pointed boughs on a short trunk."""
    wide, tiers = pen.between(0.5, 0.68), 4
    pen.fill(box(-0.11, 0.55, 0.11, 0.98), BARK)
    for i in range(tiers):
        low = 0.72 - 0.36 * i
        half = wide * (1 - 0.2 * i)
        hem = [(half * u, low - 0.05 * (k % 2)) for k, u in enumerate(np.linspace(1, -1, 7))]
        bough = pen.fill([(0, low - 0.68), *hem], tone.base if i % 2 == 0 else tone.dark)
        pen.fill([(0, low - 0.68), (-half, low), (-half * 0.35, low)], tone.light, on=bough)


def palm(pen: Pen, tone: Tone) -> None:
    """A bent ringed trunk with long drooping leaves."""
    lean = pen.between(-0.25, 0.25)
    top = np.array([lean, -0.36])
    trunk = pen.fill(
        smooth(
            [
                (top[0] - 0.07, top[1]),
                (top[0] + 0.07, top[1]),
                (lean * 0.9 + 0.1, 0.3),
                (0.17, 0.97),
                (-0.17, 0.97),
                (lean * 0.9 - 0.1, 0.3),
            ]
        ),
        BARK,
    )
    for y in np.arange(-0.2, 0.95, 0.15):
        pen.stroke([(-0.5, y), (0.5, y + 0.03)], 0.03, BARK_DARK, on=trunk)
    for i, angle in enumerate((-172, -8, -140, -40, -112, -68, 160, 20)):
        a, reach = np.radians(angle + pen.between(-6, 6)), pen.between(0.68, 0.82)
        tip = top + reach * np.array([np.cos(a), np.sin(a) * 0.85 + 0.28])
        bend = top + 0.55 * reach * np.array([np.cos(a), np.sin(a)]) + (0, -0.16)
        side = 0.13 * np.array([-np.sin(a), np.cos(a)])
        paint = tone.dark if i in (1, 2) else tone.base
        leaf = pen.fill(smooth(np.array([top, bend - side, tip, bend + side])), paint)
        pen.stroke([tuple(top), tuple(bend), tuple(tip)], 0.03, tone.light, on=leaf)
    for x in (-0.09, 0.08):
        pen.fill(oval(top[0] + x, top[1] + 0.08, 0.085, 0.085), BARK_DARK)


def cactus(pen: Pen, tone: Tone) -> None:
    """A ribbed column with two raised arms in a pot."""
    left, right = pen.between(-0.05, 0.2), pen.between(-0.2, 0.1)
    body = pen.stroke([(0, -0.66), (0, 0.7)], 0.42, tone.base)
    pen.stroke(
        [(-0.1, left + 0.12), (-0.5, left + 0.12), (-0.58, left), (-0.58, left - 0.36)], 0.24, tone.base, join=body
    )
    pen.stroke(
        [(0.1, right + 0.16), (0.48, right + 0.16), (0.56, right), (0.56, right - 0.4)], 0.24, tone.base, join=body
    )
    for x in (-0.12, 0.0, 0.12):
        pen.stroke([(x, -0.8), (x, 0.7)], 0.025, tone.deep, on=body)
    for x, low in ((-0.58, left), (0.56, right)):
        pen.stroke([(x, low - 0.42), (x, low)], 0.025, tone.deep, on=body)
    for _ in range(26):
        x, y = pen.between(-0.6, 0.6), pen.between(-0.8, 0.6)
        pen.stroke([(x, y), (x + 0.04, y - 0.03)], 0.022, tone.light, on=body)
    pen.fill([(-0.36, 0.58), (0.36, 0.58), (0.28, 0.98), (-0.28, 0.98)], POT)
    pen.fill(box(-0.42, 0.5, 0.42, 0.64, 0.04), POT)
    if pen.chance(0.5):
        for a in np.radians(np.arange(0, 360, 72)):
            pen.fill(oval(0.08 * np.cos(a), -0.9 + 0.07 * np.sin(a), 0.07, 0.06), (250, 226, 120))


def flower(pen: Pen, tone: Tone) -> None:
    """Petals around a round heart, on a stem with two leaves."""
    petals = int(pen.rng.integers(6, 10))
    pen.stroke([(0.0, -0.3), (0.05, 0.3), (0.0, 0.98)], 0.09, LEAF)
    for side in (-1, 1):
        y = pen.between(0.55, 0.75)
        leaf = pen.fill(
            smooth([(0.02, y + 0.12), (side * 0.26, y - 0.22), (side * 0.56, y - 0.26), (side * 0.36, y + 0.06)]), LEAF
        )
        pen.stroke([(0.02, y + 0.1), (side * 0.5, y - 0.22)], 0.025, (62, 116, 60), on=leaf)
    for ring, (reach, colour) in enumerate(((0.44, tone.dark), (0.36, tone.base))):
        for k in range(petals):
            a = 360 * (k + 0.5 * ring) / petals
            x, y = reach * np.cos(np.radians(a)), -0.38 + reach * np.sin(np.radians(a))
            pen.fill(oval(x, y, 0.27, 1.15 / petals, a), colour)
    heart = pen.fill(oval(0, -0.38, 0.2, 0.2), (120, 76, 44))
    for _ in range(14):
        pen.fill(oval(pen.between(-0.2, 0.2), pen.between(-0.58, -0.18), 0.025, 0.025), (250, 206, 90), on=heart)
    pen.stroke(oval(0, -0.38, 0.2, 0.2), 0.02, INK, on=heart)


DRAWINGS = {"tree": tree, "pine": pine, "palm": palm, "cactus": cactus, "flower": flower}
