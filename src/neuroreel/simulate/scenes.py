"""Scenes: one object that does one thing before one background, all of it known at every moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.core.seeds import generator
from neuroreel.simulate.backgrounds import ASPECT, BACKGROUNDS
from neuroreel.simulate.categories import CATEGORIES, GROUP_OF
from neuroreel.simulate.colours import COLOURS

SHORTEST_S, LONGEST_S = 4.0, 10.0
"""Limits of a scene's duration, as in natural movies cut for fMRI."""

ACTIONS = ("drift", "approach", "recede", "rotate", "bounce", "still")
ACTION_SHARES = (0.5, 0.1, 0.1, 0.1, 0.1, 0.1)

DIRECTIONS: dict[str, tuple[float, float]] = {
    "right": (1.0, 0.0),
    "left": (-1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "up right": (1.0, -1.0),
    "up left": (-1.0, -1.0),
    "down right": (1.0, 1.0),
    "down left": (-1.0, 1.0),
}
DIRECTION_SHARES = (0.18, 0.18, 0.16, 0.16, 0.08, 0.08, 0.08, 0.08)
TURNS = ("clockwise", "anticlockwise")

REACH = 0.65
"""Farthest that an object lies from its centre of mass, in its sizes."""


@dataclass(frozen=True)
class Pose:
    """Where an object is at one moment.

    Attributes
    ----------
    x, y : centre of mass, in frames from the top left corner; x to the right, y down.
    size : longer side of the object, in frames.
    angle : degrees turned clockwise.
    stretch : height over its natural height; the width shrinks as the height grows.
    view : left edge of the camera's view within the panorama, in frames.
    """

    x: float
    y: float
    size: float
    angle: float
    stretch: float
    view: float


@dataclass(frozen=True)
class Scene:
    """One object that does one thing before one background.

    Attributes
    ----------
    onset_s, duration_s : when it is shown.
    category, colour, background : names.
    action : one of ACTIONS.
    direction : one of DIRECTIONS for a drift, of TURNS for a rotation, else empty.
    size : longer side of the object at half time, in frames.
    x, y : centre of the path, in frames from the top left corner.
    extent : length of the path in frames (drift, bounce), last over first size (approach), first over last
        (recede), degrees per second (rotate), else 0.
    period_s : seconds from one bounce to the next, else 0.
    pan : speed of the camera in frames per second, to the right if above 0.
    view : left edge of the first view within the panorama, in frames.
    mirrored : whether the object faces left.
    look, place : numbers from which the object's and the background's details are drawn.
    """

    onset_s: float
    duration_s: float
    category: str
    colour: str
    background: str
    action: str
    direction: str
    size: float
    x: float
    y: float
    extent: float
    period_s: float
    pan: float
    view: float
    mirrored: bool
    look: int
    place: int

    @property
    def group(self) -> str:
        """The group of the category."""
        return GROUP_OF[self.category]

    def pose(self, time_s: float) -> Pose:
        """Return where the object is `time_s` after the scene's onset; a smooth function of time."""
        done = time_s / self.duration_s - 0.5
        x, y, size, angle, stretch = self.x, self.y, self.size, 0.0, 1.0
        if self.action == "drift":
            dx, dy = DIRECTIONS[self.direction]
            x += dx * self.extent * done
            y += dy * self.extent * done
            if self.group in ("animal", "person"):
                angle = 4.0 * np.sin(2 * np.pi * 0.8 * time_s)
        elif self.action == "approach":
            size *= self.extent**done
        elif self.action == "recede":
            size *= self.extent**-done
        elif self.action == "rotate":
            angle = self.extent * time_s * (1 if self.direction == "clockwise" else -1)
        elif self.action == "bounce":
            lift = abs(np.sin(np.pi * time_s / self.period_s))
            y += self.extent * (0.5 - lift)
            stretch = 1 - 0.14 * (1 - min(lift / 0.3, 1.0)) ** 2
        return Pose(float(x), float(y), float(size), float(angle), float(stretch), self.view + self.pan * time_s)


def draw_scene(rng: np.random.Generator, category: str, *, onset_s: float = 0.0, duration_s: float = 7.0) -> Scene:
    """Return a random scene of a category; colour, background and action don't depend on the category."""
    checks.one_of("category", category, CATEGORIES)
    checks.positive("duration_s", duration_s)

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, max(low, high)))

    action = str(rng.choice(ACTIONS, p=ACTION_SHARES))
    size, extent, period_s, direction = between(0.32, 0.62), 0.0, 0.0, ""
    room_x = room_y = 0.0  # what the path takes beside the object, in frames
    largest = size
    if action == "drift":
        direction = str(rng.choice(list(DIRECTIONS), p=DIRECTION_SHARES))
        largest = size = between(0.28, 0.46)
        extent = (1 - 2 * REACH * size) * between(0.8, 1.0)
        dx, dy = DIRECTIONS[direction]
        room_x, room_y = extent * abs(dx), extent * abs(dy)
    elif action in ("approach", "recede"):
        largest, extent = between(0.5, 0.72), between(2.0, 2.8)
        size = largest / float(np.sqrt(extent))
    elif action == "rotate":
        direction, extent = str(rng.choice(TURNS)), between(40, 90)
    elif action == "bounce":
        largest = size = between(0.3, 0.46)
        extent, period_s = between(0.2, 0.34), between(0.8, 1.3)
        room_y = extent
    margin_x, margin_y = REACH * largest + room_x / 2, REACH * largest + room_y / 2
    fastest = min(0.12, (ASPECT - 1.1) / duration_s)  # the camera stays within the panorama
    pan = float(rng.choice((-1.0, 1.0))) * between(0.4 * fastest, fastest) if rng.random() < 0.35 else 0.0
    spare = ASPECT - 1.02 - abs(pan) * duration_s
    mirrored = "left" in direction if action == "drift" and DIRECTIONS[direction][0] else bool(rng.random() < 0.5)
    return Scene(
        onset_s=onset_s,
        duration_s=duration_s,
        category=category,
        colour=str(rng.choice(list(COLOURS))),
        background=str(rng.choice(BACKGROUNDS)),
        action=action,
        direction=direction,
        size=size,
        x=between(min(margin_x, 0.5), 1 - margin_x),
        y=between(min(margin_y, 0.5), 1 - margin_y),
        extent=extent,
        period_s=period_s,
        pan=pan,
        view=between(0.01, spare) + (abs(pan) * duration_s if pan < 0 else 0.0),
        mirrored=mirrored,
        look=int(rng.integers(2**31)),
        place=int(rng.integers(2**31)),
    )


def cut_times(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    """Return the onsets of scenes of 4 to 10 s that fill a movie, and its end, (scenes + 1,) seconds."""
    cuts = [0.0]
    while duration_s - cuts[-1] > LONGEST_S:
        left = duration_s - cuts[-1]
        cuts.append(cuts[-1] + float(rng.uniform(SHORTEST_S, min(LONGEST_S, left - SHORTEST_S))))
    return np.array([*cuts, duration_s])


def check_categories(categories: Sequence[str] | None) -> tuple[str, ...]:
    """Return the categories to draw from, all of them for None; unknown, repeated or none is an error."""
    if categories is None:
        return CATEGORIES
    checks.require(len(categories) > 0, "categories", "must be 1 or more", 0, error=ConfigError)
    for category in categories:
        checks.one_of("category", category, CATEGORIES)
    twice = sorted({c for c in categories if list(categories).count(c) > 1})
    checks.require(not twice, "categories", "must differ", ", ".join(twice), error=ConfigError)
    return tuple(categories)


def make_scenes(
    name: str, *, duration_s: float, seed: int, categories: Sequence[str] | None = None
) -> tuple[Scene, ...]:
    """Return the scenes of a movie; every category comes once before any comes again.

    Parameters
    ----------
    name : the movie; another name is another movie of the same world.
    duration_s : at least 4 s.
    seed : seed of the world; the same seed and name give the same scenes, whatever else is made before.
    categories : those that may appear; all by default.
    """
    chosen = check_categories(categories)
    checks.positive("duration_s", duration_s)
    checks.require(duration_s >= SHORTEST_S, "duration_s", f"must be {SHORTEST_S} or more", duration_s, name)
    cuts = cut_times(duration_s, generator(seed, "cuts", name))
    order = generator(seed, "order", name)
    rounds = -(-(len(cuts) - 1) // len(chosen))
    shown = np.concatenate([order.permutation(np.array(chosen)) for _ in range(rounds)])
    return tuple(
        draw_scene(
            generator(seed, "scene", name, i),
            str(shown[i]),
            onset_s=float(cuts[i]),
            duration_s=float(cuts[i + 1] - cuts[i]),
        )
        for i in range(len(cuts) - 1)
    )
