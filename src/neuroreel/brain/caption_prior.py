"""What could have been said: captions as a prior over what a brain reads, for generators that read text.

A regression to a caption's tokens answers with their mean over all captions that fit, which no caption has and from
which a generator makes pictures of nothing in particular. A prior turns that into a choice, as Naselaris et al. 2009
(Neuron 63:902) do with pictures. Every known caption has a probability, from two sources: the contrastive stage's own
softmax (Radford et al. 2021, arXiv 2103.00020, fig. 3), which knows background, colour and place, and, where clips have
categories, a regression to these, which CLIP's embeddings of whole captions hold too little of. How much each counts is
calibrated on held-out clips (Guo et al. 2017, arXiv 1706.04599). The most probable caption is what is read.

Known are the captions of the training clips, and the same with the name of another category in the place of theirs.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuroreel.brain.contrastive import ContrastiveConfig, ContrastiveNet
from neuroreel.brain.tokens import TokenEncoder
from neuroreel.brain.window import WindowDecoder, WindowDecoderConfig
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError
from neuroreel.nets.weights import fill, read_about, read_state, write_state

SCALES = tuple(float(scale) for scale in np.geomspace(1.0, 100.0, 21))
"""Of the contrastive stage's logits, to choose among."""
SHARPNESS = tuple(float(scale) for scale in np.geomspace(0.5, 100.0, 24))
"""Of the logits of the categories, to choose among."""
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Of the categories beside the contrastive stage, to choose among."""
AT_ONCE = 512
"""Captions that are embedded at a time."""
NAME = "prior"

Embed = Callable[[Sequence[str]], Tensor]


class CaptionPriorConfig(Config):
    """Settings of a `CaptionPrior`.

    Attributes
    ----------
    shares : how much of the tokens is the captions', of several by held-out clips; the rest is the encoder's own. Half
        is what held-out training clips of three simulated worlds prefer together; those of one are too few to say.
    more : text file with captions beside those of the training clips, one on a line; "" for none.
    categories : of the regression to categories; None leaves that source out.
    """

    shares: tuple[float, ...] = Field(default=(0.5,), min_length=1)
    more: str = ""
    categories: WindowDecoderConfig | None = WindowDecoderConfig(combine="concat", standardise=True, keep=(0.25, 1.0))

    def captions(self, known: Sequence[str]) -> list[str]:
        """Return the captions that are known, each once, those of the file too.

        Raises
        ------
        ConfigError : the file isn't there or has no line.
        """
        lines: list[str] = []
        if self.more:
            file = Path(self.more)
            rule = "must be a text file with a caption on every line"
            found = file.read_text().splitlines() if file.is_file() else []
            lines = [line.strip() for line in found if line.strip()]
            checks.require(bool(lines), "more captions", rule, "none", file, ConfigError)
        return sorted({text for text in (*known, *lines) if text})


def recombined(captions: Sequence[str], names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return captions, and the same with every other category's name in place of theirs, each once.

    Parameters
    ----------
    names : of the categories.

    Returns
    -------
    texts : in the order of the alphabet.
    members : (texts,) number of the category that is named, the longest name where several are; -1 where none is.
    """
    found: dict[str, int] = {}
    longest = sorted(names, key=len, reverse=True)
    for caption in captions:
        own = next((name for name in longest if re.search(rf"\b{re.escape(name)}\b", caption)), None)
        if own is None:
            found.setdefault(caption, -1)
            continue
        for number, name in enumerate(names):
            found[re.sub(rf"\b{re.escape(own)}\b", name, caption, count=1)] = number
    texts = sorted(found)
    return texts, np.array([found[text] for text in texts])


class CategoryReader:
    """Probabilities of categories by a ridge regression from windows to which category it is.

    Attributes
    ----------
    names : of the categories.
    sharpness : of the softmax, that gives held-out clips of the training the most log-probability.
    """

    names: tuple[str, ...]

    def __init__(self, config: WindowDecoderConfig) -> None:
        self.decoder, self.sharpness = WindowDecoder(config), 1.0

    def fit(self, brain: np.ndarray, category: np.ndarray, blocks: np.ndarray) -> Self:
        """Fit to windows (n, trs, voxels) and the names of their categories (n,), and return self."""
        self.names = tuple(str(name) for name in np.unique(category))
        own = np.searchsorted(self.names, category)
        wanted = (own[:, None] == np.arange(len(self.names))).astype(np.float32)
        self.decoder.fit(brain, wanted, blocks)
        held = torch.from_numpy(self.decoder.held_out_.astype(np.float32))
        rows = torch.arange(len(own))
        told = [float((scale * held).log_softmax(1)[rows, torch.from_numpy(own)].mean()) for scale in SHARPNESS]
        self.sharpness = SHARPNESS[int(np.argmax(told))]
        return self

    def log_probabilities(self, brain: np.ndarray) -> Tensor:
        """Return the logarithms of the probabilities (n, categories) of windows (n, trs, voxels)."""
        made = torch.from_numpy(self.decoder.predict(brain).astype(np.float32))
        return (self.sharpness * made).log_softmax(1)


class CaptionPrior:
    """Captions, and how probable each is for a brain.

    Parameters
    ----------
    net : after the contrastive stage; a copy is kept, which isn't trained on.
    texts : the captions.
    keys : (captions, dim) of length 1, the captions in the space of the contrastive stage.
    members : (captions,) number of the category that each names, -1 where it names none.
    reader : of the categories, or None.
    scale, weight : of the two sources, see `calibrate`.
    share : of the captions in the tokens that are told to a generator.
    """

    def __init__(
        self,
        net: ContrastiveNet,
        texts: Sequence[str],
        keys: Tensor,
        members: np.ndarray,
        reader: CategoryReader | None = None,
        *,
        scale: float = 1.0,
        weight: float = 0.0,
        share: float = 1.0,
    ) -> None:
        checks.same_length("captions", len(texts), "their embeddings", len(keys))
        checks.same_length("categories of captions", len(members), "captions", len(texts))
        self.net = copy.deepcopy(net).cpu().requires_grad_(False).eval()
        self.texts, self.keys, self.members, self.reader = list(texts), keys, members, reader
        self.scale, self.weight, self.share = scale, weight, share

    @classmethod
    def of(
        cls,
        net: ContrastiveNet,
        captions: Sequence[str],
        embed: Embed,
        config: CaptionPriorConfig,
        brain: np.ndarray,
        category: np.ndarray,
        blocks: np.ndarray,
    ) -> Self:
        """Return the prior of known captions, recombined where the clips have categories and are enough for the folds.

        Parameters
        ----------
        embed : returns the embeddings (n, dim) of length 1 of captions, in the space of the contrastive stage.
        brain, category, blocks : (n, trs, voxels), (n,) "" where there is none, and (n,) of the training clips.
        """
        named, reader, settings = category != "", None, config.categories
        many = len(np.unique(category[named])) > 1
        if settings is not None and many and named.sum() >= settings.folds * settings.piece:
            reader = CategoryReader(settings).fit(brain[named], category[named], blocks[named])
        texts, members = recombined(captions, () if reader is None else reader.names)
        return cls(net, texts, _embedded(texts, embed), members, reader, share=config.shares[0])

    @torch.no_grad()
    def embed(self, brain: np.ndarray) -> Tensor:
        """Return the embeddings (n, dim) of windows (n, trs, voxels)."""
        return self.net.embed(self.net.encoder.tokens(brain))

    def calibrate(self, brain: np.ndarray, captions: Sequence[str], embed: Embed) -> dict[str, float]:
        """Choose how much both sources count, so that held-out windows give their captions most log-probability.

        Each caption is to be found among those of all the windows, recombined.

        Parameters
        ----------
        brain : (n, trs, voxels) windows that nothing was fitted to.
        captions : (n,) theirs.
        embed : as in `of`.

        Returns
        -------
        dict : what was chosen, and the mean log-probability there and where nothing is known.
        """
        texts, members = recombined(captions, () if self.reader is None else self.reader.names)
        own = torch.tensor([texts.index(text) for text in captions])
        alike = self.embed(brain) @ _embedded(texts, embed).T
        named = self._of_categories(brain, members)
        told = {
            (scale, weight): float((scale * alike + weight * named).log_softmax(1)[torch.arange(len(own)), own].mean())
            for scale in SCALES
            for weight in (WEIGHTS if self.reader is not None else (0.0,))
        }
        self.scale, self.weight = max(told, key=lambda pair: told[pair])
        found = {"scale": self.scale, "weight": self.weight, "log_probability": told[self.scale, self.weight]}
        return found | {"chance": -float(np.log(len(texts)))}

    def log_probabilities(self, brain: np.ndarray) -> Tensor:
        """Return the logarithm of how probable each caption is for windows (n, trs, voxels), (n, captions)."""
        logits = self.scale * self.embed(brain) @ self.keys.T
        return (logits + self.weight * self._of_categories(brain, self.members)).log_softmax(1)

    def read(self, brain: np.ndarray) -> list[str]:
        """Return the most probable caption of each window (n, trs, voxels)."""
        return [self.texts[row] for row in self.log_probabilities(brain).argmax(1)] if len(brain) else []

    def _of_categories(self, brain: np.ndarray, members: np.ndarray) -> Tensor:
        """Return the logarithm (n, captions) of how probable the captions' categories are; 0 where none is named."""
        if self.reader is None:
            return torch.zeros(len(brain), len(members))
        told = self.reader.log_probabilities(brain)
        return torch.cat([told, torch.zeros(len(told), 1)], 1)[:, torch.from_numpy(members)]

    def save(self, folder: Path) -> None:
        """Write the copy of the network, the captions, the regression, and what was chosen."""
        chosen = {"scale": self.scale, "weight": self.weight, "share": self.share}
        about = {"chosen": json.dumps(chosen), "texts": json.dumps(self.texts)}
        if self.reader is not None:
            self.reader.decoder.save(folder, f"{NAME}-categories")
            about["categories"] = json.dumps({"names": self.reader.names, "sharpness": self.reader.sharpness})
        kept = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        kept |= {"keys": self.keys, "members": torch.from_numpy(self.members)}
        write_state(folder / f"{NAME}.safetensors", kept, about=about)

    @classmethod
    def load(cls, folder: Path, encoder: TokenEncoder, config: ContrastiveConfig) -> Self:
        """Return what `save` wrote.

        Parameters
        ----------
        encoder : of the shape of the one that was copied, which isn't changed.
        config : of the contrastive stage.
        """
        file = folder / f"{NAME}.safetensors"
        state, about = read_state(file), read_about(file)
        reader = None
        if "categories" in about:
            said = json.loads(about["categories"])
            decoder = WindowDecoder.load(folder, f"{NAME}-categories")
            reader = CategoryReader(decoder.config)
            reader.decoder, reader.names, reader.sharpness = decoder, tuple(said["names"]), said["sharpness"]
        net = ContrastiveNet(encoder, state["keys"].shape[1], config)
        chosen = json.loads(about["chosen"])
        made = cls(net, json.loads(about["texts"]), state["keys"], state["members"].numpy(), reader, **chosen)
        fill(made.net, {name[4:]: value for name, value in state.items() if name.startswith("net.")}, file)
        return made


def _embedded(texts: Sequence[str], embed: Embed) -> Tensor:
    return torch.cat([embed(texts[at : at + AT_ONCE]) for at in range(0, len(texts), AT_ONCE)])
