"""A generator of clips and its two judges, one of frames and one of movement, all three told what the brain says.

    generator        FC -> 3-D transposed convolutions -> clip         of a code of the brain and noise
    frame judge      2-D convolutions over single frames               is it a picture, and that of this brain?
    clip judge       3-D convolutions over the clip at half its size   does it move like a clip, and that of this brain?

A judge's score of x under the condition y is psi(phi(x)) + <V y, phi(x)>, with phi the convolutions' sum over places.

Sources: f-CVGAN (Wang et al. 2022, Cereb. Cortex), a spatial and a temporal discriminator conditioned on fMRI, whose
layers and losses aren't published; projection: Miyato & Koyama 2018, ICLR, arXiv 1802.05637, eq. 3; spectral norm:
Miyato et al. 2018, ICLR, arXiv 1802.05957; hinge: Lim & Ye 2017, arXiv 1705.02894, eq. 9; few whole frames for the
one judge, smaller clips for the other: Clark et al. 2019 (DVD-GAN), arXiv 1907.06571, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from neuroreel.core import checks
from neuroreel.core.config import Config

LEAST = 4
"""Pixels of the coarsest map's sides, at least; what the judges' convolutions stop at, too."""

LEAK = 0.2


class AdversarialConfig(Config):
    """Shape of the three networks.

    Attributes
    ----------
    widths : channels before each doubling of the sides, from coarse to fine; a small clip takes as many as it needs.
    noise : numbers of noise beside the code.
    frame_widths, clip_widths : channels after each halving.
    frames_seen : frames of a clip that the frame judge sees, drawn anew every time.
    temporal : whether there is a clip judge; clips of one frame have none.
    """

    widths: tuple[int, ...] = Field(default=(192, 96, 32, 16), min_length=1)
    noise: int = Field(default=32, ge=0)
    frame_widths: tuple[int, ...] = Field(default=(24, 48, 96, 96), min_length=1)
    clip_widths: tuple[int, ...] = Field(default=(24, 48, 96), min_length=1)
    frames_seen: int = Field(default=1, ge=1)
    temporal: bool = True


@dataclass(frozen=True)
class Stages:
    """How a clip grows.

    Attributes
    ----------
    start : (frames, height, width) of the coarsest map.
    longer : of every doubling of height and width, whether it doubles the frames too.
    """

    start: tuple[int, int, int]
    longer: tuple[bool, ...]


def stages(frames: int, height: int, width: int, most: int) -> Stages:
    """Return how a clip grows from its coarsest map: every stage doubles the sides, the first ones the frames too.

    Parameters
    ----------
    frames, height, width : of the clip.
    most : stages, at most.

    Raises
    ------
    DataError : the sides can't be halved.
    """
    count = 0
    while count < most and all(side % (2 << count) == 0 and side >= LEAST * (2 << count) for side in (height, width)):
        count += 1
    rule = f"must be multiples of 2 and {2 * LEAST} or more"
    checks.require(count > 0, "height and width of generated clips", rule, f"{height} x {width}")
    checks.require(frames >= 1, "frames of generated clips", "must be 1 or more", frames)
    double = 0
    while double < count and frames % 2 ** (double + 1) == 0:
        double += 1
    start = frames // 2**double, height // 2**count, width // 2**count
    return Stages(start, tuple(number < double for number in range(count)))


class Generator(nn.Module):
    """Codes of the brain and noise to clips.

    What the code says by itself, a linear map to a small clip, may be known before; the convolutions then add to it,
    and begin by adding nothing.

    Parameters
    ----------
    shape : (frames, height, width) of the clips.
    code : length of a code.
    config : see there.
    """

    plain: Tensor
    offset: Tensor

    def __init__(self, shape: tuple[int, int, int], code: int, config: AdversarialConfig) -> None:
        super().__init__()
        self.shape = shape
        grows = stages(*shape, len(config.widths))
        widths = (*config.widths[len(config.widths) - len(grows.longer) :], 3)
        self.start = (widths[0], *grows.start)
        self.noise = config.noise
        self.fc = nn.Linear(code + config.noise, int(np.prod(self.start)))
        layers: list[nn.Module] = []
        for (before, after), longer in zip(pairwise(widths), grows.longer, strict=True):
            kernel, stride, beside = (4, 2, 1) if longer else (1, 1, 0)  # in time
            layers += [nn.GroupNorm(_groups(before), before), nn.ReLU()]
            layers += [nn.ConvTranspose3d(before, after, (kernel, 4, 4), (stride, 2, 2), (beside, 1, 1))]
        self.layers = nn.Sequential(*layers)
        self.small = small_shape(shape)
        size = 3 * int(np.prod(self.small))
        self.register_buffer("plain", torch.zeros(size, code))
        self.register_buffer("offset", torch.zeros(size))

    def begin_with(self, plain: Tensor, offset: Tensor) -> None:
        """Let every clip begin as the small one (frames, h, w, 3) that is `plain @ code + offset`."""
        self.plain.copy_(plain)
        self.offset.copy_(offset)
        last = self.layers[-1]
        assert isinstance(last, nn.ConvTranspose3d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, code: Tensor, noise: Tensor) -> Tensor:
        """Return clips (n, frames, 3, height, width), about -1 to 1, of codes (n, code) and noise (n, noise)."""
        maps = self.fc(torch.cat([code, noise], 1)).view(-1, *self.start)
        small = F.linear(code, self.plain, self.offset).view(len(code), *self.small, 3).permute(0, 4, 1, 2, 3)
        plain = F.interpolate(small.float(), self.shape, mode="trilinear", align_corners=False)
        return (plain + smooth(self.layers(maps).float())).transpose(1, 2)


class Judge(nn.Module):
    """Convolutions, each halving the sides down to the smallest, and the projection; every weight's norm is spectral.

    Parameters
    ----------
    frames : of what is judged; None for single frames.
    code : length of the condition.
    widths : channels after each halving.
    """

    def __init__(self, frames: int | None, side: int, code: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.frames = frames
        convs: list[nn.Module] = []
        for before, after in pairwise((3, *widths)):
            smaller = side >= 2 * LEAST
            shorter = frames is not None and frames >= 4
            kernel, stride = (4, 2) if smaller else (3, 1)
            if frames is None:
                conv: nn.Module = nn.Conv2d(before, after, kernel, stride, 1)
            else:
                time = (4, 2) if shorter else (3, 1)
                conv = nn.Conv3d(before, after, (time[0], kernel, kernel), (time[1], stride, stride), 1)
                frames = frames // time[1]
            convs += [spectral_norm(conv), nn.LeakyReLU(LEAK)]
            side //= stride
        self.convs = nn.Sequential(*convs)
        self.plain = spectral_norm(nn.Linear(widths[-1], 1))
        self.told = spectral_norm(nn.Linear(code, widths[-1], bias=False))

    def forward(self, seen: Tensor, code: Tensor) -> Tensor:
        """Return the scores (n,) of frames (n, 3, h, w), or clips (n, frames, 3, h, w), under codes (n, code)."""
        maps = self.convs(seen if self.frames is None else seen.transpose(1, 2))
        phi = maps.flatten(2).float().mean(2)
        return self.plain(phi).float()[:, 0] + (self.told(code).float() * phi).sum(1)


class Adversaries(nn.Module):
    """Generator and judges as one network, so that they are trained, kept and shared among processes together.

    Attributes
    ----------
    generator : see `Generator`.
    judges : "frame", and "clip" where there is one.
    """

    def __init__(self, shape: tuple[int, int, int], code: int, config: AdversarialConfig) -> None:
        super().__init__()
        self.generator = Generator(shape, code, config)
        self.judges = nn.ModuleDict({"frame": Judge(None, min(shape[1:]), code, config.frame_widths)})
        if config.temporal and shape[0] > 1:
            self.judges["clip"] = Judge(shape[0], min(half(shape)[1:]), code, config.clip_widths)

    def forward(
        self, code: Tensor, noise: Tensor, frames: Tensor, real: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Return made clips with the judges' scores of them, and of the real ones where such are given.

        Parameters
        ----------
        code, noise : (n, code), (n, noise).
        frames : (n, k) which frames of each clip the frame judge sees.
        real : (n, frames, 3, h, w), -1 to 1, in the judges' turn: nothing is then learnt by the generator.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and real is None):
            made = self.generator(code, noise)
        return made, self.scores(made, code, frames), {} if real is None else self.scores(real, code, frames)

    def scores(self, clips: Tensor, code: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """Return every judge's scores (n,) of clips (n, frames, 3, h, w) by its name."""
        picked = pick(clips, frames)
        one = self.judges["frame"](picked.flatten(0, 1), code.repeat_interleave(frames.shape[1], 0))
        found = {"frame": one.view(frames.shape).mean(1)}
        if "clip" in self.judges:
            small = F.interpolate(clips.transpose(1, 2), half(clips.shape[1:2] + clips.shape[3:]), mode="area")
            found["clip"] = self.judges["clip"](small.transpose(1, 2), code)
        return found


def smooth(maps: Tensor) -> Tensor:
    """Return maps (n, channels, frames, h, w) under the kernel (1, 2, 1) / 4 along both sides, edges repeated.

    Transposed convolutions leave a pattern of the step of their stride, which this kernel has no response to.
    Source: Sugawara et al. 2018, ICIP, arXiv 1806.02658, section 3.
    """
    x = F.pad(maps, (1, 1, 1, 1, 0, 0), mode="replicate")
    x = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
    return (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]) / 4


def pick(clips: Tensor, frames: Tensor) -> Tensor:
    """Return the frames (n, k) of clips (n, frames, 3, h, w), (n, k, 3, h, w)."""
    return clips[torch.arange(len(clips), device=clips.device)[:, None], frames]


def half(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (frames, height, width) with sides half as long, where that leaves enough for a convolution or two."""
    frames, height, width = shape
    factor = 2 if min(height, width) >= 8 * LEAST else 1
    return frames, height // factor, width // factor


def small_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape of the small clips that a generator may begin with: sides of a fourth."""
    frames, height, width = shape
    return frames, max(1, height // 4), max(1, width // 4)


def hinge_of_judge(real: Tensor, made: Tensor) -> Tensor:
    """Return max(0, 1 - real) + max(0, 1 + made) of scores (n,)."""
    return F.relu(1 - real) + F.relu(1 + made)


def hinge_of_generator(made: Tensor) -> Tensor:
    """Return the negative of the scores (n,) of what was made."""
    return -made


def diversity(features: np.ndarray) -> float:
    """Return the mean Euclidean distance between the features (clips, units) of every two different clips.

    Raises
    ------
    DataError : there are fewer than two clips.
    """
    checks.require(len(features) >= 2, "clips whose diversity is measured", "must be 2 or more", len(features))
    x = features.astype(np.float64)
    x = x - x.mean(0)
    square = (x**2).sum(1)
    apart = np.sqrt(np.maximum(square[:, None] + square[None] - 2 * x @ x.T, 0))
    np.fill_diagonal(apart, 0)
    return float(apart.sum() / (len(x) * (len(x) - 1)))


def diversity_ratio(made: np.ndarray, real: np.ndarray) -> float:
    """Return how diverse made clips are in their features (clips, units), in units of the real ones; 0 is a collapse.

    1 where the real ones are all the same: there is nothing to lose then.
    """
    whole = diversity(real)
    return diversity(made) / whole if whole > 0 else 1.0


def _groups(channels: int) -> int:
    """Return the number of groups of a norm: 8 where that divides the channels."""
    return int(np.gcd(8, channels))
