"""Files that are wrong in one way each: one sentence, and nothing is written."""

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import nibabel
import numpy as np
import pytest

from neuroreel.core.errors import DataError, NeuroreelError, NeuroreelWarning
from neuroreel.core.seeds import generator
from neuroreel.core.store import read_store, write_store
from neuroreel.core.video import write_video
from neuroreel.datasets.haxby2001 import BOLD, CARD, LABELS, MASK, haxby2001_study
from neuroreel.datasets.prepare import prepare

TRS = 20


@pytest.fixture
def nothing_written(tmp_path: Path) -> Iterator[Path]:
    """Give a target, and see that neither it nor anything beside it is there at the end."""
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder / "out.zarr"
    assert list(folder.iterdir()) == []


def arrays(folder: Path, bold: np.ndarray, more: str = "") -> Path:
    np.save(folder / "bold.npy", bold)
    (folder / "mine.toml").write_text(f'name = "mine"\ntr_s = 2.0\nbold = "bold.npy"\n{more}')
    return folder / "mine.toml"


def noise(*shape: int) -> np.ndarray:
    return generator(0, "noise", *shape).normal(size=shape).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------------
# NIfTI


def write_slice(folder: Path) -> Path:
    """Write files laid out like haxby2001-slice, 2 runs of 10 volumes."""
    data = generator(0, "slice").integers(0, 999, (5, 4, 1, TRS), dtype=np.int16)
    image = nibabel.Nifti1Image(data, np.diag([3.0, 3, 3, 1]))
    image.header.set_zooms((3, 3, 3, CARD.tr_s))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, folder / BOLD)
    nibabel.save(nibabel.Nifti1Image(np.ones((5, 4, 1), dtype=np.uint8), image.affine), folder / MASK)
    (folder / LABELS).write_text("".join(f"face {row // 10}\n" for row in range(TRS)))
    return folder


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def without_tr(file: Path) -> None:
    image = nibabel.load(file)
    image.header["pixdim"][4] = 0
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), file.with_name("t.nii.gz"))
    file.with_name("t.nii.gz").replace(file)


NIFTI: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "cut off": (BOLD, cut, r"^BOLD must be whole and readable, got .*nii.gz\)$"),
    "no NIfTI": (
        BOLD,
        lambda file: file.write_text("hello"),
        r"^BOLD must be whole and readable, got .*nii.gz\)$",
    ),
    "no TR": (BOLD, without_tr, r"^TR must be in the header, got None \(.*bold.nii.gz\)$"),
    "labels short": (
        LABELS,
        lambda file: file.write_text("face 0\nface 1\n"),
        r"^labels must have as many entries as volumes \(20\), got 2 \(.*attributes_literal.txt\)$",
    ),
    "labels odd": (
        LABELS,
        lambda file: file.write_text("face zero\n"),
        r"^labels must be a category and a run number on every line, got \[\['face', 'zero'\]\]",
    ),
}


@pytest.mark.parametrize("case", NIFTI)
def test_broken_nifti_files_are_one_sentence(tmp_path: Path, nothing_written: Path, case: str) -> None:
    name, harm, message = NIFTI[case]
    harm(write_slice(tmp_path) / name)
    with pytest.raises(DataError, match=message):
        write_store(nothing_written, haxby2001_study(tmp_path))


# ---------------------------------------------------------------------------------------------------------------------
# Voxels


def test_bad_voxels_are_left_out_of_every_run_counted_and_said(tmp_path: Path) -> None:
    bold = noise(TRS, 9)
    bold[3, 0], bold[15, 1], bold[:10, 2] = np.nan, -np.inf, 4.0
    np.save(tmp_path / "run.npy", np.repeat([1, 2], 10))
    toml = arrays(tmp_path, bold, 'runs = "run.npy"\n')
    said = (
        r"^voxels of sub-1 must be finite and vary in every run, the others are left out, got 2 NaN or infinite and 1"
    )
    with pytest.warns(NeuroreelWarning, match=said):
        found = read_store(prepare(toml, tmp_path / "out.zarr"))
    for run, rows in zip(found.recordings[0].runs, (slice(0, 10), slice(10, 20)), strict=True):
        assert np.array_equal(run.bold.data, bold[rows, 3:])


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
def test_no_good_voxel_is_refused(tmp_path: Path, nothing_written: Path, value: float) -> None:
    toml = arrays(tmp_path, np.full((TRS, 5), value))
    with pytest.raises(DataError, match=r"^voxels of sub-1 must be finite and vary, at least one, got \d NaN .* of 5"):
        prepare(toml, nothing_written)


def test_bold_that_is_no_number_is_refused(tmp_path: Path, nothing_written: Path) -> None:
    with pytest.raises(DataError, match=r"^bold must be real numbers, got complex64 \(.*bold.npy\)$"):
        prepare(arrays(tmp_path, noise(TRS, 3) * np.complex64(1j)), nothing_written)


# ---------------------------------------------------------------------------------------------------------------------
# Videos


def write_movie(folder: Path, frames: int = 40, fps: float = 1.0) -> Path:
    write_video(folder / "movie.mp4", generator(0, "movie").integers(0, 255, (frames, 16, 16, 3), dtype=np.uint8), fps)
    return folder / "movie.mp4"


def soundtrack(file: Path) -> None:
    with av.open(str(file), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())


def empty_track(file: Path) -> None:
    with av.open(str(file), "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        container.start_encoding()


VIDEOS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "cut off": (
        cut,
        "",
        r"^video must be a whole video file that can be opened, got Inv.* \(.*movie.mp4\)$",
    ),
    "other rate": (
        lambda file: None,
        "fps = 2.0",
        r"^video frame rate must be the 2 frames per second .* got 1 ",
    ),
    "gone": (Path.unlink, "", r"^source file must be readable, got no such file or directory \(.*movie.mp4\)$"),
    "only sound": (soundtrack, "", r"^video must have a picture track, got none \(.*movie.mp4\)$"),
    "no frames": (empty_track, "", r"^video must have frames, got 0 \(.*movie.mp4\)$"),
    "too long": (
        lambda file: write_movie(file.parent, 60),
        "",
        r"^volumes of sub-1 run 1 must be 30 or .* got 20",
    ),
}


@pytest.mark.parametrize("case", VIDEOS)
def test_wrong_videos_are_one_sentence(tmp_path: Path, nothing_written: Path, case: str) -> None:
    harm, more, message = VIDEOS[case]
    harm(write_movie(tmp_path))
    with pytest.raises(DataError, match=message):
        prepare(arrays(tmp_path, noise(TRS, 3), f'video = "movie.mp4"\n{more}'), nothing_written)


# ---------------------------------------------------------------------------------------------------------------------
# Everything is one sentence


def test_a_sentence_is_one_line_without_a_traceback(tmp_path: Path, nothing_written: Path) -> None:
    for bold, more in ((noise(TRS), ""), (noise(TRS, 3), "tr = 1\n"), (noise(TRS, 3), "tr_s = -1\n")):
        with pytest.raises(NeuroreelError) as caught:
            prepare(arrays(tmp_path, bold, more), nothing_written)
        assert ("\n" not in str(caught.value) and " must " in str(caught.value)) or " is wrong" in str(caught.value)


def test_an_old_store_outlives_a_bad_input(tmp_path: Path) -> None:
    path = prepare(arrays(tmp_path, noise(TRS, 4)), tmp_path / "out.zarr")
    with pytest.raises(DataError, match="must be finite and vary"):
        prepare(arrays(tmp_path, np.zeros((TRS, 4))), path)
    assert np.array_equal(read_store(path).recordings[0].runs[0].bold.data, noise(TRS, 4))
    assert not (tmp_path / ".out.zarr.partial").exists()
