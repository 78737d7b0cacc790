"""Any lab's arrays, through a small TOML that says which key is what.

    name = "mine"                  # of the data set
    tr_s = 2.0                     # seconds per volume, or from one trial to the next
    file = "subject1.mat"          # where the keys below are; "other.npz:key" and "array.npy" name another file
    bold = "data"
    axes = ["time", "voxel"]       # of the BOLD; or "x", "y", "z" for voxels, and "run"
    runs = "run"                   # a run number for every row
    video = "movie.mp4"            # or frames = "key" or images = "key"
    rois = { V1 = "mask_v1" }

    [window]
    trs = 2

With `rows = "trials"` a row of the BOLD is a trial, which showed one image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError
from neuroreel.core.sets import Split, Window
from neuroreel.core.study import RunSource, Study, leave_one_run_out, require_volumes
from neuroreel.core.types import Bold, Event, Run, Space, Video
from neuroreel.core.video import open_video
from neuroreel.datasets.blocks import blocks_of
from neuroreel.datasets.keyed import Place, place, read, texts

PLACES = ("x", "y", "z")
AXES = ("run", "time", "voxel", *PLACES)
IMAGE_AXES = ("frame", "height", "width", "rgb")


class Keys(Config):
    """What is where for one subject. Every text but `video` is a key in `file`, `FILE:KEY` or a `.npy` file.

    Attributes
    ----------
    file : the file of the keys that name none.
    bold : the BOLD.
    axes : its axes: "time" with "voxel" or with "x", "y" and "z", and "run" where runs have an axis of their own.
    runs : (rows,) run of every row; None for one run, or where "run" is an axis.
    mask : (x, y, z) voxels to keep, for BOLD on a grid.
    affine : (4, 4) voxel index to millimetres.
    rois : masks by name, (voxels,), or (x, y, z) for BOLD on a grid.
    frames : a movie, with `fps`; or without `fps` one frame for every row.
    images : pictures, with `rows = "trials"`: one for every row, or those that `image_index` picks from.
    image_index : (rows,) number of the image of every row, counted from `index_from`.
    image_axes : axes of `frames` and `images`, of "frame", "height", "width" and "rgb".
    white : value of white in `frames` and `images`.
    video : a video file for all runs, or one by run.
    fps : frame rate of `frames`, or the one that `video` must have.
    labels, captions, names : (rows,) or, with `onsets`, (events,): category, caption, name of the picture.
    onsets, durations, event_runs : (events,) seconds, seconds, and run where there are several.
    rest : labels that are no event.
    start_s : time of the first volume on the stimulus clock.
    """

    file: str = ""
    bold: str = ""
    axes: tuple[str, ...] = ("time", "voxel")
    runs: str | None = None
    mask: str | None = None
    affine: str | None = None
    rois: dict[str, str] = Field(default_factory=dict)
    frames: str | None = None
    images: str | None = None
    image_index: str | None = None
    index_from: int = 0
    image_axes: tuple[str, ...] = IMAGE_AXES
    white: float = Field(default=255.0, gt=0)
    video: str | dict[str, str] | None = None
    fps: float | None = Field(default=None, gt=0)
    labels: str | None = None
    captions: str | None = None
    names: str | None = None
    onsets: str | None = None
    durations: str | None = None
    event_runs: str | None = None
    rest: tuple[str, ...] = ("rest",)
    start_s: float = 0.0


class ArraysConfig(Keys):
    """The TOML of a data set in arrays: that of one subject, and of the whole.

    Attributes
    ----------
    name : of the data set.
    tr_s : seconds per volume, or from one trial to the next.
    rows : whether a row of the BOLD is a volume or a trial.
    lag_s : time of the window's first volume after a clip's onset; None for 4 s, or 0 for trials.
    subject : name of the only subject.
    subjects : by name, what differs from the rest of the file.
    window, splits : as in `core.sets`; without splits each run is left out once.
    licence, citation, address : of the data.
    """

    name: str
    tr_s: float = Field(gt=0)
    rows: Literal["volumes", "trials"] = "volumes"
    lag_s: float | None = None
    subject: str = "1"
    subjects: dict[str, Keys] = Field(default_factory=dict)
    window: Window | None = None
    splits: tuple[Split, ...] = ()
    licence: str = ""
    citation: str = ""
    address: str = ""


def arrays_study(toml: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Return the study of a TOML file (see `ArraysConfig`), with `key=value` overrides.

    Raises
    ------
    ConfigError, DataError
        In one sentence: an unknown key, a file or key that isn't there, axes or lengths that don't fit.
    """
    toml = Path(toml)
    config = ArraysConfig.read(toml, overrides)
    subjects = {name: _merged(config, keys) for name, keys in config.subjects.items()} or {config.subject: config}
    sources, names = [], []
    for subject, keys in subjects.items():
        arrays = _Arrays(config, keys, subject, toml)
        for run in arrays.run_names():
            names.append(run)
            sources.append(RunSource(subject, run, partial(arrays.run, run), arrays.files(run)))
    splits = {split.name: split for split in config.splits} or leave_one_run_out(names)
    settings = config.model_dump(mode="json", exclude={"window", "splits"}, exclude_defaults=True)
    about = (config.licence, config.citation, config.address)
    return Study(config.name, tuple(sources), _window(config, next(iter(subjects.values()))), splits, *about, settings)


def _merged(config: ArraysConfig, keys: Keys) -> Keys:
    shared = config.model_dump(include=set(Keys.model_fields))
    return Keys.build(shared | keys.model_dump(exclude_unset=True))


def _window(config: ArraysConfig, keys: Keys) -> Window:
    """Return the window of the file over what suits this kind of data."""
    shown = keys.video is not None or keys.frames is not None
    values: dict[str, Any] = {"first_lag_s": 4.0 if config.lag_s is None else config.lag_s}
    if config.rows == "trials":
        values = {"at": "events", "clip_s": config.tr_s, "first_lag_s": config.lag_s or 0.0, "blocks": "events"}
    elif keys.onsets is not None and not shown:
        values |= {"at": "events", "blocks": "events"}
    elif keys.labels is not None and not shown:
        values |= {"only_events": "both", "blocks": "events", "average": False}
    given = {} if config.window is None else config.window.model_dump(exclude_unset=True)
    return Window.build(values | given)


class _Arrays:
    """The arrays of one subject, each read once."""

    def __init__(self, config: ArraysConfig, keys: Keys, subject: str, toml: Path) -> None:
        self.config, self.keys, self.subject, self.toml = config, keys, subject, toml
        self.held: dict[Place, np.ndarray] = {}
        checks.require(bool(keys.bold), "bold", "must name the key of the BOLD", repr(keys.bold), toml, ConfigError)
        for axis in keys.axes:
            checks.one_of("axis of the BOLD", axis, AXES, toml)
        space = {axis for axis in keys.axes if axis in ("voxel", *PLACES)}
        ok = (
            space in ({"voxel"}, set(PLACES)) and keys.axes.count("time") == 1 and len(set(keys.axes)) == len(keys.axes)
        )
        rule = "must be time, with voxel or x, y and z, and run if it is one"
        checks.require(ok, "axes", rule, ", ".join(keys.axes), toml, ConfigError)
        trials = config.rows == "trials"
        checks.require(
            keys.images is None or trials, "images", 'must come with rows = "trials"', config.rows, toml, ConfigError
        )
        given = [name for name in ("frames", "images", "video") if getattr(keys, name) is not None]
        checks.require(len(given) <= 1, "frames, images, video", "must be one of them", given, toml, ConfigError)

    def place(self, text: str) -> Place:
        return place(text, self.toml.parent, self.keys.file)

    def get(self, text: str) -> np.ndarray:
        where = self.place(text)
        if where not in self.held:
            self.held[where] = read(where)
        return self.held[where]

    def files(self, run: str) -> tuple[Path, ...]:
        """Return the files that a run is read from."""
        named = ("bold", "runs", "mask", "affine", "frames", "images", "image_index", "labels", "captions", "names")
        texts_of = [getattr(self.keys, name) for name in (*named, "onsets", "durations", "event_runs")]
        found = [self.place(text).file for text in (*texts_of, *self.keys.rois.values()) if text is not None]
        video = self.video_file(run)
        return tuple(dict.fromkeys([self.toml, *found, *([] if video is None else [video])]))

    def video_text(self, run: str) -> str | None:
        """Return the video of a run as the TOML names it."""
        return self.keys.video.get(run) if isinstance(self.keys.video, dict) else self.keys.video

    def video_file(self, run: str) -> Path | None:
        text = self.video_text(run)
        return None if text is None else self.toml.parent / text

    # -----------------------------------------------------------------------------------------------------------------
    # BOLD

    def bold(self) -> np.ndarray:
        """Return the BOLD with the axes (run if there is one, time, then space)."""
        data, axes = self.get(self.keys.bold), self.keys.axes
        checks.dimensions("bold", data, axes, str(self.place(self.keys.bold)))
        order = [axes.index(axis) for axis in AXES if axis in axes]
        return data.transpose(order)

    def rows(self) -> dict[str, np.ndarray]:
        """Return the rows of each run, in the order in which the runs come."""
        count = self.bold().shape["run" in self.keys.axes]
        if self.keys.runs is None:
            return {"1": np.arange(count)}
        where = self.place(self.keys.runs)
        labels = np.array(texts(self.get(self.keys.runs), "runs", where))
        checks.same_length("runs", len(labels), "rows of the BOLD", count, str(where))
        found = {name: np.flatnonzero(labels == name) for name in dict.fromkeys(labels.tolist())}
        for name, rows in found.items():
            apart = self.config.rows == "volumes" and bool(np.any(np.diff(rows) != 1))
            checks.require(not apart, f"volumes of run {name}", "must follow each other", "gaps between", str(where))
        return found

    def run_names(self) -> list[str]:
        if "run" in self.keys.axes:
            return [str(number + 1) for number in range(self.bold().shape[0])]
        return list(self.rows())

    def run(self, name: str) -> Run:
        """Return one run."""
        data = self.bold()
        if "run" in self.keys.axes:
            data, rows = data[int(name) - 1], np.arange(data.shape[1])
        else:
            rows = self.rows()[name]
            data = data[rows]
        where = self.place(self.keys.bold)
        checks.require(data.dtype.kind in "fiu", "bold", "must be real numbers", data.dtype, str(where))
        space, mask = self.space(data.shape[1:])
        flat = data.reshape(len(data), -1) if mask is None else data[:, mask]
        bold = Bold(flat.astype(np.float32), self.config.tr_s, space, self.subject, name, self.keys.start_s)
        video, stimulus = self.video(name, rows)
        events = self.events(name, rows)
        require_volumes(bold, video, events, str(where))
        return Run(bold, stimulus, video, events)

    def space(self, shape: tuple[int, ...]) -> tuple[Space, np.ndarray | None]:
        """Return the space, and the mask of a grid."""
        if "x" not in self.keys.axes:
            rois = {name: self.roi(name, shape) for name in self.keys.rois}
            return Space("columns", shape[0], rois=rois), None
        mask = np.ones(shape, dtype=bool)
        if self.keys.mask is not None:
            mask = self.get(self.keys.mask) > 0
            same = mask.shape == shape
            checks.require(
                same, "mask", f"must have the BOLD's grid {shape}", mask.shape, str(self.place(self.keys.mask))
            )
        affine = None if self.keys.affine is None else np.asarray(self.get(self.keys.affine), dtype=float)
        index = np.argwhere(mask)
        rois = {name: self.roi(name, shape)[mask] for name in self.keys.rois}
        return Space("volume", len(index), index=index, affine=affine, rois=rois), mask

    def roi(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        text = self.keys.rois[name]
        roi = self.get(text)
        roi = roi.reshape(-1) if len(shape) == 1 else roi
        checks.require(
            roi.shape == shape, f"ROI {name}", f"must have the shape {shape}", roi.shape, str(self.place(text))
        )
        return roi > 0

    # -----------------------------------------------------------------------------------------------------------------
    # What was shown

    def video(self, run: str, rows: np.ndarray) -> tuple[Video | None, str]:
        """Return the video of a run and the name of its stimulus."""
        keys = self.keys
        file = self.video_file(run)
        if file is not None:
            name = self.video_text(run) or file.name
            return open_video(file, keys.fps, name=name), name
        if keys.images is not None:
            images = self.pictures(keys.images, "images")
            shown = self.shown(rows, len(images))
            name = f"images of sub-{self.subject} run {run}"
            shape = (len(shown), *images.shape[1:3], 3)
            read_some = partial(_some, images, shown, keys.white)
            return Video(name, 1 / self.config.tr_s, shape, read_some, keys.start_s), name
        if keys.frames is not None:
            frames = self.pictures(keys.frames, "frames")
            if keys.fps is not None:
                shape = (len(frames), *frames.shape[1:3], 3)
                everything = partial(_some, frames, np.arange(len(frames)), keys.white)
                where = self.place(keys.frames)
                name = f"{where.file.name}:{where.key}"
                return Video(name, keys.fps, shape, everything, 0.0), name
            count = self.bold().shape["run" in keys.axes]
            name = f"frames of sub-{self.subject} run {run}"
            rule = "rows of the BOLD, where fps isn't given,"
            checks.same_length("frames", len(frames), rule, count, str(self.place(keys.frames)))
            read_some = partial(_some, frames, rows, keys.white)
            return Video(name, 1 / self.config.tr_s, (len(rows), *frames.shape[1:3], 3), read_some, keys.start_s), name
        return None, f"sub-{self.subject} run {run}"

    def pictures(self, text: str, name: str) -> np.ndarray:
        """Return pictures with the axes (frame, height, width, and rgb if they have it)."""
        array, where = self.get(text), str(self.place(text))
        axes = self.keys.image_axes
        if array.ndim == 3 and axes == IMAGE_AXES:
            axes = axes[:3]
        ok = sorted(axes) in (sorted(IMAGE_AXES), sorted(IMAGE_AXES[:3]))
        checks.require(ok, "image_axes", f"must be {', '.join(IMAGE_AXES)}, rgb optional", axes, where, ConfigError)
        checks.dimensions(name, array, axes, where)
        array = array.transpose([axes.index(axis) for axis in IMAGE_AXES if axis in axes])
        if array.ndim == 4:
            checks.require(array.shape[3] == 3, name, "must have 3 colours on the axis rgb", array.shape[3], where)
        low, high = float(np.min(array)), float(np.max(array))
        fits = low >= 0 and high <= self.keys.white
        checks.require(fits, name, f"must lie within 0 and white = {self.keys.white:g}", f"{low:g} to {high:g}", where)
        return array

    def shown(self, rows: np.ndarray, images: int) -> np.ndarray:
        """Return the number of the image of each of some rows."""
        if self.keys.image_index is None:
            count = self.bold().shape["run" in self.keys.axes]
            where = str(self.place(self.keys.images or ""))
            checks.same_length("images", images, "rows of the BOLD, where there is no image_index,", count, where)
            return rows
        where = str(self.place(self.keys.image_index))
        index = self.row_values(self.keys.image_index, "image_index")[rows].astype(np.int64) - self.keys.index_from
        inside = bool(np.all((index >= 0) & (index < images)))
        first, last = self.keys.index_from, self.keys.index_from + images - 1
        got = f"{index.min() + first} to {index.max() + first}"
        checks.require(inside, "image_index", f"must lie within {first} and {last}", got, where)
        return index

    def row_values(self, text: str, name: str) -> np.ndarray:
        values = np.ravel(self.get(text))
        count = self.bold().shape["run" in self.keys.axes]
        checks.same_length(name, len(values), "rows of the BOLD", count, str(self.place(text)))
        return values

    def events(self, run: str, rows: np.ndarray) -> tuple[Event, ...]:
        keys, tr_s = self.keys, self.config.tr_s
        if keys.onsets is not None:
            return self.timed_events(run)
        count = self.bold().shape["run" in keys.axes]
        words = {name: self.words(name, count, "rows of the BOLD") for name in ("labels", "captions", "names")}
        labels, captions, names = (words[name] or [""] * count for name in ("labels", "captions", "names"))
        if self.config.rows == "volumes":
            some = words["labels"] or words["captions"]
            pairs = [(labels[row], captions[row]) for row in rows] if some else []
            return blocks_of(pairs, tr_s, keys.rest, keys.start_s)
        if not words["names"] and keys.images is not None:
            images = self.pictures(keys.images, "images")
            for row, number in zip(rows.tolist(), self.shown(rows, len(images)).tolist(), strict=True):
                names[row] = _digest(images[number])
        return tuple(
            Event(keys.start_s + order * tr_s, tr_s, labels[row], captions[row], names[row])
            for order, row in enumerate(rows.tolist())
            if labels[row] not in keys.rest
        )

    def timed_events(self, run: str) -> tuple[Event, ...]:
        keys = self.keys
        onsets = np.ravel(self.get(keys.onsets or "")).astype(float)
        where = str(self.place(keys.onsets or ""))
        checks.finite("onsets", onsets, where)
        count = len(onsets)
        durations = np.zeros(count)
        if keys.durations is not None:
            durations = np.ravel(self.get(keys.durations)).astype(float)
            durations = np.full(count, durations[0]) if len(durations) == 1 else durations
        checks.same_length("durations", len(durations), "onsets", count, where)
        columns = ("labels", "captions", "names", "event_runs")
        labels, captions, names, runs = (self.words(name, count, "onsets") or [""] * count for name in columns)
        told = keys.event_runs is not None or len(self.run_names()) == 1
        checks.require(told, "event_runs", "must say the run of each onset", "none", where)
        here = range(count) if keys.event_runs is None else [row for row in range(count) if runs[row] == run]
        events = [
            Event(float(onsets[row]), float(durations[row]), labels[row], captions[row], names[row])
            for row in here
            if labels[row] not in keys.rest
        ]
        return tuple(sorted(events, key=lambda event: event.onset_s))

    def words(self, name: str, count: int, of: str) -> list[str]:
        """Return a column of texts, empty where there is none."""
        text = getattr(self.keys, name)
        if text is None:
            return []
        where = self.place(text)
        found = texts(self.get(text), name, where)
        checks.same_length(name, len(found), of, count, str(where))
        return found


def _some(pictures: np.ndarray, numbers: np.ndarray, white: float, start: int, stop: int) -> np.ndarray:
    """Return some of the pictures as uint8 RGB (n, height, width, 3)."""
    some = pictures[numbers[start:stop]]
    if some.dtype != np.uint8 or white != 255:
        some = np.rint(some * (255.0 / white)).astype(np.uint8)
    return some if some.ndim == 4 else np.repeat(some[..., None], 3, axis=3)


def _digest(picture: np.ndarray) -> str:
    return "image-" + hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()[:12]
