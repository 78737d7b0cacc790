"""BData files of image experiments into studies: a row is a trial, of which one picture is known.

Made for Generic Object Decoding (Horikawa & Kamitani 2017, Nat. Commun. 8:15037) as it is published: `Subject1.h5` or
`Subject1.mat`, where DataType is 1 for training, 2 for perception and 3 for imagery, Run counts the runs of each and
Label is the number of the picture. A row is the mean of a trial's volumes with the haemodynamic delay taken off
already, so that a window is one row at lag 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from pydantic import Field

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError
from neuroreel.core.sets import Segment, Split, Window
from neuroreel.core.study import RunSource, Study, leave_one_run_out
from neuroreel.core.types import Bold, Event, Run, Space, Video
from neuroreel.datasets.bdata import ROI, BData, image_names, open_bdata
from neuroreel.datasets.pictures import find_pictures, read_pictures

TYPES = {1: "train", 2: "perception", 3: "imagery"}
LABELS = ("Label", "stimulus_name", "stimulus_id")
VOXELS = "VoxelData"
CITATION = "Horikawa and Kamitani (2017), Nature Communications 8:15037"
ADDRESS = "https://doi.org/10.6084/m9.figshare.7387130"


class TrialsConfig(Config):
    """How a BData file of trials is read.

    Attributes
    ----------
    voxels : expression that selects the voxels; empty for all of `VoxelData`, or else of all regions.
    label : key of the pictures; empty for the first of `LABELS` that the file has.
    subject : its name; empty for the one in the name of the file.
    trial_s : seconds from one trial to the next; 9 s for the pictures that were seen in the published experiment.
    images : folder of the pictures, named by category and image (`n01443537_22563.JPEG`); empty for none.
    image_size : side in pixels to which they are cut and shrunk.
    """

    voxels: str = ""
    label: str = ""
    subject: str = ""
    trial_s: float = Field(default=9.0, gt=0)
    images: str = ""
    image_size: int = Field(default=128, ge=8)


def trials_study(file: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Return the study of a BData file, with `key=value` overrides of `TrialsConfig`.

    Runs are named by type and number: `train-run-01`, `perception-run-01`, `imagery-run-01`; with sessions
    `train-ses-01-run-01`. The split "published" trains on training runs and tests on perception, "published-imagery"
    tests on imagery; a file without types leaves out each run once.

    Raises
    ------
    ConfigError, DataError
        In one sentence: a damaged file, an expression that can't be parsed, a region that isn't there (those that are
        get listed), a picture without a file.
    """
    config = TrialsConfig.read(None, overrides)
    trials = _Trials(Path(file), config)
    sources = [
        RunSource(trials.subject, name, partial(trials.run, name), (trials.file, *trials.picture_files(name)))
        for name in trials.runs
    ]
    window = Window(at="events", clip_s=config.trial_s, first_lag_s=0.0, trs=1, blocks="events")
    settings = config.model_dump(mode="json", exclude_defaults=True)
    published = trials.types is not None
    about = ("see the data set's page", CITATION, ADDRESS) if published else ("", "", "")
    name = "generic-object-decoding" if published else trials.file.stem
    return Study(name, tuple(sources), window, _splits(trials), *about, settings)


def _splits(trials: _Trials) -> dict[str, Split]:
    names = {kind: [name for name in trials.runs if name.startswith(kind)] for kind in TYPES.values()}
    if trials.types is None or not names["train"]:
        return leave_one_run_out(trials.runs)
    found = {}
    for kind, name in (("perception", "published"), ("imagery", "published-imagery")):
        if names[kind]:
            shared = bool(set(trials.categories_in("train")) & set(trials.categories_in(kind)))
            told = "categories of both sides overlap" if shared else "no tested category is in the training runs"
            found[name] = Split(
                name=name,
                reason=f"the published split: training runs against {kind} runs; {told}",
                train=tuple(Segment(run=run) for run in names["train"]),
                test=tuple(Segment(run=run) for run in names[kind]),
                shared_categories=shared,
            )
    return found or leave_one_run_out(trials.runs)


class _Trials:
    """The trials of one file; its voxels are read once, when the first run is."""

    def __init__(self, file: Path, config: TrialsConfig) -> None:
        self.file, self.config = file, config
        self.data: BData = open_bdata(file)
        self.chosen = self.data.select(config.voxels or self._all_voxels())
        rule = f"must select voxels; the regions are {', '.join(self.data.rois) or 'none'}"
        checks.require(bool(self.chosen.any()), "voxels", rule, repr(config.voxels), file, ConfigError)
        named = re.fullmatch(r"(?:subject|subj|sub|s)[-_]?(\w+)", file.stem, re.IGNORECASE)
        self.subject = config.subject or (named.group(1) if named else re.sub(r"\W", "", file.stem))
        self.types = self._whole_numbers("DataType")
        self.names, self.categories = self._pictures()
        self.runs = self._runs()

    def _all_voxels(self) -> str:
        if VOXELS in self.data.keys:
            return f"{VOXELS} = 1"
        rule = f"must be {VOXELS} or regions named {ROI}..."
        checks.require(bool(self.data.rois), "metadata", rule, ", ".join(self.data.keys), self.file)
        return f"{ROI}* = 1"

    def _whole_numbers(self, key: str) -> np.ndarray | None:
        """Return a column of whole numbers (rows,), None if the file doesn't have it."""
        if key not in self.data.keys:
            return None
        values = checks.finite(key, self.data.column(key), self.file)
        whole = bool(np.all(values == np.rint(values)))
        checks.require(whole, key, "must be whole numbers", values[values != np.rint(values)][:1], self.file)
        return values.astype(int)

    def _pictures(self) -> tuple[list[str], list[str]]:
        """Return the name of each row's picture and of its category."""
        keys = self.data.keys
        label = self.config.label or next((key for key in LABELS if key in keys), LABELS[0])
        checks.one_of("label", label, keys, self.file)
        values = checks.finite(label, self.data.column(label), self.file)
        if label not in self.data.labels:
            return image_names(values, self.file)
        texts = self.data.labels[label]
        lost = sorted(set(values.tolist()) - set(texts))
        checks.require(not lost, f"values of {label}", "must all be named in vmap", lost[:3], self.file)
        names = [texts[value] for value in values.tolist()]
        return names, [name.split("_")[0] if re.match(r"n\d{8}_", name) else "" for name in names]

    def _runs(self) -> dict[str, np.ndarray]:
        """Return the rows of each run, in the order in which the runs come."""
        runs, sessions = self._whole_numbers("Run"), self._whole_numbers("Session")
        if self.types is not None:
            odd = sorted(set(self.types.tolist()) - set(TYPES))
            said = ", ".join(f"{number} ({name})" for number, name in TYPES.items())
            checks.require(not odd, "DataType", f"must be one of {said}", odd[:3], self.file)
        found: dict[str, list[int]] = {}
        for row in range(self.data.rows):
            parts = [] if self.types is None else [TYPES[int(self.types[row])]]
            parts += [] if sessions is None else [f"ses-{sessions[row]:02d}"]
            parts += ["run-01" if runs is None else f"run-{runs[row]:02d}"]
            found.setdefault("-".join(parts), []).append(row)
        return {name: np.array(rows) for name, rows in found.items()}

    def categories_in(self, kind: str) -> list[str]:
        """Return the categories of the runs of a type."""
        return [self.categories[row] for name, rows in self.runs.items() if name.startswith(kind) for row in rows]

    def picture_files(self, run: str) -> tuple[Path, ...]:
        """Return the files of a run's pictures, none where there is no folder of pictures."""
        if not self.config.images:
            return ()
        shown = [self.names[row] for row in self.runs[run]]
        files = find_pictures(self.config.images, shown)
        return tuple(files[name] for name in dict.fromkeys(shown))

    @cached_property
    def voxels(self) -> np.ndarray:
        """The voxels of all rows, (rows, voxels) float32."""
        return self.data.columns(self.chosen).astype(np.float32)

    @cached_property
    def space(self) -> Space:
        """Columns with a mask for each region, and the coordinates that the file has."""
        keys = [key for key in self.data.keys if key.startswith(ROI)]
        rois = {key.removeprefix(ROI): (self.data.metadata(key) == 1)[self.chosen] for key in keys}
        places: list[str] = [key for key in ("voxel_x", "voxel_y", "voxel_z") if key in self.data.keys]
        measures = {key: self.data.metadata(key)[self.chosen] for key in places}
        return Space("columns", int(self.chosen.sum()), rois=rois, measures=measures)

    def run(self, name: str) -> Run:
        """Return one run: its trials one after the other, and the pictures if there is a folder of them."""
        rows, step = self.runs[name], self.config.trial_s
        bold = Bold(self.voxels[rows], step, self.space, self.subject, name)
        events = tuple(
            Event(order * step, step, self.categories[row], "", self.names[row]) for order, row in enumerate(rows)
        )
        stimulus, video = f"trials of sub-{self.subject} {name}", None
        if self.config.images:
            shown, side = [self.names[row] for row in rows], self.config.image_size
            files = find_pictures(self.config.images, shown)
            paths = [files[picture] for picture in shown]
            video = Video(stimulus, 1 / step, (len(rows), side, side, 3), partial(_some_pictures, paths, side))
        return Run(bold, stimulus, video, events)


def _some_pictures(paths: Sequence[Path], side: int, start: int, stop: int) -> np.ndarray:
    return read_pictures(paths[start:stop], side)
