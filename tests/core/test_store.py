import errno
import json
import os
import random
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from neuroreel.core.errors import ConfigError, DataError, NeuroreelWarning, StoreError
from neuroreel.core.seeds import generator
from neuroreel.core.sets import Window
from neuroreel.core.store import read_derived, read_store, write_derived, write_store
from neuroreel.core.study import RunSource, Study, leave_one_run_out
from neuroreel.core.types import Bold, Dataset, Event, Recording, Run, Space, Video
from neuroreel.core.video import open_video, write_video


def make_run(name: str, subject: str = "01", voxels: int = 30, trs: int = 20, video: Video | None = None) -> Run:
    data = generator(0, subject, name).normal(size=(trs, voxels)).astype(np.float32)
    space = Space(
        "volume",
        voxels,
        index=np.stack([np.arange(voxels)] * 3, axis=1),
        affine=np.diag([2.0, 2, 2, 1]),
        rois={"V1": np.arange(voxels) < 10},
        measures={"r2": np.linspace(0, 1, voxels)},
    )
    events = (Event(0.0, 6.0, "face", "a face, smiling", "face-1"), Event(8.0, 6.0, "Käse"))
    confounds = {"trans_x": np.arange(trs) / 7, "fd": np.r_[np.nan, np.ones(trs - 1)]}
    return Run(Bold(data, 1.5, space, subject, name, 0.5), f"movie-{name}", video, events, confounds)


def make_dataset(*runs: Run) -> Dataset:
    subjects = dict.fromkeys(run.bold.subject for run in runs)
    recordings = tuple(Recording("toy", s, tuple(run for run in runs if run.bold.subject == s)) for s in subjects)
    splits = leave_one_run_out(run.bold.run for run in runs)
    return Dataset("toy", recordings, Window(first_lag_s=3.0, trs=2), splits, "CC0", "Doe 2020", "https://example.org")


def moving_square(frames: int = 40) -> np.ndarray:
    movie = np.zeros((frames, 32, 48, 3), dtype=np.uint8)
    for number, frame in enumerate(movie):
        frame[8:24, number : number + 8] = 40 + 5 * number
    return movie


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    video = Video.from_frames(moving_square(), name="square", fps=4.0, start_s=0.5)
    wanted = make_dataset(make_run("1", video=video), make_run("a/../b"), make_run("1", subject="02 ü"))
    found = read_store(write_store(tmp_path / "toy.zarr", wanted))
    assert (found.name, found.window, found.splits) == (wanted.name, wanted.window, wanted.splits)
    assert [each.subject for each in found.recordings] == ["01", "02 ü"]
    a, b = found.recordings[0].run("a/../b"), wanted.recordings[0].run("a/../b")
    assert np.array_equal(a.bold.data, b.bold.data) and (a.bold.tr_s, a.bold.start_s) == (1.5, 0.5)
    assert a.events == b.events and a.stimulus == b.stimulus and a.video is None
    np.testing.assert_array_equal(a.confounds["fd"], b.confounds["fd"])
    assert np.array_equal(a.bold.space.index, b.bold.space.index)
    assert np.array_equal(a.bold.space.rois["V1"], b.bold.space.rois["V1"])
    assert np.array_equal(a.bold.space.measures["r2"], b.bold.space.measures["r2"])
    shown = found.recording("01").run("1").video
    assert shown is not None and (shown.fps, shown.start_s) == (4.0, 0.5)
    assert np.array_equal(shown.frames(7, 9), moving_square()[7:9])


@pytest.mark.filterwarnings("error")
def test_xarray_opens_the_store_and_each_run(tmp_path: Path) -> None:
    dataset = make_dataset(make_run("1"), make_run("2"))
    path = write_store(tmp_path / "toy.zarr", dataset)
    root = xr.open_zarr(path)
    assert root["run"].values.tolist() == ["1", "2"] and root["trs"].values.tolist() == [20, 20]
    run = xr.open_zarr(path, group="sub-01/run-2")
    assert run["bold"].dims == ("time", "voxel")
    assert set(run.coords) >= {"time", "voxel", "confound"} and run["time"].values[:2].tolist() == [0.5, 2.0]
    at = run["bold"].sel(time=5.0, voxel=[3, 4]).values
    assert np.array_equal(at, dataset.recordings[0].run("2").bold.data[3, 3:5])
    space = xr.open_zarr(path, group="sub-01")
    assert int(space["roi_mask"].sel(roi="V1").sum()) == 10


@pytest.mark.filterwarnings("error")
def test_what_is_made_of_the_stimuli_lies_in_the_store_and_goes_with_it(tmp_path: Path) -> None:
    path = write_store(tmp_path / "toy.zarr", make_dataset(make_run("1")))
    latents = np.random.default_rng(0).normal(size=(500, 6, 4, 16, 16)).astype(np.float32)
    assert read_derived(path, "key") is None
    write_derived(path, "key", {"latents": latents, "none": latents[:0]}, {"what": "latents"})
    found = read_derived(path, "key")
    assert found is not None and list(found) == ["latents", "none"]
    np.testing.assert_array_equal(found["latents"], latents)
    assert found["none"].shape == latents[:0].shape and found["none"].dtype == np.float32
    opened = xr.open_zarr(path / "derived" / "key")  # as a group by itself
    assert opened["latents"].encoding["chunks"][0] < 500 and dict(opened.sizes)["none_0"] == 0
    np.testing.assert_array_equal(opened["latents"][3].values, latents[3])
    assert read_store(path).name == "toy" and xr.open_zarr(path)["run"].values.tolist() == ["1"]
    write_store(path, make_dataset(make_run("1")))
    assert read_derived(path, "key") is not None
    write_store(path, make_dataset(make_run("2")))
    assert read_derived(path, "key") is None


def test_nothing_is_kept_where_there_is_no_store(tmp_path: Path) -> None:
    for ask in (lambda: read_derived(tmp_path / "x", "key"), lambda: write_derived(tmp_path / "x", "key", {}, {})):
        with pytest.raises(StoreError, match="must be a folder that `neuroreel prepare` made"):
            ask()
    assert not (tmp_path / "x").exists()


def test_bold_is_chunked_along_time_and_voxels(tmp_path: Path) -> None:
    path = write_store(tmp_path / "toy.zarr", make_dataset(make_run("1", voxels=5000, trs=600)))
    chunks = json.loads((path / "sub-01/run-1/bold/zarr.json").read_text())["chunk_grid"]["configuration"][
        "chunk_shape"
    ]
    assert chunks == [512, 2048]
    assert read_store(path).recordings[0].runs[0].bold.data.shape == (600, 5000)


def test_voxels_bad_in_one_run_are_left_out_of_all_and_said(tmp_path: Path) -> None:
    first, second = make_run("1"), make_run("2")
    first.bold.data[3, 4] = np.nan
    second.bold.data[:, 7] = 2.0
    second.bold.data[0, 9] = np.inf
    with pytest.warns(NeuroreelWarning, match=r"got 2 NaN or infinite and 1 constant of 30 \(toy\)$"):
        path = write_store(tmp_path / "toy.zarr", make_dataset(first, second))
    found = read_store(path)
    assert found.provenance["voxels_left_out"] == {"01": {"not_finite": 2, "constant": 1, "of": 30}}
    good = np.setdiff1d(np.arange(30), [4, 7, 9])
    for run, whole in zip(found.recordings[0].runs, (first, second), strict=True):
        assert np.array_equal(run.bold.data, whole.bold.data[:, good])
    assert found.recordings[0].space.rois["V1"].sum() == 7
    assert xr.open_zarr(path, group="sub-01/run-1")["voxel"].values.tolist() == good.tolist()


def test_a_subject_without_a_good_voxel_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    run = make_run("1", voxels=3)
    run.bold.data[:] = 1.0
    with pytest.raises(DataError, match=r"^voxels of sub-01 must be finite and vary, at least one, got 0 NaN"):
        write_store(tmp_path / "toy.zarr", make_dataset(run))
    assert list(tmp_path.iterdir()) == []


def test_runs_of_two_voxel_counts_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    runs = (make_run("1"), make_run("2", voxels=29))
    study = Study("toy", tuple(RunSource.of(run) for run in runs))
    with pytest.raises(DataError, match=r"^voxels of run 2 must be as many as in run 1 \(30\), got 29 \(sub-01\)$"):
        write_store(tmp_path / "toy.zarr", study)
    assert list(tmp_path.iterdir()) == []


def test_a_video_file_is_kept_by_reference_and_found_after_both_moved(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    file = tmp_path / "here" / "square.mp4"
    write_video(file, moving_square(), 4.0)
    run = make_run("1", video=open_video(file, 4.0))
    path = write_store(tmp_path / "here" / "toy.zarr", make_dataset(run))
    wanted = open_video(file).frames(10, 12)
    (tmp_path / "here").rename(tmp_path / "there")
    video = read_store(tmp_path / "there" / path.name).recordings[0].runs[0].video
    assert video is not None and np.array_equal(video.frames(10, 12), wanted)


def test_a_video_file_that_changed_or_went_is_said_when_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "square.mp4"
    write_video(file, moving_square(), 4.0)
    path = write_store(tmp_path / "toy.zarr", make_dataset(make_run("1", video=open_video(file))))
    write_video(file, moving_square()[::-1], 4.0)
    with pytest.raises(DataError, match=r"^video must be the file that was prepared, got another checksum"):
        read_store(path).recordings[0].runs[0].video.frames(0, 1)  # type: ignore[union-attr]
    file.unlink()
    with pytest.raises(DataError, match=r"^video must be a file that exists, got 'square.mp4'"):
        read_store(path).recordings[0].runs[0].video.frames(0, 1)  # type: ignore[union-attr]


def test_cached_frames_need_no_file(tmp_path: Path) -> None:
    file = tmp_path / "square.mp4"
    write_video(file, moving_square(), 4.0)
    wanted = open_video(file).frames()
    path = write_store(tmp_path / "toy.zarr", make_dataset(make_run("1", video=open_video(file))), cache_frames=True)
    file.unlink()
    video = read_store(path).recordings[0].runs[0].video
    assert video is not None and np.array_equal(video.frames(), wanted)


def test_one_name_for_two_stimuli_is_refused(tmp_path: Path) -> None:
    videos = [Video.from_frames(moving_square() + k, name="square", fps=4.0) for k in (0, 1)]
    runs = [make_run(str(k), video=video) for k, video in enumerate(videos)]
    with pytest.raises(DataError, match=r"^stimulus square must be the same pictures in every run, got two"):
        write_store(tmp_path / "toy.zarr", make_dataset(*runs))


def test_subjects_and_runs_can_be_chosen(tmp_path: Path) -> None:
    path = write_store(tmp_path / "t.zarr", make_dataset(make_run("1"), make_run("2"), make_run("1", "02")))
    found = read_store(path, subjects=["01"], runs=["2"])
    assert [[run.bold.run for run in each.runs] for each in found.recordings] == [["2"]]
    with pytest.raises(ConfigError, match=r"^subject must be one of 01, 02, got '03'"):
        read_store(path, subjects=["03"])


def test_the_same_study_again_leaves_the_store_alone(tmp_path: Path) -> None:
    path = write_store(tmp_path / "toy.zarr", make_dataset(make_run("1")))
    before = path.stat().st_ino
    write_store(path, make_dataset(make_run("1")))
    assert path.stat().st_ino == before
    write_store(path, replace(make_dataset(make_run("1")), licence="MIT"))
    assert path.stat().st_ino != before and read_store(path).licence == "MIT"
    assert [each.name for each in tmp_path.iterdir()] == ["toy.zarr"]


def test_something_else_of_that_name_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(StoreError, match=r"^output must be a new name or an older store, which is replaced, got"):
        write_store(tmp_path / "thesis", make_dataset(make_run("1")))
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "x"
    zarr.create_group(tmp_path / "other.zarr").create_array("a", data=np.ones(3))
    with pytest.raises(StoreError, match=r"^output must be a new name or an older store, which is replaced, got"):
        write_store(tmp_path / "other.zarr", make_dataset(make_run("1")))
    assert zarr.open_group(tmp_path / "other.zarr", mode="r")["a"].shape == (3,)


@pytest.mark.parametrize("array", ["sub-01/run-1/bold/c/0/0", "stimuli"])
def test_preparing_again_mends_a_damaged_store(tmp_path: Path, array: str) -> None:
    video = Video.from_frames(moving_square(), name="square", fps=4.0)
    dataset = make_dataset(make_run("1", video=video))
    path = write_store(tmp_path / "toy.zarr", dataset)
    harmed = next(file for file in (path / array).rglob("0")) if array == "stimuli" else path / array
    shutil.rmtree(harmed) if harmed.is_dir() else harmed.unlink()
    found = read_store(write_store(path, dataset)).recordings[0].runs[0]
    assert np.array_equal(found.bold.data, dataset.recordings[0].runs[0].bold.data)
    assert found.video is not None and np.array_equal(found.video.frames(), moving_square())


def test_a_missing_or_half_written_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^store must be a folder that `neuroreel prepare` made, got nothing there"):
        read_store(tmp_path / "toy.zarr")
    (tmp_path / ".toy.zarr.partial").mkdir()
    with pytest.raises(StoreError, match=r"got a half-written one, run prepare again to go on"):
        read_store(tmp_path / "toy.zarr")


@pytest.mark.parametrize("harm", ["chunk gone", "array gone", "bytes changed", "attributes gone"])
def test_a_damaged_store_is_never_read_as_if_it_were_whole(tmp_path: Path, harm: str) -> None:
    path = write_store(tmp_path / "toy.zarr", make_dataset(make_run("1")))
    chunk = path / "sub-01/run-1/bold/c/0/0"
    if harm == "chunk gone":
        chunk.unlink()
    elif harm == "array gone":
        shutil.rmtree(path / "sub-01/run-1/bold")
    elif harm == "bytes changed":
        raw = bytearray(chunk.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        chunk.write_bytes(raw)
    else:
        (path / "zarr.json").write_text("{}")
    with pytest.raises(StoreError, match=r"in the store must be whole|^store must"):
        read_store(path)


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "toy.zarr"

    def slow() -> Run:
        with pytest.raises(DataError, match=r"^store must be written by one process at a time, got another one"):
            write_store(target, make_dataset(make_run("1")))
        return make_run("1")

    write_store(target, Study("toy", (RunSource("01", "1", slow),)))
    assert read_store(target).name == "toy"


# A study whose runs note that they were loaded; as a program it says "ready" and writes the store.
SLOW = """
import sys
from pathlib import Path
import numpy as np
from neuroreel.core.store import write_store
from neuroreel.core.study import RunSource, Study
from neuroreel.core.types import Bold, Run, Space

def study(log, level):
    def load(name):
        with log.open("a") as stream:
            stream.write(name + "\\n")
        data = np.random.default_rng(int(name)).normal(size=(64, 3000)).astype(np.float32) + level
        return Run(Bold(data, 2.0, Space("columns", 3000), "01", name), "")
    return Study("slow", tuple(RunSource("01", str(k), lambda k=k: load(str(k)), key=str(level)) for k in range(6)))

if __name__ == "__main__":
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    write_store(Path(sys.argv[1]), study(Path(sys.argv[2]), float(sys.argv[3])))
"""


def level_of(target: Path) -> float:
    return round(float(np.mean(read_store(target).recordings[0].runs[5].bold.data)), 1)


def finished(target: Path) -> set[str]:
    runs = target.with_name(f".{target.name}.partial") / "runs" / "sub-01"
    return {file.parent.name.removeprefix("run-") for file in runs.glob("*/done.json")}


def kill_at_random_points(tmp_path: Path, points: Iterable[float]) -> set[int]:
    script, target, log = tmp_path / "slow.py", tmp_path / "out.zarr", tmp_path / "log"
    script.write_text(SLOW)
    study = runpy.run_path(str(script))["study"]
    begun = time.perf_counter()
    write_store(target, study(log, 0.0))
    needed_s = time.perf_counter() - begun
    seen = set()
    for level, point in enumerate(points, start=1):
        command = [sys.executable, str(script), str(target), str(log), str(float(level))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            time.sleep(point * needed_s)
            process.kill()
        assert process.returncode in (-signal.SIGKILL, 0)
        assert not target.exists() or level_of(target) in (level - 1, level)
        done, loaded = finished(target), len(log.read_text().splitlines())
        write_store(target, study(log, float(level)))
        assert level_of(target) == level
        assert not done & set(log.read_text().splitlines()[loaded:])
        assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "out.zarr", "slow.py"]
        seen.add(len(done))
    return seen


def test_a_killed_prepare_leaves_the_old_store_and_the_next_goes_on(tmp_path: Path) -> None:
    kill_at_random_points(tmp_path, [random.Random().uniform(0.3, 0.9)])


@pytest.mark.heavy
def test_many_kills_at_random_points(tmp_path: Path) -> None:
    chance = random.Random(7)
    seen = kill_at_random_points(tmp_path, [chance.uniform(0.0, 1.4) for _ in range(25)])
    assert len(seen) >= 4


def test_a_kill_between_two_renames_gives_the_old_store_back(tmp_path: Path) -> None:
    path = write_store(tmp_path / "toy.zarr", make_dataset(make_run("1")))
    path.rename(tmp_path / ".toy.zarr.old")
    write_store(path, make_dataset(make_run("1")))
    assert read_store(path).recordings[0].runs[0].bold.n_trs == 20
    assert [each.name for each in tmp_path.iterdir()] == ["toy.zarr"]


def test_a_run_whose_source_changed_is_read_again(tmp_path: Path) -> None:
    source, log = tmp_path / "bold.npy", []

    def study(broken: bool) -> Study:
        def second() -> Run:
            if broken:
                raise KeyboardInterrupt
            return make_run("2")

        def first() -> Run:
            log.append("1")
            return make_run("1")

        return Study("toy", (RunSource("01", "1", first, (source,)), RunSource("01", "2", second)))

    source.write_bytes(b"one")
    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "toy.zarr", study(broken=True))
    source.write_bytes(b"two")
    write_store(tmp_path / "toy.zarr", study(broken=False))
    assert log == ["1", "1"]


def test_a_full_disk_is_one_sentence_and_nothing_is_left(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk can't be mounted here")
    try:
        with pytest.raises(DataError, match=r"^disk must have room for the output, got no space left \(.*toy.zarr\)$"):
            write_store(disk / "toy.zarr", make_dataset(make_run("1", voxels=5000)))
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_midway_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zarr.storage import LocalStore

    write, calls = LocalStore.set, []

    async def full(self: LocalStore, key: str, value: object) -> None:
        calls.append(key)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await write(self, key, value)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalStore, "set", full)
    with pytest.raises(DataError, match=r"^disk must have room for the output, got no space left"):
        write_store(tmp_path / "toy.zarr", make_dataset(make_run("1"), make_run("2")))
    assert list(tmp_path.iterdir()) == []


def test_a_limit_on_file_size_is_one_sentence(tmp_path: Path) -> None:
    _, hard = soft = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DataError, match=r"^output must be writable, got file too large"):
            write_store(tmp_path / "toy.zarr", make_dataset(make_run("1", voxels=5000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    assert list(tmp_path.iterdir()) == []
