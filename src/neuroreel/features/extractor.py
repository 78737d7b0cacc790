"""The protocol of every extractor: frames in, named units out, with a frozen config."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import numpy as np

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.types import Features, Video


class Extractor(ABC):
    """Base of the extractors: the checks, the batches and the order of the units are the same for all.

    A member says its layers and computes them; frames of any size come in and are resized to what it works on.

    Attributes
    ----------
    name : what `EXTRACTORS` calls it.
    learns : it must be fitted to training frames before it extracts.
    reach_s : a frame's features depend on frames up to this many seconds away; 0 for extractors of single frames.
    config : frozen settings; `batch` is the number of frames at once and changes no result.
    """

    name: ClassVar[str]
    learns: ClassVar[bool] = False
    config: Config

    @property
    def reach_s(self) -> float:
        """Seconds before and after a frame on which its features depend."""
        return 0.0

    @property
    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order of their units."""

    @abstractmethod
    def shape(self, layer: str) -> tuple[int, ...]:
        """Return the shape of a layer's units, e.g. (channels, height, width); its product is their number."""

    def places(self, layer: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the centres of a map's columns and of its rows, each evenly spaced, in shares of the frame's sides.

        None where a layer's units have no place: where their shape isn't (channels, height, width).
        """
        shape = self.shape(checks.one_of("layer", layer, self.layers))
        if len(shape) != 3:
            return None
        return (np.arange(shape[2]) + 0.5) / shape[2], (np.arange(shape[1]) + 0.5) / shape[1]

    @abstractmethod
    def _compute(self, frames: np.ndarray, fps: float) -> dict[str, np.ndarray]:
        """Return (n, units) float32 by layer for checked frames, a batch of them."""

    def fit(self, frames: np.ndarray, *, seed: int = 0) -> Self:
        """Learn from training frames (n, height, width, 3) uint8 what the features need; nothing for most."""
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what `fit` learnt, by name, so that it can be saved."""
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Take back what `arrays` returned."""
        return self

    @property
    def n_units(self) -> dict[str, int]:
        """Number of units by layer."""
        return {layer: int(np.prod(self.shape(layer))) for layer in self.layers}

    def unit_names(self, layer: str) -> np.ndarray:
        """Return the names of a layer's units, (units,): the layer and the indices along its shape, `conv1/0/3/4`."""
        checks.one_of("layer", layer, self.layers)
        grids = np.indices(self.shape(layer)).reshape(len(self.shape(layer)), -1)
        return np.array([f"{layer}/{'/'.join(map(str, place))}" for place in grids.T])

    def extract_layers(self, frames: np.ndarray, fps: float) -> dict[str, np.ndarray]:
        """Return (n, units) float32 by layer.

        Parameters
        ----------
        frames : (n, height, width, 3) uint8 RGB, consecutive at `fps`.
        fps : frames per second; read only by extractors of motion.

        Raises
        ------
        DataError : the frames are not such an array, there are none, fps is not above 0, or `fit` was not called.
        """
        check_frames(frames)
        checks.positive("fps", fps)
        if self.learns:
            checks.require(bool(self.arrays()), self.name, "must be fitted before it extracts", "no fit")
        parts = list(self._batches(frames, fps))
        return {layer: np.concatenate([part[layer] for part in parts]) for layer in self.layers}

    def extract(self, frames: np.ndarray, fps: float) -> np.ndarray:
        """Return all layers side by side, (n, units) float32, in the order of `layers`; see `extract_layers`."""
        found = self.extract_layers(frames, fps)
        return np.concatenate([found[layer] for layer in self.layers], axis=1)

    def features(self, video: Video) -> dict[str, Features]:
        """Return the features of a video by layer, all of it in memory; for long ones see `FeatureStream`."""
        found: dict[str, list[np.ndarray]] = {layer: [] for layer in self.layers}
        for batch in self.stream(video):
            for layer, values in batch.items():
                found[layer].append(values)
        return {layer: Features(np.concatenate(parts), video.fps, self.name, layer) for layer, parts in found.items()}

    def stream(self, video: Video) -> Iterator[dict[str, np.ndarray]]:
        """Give the features of a video batch by batch, (frames of the batch, units) float32 by layer, in order.

        An extractor of motion reads the frames before and after a batch too, so that no seam is left.
        """
        context = int(np.ceil(self.reach_s * video.fps))
        step = max(self._batch, 4 * context)
        total = video.shape[0]
        for start in range(0, total, step):
            stop = min(start + step, total)
            first, last = max(0, start - context), min(total, stop + context)
            found = self.extract_layers(video.frames(first, last), video.fps)
            yield {layer: values[start - first : stop - first] for layer, values in found.items()}

    @property
    def _batch(self) -> int:
        return int(getattr(self.config, "batch", 64))

    def _batches(self, frames: np.ndarray, fps: float) -> Iterator[dict[str, np.ndarray]]:
        if self.reach_s > 0:
            yield self._compute(frames, fps)
            return
        for start in range(0, len(frames), self._batch):
            yield self._compute(frames[start : start + self._batch], fps)


def check_frames(frames: np.ndarray) -> np.ndarray:
    """Return frames (n, height, width, 3) uint8 with n >= 1, else raise DataError."""
    frames = np.asarray(frames)
    checks.dimensions("frames", frames, ("frames", "height", "width", "rgb"))
    checks.require(frames.dtype == np.uint8, "frames", "must be uint8", frames.dtype)
    checks.require(frames.shape[3] == 3, "frames", "must have 3 colours on the last axis", f"shape {frames.shape}")
    checks.require(frames.size > 0, "frames", "must be 1 or more of 1 pixel or more", f"shape {frames.shape}")
    return frames


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return frames (n, h, w, ...) as (n, height, width, ...) of the same type: area means down, linear up."""
    if frames.shape[1:3] == (height, width):
        return frames
    import cv2

    smaller = height <= frames.shape[1] and width <= frames.shape[2]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in frames])


def grey(frames: np.ndarray) -> np.ndarray:
    """Return the luma of frames (n, h, w, 3) uint8, (n, h, w) float32 from 0 to 1 (ITU-R BT.601)."""
    return frames @ (np.array([0.299, 0.587, 0.114], dtype=np.float32) / np.float32(255))


def restore_array(arrays: Mapping[str, np.ndarray], key: str, axes: tuple[str, ...], source: str) -> np.ndarray:
    """Return one finite array of a saved extractor, or raise DataError if it is missing or has other axes."""
    if key not in arrays:
        raise DataError(checks.sentence(f"{source} {key}", "must be there", f"{', '.join(arrays) or 'nothing'}"))
    return checks.finite(f"{source} {key}", checks.dimensions(f"{source} {key}", np.asarray(arrays[key]), axes))


def known_layers(layers: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the layers if there is one or more, each known and named once; else raise ConfigError."""
    for layer in layers:
        checks.one_of("layer", layer, known)
    once = len(layers) > 0 and len(set(layers)) == len(layers)
    checks.require(once, "layers", "must be 1 or more, each once", layers, error=ConfigError)
    return layers
