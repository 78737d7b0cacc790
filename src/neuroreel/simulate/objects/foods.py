"""Food."""

from __future__ import annotations

import numpy as np

from neuroreel.simulate.pen import Colour, Pen, Tone, box, mix, oval, smooth

STALK: Colour = (112, 76, 48)
LEAF: Colour = (96, 164, 80)
CRUST: Colour = (206, 146, 88)
CREAM: Colour = (252, 244, 228)
SPRINKLES: tuple[Colour, ...] = ((230, 70, 80), (80, 150, 230), (250, 210, 70), (110, 190, 100), (250, 250, 250))


def sprinkle(pen: Pen, part: int, left: float, top: float, right: float, low: float, count: int) -> None:
    """Scatter short strokes of many colours on a part."""
    for k in range(count):
        x, y, a = pen.between(left, right), pen.between(top, low), pen.between(0, np.pi)
        dx, dy = 0.045 * np.cos(a), 0.045 * np.sin(a)
        pen.stroke([(x - dx, y - dy), (x + dx, y + dy)], 0.04, SPRINKLES[k % len(SPRINKLES)], on=part)


def apple(pen: Pen, tone: Tone) -> None:
    """A round fruit with a dent, a stalk, a leaf and a glint."""
    wide = pen.between(0.68, 0.8)
    pen.stroke([(0.0, -0.5), (0.04, -0.76), (0.12, -0.92)], 0.09, STALK)
    leaf = pen.fill(smooth([(0.08, -0.66), (0.32, -0.98), (0.66, -0.92), (0.42, -0.64)]), LEAF)
    pen.stroke([(0.1, -0.66), (0.6, -0.9)], 0.025, (60, 110, 56), on=leaf)
    shape = [
        (0, -0.46),
        (0.4, -0.6),
        (wide, -0.2),
        (wide - 0.14, 0.46),
        (0.3, 0.88),
        (0, 0.8),
        (-0.3, 0.88),
        (-wide + 0.14, 0.46),
        (-wide, -0.2),
        (-0.4, -0.6),
    ]
    fruit = pen.fill(smooth(shape), tone.base)
    pen.fill(oval(0.5, 0.3, 0.4, 0.7, 20), mix(tone.base, tone.dark, 0.45), on=fruit)
    pen.fill(oval(0.16, 0.1, 0.5, 0.6), tone.base, on=fruit)
    pen.fill(oval(-0.4, -0.14, 0.1, 0.2, 24), mix(tone.light, (255, 255, 255), 0.5), on=fruit)
    pen.fill(oval(0, -0.46, 0.16, 0.06), tone.deep, on=fruit)


def banana(pen: Pen, tone: Tone) -> None:
    """A crescent with a ridge and dark ends."""
    pen.tilt(pen.between(-30, 15))
    fat = pen.between(0.0, 0.12)
    shape = [
        (-0.94, -0.5),
        (-0.8, -0.54),
        (-0.56, -0.02),
        (-0.04, 0.22 - fat),
        (0.5, 0.02),
        (0.84, -0.44),
        (0.98, -0.36),
        (0.84, 0.22),
        (0.3, 0.66),
        (-0.3, 0.64),
        (-0.8, 0.2),
    ]
    fruit = pen.fill(smooth(shape), tone.base)
    ridge = smooth(
        [
            (-0.86, -0.46),
            (-0.6, 0.16),
            (-0.04, 0.42),
            (0.54, 0.22),
            (0.9, -0.36),
            (0.54, 0.22),
            (-0.04, 0.42),
            (-0.6, 0.16),
        ]
    )[:41]
    pen.stroke(ridge, 0.04, tone.dark, on=fruit)
    pen.stroke(ridge - (0, 0.12), 0.05, tone.light, on=fruit)
    pen.fill(box(-1.0, -0.7, -0.76, -0.42), STALK, on=fruit)
    pen.fill(oval(0.95, -0.42, 0.1, 0.1), STALK, on=fruit)
    for _ in range(int(pen.rng.integers(2, 6))):
        pen.stroke(
            [(x := pen.between(-0.5, 0.5), y := pen.between(0.35, 0.6)), (x + 0.05, y)], 0.03, tone.deep, on=fruit
        )


def cake(pen: Pen, tone: Tone) -> None:
    """Two iced tiers with candles on a plate."""
    candles = int(pen.rng.integers(2, 4))
    pen.fill(oval(0, 0.84, 0.92, 0.13), (214, 220, 232))
    for x in np.linspace(-0.24, 0.24, candles):
        pen.stroke([(x, -0.72), (x, -0.4)], 0.08, CREAM)
        pen.fill(smooth([(x - 0.05, -0.78), (x, -0.98), (x + 0.05, -0.78)]), (254, 176, 54))
    for half, top, low in ((0.44, -0.42, 0.16), (0.72, 0.1, 0.84)):
        tier = pen.fill(box(-half, top, half, low, 0.08), tone.base)
        pen.fill(box(-half, low - 0.16, half, low - 0.07), CREAM, on=tier)
        drips = [
            (x, top + 0.12 + 0.12 * (k % 2) + pen.between(0, 0.04)) for k, x in enumerate(np.linspace(half, -half, 9))
        ]
        pen.fill(smooth([(-half, top - 0.03), (half, top - 0.03), *drips], 6), tone.light)
    pen.fill(oval(-0.34, -0.46, 0.085, 0.085), (206, 40, 60))


def doughnut(pen: Pen, tone: Tone) -> None:
    """A ring of dough with icing and sprinkles; the hole shows what is behind."""
    hole = pen.between(0.2, 0.27)
    middle = oval(0, 0, hole, hole * 0.9)[::-1]
    pen.fill(np.concatenate([oval(0, 0.05, 0.88, 0.84), middle]), CRUST)
    wave = [(0.8 + 0.05 * np.cos(k * np.pi), 360 * k / 16) for k in range(16)]
    rim = smooth([(r * np.cos(np.radians(a)), 0.95 * r * np.sin(np.radians(a)) - 0.02) for r, a in wave], 6)
    inner = oval(0, 0, hole + 0.07, hole + 0.05)[::-1]
    icing = pen.fill(np.concatenate([rim, rim[:1], inner]), tone.base)
    sprinkle(pen, icing, -0.75, -0.75, 0.75, 0.75, 34)


def ice_cream(pen: Pen, tone: Tone) -> None:
    """Scoops in a waffle cone, with a cherry."""
    scoops = int(pen.rng.integers(1, 3))
    cone = pen.fill([(-0.4, 0.06), (0.4, 0.06), (0.0, 1.0)], CRUST)
    for k in np.arange(-1.2, 1.2, 0.17):
        pen.stroke([(k, 0), (k + 0.6, 1.0)], 0.025, (160, 104, 60), on=cone)
        pen.stroke([(k, 0), (k - 0.6, 1.0)], 0.025, (160, 104, 60), on=cone)
    top = -0.14 - 0.36 * (scoops - 1)
    pen.stroke([(0.02, top - 0.4), (0.12, top - 0.62)], 0.03, STALK)
    pen.fill(oval(0.0, top - 0.42, 0.12, 0.12), (206, 40, 60))
    for k in reversed(range(scoops)):
        y, r = -0.14 - 0.38 * k, 0.48 - 0.08 * k
        ball = pen.fill(oval(0, y, r, r * 0.88), tone.base if k == 0 else tone.light)
        for x in np.linspace(-r * 0.75, r * 0.75, 4):
            pen.fill(oval(x, y + r * 0.6, 0.17, 0.15), tone.base if k == 0 else tone.light, join=ball)
        sprinkle(pen, ball, -0.4, y - 0.4, 0.4, y + 0.2, 12)


DRAWINGS = {"apple": apple, "banana": banana, "cake": cake, "doughnut": doughnut, "ice cream": ice_cream}
