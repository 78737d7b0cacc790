import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.core.video import FileFrames, open_video, write_video


def numbered(frames: int = 100) -> np.ndarray:
    """Frames with their number in binary, as stripes."""
    bits = (np.arange(frames)[:, None] >> np.arange(8)) & 1  # (frames, stripes)
    stripes = np.repeat(bits * 200 + 20, 6, axis=1).astype(np.uint8)
    return np.broadcast_to(stripes[:, None, :, None], (frames, 32, 48, 3)).copy()


def number_of(frames: np.ndarray) -> list[int]:
    bits = frames[:, 16, 3::6, 0] > 120
    return (bits @ (1 << np.arange(8))).tolist()


@pytest.mark.parametrize("suffix, codec", [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9")])
def test_any_range_is_the_frames_of_that_range(tmp_path: Path, suffix: str, codec: str) -> None:
    file = tmp_path / f"a.{suffix}"
    write_video(file, numbered(), 25.0, codec=codec)
    video = open_video(file, 25.0)
    assert video.shape == (100, 32, 48, 3) and video.fps == 25.0 and video.name == f"a.{suffix}"
    for start, stop in ((97, 100), (0, 3), (14, 18), (40, 40), (3, 90), (31, 33)):
        assert number_of(video.frames(start, stop)) == list(range(start, stop))


def test_frames_are_the_same_whatever_was_read_before(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", numbered(), 25.0)
    whole = open_video(tmp_path / "a.mp4").frames()
    video = open_video(tmp_path / "a.mp4")
    order = np.random.default_rng(0).permutation(99)
    assert all(np.array_equal(video.frames(k, k + 2), whole[k : k + 2]) for k in order.tolist())


def test_an_ntsc_rate_is_known_from_thirty(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", numbered(30), 30000 / 1001)
    assert open_video(tmp_path / "a.mp4", 29.97).fps == pytest.approx(29.97003)
    with pytest.raises(
        DataError, match=r"^video frame rate must be the 30 frames per second that were said, got 29.97 "
    ):
        open_video(tmp_path / "a.mp4", 30.0)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_video_that_is_cut_off_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 32, 48, 3), dtype=np.uint8)
    write_video(tmp_path / f"whole.{suffix}", noise, 25.0)
    raw = (tmp_path / f"whole.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(DataError, match=r"^video must (not be cut off|be a whole video file)"):
        open_video(tmp_path / f"cut.{suffix}")


def test_a_cut_video_with_its_index_in_front_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 32, 48, 3), dtype=np.uint8)
    file = tmp_path / "fast.mp4"
    with av.open(str(file), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for frame in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    raw = file.read_bytes()
    file.write_bytes(raw[: int(0.7 * len(raw))])
    with pytest.raises(DataError, match=r"^video must not be cut off"):
        open_video(file)


def test_no_frames_and_no_video_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video at all")
    with pytest.raises(DataError, match=r"^video must be a whole video file that can be opened, got InvalidDataError"):
        open_video(tmp_path / "text.mp4")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(DataError, match=r"^video must have a picture track, got none"):
        open_video(tmp_path / "sound.mkv")
    with pytest.raises(DataError, match=r"^video must be a file that exists, got 'gone.mp4'"):
        open_video(tmp_path / "gone.mp4")


def test_a_changing_frame_rate_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "vfr.mkv"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number, array in enumerate(numbered(50)):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = number + (20 if number > 25 else 0), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match=r"^video must have one frame rate throughout"):
        open_video(file)


def test_writing_refuses_odd_sizes_wrong_frames_and_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^video frames must be 1 or more, got 0"):
        write_video(tmp_path / "a.mp4", np.empty((0, 8, 8, 3), dtype=np.uint8), 25.0)
    with pytest.raises(DataError, match=r"^video size must be even in height and width, got \(31, 48\)"):
        write_video(tmp_path / "a.mp4", numbered(3)[:, 1:], 25.0)
    with pytest.raises(DataError, match=r"^video frame must be uint8 of shape \(32, 48, 3\), got float64"):
        write_video(tmp_path / "a.mp4", [numbered(1)[0], numbered(1)[0] / 2], 25.0)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_goes_to_another_process(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", numbered(20), 25.0)
    reader = pickle.loads(pickle.dumps(FileFrames(tmp_path / "a.mp4")))
    assert number_of(reader(3, 5)) == [3, 4]
