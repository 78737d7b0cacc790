"""Animals, facing right."""

from __future__ import annotations

from neuroreel.simulate.pen import INK, Colour, Pen, Tone, box, oval, smooth

WHITE: Colour = (250, 248, 244)
BEAK: Colour = (246, 160, 40)
NOSE: Colour = (226, 120, 130)


def eye(pen: Pen, x: float, y: float, radius: float) -> None:
    """Draw a round eye with a glint."""
    pen.fill(oval(x, y, radius, radius * 1.1), WHITE)
    pen.fill(oval(x + 0.25 * radius, y, 0.62 * radius, 0.74 * radius), INK)
    pen.fill(oval(x + 0.42 * radius, y - 0.3 * radius, 0.24 * radius, 0.24 * radius), WHITE)


def cat(pen: Pen, tone: Tone) -> None:
    """Sitting, with pointed ears, whiskers, a curled tail and stripes."""
    wide, head = pen.between(0.36, 0.46), pen.between(0.36, 0.42)
    pen.stroke(
        smooth([(-0.2, 0.8), (-0.75, 0.85), (-0.92, 0.45), (-0.7, 0.1), (-0.75, 0.45), (-0.6, 0.7)])[8:34],
        0.17,
        tone.dark,
    )
    body = pen.fill(
        smooth([(0.05, -0.3), (wide, 0.1), (wide + 0.08, 0.9), (-0.1, 0.95), (-wide - 0.15, 0.9), (-wide, 0.3)]),
        tone.base,
    )
    for i in range(3):
        pen.stroke([(-0.75, 0.15 + 0.24 * i), (-0.22, 0.2 + 0.24 * i)], 0.08, tone.deep, on=body)
    pen.fill(oval(0.12, 0.45, 0.2, 0.34), tone.light, on=body)
    for x in (0.0, 0.3):
        pen.fill(oval(x, 0.9, 0.16, 0.1), tone.light)
    for side in (-1, 1):
        x = 0.12 + side * head * 0.62
        pen.fill([(x - 0.21, -0.52), (x + side * 0.1, -1.0), (x + 0.21, -0.52)], tone.base)
        pen.fill([(x - 0.1, -0.58), (x + side * 0.07, -0.86), (x + 0.1, -0.58)], NOSE)
    face = pen.fill(oval(0.12, -0.38, head * 1.18, head), tone.base)
    for x in (-0.04, 0.12, 0.28):
        pen.stroke([(x, -0.8), (x, -0.62)], 0.06, tone.deep, on=face)
    pen.fill(oval(0.12, -0.2, 0.22, 0.14), tone.light, on=face)
    eye(pen, -0.06, -0.42, 0.1)
    eye(pen, 0.3, -0.42, 0.1)
    pen.fill([(0.06, -0.28), (0.18, -0.28), (0.12, -0.2)], NOSE)
    for side in (-1, 1):
        for lift in (-0.06, 0.04):
            pen.stroke([(0.12 + side * 0.2, -0.2 + lift / 2), (0.12 + side * 0.62, -0.22 + lift * 2)], 0.02, INK)


def elephant(pen: Pen, tone: Tone) -> None:
    """A big body on four thick legs, a fan of an ear and a hanging trunk."""
    ear, leg = pen.between(0.26, 0.34), pen.between(0.12, 0.15)
    pen.stroke([(-0.78, -0.1), (-0.95, 0.2), (-0.92, 0.4)], 0.06, tone.deep)
    for x in (-0.35, 0.2):
        pen.fill(box(x - leg, 0.2, x + leg, 0.78, 0.06), tone.deep)
    body = pen.fill(oval(-0.22, 0.02, 0.64, 0.5), tone.base)
    for x in (-0.6, -0.02):
        pen.fill(box(x - leg, 0.15, x + leg, 0.86, 0.06), tone.base, join=body)
        for toe in (-0.6, 0, 0.6):
            pen.fill(oval(x + toe * leg, 0.84, 0.04, 0.05), WHITE, on=body)
    curl = pen.between(0.0, 0.22)
    trunk = pen.stroke(
        smooth([(0.6, -0.2), (0.82, 0.1), (0.84, 0.5), (0.92 + curl, 0.72 - curl), (0.84, 0.5), (0.82, 0.1)])[:31],
        0.2,
        tone.base,
    )
    head = pen.fill(oval(0.46, -0.28, 0.38, 0.4), tone.base, join=trunk)
    for y in (0.14, 0.3, 0.46):
        pen.stroke([(0.72, y), (0.95, y)], 0.03, tone.deep, on=head)
    pen.fill(smooth([(0.58, 0.1), (0.7, 0.12), (0.78, 0.36), (0.66, 0.3)]), WHITE)
    flap = pen.fill(
        smooth([(0.38, -0.52), (0.1, -0.72), (-0.1 - ear / 2, -0.45), (-0.08, 0.0), (0.16, ear / 1.6), (0.34, -0.1)]),
        tone.dark,
    )
    pen.fill(oval(0.12, -0.25, 0.16, 0.26), NOSE, on=flap)
    eye(pen, 0.58, -0.36, 0.085)


def giraffe(pen: Pen, tone: Tone) -> None:
    """Long legs and a long neck, covered with patches."""
    lean = pen.between(0.3, 0.48)
    pen.stroke([(-0.5, 0.1), (-0.66, 0.34), (-0.64, 0.5)], 0.05, tone.deep)
    for x in (-0.26, 0.2):
        pen.stroke([(x, 0.25), (x - 0.02, 0.94)], 0.11, tone.deep)
    body = pen.fill(oval(-0.1, 0.14, 0.44, 0.25, -8), tone.base)
    for x in (-0.42, 0.08):
        pen.stroke([(x, 0.2), (x, 0.94)], 0.12, tone.base, join=body)
    pen.fill([(-0.02, 0.14), (0.32, 0.1), (lean + 0.15, -0.72), (lean - 0.08, -0.74)], tone.base, join=body)
    for _ in range(34):
        x, y, r = pen.between(-0.6, 0.7), pen.between(-0.8, 0.42), pen.between(0.045, 0.085)
        pen.fill(oval(x, y, r, r * 0.8, pen.between(0, 90)), tone.deep, on=body)
    for x in (-0.42, 0.08):
        pen.fill(box(x - 0.07, 0.88, x + 0.07, 0.98, 0.02), INK)
    pen.stroke([(0.1, -0.02), (lean - 0.1, -0.72)], 0.06, tone.deep)
    for x in (0.0, 0.13):
        pen.stroke([(lean + x, -0.84), (lean + x - 0.02, -1.02)], 0.05, tone.dark)
        pen.fill(oval(lean + x - 0.02, -1.03, 0.045, 0.045), INK)
    pen.fill(oval(lean - 0.12, -0.82, 0.14, 0.06, 25), tone.dark)
    head = pen.fill(
        smooth(
            [(lean - 0.1, -0.88), (lean + 0.16, -0.9), (lean + 0.46, -0.68), (lean + 0.4, -0.55), (lean - 0.06, -0.66)]
        ),
        tone.base,
    )
    pen.fill(oval(lean + 0.4, -0.62, 0.13, 0.1), tone.light, on=head)
    eye(pen, lean + 0.1, -0.78, 0.065)


def duck(pen: Pen, tone: Tone) -> None:
    """A round body with an upturned tail, a wing and a flat beak."""
    neck = pen.between(-0.6, -0.45)
    for x in (-0.18, 0.16):
        pen.stroke([(x, 0.5), (x, 0.85)], 0.07, BEAK)
        pen.fill([(x - 0.06, 0.8), (x + 0.24, 0.93), (x - 0.1, 0.95)], BEAK)
    body = pen.fill(
        smooth(
            [
                (-1.0, -0.24),
                (-0.62, 0.0),
                (0.05, -0.05),
                (0.55, 0.0),
                (0.62, 0.35),
                (0.25, 0.66),
                (-0.4, 0.66),
                (-0.84, 0.3),
            ]
        ),
        tone.base,
    )
    pen.fill(oval(0.4, neck + 0.35, 0.24, 0.45), tone.base, join=body)
    beak = pen.fill(smooth([(0.62, neck - 0.08), (0.98, neck + 0.02), (0.98, neck + 0.14), (0.62, neck + 0.12)]), BEAK)
    pen.stroke([(0.62, neck + 0.05), (0.98, neck + 0.08)], 0.025, INK, on=beak)
    pen.fill(oval(0.42, neck, 0.33, 0.31), tone.base, join=body)
    pen.fill(smooth([(0.22, 0.12), (0.1, 0.42), (-0.3, 0.5), (-0.72, 0.12), (-0.3, 0.06)]), tone.dark)
    for i in range(2):
        pen.stroke([(-0.45 + 0.1 * i, 0.14 + 0.12 * i), (0.02, 0.2 + 0.1 * i)], 0.035, tone.deep)
    eye(pen, 0.5, neck - 0.06, 0.1)


def fish(pen: Pen, tone: Tone) -> None:
    """An oval with fins, a forked tail and scales or bands."""
    tall = pen.between(0.4, 0.54)
    tail = pen.fill(smooth([(-0.5, 0.0), (-0.98, -0.46), (-0.84, 0.0), (-0.98, 0.46)]), tone.dark)
    for y in (-0.2, -0.07, 0.07, 0.2):
        pen.stroke([(-0.6, y / 3), (-0.95, y * 1.6)], 0.025, tone.deep, on=tail)
    pen.fill(smooth([(-0.3, -tall * 0.7), (-0.1, -tall - 0.32), (0.34, -tall - 0.1), (0.4, -tall * 0.6)]), tone.dark)
    pen.fill(smooth([(-0.2, tall * 0.7), (-0.24, tall + 0.22), (0.16, tall * 0.8)]), tone.dark)
    body = pen.fill(
        smooth([(-0.66, 0), (-0.2, -tall), (0.4, -tall * 0.92), (0.92, 0.02), (0.4, tall * 0.92), (-0.2, tall)]),
        tone.base,
    )
    if pen.chance(0.5):
        for x in (-0.34, 0.02):
            pen.stroke(oval(x - 0.5, 0, 0.56, 0.9, arc=(-60, 60)), 0.13, tone.light, on=body)
    else:
        for x in (-0.4, -0.2, 0.0, 0.2):
            for y in (-0.24, 0.0, 0.24):
                pen.stroke(oval(x, y, 0.1, 0.12, arc=(-80, 80)), 0.035, tone.deep, on=body)
    pen.stroke(oval(0.14, 0, 0.36, 0.4, arc=(-60, 60)), 0.035, tone.deep, on=body)
    pen.fill(smooth([(0.28, 0.1), (-0.12, 0.02), (-0.16, 0.32)]), tone.dark)
    eye(pen, 0.62, -0.12, 0.13)
    pen.stroke(oval(0.86, 0.1, 0.16, 0.1, arc=(100, 190)), 0.04, INK)


DRAWINGS = {"cat": cat, "elephant": elephant, "giraffe": giraffe, "duck": duck, "fish": fish}
