"""Splits, and the training and test sets that come from them: what fits is only ever handed a TrainingSet.

    split.cut(recording)      -> Cut: runs trimmed to the segments of the split, train and test apart
    cut.map(function)         -> Cut: a function of one run at a time, so that nothing is shared between the two sides
    cut.sets(window)          -> (TrainingSet, TestSet): brain windows paired with clips

The two sets can't be built in another way and have no way from one to the other; every overlap is a LeakageError.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import Field

from neuroreel.core import checks
from neuroreel.core.clock import to_samples
from neuroreel.core.config import Config
from neuroreel.core.errors import DataError, LeakageError
from neuroreel.core.seeds import generator
from neuroreel.core.types import PER_CLIP, Bold, Event, Recording, Run, Samples, Video

HRF_S = 12.0  # the least gap between a training and a test volume
_FROM_A_SPLIT = object()
_CLOSE = 1e-6


class Segment(Config):
    """A run, or the part of it from `start_s` to before `stop_s` on the stimulus clock."""

    run: str
    start_s: float | None = None
    stop_s: float | None = None


class Split(Config):
    """Which segments are for fitting and which are sealed for testing. A named split is this, as a JSON file.

    Attributes
    ----------
    name, reason : what the split is called and why it is so.
    train, test : the segments of each side.
    gap_s : least time between a training and a test volume of one run.
    shared_categories : False if a category that is tested must not be in the training set.
    """

    name: str
    reason: str = Field(min_length=1)
    train: tuple[Segment, ...] = Field(min_length=1)
    test: tuple[Segment, ...] = Field(min_length=1)
    gap_s: float = Field(default=HRF_S, ge=0)
    shared_categories: bool = True

    def cut(self, recording: Recording) -> Cut:
        """Return the runs of both sides, trimmed to their segments.

        Raises
        ------
        LeakageError
            If a run is on both sides with less than `gap_s` between them, or both sides show the same stimulus.
        DataError, ConfigError
            If a segment is empty or its run unknown.
        """
        sides = [tuple(trim(recording.run(part.run), part) for part in side) for side in (self.train, self.test)]
        return Cut(self, sides[0], sides[1])


class Window(Config):
    """How clips and brain windows are taken from a run.

    Attributes
    ----------
    at : "steps" takes a clip every `step_s`; "events" takes one at the onset of each event.
    clip_s : seconds of stimulus in a clip; None for one volume's time.
    step_s : from one clip's onset to the next one's; None for `clip_s`.
    frames : frames of a clip, evenly spaced in it.
    height, width : size of the frames in pixels; None for the video's own.
    first_lag_s : time of the window's first volume after the clip's onset.
    trs : volumes of the window.
    only_events : with "steps", leave out clips that aren't wholly inside one event: on the "test" side (where there is
        nothing to see there is nothing to score), on "both" sides, or on "neither".
    block_s : length of the blocks for bootstrap, permutation and folds where the events don't say (seconds).
    blocks : "events": a block is an event (a scene); "time": a block is `block_s` of a run.
    average : average the repeats of one stimulus.
    """

    at: Literal["steps", "events"] = "steps"
    clip_s: float | None = Field(default=None, gt=0)
    step_s: float | None = Field(default=None, gt=0)
    frames: int = Field(default=1, ge=1)
    height: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    first_lag_s: float = 4.0
    trs: int = Field(default=1, ge=1)
    only_events: Literal["neither", "test", "both"] = "neither"
    block_s: float = Field(default=20.0, gt=0)
    blocks: Literal["events", "time"] = "time"
    average: bool = True


@dataclass(frozen=True)
class Cut:
    """The runs of both sides of a split, each trimmed to its segment and still apart."""

    split: Split
    train: tuple[Run, ...]
    test: tuple[Run, ...]

    def __post_init__(self) -> None:
        _refuse_overlap(self.split, self.train, self.test)

    def map(self, function: Callable[[Run], Run]) -> Cut:
        """Return the cut with the function applied to every run by itself: it can't see two runs at once."""
        return replace(
            self, train=tuple(function(run) for run in self.train), test=tuple(function(run) for run in self.test)
        )

    def sets(self, window: Window) -> tuple[TrainingSet, TestSet]:
        """Return the training set and the test set.

        Raises
        ------
        LeakageError
            As in `Split.cut`; if a tested category, or a tested picture, is in the training set where it must not be.
        DataError
            If a side holds no clip, or the runs differ in TR or voxels.
        """
        train = sample(self.train, window, only_events=window.only_events == "both")
        test = sample(self.test, window, only_events=window.only_events != "neither")
        _refuse_shared(self.split, train, test)
        return (
            TrainingSet(train, self.train, window, self.split, _FROM_A_SPLIT),
            TestSet(test, self.test, window, self.split, _FROM_A_SPLIT),
        )


@dataclass(frozen=True)
class TrainingSet:
    """What a system may be fitted on. It comes from `Cut.sets` only.

    Attributes
    ----------
    samples : brain windows paired with clips, repeats averaged if the window says so.
    runs : the runs behind them, trimmed, every repeat by itself.
    window, split : how they were taken.
    """

    samples: Samples
    runs: tuple[Run, ...]
    window: Window
    split: Split
    key: InitVar[object] = None

    def __post_init__(self, key: object) -> None:
        if key is not _FROM_A_SPLIT:
            raise LeakageError(
                "a TrainingSet must come from a split (Split.cut(recording).sets(window)), got its parts"
            )

    def hold_out(self, share: float = 0.1) -> tuple[TrainingSet, TrainingSet]:
        """Return two training sets, the second for validation: the last blocks of each run, about `share` of them.

        Raises
        ------
        DataError
            If there are fewer than two blocks.
        """
        checks.require(0 < share < 1, "share", "must lie between 0 and 1", share)
        held = np.zeros(len(self.samples), dtype=bool)
        for run in np.unique(self.samples.run):
            blocks = np.unique(self.samples.block[self.samples.run == run])
            count = max(1, round(share * len(blocks))) if len(blocks) > 1 else 0
            held |= np.isin(self.samples.block, blocks[len(blocks) - count :])
        checks.require(bool(held.any()), "blocks of every run", "must be 2 or more to hold one out", 1)
        parts = [replace(self, samples=self.samples.take(rows), key=_FROM_A_SPLIT) for rows in (~held, held)]
        return parts[0], parts[1]

    def take(self, rows: np.ndarray) -> TrainingSet:
        """Return the training set of the given samples, for example at a smaller share of the data."""
        return replace(self, samples=self.samples.take(rows), key=_FROM_A_SPLIT)

    def shuffled(self, seed: int) -> TrainingSet:
        """Return the training set with every brain window beside the clip of another: a control that learns nothing.

        Brains and clips are all still there; the runs stay as they are.

        Raises
        ------
        DataError
            If there are fewer than two samples.
        """
        n = len(self.samples)
        checks.require(n > 1, "samples", "must be 2 or more to be shuffled", n)
        order = generator(seed, "shuffled-pairs").permutation(n)
        other = np.empty(n, dtype=int)
        other[order] = np.roll(order, 1)  # one cycle: none keeps its own
        return replace(self, samples=replace(self.samples, brain=self.samples.brain[other]), key=_FROM_A_SPLIT)


@dataclass(frozen=True)
class TestSet:
    """What a fitted system is tested on: `brain` for the system, `truth` for the metrics."""

    __test__ = False  # not a class for pytest to collect

    truth: Samples
    runs: tuple[Run, ...]
    window: Window
    split: Split
    key: InitVar[object] = None

    def __post_init__(self, key: object) -> None:
        if key is not _FROM_A_SPLIT:
            raise LeakageError("a TestSet must come from a split (Split.cut(recording).sets(window)), got its parts")

    @property
    def brain(self) -> Samples:
        """The brain windows without anything of the truth: all that a system gets to see."""
        return self.truth.sealed()

    def take(self, rows: np.ndarray) -> TestSet:
        """Return the test set of the given samples, for example of every second clip."""
        return replace(self, truth=self.truth.take(rows), key=_FROM_A_SPLIT)


def require_training(train: object) -> TrainingSet:
    """Return the training set, else raise LeakageError: the first line of every `fit`."""
    if not isinstance(train, TrainingSet):
        raise LeakageError(f"fit must be handed a TrainingSet, got {type(train).__name__}")
    return train


def trim(run: Run, segment: Segment) -> Run:
    """Return the part of a run that lies in a segment, on the same clock.

    Raises
    ------
    DataError
        If no volume lies in the segment.
    """
    bold = run.bold
    first, stop = 0, bold.n_trs
    if segment.start_s is not None:
        first = max(0, to_samples(segment.start_s - bold.start_s, bold.tr_s))
    if segment.stop_s is not None:
        stop = min(stop, to_samples(segment.stop_s - bold.start_s, bold.tr_s))
    rule = f"must hold a volume within {bold.start_s:g} to {bold.stop_s:g} s"
    checks.require(first < stop, f"segment of run {segment.run}", rule, f"{segment.start_s} to {segment.stop_s} s")
    part = replace(bold, data=bold.data[first:stop], start_s=bold.start_s + first * bold.tr_s)
    events = tuple(event for event in run.events if _overlap_s(event, part) > _CLOSE)
    confounds = {name: values[first:stop] for name, values in run.confounds.items()}
    return replace(run, bold=part, events=events, confounds=confounds)


def sample(runs: Sequence[Run], window: Window, *, only_events: bool = False) -> Samples:
    """Return the clips of some runs with their brain windows, repeats averaged if the window says so.

    Clips and windows lie wholly inside the run that they come from. Raises DataError if there is none, or if the runs
    differ in TR or voxels.
    """
    first = runs[0].bold
    for run in runs[1:]:
        same = abs(run.bold.tr_s - first.tr_s) < _CLOSE
        checks.require(same, f"tr_s of run {run.bold.run}", f"must be that of run {first.run}", run.bold.tr_s)
        checks.same_length(f"voxels of run {run.bold.run}", run.bold.space.size, f"run {first.run}", first.space.size)
    groups: dict[object, list[Run]] = {}
    for index, run in enumerate(runs):
        whole = (run.stimulus, round(_movie_start_s(run), 3), run.bold.n_trs)
        groups.setdefault(whole if window.average and run.stimulus else index, []).append(run)
    parts: list[Samples] = []
    next_block = 0
    for repeats in groups.values():
        part = _sample_run(repeats, window, only_events)
        if part is not None:
            parts.append(replace(part, block=part.block + next_block))
            next_block = int(parts[-1].block.max()) + 1
    rule = "must hold a clip whose window fits, in one run or more"
    checks.require(bool(parts), "runs", rule, f"none in {', '.join(run.bold.run for run in runs)}")
    joined = _join(parts)
    if window.at == "events" and window.average:
        joined = _average_events(joined)
    return joined


def _sample_run(repeats: Sequence[Run], window: Window, only_events: bool) -> Samples | None:
    """Return the clips of one run, its BOLD averaged over the repeats; None if no window fits."""
    run = repeats[0]
    bold = run.bold
    data = bold.data
    if len(repeats) > 1:
        data = np.asarray(np.mean([each.bold.data for each in repeats], axis=0, dtype=np.float32))
    clip_s = window.clip_s or bold.tr_s
    onsets, shown = [], []
    for onset, event in _onsets(run, window, clip_s, only_events):
        start = to_samples(onset + window.first_lag_s - bold.start_s, bold.tr_s)
        inside = onset >= bold.start_s - _CLOSE and onset + clip_s <= bold.stop_s + _CLOSE
        if inside and start >= 0 and start + window.trs <= bold.n_trs:
            onsets.append((onset, start))
            shown.append(event)
    if not onsets:
        return None
    volumes = np.array([start for _, start in onsets])[:, None] + np.arange(window.trs)
    times = np.array([onset for onset, _ in onsets])
    names = [
        event.stimulus
        if event is not None and event.stimulus and window.at == "events"
        else f"{run.stimulus or bold.run}@{t:.3f}"
        for event, t in zip(shown, times, strict=True)
    ]
    return Samples(
        brain=np.ascontiguousarray(data[volumes], dtype=np.float32),  # (clips, trs, voxels)
        clips=None if run.video is None else _clips(run.video, times, clip_s, window),
        run=np.full(len(times), bold.run),
        onset_s=times,
        block=_blocks(run, shown, times, window),
        repeats=np.full(len(times), len(repeats)),
        category=np.array([event.category if event is not None else "" for event in shown]),
        caption=np.array([event.caption if event is not None else "" for event in shown]),
        stimulus=np.array(names),
        space=bold.space,
        tr_s=bold.tr_s,
        fps=window.frames / clip_s,
        first_lag_s=window.first_lag_s,
    )


def _onsets(run: Run, window: Window, clip_s: float, only_events: bool) -> list[tuple[float, Event | None]]:
    """Return the onset of each clip with the event that it shows."""
    if window.at == "events":
        return [(event.onset_s, event) for event in run.events]
    bold = run.bold
    step = window.step_s or clip_s
    first, last = bold.start_s, bold.stop_s
    if run.video is not None:
        first = max(first, run.video.start_s)
        last = min(last, run.video.start_s + run.video.shape[0] / run.video.fps)
    count = max(0, int(np.floor((last - first - clip_s) / step + 1 + _CLOSE)))
    found = []
    for onset in first + step * np.arange(count):
        shown = [
            event for event in run.events if event.onset_s - _CLOSE <= onset < event.onset_s + event.duration_s - _CLOSE
        ]
        event = shown[-1] if shown else None
        whole = event is not None and onset + clip_s <= event.onset_s + event.duration_s + _CLOSE
        if whole or not only_events:
            found.append((float(onset), event))
    return found


def _clips(video: Video, onsets: np.ndarray, clip_s: float, window: Window) -> np.ndarray:
    """Return the frames on show at evenly spaced times of each clip, (clips, frames, height, width, 3) uint8."""
    offsets = clip_s * np.arange(window.frames) / window.frames
    times = onsets[:, None] + offsets - video.start_s  # (clips, frames)
    numbers = np.floor(times * video.fps + 1e-3).astype(int)
    inside = numbers.min() >= 0 and numbers.max() < video.shape[0]
    rule = f"must cover the clips: it has {video.shape[0]} frames"
    checks.require(inside, f"video {video.name}", rule, f"frame {numbers.max()} asked for")
    height, width = window.height or video.shape[1], window.width or video.shape[2]
    clips = np.empty((*numbers.shape, height, width, 3), dtype=np.uint8)
    flat, wanted = clips.reshape(-1, height, width, 3), numbers.ravel()
    order = np.argsort(wanted, kind="stable")
    span = 256  # frames decoded at a time
    for chunk, rows in itertools.groupby(order, key=lambda row: wanted[row] // span):
        some = list(rows)
        start, stop = chunk * span, min((chunk + 1) * span, video.shape[0])
        start, stop = max(start, int(wanted[some].min())), min(stop, int(wanted[some].max()) + 1)
        flat[some] = resize(video.frames(start, stop)[wanted[some] - start], height, width)
    return clips


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return frames (n, height, width, 3) uint8 in another size, by area where they shrink."""
    if frames.shape[1:3] == (height, width):
        return frames
    how = cv2.INTER_AREA if height <= frames.shape[1] and width <= frames.shape[2] else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in frames])


def _blocks(run: Run, shown: Sequence[Event | None], times: np.ndarray, window: Window) -> np.ndarray:
    """Return the block of each clip, counted from 0 in the run."""
    if window.blocks == "events" and all(event is not None for event in shown):
        keys = [event.onset_s for event in shown if event is not None]
    else:
        keys = list(np.floor((times - times[0]) / window.block_s + _CLOSE))
    return np.unique(keys, return_inverse=True)[1].astype(int)


def _join(parts: Sequence[Samples]) -> Samples:
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in PER_CLIP}
    with_clips = [part.clips for part in parts if part.clips is not None]
    same = len({clips.shape[1:] for clips in with_clips}) <= 1
    checks.require(
        same, "videos", "must have one frame size, or height and width be set in the window", "several sizes"
    )
    clips = np.concatenate(with_clips) if len(with_clips) == len(parts) else None
    return replace(parts[0], clips=clips, **joined)


def _average_events(samples: Samples) -> Samples:
    """Return one row per named picture, its presentations averaged."""
    names, first, inverse, counts = np.unique(
        samples.stimulus, return_index=True, return_inverse=True, return_counts=True
    )
    if len(names) == len(samples):
        return samples
    brain = np.zeros((len(names), *samples.brain.shape[1:]), dtype=np.float64)
    np.add.at(brain, inverse, samples.brain)
    order = np.argsort(first)
    kept = samples.take(first[order])
    return replace(kept, brain=(brain / counts[:, None, None])[order].astype(np.float32), repeats=counts[order])


# ---------------------------------------------------------------------------------------------------------------------
# Leaks


def _overlap_s(event: Event, bold: Bold) -> float:
    return min(event.onset_s + event.duration_s, bold.stop_s) - max(event.onset_s, bold.start_s)


def _movie_start_s(run: Run) -> float:
    """Return the time of a run's first volume since the start of its movie, which need not start with the clock."""
    return run.bold.start_s - (run.video.start_s if run.video is not None else 0.0)


def _apart_s(a: Run, b: Run, a_start_s: float, b_start_s: float) -> float:
    """Return the time between two runs' volumes, negative where they overlap, from their starts on one clock."""
    a_stop_s, b_stop_s = (start + run.bold.n_trs * run.bold.tr_s for start, run in ((a_start_s, a), (b_start_s, b)))
    return max(b_start_s - a_stop_s, a_start_s - b_stop_s)


def _refuse_overlap(split: Split, train: Sequence[Run], test: Sequence[Run]) -> None:
    """Raise LeakageError if a run lies on both sides within the gap, or one movie is shown on both."""
    near, shared = [], []
    for a, b in itertools.product(train, test):
        if a.bold.run == b.bold.run and _apart_s(a, b, a.bold.start_s, b.bold.start_s) < split.gap_s - _CLOSE:
            near.append(a.bold.run)
            continue
        same_movie = bool(a.stimulus) and a.video is not None and a.stimulus == b.stimulus
        if same_movie and _apart_s(a, b, _movie_start_s(a), _movie_start_s(b)) < -_CLOSE:
            shared.append(f"{a.bold.run} and {b.bold.run}")
    if near:
        names = ", ".join(sorted(set(near)))
        rule = f"must lie {split.gap_s:g} s or more apart in a run"
        raise LeakageError(checks.sentence("training and test volumes", rule, f"an overlap in {names}", split.name))
    if shared:
        got = f"the same part of one movie in runs {', '.join(sorted(set(shared)))}"
        raise LeakageError(checks.sentence("training and test", "must not show the same frames", got, split.name))


def _refuse_shared(split: Split, train: Samples, test: Samples) -> None:
    """Raise LeakageError if a picture, or a category that was to be held out, is on both sides."""
    rule = "must not be in the training set"
    same = np.intersect1d(train.stimulus, test.stimulus)
    if same.size:
        got = f"{', '.join(same[:3])} in runs {_runs_of(train, train.stimulus, same)}"
        raise LeakageError(checks.sentence("a tested picture", rule, got, split.name))
    both = np.setdiff1d(np.intersect1d(train.category, test.category), [""])
    if not split.shared_categories and both.size:
        got = f"{', '.join(both[:3])} in runs {_runs_of(train, train.category, both)}"
        raise LeakageError(checks.sentence("a tested category", rule, got, split.name))


def _runs_of(samples: Samples, column: np.ndarray, names: np.ndarray) -> str:
    return ", ".join(np.unique(samples.run[np.isin(column, names)])[:5])


def read_split(file: Path) -> Split:
    """Return the split of a JSON file; DataError if it is missing."""
    checks.require(Path(file).is_file(), "split", "must be a JSON file", repr(str(file)), error=DataError)
    return Split.load(Path(file))
