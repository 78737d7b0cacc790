"""Movies of the simulated world: any size and rate, random access, the truth of every frame, and H.264 files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroreel.core import checks
from neuroreel.core.clock import to_samples
from neuroreel.core.types import Event, Video
from neuroreel.core.video import write_video
from neuroreel.simulate.captions import caption_of
from neuroreel.simulate.rendering import stage_of
from neuroreel.simulate.scenes import Scene, make_scenes

SMALLEST = 16
"""Least side of a frame in pixels."""

FORGIVEN_S = 1e-9


def check_size(size: int, source: str | None = None) -> int:
    """Return a frame side in pixels if it is whole, even (as H.264 asks) and 16 or more, else raise DataError."""
    good = isinstance(size, int | np.integer) and size >= SMALLEST and size % 2 == 0
    checks.require(good, "size", f"must be an even whole number of {SMALLEST} or more", size, source)
    return int(size)


@dataclass(frozen=True)
class Movie:
    """Scenes, cut one after the other, shown at a rate and a size.

    Frame i is the world at i / fps seconds. Nothing is rendered before it is asked for, and what is rendered doesn't
    depend on what was asked for before.

    Attributes
    ----------
    name : the stimulus.
    scenes : in order and without a gap.
    fps : frames per second.
    size : side of the square frames in pixels, even.
    """

    name: str
    scenes: tuple[Scene, ...]
    fps: float
    size: int

    def __post_init__(self) -> None:
        checks.positive("fps", self.fps, self.name)
        check_size(self.size, self.name)
        checks.require(len(self.scenes) > 0, "scenes", "must be 1 or more", 0, self.name)

    @property
    def duration_s(self) -> float:
        """Seconds from the first scene's onset to the last one's end."""
        return self.scenes[-1].onset_s + self.scenes[-1].duration_s

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return to_samples(self.duration_s, 1 / self.fps)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, height, width, 3)"""
        return self.n_frames, self.size, self.size, 3

    def scene_of(self, frames: np.ndarray) -> np.ndarray:
        """Return which scene every frame number belongs to, as an int array of the same shape."""
        onsets = np.array([scene.onset_s for scene in self.scenes])
        return np.searchsorted(onsets, np.asarray(frames) / self.fps + FORGIVEN_S, side="right") - 1

    def _numbers(self, start: int, stop: int | None) -> np.ndarray:
        stop = self.n_frames if stop is None else stop
        inside = 0 <= start <= stop <= self.n_frames
        checks.require(inside, "frames", f"must lie within 0..{self.n_frames}", f"{start}..{stop}", self.name)
        return np.arange(start, stop)

    def _at(self, frame: int) -> tuple[Scene, float]:
        """Return the scene of a frame and the time since its onset."""
        scene = self.scenes[int(self.scene_of(self._numbers(frame, frame + 1))[0])]
        return scene, frame / self.fps - scene.onset_s

    def frames(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the pictures of frames `start` to before `stop`, (frames, size, size, 3) uint8 RGB."""
        numbers = self._numbers(start, stop)
        out = np.empty((len(numbers), self.size, self.size, 3), np.uint8)
        for row, frame in enumerate(numbers):
            scene, time_s = self._at(int(frame))
            out[row] = stage_of(scene, self.size).frame(time_s)
        return out

    def masks(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return how much of every pixel the object covers, (frames, size, size) float32, 0 to 1."""
        numbers = self._numbers(start, stop)
        out = np.empty((len(numbers), self.size, self.size), np.float32)
        for row, frame in enumerate(numbers):
            scene, time_s = self._at(int(frame))
            out[row] = stage_of(scene, self.size).mask(time_s)
        return out

    def flow(self, frame: int) -> np.ndarray:
        """Return the optical flow from a frame to one 1 / fps later, (size, size, 2) float32 (x, y) in pixels.

        In a scene's last frame it is the motion that would have gone on without the cut.
        """
        scene, time_s = self._at(frame)
        return stage_of(scene, self.size).flow(time_s, 1 / self.fps)

    def truth(self, start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """Return what is known of frames `start` to before `stop`, arrays (frames,) by name.

        `scene` is the number of the scene; `time_s` is the frame's time in the movie; `category`, `group`, `colour`,
        `background`, `action`, `direction` and `caption` are text; `x`, `y` and `size` are in frames, `angle` in
        degrees clockwise, `velocity_x`, `velocity_y` in frames per second, `growth` in 1 / s (of the logarithm of the
        size), `pan` in frames per second.
        """
        numbers = self._numbers(start, stop)
        which = self.scene_of(numbers)
        times = numbers / self.fps
        rows = [frame_truth(self.scenes[i], t - self.scenes[i].onset_s) for i, t in zip(which, times, strict=True)]
        columns = rows[0] if rows else frame_truth(self.scenes[0], 0.0)
        known = {name: np.array([row[name] for row in rows]) for name in columns}
        return {"scene": which, "time_s": times, **known}

    def events(self) -> tuple[Event, ...]:
        """Return one event a scene, with its category and caption."""
        return tuple(Event(s.onset_s, s.duration_s, s.category, caption_of(s)) for s in self.scenes)

    def to_video(self) -> Video:
        """Return the movie as a Video that renders what is read."""
        return Video(self.name, self.fps, self.shape, self.frames)


def frame_truth(scene: Scene, time_s: float) -> dict[str, str | float]:
    """Return what is known of a scene `time_s` after its onset; names and units are those of `Movie.truth`."""
    step_s = 1e-4
    pose, soon = scene.pose(time_s), scene.pose(time_s + step_s)
    return {
        "category": scene.category,
        "group": scene.group,
        "colour": scene.colour,
        "background": scene.background,
        "action": scene.action,
        "direction": scene.direction,
        "caption": caption_of(scene),
        "x": pose.x,
        "y": pose.y,
        "size": pose.size,
        "angle": pose.angle,
        "velocity_x": (soon.x - pose.x) / step_s,
        "velocity_y": (soon.y - pose.y) / step_s,
        "growth": float(np.log(soon.size / pose.size)) / step_s,
        "pan": scene.pan,
    }


def make_movie(
    name: str,
    *,
    minutes: float,
    size: int = 64,
    fps: float = 15.0,
    seed: int = 0,
    categories: Sequence[str] | None = None,
) -> Movie:
    """Return a random movie of the simulated world.

    Parameters
    ----------
    name : the stimulus; another name is another movie of the same world.
    minutes : duration, at least 4 s.
    size : side of the square frames in pixels, even.
    fps : frames per second; size and rate don't change what happens.
    seed : seed of the world.
    categories : those that may appear, so that the others are held out; all by default.
    """
    checks.positive("minutes", minutes, name)
    scenes = make_scenes(name, duration_s=60.0 * minutes, seed=seed, categories=categories)
    return Movie(name, scenes, fps, size)


def write_mp4(path: str | Path, movie: Movie, *, crf: int = 16, progress: Callable[[int], None] | None = None) -> Path:
    """Write a movie as H.264 (yuv420p, a key frame every 15) and return the path; memory holds one frame.

    Parameters
    ----------
    path : the file; it appears when it is whole, and one that was there is replaced then.
    crf : x264's quality, 0 (lossless) to 51.
    progress : called with the number of frames done after every scene.
    """
    path = Path(path)
    checks.require(isinstance(crf, int) and 0 <= crf <= 51, "crf", "must be a whole number from 0 to 51", crf, path)
    checks.require(path.parent.is_dir(), "folder of the movie", "must exist", path.parent, path)
    which = movie.scene_of(np.arange(movie.n_frames))

    def frames() -> Iterator[np.ndarray]:
        for frame in range(movie.n_frames):
            yield movie.frames(frame, frame + 1)[0]
            last = frame + 1 == movie.n_frames
            if progress is not None and (last or which[frame + 1] != which[frame]):
                progress(frame + 1)

    write_video(path, frames(), movie.fps, crf=crf, preset="veryfast")
    return path
