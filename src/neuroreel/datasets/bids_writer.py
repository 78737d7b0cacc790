"""Recordings written as BIDS derivatives, in the layout that `datasets.bids` and other programs read.

    write_bids("sim", recordings, kind="gifti")          # read_bids("sim") returns what was written

Files as in `datasets.bids`: BOLD with sidecars, brain masks, confounds, events, stimuli, ROI label files,
participants and the data set's description.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from nibabel.openers import Opener

from neuroreel.core import checks
from neuroreel.core.files import atomic
from neuroreel.core.types import Bold, Recording, Run, Space, Video
from neuroreel.core.video import FileFrames, write_video
from neuroreel.datasets.bids_images import CORTEX, VERTICES
from neuroreel.datasets.bids_tables import write_tsv

KINDS = ("nifti", "gifti", "cifti")
BIDS_VERSION = "1.10.0"
VOXEL_MM = 2.5
_FIRST_BYTE = 352  # of the data in a NIfTI-1 file: a header of 348 and 4 that say that no extension follows
EVENT_COLUMNS = {
    "onset": "Seconds from the acquisition of the first volume",
    "duration": "Seconds",
    "trial_type": "Category of what was shown",
    "caption": "What was shown, in words",
    "stimulus": "Name of the picture or scene; the same name is the same picture",
    "stim_file": "File in the folder stimuli",
    "stim_onset": "Seconds into the stimulus file that is on show at the onset",
}
_README = "Written by neuroreel in the layout of BIDS derivatives (https://bids-specification.readthedocs.io).\n"
_ENTITY = re.compile(r"(ses|task|acq|ce|rec|dir|run)-[0-9A-Za-z]+")


def write_bids(
    folder: str | Path,
    recordings: Iterable[Recording],
    *,
    kind: Literal["nifti", "gifti", "cifti"] = "nifti",
    name: str = "",
    movies: Mapping[str, Path] | None = None,
    coordinates: np.ndarray | None = None,
    task: str = "movie",
    overwrite: bool = False,
) -> Path:
    """Write recordings as a BIDS-derivatives folder that is whole or not there, and return it.

    Parameters
    ----------
    recordings : taken one at a time, so that a generator of subjects keeps one in memory.
    kind : "nifti" puts voxels where their index says, vertices where `grid_of` says; "gifti" and "cifti" want vertices.
    name : of the data set; empty for that of the recordings.
    movies : files of videos by their name. A video that is not named here is copied from its own file, or, if it has
        none, encoded (H.264, nearly but not quite its frames).
    coordinates : (voxels, 3) place of each vertex in mm, for "nifti"; None for the fsaverage5 that nilearn brings.
    task : task of the runs whose name has none. Names as BIDS has them ("ses-1_task-movie_run-01") are kept.
    overwrite : replace a folder that is there.

    Raises
    ------
    DataError, ConfigError
        In one sentence: the kind does not fit the space, names of subjects or runs fall together, the folder is not
        empty, the disk is full.

    Notes
    -----
    Columns are read back in the order of hemisphere and vertex, or of the grid. A clock on which the first volume is
    not taken within the first TR is shifted so that it is at 0.
    """
    checks.one_of("kind", kind, KINDS)
    folder = Path(folder)
    free = overwrite or not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    checks.require(free, "output folder", "must be empty or not there yet", "files", folder)
    with atomic(folder) as partial:
        partial.mkdir()
        writer = _Writer(partial, kind, dict(movies or {}), coordinates, task)
        for recording in recordings:
            name = name or recording.dataset
            writer.subject(recording)
        checks.require(len(writer.subjects) > 0, "recordings", "must be 1 or more", 0, folder)
        writer.about(name or folder.name)
    return folder


def grid_of(space: Space, coordinates: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, str]:
    """Return a voxel for each column, (voxels, 3) int with no two alike, the affine (4, 4), the name of the space.

    A volume keeps its own. A vertex gets the free voxel of 2.5 mm nearest to its coordinates, those of nilearn's
    fsaverage5 pial surface (MNI305) where none are given. Columns of no known place fill a cube.
    """
    if space.kind == "volume" and space.index is not None and space.affine is not None:
        return np.asarray(space.index), np.asarray(space.affine), space.template
    template = space.template
    if coordinates is None and space.kind == "surface" and space.template == "fsaverage5":
        coordinates, template = _pial(space), "MNI305"
    if coordinates is None:
        side = int(np.ceil(space.size ** (1 / 3)))
        index = np.stack(np.unravel_index(np.arange(space.size), (side, side, side)), axis=1)
        return index, np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0]), ""
    checks.same_length("coordinates", len(coordinates), "voxels", space.size)
    checks.finite("coordinates", coordinates)
    origin = np.floor(coordinates.min(axis=0) / VOXEL_MM) * VOXEL_MM - 4 * VOXEL_MM
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = origin
    return _apart((coordinates - origin) / VOXEL_MM), affine, template


def _pial(space: Space) -> np.ndarray:
    """Return the coordinates of the vertices on nilearn's fsaverage5 pial surface, (vertices, 3) mm."""
    from nilearn.datasets import load_fsaverage

    assert space.index is not None and space.hemisphere is not None
    mesh = load_fsaverage("fsaverage5")["pial"].parts
    places = np.stack([mesh[part].coordinates for part in ("left", "right")])  # (hemispheres, vertices, 3)
    return places[(space.hemisphere == "R").astype(int), space.index]


def _apart(places: np.ndarray) -> np.ndarray:
    """Return the free voxel nearest to each place (n, 3), given in order of the places."""
    around = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    index = np.empty(places.shape, dtype=int)
    taken: set[tuple[int, ...]] = set()
    for row, place in enumerate(places):
        cell = tuple(np.rint(place).astype(int).tolist())
        if cell in taken:
            near = np.rint(place).astype(int) + around
            order = np.argsort(((near - place) ** 2).sum(axis=1), kind="stable")
            free = (tuple(near[each].tolist()) for each in order if tuple(near[each].tolist()) not in taken)
            found = next(free, None)
            checks.require(found is not None, "coordinates", "must not crowd in one place", f"vertex {row}")
            cell = found or cell
        taken.add(cell)
        index[row] = cell
    return index - np.minimum(index.min(axis=0), 0)


@dataclass
class _Writer:
    """Writes one folder, subject by subject."""

    root: Path
    kind: str
    movies: dict[str, Path]
    coordinates: np.ndarray | None
    task: str
    subjects: list[str] = field(default_factory=list)
    tasks: set[str] = field(default_factory=set)
    stimuli: dict[str, str] = field(default_factory=dict)

    def subject(self, recording: Recording) -> None:
        """Write one subject's files."""
        label = _alphanumeric(recording.subject.removeprefix("sub-"), "subject")
        checks.require(label not in self.subjects, "subjects", "must have names that differ", label, recording.dataset)
        self.subjects.append(label)
        names = [_run_name(run.bold.run, self.task) for run in recording.runs]
        twice = ", ".join(sorted({name for name in names if names.count(name) > 1}))
        checks.require(not twice, "run names", "must differ in letters and digits", twice, recording.dataset)
        image = _FORMS[self.kind](recording.space, self.coordinates)
        for name, run in zip(names, recording.runs, strict=True):
            place = f"run {run.bold.run} of sub-{label}"
            same = _same_places(run.bold.space, recording.space)
            checks.require(same, place, f"must have the voxels of run {recording.runs[0].bold.run}", "others")
            self._run(label, name, run, image)
        folder = self.root / f"sub-{label}" / "anat"
        folder.mkdir(parents=True)
        image.labels(folder, f"sub-{label}", recording.space.rois)
        if not any(folder.iterdir()):
            folder.rmdir()

    def _run(self, label: str, name: str, run: Run, image: _Image) -> None:
        entities = dict(part.split("-", 1) for part in name.split("_"))
        folder = self.root / f"sub-{label}"
        folder = (folder / f"ses-{entities['ses']}" if "ses" in entities else folder) / "func"
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"sub-{label}_{name}"
        bold = run.bold
        shift_s = 0.0 if 0 <= bold.start_s < bold.tr_s else bold.start_s
        self.tasks.add(entities["task"])
        sidecar = {
            "RepetitionTime": bold.tr_s,
            "StartTime": bold.start_s - shift_s,
            "SkullStripped": False,
            "TaskName": entities["task"],
        }
        shown = run.stimulus or (run.video.name if run.video is not None else "")
        image.bold(folder, stem, bold, sidecar | ({"StimulusName": shown} if shown else {}))
        if run.confounds:
            write_tsv(folder / f"{stem}_desc-confounds_timeseries.tsv", run.confounds)
        if run.events or run.video is not None:
            write_tsv(folder / f"{stem}_events.tsv", self._events(run, shift_s))

    def _events(self, run: Run, shift_s: float) -> dict[str, list[Any]]:
        """Return the columns of events.tsv; a video without events is one."""
        rows = [(each.onset_s, each.duration_s, each.category, each.caption, each.stimulus) for each in run.events]
        video, file, start_s, stop_s = run.video, None, np.inf, -np.inf
        if video is not None:
            file = self._stimulus(video)
            start_s, stop_s = video.start_s, video.start_s + video.shape[0] / video.fps
            rows = rows or [(start_s, stop_s - start_s, "", "", "")]
        columns: dict[str, list[Any]] = {name: [] for name in EVENT_COLUMNS}
        for onset_s, duration_s, *about in rows:
            on = start_s - 1e-6 <= onset_s < stop_s
            shown = (file, float(onset_s - start_s)) if on else (None, None)
            for name, cell in zip(columns, (float(onset_s - shift_s), float(duration_s), *about, *shown), strict=True):
                columns[name].append(cell)
        return columns

    def _stimulus(self, video: Video) -> str:
        """Return the name in `stimuli/` of a video, whose file is copied or written the first time."""
        if video.name in self.stimuli:
            return self.stimuli[video.name]
        source = self.movies.get(video.name)
        if source is None and isinstance(video.read, FileFrames):
            source = video.read.path
        suffix = Path(video.name).suffix
        suffix = source.suffix if source is not None else suffix if suffix in (".mp4", ".mkv") else ".mp4"
        stem = re.sub(r"[^0-9A-Za-z._-]+", "-", video.name.removesuffix(suffix)).strip(".-") or "stimulus"
        used = set(self.stimuli.values())
        names = (f"{stem}{'' if number == 1 else f'-{number}'}{suffix}" for number in range(1, len(used) + 2))
        name = next(name for name in names if name not in used)
        goal = self.root / "stimuli" / name
        goal.parent.mkdir(exist_ok=True)
        if source is None:
            write_video(
                goal, (frame for start in range(video.shape[0]) for frame in video.read(start, start + 1)), video.fps
            )
        else:
            checks.require(
                source.is_file(), f"movie {video.name}", "must be a file that exists", repr(source.name), source
            )
            shutil.copyfile(source, goal)
        self.stimuli[video.name] = name
        return name

    def about(self, name: str) -> None:
        """Write what describes the data set as a whole."""
        made_by = [{"Name": "neuroreel", "Version": version("neuroreel")}]
        description = {"Name": name, "BIDSVersion": BIDS_VERSION, "DatasetType": "derivative", "GeneratedBy": made_by}
        _write_json(self.root / "dataset_description.json", description)
        (self.root / "README").write_text(_README, encoding="utf-8")
        write_tsv(self.root / "participants.tsv", {"participant_id": [f"sub-{label}" for label in self.subjects]})
        columns = {column: {"Description": text} for column, text in EVENT_COLUMNS.items()}
        for task in self.tasks:
            _write_json(self.root / f"task-{task}_events.json", columns)


class _Volume:
    """Writes BOLD, brain masks and ROIs as NIfTI."""

    def __init__(self, space: Space, coordinates: np.ndarray | None) -> None:
        self.index, self.affine, template = grid_of(space, coordinates)
        self.shape = tuple(int(most) + 1 for most in self.index.max(axis=0))
        self.space = _space_entity(template)

    def bold(self, folder: Path, stem: str, bold: Bold, sidecar: Mapping[str, Any]) -> None:
        stem += self.space
        self._series(folder / f"{stem}_desc-preproc_bold.nii.gz", bold)
        _write_json(folder / f"{stem}_desc-preproc_bold.json", sidecar)
        mask = self._image(np.ones(len(self.index)), np.uint8)
        nibabel.save(mask, folder / f"{stem}_desc-brain_mask.nii.gz")

    def _series(self, file: Path, bold: Bold) -> None:
        """Write the 4-D image volume by volume, so that the empty part of the grid is never held for all times."""
        header = nibabel.Nifti1Header()
        header.set_data_dtype(np.float32)
        header.set_data_shape((*self.shape, bold.n_trs))
        header.set_sform(self.affine, code="aligned")
        header.set_qform(self.affine, code="unknown")
        header.set_xyzt_units("mm", "sec")
        header.set_zooms((*header.get_zooms()[:3], bold.tr_s))
        header.set_slope_inter(1.0, 0.0)
        header["vox_offset"] = _FIRST_BYTE
        with Opener(str(file), "wb") as stream:
            header.write_to(stream)
            stream.write(bytes(_FIRST_BYTE - stream.tell()))
            volume = np.zeros(self.shape, dtype=np.float32)
            for values in bold.data:
                volume[tuple(self.index.T)] = values
                stream.write(volume.tobytes(order="F"))

    def labels(self, folder: Path, stem: str, rois: Mapping[str, np.ndarray]) -> None:
        for desc, names, labels in _layers(rois):
            file = folder / f"{stem}{self.space}_desc-{desc}_dseg.nii.gz"
            nibabel.save(self._image(labels, np.int16), file)
            columns = {"index": [str(number) for number in range(1, len(names) + 1)], "name": names}
            write_tsv(file.with_name(file.name.replace(".nii.gz", ".tsv")), columns)

    def _image(self, values: np.ndarray, dtype: type) -> nibabel.Nifti1Image:
        """Return the image of values (voxels,) or (voxels, trs), 0 elsewhere."""
        grid = np.zeros((*self.shape, *values.shape[1:]), dtype=dtype)
        grid[tuple(self.index.T)] = values
        return nibabel.Nifti1Image(grid, self.affine)


class _Gifti:
    """Writes BOLD and ROIs as pairs of GIFTI hemispheres; vertices of no column are NaN, and the cortex is said."""

    def __init__(self, space: Space, coordinates: np.ndarray | None) -> None:
        self.vertices, self.rows = _hemispheres(space, "gifti")
        self.template = space.template
        most = max(int(vertices.max(initial=0)) for vertices in self.vertices.values()) + 1
        self.count = VERTICES.get(space.template, most)
        checks.require(most <= self.count, "vertices", f"must be below {self.count} on {space.template}", most - 1)

    def bold(self, folder: Path, stem: str, bold: Bold, sidecar: Mapping[str, Any]) -> None:
        for side, vertices in self.vertices.items():
            whole = np.full((bold.n_trs, self.count), np.nan, dtype=np.float32)
            whole[:, vertices] = bold.data[:, self.rows[side]]
            meta = nibabel.gifti.GiftiMetaData({"TimeStep": repr(bold.tr_s * 1000)})
            arrays = [
                nibabel.gifti.GiftiDataArray(volume, intent="NIFTI_INTENT_TIME_SERIES", meta=meta) for volume in whole
            ]
            file = folder / f"{stem}_hemi-{side}{_space_entity(self.template)}_bold.func.gii"
            nibabel.save(nibabel.GiftiImage(darrays=arrays, meta=_side_meta(side)), file)
            _write_json(file.with_name(file.name.replace(".func.gii", ".json")), sidecar)

    def labels(self, folder: Path, stem: str, rois: Mapping[str, np.ndarray]) -> None:
        every = np.ones(sum(len(rows) for rows in self.rows.values()), dtype=bool)
        partly = len(every) < 2 * self.count
        for desc, names, labels in [*_layers(rois), *([("cortex", ["cortex"], every.astype(int))] if partly else [])]:
            for side, vertices in self.vertices.items():
                whole = np.zeros(self.count, dtype=np.int32)
                whole[vertices] = labels[self.rows[side]]
                image = nibabel.GiftiImage(meta=_side_meta(side), labeltable=nibabel.gifti.GiftiLabelTable())
                for key, name in enumerate(["???", *names]):
                    label = nibabel.gifti.GiftiLabel(key, *_colour(key))
                    label.label = name  # type: ignore[attr-defined]
                    image.labeltable.labels.append(label)
                image.add_gifti_data_array(nibabel.gifti.GiftiDataArray(whole, intent="NIFTI_INTENT_LABEL"))
                nibabel.save(
                    image, folder / f"{stem}_hemi-{side}{_space_entity(self.template)}_desc-{desc}_dseg.label.gii"
                )


class _Cifti:
    """Writes BOLD and ROIs as CIFTI-2, with the vertices that there are."""

    def __init__(self, space: Space, coordinates: np.ndarray | None) -> None:
        vertices, rows = _hemispheres(space, "cifti")
        self.rows = np.concatenate(list(rows.values()))
        most = max(int(each.max(initial=0)) for each in vertices.values()) + 1
        count = VERTICES.get(space.template, most)
        checks.require(most <= count, "vertices", f"must be below {count} on {space.template}", most - 1)
        models = [
            nibabel.cifti2.BrainModelAxis.from_surface(each, count, CORTEX[side])
            for side, each in vertices.items()
            if len(each)
        ]
        self.brain = models[0] if len(models) == 1 else models[0] + models[1]
        self.entities = _space_entity(space.template) + ("_den-91k" if space.template == "fsLR" else "")

    def bold(self, folder: Path, stem: str, bold: Bold, sidecar: Mapping[str, Any]) -> None:
        series = nibabel.cifti2.SeriesAxis(0.0, bold.tr_s, bold.n_trs, unit="SECOND")
        image = nibabel.Cifti2Image(np.ascontiguousarray(bold.data[:, self.rows]), header=(series, self.brain))
        image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SERIES")
        nibabel.save(image, folder / f"{stem}{self.entities}_bold.dtseries.nii")
        _write_json(folder / f"{stem}{self.entities}_bold.json", sidecar)

    def labels(self, folder: Path, stem: str, rois: Mapping[str, np.ndarray]) -> None:
        for desc, names, labels in _layers(rois):
            table = {key: (name, _colour(key)) for key, name in enumerate(["???", *names])}
            axis = nibabel.cifti2.LabelAxis([desc], [table])
            image = nibabel.Cifti2Image(labels[None, self.rows].astype(np.float32), header=(axis, self.brain))
            image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_LABELS")
            nibabel.save(image, folder / f"{stem}{self.entities}_desc-{desc}_dseg.dlabel.nii")


_Image = _Volume | _Gifti | _Cifti
_FORMS: dict[str, Callable[[Space, np.ndarray | None], _Image]] = {"nifti": _Volume, "gifti": _Gifti, "cifti": _Cifti}


def _hemispheres(space: Space, kind: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the vertices of each hemisphere in order, and the columns that hold them."""
    ok = space.kind == "surface" and space.index is not None and space.hemisphere is not None and space.template != ""
    checks.require(ok, f"space for {kind}", "must be a surface with vertices, hemispheres and a template", space.kind)
    assert space.index is not None and space.hemisphere is not None
    vertices, rows = {}, {}
    for side in CORTEX:
        there = np.flatnonzero(space.hemisphere == side)
        rows[side] = there[np.argsort(space.index[there], kind="stable")]
        vertices[side] = space.index[rows[side]]
        alike = len(vertices[side]) - len(np.unique(vertices[side]))
        checks.require(alike == 0, "vertices", "must differ", f"{alike} alike in hemisphere {side}")
    return vertices, rows


def _layers(rois: Mapping[str, np.ndarray]) -> list[tuple[str, list[str], np.ndarray]]:
    """Return label maps that hold the ROIs: the `desc-`, the names of labels 1, 2, ..., the labels (voxels,).

    A voxel has one label in a map, so ROIs that overlap go to maps of their own.
    """
    layers: list[tuple[list[str], np.ndarray]] = []
    for name, mask in rois.items():
        free = next((layer for layer in layers if not np.any(layer[1][mask])), None)
        if free is None:
            free = ([], np.zeros(len(mask), dtype=int))
            layers.append(free)
        free[0].append(name)
        free[1][mask] = len(free[0])
    return [(f"ROIs{'' if n == 1 else n}", names, labels) for n, (names, labels) in enumerate(layers, start=1)]


def _same_places(space: Space, other: Space) -> bool:
    """Return whether two spaces have the same voxels in the same order."""
    for ours, theirs in ((space.index, other.index), (space.hemisphere, other.hemisphere)):
        if ours is None or theirs is None:
            if ours is not theirs:
                return False
        elif not np.array_equal(ours, theirs):
            return False
    return True


def _run_name(run: str, task: str) -> str:
    """Return the entities of a run's name, as they are if BIDS has them, else as its task's."""
    parts = run.split("_")
    if not all(_ENTITY.fullmatch(part) for part in parts):
        return f"task-{_alphanumeric(run, 'run')}"
    if any(part.startswith("task-") for part in parts):
        return run
    sessions = [part for part in parts if part.startswith("ses-")]
    others = [part for part in parts if not part.startswith("ses-")]
    return "_".join([*sessions, f"task-{_alphanumeric(task, 'task')}", *others])


def _alphanumeric(text: str, what: str) -> str:
    label = re.sub(r"[^0-9A-Za-z]", "", text)
    checks.require(bool(label), what, "must have a name with letters or digits", repr(text))
    return label


def _space_entity(template: str) -> str:
    return f"_space-{_alphanumeric(template, 'template')}" if template else ""


def _side_meta(side: str) -> nibabel.gifti.GiftiMetaData:
    return nibabel.gifti.GiftiMetaData({"AnatomicalStructurePrimary": "CortexLeft" if side == "L" else "CortexRight"})


def _colour(key: int) -> tuple[float, float, float, float]:
    """Return a colour (red, green, blue, alpha) for a label; that of no label is clear."""
    return (*(round((key * step) % 1, 3) for step in (0.618, 0.382, 0.236)), 1.0 if key else 0.0)  # type: ignore[return-value]


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
