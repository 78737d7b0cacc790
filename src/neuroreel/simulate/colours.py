"""The eight named colours that objects come in."""

from __future__ import annotations

import numpy as np

from neuroreel.simulate.pen import Colour, Tone, mix

COLOURS: dict[str, Colour] = {
    "red": (214, 48, 44),
    "orange": (240, 134, 30),
    "yellow": (248, 212, 56),
    "green": (72, 168, 74),
    "blue": (52, 112, 216),
    "purple": (132, 76, 190),
    "pink": (246, 142, 184),
    "white": (242, 240, 236),
}


def tone_of(colour: str, rng: np.random.Generator) -> Tone:
    """Return a named colour as paint, a little lighter or darker from one object to the next."""
    named = COLOURS[colour]
    drift = float(rng.uniform(-0.1, 0.08))
    base = mix(named, (255, 255, 255) if drift > 0 else (30, 24, 40), abs(drift) * (0.4 if colour == "white" else 1))
    shadow = (66, 78, 110) if colour == "white" else (32, 18, 34)
    return Tone(base, mix(base, (255, 250, 236), 0.3), mix(base, shadow, 0.26), mix(base, shadow, 0.52))
