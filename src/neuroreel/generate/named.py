"""Generators, and the models of pictures and text beside them, by name: "world", a folder, or a name on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.sets import resize
from neuroreel.generate.latent import LatentGenerator
from neuroreel.generate.world import World, load_world
from neuroreel.nets.pretrained import (
    TOKENIZER,
    find_network,
    frame_processor,
    read_network,
    read_settings,
    read_tokenizer,
)
from neuroreel.nets.weights import fingerprint
from neuroreel.nets.world import read_card

if TYPE_CHECKING:
    from torch import Tensor

WORLD = "world"
PICTURE_PARTS = ("scheduler", "tokenizer", "text_encoder", "vae", "unet")
"""What is needed of the world's weights to show what a caption says."""


def open_generator(name: str) -> LatentGenerator:
    """Return the latent diffusion model of a name.

    Raises
    ------
    DataError : it has no U-Net.
    ConfigError : there is none of that name.
    """
    if name == WORLD:
        more = ("motion",) if "motion" in read_card()["parts"] else ()
        return load_world(parts=PICTURE_PARTS + more)
    made = LatentGenerator(name)
    checks.require("unet" in made.index, "generator", "must have a U-Net", ", ".join(made.index), name, DataError)
    return made


def open_image_text(name: str) -> WorldClip | PublishedClip:
    """Return the CLIP of a name, which isn't trained.

    Raises
    ------
    FetchError : it can't be had.
    ConfigError : it is another kind of network.
    """
    return WorldClip(load_world(parts=("clip", "tokenizer"))) if name == WORLD else PublishedClip(name)


class WorldClip:
    """The world's own CLIP, for frames of any size."""

    def __init__(self, world: World) -> None:
        self.world = world

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        return fingerprint(self.world.clip)

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Return embeddings (n, dim) of length 1."""
        return self.world.embed_text(captions)

    def embed_images(self, frames: np.ndarray) -> Tensor:
        """Return embeddings (n, dim) of length 1 of frames (n, h, w, 3) uint8."""
        side = int(self.world.clip.config.vision_config.image_size)
        return self.world.embed_images(resize(frames, side, side))


class PublishedClip:
    """A `CLIPModel` of transformers with its tokenizer and its own way of scaling frames.

    Parameters
    ----------
    name : folder, or name on the hub, such as `openai/clip-vit-large-patch14`.
    """

    def __init__(self, name: str) -> None:
        from transformers import CLIPModel

        folder = find_network(name, ("config.json", "preprocessor_config.json"), TOKENIZER)
        kind = read_settings(folder / "config.json").get("model_type")
        checks.require(kind == "clip", "clip", "must be a network of the type clip", repr(kind), folder, ConfigError)
        self.net = read_network(CLIPModel, folder)
        self.tokenizer = read_tokenizer(folder)
        self.prepare = frame_processor(folder)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights."""
        return fingerprint(self.net)

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Return embeddings (n, dim) of length 1."""
        import torch
        import torch.nn.functional as F

        texts, most = [str(text) for text in captions], int(self.net.config.text_config.max_position_embeddings)
        read = self.tokenizer(texts, padding="max_length", max_length=most, truncation=True, return_tensors="pt")
        with torch.no_grad():
            found = self.net.text_model(input_ids=read["input_ids"], attention_mask=read["attention_mask"])
            return F.normalize(self.net.text_projection(found.pooler_output), dim=-1)

    def embed_images(self, frames: np.ndarray) -> Tensor:
        """Return embeddings (n, dim) of length 1 of frames (n, h, w, 3) uint8."""
        import torch
        import torch.nn.functional as F

        with torch.no_grad():
            seen = self.net.vision_model(pixel_values=self.prepare(frames)).pooler_output
            return F.normalize(self.net.visual_projection(seen), dim=-1)
