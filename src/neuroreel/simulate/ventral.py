"""The network that the simulated ventral stream sees with: residual, and trained on the world's categories.

Its architecture and its weights are no decoder's, so that nothing is opened with its own key; its stages are planted in
the areas from V2 to LO. `scripts/train_ventral.py` made the weights.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from neuroreel.nets.weights import fill, read_state

WIDTHS = (24, 48, 96, 128)
"""Channels of the four stages, whose maps have 32, 16, 8 and 4 cells a side for frames of 64 pixels."""

GROUPS = 8


class Block(nn.Module):
    """Two 3 x 3 convolutions with group normalisation, added to their (strided, widened) input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(GROUPS, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(GROUPS, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, outputs, side / stride, side / stride)."""
        y = self.first_norm(self.first(x)).relu()
        y = self.second_norm(self.second(y))
        return (y + (x if self.skip is None else self.skip(x))).relu()


class VentralNetwork(nn.Module):
    """A stem and four residual stages, then the mean over places and one linear layer to the categories."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 5, 2, 2)
        widths = (WIDTHS[0], *WIDTHS)
        self.blocks = nn.ModuleList(
            Block(widths[number], widths[number + 1], 1 if number == 0 else 2) for number in range(len(WIDTHS))
        )
        self.head = nn.Linear(WIDTHS[-1], n_classes)

    @classmethod
    def seeded(cls, n_classes: int, seed: int) -> Self:
        """Return an untrained network; the same seed gives the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(n_classes)

    @classmethod
    def trained(cls) -> Self:
        """Return the network that ships with the package."""
        folder = Path(str(resources.files("neuroreel"))) / "weights" / "ventral"
        card = json.loads((folder / "card.json").read_text())
        net = cls(card["classes"])
        fill(net, read_state(folder / "ventral.safetensors", card["sha256"]), folder / "ventral.safetensors")
        return net.eval()

    @staticmethod
    def pixels(frames: Tensor) -> Tensor:
        """Return frames (n, height, width, 3), uint8 or from 0 to 1, as inputs (n, 3, height, width) around 0."""
        scale = 255.0 if frames.dtype == torch.uint8 else 1.0
        return frames.permute(0, 3, 1, 2).float() / scale - 0.5

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the maps of the four stages, (n, channels, side, side)."""
        x = self.stem(x)
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the categories, (n, classes)."""
        return self.head(self.stages(x)[-1].mean(dim=(2, 3)))

    def look(self, frames: np.ndarray) -> list[np.ndarray]:
        """Return the maps of the four stages for frames (n, height, width, 3) from 0 to 1."""
        with torch.inference_mode():
            return [each.numpy() for each in self.stages(self.pixels(torch.from_numpy(frames)))]
