"""SIFT as a bag of visual words.

Sources: Lowe 2004, Int. J. Comput. Vis. 60:91 (the descriptor, by OpenCV); Csurka et al. 2004, ECCV workshop
(the words, by scikit-learn's k-means).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
from pydantic import Field

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import DataError
from neuroreel.core.seeds import generator
from neuroreel.features.extractor import Extractor, check_frames, resize, restore_array


class SiftConfig(Config):
    """Settings of the bag of words.

    Attributes
    ----------
    size : frames are made grey and size x size pixels.
    words : size of the vocabulary; 1000 in Horikawa & Kamitani 2017.
    step : pixels between the places of descriptors on a grid; 0 takes the keypoints that SIFT detects.
    diameters : pixels of the descriptors on the grid.
    max_descriptors : most descriptors that the vocabulary is fitted to, a random share of all.
    """

    size: int = Field(default=128, ge=32)
    words: int = Field(default=200, ge=2)
    step: int = Field(default=8, ge=0)
    diameters: tuple[float, ...] = (8.0, 16.0)
    max_descriptors: int = Field(default=50_000, ge=1)
    batch: int = Field(default=64, ge=1)


class SiftExtractor(Extractor):
    """The share of each visual word among a frame's descriptors, (words,); all 0 where a frame has none."""

    name = "sift"
    layers = ("sift",)
    learns = True

    def __init__(self, config: SiftConfig | None = None) -> None:
        self.config: SiftConfig = config or SiftConfig()
        self.words_: np.ndarray | None = None

    def shape(self, layer: str) -> tuple[int, ...]:
        """Return (words,)."""
        checks.one_of("layer", layer, self.layers)
        return (self.config.words,)

    def describe(self, frames: np.ndarray) -> list[np.ndarray]:
        """Return the descriptors of each frame, (descriptors, 128) float32 of length 1."""
        import cv2

        sift = cv2.SIFT.create()
        size, step = self.config.size, self.config.step
        places = range(step // 2, size, step) if step else ()
        grid = [cv2.KeyPoint(x, y, d, 0.0) for d in self.config.diameters for y in places for x in places]
        found = []
        for frame in resize(frames, size, size):
            picture = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            keypoints = grid if step else sift.detect(picture, None)
            _, descriptors = sift.compute(picture, keypoints)
            if descriptors is None:
                descriptors = np.zeros((0, 128), np.float32)
            lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
            flat = lengths[:, 0] == 0
            found.append((descriptors / np.where(lengths > 0, lengths, 1))[~flat].astype(np.float32))
        return found

    def fit(self, frames: np.ndarray, *, seed: int = 0) -> Self:
        """Fit the vocabulary to training frames by k-means.

        Raises
        ------
        DataError : the frames have fewer descriptors than there are words.
        """
        from sklearn.cluster import KMeans

        rng = generator(seed, "sift", "words")
        found = np.concatenate(self.describe(check_frames(frames)))
        if len(found) < self.config.words:
            rule = f"must have as many descriptors as there are words ({self.config.words})"
            raise DataError(checks.sentence("training frames", rule, len(found)))
        if len(found) > self.config.max_descriptors:
            found = found[np.sort(rng.choice(len(found), self.config.max_descriptors, replace=False))]
        means = KMeans(self.config.words, n_init=1, max_iter=50, random_state=int(rng.integers(2**31)))
        self.words_ = means.fit(found).cluster_centers_.astype(np.float32)
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the words (words, 128)."""
        return {} if self.words_ is None else {"words": self.words_}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Take back the words."""
        words = restore_array(arrays, "words", ("words", "128 numbers"), "sift")
        checks.same_length("sift words", len(words), "words of the config", self.config.words)
        self.words_ = words
        return self

    def _compute(self, frames: np.ndarray, fps: float) -> dict[str, np.ndarray]:
        words = np.asarray(self.words_, np.float32)
        energy = np.square(words).sum(1)
        counts = np.zeros((len(frames), len(words)), np.float32)
        for row, descriptors in enumerate(self.describe(frames)):
            if len(descriptors):
                nearest = np.argmin(energy - 2 * descriptors @ words.T, axis=1)
                counts[row] = np.bincount(nearest, minlength=len(words)) / len(descriptors)
        return {"sift": counts}
