"""The small generator that ships with the package: pictures and clips of the simulated world from captions.

Its folder is laid out as that of a `StableDiffusionPipeline`, with the whole CLIP model, the video prior and the
classifiers beside it: `scripts/train_world.py` made it, `card.json` says how and has the SHA-256 of every file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.core.files import inside, sha256

if TYPE_CHECKING:
    from torch import Tensor

    from neuroreel.nets.residual import ResidualNet

SHIPPED = Path(__file__).parents[1] / "weights" / "world"
FRAMES = 6
"""Frames of a clip of the video prior."""


def read_card(folder: str | Path | None = None) -> dict[str, Any]:
    """Return what is known of the weights: every part's files with SHA-256, how it was trained, what was measured.

    Raises
    ------
    ConfigError : the folder has no card.
    """
    file = Path(folder or SHIPPED) / "card.json"
    checks.require(file.is_file(), "world weights", "must be a folder with a card", "no card.json", file, ConfigError)
    return json.loads(file.read_text())


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
        checks.one_of("weights part", part, card["parts"], folder)
        for name, digest in card["parts"][part]["files"].items():
            file = inside(folder, name, folder / "card.json")
            checks.require(file.is_file(), f"weights part {part}", f"must have the file {name}", "none", folder)
            got = sha256(file)
            checks.require(got == digest, f"weights part {part}", f"must have the SHA-256 {digest}", got, file)
    return World(folder, card)


class World:
    """The parts of the generator, each read when it is first used.

    Attributes
    ----------
    folder : where the parts are; `StableDiffusionPipeline.from_pretrained` opens it too.
    card : what is known of them.
    """

    def __init__(self, folder: Path, card: dict[str, Any]) -> None:
        self.folder, self.card = folder, card

    def _read(self, part: str, load: Callable[[Path], Any]) -> Any:
        checks.one_of("weights part", part, self.card["parts"], self.folder)
        return load(self.folder / part)

    @cached_property
    def tokenizer(self) -> Any:
        """The `CLIPTokenizer` of the captions."""
        from transformers import CLIPTokenizer

        return self._read("tokenizer", CLIPTokenizer.from_pretrained)

    @cached_property
    def text_encoder(self) -> Any:
        """The `CLIPTextModel` that conditions the U-Nets."""
        from transformers import CLIPTextModel

        return self._read("text_encoder", lambda path: _network(CLIPTextModel, path))

    @cached_property
    def clip(self) -> Any:
        """The `CLIPModel` of pictures and captions; its text encoder is `text_encoder`."""
        from transformers import CLIPModel

        return self._read("clip", lambda path: _network(CLIPModel, path))

    @cached_property
    def autoencoder(self) -> Any:
        """The autoencoder between pixels and latents: an `AutoencoderKL`, or the `FoldedAutoencoder` of this package.

        Which one, the folder's model_index.json says.
        """
        index = json.loads((self.folder / "model_index.json").read_text())
        name = checks.one_of("autoencoder class", index["vae"][1], ("AutoencoderKL", "FoldedAutoencoder"), self.folder)
        if name == "AutoencoderKL":
            from diffusers import AutoencoderKL as kind
        else:
            from neuroreel.nets.autoencoder import FoldedAutoencoder as kind
        return self._read("vae", lambda path: _network(kind, path))

    @cached_property
    def unet(self) -> Any:
        """The `UNet2DConditionModel` of pictures."""
        from diffusers import UNet2DConditionModel

        return self._read("unet", lambda path: _network(UNet2DConditionModel, path))

    @cached_property
    def video_unet(self) -> Any:
        """The `UNet2DConditionModel` of clips, their frames stacked as channels."""
        from diffusers import UNet2DConditionModel

        return self._read("video_unet", lambda path: _network(UNet2DConditionModel, path))

    @cached_property
    def noise(self) -> dict[str, Any]:
        """Config of the scheduler that both U-Nets were trained with."""
        return self._read("scheduler", lambda path: json.loads((path / "scheduler_config.json").read_text()))

    @cached_property
    def video_classifier(self) -> ResidualNet:
        """The classifier of clips: category, and what the object does."""
        return self._read("video_classifier", _classifier)

    def classes(self, part: str) -> dict[str, list[str]]:
        """Return the names of the classes of a classifier's heads, in the order of their values."""
        checks.one_of("weights part", part, self.card["parts"], self.folder)
        return self.card["parts"][part]["classes"]

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Return the condition that captions are for a U-Net, (n, tokens, width); "" is the one that says nothing."""
        import torch

        with torch.no_grad():
            return self.text_encoder(input_ids=self._ids(captions)).last_hidden_state

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Return the embeddings of captions in the space shared with pictures, (n, dim), of length 1."""
        import torch
        import torch.nn.functional as F

        with torch.no_grad():
            read = self.clip.text_model(input_ids=self._ids(captions)).pooler_output
            return F.normalize(self.clip.text_projection(read), dim=-1)

    def embed_images(self, frames: np.ndarray) -> Tensor:
        """Return the embeddings of frames (n, h, w, 3) uint8 in the space shared with captions, (n, dim), length 1."""
        import torch
        import torch.nn.functional as F

        with torch.no_grad():
            seen = self.clip.vision_model(pixel_values=to_pixels(frames)).pooler_output
            return F.normalize(self.clip.visual_projection(seen), dim=-1)

    def encode(self, frames: np.ndarray, batch: int = 64) -> Tensor:
        """Return the latents of frames (n, h, w, 3) uint8, (n, channels, h / 4, w / 4), of about unit variance.

        Another autoencoder than the shipped one may have another factor than 4.
        """
        import torch

        parts = range(0, len(frames), batch)
        with torch.no_grad():
            found = [self.autoencoder.encode(to_pixels(frames[i : i + batch])).latent_dist.mode() for i in parts]
        return torch.cat(found) * self.autoencoder.config.scaling_factor

    def decode(self, latents: Tensor, batch: int = 64) -> np.ndarray:
        """Return the frames of latents (n, channels, h, w), (n, 4 h, 4 w, 3) uint8."""
        import torch

        latents = latents / self.autoencoder.config.scaling_factor
        with torch.no_grad():
            parts = [to_frames(self.autoencoder.decode(part).sample) for part in latents.split(batch)]
        return np.concatenate(parts)

    def images(
        self,
        captions: Sequence[str],
        *,
        steps: int = 25,
        guidance: float = 3.0,
        sampler: str = "dpm++",
        seed: int = 0,
        batch: int = 50,
    ) -> np.ndarray:
        """Return a picture of every caption, (n, 64, 64, 3) uint8; the arguments are those of `samplers.denoise`.

        A picture depends on its caption, its number and the seed, not on the batch, but for rounding.
        """
        return self.decode(self._generate(self.unet, captions, steps, guidance, sampler, seed, batch))

    def clips(
        self,
        captions: Sequence[str],
        *,
        steps: int = 25,
        guidance: float = 3.0,
        sampler: str = "dpm++",
        seed: int = 0,
        batch: int = 50,
    ) -> np.ndarray:
        """Return a clip of every caption, (n, 6, 64, 64, 3) uint8 at 3 frames per second; as `images`."""
        latents = self._generate(self.video_unet, captions, steps, guidance, sampler, seed, batch)
        frames = self.decode(latents.unflatten(1, (FRAMES, -1)).flatten(0, 1))
        return frames.reshape(len(captions), FRAMES, *frames.shape[1:])

    def _generate(
        self,
        unet: Any,
        captions: Sequence[str],
        steps: int,
        guidance: float,
        sampler: str,
        seed: int,
        batch: int,
    ) -> Tensor:
        import torch

        from neuroreel.generate.samplers import denoise, make_sampler, seeded_noise

        checks.require(len(captions) > 0, "captions", "must be 1 or more", 0)
        shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        silent, parts = self.tokens([""]), []
        for start in range(0, len(captions), batch):
            tokens = self.tokens(captions[start : start + batch])
            noise = seeded_noise(seed, shape, range(start, start + len(tokens)))
            maker = make_sampler(sampler, self.noise)
            parts.append(denoise(unet, noise, tokens, silent, maker, steps=steps, guidance=guidance))
        return torch.cat(parts)

    def _ids(self, captions: Sequence[str]) -> Tensor:
        texts = [str(caption) for caption in captions]
        length = self.tokenizer.model_max_length
        read = self.tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return cast("Tensor", read["input_ids"])


def to_pixels(frames: np.ndarray) -> Tensor:
    """Return frames (n, h, w, 3) uint8 as (n, 3, h, w) float32 in -1..1."""
    import torch

    checks.dimensions("frames", frames, ("n", "height", "width", "rgb"))
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_frames(pixels: Tensor) -> np.ndarray:
    """Return pixels (n, 3, h, w), 1 is white and -1 black, as frames (n, h, w, 3) uint8, clipped."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _network(kind: Any, path: Path) -> Any:
    """Return a network of diffusers or transformers, read from its folder alone, in float32."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        net = kind.from_pretrained(path, local_files_only=True, use_safetensors=True)
        return net.float().eval().requires_grad_(False)
    finally:
        if shown:
            logging.enable_progress_bar()


def _classifier(path: Path) -> ResidualNet:
    from neuroreel.nets.residual import ResidualConfig, ResidualNet

    return ResidualNet.load(path / "weights.safetensors", ResidualConfig.load(path / "config.json"))
