"""Video files: opened with checks, decoded when they are read, written so that any frame is found fast."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import DataError
from neuroreel.core.files import atomic, sha256
from neuroreel.core.types import Video

BLOCK = 16  # frames kept or dropped together
KEEP_BYTES = 96_000_000
SAME_RATE = 2e-4  # relative; 30000/1001 is 29.97 but not 30


def open_video(path: str | Path, fps: float | None = None, *, name: str | None = None, start_s: float = 0.0) -> Video:
    """Return the video of a file, whose frames are decoded when they are read.

    Parameters
    ----------
    path : a file that FFmpeg reads (mp4, webm, avi, gif, ...).
    fps : the frame rate that it should have, checked; None to take the file's own.
    name : name of the stimulus; None for the file's name.
    start_s : time of the first frame on the stimulus clock.

    Raises
    ------
    DataError
        If the file isn't there, is no video, has no frames, is cut off, or has another or a varying frame rate.
    """
    path = Path(path)
    frames = FileFrames(path)
    rate, shape = frames.fps, frames.shape
    if fps is not None:
        same = abs(rate - checks.positive("fps", fps, path)) <= SAME_RATE * rate
        checks.require(
            same, "video frame rate", f"must be the {fps:g} frames per second that were said", f"{rate:.5g}", path
        )
    return Video(path.name if name is None else name, rate, shape, frames, start_s)


class FileFrames:
    """Reads ranges of frames of a video file; the file is first looked at when it must be.

    Parameters
    ----------
    path : the file.
    checksum : the SHA-256 that the file must have, or empty.
    """

    def __init__(self, path: Path, checksum: str = "") -> None:
        self.path = Path(path)
        self.checksum = checksum
        self._index: dict[str, Any] | None = None
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "checksum": self.checksum, "_index": None, "_kept": OrderedDict()}

    @property
    def fps(self) -> float:
        """Frames per second of the file."""
        return float(self._look()["fps"])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, height, width, 3)"""
        found = self._look()
        return len(found["pts"]), found["height"], found["width"], 3

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Return frames `start` to before `stop`, (frames, height, width, 3) uint8.

        Raises
        ------
        DataError
            If the file is gone, changed or damaged.
        """
        total, height, width, _ = self.shape
        out = np.empty((stop - start, height, width, 3), dtype=np.uint8)
        if stop <= start:
            return out
        blocks = range(start // BLOCK, (stop - 1) // BLOCK + 1)
        missing = [block for block in blocks if block not in self._kept]
        fresh: dict[int, np.ndarray] = {}
        if missing:
            first, last = missing[0] * BLOCK, min((missing[-1] + 1) * BLOCK, total)
            decoded = self._decode(first, last)
            for block in range(missing[0], missing[-1] + 1):
                fresh[block] = decoded[block * BLOCK - first : (block + 1) * BLOCK - first]
        for block in blocks:
            frames = fresh[block] if block in fresh else self._kept[block]
            a, b = max(start, block * BLOCK), min(stop, (block + 1) * BLOCK)
            out[a - start : b - start] = frames[a - block * BLOCK : b - block * BLOCK]
        self._keep(fresh, height * width * 3 * BLOCK)
        return out

    def _keep(self, fresh: dict[int, np.ndarray], block_bytes: int) -> None:
        most = max(1, KEEP_BYTES // block_bytes)
        for block in sorted(fresh)[-most:]:
            self._kept[block] = fresh[block].copy()
            self._kept.move_to_end(block)
        while len(self._kept) > most:
            self._kept.popitem(last=False)

    def _look(self) -> dict[str, Any]:
        if self._index is None:
            checks.require(self.path.is_file(), "video", "must be a file that exists", repr(self.path.name), self.path)
            if self.checksum:
                same = sha256(self.path) == self.checksum
                checks.require(same, "video", "must be the file that was prepared", "another checksum", self.path)
            self._index = _index(self.path)
        return self._index

    def _decode(self, start: int, stop: int) -> np.ndarray:
        import av

        found = self._look()
        pts: np.ndarray = found["pts"]
        out = np.empty((stop - start, found["height"], found["width"], 3), dtype=np.uint8)
        seen = np.zeros(stop - start, dtype=bool)
        rule = f"must be whole: frames {start} to {stop - 1} can't be decoded"
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                if start > 0:
                    container.seek(int(pts[start]), stream=stream, backward=True)
                for frame in container.decode(stream):
                    if frame.pts is None:
                        continue
                    number = int(np.searchsorted(pts, frame.pts))
                    if number >= stop:
                        break
                    if number >= start and pts[number] == frame.pts:
                        out[number - start] = frame.to_ndarray(format="rgb24")
                        seen[number - start] = True
        except (av.FFmpegError, OSError, ValueError) as error:
            raise DataError(checks.sentence("video", rule, type(error).__name__, self.path)) from error
        missing = int(np.count_nonzero(~seen))
        checks.require(missing == 0, "video", rule, f"{missing} missing", self.path)
        return out


def _index(path: Path) -> dict[str, Any]:
    """Return size, rate and the time stamp of every frame, found without decoding."""
    import av

    try:
        with av.open(str(path)) as container:
            checks.require(len(container.streams.video) > 0, "video", "must have a picture track", "none", path)
            stream = container.streams.video[0]
            said = stream.frames
            base = stream.time_base or Fraction(1, 1000)
            length_s = float(stream.duration * base) if stream.duration else (container.duration or 0) / 1e6
            start_pts = stream.start_time or 0
            rate = stream.average_rate or stream.guessed_rate
            height, width = stream.height, stream.width
            packets = [packet for packet in container.demux(stream) if packet.size > 0 and not packet.is_discard]
            damaged = sum(packet.is_corrupt for packet in packets)
            stamps = [packet.pts if packet.pts is not None else packet.dts for packet in packets]
    except EOFError as error:
        raise DataError(checks.sentence("video", "must have frames", 0, path)) from error
    except (av.FFmpegError, OSError, AttributeError) as error:  # a picture track of an unknown codec has no height
        rule = "must be a whole video file that can be opened"
        raise DataError(checks.sentence("video", rule, type(error).__name__, path)) from error
    checks.require(len(packets) > 0 and height > 0, "video", "must have frames", 0, path)
    unstamped = sum(stamp is None for stamp in stamps)
    checks.require(unstamped == 0, "video frames", "must have time stamps", f"{unstamped} without", path)
    checks.require(damaged == 0, "video", "must not be cut off", f"{damaged} broken frames", path)
    pts = np.unique(np.array(stamps, dtype=np.int64))
    count = len(pts)
    rule = f"must not be cut off: its header says {said} frames"
    checks.require(not said or count >= said, "video", rule, count, path)
    times = (pts - pts[0]) * float(base)
    fps = float(rate) if rate else (count - 1) / times[-1] if count > 1 else 1.0
    covered_s = float((pts[-1] - start_pts) * base) + 1 / fps
    cut = not said and length_s - covered_s > max(2 / fps, 0.01 * length_s)
    rule = f"must not be cut off: its header says {length_s:.3f} s"
    checks.require(not cut, "video", rule, f"{covered_s:.3f} s", path)
    drift = float(np.abs(times - np.arange(count) / fps).max())
    rule = f"must have one frame rate throughout ({fps:.5g} frames per second)"
    checks.require(drift <= 0.5 / fps + 1e-3, "video", rule, f"frames {drift:.3f} s off", path)
    return {"pts": pts, "fps": fps, "height": height, "width": width}


def write_video(
    path: str | Path,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float,
    *,
    codec: str = "libx264",
    crf: int = 18,
    preset: str = "medium",
) -> None:
    """Write frames (height, width, 3) uint8 to a video file, with a key frame every 15 so that seeking is fast.

    The same frames give the same file: x264's macroblock trees, with which a busy machine sometimes gets another, are
    left out.

    Parameters
    ----------
    frames : array (frames, height, width, 3), or frames one by one; one or more, all of one even size.
    fps : frames per second.
    codec, crf : of FFmpeg; a smaller `crf` is nearer to the frames.
    preset : x264's; a faster one makes larger files.

    Raises
    ------
    DataError
        If there is no frame, a frame has another size or is no uint8 RGB, or the disk is full.
    """
    import av

    path = Path(path)
    rate = Fraction(checks.positive("fps", fps, path)).limit_denominator(1001 * 1000)
    options = {"crf": str(crf), "g": "15"}
    if codec == "libx264":
        options |= {"preset": preset, "x264-params": "mbtree=0"}
    with atomic(path) as partial:
        suffix = path.suffix.lstrip(".") or "mp4"
        count = 0
        with av.open(str(partial), "w", format={"mkv": "matroska"}.get(suffix, suffix)) as container:
            stream: Any = container.add_stream(codec, rate=rate, options=options)
            for array in frames:
                if count == 0:
                    stream.height, stream.width = array.shape[0], array.shape[1]
                    even = array.shape[0] % 2 == 0 and array.shape[1] % 2 == 0
                    checks.require(even, "video size", "must be even in height and width", array.shape[:2], path)
                    stream.pix_fmt = "yuv420p"
                ok = array.dtype == np.uint8 and array.shape == (stream.height, stream.width, 3)
                rule = f"must be uint8 of shape ({stream.height}, {stream.width}, 3)"
                checks.require(ok, "video frame", rule, f"{array.dtype} {array.shape}", path)
                for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")):
                    container.mux(packet)
                count += 1
            checks.require(count > 0, "video frames", "must be 1 or more", 0, path)
            for packet in stream.encode():
                container.mux(packet)
