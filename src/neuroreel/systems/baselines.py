"""The baselines: what anybody's system has to beat, from no brain at all to a ridge.

    mean-frame      the mean training clip, whatever the brain says
    no-brain        a training clip drawn at random: the marginal of the training set
    nearest-clip    the training clip that is nearest in features decoded from the brain
    ridge-pixels    pixels by ridge, smoothed as much as cross-validation asks for
    ridge-latents   principal components of the clips by ridge

Where the samples have categories, each also answers with the probability of every category; where there are no
pictures, with nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import cv2
import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from neuroreel.brain.window import WindowDecoder, WindowDecoderConfig
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.seeds import generator
from neuroreel.core.sets import TrainingSet, require_training, resize
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Reconstruction, Samples

DECODED = ("pixels", "latents", "codes")


class Targets:
    """What a clip is described by: its frames, in the shape of the training set, and its category."""

    def __init__(self, shape: tuple[int, ...] | None, categories: tuple[str, ...]) -> None:
        self.shape = shape  # (frames, height, width, 3), None without pictures
        self.categories = categories

    @classmethod
    def of(cls, samples: Samples) -> Targets:
        """Return what the training samples have; DataError if they have neither pictures nor categories."""
        named = tuple(str(name) for name in np.unique(samples.category) if name)
        shape = None if samples.clips is None else samples.clips.shape[1:]
        has = shape is not None or len(named) >= 2
        checks.require(has, "training samples", "must have clips, or 2 categories or more", "neither")
        return cls(shape, named if len(named) >= 2 else ())

    @property
    def makes(self) -> frozenset[str]:
        """Return what can be made of it."""
        pictures = set() if self.shape is None else {"video" if self.shape[0] > 1 else "image"}
        return frozenset(pictures | ({"category"} if self.categories else set()))

    def codes(self, samples: Samples) -> np.ndarray:
        """Return one column per category, 1 where it is the clip's, (clips, categories) float32."""
        return (samples.category[:, None] == np.array(self.categories)[None]).astype(np.float32)


class Baseline(ABC):
    """What the baselines share: config, description of the training set, saving."""

    name: ClassVar[str]
    Settings: ClassVar[type[Config]] = Config

    def __init__(self, config: Config | None = None) -> None:
        self.config: Any = config if config is not None else self.Settings()
        self.decoders_: dict[str, WindowDecoder] = {}

    @property
    def makes(self) -> frozenset[str]:
        """What the fitted system makes."""
        return self.targets_.makes

    def fit(self, train: TrainingSet, *, run: RunFolder) -> Self:
        """Fit on the training set and return self; nothing else is ever seen."""
        samples = require_training(train).samples
        self.targets_ = Targets.of(samples)
        self.seed_ = run.seed
        self._fit(samples)
        return self

    def ceiling(self, truth: Samples) -> Reconstruction | None:
        """Return the truth's own features through the same generator; None where nothing is read from the brain."""
        return None

    def save(self, folder: Path) -> None:
        """Write config and weights into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / "config.json")
        shape = np.array(self.targets_.shape if self.targets_.shape is not None else [], dtype=np.int64)
        arrays = {"shape": shape, "seed": np.array([self.seed_], dtype=np.int64), **self._arrays()}
        meta = {"categories": "\n".join(self.targets_.categories)}
        save_file(
            {key: np.ascontiguousarray(array) for key, array in arrays.items()}, folder / "weights.safetensors", meta
        )
        for name, decoder in self.decoders_.items():
            decoder.save(folder, name)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the system that `save` wrote."""
        from safetensors import safe_open

        system = cls(cls.Settings.load(folder / "config.json"))
        file = folder / "weights.safetensors"
        checks.require(file.is_file(), "weights", "must be there", "no such file", file)
        arrays = load_file(file)
        with safe_open(file, framework="numpy") as opened:
            names = (opened.metadata() or {}).get("categories", "")
        shape = tuple(int(side) for side in arrays.pop("shape"))
        system.targets_ = Targets(shape or None, tuple(names.split("\n")) if names else ())
        system.seed_ = int(arrays.pop("seed")[0])
        for name in DECODED:
            if (folder / f"{name}.json").is_file():
                system.decoders_[name] = WindowDecoder.load(folder, name)
        system._restore(arrays)
        return system

    def _fit_codes(self, samples: Samples, config: WindowDecoderConfig) -> None:
        """Fit the decoder of categories, where there are any."""
        if self.targets_.categories:
            settings = config.model_copy(update={"per_target": False})
            codes = self.targets_.codes(samples)
            self.decoders_["codes"] = WindowDecoder(settings).fit(samples.brain, codes, samples.block)

    def _codes(self, bold: Samples) -> np.ndarray:
        """Return the decoded codes (clips, categories), of no columns where there are no categories."""
        decoder = self.decoders_.get("codes")
        return np.zeros((len(bold), 0), dtype=np.float32) if decoder is None else decoder.predict(bold.brain)

    @abstractmethod
    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return what was seen, one row per brain window in the same order."""

    @abstractmethod
    def _fit(self, samples: Samples) -> None:
        """Learn from the training samples."""

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """Return what was learnt besides the decoders."""

    @abstractmethod
    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what `_arrays` returned."""


class MeanFrame(Baseline):
    """The mean training clip and the categories' frequencies, whatever the brain says."""

    name = "mean-frame"

    def _fit(self, samples: Samples) -> None:
        self.frequency_ = self.targets_.codes(samples).mean(0)
        if samples.clips is not None:
            self.mean_ = np.rint(samples.clips.mean(0, dtype=np.float64)).astype(np.uint8)

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return the same answer for every brain window."""
        clips = None if self.targets_.shape is None else np.repeat(self.mean_[None], len(bold), axis=0)
        return _answer(clips, np.repeat(self.frequency_[None], len(bold), axis=0), self.targets_)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"frequency": self.frequency_}
        return arrays if self.targets_.shape is None else arrays | {"mean": self.mean_}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.frequency_ = arrays["frequency"]
        if "mean" in arrays:
            self.mean_ = arrays["mean"]


class NoBrain(Baseline):
    """A training clip drawn at random for every window: the marginal of the training set."""

    name = "no-brain"

    def _fit(self, samples: Samples) -> None:
        self.codes_ = self.targets_.codes(samples)
        if samples.clips is not None:
            self.clips_ = samples.clips

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return a training clip for every window, drawn from the run's seed and never from the brain."""
        drawn = generator(self.seed_, "no-brain").integers(len(self.codes_), size=len(bold))
        clips = None if self.targets_.shape is None else self.clips_[drawn]
        return _answer(clips, self.codes_[drawn], self.targets_)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"codes": self.codes_}
        return arrays if self.targets_.shape is None else arrays | {"clips": self.clips_}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.codes_ = arrays["codes"]
        if "clips" in arrays:
            self.clips_ = arrays["clips"]


class RidgePixelsConfig(Config):
    """Settings of ridge-pixels.

    Attributes
    ----------
    height, width : size in pixels at which frames are decoded; None for the clip's own, but at most `largest` high.
    largest : see above.
    smooth : Gaussian smoothing to try, as shares of the frame's width.
    decoder : see `WindowDecoderConfig`.
    """

    height: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    largest: int = Field(default=45, ge=1)
    smooth: tuple[float, ...] = Field(default=(0.0, 0.0125, 0.025, 0.05), min_length=1)
    decoder: WindowDecoderConfig = WindowDecoderConfig()


class RidgePixels(Baseline):
    """Pixels by ridge from the brain window: voxels, penalty and smoothing chosen by cross-validation inside train."""

    name = "ridge-pixels"
    Settings = RidgePixelsConfig

    def _fit(self, samples: Samples) -> None:
        shape = self.targets_.shape
        checks.require(shape is not None, "training samples of ridge-pixels", "must have clips", "none")
        clips = self._shrink(samples.clips)
        self.grey_ = bool((clips == clips[..., :1]).all())
        pixels = self._flatten(clips)
        finishes = [self._finish(share, clips.shape[1:4]) for share in self.config.smooth]
        decoder = WindowDecoder(self.config.decoder).fit(samples.brain, pixels, samples.block, finishes)
        self.decoders_["pixels"] = decoder
        self._fit_codes(samples, self.config.decoder)

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return the decoded pixels in the size of the training clips."""
        decoder = self.decoders_["pixels"]
        finish = self._finish(self.config.smooth[decoder.finish_], self._size())
        return _answer(self._enlarge(finish(decoder.predict(bold.brain))), self._codes(bold), self.targets_)

    def ceiling(self, truth: Samples) -> Reconstruction | None:
        """Return the true clips shrunk and smoothed as the decoded ones are."""
        finish = self._finish(self.config.smooth[self.decoders_["pixels"].finish_], self._size())
        clips = self._enlarge(finish(self._flatten(self._shrink(truth.clips))))
        return _answer(clips, self.targets_.codes(truth), self.targets_)

    def _size(self) -> tuple[int, int, int]:
        """Return frames, height and width of what is decoded."""
        assert self.targets_.shape is not None
        frames, height, width = self.targets_.shape[:3]
        shrink = min(1.0, self.config.largest / height)
        return (
            frames,
            self.config.height or max(1, round(height * shrink)),
            self.config.width or max(1, round(width * shrink)),
        )

    def _shrink(self, clips: np.ndarray | None) -> np.ndarray:
        assert clips is not None
        _, height, width = self._size()
        flat = resize(clips.reshape(-1, *clips.shape[2:]), height, width)
        return flat.reshape(*clips.shape[:2], height, width, 3)

    def _flatten(self, clips: np.ndarray) -> np.ndarray:
        """Return (clips, pixels) float32; one channel is enough where all pictures are grey."""
        channels = clips[..., :1] if self.grey_ else clips
        return channels.reshape(len(clips), -1).astype(np.float32)

    def _finish(self, share: float, size: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function that smooths and clips decoded pixels (clips, pixels)."""
        height, width = size[1:]
        channels = 1 if self.grey_ else 3

        def finish(pixels: np.ndarray) -> np.ndarray:
            if share > 0:
                images = np.ascontiguousarray(pixels, dtype=np.float32).reshape(-1, height, width, channels)
                smooth = [cv2.GaussianBlur(image, (0, 0), share * width) for image in images]
                pixels = np.stack(smooth).reshape(len(pixels), -1)
            return np.clip(pixels, 0, 255)

        return finish

    def _enlarge(self, pixels: np.ndarray) -> np.ndarray:
        """Return decoded pixels (clips, pixels) as clips of the training set's shape."""
        assert self.targets_.shape is not None
        height, width = self._size()[1:]
        images = pixels.reshape(-1, height, width, 1 if self.grey_ else 3)
        images = np.repeat(images, 3, axis=3) if self.grey_ else images
        full = resize(np.rint(images).astype(np.uint8), *self.targets_.shape[1:3])
        return full.reshape(len(pixels), *self.targets_.shape)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"grey": np.array([self.grey_])}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.grey_ = bool(arrays["grey"][0])


class RidgeLatentsConfig(Config):
    """Settings of ridge-latents and nearest-clip.

    Attributes
    ----------
    components : principal components of the clips, at most.
    largest : height in pixels to which clips are shrunk before the components are taken.
    decoder : see `WindowDecoderConfig`.
    """

    components: int = Field(default=64, ge=1)
    largest: int = Field(default=64, ge=1)
    decoder: WindowDecoderConfig = WindowDecoderConfig(per_target=True)


class RidgeLatents(Baseline):
    """Principal components of the clips by ridge, each with its own penalty, and back to pixels."""

    name = "ridge-latents"
    Settings = RidgeLatentsConfig

    def _fit(self, samples: Samples) -> None:
        if samples.clips is not None:
            latents = self._fit_components(samples.clips)
            self.decoders_["latents"] = WindowDecoder(self.config.decoder).fit(samples.brain, latents, samples.block)
        self._fit_codes(samples, self.config.decoder)

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return the clips of the decoded components."""
        latents = self.decoders_["latents"].predict(bold.brain) if "latents" in self.decoders_ else None
        return _answer(self._picture(latents), self._codes(bold), self.targets_)

    def ceiling(self, truth: Samples) -> Reconstruction | None:
        """Return the true clips through the components and back."""
        latents = None if truth.clips is None else self._project(truth.clips)
        return _answer(self._picture(latents), self.targets_.codes(truth), self.targets_)

    def _fit_components(self, clips: np.ndarray) -> np.ndarray:
        """Fit the components and return the training clips' latents (clips, components)."""
        pixels = self._flatten(clips)
        self.mean_ = pixels.mean(0)
        count = min(self.config.components, len(pixels) - 1, pixels.shape[1])
        # the components of the smaller side: clips are fewer than pixels
        left, values, right = np.linalg.svd(pixels - self.mean_, full_matrices=False)
        self.components_ = right[:count]
        return left[:, :count] * values[:count]

    def _size(self) -> tuple[int, int]:
        assert self.targets_.shape is not None
        height, width = self.targets_.shape[1:3]
        shrink = min(1.0, self.config.largest / height)
        return max(1, round(height * shrink)), max(1, round(width * shrink))

    def _flatten(self, clips: np.ndarray) -> np.ndarray:
        flat = resize(clips.reshape(-1, *clips.shape[2:]), *self._size())
        return flat.reshape(len(clips), -1).astype(np.float32)

    def _project(self, clips: np.ndarray) -> np.ndarray:
        return (self._flatten(clips) - self.mean_) @ self.components_.T

    def _picture(self, latents: np.ndarray | None) -> np.ndarray | None:
        """Return the clips of latents (clips, components)."""
        if latents is None or self.targets_.shape is None:
            return None
        frames, height, width, _ = self.targets_.shape
        pixels = np.rint(np.clip(latents @ self.components_ + self.mean_, 0, 255)).astype(np.uint8)
        full = resize(pixels.reshape(-1, *self._size(), 3), height, width)
        return full.reshape(len(latents), frames, height, width, 3)

    def _arrays(self) -> dict[str, np.ndarray]:
        if self.targets_.shape is None:
            return {}
        return {"mean": self.mean_, "components": self.components_}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        if "components" in arrays:
            self.mean_, self.components_ = arrays["mean"], arrays["components"]


class NearestClip(RidgeLatents):
    """The training clip nearest to the components decoded from the brain, by correlation of the components."""

    name = "nearest-clip"

    def _fit(self, samples: Samples) -> None:
        super()._fit(samples)
        self.codes_ = self.targets_.codes(samples)
        if samples.clips is not None:
            self.clips_ = samples.clips
            self.latents_ = self._project(samples.clips)

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return the training clip that is nearest to what was decoded."""
        if self.targets_.shape is None:
            return _answer(None, self.codes_[_nearest(self._codes(bold), self.codes_)], self.targets_)
        chosen = _nearest(self.decoders_["latents"].predict(bold.brain), self.latents_)
        return _answer(self.clips_[chosen], self.codes_[chosen], self.targets_)

    def ceiling(self, truth: Samples) -> Reconstruction | None:
        """Return the training clip that is nearest to the true one."""
        if truth.clips is None:
            return _answer(None, self.targets_.codes(truth), self.targets_)
        chosen = _nearest(self._project(truth.clips), self.latents_)
        return _answer(self.clips_[chosen], self.codes_[chosen], self.targets_)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = super()._arrays() | {"codes": self.codes_}
        return arrays if self.targets_.shape is None else arrays | {"clips": self.clips_, "latents": self.latents_}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        super()._restore(arrays)
        self.codes_ = arrays["codes"]
        if "clips" in arrays:
            self.clips_, self.latents_ = arrays["clips"], arrays["latents"]


def _nearest(decoded: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return, for each decoded row, the known row with the highest cosine."""
    length = np.linalg.norm(known, axis=1)
    return np.argmax(decoded @ (known / np.where(length > 0, length, 1.0)[:, None]).T, axis=1)


def _answer(clips: np.ndarray | None, codes: np.ndarray, targets: Targets) -> Reconstruction:
    """Return clips and the codes as probabilities: what is below 0 is 0, and rows sum to 1."""
    if not targets.categories:
        return Reconstruction(clips=clips)
    positive = np.clip(codes, 0, None) + 1e-9
    probabilities = positive / positive.sum(1, keepdims=True)
    return Reconstruction(clips=clips, probabilities=probabilities, categories=targets.categories)
