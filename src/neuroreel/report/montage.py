"""The movie of a report: what was shown and what every system made of it, side by side in test time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from neuroreel.core.types import Reconstruction, Samples
from neuroreel.report.figures import short

LONGEST_S = 75.0  # of a montage; more test time is left out, and said
STILL_S = 1 / 3  # a clip of one frame stays at least that long
STILL_FPS = 6.0
WIDTH = 1080
GAP, HEAD = 10, 34
GROUND, INK, SOFT = (15, 18, 24), (236, 239, 244), (140, 147, 160)


@dataclass(frozen=True)
class Montage:
    """A synchronised movie.

    Attributes
    ----------
    fps : frames per second of the movie.
    speed : test time over playing time; 1 is as it was shown.
    clips : number of test clips in it, from the first on.
    frames : number of frames.
    size : (height, width) in pixels, both even.
    panels : what is shown, in reading order.
    """

    truth: Samples
    made: Mapping[str, np.ndarray]
    colours: Mapping[str, str]
    fps: float
    speed: float
    clips: int
    hold: int

    @property
    def panels(self) -> tuple[str, ...]:
        """Names of the panels in reading order; the first is what was shown."""
        return ("shown", *self.made)

    @property
    def layout(self) -> tuple[int, int, int, int]:
        """(lines, columns, height, width): how many panels, and the size of one picture."""
        count = len(self.panels)
        columns = count if count <= 3 else 3 if count <= 6 else 4
        width = min(WIDTH // columns - GAP, 480)
        shape = self._clips[0].shape
        return -(-count // columns), columns, round(width * shape[2] / shape[3]), width

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the movie in pixels."""
        lines, columns, height, width = self.layout
        full = lines * (height + HEAD) + GAP, columns * (width + GAP) + GAP
        return full[0] + full[0] % 2, full[1] + full[1] % 2

    @property
    def frames(self) -> int:
        """Number of frames of the movie."""
        return self.clips * self._clips[0].shape[1] * self.hold

    @property
    def _clips(self) -> list[np.ndarray]:
        return [clips for clips in (self.truth.clips, *self.made.values()) if clips is not None]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the movie's frames (height, width, 3) uint8."""
        within = self._clips[0].shape[1]
        base = self._empty()
        for clip in range(self.clips):
            for part in range(within):
                page = base.copy()
                for number, clips in enumerate(self._clips):
                    frame = clips[clip, min(part, clips.shape[1] - 1)]
                    page.paste(self._scaled(frame), self._corner(number))
                self._tell(page, clip)
                picture = np.asarray(page)
                for _ in range(self.hold):
                    yield picture

    def _corner(self, number: int) -> tuple[int, int]:
        _, columns, height, width = self.layout
        line, column = divmod(number, columns)
        return GAP + column * (width + GAP), line * (height + HEAD) + HEAD

    def _scaled(self, frame: np.ndarray) -> Image.Image:
        _, _, height, width = self.layout
        small = max(frame.shape[:2]) < 48
        kind = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
        return Image.fromarray(frame).resize((width, height), kind)

    def _empty(self) -> Image.Image:
        height, width = self.size
        page = Image.new("RGB", (width, height), GROUND)
        draw = ImageDraw.Draw(page)
        for number, name in enumerate(self.panels):
            x, y = self._corner(number)
            colour = self.colours.get(name, INK)
            draw.ellipse((x + 1, y - 21, x + 11, y - 11), fill=colour)
            draw.text((x + 18, y - 16), short(name, 32), fill=INK, font=font(16, bold=True), anchor="lm")
        return page

    def _tell(self, page: Image.Image, clip: int) -> None:
        """Write onset and caption of a clip beside the name of the first panel."""
        x, y = self._corner(0)
        told = str(self.truth.caption[clip] or self.truth.category[clip])
        text = f"{self.truth.onset_s[clip]:.1f} s" + (f" · {told}" if told else "")
        room = self.layout[3] - 84
        ImageDraw.Draw(page).text((x + 84, y - 16), short(text, room // 8), fill=SOFT, font=font(14), anchor="lm")


def make_montage(truth: Samples, made: Mapping[str, Reconstruction], colours: Mapping[str, str]) -> Montage | None:
    """Return the montage of a test, or None where there are no clips.

    Clips of several frames play as they were shown; clips of one frame stay a third of a second, or as long as they
    were shown where that is shorter.
    """
    clips = {name: one.clips for name, one in made.items() if one.clips is not None}
    if truth.clips is None or not clips:
        return None
    within = truth.clips.shape[1]
    steps = np.diff(truth.onset_s)
    step_s = float(np.median(steps[steps > 0])) if (steps > 0).any() else within / truth.fps
    if within > 1:
        fps, hold, played_s = float(truth.fps), 1, within / truth.fps
    else:
        played_s = min(STILL_S, step_s)
        fps, hold = STILL_FPS, max(1, round(STILL_FPS * played_s))
        played_s = hold / fps
    count = min(len(truth), max(1, int(LONGEST_S / played_s)))
    return Montage(truth, clips, colours, fps, step_s / played_s, count, hold)


def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font that matplotlib ships, so that every machine draws the same."""
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{name}", size)
