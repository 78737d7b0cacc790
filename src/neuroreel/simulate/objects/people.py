"""People, facing the viewer."""

from __future__ import annotations

import numpy as np

from neuroreel.simulate.pen import INK, Colour, Pen, Tone, box, oval, smooth

SKINS: tuple[Colour, ...] = ((250, 214, 184), (226, 176, 136), (176, 122, 86), (122, 80, 58))
HAIRS: tuple[Colour, ...] = ((52, 40, 40), (112, 70, 44), (196, 138, 68), (150, 66, 40))
BLUSH: Colour = (236, 128, 120)
WHITE: Colour = (250, 248, 244)


def skin_and_hair(pen: Pen) -> tuple[Colour, Colour]:
    """Choose a skin and a hair colour."""
    return SKINS[int(pen.rng.integers(len(SKINS)))], HAIRS[int(pen.rng.integers(len(HAIRS)))]


def features(pen: Pen, x: float, y: float, radius: float) -> None:
    """Draw two eyes, cheeks and a smile on a small head."""
    for side in (-1, 1):
        pen.fill(oval(x + side * 0.38 * radius, y - 0.02 * radius, 0.13 * radius, 0.18 * radius), INK)
        pen.fill(oval(x + side * 0.62 * radius, y + 0.34 * radius, 0.16 * radius, 0.11 * radius), BLUSH)
    pen.stroke(oval(x, y + 0.22 * radius, 0.32 * radius, 0.3 * radius, arc=(25, 155)), 0.1 * radius, (150, 50, 56))


def face(pen: Pen, tone: Tone) -> None:
    """A whole face: hair, ears, eyes with brows, nose, cheeks and a mouth."""
    _, hair = skin_and_hair(pen)
    wide, long = pen.between(0.66, 0.76), pen.between(0.78, 0.9)
    if pen.chance(0.5):
        pen.fill(
            smooth([(0, -1.0), (0.8, -0.66), (0.86, 0.5), (0.4, 0.84), (-0.4, 0.84), (-0.86, 0.5), (-0.8, -0.66)]), hair
        )
    for side in (-1, 1):
        pen.fill(oval(side * wide, 0.08, 0.16, 0.22), tone.dark)
    skin = pen.fill(
        smooth(
            [
                (0, -long),
                (wide * 0.85, -0.55),
                (wide, 0.05),
                (wide * 0.72, 0.62),
                (0, long + 0.06),
                (-wide * 0.72, 0.62),
                (-wide, 0.05),
                (-wide * 0.85, -0.55),
            ]
        ),
        tone.base,
    )
    fringe = [(0.74, -0.22), (0.4, -0.46), (0.05, -0.38), (-0.3, -0.5), (-0.74, -0.22)]
    pen.fill(smooth([(-0.76, -0.6), (-0.36, -0.98), (0.3, -1.0), (0.76, -0.62), *fringe]), hair)
    for side in (-1, 1):
        x = side * 0.3
        pen.fill(oval(side * 0.46, 0.36, 0.14, 0.1), BLUSH, on=skin)
        pen.fill(oval(x, -0.02, 0.16, 0.14), WHITE)
        pen.fill(oval(x, -0.01, 0.085, 0.1), INK)
        pen.fill(oval(x + 0.03, -0.05, 0.03, 0.03), WHITE)
        pen.stroke([(x - 0.17, -0.24), (x, -0.29), (x + 0.17, -0.24)], 0.06, hair)
    pen.stroke([(0.0, 0.06), (0.07, 0.28), (-0.04, 0.3)], 0.05, tone.deep, on=skin)
    if pen.chance(0.5):
        pen.fill(oval(0, 0.46, 0.27, 0.2, arc=(0, 180)), (140, 40, 50))
        pen.fill(box(-0.18, 0.46, 0.18, 0.53), WHITE)
    else:
        pen.stroke(oval(0, 0.38, 0.28, 0.18, arc=(20, 160)), 0.07, (150, 44, 52))


def man(pen: Pen, tone: Tone) -> None:
    """Standing in a shirt and trousers, an arm raised or not."""
    skin, hair = skin_and_hair(pen)
    wave, stride = pen.between(-0.5, 0.45), pen.between(0.04, 0.16)
    for side in (-1, 1):
        x = side * (0.13 + stride)
        pen.stroke([(side * 0.12, 0.28), (x, 0.88)], 0.22, tone.deep)
        pen.fill(oval(x + 0.05, 0.95, 0.16, 0.075), INK)
    for side, reach in ((-1, 0.36), (1, wave)):
        pen.stroke([(side * 0.26, -0.22), (side * 0.5, reach * 0.3), (side * 0.56, reach)], 0.17, tone.dark)
        pen.fill(oval(side * 0.57, reach + (0.08 if reach > 0 else -0.08), 0.09, 0.1), skin)
    shirt = pen.fill(
        smooth([(-0.34, -0.32), (0.34, -0.32), (0.32, 0.1), (0.27, 0.4), (-0.27, 0.4), (-0.32, 0.1)]), tone.base
    )
    pen.fill(box(-0.5, 0.3, 0.5, 0.38), INK, on=shirt)
    for y in (-0.16, 0.0, 0.16):
        pen.fill(oval(0, y, 0.025, 0.025), WHITE, on=shirt)
    pen.fill(box(-0.08, -0.46, 0.08, -0.28), skin)
    pen.fill(oval(0, -0.62, 0.25, 0.28), skin)
    pen.fill(
        smooth(
            [(-0.28, -0.6), (-0.26, -0.86), (0.0, -0.98), (0.26, -0.86), (0.28, -0.6), (0.14, -0.76), (-0.14, -0.76)]
        ),
        hair,
    )
    features(pen, 0, -0.58, 0.25)


def woman(pen: Pen, tone: Tone) -> None:
    """Standing in a wide dress, with long hair."""
    skin, hair = skin_and_hair(pen)
    hem, wave = pen.between(0.46, 0.64), pen.between(-0.4, 0.3)
    for x in (-0.13, 0.13):
        pen.stroke([(x, 0.5), (x, 0.9)], 0.12, skin)
        pen.fill(oval(x + 0.03, 0.95, 0.13, 0.065), tone.deep)
    pen.fill(
        smooth([(0, -0.96), (0.32, -0.8), (0.36, -0.2), (0.2, -0.1), (-0.2, -0.1), (-0.36, -0.2), (-0.32, -0.8)]), hair
    )
    for side, reach in ((-1, 0.22), (1, wave)):
        pen.stroke([(side * 0.2, -0.24), (side * 0.46, reach * 0.4), (side * 0.58, reach)], 0.12, skin)
    dress = pen.fill(
        smooth(
            [
                (-0.22, -0.32),
                (0.22, -0.32),
                (0.17, 0.0),
                (hem * 0.8, 0.4),
                (hem, 0.72),
                (0, 0.78),
                (-hem, 0.72),
                (-hem * 0.8, 0.4),
                (-0.17, 0.0),
            ]
        ),
        tone.base,
    )
    pen.stroke([(-0.3, -0.01), (0.3, -0.01)], 0.08, tone.deep, on=dress)
    for _ in range(18):
        pen.fill(oval(pen.between(-0.6, 0.6), pen.between(0.1, 0.75), 0.035, 0.035), tone.light, on=dress)
    pen.fill(box(-0.07, -0.46, 0.07, -0.28), skin)
    pen.fill(oval(0, -0.62, 0.24, 0.27), skin)
    pen.fill(
        smooth(
            [(-0.27, -0.5), (-0.26, -0.84), (0.0, -0.95), (0.26, -0.84), (0.27, -0.5), (0.17, -0.7), (-0.06, -0.78)]
        ),
        hair,
    )
    features(pen, 0, -0.58, 0.24)


def baby(pen: Pen, tone: Tone) -> None:
    """Sitting in a romper, with a big head and a tuft of hair."""
    skin, hair = skin_and_hair(pen)
    head = pen.between(0.46, 0.54)
    for side in (-1, 1):
        pen.stroke([(side * 0.3, 0.16), (side * 0.62, pen.between(0.1, 0.4))], 0.22, tone.base)
        pen.fill(oval(side * 0.66, 0.3 if side < 0 else 0.24, 0.11, 0.11), skin)
    body = pen.fill(
        smooth([(-0.32, 0.0), (0.32, 0.0), (0.48, 0.6), (0.3, 0.86), (-0.3, 0.86), (-0.48, 0.6)]), tone.base
    )
    pen.fill(oval(0, 0.46, 0.22, 0.25), tone.light, on=body)
    for side in (-1, 1):
        pen.fill(oval(side * 0.46, 0.8, 0.3, 0.19, side * 14), tone.base)
        pen.fill(oval(side * 0.76, 0.78, 0.14, 0.2), WHITE)
    for side in (-1, 1):
        pen.fill(oval(side * head * 1.04, -0.34, 0.11, 0.13), skin)
    pen.fill(oval(0, -0.4, head * 1.05, head), skin)
    pen.fill(smooth([(-0.16, -0.84), (-0.04, -1.04), (0.14, -0.98), (0.1, -0.9), (0.2, -0.8), (0.0, -0.7)]), hair)
    features(pen, 0, -0.34, head * 0.82)


def wizard(pen: Pen, tone: Tone) -> None:
    """A long robe and a pointed hat with stars, a white beard and a staff."""
    skin, _ = skin_and_hair(pen)
    bend = pen.between(-0.16, 0.16)
    pen.stroke([(0.62, -0.4), (0.66, 0.96)], 0.07, (128, 86, 56))
    pen.fill(oval(0.62, -0.5, 0.13, 0.13), (150, 226, 240))
    robe = pen.fill(
        smooth([(-0.2, -0.3), (0.2, -0.3), (0.4, 0.3), (0.58, 0.96), (0, 0.99), (-0.58, 0.96), (-0.4, 0.3)], 8),
        tone.base,
    )
    pen.fill(box(-1, 0.84, 1, 1.1), tone.deep, on=robe)
    for side in (-1, 1):
        pen.fill(
            smooth(
                [(side * 0.18, -0.24), (side * 0.44, 0.0), (side * 0.66, 0.12), (side * 0.5, 0.34), (side * 0.24, 0.2)]
            ),
            tone.dark,
        )
        pen.fill(oval(side * 0.63, 0.16, 0.09, 0.09), skin)
    pen.fill(oval(0, -0.36, 0.23, 0.23), skin)
    pen.fill(smooth([(-0.25, -0.36), (0, -0.24), (0.25, -0.36), (0.2, 0.1), (0, 0.42), (-0.2, 0.1)]), WHITE)
    for side in (-1, 1):
        pen.fill(oval(side * 0.09, -0.4, 0.032, 0.045), INK)
    pen.fill(oval(0, -0.31, 0.06, 0.05), BLUSH)
    hat = pen.fill(
        smooth([(-0.3, -0.5), (bend - 0.08, -0.9), (bend * 2, -1.06), (bend + 0.1, -0.86), (0.3, -0.5)], 8), tone.base
    )
    pen.fill(oval(0, -0.5, 0.44, 0.08), tone.deep)
    for x, y in ((0.02, -0.66), (-0.3, 0.5), (0.26, 0.6), (0.3, 0.06), (-0.1, 0.72)):
        points = [
            (r * np.sin(a) + x, y - r * np.cos(a))
            for a, r in zip(np.arange(10) * np.pi / 5, (0.085, 0.036) * 5, strict=True)
        ]
        pen.fill(points, (252, 222, 110), on=hat if y < -0.5 else robe)


DRAWINGS = {"face": face, "man": man, "woman": woman, "baby": baby, "wizard": wizard}
