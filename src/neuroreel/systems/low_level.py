"""A blurred picture read from the brain by a regression, which has its share in what a generator draws.

    picture = BrainPicture.fit(brain, latents, blocks, PictureConfig())
    clips = picture.mixed(clips, generator.decode(picture.latents(brain)))

A diffusion that is told what there is puts it in colours and places of its own. Source: MindEye2, Scotti et al. 2024,
ICML, arXiv 2403.11207, section 2.5: what the diffusion makes, averaged 4:1 with a blurred picture, whose latents are
read from the brain beside. Here they are read by ridge, voxels and penalties chosen by cross-validation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuroreel.brain.window import WindowDecoder, WindowDecoderConfig
from neuroreel.core.config import Config

NAME = "picture"


class PictureConfig(Config):
    """Settings of a `BrainPicture`.

    Attributes
    ----------
    share : of the blurred picture in every frame; MindEye2's.
    reading : choices of the regression.
    """

    share: float = Field(default=0.2, gt=0, lt=1)
    reading: WindowDecoderConfig = WindowDecoderConfig(per_target=True, keep=(0.125, 0.25, 0.5))


class BrainPicture:
    """A regression from brain windows to the latents of their clips, a mean over the frames.

    Attributes
    ----------
    shape : channels, height and width of the latents.
    reading : the regression; `reading.held_out_` are the latents of the training windows by the folds without them.
    """

    def __init__(self, config: PictureConfig, shape: tuple[int, int, int], reading: WindowDecoder) -> None:
        self.config, self.shape, self.reading = config, shape, reading

    @classmethod
    def fit(cls, brain: np.ndarray, latents: Tensor, blocks: np.ndarray, config: PictureConfig) -> Self | None:
        """Return the regression from windows (n, trs, voxels) to latents (n, frames, channels, h, w).

        It is None where clips are too few to choose its penalties by.

        Parameters
        ----------
        blocks : (n,) for the folds.
        """
        if len(blocks) < config.reading.folds * config.reading.piece:
            return None
        _, _, channels, height, width = latents.shape
        wanted = latents.float().mean(1).flatten(1).cpu().numpy()
        reading = WindowDecoder(config.reading).fit(brain, wanted, blocks)
        return cls(config, (channels, height, width), reading)

    def latents(self, brain: np.ndarray) -> Tensor:
        """Return the latents (n, channels, h, w) that windows (n, trs, voxels) say."""
        return torch.from_numpy(self.reading.predict(brain)).unflatten(1, self.shape)

    def mixed(self, clips: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """Return clips (n, frames, h, w, 3) uint8 in whose frames pictures (n, h, w, 3) uint8 have their share."""
        share = np.float32(self.config.share)
        return np.rint((1 - share) * clips + share * pictures[:, None]).astype(np.uint8)

    def save(self, folder: Path) -> None:
        """Write the regression."""
        self.config.save(folder / f"{NAME}-config.json")
        self.reading.save(folder, NAME)

    @classmethod
    def load(cls, folder: Path, shape: tuple[int, int, int]) -> Self | None:
        """Return what `save` wrote, of latents of a shape (channels, h, w); None where nothing was saved."""
        file = folder / f"{NAME}-config.json"
        return cls(PictureConfig.load(file), shape, WindowDecoder.load(folder, NAME)) if file.is_file() else None
