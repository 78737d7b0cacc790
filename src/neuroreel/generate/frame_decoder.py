"""Frames of a clip from a short code: what the code says linearly, and what a convolutional network adds to it.

Sources: Kupershmidt et al. 2022, arXiv 2206.03544 (fMRI -> frames by a decoder of convolutions and upsampling; its
layers are those of a third party's port, unconfirmed). That the network begins as a linear reconstruction is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.sets import resize


class FrameDecoderConfig(Config):
    """Shape of the decoder.

    Attributes
    ----------
    base : "linear" begins with the clip that the code says linearly, to which the network adds; "none" is the
        published kind, a fully connected layer and three upsamplings.
    size : height in pixels of what is decoded, enlarged to the clip's own; with "none" a multiple of 8.
    width : channels of the network.
    told : channels that the code has beside the linear clip.
    """

    base: Literal["linear", "none"] = "linear"
    size: int = Field(default=32, ge=8)
    width: int = Field(default=48, ge=1)
    told: int = Field(default=8, ge=0)

    @classmethod
    def published(cls) -> FrameDecoderConfig:
        """Return the port's sizes: 14 x 14 x 48 to 112 pixels."""
        return cls(base="none", size=112, width=48)


class ClipBasis:
    """Principal components of whole clips at a small size: the code, and the clip that a code says.

    A component spans all frames of a clip, so that the first ones stand still and later ones move: what a code can say
    of movement is what clips do.

    Attributes
    ----------
    mean_ : (frames, 3, height, width) float32, of pixels from -1 to 1.
    axes_ : (components, frames * 3 * height * width) float32, of length 1: those who read a code see which of its
        numbers matter.
    sd_ : (components,) of the codes of the clips of the fit.
    """

    mean_: np.ndarray
    axes_: np.ndarray
    sd_: np.ndarray

    def fit(self, clips: np.ndarray, size: int, components: int) -> Self:
        """Fit to clips (n, frames, h, w, 3) uint8: so many components of pixels at a height of `size`, at most."""
        height, width = clips.shape[2:4]
        shrink = min(1.0, size / height)
        self.size = max(1, round(height * shrink)), max(1, round(width * shrink))
        flat = self._flat(clips)
        mean = flat.mean(0)
        centred = flat - mean
        values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
        kept = np.flatnonzero(values > 1e-9 * values[-1])[::-1][:components]
        checks.require(len(kept) > 0, "clips", "must differ", "all the same")
        self.mean_ = mean.reshape(clips.shape[1], 3, *self.size)
        self.axes_ = ((vectors[:, kept] / np.sqrt(values[kept])).T @ centred).astype(np.float32)
        self.sd_ = np.sqrt(values[kept] / len(clips)).astype(np.float32)
        return self

    def codes(self, clips: np.ndarray, batch: int = 200) -> np.ndarray:
        """Return the codes (n, components) float32 of clips (n, frames, h, w, 3) uint8."""
        parts = [clips[at : at + batch] for at in range(0, len(clips), batch)]
        return np.concatenate([(self._flat(part) - self.mean_.ravel()) @ self.axes_.T for part in parts])

    def _flat(self, clips: np.ndarray) -> np.ndarray:
        n, frames = clips.shape[:2]
        small = resize(clips.reshape(n * frames, *clips.shape[2:]), *self.size)
        return small.transpose(0, 3, 1, 2).reshape(n, -1).astype(np.float32) / 127.5 - 1

    def show(self, codes: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return the clips (n, frames, height, width, 3) uint8 that codes (n, components) say linearly."""
        small = torch.from_numpy((codes @ self.axes_ + self.mean_.ravel()).astype(np.float32))
        maps = enlarge(small.view(len(codes), -1, *self.size), (height, width))
        return to_bytes(maps.unflatten(1, (len(self.mean_), 3)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what was learnt by name, for saving."""
        return {"mean": self.mean_, "axes": self.axes_, "sd": self.sd_}

    def restore(self, arrays: dict[str, np.ndarray]) -> Self:
        """Take back what `arrays` returned."""
        self.mean_, self.axes_, self.sd_ = arrays["mean"], arrays["axes"], arrays["sd"]
        self.size = (self.mean_.shape[2], self.mean_.shape[3])
        return self


class FrameDecoder(nn.Module):
    """Codes (n, components) to clips (n, frames, 3, h, w), pixels from -1 to 1 (not clipped).

    Parameters
    ----------
    basis : of the codes.
    height, width : of the clips in pixels.

    Attributes
    ----------
    share : of what the network adds to the linear clip, to try; `settle` makes it last.
    """

    mean: Tensor
    axes: Tensor
    sd: Tensor

    def __init__(self, basis: ClipBasis, height: int, width: int, config: FrameDecoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FrameDecoderConfig()
        self.share = 1.0
        self.sides = height, width
        self.register_buffer("mean", torch.from_numpy(basis.mean_.copy()), persistent=False)
        self.register_buffer("axes", torch.from_numpy(basis.axes_.copy()), persistent=False)
        self.register_buffer("sd", torch.from_numpy(basis.sd_.copy()), persistent=False)
        self.small = basis.size
        self.frames, channels = basis.mean_.shape[0], 3 * basis.mean_.shape[0]
        if config.base == "none":
            self.coarse = max(1, config.size // 8)
            self.told = nn.Linear(len(basis.axes_), config.width * self.coarse**2)
            stages: list[nn.Module] = []
            for _ in range(3):
                up = nn.Upsample(scale_factor=2)
                stages += [nn.Conv2d(config.width, config.width, 5, padding=2), nn.ReLU(), up]
                stages.append(nn.BatchNorm2d(config.width))
            self.add = nn.Sequential(*stages, nn.Conv2d(config.width, channels, 5, padding=2), nn.Sigmoid())
            return
        self.coarse = max(1, min(self.small) // 4)
        self.told = nn.Linear(len(basis.axes_), config.told * self.coarse**2)
        layers: list[nn.Module] = [nn.Conv2d(channels + config.told, config.width, 3, padding=1), nn.SiLU()]
        for apart in (2, 4):
            layers += [nn.Conv2d(config.width, config.width, 3, padding=apart, dilation=apart), nn.SiLU()]
        last = nn.Conv2d(config.width, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias if last.bias is not None else torch.zeros(0))
        self.add = nn.Sequential(*layers, last)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the clips (n, frames, 3, h, w) of codes (n, components)."""
        told = self.told(codes / self.sd).view(len(codes), -1, self.coarse, self.coarse)
        if self.config.base == "none":
            frames = 2 * self.add(told) - 1  # (n, frames * 3, size, size)
        else:
            base = self.linear(codes)
            wide = F.interpolate(told, self.small, mode="bilinear", align_corners=False)
            frames = base + self.share * self.add(torch.cat([base, wide], 1))
        return enlarge(frames, self.sides).unflatten(1, (self.frames, 3))

    @torch.no_grad()
    def settle(self, share: float) -> None:
        """Let the network add this share of what it adds, for good: with 0 it is where it began."""
        assert isinstance(self.add, nn.Sequential)
        for value in self.add[-1].parameters():
            value.mul_(share)
        self.share = 1.0

    def linear(self, codes: Tensor) -> Tensor:
        """Return what the codes say linearly, (n, frames * 3, small height, small width)."""
        return (codes @ self.axes + self.mean.flatten()).view(len(codes), -1, *self.small)

    @torch.no_grad()
    def show(self, codes: np.ndarray, batch: int = 64) -> np.ndarray:
        """Return the clips (n, frames, h, w, 3) uint8 of codes (n, components)."""
        training, device = self.training, self.mean.device
        self.eval()
        made = []
        for part in torch.from_numpy(np.ascontiguousarray(codes, np.float32)).split(batch):
            made.append(to_bytes(self(part.to(device))))
        self.train(training)
        return np.concatenate(made) if made else np.zeros((0, self.frames, *self.sides, 3), np.uint8)


def enlarge(frames: Tensor, sides: tuple[int, int]) -> Tensor:
    """Return maps (n, channels, h, w) at the height and width of `sides`."""
    if tuple(frames.shape[2:]) == sides:
        return frames
    return F.interpolate(frames, sides, mode="bicubic", align_corners=False)


def to_bytes(clips: Tensor) -> np.ndarray:
    """Return clips (n, frames, 3, h, w) from -1 to 1 as (n, frames, h, w, 3) uint8."""
    return ((clips.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()


def picture_error(show: Callable[[np.ndarray], np.ndarray], codes: np.ndarray, clips: np.ndarray) -> float:
    """Return the mean squared difference of what codes show to clips (n, frames, h, w, 3) uint8, of pixels -1 to 1.

    Parameters
    ----------
    show : function of codes (n, components) that returns clips like those.
    """
    total = 0.0
    for at in range(0, len(clips), 64):
        apart = (show(codes[at : at + 64]).astype(np.float32) - clips[at : at + 64]) / 127.5
        total += float(np.square(apart).mean((1, 2, 3, 4), dtype=np.float64).sum())
    return total / len(clips)


def total_variation(clips: Tensor, time: float = 1.0) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels of clips (n, frames, 3, h, w), (n,).

    Parameters
    ----------
    time : weight of the difference from each frame to the next beside those from pixel to pixel: the temporal prior.
    """
    spread = sum((clips.diff(dim=axis).abs().flatten(1).mean(1) for axis in (3, 4)), torch.zeros(len(clips)).to(clips))
    if clips.shape[1] == 1 or time == 0:
        return spread
    return spread + time * clips.diff(dim=1).abs().flatten(1).mean(1)
