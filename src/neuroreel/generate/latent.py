"""A latent diffusion model in the folder layout of diffusers, by folder or hub name: its parts, each read when used.

The weights that ship with the package and those of the field are opened by the same code; `World` adds what only the
former have. Source: Rombach et al. 2022, arXiv 2112.10752.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.sets import resize
from neuroreel.nets.pretrained import quiet

if TYPE_CHECKING:
    from torch import Tensor

    from neuroreel.core.system import RunFolder

INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers", "neuroreel.nets.autoencoder")
"""Where the class of a part may come from."""


class LatentGenerator:
    """The parts of a latent diffusion model.

    Parameters
    ----------
    source : a folder laid out as that of a `StableDiffusionPipeline` (or of another one with an autoencoder, a
        `UNet2DConditionModel` and a scheduler), or its name on the hub, which is fetched into the hub's own cache.

    Attributes
    ----------
    source : as given.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = source if isinstance(source, Path) else Path(source) if Path(source).is_dir() else source

    @cached_property
    def index(self) -> dict[str, Any]:
        """The class of every part by its name; what has none is left out.

        Raises
        ------
        ConfigError : there is no such folder, it has no index, or the hub doesn't have it.
        """
        rule = "must be a folder with a model_index.json or a model's name on the hub"
        if isinstance(self.source, Path):
            file = self.source / INDEX
            checks.require(file.is_file(), "generator", rule, f"no {INDEX}", self.source, ConfigError)
            found = json.loads(file.read_text())
        else:
            from huggingface_hub import hf_hub_download

            try:
                found = json.loads(Path(hf_hub_download(self.source, INDEX)).read_text())
            except Exception as error:
                raise ConfigError(checks.sentence("generator", rule, repr(self.source), type(error).__name__)) from None
        return {name: kind for name, kind in found.items() if isinstance(kind, list) and kind[0]}

    def part(self, name: str) -> Any:
        """Return one part of the index: a network in float32 that isn't trained, a tokenizer, or a scheduler.

        Raises
        ------
        ConfigError : the generator has no such part, or it is of a class that isn't known.
        DataError : the part is missing or corrupt; the sentence names it.
        """
        checks.one_of("generator part", name, self.index, str(self.source))
        library, kind = self.index[name]
        checks.one_of(f"library of generator part {name}", library, LIBRARIES, str(self.source))
        cls = getattr(import_module(library), kind, None)
        rule = f"must be a class of {library}"
        checks.require(cls is not None, f"generator part {name}", rule, kind, str(self.source), ConfigError)
        return self.open(name, cls)

    def open(self, name: str, kind: Any) -> Any:
        """Return the part in the folder of that name, of a class of diffusers or transformers; errors as in `part`."""
        from torch import nn

        if isinstance(self.source, Path):
            rule = f"must be in the folder of the generator as {name}"
            checks.require((self.source / name).is_dir(), f"generator part {name}", rule, "none", self.source)
        network = issubclass(kind, nn.Module)
        more = {"use_safetensors": True} if network else {}
        local = isinstance(self.source, Path)
        with quiet():
            try:
                made = kind.from_pretrained(str(self.source), subfolder=name, local_files_only=local, **more)
            except Exception as error:
                words = " ".join(str(error).split())[:120] or type(error).__name__
                rule = "must be whole, its weights as safetensors"
                raise DataError(checks.sentence(f"generator part {name}", rule, words, str(self.source))) from None
        return made.float().eval().requires_grad_(False) if network else made

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the captions."""
        return self.part("tokenizer")

    @cached_property
    def text_encoder(self) -> Any:
        """The text encoder that conditions the U-Net."""
        return self.part("text_encoder")

    @cached_property
    def autoencoder(self) -> Any:
        """The autoencoder between pixels and latents, whatever its class."""
        return self.part("vqvae" if "vqvae" in self.index else "vae")

    @cached_property
    def unet(self) -> Any:
        """The `UNet2DConditionModel`, or what is called like one."""
        from neuroreel.generate.attention import attend_fast

        return attend_fast(self.part("unet"))

    @property
    def motion(self) -> Path | None:
        """The file of layers over time for clips of this U-Net, as `ClipUNet.save` writes it; None where none lies by.

        It lies in the folder of the generator as the only safetensors of `motion`.
        """
        found = sorted((self.source / "motion").glob("*.safetensors")) if isinstance(self.source, Path) else []
        return found[0] if found else None

    @cached_property
    def noise(self) -> dict[str, Any]:
        """Config of the scheduler that the U-Net was trained with."""
        return dict(self.part("scheduler").config)

    @property
    def reads(self) -> bool:
        """Whether the generator has a text encoder of its own."""
        return {"tokenizer", "text_encoder"} <= set(self.index)

    @cached_property
    def token_shape(self) -> tuple[int, int]:
        """Number and width of the tokens that condition the U-Net; 77 where no tokenizer says how many."""
        width = int(self.unet.config.cross_attention_dim)
        return (int(self.tokenizer.model_max_length) if self.reads else 77), width

    @cached_property
    def side(self) -> int:
        """Side of the pictures in pixels that the U-Net was trained on."""
        size = self.unet.config.sample_size
        return int(size) * self.factor

    @cached_property
    def factor(self) -> int:
        """Pixels of one side that share a latent."""
        return int(2 ** (len(self.autoencoder.config.block_out_channels) - 1))

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Return the condition that captions are for a U-Net, (n, tokens, width); "" is the one that says nothing."""
        import torch

        with torch.no_grad():
            return cast("Tensor", self.text_encoder(input_ids=self.ids(captions)).last_hidden_state)

    @cached_property
    def silent(self) -> Tensor:
        """The condition that says nothing, (1, tokens, width): the empty caption, or zeros where no text is read."""
        import torch

        return self.tokens([""]) if self.reads else torch.zeros(1, *self.token_shape)

    def encode(self, frames: np.ndarray, batch: int = 64) -> Tensor:
        """Return the latents of frames (n, h, w, 3) uint8, (n, channels, h / factor, w / factor), of unit variance."""
        import torch

        found = []
        with torch.no_grad():
            for start in range(0, len(frames), batch):
                coded = self.autoencoder.encode(to_pixels(frames[start : start + batch]))
                found.append(coded.latent_dist.mode() if hasattr(coded, "latent_dist") else coded.latents)
        return torch.cat(found) * self._scaling

    def decode(self, latents: Tensor, batch: int = 64) -> np.ndarray:
        """Return the frames of latents (n, channels, h, w), (n, factor h, factor w, 3) uint8."""
        import torch

        latents = latents.cpu() / self._scaling
        with torch.no_grad():
            parts = [to_frames(self.autoencoder.decode(part).sample) for part in latents.split(batch)]
        return np.concatenate(parts)

    @cached_property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of a picture."""
        config = self.unet.config
        return int(config.in_channels), int(config.sample_size), int(config.sample_size)

    def encode_clips(self, clips: np.ndarray) -> Tensor:
        """Return the latents of clips (n, frames, h, w, 3) uint8 of any size, (n, frames, channels, h', w')."""
        checks.dimensions("clips", clips, ("n", "frames", "height", "width", "rgb"))
        n, frames = clips.shape[:2]
        flat = resize(clips.reshape(n * frames, *clips.shape[2:]), self.side, self.side)
        return self.encode(flat).unflatten(0, (n, frames))

    def kept_latents(self, clips: np.ndarray, run: RunFolder, name: str) -> Tensor:
        """Return `encode_clips` of clips, made once for all fits of a store, as `nets.cache.cached` keeps it."""
        from neuroreel.nets.cache import cached
        from neuroreel.nets.weights import fingerprint

        how = f"latents of side {self.side}, times {self._scaling:g}, by {fingerprint(self.autoencoder)}"
        return cached(run, f"latents-{name}", [how, clips], lambda: {"latents": self.encode_clips(clips)})["latents"]

    def decode_clips(self, latents: Tensor) -> np.ndarray:
        """Return the clips of latents (n, channels, frames, h, w), (n, frames, factor h, factor w, 3) uint8."""
        frames = self.decode(latents.transpose(1, 2).flatten(0, 1))
        return frames.reshape(len(latents), latents.shape[2], *frames.shape[1:])

    @property
    def _scaling(self) -> float:
        return float(self.autoencoder.config.get("scaling_factor", 1.0))

    def ids(self, captions: Sequence[str]) -> Tensor:
        """Return the token numbers of captions, (n, tokens), padded."""
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
