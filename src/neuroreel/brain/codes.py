"""A short code of clips that is read from brain windows by ridge: components of the pixels, and of what a network sees.

Each component has its own penalty, and stays only where it can be read at all; both are told by cross-validation over
whole blocks. What the ridge says of a window that it was fitted without (`held_out_`) is as wrong as what it will say
of a new one, so that what is trained on it meets the same errors later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from neuroreel.brain.window import WindowDecoder, WindowDecoderConfig
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.sets import resize

SEEN = "seen"
PIXELS = "pixels"
See = Callable[[np.ndarray], np.ndarray]


class CodesConfig(Config):
    """Choices of the code.

    Attributes
    ----------
    pixels : components of the clips' pixels, at most.
    largest : height in pixels to which clips are shrunk before.
    seen : components of what a network sees in the clips, at most; 0 for none.
    decoder : see `WindowDecoderConfig`.
    """

    pixels: int = Field(default=64, ge=1)
    largest: int = Field(default=16, ge=1)
    seen: int = Field(default=48, ge=0)
    decoder: WindowDecoderConfig = WindowDecoderConfig(per_target=True)


class _Part:
    """Components of some features, the decoder that reads them, and which of them it can read."""

    def __init__(self, mean: np.ndarray, axes: np.ndarray, decoder: WindowDecoder, read: np.ndarray) -> None:
        self.mean, self.axes, self.decoder, self.read = mean, axes, decoder, read

    @classmethod
    def fit(
        cls, features: np.ndarray, count: int, brain: np.ndarray, blocks: np.ndarray, config: WindowDecoderConfig
    ) -> tuple[Self, np.ndarray]:
        """Return the part, and what its ridge says of each window that it was fitted without."""
        mean = features.mean(0)
        values, right = np.linalg.svd(features - mean, full_matrices=False)[1:]
        kept = slice(0, max(1, min(count, int((values > 1e-3 * values[0]).sum()))))
        axes = right[kept].T * (np.sqrt(len(features)) / np.maximum(values[kept], 1e-12))  # an SD of 1
        targets = ((features - mean) @ axes).astype(np.float32)
        decoder = WindowDecoder(config).fit(brain, targets, blocks)
        gain = 1 - (decoder.held_out_ - targets).var(0) / np.maximum(targets.var(0), 1e-12)
        read = gain > 0 if (gain > 0).any() else gain == gain.max()
        return cls(mean, np.ascontiguousarray(axes, np.float32), decoder, read), decoder.held_out_[:, read]

    def of(self, features: np.ndarray) -> np.ndarray:
        return (features - self.mean) @ self.axes[:, self.read]

    def told(self, brain: np.ndarray) -> np.ndarray:
        return self.decoder.predict(brain)[:, self.read]


class BrainCodes:
    """Codes of clips, and their reading from brain windows.

    Parameters
    ----------
    see : function of clips (n, frames, h, w, 3) uint8 that returns what a network sees in them, (n, units); None for
        pixels only.

    Attributes
    ----------
    held_out_ : (clips, code), the training windows' codes, each read without its fold; not saved.
    cv_r2_ : R2 of each component of `held_out_`, by part; not saved.
    slope_, offset_ : (code,), of the regression from true codes to those that were read.
    """

    held_out_: np.ndarray
    cv_r2_: dict[str, list[float]]
    slope_: np.ndarray
    offset_: np.ndarray

    def __init__(self, config: CodesConfig | None = None, see: See | None = None) -> None:
        self.config = config or CodesConfig()
        self.see = see if self.config.seen else None
        self.parts_: dict[str, _Part] = {}

    @property
    def size(self) -> int:
        """Length of a code."""
        return sum(int(part.read.sum()) for part in self.parts_.values())

    def fit(self, brain: np.ndarray, clips: np.ndarray, blocks: np.ndarray) -> Self:
        """Fit components and ridge on training windows (n, trs, voxels) and their clips (n, frames, h, w, 3) uint8.

        Raises
        ------
        DataError : as in `WindowDecoder.fit`.
        """
        checks.dimensions("clips", clips, ("n", "frames", "height", "width", "3"))
        held, self.cv_r2_ = [], {}
        counts = {PIXELS: self.config.pixels, SEEN: self.config.seen}
        for name, features in self._features(clips).items():
            part, read = _Part.fit(features, counts[name], brain, blocks, self.config.decoder)
            self.parts_[name] = part
            true = part.of(features)
            self.cv_r2_[name] = (1 - (read - true).var(0) / np.maximum(true.var(0), 1e-12)).tolist()
            held.append(read)
        self.held_out_ = np.concatenate(held, 1)
        true = self.of(clips)
        centre, middle = true.mean(0), self.held_out_.mean(0)
        apart = true - centre
        self.slope_ = (apart * (self.held_out_ - middle)).sum(0) / np.maximum((apart**2).sum(0), 1e-12)
        self.offset_ = middle - self.slope_ * centre
        return self

    def of(self, clips: np.ndarray) -> np.ndarray:
        """Return the codes (n, code) float32 of clips (n, frames, h, w, 3) uint8."""
        features = self._features(clips)
        return np.concatenate([part.of(features[name]) for name, part in self.parts_.items()], 1, dtype=np.float32)

    def expected(self, clips: np.ndarray) -> np.ndarray:
        """Return the codes (n, code) float32 that windows of clips (n, frames, h, w, 3) uint8 tell on average.

        Of each component that is the share of its true value that a regression over the training windows says; the
        less of it can be read, the smaller.
        """
        return (self.slope_ * self.of(clips) + self.offset_).astype(np.float32)

    def read(self, brain: np.ndarray) -> np.ndarray:
        """Return the codes (n, code) float32 that brain windows (n, trs, voxels) tell."""
        found = [part.told(brain) for part in self.parts_.values()]
        return np.concatenate(found, 1, dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write config, components and decoders into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / "codes.json")
        save_file({"slope": self.slope_, "offset": self.offset_}, folder / "codes.safetensors")
        for name, part in self.parts_.items():
            part.decoder.save(folder, name)
            arrays = {"mean": part.mean.astype(np.float32), "axes": part.axes, "read": part.read}
            save_file(arrays, folder / f"{name}-components.safetensors")

    @classmethod
    def load(cls, folder: Path, see: See | None = None) -> Self:
        """Return the codes that `save` wrote, with the function that saw the clips."""
        codes = cls(CodesConfig.load(folder / "codes.json"), see)
        line = load_file(folder / "codes.safetensors")
        codes.slope_, codes.offset_ = line["slope"], line["offset"]
        for name in (PIXELS, SEEN):
            file = folder / f"{name}-components.safetensors"
            if file.is_file():
                arrays = load_file(file)
                decoder = WindowDecoder.load(folder, name)
                codes.parts_[name] = _Part(arrays["mean"], arrays["axes"], decoder, arrays["read"])
        return codes

    def _features(self, clips: np.ndarray) -> dict[str, np.ndarray]:
        """Return the features (n, units) of clips by part."""
        n, frames, height, width, _ = clips.shape
        shrink = min(1.0, self.config.largest / height)
        size = max(1, round(height * shrink)), max(1, round(width * shrink))
        small = resize(clips.reshape(n * frames, height, width, 3), *size)
        found = {PIXELS: small.reshape(n, -1).astype(np.float32)}
        return found if self.see is None else found | {SEEN: self.see(clips).astype(np.float32)}
