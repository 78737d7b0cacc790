"""The types that flow between the stages: frozen dataclasses around arrays, time first, units in the names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroreel.core import checks

if TYPE_CHECKING:
    from neuroreel.core.sets import Split, Window

SPACES = ("volume", "surface", "columns")
PER_CLIP = ("brain", "run", "onset_s", "block", "repeats", "category", "caption", "stimulus")


@dataclass(frozen=True)
class Space:
    """Where the columns of a Bold lie.

    Attributes
    ----------
    kind : "volume" (voxels of a grid), "surface" (vertices of two hemispheres) or "columns" (no place is known).
    size : int
        Number of voxels.
    index : (voxels, 3) int grid indices in a volume, (voxels,) vertex numbers on a surface, or None.
    affine : (4, 4) voxel index to millimetres, or None.
    hemisphere : (voxels,) array of "L" and "R" on a surface, or None.
    template : name of the surface or of the volume's space, e.g. "fsaverage5".
    rois : masks (voxels,) bool by name.
    measures : what is known of every voxel, (voxels,) float by name, e.g. the place of its receptive field.
    """

    kind: str
    size: int
    index: np.ndarray | None = None
    affine: np.ndarray | None = None
    hemisphere: np.ndarray | None = None
    template: str = ""
    rois: Mapping[str, np.ndarray] = field(default_factory=dict)
    measures: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.one_of("space", self.kind, SPACES)
        if self.index is not None:
            checks.same_length("space index", len(self.index), "voxels", self.size)
        for name, mask in self.rois.items():
            checks.same_length(f"ROI {name}", len(mask), "voxels", self.size)
        for name, values in self.measures.items():
            checks.same_length(f"measure {name}", len(values), "voxels", self.size)

    def take(self, mask: np.ndarray) -> Space:
        """Return the space of the voxels where the mask (voxels,) is True."""
        return replace(
            self,
            size=int(np.count_nonzero(mask)),
            index=None if self.index is None else self.index[mask],
            hemisphere=None if self.hemisphere is None else self.hemisphere[mask],
            rois={name: roi[mask] for name, roi in self.rois.items()},
            measures={name: values[mask] for name, values in self.measures.items()},
        )


@dataclass(frozen=True)
class Bold:
    """One run's BOLD.

    Attributes
    ----------
    data : (trs, voxels) float32, finite.
    tr_s : seconds per volume.
    start_s : time of the first volume on the stimulus clock.
    """

    data: np.ndarray
    tr_s: float
    space: Space
    subject: str
    run: str
    start_s: float = 0.0

    def __post_init__(self) -> None:
        where = f"sub-{self.subject} run {self.run}"
        checks.dimensions("bold", self.data, ("trs", "voxels"), where)
        checks.positive("tr_s", self.tr_s, where)
        checks.same_length("bold columns", self.data.shape[1], "voxels of the space", self.space.size, where)

    @property
    def n_trs(self) -> int:
        """Number of volumes."""
        return self.data.shape[0]

    @property
    def stop_s(self) -> float:
        """Time at which the last volume ends, on the stimulus clock."""
        return self.start_s + self.n_trs * self.tr_s


@dataclass(frozen=True)
class Video:
    """A stimulus, decoded when it is read.

    Attributes
    ----------
    name : the stimulus; the same name is the same pictures.
    fps : frames per second.
    shape : (frames, height, width, 3)
    read : function of (start, stop) frame numbers that returns uint8 RGB (stop - start, height, width, 3).
    start_s : time of the first frame on the stimulus clock.
    """

    name: str
    fps: float
    shape: tuple[int, int, int, int]
    read: Callable[[int, int], np.ndarray]
    start_s: float = 0.0

    @classmethod
    def from_frames(cls, frames: np.ndarray, *, name: str, fps: float, start_s: float = 0.0) -> Video:
        """Return a video of an array (frames, height, width, 3) uint8 that is already in memory."""
        checks.dimensions("frames", frames, ("frames", "height", "width", "rgb"), name)
        checks.require(frames.dtype == np.uint8, "frames", "must be uint8", frames.dtype, name)
        checks.require(frames.shape[3] == 3, "frames", "must have 3 colours on the last axis", frames.shape, name)
        checks.require(len(frames) > 0, "frames", "must be 1 or more", 0, name)
        return cls(name, checks.positive("fps", fps, name), frames.shape, lambda a, b: frames[a:b], start_s)

    def frames(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the frames from `start` to before `stop`, (frames, height, width, 3) uint8."""
        stop = self.shape[0] if stop is None else stop
        inside = 0 <= start <= stop <= self.shape[0]
        checks.require(inside, "frames", f"must lie within 0..{self.shape[0]}", f"{start}..{stop}", self.name)
        return self.read(start, stop)


@dataclass(frozen=True)
class Event:
    """Something that was shown from `onset_s` for `duration_s` on the stimulus clock.

    Attributes
    ----------
    onset_s, duration_s : seconds on the stimulus clock.
    category, caption : what it was, empty where unknown.
    stimulus : name of the picture or scene; the same name is the same picture, empty where unknown.
    """

    onset_s: float
    duration_s: float
    category: str = ""
    caption: str = ""
    stimulus: str = ""


@dataclass(frozen=True)
class Features:
    """Features of a stimulus in time: data (times, units) float32 at `fps`, of one layer of one extractor."""

    data: np.ndarray
    fps: float
    extractor: str
    layer: str


@dataclass(frozen=True)
class Run:
    """One run: its BOLD and what was shown, on one clock.

    Attributes
    ----------
    bold : Bold
    stimulus : name of what was shown; runs of the same stimulus are repeats of each other.
    video : Video or None where only labels are known.
    events : tuple of Event, in order.
    confounds : (trs,) float by name.
    """

    bold: Bold
    stimulus: str
    video: Video | None = None
    events: tuple[Event, ...] = ()
    confounds: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.confounds.items():
            checks.same_length(f"confound {name}", len(values), "volumes", self.bold.n_trs, self.bold.run)


@dataclass(frozen=True)
class Recording:
    """All runs of one subject, in one space."""

    dataset: str
    subject: str
    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        checks.require(len(self.runs) > 0, f"sub-{self.subject}", "must have 1 run or more", 0, self.dataset)
        first = self.runs[0].bold
        for run in self.runs[1:]:
            checks.require(
                run.bold.space.size == first.space.size,
                f"voxels of run {run.bold.run}",
                f"must be as many as in run {first.run} ({first.space.size})",
                run.bold.space.size,
                f"sub-{self.subject}",
            )
        names = [run.bold.run for run in self.runs]
        twice = sorted({name for name in names if names.count(name) > 1})
        checks.require(not twice, "run names", "must differ", ", ".join(twice), f"sub-{self.subject}")

    @property
    def space(self) -> Space:
        """The space that all runs share."""
        return self.runs[0].bold.space

    def run(self, name: str) -> Run:
        """Return one run by its name; an unknown one is an error that lists the known ones."""
        checks.one_of("run", name, [run.bold.run for run in self.runs], f"sub-{self.subject}")
        return next(run for run in self.runs if run.bold.run == name)


@dataclass(frozen=True)
class Dataset:
    """What a store holds: the recordings of a study and how they are meant to be used.

    Attributes
    ----------
    name : name of the data set.
    recordings : one per subject.
    window : how clips and brain windows are taken unless the user says otherwise.
    splits : the named splits.
    licence, citation, address : of the data.
    provenance : source files with their checksums, versions, settings, and what was left out.
    """

    name: str
    recordings: tuple[Recording, ...]
    window: Window
    splits: Mapping[str, Split] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""
    address: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.require(len(self.recordings) > 0, f"data set {self.name}", "must have 1 subject or more", 0)

    def recording(self, subject: str | None = None) -> Recording:
        """Return one subject's recording, the first if none is named; an unknown one lists the known ones."""
        if subject is None:
            return self.recordings[0]
        checks.one_of("subject", subject, [each.subject for each in self.recordings], self.name)
        return next(each for each in self.recordings if each.subject == subject)

    def split(self, name: str | None = None) -> Split:
        """Return a named split, the first if none is named; an unknown one lists the known ones."""
        checks.require(bool(self.splits), "splits", "must be named for this data set", 0, self.name)
        if name is None:
            return next(iter(self.splits.values()))
        return self.splits[checks.one_of("split", name, self.splits, self.name)]


@dataclass(frozen=True)
class Samples:
    """Brain windows and what was shown, one row per clip.

    Attributes
    ----------
    brain : (clips, trs, voxels) float32
        The volumes from `first_lag_s` on after the onset of the clip, one every `tr_s`.
    clips : (clips, frames, height, width, 3) uint8, or None where the truth is sealed or no pictures exist.
    run : (clips,) run name.
    onset_s : (clips,) onset on the stimulus clock.
    block : (clips,) int: the scene or segment that the clip belongs to; the unit of bootstrap and permutation.
    repeats : (clips,) int: how many presentations were averaged.
    category, caption : (clips,) text, empty where unknown.
    stimulus : (clips,) name of what was shown; equal names are the same pictures.
    tr_s, fps : seconds per volume, frames per second within a clip.
    first_lag_s : time of the window's first volume after the clip's onset; negative is before it.
    """

    brain: np.ndarray
    clips: np.ndarray | None
    run: np.ndarray
    onset_s: np.ndarray
    block: np.ndarray
    repeats: np.ndarray
    category: np.ndarray
    caption: np.ndarray
    stimulus: np.ndarray
    space: Space
    tr_s: float
    fps: float
    first_lag_s: float

    def __post_init__(self) -> None:
        checks.dimensions("brain", self.brain, ("clips", "trs", "voxels"))
        checks.same_length("brain columns", self.brain.shape[2], "voxels of the space", self.space.size)
        for name in PER_CLIP[1:]:
            checks.same_length(name, len(getattr(self, name)), "clips", len(self.brain))
        if self.clips is not None:
            checks.dimensions("clips", self.clips, ("clips", "frames", "height", "width", "rgb"))
            checks.same_length("clips", len(self.clips), "brain windows", len(self.brain))

    def __len__(self) -> int:
        return len(self.brain)

    @property
    def lags_s(self) -> np.ndarray:
        """Time of every volume of the window after the onset of the clip, (trs,)."""
        return self.first_lag_s + self.tr_s * np.arange(self.brain.shape[1])

    def take(self, rows: np.ndarray) -> Samples:
        """Return the samples of the given rows (bool mask or integers)."""
        chosen = {name: getattr(self, name)[rows] for name in PER_CLIP}
        return replace(self, clips=None if self.clips is None else self.clips[rows], **chosen)

    def sealed(self) -> Samples:
        """Return the same samples without anything of the truth: no clips, names, categories or captions."""
        blank = np.full(len(self), "")
        return replace(self, clips=None, category=blank, caption=blank, stimulus=blank)


@dataclass(frozen=True)
class Reconstruction:
    """What a system made of brain windows, one row per clip in the order of the samples.

    Attributes
    ----------
    clips : (clips, frames, height, width, 3) uint8, or None.
    probabilities : (clips, categories) float, rows summing to 1, or None; columns are `categories`.
    categories : names of the columns of `probabilities`.
    drawn : number of samples drawn per clip.
    chosen_by : how one was chosen of those drawn; never by the truth.
    mode : how the system came to see the test brains, where there is more than one way, e.g. "transductive".
    """

    clips: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    categories: tuple[str, ...] = ()
    drawn: int = 1
    chosen_by: str = "only one drawn"
    mode: str = ""

    def __post_init__(self) -> None:
        checks.require(self.chosen_by != "truth", "chosen_by", "must not be the truth", repr(self.chosen_by))
        if self.probabilities is not None:
            checks.same_length("categories", len(self.categories), "columns", self.probabilities.shape[1])
