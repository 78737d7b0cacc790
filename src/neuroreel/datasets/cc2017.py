"""CC2017: three subjects who watched 18 + 5 movie segments of 8 minutes, as the files are published.

    video_fmri_dataset/stimuli/{seg1..18,test1..5}.mp4
    video_fmri_dataset/subject{1,2,3}/fmri/{seg1..18,test1..5}/cifti/seg1_1_Atlas.dtseries.nii
    video_fmri_dataset/subject{1,2,3}/fmri/{seg1..18,test1..5}/mni/seg1_1_mni.nii.gz
    video_fmri_dataset/subject{1,2,3}/fmri/training_fmri.mat, testing_fmri.mat     what the authors' script writes

**The clock.** Recording began 2 s after the movie (245 volumes: segments and test1) or with it (246: test2 to test5).
The published rule drops the first 1 or 2 volumes and the last 4, which leaves 240, of which number i was taken at movie
time 4 + 2 i seconds. Whoever pairs row i of what is left with the movie at 2 i has shifted by 4 s already: 4 s more
counts the haemodynamic lag twice. Here nothing is shifted: `Bold.start_s` is 4.0 on the movie's clock, and the default
window takes the volume 4 s after a clip's onset, which is that same row. A response function is sampled at the volumes'
own times, without another lag.

TR is 2.0 s whatever the headers say.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from pydantic import Field

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import DataError, NeuroreelWarning
from neuroreel.core.sets import Segment, Split, Window
from neuroreel.core.study import RunSource, Study
from neuroreel.core.types import Bold, Run, Space, Video
from neuroreel.core.video import open_video
from neuroreel.datasets.bids_images import (
    CORTICAL,
    cifti_volumes,
    load,
    read_cortex_32k,
    read_mask,
    read_volumes,
    volume_space,
    whole,
)
from neuroreel.datasets.cards import Card

TR_S = 2.0
START_S = 4.0
"""Movie time of the first volume that is kept."""
VOLUMES = 240
FIRST_KEPT: Mapping[int, int] = {245: 1, 246: 2}
"""Volumes that are dropped at the beginning, by the number in the file; the last 4 always are."""
TRAIN, TEST = "seg", "test"
SEGMENTS: Mapping[str, tuple[int, int]] = {TRAIN: (18, 2), TEST: (5, 10)}
"""Number of segments and of repeats of each."""
LATE = ("3", "test2_9")
"""The recording began about 10 s after the movie, says the authors' README."""

NAMES: Mapping[str, re.Pattern[str]] = {
    "cifti": re.compile(r"(seg|test)0*(\d+)[_.-]0*(\d+)[_.-]Atlas[\w.-]*?\.dtseries\.nii", re.IGNORECASE),
    "mni": re.compile(r"(seg|test)0*(\d+)[_.-]0*(\d+)[_.-]mni\.nii(\.gz)?", re.IGNORECASE),
}
USUAL: Mapping[str, str] = {"cifti": "{run}_Atlas.dtseries.nii", "mni": "{run}_mni.nii.gz"}
MAT: Mapping[str, tuple[str, str]] = {TRAIN: ("training_fmri.mat", "fmri"), TEST: ("testing_fmri.mat", "fmritest")}

CARD = Card(
    name="cc2017",
    title="CC2017: three subjects, 11.5 hours of natural movies (Wen et al. 2018)",
    address="https://engineering.purdue.edu/libi/lab/Resource.html",
    folder="cc2017",
    files={},
    licence="as each archive's page at PURR says",
    citation="Wen, Shi, Zhang, Lu, Cao and Liu (2018), Cerebral Cortex 28:4136-4160",
    subjects=3,
    runs=86,
    trs=VOLUMES,
    voxels=CORTICAL,
    tr_s=TR_S,
    notes="One archive for each subject (doi 10.4231/R7X63K3M, R7NS0S1F and R7J101BV, some 15 GB each) and one for the "
    "movies (10.4231/R71Z42KK), which can't be fetched file by file. Unpack them beside each other, the bundle.zip "
    "within each too, and say where: neuroreel prepare cc2017 out.zarr --set folder=/path.",
    by_hand=True,
)


class Cc2017Choice(Config):
    """What is read of CC2017.

    Attributes
    ----------
    data : "cifti" (59,412 cortical vertices of 91,282 grayordinates), "mni" (volumes), or "mat" (what the authors'
        script writes: cortical vertices, detrended and z-scored already).
    subjects : numbers of the subjects; empty for all that are there.
    segments : names of segments (`seg1`, `test5`); empty for all that are there.
    videos : read the movies too.
    mask : with "mni", a NIfTI whose voxels above 0 are read; empty for those that aren't 0 in the first volume.
    late : read subject 3's run test2_9 too, whose recording began about 10 s after the movie.
    """

    data: Literal["cifti", "mni", "mat"] = "cifti"
    subjects: tuple[int, ...] = ()
    segments: tuple[str, ...] = ()
    videos: bool = True
    mask: str = Field(default="")
    late: bool = False


@dataclass(frozen=True)
class _Found:
    """One run that is there: where, and which of its volumes are kept (None where they are trimmed already)."""

    subject: str
    segment: str
    repeat: int
    file: Path
    read: Callable[[Path], tuple[np.ndarray, Space]]
    first: int | None

    @property
    def run(self) -> str:
        return f"{self.segment}_{self.repeat}"


def cc2017_study(folder: Path, **settings: Any) -> Study:
    """Return the study of a folder that holds `video_fmri_dataset`, one or more, run by run and not yet read.

    A run whose file is missing, cut off or of another length is named in a warning and left out, and so is a segment
    whose movie is. Damage deeper in a file shows when the run is read. The split "published" fits on the segments
    `seg*` and tests on `test*`.

    Parameters
    ----------
    folder : the folder `video_fmri_dataset`, or one that has it up to three levels below: the archives of the three
        subjects may lie beside each other as they were unpacked.
    settings : those of `Cc2017Choice`.

    Raises
    ------
    DataError
        If no run is left; what was looked for is listed.
    ConfigError
        For an unknown setting, subject or segment.
    """
    choice = Cc2017Choice.build(settings, CARD.name)
    roots = _roots(Path(folder))
    wanted = _wanted_segments(choice)
    said: list[str] = []
    found: list[_Found] = []
    for number in choice.subjects or range(1, CARD.subjects + 1):
        homes = [root / f"subject{number}" / "fmri" for root in roots]
        homes = [home for home in homes if home.is_dir()]
        if not homes:
            if choice.subjects:
                said.append(f"subject{number} (no folder)")
            continue
        reader = _from_mat if choice.data == "mat" else _from_images
        found += reader(str(number), homes, wanted, choice, said)
    videos = _videos(roots, {one.segment for one in found}, said) if choice.videos else {}
    if choice.videos:
        found = [one for one in found if one.segment in videos]
    looked = f"subject{{1,2,3}}/fmri/{_pattern(choice.data)} of {', '.join(wanted[:2])}, ..., {wanted[-1]}"
    rule = f"must have 1 run or more that is whole, looked for {looked}"
    got = f"none ({'; '.join(said[:6])})" if said else "none"
    checks.require(bool(found), "runs of cc2017", rule, got, folder)
    if said:
        rule = "must all be whole, the others are left out"
        more = f" and {len(said) - 12} more" if len(said) > 12 else ""
        warnings.warn(
            checks.sentence("runs of cc2017", rule, "; ".join(said[:12]) + more, folder), NeuroreelWarning, stacklevel=2
        )
    sources = tuple(
        RunSource(one.subject, one.run, partial(_read, one, videos.get(one.segment)), _files(one, videos))
        for one in found
    )
    splits = _published(found)
    window = Window(clip_s=TR_S, frames=4, height=112, width=112, first_lag_s=START_S, trs=1, blocks="time")
    config = choice.model_dump(mode="json") | {"left_out": said}
    return Study(CARD.name, sources, window, splits, CARD.licence, CARD.citation, CARD.address, config)


def trim(data: np.ndarray, source: str | Path | None = None) -> np.ndarray:
    """Return the 240 volumes of a run that the published rule keeps, (240, voxels); the first at movie time 4 s.

    Raises
    ------
    DataError
        If there are neither 245 nor 246 volumes.
    """
    first = _first_kept(len(data), source)
    return data[first : first + VOLUMES]


def _first_kept(volumes: int, source: str | Path | None) -> int:
    known = " or ".join(str(count) for count in FIRST_KEPT)
    checks.require(volumes in FIRST_KEPT, "volumes", f"must be {known}", volumes, source)
    return FIRST_KEPT[volumes]


# ---------------------------------------------------------------------------------------------------------------------
# Finding


def _roots(folder: Path) -> list[Path]:
    """Return every `video_fmri_dataset` in a folder, or the folder itself if it has subjects."""
    checks.require(folder.is_dir(), "folder of cc2017", "must be a folder that exists", repr(str(folder)))
    if any(folder.glob("subject[0-9]*")):
        return [folder]
    name = "video_fmri_dataset"
    roots = [path for depth in range(4) for path in sorted(folder.glob("*/" * depth + name)) if path.is_dir()]
    rule = f"must hold {name}/ or be it, with subject1/, subject2/ or subject3/ in it"
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "an empty folder"
    checks.require(bool(roots), "folder of cc2017", rule, there, folder)
    return roots


def _wanted_segments(choice: Cc2017Choice) -> list[str]:
    known = [f"{kind}{number + 1}" for kind, (count, _) in SEGMENTS.items() for number in range(count)]
    for segment in choice.segments:
        checks.one_of("segment", segment, known)
    for number in choice.subjects:
        checks.one_of("subject", str(number), [str(each + 1) for each in range(CARD.subjects)])
    return [segment for segment in known if not choice.segments or segment in choice.segments]


def _repeats(segment: str) -> int:
    return SEGMENTS[TEST if segment.startswith(TEST) else TRAIN][1]


def _pattern(data: str) -> str:
    return "{training,testing}_fmri.mat" if data == "mat" else f"SEGMENT/{data}/{USUAL[data].format(run='SEGMENT_N')}"


def _from_images(
    subject: str, homes: Sequence[Path], wanted: Sequence[str], choice: Cc2017Choice, said: list[str]
) -> list[_Found]:
    """Return the runs of one subject whose files are whole, and say which aren't."""
    found: list[_Found] = []
    mask: _Mask | None = None
    renamed = []
    for segment in wanted:
        folders = [home / segment / choice.data for home in homes if (home / segment / choice.data).is_dir()]
        files = _named(folders, choice.data, segment)
        for repeat in range(1, _repeats(segment) + 1):
            run = f"{segment}_{repeat}"
            if (subject, run) == LATE and not choice.late:
                said.append(f"subject{subject} {run} (recorded about 10 s late)")
                continue
            file = files.get(repeat)
            if file is None:
                said.append(f"subject{subject} {run} (missing)")
                continue
            try:
                first = _first_kept(_volumes(file, choice.data), file)
            except DataError as error:
                said.append(f"subject{subject} {run} (broken: {error})")
                continue
            reader: Callable[[Path], tuple[np.ndarray, Space]] = _read_surface
            if choice.data == "mni":
                mask = mask or _Mask(file, Path(choice.mask) if choice.mask else None)
                reader = partial(_read_volume, mask)
            found.append(_Found(subject, segment, repeat, file, reader, first))
            if file.name != USUAL[choice.data].format(run=run):
                renamed.append(f"subject{subject} {file.name} as {run}")
    if renamed:
        rule = f"are read though not named as the others ({USUAL[choice.data].format(run='SEGMENT_N')})"
        warnings.warn(checks.sentence("files", rule, ", ".join(renamed), homes[0]), NeuroreelWarning, stacklevel=4)
    return found


def _named(folders: Sequence[Path], data: str, segment: str) -> dict[int, Path]:
    """Return the files of a segment by the number of the repeat; the usual name wins over an odd one."""
    files: dict[int, Path] = {}
    for file in (each for folder in folders for each in sorted(folder.iterdir())):
        match = NAMES[data].fullmatch(file.name)
        if match is None or f"{match[1].lower()}{match[2]}" != segment:
            continue
        repeat = int(match[3])
        usual = file.name == USUAL[data].format(run=f"{segment}_{repeat}")
        if usual or repeat not in files:
            files[repeat] = file
    return files


def _volumes(file: Path, data: str) -> int:
    """Return the number of volumes of a file that ends where its header says it must."""
    if data == "cifti":
        return cifti_volumes(file)
    image = load(file, nibabel.Nifti1Image, "BOLD")
    checks.require(len(image.shape) == 4, "BOLD", "must have the axes (x, y, z, trs)", f"shape {image.shape}", file)
    size = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    packed = file.suffix == ".gz"
    there = _said_size(file) if packed else file.stat().st_size
    if there != size % 2**32 if packed else there < size:
        with whole(file, "BOLD"):  # what is cut off can't be read to its end; what was packed in several pieces can
            image.dataobj[..., -1]
    return int(image.shape[3])


def _said_size(file: Path) -> int:
    """Return the size, modulo 2^32, that a gzip file says at its end it has unpacked (RFC 1952, section 2.3.1)."""
    with file.open("rb") as stream:
        stream.seek(-4, 2)  # it has a header, or it wouldn't have been loaded
        return int(struct.unpack("<I", stream.read(4))[0])


def _from_mat(
    subject: str, homes: Sequence[Path], wanted: Sequence[str], choice: Cc2017Choice, said: list[str]
) -> list[_Found]:
    """Return the runs of one subject that the authors' script put into its two files."""
    found: list[_Found] = []
    for kind, (name, variable) in MAT.items():
        segments = [segment for segment in wanted if segment.startswith(kind)]
        file = next((home / name for home in homes if (home / name).is_file()), None)
        if not segments:
            continue
        if file is None:
            said.append(f"subject{subject} {name} (missing)")
            continue
        held = _MatFile(file, variable, kind)
        try:
            counts = held.repeats()
        except DataError as error:
            said.append(f"subject{subject} {name} (broken: {error})")
            continue
        for segment in segments:
            for repeat in range(1, _repeats(segment) + 1):
                run = f"{segment}_{repeat}"
                if (subject, run) == LATE and not choice.late:
                    said.append(f"subject{subject} {run} (recorded about 10 s late)")
                elif repeat > counts.get(segment, 0):
                    said.append(f"subject{subject} {run} (missing)")
                else:
                    reader = partial(held.read, segment, repeat)
                    found.append(_Found(subject, segment, repeat, file, reader, None))
    return found


def _videos(roots: Sequence[Path], segments: set[str], said: list[str]) -> dict[str, Path]:
    """Return the movie of every segment that has one of 480 s, and say which haven't."""
    videos = {}
    for segment in sorted(segments, key=lambda name: (name.rstrip("0123456789"), int(re.sub(r"\D", "", name)))):
        places = [root / "stimuli" / f"{segment}.mp4" for root in roots]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            said.append(f"{segment} (no stimuli/{segment}.mp4; videos=false reads the runs without)")
            continue
        try:
            video = open_video(file)
            length_s = video.shape[0] / video.fps
            right = abs(length_s - VOLUMES * TR_S) < TR_S
            checks.require(right, "movie", f"must last {VOLUMES * TR_S:g} s", f"{length_s:g} s", file)
        except DataError as error:
            said.append(f"{segment} (broken: {error})")
            continue
        videos[segment] = file
    return videos


def _published(found: Sequence[_Found]) -> dict[str, Split]:
    """Return the published split of the runs that are there; none where a side is empty."""
    runs = dict.fromkeys(one.run for one in found)
    sides = [tuple(Segment(run=run) for run in runs if run.startswith(kind)) for kind in (TRAIN, TEST)]
    if not all(sides):
        return {}
    split = Split(
        name="published",
        reason="the segments seg1-18, shown twice, are fitted; test1-5, shown ten times, are tested, as published",
        train=sides[0],
        test=sides[1],
    )
    return {split.name: split}


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def _files(one: _Found, videos: Mapping[str, Path]) -> tuple[Path, ...]:
    return (one.file, videos[one.segment]) if one.segment in videos else (one.file,)


def _read(one: _Found, movie: Path | None) -> Run:
    data, space = one.read(one.file)
    data = data if one.first is None else trim(data, one.file)
    checks.require(len(data) == VOLUMES, "volumes", f"must be {VOLUMES}", len(data), one.file)
    bold = Bold(np.ascontiguousarray(data), TR_S, space, one.subject, one.run, start_s=START_S)
    video: Video | None = None if movie is None else open_video(movie, name=one.segment)
    return Run(bold, one.segment, video)


def _read_surface(file: Path) -> tuple[np.ndarray, Space]:
    data, space, _ = read_cortex_32k(file)
    return data, space


class _Mask:
    """The voxels of a subject's volumes: of a mask's file, or those that aren't 0 in the first volume of a run."""

    def __init__(self, file: Path, mask: Path | None) -> None:
        self.file, self.mask = file, mask

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        return self._voxels

    @cached_property
    def _voxels(self) -> tuple[np.ndarray, np.ndarray]:
        if self.mask is not None:
            return read_mask([self.mask])
        image = load(self.file, nibabel.Nifti1Image, "BOLD")
        with whole(self.file, "BOLD"):
            seen = np.asarray(image.dataobj[..., 0]) != 0
        checks.require(bool(seen.any()), "BOLD", "must have voxels that aren't 0", "none", self.file)
        return seen, np.asarray(image.affine, dtype=np.float64)


def _read_volume(mask: Callable[[], tuple[np.ndarray, np.ndarray]], file: Path) -> tuple[np.ndarray, Space]:
    voxels, affine = mask()
    data, _ = read_volumes(file, voxels, affine)
    return data, volume_space(voxels, affine, "MNI152")


class _MatFile:
    """One of the two files of the authors' script: v5, read whole and kept, or v7.3, read run by run.

    `training_fmri.mat` has fmri.data1 and fmri.data2, one for each repeat, (vertices, volumes, segments);
    `testing_fmri.mat` has fmritest.test1 to .test5, (vertices, volumes, repeats).
    """

    def __init__(self, file: Path, variable: str, kind: str) -> None:
        self.file, self.variable, self.kind = file, variable, kind

    def repeats(self) -> dict[str, int]:
        """Return how many repeats of each segment are in the file."""
        shapes = self._shapes()
        if self.kind == TEST:
            return {name: shape[2] if len(shape) == 3 else 1 for name, shape in shapes.items()}
        counts: dict[str, int] = {}
        for repeat in ("data1", "data2"):
            shape = shapes.get(repeat, (0, 0, 0))
            for number in range(shape[2] if len(shape) == 3 else 1):
                counts[f"{TRAIN}{number + 1}"] = counts.get(f"{TRAIN}{number + 1}", 0) + 1
        return counts

    def read(self, segment: str, repeat: int, file: Path) -> tuple[np.ndarray, Space]:
        """Return one run, (240, vertices)."""
        number = int(segment.removeprefix(self.kind))
        name, place = (segment, repeat - 1) if self.kind == TEST else (f"data{repeat}", number - 1)
        with whole(file, "MATLAB file"):
            if self._is_v73:
                import h5py

                with h5py.File(file, "r") as opened:
                    values: Any = opened[self.variable][name]
                    data = np.asarray(values[place])  # (volumes, vertices): HDF5 has MATLAB's axes the other way round
            else:
                data = np.atleast_3d(self._struct[name])[:, :, place].T
        data = np.asarray(data, dtype=np.float32)
        return data, _cortex_columns(data.shape[1])

    @cached_property
    def _is_v73(self) -> bool:
        import h5py

        return bool(h5py.is_hdf5(self.file))

    @cached_property
    def _struct(self) -> dict[str, np.ndarray]:
        from scipy import io

        try:
            held = io.loadmat(self.file, variable_names=[self.variable], squeeze_me=False)
        except (io.matlab.MatReadError, NotImplementedError) as error:
            raise ValueError(str(error)) from error
        if self.variable not in held:
            raise LookupError(f"no variable {self.variable}")
        record = held[self.variable]
        return {name: np.asarray(record[name].ravel()[0]) for name in record.dtype.names or ()}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every field in MATLAB's order of axes."""
        with whole(self.file, "MATLAB file"):
            if not self._is_v73:
                return {name: values.shape for name, values in self._struct.items()}
            import h5py

            with h5py.File(self.file, "r") as opened:
                group: Any = opened[self.variable]
                return {name: tuple(group[name].shape[::-1]) for name in group}


def _cortex_columns(vertices: int) -> Space:
    """Return the space of the first columns of the grayordinates: the vertices aren't in the file."""
    return Space("columns", vertices, template="fsLR" if vertices == CORTICAL else "")
