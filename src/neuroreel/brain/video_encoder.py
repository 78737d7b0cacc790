"""Video to fMRI by a network: frozen networks look at clips, a learnt readout and response make the voxels of it.

Source: Kupershmidt et al. 2022, arXiv 2206.03544: the loss and its weights. Its layers aren't published; ours are in
the manner of an encoding model, so that it starts from a ridge regression (Wen et al. 2018): features of clips, each
voxel's response as weights at several delays. `trunk="conv3d"` are the layers of a third party's port, unconfirmed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neuroreel.brain.window import WindowDecoder, WindowDecoderConfig
from neuroreel.core import checks
from neuroreel.core.config import Config

Maps = Callable[[Tensor], list[Tensor]]
See = Callable[[Tensor], Tensor]


class VideoEncoderConfig(Config):
    """Shape of the encoder, and how it begins.

    Attributes
    ----------
    trunk : "frozen" looks through the networks that are handed over, "conv3d" learns its own layers from nothing.
    looks : frames of a clip that the network of pictures looks at.
    grid, pixel_grid : side to which its maps, and the pixels, are averaged.
    components : of each space of features.
    delays_s : how long before a volume the clips began that it answers to.
    ridge : how the readout begins, see `WindowDecoder`; only penalties and folds matter.
    """

    trunk: Literal["frozen", "conv3d"] = "frozen"
    looks: int = Field(default=2, ge=1)
    grid: int = Field(default=8, ge=1)
    pixel_grid: int = Field(default=16, ge=1)
    components: int = Field(default=96, ge=1)
    delays_s: tuple[float, ...] = Field(default=(2.0, 4.0, 6.0, 8.0, 10.0), min_length=1)
    ridge: WindowDecoderConfig = WindowDecoderConfig(
        combine="concat", keep=(1.0,), per_target=True, alphas=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    )


class FrozenTrunk(nn.Module):
    """Components of pixels and their changes, of a picture network's layers and of what a video network sees.

    Parameters
    ----------
    maps : function of pictures (n, 3, h, w) from -1 to 1 that returns maps (n, channels, ...) or units (n, units) of
        layers.
    see : function of clips (n, frames, 3, h, w) from -1 to 1 that returns embeddings (n, units).
    """

    def __init__(self, config: VideoEncoderConfig, maps: Maps, see: See) -> None:
        super().__init__()
        self.config, self.maps, self.see = config, maps, see
        self.spaces = 0

    def spaces_of(self, clips: Tensor) -> list[Tensor]:
        """Return the features of clips (n, frames, 3, h, w) from -1 to 1 in every space, each (n, units)."""
        config, (n, frames) = self.config, clips.shape[:2]
        looked = ((torch.arange(config.looks) + 0.5) * frames / config.looks).long().unique()
        pictures = clips[:, looked].flatten(0, 1)
        found = [F.adaptive_avg_pool2d(pictures, config.pixel_grid)]
        for layer in self.maps(pictures):
            if layer.ndim == 4:
                layer = F.adaptive_avg_pool2d(layer, min(config.grid, *layer.shape[2:])).clamp(min=0).log1p()
            found.append(layer)
        spaces = [space.flatten(1).unflatten(0, (n, len(looked))).mean(1) for space in found]
        if frames > 1:
            changes = clips.diff(dim=1).abs().flatten(0, 1)
            moved = F.adaptive_avg_pool2d(changes, config.pixel_grid).add(1e-4).sqrt()
            spaces.append(moved.flatten(1).unflatten(0, (n, frames - 1)).mean(1))
        return [*spaces, self.see(clips)]

    @torch.no_grad()
    def begin(self, clips: np.ndarray, batch: int = 20) -> None:
        """Find the components in clips (n, frames, h, w, 3) uint8; those of each space sum to a variance of 1."""
        parts = [self.spaces_of(to_signed(clips[at : at + batch])) for at in range(0, len(clips), batch)]
        self.spaces = len(parts[0])
        for number in range(self.spaces):
            space = torch.cat([part[number] for part in parts]).numpy()
            mean = space.mean(0)
            centred = space - mean
            values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
            least = max(1e-7 * values[-1], 1e-9 * float(np.square(space).sum()))  # of what varies, and of rounding
            kept = np.flatnonzero(values > least)[::-1][: self.config.components]
            total = np.sqrt(max(values[kept].sum(), 1e-12) / len(space))
            axes = (vectors[:, kept] / np.sqrt(values[kept])).T @ centred / total  # (components, units)
            self.register_buffer(f"mean{number}", torch.from_numpy(mean))
            self.register_buffer(f"axes{number}", torch.from_numpy(axes.astype(np.float32)))

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take the components back that another trunk's own buffers were."""
        self.spaces = sum(name.startswith("mean") for name in state)
        for name, value in state.items():
            self.register_buffer(name, value)

    @property
    def units(self) -> int:
        """Length of the features."""
        return sum(len(getattr(self, f"axes{number}")) for number in range(self.spaces))

    def forward(self, clips: Tensor) -> Tensor:
        """Return the features (n, units) of clips (n, frames, 3, h, w) from -1 to 1."""
        found = []
        for number, space in enumerate(self.spaces_of(clips)):
            found.append((space - getattr(self, f"mean{number}")) @ getattr(self, f"axes{number}").T)
        return torch.cat(found, 1)


class Conv3dTrunk(nn.Module):
    """The port's layers: two convolutions over space, then time, each pooled; a temporal mean; two over space."""

    def __init__(self, units: int = 256) -> None:
        super().__init__()
        self.space = nn.Conv3d(3, 32, (1, 3, 3), padding=(0, 1, 1))
        self.time = nn.Conv3d(32, units, (5, 1, 1), padding=(2, 0, 0))
        self.blocks = nn.Sequential(
            nn.Conv2d(units, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 32, 3, 2, 1), nn.ReLU()
        )
        self.units = 32 * 4**2

    def forward(self, clips: Tensor) -> Tensor:
        """Return the features (n, units) of clips (n, frames, 3, h, w) from -1 to 1."""
        x = F.max_pool3d(F.relu(self.space(clips.transpose(1, 2))), (1, 2, 2))
        x = F.max_pool3d(F.relu(self.time(x)), (1, 2, 2)).mean(2)  # (n, channels, h / 4, w / 4)
        return F.adaptive_avg_pool2d(self.blocks(x), 4).flatten(1)


class VideoEncoder(nn.Module):
    """What was shown at several delays before a volume, to its voxels.

    Parameters
    ----------
    trunk : clips to features.
    voxels : number of voxels.
    """

    def __init__(self, trunk: FrozenTrunk | Conv3dTrunk, voxels: int, delays_s: tuple[float, ...]) -> None:
        super().__init__()
        self.trunk, self.delays_s = trunk, delays_s
        self.readout = nn.Linear(trunk.units * len(delays_s), voxels)

    def forward(self, seen: Tensor) -> Tensor:
        """Return the voxels (n, voxels) of volumes.

        Parameters
        ----------
        seen : features at the delays (n, delays * units), or the clips there (n, delays, frames, 3, h, w) from -1 to 1.
        """
        if seen.ndim == 2:
            return self.readout(seen)
        features = self.trunk(seen.flatten(0, 1))
        return self.readout(features.view(len(seen), -1))

    def answer(self, features: Tensor, mixing: Tensor) -> Tensor:
        """Return the voxels (volumes, voxels) of features (n, units) of clips, mixed by (volumes, delays, n)."""
        return self.readout(torch.einsum("vdn,nu->vdu", mixing, features).flatten(1))


def mixing_of(onsets_s: np.ndarray, step_s: float, times_s: np.ndarray, delays_s: tuple[float, ...]) -> np.ndarray:
    """Return how clips mix into volumes: weights (volumes, delays, clips) float32 that interpolate over time.

    Parameters
    ----------
    onsets_s : (clips,) when the clips began.
    step_s : time between clips; a clip further off than that has no weight, so that what wasn't seen counts as mean.
    times_s : (volumes,) times of the volumes.
    """
    wanted = times_s[:, None] - np.asarray(delays_s)[None]  # (volumes, delays)
    apart = np.abs(wanted[..., None] - onsets_s) / step_s
    return np.clip(1 - apart, 0, None).astype(np.float32)


def design_of(features: np.ndarray, mixing: np.ndarray) -> np.ndarray:
    """Return the features (clips, units) at the delays of volumes, (volumes, delays * units) float32."""
    volumes, delays, clips = mixing.shape
    return (mixing.reshape(-1, clips) @ features).reshape(volumes, delays * features.shape[1])


def begin_readout(
    readout: nn.Linear, design: np.ndarray, bold: np.ndarray, blocks: np.ndarray, config: WindowDecoderConfig
) -> WindowDecoder:
    """Let a readout begin as the ridge regression from a design, and return that regression.

    Parameters
    ----------
    design : (volumes, delays * units)
    bold : (volumes, voxels)
    blocks : (volumes,)

    Returns
    -------
    WindowDecoder, whose `held_out_` (volumes, voxels) is what the other folds predict of each volume.
    """
    ridge = WindowDecoder(config.model_copy(update={"combine": "concat", "keep": (1.0,)}))
    ridge.fit(design[:, None], bold, blocks)
    nothing = ridge.predict(np.zeros((1, 1, design.shape[1]), np.float32))
    steps = np.eye(design.shape[1], dtype=np.float32)
    weights = ridge.predict(steps[:, None]) - nothing
    with torch.no_grad():
        readout.weight.copy_(torch.from_numpy(weights.T.astype(np.float32)))
        readout.bias.copy_(torch.from_numpy(nothing[0].astype(np.float32)))
    return ridge


def encoding_loss(made: Tensor, true: Tensor, cosine: float = 0.5) -> Tensor:
    """Return ||r - r^||_2 + alpha (1 - cos(r, r^)) of every volume (n, voxels), (n,), Kupershmidt et al., L_E.

    The norm is divided by the root of the number of voxels, so that it doesn't depend on how many there are.
    """
    apart = (made - true).square().mean(1).add(1e-12).sqrt()
    return apart + cosine * (1 - F.cosine_similarity(made, true, dim=1))


def to_signed(clips: np.ndarray) -> Tensor:
    """Return clips (n, frames, h, w, 3) uint8 as (n, frames, 3, h, w) float32 from -1 to 1."""
    checks.dimensions("clips", clips, ("n", "frames", "height", "width", "rgb"))
    return torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
