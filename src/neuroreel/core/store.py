"""The store: one Zarr v3 group per data set, whole or not there, and gone on with after a kill.

    out.zarr/                     a table of the runs; name, window, splits, licence, provenance as attributes
      sub-01/                     the space of the subject: voxel, index, hemisphere, roi_mask, measure
        run-1/                    bold (time, voxel), time, voxel, event_* (event), confounds (time, confound)
      stimuli/NAME/               reference and SHA-256 of the file, and the frames where they are kept
      derived/KEY/                what frozen networks made of the stimuli, KEY a digest of all that it depends on

Each group opens with `xarray.open_zarr(path, group=...)`. While it is written, everything lies in `.out.zarr.partial`
beside it: each finished run with the checksums of what it came from, so that a second call repeats none.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from neuroreel.core import checks
from neuroreel.core.errors import DataError, NeuroreelError, StoreError
from neuroreel.core.files import atomic, sha256, write_error, write_text
from neuroreel.core.sets import Split, Window
from neuroreel.core.study import RunSource, Study, bad_voxels, say_bad_voxels
from neuroreel.core.system import versions
from neuroreel.core.types import Bold, Dataset, Event, Recording, Run, Space, Video
from neuroreel.core.video import FileFrames

FORMAT = 1  # of the layout; raised when an older reader would misread it
CHUNK = (512, 2048)  # volumes, voxels
CHUNK_BYTES = 4_000_000  # of frames, and of what was made of them
_EVENT_TEXTS = ("category", "caption", "stimulus")

Progress = Callable[[int, int, str], None]


def write_store(
    target: str | Path, study: Study | Dataset, *, cache_frames: bool = False, progress: Progress | None = None
) -> Path:
    """Write a study to a store, which is whole or not there, and return its path.

    Voxels that are NaN, infinite or constant in any run of a subject are left out of all of them, counted and said.
    After a kill the old store, or none, is left; the next call goes on and repeats no finished run whose files and
    settings are the same. After an error nothing is left of what was begun.

    Parameters
    ----------
    target : folder of the store, by custom `*.zarr`; an older store there is replaced.
    cache_frames : keep the decoded frames of video files in the store too. Videos without a file are always kept.
    progress : function of (runs done, runs in all, what is going on).

    Raises
    ------
    DataError
        If a file of the study breaks a rule, the disk is full, or another process writes the same store.
    StoreError
        If `target` exists and is no store.
    """
    target = Path(target)
    study = Study.of(study) if isinstance(study, Dataset) else study
    say = progress or (lambda done, total, text: None)
    _refuse_what_is_no_store(target)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with _alone(partial, target):
            _undo_half_a_swap(target)
            writer = _Writer(partial, target, study, cache_frames)
            if not writer.is_there():
                for number, source in enumerate(study.runs):
                    say(number, len(study.runs), f"sub-{source.subject} run {source.run}")
                    writer.run(source)
                say(len(study.runs), len(study.runs), "putting the store together")
                _swap(writer.finish(), target)
            shutil.rmtree(partial)
    except _BusyError:
        raise
    except NeuroreelError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise write_error(error, target) from error
    return target


def read_store(
    path: str | Path, *, subjects: Sequence[str] | None = None, runs: Sequence[str] | None = None
) -> Dataset:
    """Return what a store holds; BOLD is read now, frames when they are asked for.

    Parameters
    ----------
    subjects, runs : names of those to read; None for all.

    Raises
    ------
    StoreError
        If there is no store, or it is half-written, damaged or of another layout.
    ConfigError
        If a subject or a run isn't in the store; the known ones are listed.
    """
    path = Path(path)
    root = _open(path)
    with _damage(path):
        attrs = _attrs(root)
        table = attrs["runs"]
        known = list(dict.fromkeys(row["subject"] for row in table))
        for subject in subjects or ():
            checks.one_of("subject", subject, known, path)
        for run in runs or ():
            checks.one_of("run", run, {row["run"] for row in table}, path)
        recordings = []
        for subject in known:
            if subjects is not None and subject not in subjects:
                continue
            rows = [row for row in table if row["subject"] == subject and (runs is None or row["run"] in runs)]
            if rows:
                space = _read_space(_child(root, _subject_key(subject)))
                read = tuple(_read_run(root, path, subject, row["run"], space) for row in rows)
                recordings.append(Recording(attrs["name"], subject, read))
        return Dataset(
            attrs["name"],
            tuple(recordings),
            Window.build(attrs["window"], path),
            {name: Split.build(split, path) for name, split in attrs["splits"].items()},
            attrs["licence"],
            attrs["citation"],
            attrs["address"],
            attrs["provenance"],
        )


def store_table(path: str | Path) -> tuple[tuple[dict[str, Any], ...], dict[str, Split]]:
    """Return a store's runs (subject, run, trs, tr_s, voxels) and its named splits; no BOLD is read.

    Raises
    ------
    StoreError
        As in `read_store`.
    """
    path = Path(path)
    root = _open(path)
    with _damage(path):
        attrs = _attrs(root)
        splits = {name: Split.build(split, path) for name, split in attrs["splits"].items()}
        return tuple({key: row[key] for key in row if key != "fingerprint"} for row in attrs["runs"]), splits


# ---------------------------------------------------------------------------------------------------------------------
# What is made of the stimuli


def read_derived(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """Return the arrays that `write_derived` kept in a store under a key, None if there are none or they are damaged.

    Raises
    ------
    StoreError
        If there is no store.
    """
    _open(path)
    folder = _derived(path, key)
    if not folder.is_dir():
        return None
    try:
        with _damage(folder):
            group = zarr.open_group(folder, mode="r")
            return {name: np.asarray(_array(group, name)[...]) for name in _attrs(group)["arrays"]}
    except StoreError:
        return None  # it can be made again


def write_derived(path: Path, key: str, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Keep arrays in a store that can be made of its stimuli again, such as the latents of clips.

    They are whole or not there, and go when the store is prepared anew.

    Parameters
    ----------
    path : a store that `write_store` wrote.
    key : what tells them from all others, such as a digest of everything that they depend on.
    arrays : by name, each chunked along its first axis.
    about : what to say of them, plain.

    Raises
    ------
    StoreError
        If there is no store.
    DataError
        If the store can't be written, or the disk is full.
    """
    _open(path)
    with atomic(_derived(path, key)) as partial:
        zarr.open_group(path / "derived", mode="a", zarr_format=3)
        group = zarr.create_group(partial, zarr_format=3, attributes={**about, "arrays": list(arrays)})
        for name, values in arrays.items():
            rows = max(1, CHUNK_BYTES // max(1, values[:1].nbytes))
            axes = tuple(f"{name}_{axis}" for axis in range(values.ndim))
            _put(group, name, values, axes, chunks=(min(rows, max(1, len(values))), *values.shape[1:]))
        _consolidate(partial)


def _derived(path: Path, key: str) -> Path:
    return path / "derived" / quote(key, safe="")


# ---------------------------------------------------------------------------------------------------------------------
# Writing


class _Writer:
    """Writes runs to the partial folder and puts the store together from them."""

    def __init__(self, partial: Path, target: Path, study: Study, cache_frames: bool) -> None:
        self.partial, self.target, self.study, self.cache_frames = partial, target, study, cache_frames
        self.checksums: dict[Path, str] = {}

    def is_there(self) -> bool:
        """Tell whether the target already is the store that would be written, and is whole."""
        if not self.target.exists():
            return False
        wanted = [self.fingerprint(source) for source in self.study.runs]
        try:
            root = _open(self.target)
            attrs = _attrs(root)
            same = [row["fingerprint"] for row in attrs["runs"]] == wanted
            if not same or {**attrs, **_about(self.study)} != attrs:
                return False
            for subject in self.study.subjects:
                read_store(self.target, subjects=[subject])
            with _damage(self.target):
                for name in _child(root, "stimuli"):
                    stimulus = _child(root, f"stimuli/{name}")
                    if _attrs(stimulus)["cached"]:
                        _array(stimulus, "frames")
        except StoreError:
            return False
        return True

    def fingerprint(self, source: RunSource) -> str:
        """Return a checksum of all that decides what a run becomes."""
        for file in source.sources:
            if file not in self.checksums:
                with _reading(file):
                    self.checksums[file] = sha256(file)
        files = {str(file): self.checksums[file] for file in source.sources}
        parts = [FORMAT, source.subject, source.run, source.key, files, dict(self.study.config), self.cache_frames]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def folder(self, source: RunSource) -> Path:
        """Return the folder of a run within the partial one."""
        return self.partial / "runs" / _subject_key(source.subject) / _run_key(source.run)

    def run(self, source: RunSource) -> None:
        """Write a run, unless it is finished and still right."""
        folder, fingerprint = self.folder(source), self.fingerprint(source)
        if _done(folder).get("fingerprint") == fingerprint:
            return
        shutil.rmtree(folder, ignore_errors=True)
        with _reading(source.sources[0] if source.sources else self.study.name):
            run = source.load()
        bold, where = run.bold, f"sub-{run.bold.subject} run {run.bold.run}"
        named = (bold.subject, bold.run) == (source.subject, source.run)
        checks.require(named, "run", f"must be sub-{source.subject} run {source.run}", where, self.study.name)
        self._same_space(source, bold)
        folder.mkdir(parents=True)
        _write_run(zarr.create_group(folder / "run", zarr_format=3), run)
        _write_space(zarr.create_group(folder / "space", zarr_format=3), bold.space, np.arange(bold.space.size))
        bad = bad_voxels(bold.data)
        np.save(folder / "bad.npy", bad)
        done = {
            "fingerprint": fingerprint,
            "voxels": bold.space.size,
            "places": _places(bold.space),
            "trs": bold.n_trs,
            "tr_s": bold.tr_s,
            "video": None if run.video is None else self._stimulus(run.video),
        }
        write_text(folder / "done.json", json.dumps(done))

    def _same_space(self, source: RunSource, bold: Bold) -> None:
        for other in self.study.runs:
            done = _done(self.folder(other)) if other.subject == source.subject and other is not source else {}
            if not done:
                continue
            name, where = f"voxels of run {source.run}", f"sub-{source.subject}"
            rule = f"must be as many as in run {other.run} ({done['voxels']})"
            checks.require(bold.space.size == done["voxels"], name, rule, bold.space.size, where)
            rule = f"must lie where those of run {other.run} do"
            checks.require(_places(bold.space) == done["places"], name, rule, "other places", where)

    def _stimulus(self, video: Video) -> dict[str, Any]:
        """Write a stimulus to the partial folder and return what is known of it."""
        file = video.read.path.resolve() if isinstance(video.read, FileFrames) else None
        if file is not None and file not in self.checksums:
            with _reading(file):
                self.checksums[file] = sha256(file)
        checksum = self.checksums[file] if file is not None else _frames_checksum(video)
        known: dict[str, Any] = {
            "name": video.name,
            "fps": video.fps,
            "shape": list(video.shape),
            "sha256": checksum,
            "cached": file is None or self.cache_frames,
        }
        if file is not None:
            known["path"] = str(file)
            known["path_from_store"] = os.path.relpath(file, self.target.resolve())
        folder = self.partial / "stimuli" / f"{_stimulus_key(video.name)}.{checksum}"
        if _done(folder) != known:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            group = zarr.create_group(folder / "group", zarr_format=3, attributes=known)
            if known["cached"]:
                _write_frames(group, video)
            write_text(folder / "done.json", json.dumps(known))
        return known

    def finish(self) -> Path:
        """Put the store together from the finished runs and return where it lies."""
        store = self.partial / "store"
        shutil.rmtree(store, ignore_errors=True)
        root = zarr.create_group(store, zarr_format=3)
        left_out: dict[str, dict[str, int]] = {}
        table: list[dict[str, Any]] = []
        stimuli: dict[str, dict[str, Any]] = {}
        for subject in self.study.subjects:
            sources = [each for each in self.study.runs if each.subject == subject]
            folders = [self.folder(each) for each in sources]
            bad = [np.load(folder / "bad.npy") for folder in folders]
            good, left_out[subject] = say_bad_voxels(bad, subject, self.study.name)
            group = root.create_group(_subject_key(subject))
            space = _read_space(zarr.open_group(folders[0] / "space", mode="r"))
            _write_space(group, space.take(good), np.flatnonzero(good))
            for source, folder in zip(sources, folders, strict=True):
                goal = store / _subject_key(subject) / _run_key(source.run)
                _copy_run(folder / "run", goal, good)
                done = _done(folder)
                keys = {"subject": subject, "run": source.run, "fingerprint": done["fingerprint"]}
                table.append(keys | {"trs": done["trs"], "tr_s": done["tr_s"], "voxels": int(good.sum())})
                if done["video"] is not None:
                    self._gather(stimuli, done["video"])
        root.create_group("stimuli")
        for name, known in stimuli.items():
            folder = self.partial / "stimuli" / f"{_stimulus_key(name)}.{known['sha256']}"
            _link_tree(folder / "group", store / "stimuli" / _stimulus_key(name))
        _write_table(root, table)
        sources_by_name = {str(file): checksum for file, checksum in sorted(self.checksums.items())}
        provenance = {
            "sources": sources_by_name,
            "versions": versions(),
            "config": json.loads(json.dumps(dict(self.study.config), default=str)),
            "voxels_left_out": left_out,
        }
        root.attrs.update({"neuroreel_store": FORMAT, **_about(self.study), "runs": table, "provenance": provenance})
        _consolidate(store)
        return store

    def _gather(self, stimuli: dict[str, dict[str, Any]], known: dict[str, Any]) -> None:
        other = stimuli.setdefault(known["name"], known)
        same = other["sha256"] == known["sha256"]
        rule = "must be the same pictures in every run"
        checks.require(same, f"stimulus {known['name']}", rule, "two checksums", self.study.name)
        if "path" in known:
            self.checksums[Path(known["path"])] = known["sha256"]


def _about(study: Study) -> dict[str, Any]:
    return {
        "name": study.name,
        "window": study.window.model_dump(mode="json"),
        "splits": {name: split.model_dump(mode="json") for name, split in study.splits.items()},
        "licence": study.licence,
        "citation": study.citation,
        "address": study.address,
    }


def _write_run(group: zarr.Group, run: Run) -> None:
    bold = run.bold
    group.attrs.update(
        {
            "subject": bold.subject,
            "run": bold.run,
            "tr_s": bold.tr_s,
            "start_s": bold.start_s,
            "stimulus": run.stimulus,
            "video": None if run.video is None else run.video.name,
            "video_start_s": None if run.video is None else run.video.start_s,
        }
    )
    _write_bold(group, bold.data, np.arange(bold.space.size))
    _put(group, "time", bold.start_s + bold.tr_s * np.arange(bold.n_trs), ("time",), {"units": "seconds"})
    _put(group, "event_onset_s", np.array([event.onset_s for event in run.events]), ("event",))
    _put(group, "event_duration_s", np.array([event.duration_s for event in run.events]), ("event",))
    for name in _EVENT_TEXTS:
        _put(group, f"event_{name}", _text([getattr(event, name) for event in run.events]), ("event",))
    if run.confounds:
        values = np.stack([np.asarray(column, dtype=np.float64) for column in run.confounds.values()], axis=1)
        _put(group, "confounds", values, ("time", "confound"))
        _put(group, "confound", _text(list(run.confounds)), ("confound",))


def _write_bold(group: zarr.Group, data: np.ndarray, columns: np.ndarray) -> None:
    chunks = (max(1, min(CHUNK[0], data.shape[0])), max(1, min(CHUNK[1], data.shape[1])))
    _put(group, "bold", np.asarray(data, dtype=np.float32), ("time", "voxel"), {"long_name": "BOLD"}, chunks)
    _put(group, "voxel", columns, ("voxel",), {"long_name": "column in the source"})


def _write_space(group: zarr.Group, space: Space, columns: np.ndarray) -> None:
    affine = None if space.affine is None else np.asarray(space.affine, dtype=float).tolist()
    group.attrs.update({"kind": space.kind, "template": space.template, "affine": affine, "size": space.size})
    _put(group, "voxel", columns, ("voxel",), {"long_name": "column in the source"})
    if space.index is not None:
        _put(group, "index", np.asarray(space.index), ("voxel", "axis")[: space.index.ndim])
    if space.hemisphere is not None:
        _put(group, "hemisphere", _text([str(side) for side in space.hemisphere]), ("voxel",))
    for name, kind, columns_of in (("roi", bool, space.rois), ("measure", np.float64, space.measures)):
        if columns_of:
            values = np.stack([np.asarray(each, dtype=kind) for each in columns_of.values()])
            _put(group, f"{name}_{'mask' if name == 'roi' else 'value'}", values, (name, "voxel"))
            _put(group, name, _text(list(columns_of)), (name,))


def _write_frames(group: zarr.Group, video: Video) -> None:
    count, height, width, _ = video.shape
    step = max(1, min(count, CHUNK_BYTES // (height * width * 3)))
    array = group.create_array(
        "frames",
        shape=video.shape,
        chunks=(step, height, width, 3),
        dtype=np.uint8,
        compressors=ZstdCodec(level=3, checksum=True),
        dimension_names=("frame", "y", "x", "rgb"),
        config={"write_empty_chunks": True},
    )
    for start in range(0, count, step):
        array[start : start + step] = video.frames(start, min(start + step, count))


def _write_table(root: zarr.Group, table: Sequence[Mapping[str, Any]]) -> None:
    for name in ("subject", "run"):
        _put(root, name, _text([row[name] for row in table]), ("entry",))
    for name in ("trs", "tr_s", "voxels"):
        _put(root, name, np.array([row[name] for row in table]), ("entry",))


def _put(
    group: zarr.Group,
    name: str,
    values: np.ndarray,
    axes: tuple[str, ...],
    attrs: Mapping[str, Any] | None = None,
    chunks: tuple[int, ...] | None = None,
) -> None:
    """Write an array with the names of its axes; every chunk is written, so that a missing one is damage."""
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks or tuple(max(1, n) for n in values.shape),
        compressors=ZstdCodec(level=1, checksum=True),
        dimension_names=axes,
        attributes=dict(attrs or {}),
        config={"write_empty_chunks": True},
    )
    if values.size:
        array[...] = values


def _consolidate(folder: Path) -> None:
    """Put the metadata of all beneath a group into it, so that it opens at once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(folder)


def _text(values: Sequence[str]) -> np.ndarray:
    return np.array(list(values), dtype=np.dtypes.StringDType())


def _copy_run(source: Path, goal: Path, good: np.ndarray) -> None:
    """Link a run's files into the store; its BOLD is written anew if voxels are left out."""
    if good.all():
        _link_tree(source, goal)
        return
    _link_tree(source, goal, leave_out=("bold", "voxel"))
    data = _array(zarr.open_group(source, mode="r"), "bold")
    _write_bold(zarr.open_group(goal, mode="a"), np.asarray(data[...])[:, good], np.flatnonzero(good))


def _link_tree(source: Path, goal: Path, leave_out: Sequence[str] = ()) -> None:
    def link(file: str, copy: str) -> None:
        if Path(file).name == "zarr.json":  # metadata is rewritten in place later, so the copy has to be its own
            shutil.copyfile(file, copy)
            return
        try:
            os.link(file, copy)
        except OSError:
            shutil.copyfile(file, copy)

    shutil.copytree(source, goal, copy_function=link, ignore=lambda folder, names: set(leave_out) & set(names))


def _frames_checksum(video: Video) -> str:
    digest = hashlib.sha256(repr((video.shape, video.fps)).encode())
    for start in range(0, video.shape[0], 256):
        digest.update(np.ascontiguousarray(video.frames(start, min(start + 256, video.shape[0]))).tobytes())
    return digest.hexdigest()


def _places(space: Space) -> str:
    digest = hashlib.sha256(f"{space.kind} {space.template} {space.size}".encode())
    if space.index is not None:
        digest.update(np.ascontiguousarray(space.index, dtype=np.int64).tobytes())
    if space.hemisphere is not None:
        digest.update("".join(str(side) for side in space.hemisphere).encode())
    return digest.hexdigest()


def _done(folder: Path) -> dict[str, Any]:
    """Return what was noted when a folder was finished; empty if it isn't."""
    try:
        return dict(json.loads((folder / "done.json").read_text()))
    except (OSError, ValueError):
        return {}


@contextlib.contextmanager
def _reading(source: Path | str) -> Iterator[None]:
    """Tell an error of reading from one of writing."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise DataError(checks.sentence("source file", "must be readable", reason, source)) from error


@contextlib.contextmanager
def _alone(partial: Path, target: Path) -> Iterator[None]:
    """Hold the partial folder; a second writer of the same store is refused."""
    partial.mkdir(parents=True, exist_ok=True)
    with (partial / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            rule = "must be written by one process at a time"
            raise _BusyError(checks.sentence("store", rule, "another one at work", target)) from None
        yield


class _BusyError(DataError):
    """Another process holds the partial folder, which must be left alone."""


def _swap(store: Path, target: Path) -> None:
    """Give the finished store the target's name; an older one there goes only then."""
    old = _old(target)
    if target.exists():
        target.rename(old)
    store.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _undo_half_a_swap(target: Path) -> None:
    old = _old(target)
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _refuse_what_is_no_store(target: Path) -> None:
    if not target.exists():
        return
    empty = target.is_dir() and not any(target.iterdir())
    if empty:
        return
    try:
        _open(target)
    except StoreError:
        ours = (target / "zarr.json").is_file() and '"neuroreel_store"' in (target / "zarr.json").read_text()
        rule = "must be a new name or an older store, which is replaced"
        checks.require(ours, "output", rule, "something else that exists", target, StoreError)


# ---------------------------------------------------------------------------------------------------------------------
# Reading


class _StoredFrames:
    """Reads ranges of frames that are kept in a store."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def __call__(self, start: int, stop: int) -> np.ndarray:
        with _damage(self.path):
            return np.asarray(_array(zarr.open_group(self.path, path=self.key, mode="r"), "frames")[start:stop])


def _open(path: Path) -> zarr.Group:
    half = path.with_name(f".{path.name}.partial")
    got = "a half-written one, run prepare again to go on" if half.exists() else "nothing there"
    rule = "must be a folder that `neuroreel prepare` made"
    checks.require(path.exists(), "store", rule, got, path, StoreError)
    file = path / "zarr.json"
    checks.require(file.is_file(), "store", rule, "no Zarr v3 group", path, StoreError)
    with _damage(path):
        root = zarr.open_group(path, mode="r")
        version = _attrs(root).get("neuroreel_store")
    checks.require(version == FORMAT, "store", f"must have layout {FORMAT} of neuroreel", version, path, StoreError)
    return root


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Say in one sentence that a store is damaged, whatever the libraries beneath raise."""
    try:
        yield
    except NeuroreelError:
        raise
    except Exception as error:
        raise StoreError(checks.sentence("store", "must be whole", type(error).__name__, path)) from error


def _attrs(group: zarr.Group) -> dict[str, Any]:
    return dict(group.attrs)


def _child(group: zarr.Group, key: str) -> zarr.Group:
    child = group[key]
    if not isinstance(child, zarr.Group):
        raise TypeError(key)
    return child


def _array(group: zarr.Group, key: str) -> zarr.Array:
    child = group[key]
    if not isinstance(child, zarr.Array):
        raise TypeError(key)
    missing = child.nchunks - child.nchunks_initialized
    checks.require(missing == 0, f"{key} in the store", "must be whole", f"{missing} chunks missing", error=StoreError)
    return child


def _values(group: zarr.Group, key: str) -> np.ndarray:
    child = group[key]
    return np.asarray(_array(group, key)[...]) if isinstance(child, zarr.Array) and child.size else np.empty(0)


def _read_space(group: zarr.Group) -> Space:
    attrs = _attrs(group)
    named: dict[str, dict[str, np.ndarray]] = {}
    for name, values in (("roi", "roi_mask"), ("measure", "measure_value")):
        found = name in group
        named[name] = (
            {str(key): row for key, row in zip(_values(group, name), _values(group, values), strict=True)}
            if found
            else {}
        )
    affine = attrs["affine"]
    return Space(
        kind=attrs["kind"],
        size=attrs["size"],
        index=_values(group, "index") if "index" in group else None,
        affine=None if affine is None else np.array(affine, dtype=float),
        hemisphere=np.array([str(side) for side in _values(group, "hemisphere")]) if "hemisphere" in group else None,
        template=attrs["template"],
        rois=named["roi"],
        measures=named["measure"],
    )


def _read_run(root: zarr.Group, path: Path, subject: str, name: str, space: Space) -> Run:
    group = _child(root, f"{_subject_key(subject)}/{_run_key(name)}")
    attrs = _attrs(group)
    bold = Bold(_values(group, "bold"), attrs["tr_s"], space, subject, name, attrs["start_s"])
    columns = [_values(group, f"event_{key}") for key in ("onset_s", "duration_s", *_EVENT_TEXTS)]
    events = tuple(
        Event(float(on), float(long), str(a), str(b), str(c)) for on, long, a, b, c in zip(*columns, strict=True)
    )
    confounds: dict[str, np.ndarray] = {}
    if "confounds" in group:
        values = _values(group, "confounds")
        confounds = {str(key): values[:, column] for column, key in enumerate(_values(group, "confound"))}
    video = None
    if attrs["video"] is not None:
        video = _read_video(root, path, attrs["video"], attrs["video_start_s"])
    return Run(bold, attrs["stimulus"], video, events, confounds)


def _read_video(root: zarr.Group, path: Path, name: str, start_s: float) -> Video:
    key = f"stimuli/{_stimulus_key(name)}"
    known = _attrs(_child(root, key))
    read: Callable[[int, int], np.ndarray] = _StoredFrames(path, key)
    if not known["cached"]:
        beside = Path(os.path.normpath(path.resolve() / known["path_from_store"]))
        read = FileFrames(beside if beside.is_file() else Path(known["path"]), known["sha256"])
    count, height, width, colours = known["shape"]
    return Video(name, known["fps"], (count, height, width, colours), read, start_s)


def _subject_key(subject: str) -> str:
    return f"sub-{quote(subject, safe=' ')}"


def _run_key(run: str) -> str:
    return f"run-{quote(run, safe=' ')}"


def _stimulus_key(name: str) -> str:
    return f"stimulus-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
