"""What a BIDS run showed: a movie cut into scenes, or many clips and pictures one after the other, as one Video."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from neuroreel.core import checks
from neuroreel.core.files import inside
from neuroreel.core.sets import resize
from neuroreel.core.types import Event, Video
from neuroreel.core.video import open_video
from neuroreel.datasets.bids_tables import EventRow

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
PICTURE_FPS = 10.0
GREY = 128  # on show where no stimulus is
_OPEN = 8  # clips kept open


def stimulus_files(rows: Sequence[EventRow], folder: Path | None, events: Path) -> dict[str, Path]:
    """Return the stimulus files that the events name, in order, by the name in the table.

    Raises
    ------
    DataError
        If a file is missing, lies outside the folder, or there is no folder.
    """
    files: dict[str, Path] = {}
    for row in rows:
        if row.stim_file and row.stim_file not in files:
            rule = f"must be in a folder stimuli, to show {row.stim_file}"
            checks.require(folder is not None, "stim_file", rule, "no such folder", events)
            assert folder is not None
            file = inside(folder, row.stim_file.removeprefix("stimuli/"), events)
            checks.require(file.is_file(), "stim_file", f"must be in {folder}", repr(row.stim_file), events)
            files[row.stim_file] = file
    return files


def one_movie(rows: Sequence[EventRow], files: dict[str, Path]) -> bool:
    """Return True if the run shows one video once, so that several rows naming it are its scenes."""
    if len(files) != 1:
        return False
    name, file = next(iter(files.items()))
    if file.suffix.lower() in PICTURES:
        return False
    named = [row for row in rows if row.stim_file == name]
    if len(named) == 1 or any(row.stim_onset_s is not None for row in named):
        return True
    video = open_video(file)
    return named[-1].onset_s - named[0].onset_s < video.shape[0] / video.fps


def show(
    rows: Sequence[EventRow], files: dict[str, Path], name: str, events: Path
) -> tuple[str, Video | None, tuple[Event, ...]]:
    """Return the name of what the run showed, the video of it and its events, on the clock of the table.

    The first frame of a movie is on show at the onset of the first row that names it, or `stim_onset` seconds earlier.
    Of several clips or pictures each row plays its file from the start; grey is between them.

    Parameters
    ----------
    name : name of what was shown; empty for the file's name without its ending, or one made of all files' names.
    """
    if not files:
        return name, None, tuple(_event(row, "") for row in rows)
    named = [row for row in rows if row.stim_file]
    if one_movie(rows, files):
        file = next(iter(files.values()))
        starts = [row.onset_s - (row.stim_onset_s or 0.0) for row in named if row.stim_onset_s is not None]
        start_s = starts[0] if starts else named[0].onset_s
        name = name or _plain(named[0].stim_file)
        video = open_video(file, name=name, start_s=start_s)
        apart = max(starts, default=start_s) - min(starts, default=start_s)
        rule = f"of {named[0].stim_file} must put its start at one time, within a frame"
        checks.require(apart <= 1 / video.fps, "stim_onset", rule, f"{apart:.3f} s apart", events)
        scenes = tuple(_event(row, f"{name}@{row.onset_s - start_s:.3f}" if row.stim_file else "") for row in rows)
        return name, video, scenes
    order = repr([(row.stim_file, round(row.onset_s - named[0].onset_s, 3), row.duration_s) for row in named])
    name = name or f"{len(files)} stimuli {hashlib.sha256(order.encode()).hexdigest()[:12]}"
    shown = tuple(_event(row, _plain(row.stim_file) if row.stim_file else "") for row in rows)
    return name, montage(named, files, name), shown


def _event(row: EventRow, otherwise: str) -> Event:
    stimulus = otherwise if row.stimulus is None else row.stimulus
    return Event(row.onset_s, row.duration_s, row.category, row.caption, stimulus)


def _plain(stim_file: str) -> str:
    return str(PurePosixPath(stim_file.removeprefix("stimuli/")).with_suffix(""))


def montage(rows: Sequence[EventRow], files: dict[str, Path], name: str) -> Video:
    """Return one video of clips and pictures, each from its row's onset for its duration, grey elsewhere.

    It has the size and the rate of the first clip (10 frames per second for pictures only).
    """
    clips = Clips(files)
    moving = [stim for stim, file in files.items() if file.suffix.lower() not in PICTURES]
    first = clips.open(moving[0] if moving else rows[0].stim_file)
    start_s = rows[0].onset_s
    stop_s = max(row.onset_s + row.duration_s for row in rows)
    count = max(1, int(np.ceil((stop_s - start_s) * first.fps - 1e-6)))
    shape = (count, first.shape[1], first.shape[2], 3)
    shown = tuple(replace(row, onset_s=row.onset_s - start_s) for row in rows)
    return Video(name, first.fps, shape, Montage(clips, shown, first.fps, shape), start_s)


@dataclass
class Clips:
    """Opens stimulus files by their name and keeps the last few open."""

    files: dict[str, Path]
    kept: OrderedDict[str, Video] = field(default_factory=OrderedDict)

    def open(self, stim_file: str) -> Video:
        """Return the video of a file; a picture is a video of one frame."""
        if stim_file not in self.kept:
            file = self.files[stim_file]
            picture = file.suffix.lower() in PICTURES
            self.kept[stim_file] = _picture(file) if picture else open_video(file)
            while len(self.kept) > _OPEN:
                self.kept.popitem(last=False)
        return self.kept[stim_file]


@dataclass
class Montage:
    """Reads frames of a montage: called with frame numbers, returns (frames, height, width, 3) uint8."""

    clips: Clips
    rows: tuple[EventRow, ...]
    fps: float
    shape: tuple[int, int, int, int]

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Return frames `start` to before `stop`."""
        frames = np.full((stop - start, *self.shape[1:]), GREY, dtype=np.uint8)
        times = np.arange(start, stop) / self.fps
        for row in self.rows:
            on = np.flatnonzero((times >= row.onset_s - 1e-6) & (times < row.onset_s + row.duration_s - 1e-6))
            if len(on) == 0:
                continue
            clip = self.clips.open(row.stim_file)
            numbers = np.floor((times[on] - row.onset_s) * clip.fps + 1e-3).astype(int)
            numbers = np.clip(numbers, 0, clip.shape[0] - 1)  # the last frame stays on show until the row ends
            part = clip.frames(int(numbers[0]), int(numbers[-1]) + 1)[numbers - numbers[0]]
            frames[on] = resize(part, self.shape[1], self.shape[2])
        return frames


def _picture(file: Path) -> Video:
    pixels = cv2.imread(str(file), cv2.IMREAD_COLOR)
    checks.require(pixels is not None, "picture", "must be whole and readable", "no picture", file)
    assert pixels is not None
    rgb = np.ascontiguousarray(pixels[:, :, ::-1])
    return Video.from_frames(rgb[None], name=file.stem, fps=PICTURE_FPS)
