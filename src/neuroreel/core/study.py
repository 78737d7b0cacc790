"""A data set before it is read: its runs, each loaded only when it is asked for.

Every door for data (a card, a BIDS folder, arrays) returns a `Study`; `Study.load` reads it into memory and
`core.store.write_store` writes it to a store.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroreel.core import checks
from neuroreel.core.clock import to_samples
from neuroreel.core.errors import NeuroreelWarning
from neuroreel.core.sets import Segment, Split, Window
from neuroreel.core.types import Bold, Dataset, Event, Recording, Run, Video

NOT_FINITE, CONSTANT = 1, 2


@dataclass(frozen=True)
class RunSource:
    """One run that isn't read yet.

    Attributes
    ----------
    subject, run : names.
    load : function that reads the run, all its voxels, the bad ones too.
    sources : the files that it reads; their checksums say whether a finished run is still right.
    key : what else decides the result, where no file does.
    """

    subject: str
    run: str
    load: Callable[[], Run]
    sources: tuple[Path, ...] = ()
    key: str = ""

    @classmethod
    def of(cls, run: Run) -> RunSource:
        """Return the source of a run that is already in memory."""
        digest = hashlib.sha256(np.ascontiguousarray(run.bold.data).tobytes())
        digest.update(repr((run.stimulus, run.events, run.bold.tr_s, run.bold.start_s)).encode())
        return cls(run.bold.subject, run.bold.run, lambda: run, key=digest.hexdigest())


@dataclass(frozen=True)
class Study:
    """A data set before it is read.

    Attributes
    ----------
    name : name of the data set.
    runs : in order, the runs of a subject one after the other.
    window, splits, licence, citation, address : as in `Dataset`.
    config : the settings with which the files are read.
    """

    name: str
    runs: tuple[RunSource, ...]
    window: Window = field(default_factory=Window)
    splits: Mapping[str, Split] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""
    address: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.require(len(self.runs) > 0, f"data set {self.name}", "must have 1 run or more", 0)
        names = [(each.subject, each.run) for each in self.runs]
        twice = sorted({f"sub-{subject} run {run}" for subject, run in names if names.count((subject, run)) > 1})
        checks.require(not twice, "run names", "must differ", ", ".join(twice), self.name)

    @classmethod
    def of(cls, dataset: Dataset) -> Study:
        """Return the study of a data set that is already in memory."""
        return cls(
            dataset.name,
            tuple(RunSource.of(run) for recording in dataset.recordings for run in recording.runs),
            dataset.window,
            dataset.splits,
            dataset.licence,
            dataset.citation,
            dataset.address,
            dict(dataset.provenance),
        )

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the subjects, in order."""
        return tuple(dict.fromkeys(each.subject for each in self.runs))

    def load(self) -> Dataset:
        """Read all runs into memory, without the voxels that are bad in any run of their subject.

        Raises
        ------
        DataError
            If a file breaks a rule or no voxel of a subject is good.
        """
        recordings = []
        for subject in self.subjects:
            runs = tuple(each.load() for each in self.runs if each.subject == subject)
            recordings.append(leave_out_bad_voxels(Recording(self.name, subject, runs)))
        return Dataset(
            self.name,
            tuple(recordings),
            self.window,
            self.splits,
            self.licence,
            self.citation,
            self.address,
            {"config": dict(self.config)},
        )


def bad_voxels(data: np.ndarray) -> np.ndarray:
    """Return 0 for each good voxel of data (trs, voxels), else `NOT_FINITE` or `CONSTANT`, (voxels,) int8.

    A single volume can't be told constant.
    """
    bad = np.zeros(data.shape[1], dtype=np.int8)
    if len(data) > 1:
        bad[np.all(data == data[0], axis=0)] = CONSTANT
    bad[~np.isfinite(data).all(axis=0)] = NOT_FINITE
    return bad


def say_bad_voxels(bad: Iterable[np.ndarray], subject: str, dataset: str) -> tuple[np.ndarray, dict[str, int]]:
    """Return which voxels are good in all runs, and the counts of the others; warn if there are any.

    Parameters
    ----------
    bad : per run, what `bad_voxels` returned.

    Raises
    ------
    DataError
        If none is good.
    """
    stacked = np.stack(list(bad))  # (runs, voxels)
    not_finite = (stacked == NOT_FINITE).any(axis=0)
    constant = (stacked == CONSTANT).any(axis=0) & ~not_finite
    good = ~(not_finite | constant)
    counts = {"not_finite": int(not_finite.sum()), "constant": int(constant.sum()), "of": len(good)}
    said = f"{counts['not_finite']} NaN or infinite and {counts['constant']} constant of {len(good)}"
    name, where = f"voxels of sub-{subject}", dataset
    checks.require(bool(good.any()), name, "must be finite and vary, at least one", said, where)
    if not good.all():
        rule = "must be finite and vary in every run, the others are left out"
        warnings.warn(checks.sentence(name, rule, said, where), NeuroreelWarning, stacklevel=3)
    return good, counts


def leave_out_bad_voxels(recording: Recording) -> Recording:
    """Return the recording without the voxels that are NaN, infinite or constant in any of its runs.

    Raises
    ------
    DataError
        If no voxel is left.
    """
    bad = [bad_voxels(run.bold.data) for run in recording.runs]
    good, _ = say_bad_voxels(bad, recording.subject, recording.dataset)
    if good.all():
        return recording
    space = recording.space.take(good)
    runs = tuple(
        replace(run, bold=replace(run.bold, data=run.bold.data[:, good], space=space)) for run in recording.runs
    )
    return replace(recording, runs=runs)


def require_volumes(bold: Bold, video: Video | None, events: Iterable[Event], source: str | Path | None = None) -> None:
    """Raise DataError if the scan stops half a volume or more before what was shown does."""
    stops = [event.onset_s + event.duration_s for event in events]
    if video is not None:
        stops.append(video.start_s + video.shape[0] / video.fps)
    stop_s = max(stops, default=bold.stop_s)
    needed = to_samples(stop_s - bold.start_s, bold.tr_s)
    name = f"volumes of sub-{bold.subject} run {bold.run}"
    rule = f"must be {needed} or more to last as long as the stimulus ({stop_s:g} s)"
    checks.require(bold.n_trs >= needed, name, rule, bold.n_trs, source)


def leave_one_run_out(runs: Iterable[str], prefix: str = "leave-out") -> dict[str, Split]:
    """Return one split per run, with that run as the test; empty for fewer than two runs."""
    names = list(dict.fromkeys(runs))
    if len(names) < 2:
        return {}
    splits = {}
    for held in names:
        name = f"{prefix}-{held}"
        splits[name] = Split(
            name=name,
            reason=f"run {held} is tested by what the other {len(names) - 1} runs teach",
            train=tuple(Segment(run=other) for other in names if other != held),
            test=(Segment(run=held),),
        )
    return splits
