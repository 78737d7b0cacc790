"""A blurred picture read from the brain by a regression, which a generator's sampling begins with instead of noise.

    read = BrainPicture.fit(brain, latents, blocks, PictureConfig())
    clips = denoise(..., start=read.latents(brain), strength=0.75)

A diffusion that is only told what there is puts it where the noise has it. Source: Takagi & Nishimoto 2023, CVPR (doi
10.1109/CVPR52729.2023.01389), section 3.3, which reads latents of the autoencoder from early visual cortex; here voxels
and penalties are chosen by cross-validation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuroreel.brain.window import WindowDecoder, WindowDecoderConfig
from neuroreel.core.config import Config

NAME = "picture"


class PictureConfig(Config):
    """Settings of a `BrainPicture`, and of how it is used.

    Attributes
    ----------
    strengths : shares of the diffusion's time to begin from that held-out clips choose among; with 1 nothing of what
        was read is left.
    reading : choices of the regression.
    """

    strengths: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(default=(1.0, 0.85, 0.7), min_length=1)
    reading: WindowDecoderConfig = WindowDecoderConfig(per_target=True, keep=(0.125, 0.25, 0.5))


class BrainPicture:
    """A regression from brain windows to the mean latents of their clips.

    Attributes
    ----------
    shape : channels, height and width of the latents.
    reading : the regression; `reading.held_out_` are the latents of the training windows by the folds without them.
    """

    def __init__(self, shape: tuple[int, int, int], reading: WindowDecoder) -> None:
        self.shape, self.reading = shape, reading

    @classmethod
    def fit(cls, brain: np.ndarray, latents: Tensor, blocks: np.ndarray, config: PictureConfig) -> Self:
        """Return the regression from windows (n, trs, voxels) to latents (n, frames, channels, h, w).

        Parameters
        ----------
        blocks : (n,) for the folds.
        """
        _, _, channels, height, width = latents.shape
        wanted = latents.float().mean(1).flatten(1).cpu().numpy()
        return cls((channels, height, width), WindowDecoder(config.reading).fit(brain, wanted, blocks))

    def latents(self, brain: np.ndarray) -> Tensor:
        """Return the latents (n, channels, h, w) that windows (n, trs, voxels) say."""
        return torch.from_numpy(self.reading.predict(brain)).unflatten(1, self.shape)

    def save(self, folder: Path) -> None:
        """Write the regression."""
        self.reading.save(folder, NAME)

    @classmethod
    def load(cls, folder: Path, shape: tuple[int, int, int]) -> Self | None:
        """Return what `save` wrote, of latents of a shape (channels, h, w); None where nothing was saved."""
        if not (folder / f"{NAME}.safetensors").is_file():
            return None
        return cls(shape, WindowDecoder.load(folder, NAME))
