"""A small residual network that names what frames or clips of the world show, with several answers at once.

Source: He et al. 2016, CVPR, arXiv 1512.03385, fig. 2; frames of a clip stacked as channels. Answers that look at one
place: pooling by attention, with coordinates as channels (Liu et al. 2018, NeurIPS, arXiv 1807.03247).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.nets.weights import fill, read_state

FOLD = 2
"""Pixels of one side that the first convolution takes together."""


class ResidualConfig(Config):
    """Settings of the network.

    Attributes
    ----------
    size : height and width of the frames in pixels.
    frames : frames of a clip; 1 for pictures.
    widths : channels at half the frames' resolution, and at every halving after it.
    heads : number of values of each answer, by name.
    placed : the answers that read the last map with its places kept.
    attended : the answers that read its mean weighted by an attention of their own, and where that looks; what is small
        on a busy background is lost in a plain mean, which all others read.
    """

    size: int = Field(default=64, ge=16)
    frames: int = Field(default=1, ge=1)
    widths: tuple[int, ...] = (32, 64, 128, 192)
    heads: dict[str, int]
    placed: tuple[str, ...] = ()
    attended: tuple[str, ...] = ()


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside the identity, or beside a 1 x 1 one where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        changes = stride > 1 or before != after
        beside = (nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)) if changes else ()
        self.beside = nn.Sequential(*beside)
        nn.init.zeros_(self.norm2.weight)  # at first a block adds nothing (Goyal et al. 2017, 1706.02677, 5.1)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.beside(x) + self.norm2(self.conv2(inner)))


class _Attended(nn.Module):
    """Values read from where an attention looks on a map, and from its coordinates."""

    def __init__(self, channels: int, values: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(channels, 1, 1)
        self.read = nn.Linear(channels + 2, values)

    def forward(self, x: Tensor) -> Tensor:
        """Return values (n, values) of maps (n, channels, height, width)."""
        share = self.look(x).flatten(1).softmax(1)  # (n, places)
        at = [(torch.arange(side, device=x.device) + 0.5) / side for side in x.shape[2:]]
        y, x_ = torch.meshgrid(*at, indexing="ij")
        places = torch.stack([x_, y]).to(x.dtype).expand(len(x), -1, -1, -1)
        return self.read(torch.einsum("ncp,np->nc", torch.cat([x, places], 1).flatten(2), share))


class ResidualNet(nn.Module):
    """Frames to the logits (or numbers) of every head."""

    def __init__(self, config: ResidualConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = nn.Conv2d(3 * config.frames * FOLD**2, widths[0], 3, 1, 1)
        blocks: list[nn.Module] = [_Block(widths[0], widths[0], 1)]
        for before, after in pairwise(widths):
            blocks += [_Block(before, after, 2), _Block(after, after, 1)]
        self.blocks = nn.Sequential(*blocks)
        side = config.size // FOLD // 2 ** (len(widths) - 1)
        last = widths[-1]
        self.heads = nn.ModuleDict(
            {
                name: _Attended(last, n)
                if name in config.attended
                else nn.Linear(last * (side**2 if name in config.placed else 1), n)
                for name, n in config.heads.items()
            }
        )

    @classmethod
    def load(cls, file: str | Path, config: ResidualConfig, digest: str | None = None) -> Self:
        """Return the network of a file of weights.

        Raises
        ------
        ConfigError, DataError : the file is missing, corrupt, has another SHA-256, or is of other settings.
        """
        net = cls(config)
        fill(net, read_state(file, digest), file)
        return net.eval()

    def pixels(self, frames: Tensor) -> Tensor:
        """Return pictures (n, size, size, 3) or clips (n, frames, size, size, 3), uint8, as inputs (n, c, size, size).

        Raises
        ------
        DataError : the shape is not that of the settings.
        """
        wanted = (self.config.frames, self.config.size, self.config.size, 3)
        whole = frames if frames.ndim == 5 else frames[:, None]
        got = tuple(whole.shape[1:])
        checks.require(got == wanted, "frames", f"must have the shape (n, {', '.join(map(str, wanted))})", got)
        return whole.permute(0, 1, 4, 2, 3).flatten(1, 2).float() / 127.5 - 1

    def features(self, x: Tensor) -> Tensor:
        """Return the last map (n, channels, height, width) of inputs (n, c, size, size)."""
        return self.blocks(F.relu(self.stem(F.pixel_unshuffle(x, FOLD))))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the values (n, values) of every head by name."""
        last = self.features(x)
        read = {"attended": last, "placed": last.flatten(1), "mean": last.mean((2, 3))}
        return {name: head(read[self._reads(name)]) for name, head in self.heads.items()}

    def _reads(self, name: str) -> str:
        if name in self.config.attended:
            return "attended"
        return "placed" if name in self.config.placed else "mean"

    @torch.inference_mode()
    def answers(self, frames: Tensor, batch: int = 256) -> dict[str, Tensor]:
        """Return the values of every head for uint8 pictures or clips, in batches."""
        parts = [self(self.pixels(frames[start : start + batch])) for start in range(0, len(frames), batch)]
        return {name: torch.cat([part[name] for part in parts]) for name in self.config.heads}
