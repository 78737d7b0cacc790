"""Random labelled pictures and clips of the world, for training networks on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neuroreel.core import checks
from neuroreel.core.seeds import generator
from neuroreel.simulate.movies import check_size, frame_truth
from neuroreel.simulate.rendering import Stage
from neuroreel.simulate.scenes import check_categories, draw_scene

PLACES = 24
"""Number of panoramas of each background in samples, so that they are drawn once."""


def sample_clips(
    n: int,
    *,
    frames: int,
    size: int = 64,
    fps: float = 15.0,
    seed: int = 0,
    categories: Sequence[str] | None = None,
    per_scene: int = 4,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return random clips and what they show, in random order.

    Parameters
    ----------
    n : number of clips.
    frames : frames per clip, at `fps`.
    size : side of the square frames in pixels.
    seed : the same seed gives the same clips.
    categories : those to draw from, evenly; all by default.
    per_scene : how many clips, at random times, share an object and a background; fewer is more varied, more is faster.

    Returns
    -------
    clips : (n, frames, size, size, 3) uint8 RGB.
    truth : arrays (n,) by the names of `Movie.truth`, at the middle of every clip, and the number of its scene.
    """
    for name, count in (("n", n), ("frames", frames), ("per_scene", per_scene)):
        checks.require(isinstance(count, int) and count >= 1, name, "must be a whole number of 1 or more", count)
    check_size(size)
    checks.positive("fps", fps)
    chosen = check_categories(categories)
    duration_s = max(7.0, frames / fps)
    n_scenes = -(-n // per_scene)
    order = generator(seed, "samples")
    rounds = -(-n_scenes // len(chosen))
    shown = np.concatenate([order.permutation(np.array(chosen)) for _ in range(rounds)])[:n_scenes]
    places = order.permutation(n)
    clips = np.empty((n, frames, size, size, 3), np.uint8)
    truth: list[dict[str, str | float]] = [{}] * n
    for i in range(n_scenes):
        rng = generator(seed, "sample", i)
        scene = draw_scene(rng, str(shown[i]), duration_s=duration_s)
        stage = Stage(replace(scene, place=scene.place % PLACES), size)
        for row in places[i * per_scene : (i + 1) * per_scene]:
            first_s = float(rng.uniform(0, duration_s - frames / fps))
            for k in range(frames):
                clips[row, k] = stage.frame(first_s + k / fps)
            truth[row] = {"scene": i, **frame_truth(stage.scene, first_s + (frames - 1) / (2 * fps))}
    return clips, {name: np.array([row[name] for row in truth]) for name in truth[0]}


def sample_frames(
    n: int, *, size: int = 64, seed: int = 0, categories: Sequence[str] | None = None, per_scene: int = 4
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return random pictures (n, size, size, 3) uint8 and what they show; the arguments are those of `sample_clips`."""
    clips, truth = sample_clips(n, frames=1, size=size, seed=seed, categories=categories, per_scene=per_scene)
    return clips[:, 0], truth


def still(
    category: str,
    *,
    colour: str = "red",
    background: str = "meadow",
    size: int = 64,
    object_size: float = 0.6,
    look: int = 0,
) -> np.ndarray:
    """Return one object in the middle of the picture, (size, size, 3) uint8.

    Parameters
    ----------
    category, colour, background : names.
    size : side of the picture in pixels.
    object_size : longer side of the object in frames, above 0 and at most 0.9.
    look : number of the object and of the place.
    """
    check_size(size)
    inside = checks.positive("object_size", object_size) <= 0.9
    checks.require(inside, "object_size", "must be at most 0.9", object_size)
    scene = draw_scene(generator(look, "still"), category)
    quiet = replace(scene, action="still", direction="", x=0.5, y=0.5, mirrored=False, look=look, place=look)
    return Stage(replace(quiet, colour=colour, background=background, size=object_size), size).frame(0.0)
