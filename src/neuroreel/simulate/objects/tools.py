"""Tools."""

from __future__ import annotations

import numpy as np

from neuroreel.simulate.pen import Colour, Pen, Tone, box, oval, smooth

STEEL: Colour = (188, 194, 204)
WOOD: Colour = (178, 126, 78)


def hammer(pen: Pen, tone: Tone) -> None:
    """A thick handle with a steel head and a claw."""
    pen.tilt(pen.between(15, 50))
    grip = pen.fill(
        smooth(
            [
                (-0.12, -0.5),
                (0.12, -0.5),
                (0.13, 0.2),
                (0.19, 0.7),
                (0.14, 1.0),
                (-0.14, 1.0),
                (-0.19, 0.7),
                (-0.13, 0.2),
            ]
        ),
        tone.base,
    )
    for y in np.arange(0.5, 0.96, 0.12):
        pen.stroke([(-0.3, y), (0.3, y)], 0.04, tone.deep, on=grip)
    head = pen.fill(smooth([(-0.22, -0.78), (0.3, -0.8), (0.3, -0.46), (-0.22, -0.46)], 4), STEEL)
    pen.fill([(-0.2, -0.78), (-0.5, -0.74), (-0.86, -0.34), (-0.52, -0.5), (-0.2, -0.46)], STEEL, join=head)
    pen.fill(box(0.28, -0.86, 0.56, -0.42, 0.06), tone.dark)


def wrench(pen: Pen, tone: Tone) -> None:
    """A bar with an open jaw at one end and a ring at the other."""
    pen.tilt(pen.between(20, 60))
    bar = pen.stroke([(0, -0.5), (0, 0.62)], pen.between(0.24, 0.32), tone.base)
    pen.fill(oval(0, -0.62, 0.4, 0.38), tone.base, join=bar)
    pen.fill(oval(0, 0.72, 0.29, 0.29), tone.base, join=bar)
    pen.stroke([(0, -0.26), (0, 0.42)], 0.08, tone.dark, on=bar)
    pen.erase([(-0.16, -1.2), (0.16, -1.2), (0.16, -0.68), (0, -0.56), (-0.16, -0.68)])
    pen.erase(oval(0, 0.72, 0.14, 0.14))


def key(pen: Pen, tone: Tone) -> None:
    """A round bow with a hole, a shaft and teeth."""
    pen.tilt(pen.between(-40, 10))
    teeth = int(pen.rng.integers(2, 4))
    bow = pen.fill(oval(-0.56, 0, 0.42, 0.4), tone.base)
    pen.stroke([(-0.3, 0), (0.94, 0)], 0.2, tone.base, join=bow)
    for k in range(teeth):
        x = 0.88 - 0.24 * k
        pen.fill(box(x - 0.08, 0, x + 0.08, pen.between(0.26, 0.42)), tone.base, join=bow)
    pen.stroke(oval(-0.56, 0, 0.3, 0.28), 0.05, tone.dark, on=bow)
    pen.stroke([(-0.1, -0.02), (0.86, -0.02)], 0.05, tone.light, on=bow)
    pen.erase(oval(-0.62, 0, 0.17, 0.17))


def umbrella(pen: Pen, tone: Tone) -> None:
    """A scalloped dome in two shades on a stick with a crook."""
    pen.tilt(pen.between(-20, 20))
    tall = pen.between(0.62, 0.78)
    pen.stroke(np.concatenate([[(0.0, -0.9), (0.0, 0.72)], oval(0.14, 0.74, 0.14, 0.18, arc=(180, 20))]), 0.08, WOOD)
    hem = [
        (x, 0.02 - 0.09 * np.sin(np.pi * u))
        for x, u in zip(np.linspace(0.94, -0.94, 33), np.linspace(0, 4, 33) % 1, strict=True)
    ]
    dome = pen.fill(np.concatenate([oval(0, 0.02, 0.94, tall, arc=(180, 360)), hem]), tone.base)
    for side in (-1, 1):
        pen.fill(
            smooth(
                [(0, 0.06 - tall), (side * 0.34, -0.42), (side * 0.47, 0.05), (side * 0.94, 0.1), (side * 0.8, -0.4)]
            ),
            tone.dark,
            on=dome,
        )
    for x in (-0.47, 0.0, 0.47):
        pen.stroke(
            smooth([(0, 0.02 - tall), (x * 0.75, -0.4), (x, 0.02), (x * 0.75, -0.4)])[:21], 0.025, tone.deep, on=dome
        )
    pen.fill(oval(0, -tall - 0.02, 0.05, 0.1), WOOD)


def watering_can(pen: Pen, tone: Tone) -> None:
    """A tub with a spout, a rose and a curved handle."""
    half = pen.between(0.38, 0.46)
    pen.stroke(oval(-half - 0.02, 0.06, 0.36, 0.42, arc=(80, 290)), 0.11, tone.dark)
    pen.stroke(oval(-0.08, -0.28, half * 0.7, 0.4, arc=(180, 360)), 0.1, tone.dark)
    spout = pen.fill([(half - 0.24, 0.5), (half - 0.18, 0.2), (0.76, -0.5), (0.88, -0.42)], tone.base)
    rose = pen.fill([(0.62, -0.52), (0.86, -0.74), (1.04, -0.46), (0.82, -0.3)], tone.dark)
    for t in (0.25, 0.5, 0.75):
        pen.fill(oval(0.86 + 0.16 * t, -0.7 + 0.24 * t, 0.025, 0.025), tone.deep, on=rose)
    tub = pen.fill([(-half - 0.12, -0.26), (half - 0.04, -0.26), (half + 0.08, 0.78), (-half - 0.24, 0.78)], tone.base)
    for y in (-0.14, 0.62):
        pen.stroke([(-1, y), (1, y)], 0.06, tone.light, on=tub)
    pen.fill(oval(-0.08, 0.26, 0.15, 0.17), tone.light, on=tub)
    pen.fill(oval(-0.08, -0.27, half, 0.08), tone.deep)
    pen.stroke([(half - 0.2, 0.36), (0.8, -0.44)], 0.04, tone.light, on=spout)


DRAWINGS = {"hammer": hammer, "wrench": wrench, "key": key, "umbrella": umbrella, "watering can": watering_can}
