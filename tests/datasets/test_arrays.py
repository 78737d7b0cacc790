from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import io

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.seeds import generator
from neuroreel.core.store import read_store
from neuroreel.core.types import Dataset
from neuroreel.core.video import write_video
from neuroreel.datasets.arrays import arrays_study
from neuroreel.datasets.prepare import prepare

TRS, VOXELS = 24, 7
LABELS = ["rest"] * 4 + ["face"] * 4 + ["house"] * 4


def make_arrays() -> dict[str, np.ndarray]:
    random = generator(0, "arrays")
    return {
        "bold": random.normal(size=(TRS, VOXELS)),
        "run": np.repeat([1, 2], TRS // 2),
        "labels": np.array(LABELS * 2),
        "v1": (np.arange(VOXELS) < 3).astype(float),
        "frames": random.integers(0, 255, (TRS, 8, 10, 3), dtype=np.uint8),
    }


def save_npz(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    np.savez(folder / "a.npz", **arrays)  # type: ignore[arg-type]
    return "a.npz"


def save_mat(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    cells = {name: value.astype(object) if value.dtype.kind == "U" else value for name, value in arrays.items()}
    io.savemat(folder / "a.mat", cells)
    return "a.mat"


def save_mat73(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    """Write what MATLAB's -v7.3 writes: HDF5 behind a block of 512 bytes, axes reversed, cells as references."""
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
        for name, value in arrays.items():
            if value.dtype.kind == "U":
                cells = [
                    file.create_dataset(f"#refs#/{name}{k}", data=[[ord(c)] for c in w]) for k, w in enumerate(value)
                ]
                file.create_dataset(name, data=np.array([[cell.ref for cell in cells]], dtype=h5py.ref_dtype))
                file[name].attrs["MATLAB_class"] = np.bytes_("cell")
            else:
                file.create_dataset(name, data=np.atleast_2d(value).T).attrs["MATLAB_class"] = np.bytes_("double")
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + bytes([0, 2]) + b"IM"
    raw = bytearray((folder / "a.mat").read_bytes())
    raw[:128] = head
    (folder / "a.mat").write_bytes(raw)
    return "a.mat"


def save_h5(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    with h5py.File(folder / "a.h5", "w") as file:
        for name, value in arrays.items():
            file.create_dataset(name, data=value.astype(h5py.string_dtype()) if value.dtype.kind == "U" else value)
    return "a.h5"


def load(folder: Path, text: str, *overrides: str) -> Dataset:
    (folder / "mine.toml").write_text(text)
    return arrays_study(folder / "mine.toml", overrides).load()


@pytest.mark.parametrize("save", [save_npz, save_mat, save_mat73, save_h5])
def test_the_same_arrays_come_out_of_every_format(tmp_path: Path, save: Callable[..., str]) -> None:
    arrays = make_arrays()
    file = save(tmp_path, arrays)
    found = load(
        tmp_path,
        f'name = "mine"\ntr_s = 2.0\nfile = "{file}"\nbold = "bold"\nruns = "run"\nlabels = "labels"\n'
        'frames = "frames"\nrois = { V1 = "v1" }\nlag_s = 6.0\n',
    )
    runs = found.recordings[0].runs
    assert [run.bold.run for run in runs] == ["1", "2"] and runs[0].bold.tr_s == 2.0
    np.testing.assert_allclose(np.concatenate([run.bold.data for run in runs]), arrays["bold"].astype(np.float32))
    assert [(e.category, e.onset_s, e.duration_s) for e in runs[1].events] == [("face", 8.0, 8.0), ("house", 16.0, 8.0)]
    assert runs[0].bold.space.rois["V1"].tolist() == [True] * 3 + [False] * 4
    assert runs[1].video is not None and np.array_equal(runs[1].video.frames(2, 4), arrays["frames"][14:16])
    assert found.window.first_lag_s == 6.0 and list(found.splits) == ["leave-out-1", "leave-out-2"]


def test_axes_are_named_never_guessed(tmp_path: Path) -> None:
    grid = generator(1, "grid").normal(size=(2, 3, 4, 2, 9)).astype(np.float32)  # x, y, z, run, time
    mask = np.ones((2, 3, 4))
    mask[0, 1, 2] = 0
    np.savez(tmp_path / "g.npz", bold=grid, mask=mask, roi=mask.cumsum().reshape(mask.shape) < 6)
    found = load(
        tmp_path,
        'name = "g"\ntr_s = 1.5\nfile = "g.npz"\nbold = "bold"\naxes = ["x", "y", "z", "run", "time"]\n'
        'mask = "mask"\nrois = { R = "roi" }\n',
    )
    second = found.recordings[0].run("2").bold
    assert second.data.shape == (9, 23) and second.space.kind == "volume" and second.space.index is not None
    row = second.space.index.tolist().index([1, 2, 3])
    assert np.array_equal(second.data[:, row], grid[1, 2, 3, 1])
    assert [0, 1, 2] not in second.space.index.tolist() and second.space.rois["R"].sum() == 5


def test_an_image_experiment_has_one_row_per_trial(tmp_path: Path) -> None:
    random = generator(2, "trials")
    images = random.uniform(0, 1, (5, 6, 8))
    index = np.array([1, 2, 3, 1, 4, 5, 5, 2])
    bold = random.normal(size=(8, VOXELS)).astype(np.float32)
    np.savez(tmp_path / "t.npz", bold=bold, images=images, index=index, run=[1] * 4 + [2] * 4, label=list("abcadeeb"))
    found = load(
        tmp_path,
        'name = "t"\ntr_s = 4.0\nrows = "trials"\nfile = "t.npz"\nbold = "bold"\nruns = "run"\nimages = "images"\n'
        'image_index = "index"\nindex_from = 1\nwhite = 1.0\nlabels = "label"\n',
    )
    train, _ = found.splits["leave-out-2"].cut(_without_shared(found)).sets(found.window)
    assert len(train.samples) == 3 and sorted(train.samples.repeats) == [1, 1, 2]
    twice = int(np.argmax(train.samples.repeats))
    np.testing.assert_allclose(train.samples.brain[twice, 0], bold[[0, 3]].mean(axis=0), rtol=1e-6)
    assert train.samples.clips is not None and train.samples.category[twice] == "a"
    assert np.array_equal(train.samples.clips[twice, 0, :, :, 1], np.rint(images[0] * 255).astype(np.uint8))


def _without_shared(dataset: Dataset):  # type: ignore[no-untyped-def]
    """Return the recording without the trials of run 2 that show a picture of run 1."""
    from dataclasses import replace

    first, second = dataset.recordings[0].runs
    seen = {event.stimulus for event in first.events}
    fresh = tuple(event for event in second.events if event.stimulus not in seen)
    assert len(fresh) == 3
    return replace(dataset.recordings[0], runs=(first, replace(second, events=fresh)))


def test_the_same_picture_on_both_sides_is_known_by_its_pixels(tmp_path: Path) -> None:
    from neuroreel.core.errors import LeakageError

    image = np.zeros((4, 4, 4, 3), dtype=np.uint8)
    image[2] = 9
    np.savez(tmp_path / "t.npz", bold=generator(0, "b").normal(size=(4, 3)), images=image, run=[1, 1, 2, 2])
    text = 'name = "t"\ntr_s = 4.0\nrows = "trials"\nfile = "t.npz"\nbold = "bold"\nruns = "run"\nimages = "images"\n'
    found = load(tmp_path, text)
    with pytest.raises(LeakageError, match=r"^a tested picture must not be in the training set, got image-"):
        found.split().cut(found.recording()).sets(found.window)


def test_a_movie_file_onsets_and_several_subjects(tmp_path: Path) -> None:
    movie = np.zeros((48, 16, 16, 3), dtype=np.uint8)
    write_video(tmp_path / "movie.mp4", movie, 1.0)
    for subject in (1, 2):
        np.savez(tmp_path / f"s{subject}.npz", bold=np.full((TRS, VOXELS), subject) + make_arrays()["bold"])
    np.savez(tmp_path / "e.npz", on=[30.0, 10.0], off=[5.0, 5.0], what=["dog", "cat"], text=["a dog", "a cat"])
    found = load(
        tmp_path,
        'name = "m"\ntr_s = 2.0\nbold = "bold"\nvideo = "movie.mp4"\nfps = 1.0\nonsets = "e.npz:on"\n'
        'durations = "e.npz:off"\nlabels = "e.npz:what"\ncaptions = "e.npz:text"\n'
        '[subjects.anna]\nfile = "s1.npz"\n[subjects.ben]\nfile = "s2.npz"\n[window]\ntrs = 3\n',
        "lag_s=5.0",
    )
    assert [each.subject for each in found.recordings] == ["anna", "ben"]
    run = found.recording("ben").runs[0]
    assert run.bold.data.mean() > 1.5 and [(e.onset_s, e.caption) for e in run.events] == [(10, "a cat"), (30, "a dog")]
    assert run.video is not None and run.video.shape == (48, 16, 16, 3)
    assert (found.window.trs, found.window.first_lag_s) == (3, 5.0)


def test_arrays_go_through_the_store(tmp_path: Path) -> None:
    np.save(tmp_path / "bold.npy", make_arrays()["bold"])
    (tmp_path / "mine.toml").write_text('name = "mine"\ntr_s = 2.0\nbold = "bold.npy"\n')
    found = read_store(prepare(tmp_path / "mine.toml", tmp_path / "out.zarr", settings=["tr_s=2.5"]))
    assert found.recordings[0].runs[0].bold.data.shape == (TRS, VOXELS)
    assert found.recordings[0].runs[0].bold.tr_s == 2.5 and found.splits == {}
    assert any(name.endswith("bold.npy") for name in found.provenance["sources"])


# ---------------------------------------------------------------------------------------------------------------------
# What is refused

BASE = 'name = "mine"\ntr_s = 2.0\nfile = "a.npz"\nbold = "bold"\n'
REFUSED = {
    "unknown key": (
        "bolt = 1\n",
        ConfigError,
        r"^config key must be one of address, affine, axes, bold.*got 'bolt' \(",
    ),
    "unknown window key": (
        "[window]\nlag = 1\n",
        ConfigError,
        r"^config key must be one of at, average, .*'window.lag'",
    ),
    "no such array": (
        'runs = "sessions"\n',
        DataError,
        r"^key must be one of bold, frames, labels, run, v1, got 'sess",
    ),
    "no such file": ('runs = "b.npz:x"\n', DataError, r"^file must exist, got 'b.npz' \("),
    "other file kind": ('runs = "b.csv:x"\n', DataError, r"^key must be one of"),
    "axes": ('axes = ["voxel", "voxel"]\n', ConfigError, r"^axes must be time, with voxel or x, y and z"),
    "unknown axis": ('axes = ["time", "vox"]\n', ConfigError, r"^axis of the BOLD must be one of run, time, voxel"),
    "number of axes": (
        'axes = ["run", "time", "voxel"]\n',
        DataError,
        r"^bold must have the axes \(run, time, voxel\), got",
    ),
    "labels": (
        'labels = "v1"\n',
        DataError,
        r"^labels must have as many entries as rows of the BOLD \(24\), got 7 \(.*a.npz:v1",
    ),
    "runs": ('runs = "v1"\n', DataError, r"^runs must have as many entries as rows of the BOLD \(24\), got 7"),
    "ROI": ('rois = { V1 = "run" }\n', DataError, r"^ROI V1 must have the shape \(7,\), got \(24,\)"),
    "images": ('images = "frames"\n', ConfigError, r'^images must come with rows = "trials", got volumes'),
    "two pictures": (
        'frames = "frames"\nvideo = "a.mp4"\n',
        ConfigError,
        r"^frames, images, video must be one of them",
    ),
    "frames": ('frames = "frames"\nwhite = 1.0\n', DataError, r"^frames must lie within 0 and white = 1, got 0 to 2"),
    "short scan": (
        'frames = "frames"\nfps = 0.1\n',
        DataError,
        r"^volumes of sub-1 run 1 must be 120 or more .*240 s\), got 24",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_settings_and_arrays_are_one_sentence_and_nothing_is_written(tmp_path: Path, case: str) -> None:
    text, error, message = REFUSED[case]
    save_npz(tmp_path, make_arrays())
    (tmp_path / "mine.toml").write_text(BASE + text)
    with pytest.raises(error, match=message):
        prepare(tmp_path / "mine.toml", tmp_path / "out.zarr")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.npz", "mine.toml"]


@pytest.mark.parametrize("save", [save_npz, save_mat, save_mat73, save_h5])
def test_a_truncated_file_is_one_sentence(tmp_path: Path, save: Callable[..., str]) -> None:
    file = tmp_path / save(tmp_path, make_arrays())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    (tmp_path / "mine.toml").write_text(BASE.replace("a.npz", file.name))
    with pytest.raises(DataError, match=r"^file must be whole and hold plain arrays, got .*a\.(npz|mat|h5)\)$"):
        prepare(tmp_path / "mine.toml", tmp_path / "out.zarr")


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    np.save(tmp_path / "bold.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "mine.toml").write_text('name = "mine"\ntr_s = 2.0\nbold = "bold.npy"\n')
    with pytest.raises(
        DataError, match=r"^file must be whole and hold plain arrays, got Object arrays cannot be loaded"
    ):
        prepare(tmp_path / "mine.toml", tmp_path / "out.zarr")
