"""The small generator that ships with the package: pictures and clips of the simulated world from captions.

Its folder is laid out as that of a `StableDiffusionPipeline`, with the whole CLIP model, what makes clips of its
pictures and the classifier of clips beside it: `scripts/train_world.py` made it, `card.json` says how and has the
SHA-256 of every file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroreel.core import checks
from neuroreel.generate.latent import LatentGenerator, to_pixels
from neuroreel.nets.world import WORLD, check_part, read_card, read_classifier

if TYPE_CHECKING:
    from torch import Tensor

    from neuroreel.generate.inflate import InflatedUNet
    from neuroreel.nets.residual import ResidualNet

SHIPPED = WORLD
FRAMES = 6
"""Frames of a clip, at 3 per second."""
SHARED_NOISE = 0.8
"""Share of the noise that the frames of a clip have in common, in training and in sampling, see `shared_noise`."""
GUIDANCE, WITHIN = 5.0, (0.2, 1.0)
"""Scale of the guidance of pictures, and the shares of the noise between which there is any."""
MOTION = Path("motion") / "weights.safetensors"
"""File of what the U-Net of clips has beside that of pictures, as `ClipUNet.save` writes it."""


def load_world(folder: str | Path | None = None, parts: Sequence[str] | None = None) -> World:
    """Return the world's generator, every file checked before it is used.

    Parameters
    ----------
    folder : the weights; those shipped with the package by default.
    parts : names of the parts that are needed; all that the card lists by default. Their networks are read from their
        files when they are first used.

    Raises
    ------
    ConfigError : the folder has no card, or a part isn't in it.
    DataError : a file of a part is missing or has another SHA-256 than the card says; the part is named.
    """
    folder = Path(folder or SHIPPED)
    card = read_card(folder)
    for part in card["parts"] if parts is None else parts:
        check_part(folder, card, part)
    return World(folder, card)


class World(LatentGenerator):
    """The parts of the generator, each read when it is first used.

    Attributes
    ----------
    folder : where the parts are; `StableDiffusionPipeline.from_pretrained` opens it too.
    card : what is known of them.
    """

    def __init__(self, folder: Path, card: dict[str, Any]) -> None:
        super().__init__(folder)
        self.folder, self.card = folder, card

    def open(self, name: str, kind: Any) -> Any:
        """Return a part that the card lists; else as `LatentGenerator.open`."""
        checks.one_of("weights part", name, self.card["parts"], self.folder)
        return super().open(name, kind)

    @cached_property
    def clip(self) -> Any:
        """The `CLIPModel` of pictures and captions; its text encoder is `text_encoder`."""
        from transformers import CLIPModel

        return self.open("clip", CLIPModel)

    @cached_property
    def video_unet(self) -> InflatedUNet:
        """The U-Net of clips: that of pictures, inflated, with the attention that was trained on clips."""
        from neuroreel.generate.inflate import inflate

        checks.one_of("weights part", "motion", self.card["parts"], self.folder)
        made = inflate(self.unet, FRAMES)
        made.load(self.folder / MOTION)
        return made.eval()

    @cached_property
    def video_classifier(self) -> ResidualNet:
        """The classifier of clips: category, and what the object does."""
        checks.one_of("weights part", "video_classifier", self.card["parts"], self.folder)
        return read_classifier(self.folder / "video_classifier")

    def classes(self, part: str) -> dict[str, list[str]]:
        """Return the names of the classes of a classifier's heads, in the order of their values."""
        checks.one_of("weights part", part, self.card["parts"], self.folder)
        return self.card["parts"][part]["classes"]

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Return the embeddings of captions in the space shared with pictures, (n, dim), of length 1."""
        import torch
        import torch.nn.functional as F

        with torch.no_grad():
            read = self.clip.text_model(input_ids=self.ids(captions)).pooler_output
            return F.normalize(self.clip.text_projection(read), dim=-1)

    def embed_images(self, frames: np.ndarray) -> Tensor:
        """Return the embeddings of frames (n, h, w, 3) uint8 in the space shared with captions, (n, dim), length 1."""
        import torch
        import torch.nn.functional as F

        with torch.no_grad():
            seen = self.clip.vision_model(pixel_values=to_pixels(frames)).pooler_output
            return F.normalize(self.clip.visual_projection(seen), dim=-1)

    def images(
        self,
        captions: Sequence[str],
        *,
        steps: int = 25,
        guidance: float = GUIDANCE,
        within: tuple[float, float] = WITHIN,
        sampler: str = "dpm++",
        seed: int = 0,
        batch: int = 50,
    ) -> np.ndarray:
        """Return a picture of every caption, (n, 64, 64, 3) uint8; the arguments are those of `samplers.denoise`.

        A picture depends on its caption, its number and the seed, not on the batch, but for rounding.
        """
        return self.decode(self._generate(self.unet, captions, steps, guidance, within, sampler, seed, batch))

    def clips(
        self,
        captions: Sequence[str],
        *,
        steps: int = 25,
        guidance: float = 3.0,
        within: tuple[float, float] = (0.0, 1.0),
        sampler: str = "dpm++",
        seed: int = 0,
        batch: int = 50,
    ) -> np.ndarray:
        """Return a clip of every caption, (n, 6, 64, 64, 3) uint8 at 3 frames per second; as `images`."""
        latents = self._generate(self.video_unet, captions, steps, guidance, within, sampler, seed, batch)
        frames = self.decode(latents.transpose(1, 2).flatten(0, 1))
        return frames.reshape(len(captions), FRAMES, *frames.shape[1:])

    def _generate(
        self,
        unet: Any,
        captions: Sequence[str],
        steps: int,
        guidance: float,
        within: tuple[float, float],
        sampler: str,
        seed: int,
        batch: int,
    ) -> Tensor:
        import torch

        from neuroreel.generate.samplers import denoise, make_sampler, seeded_noise, shared_noise

        checks.require(len(captions) > 0, "captions", "must be 1 or more", 0)
        frames = (unet.frames,) if hasattr(unet, "frames") else ()
        shape = (unet.config.in_channels, *frames, unet.config.sample_size, unet.config.sample_size)
        parts = []
        for start in range(0, len(captions), batch):
            tokens = self.tokens(captions[start : start + batch])
            rows = range(start, start + len(tokens))
            noise = seeded_noise(seed, shape, rows)
            if frames:
                noise = shared_noise(noise, seeded_noise(seed, (shape[0], 1, *shape[2:]), rows, "clip"), SHARED_NOISE)
            maker = make_sampler(sampler, self.noise)
            made = denoise(unet, noise, tokens, self.silent, maker, steps=steps, guidance=guidance, within=within)
            parts.append(made)
        return torch.cat(parts)
