"""What could have been said: captions as a prior over what a brain reads, for generators that read text.

A regression to a caption's tokens answers with their mean over all captions that fit, which no caption has and from
which a generator makes pictures of nothing in particular. A prior turns that into a choice, as Naselaris et al. 2009
(Neuron 63:902) do with pictures: every known caption gets the probability that the contrastive stage's own softmax
(Radford et al. 2021, arXiv 2103.00020, fig. 3) gives it for the brain's embedding, and the tokens are the mean over
captions with those weights. The softmax is calibrated on held-out clips (Guo et al. 2017, arXiv 1706.04599).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from neuroreel.brain.contrastive import ContrastiveConfig, ContrastiveNet
from neuroreel.brain.tokens import TokenEncoder
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError
from neuroreel.nets.weights import fill, read_about, read_state, write_state

SCALES = tuple(float(scale) for scale in np.geomspace(1.0, 300.0, 40))
"""Of the logits, to choose among."""


class CaptionPriorConfig(Config):
    """Settings of a `CaptionPrior`.

    Attributes
    ----------
    shares : how much of the tokens is the captions', to choose among; the rest is the encoder's own.
    more : text file with captions beside those of the training clips, one on a line; "" for none.
    """

    shares: tuple[float, ...] = Field(default=(0.0, 0.5, 1.0), min_length=1)
    more: str = ""

    def captions(self, known: Sequence[str]) -> list[str]:
        """Return all captions to choose among, each once, those of the file too.

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


class CaptionPrior(nn.Module):
    """Captions, and how near a brain comes to each.

    Parameters
    ----------
    net : after the contrastive stage; a copy is kept, which isn't trained on.
    keys : (captions, dim) of length 1, the captions in the space of the contrastive stage.
    tokens : (captions, count, width), the same for the generator.
    scale : of the logits, see `calibrate`.
    share : of the captions in the tokens.
    """

    keys: Tensor
    said: Tensor

    def __init__(
        self, net: ContrastiveNet, keys: Tensor, tokens: Tensor, *, scale: float = 1.0, share: float = 1.0
    ) -> None:
        super().__init__()
        checks.same_length("tokens of captions", len(tokens), "their embeddings", len(keys))
        self.net = copy.deepcopy(net).requires_grad_(False).eval()
        self.register_buffer("keys", keys.clone())
        self.register_buffer("said", tokens.clone())
        self.scale, self.share = scale, share

    @torch.no_grad()
    def embed(self, brain: np.ndarray) -> Tensor:
        """Return the embeddings (n, dim) of windows (n, trs, voxels), on the CPU."""
        tokens = self.net.encoder.tokens(brain)
        return self.net.embed(tokens.to(self.net.project.weight.device)).cpu()

    def calibrate(self, brain: np.ndarray, text: Tensor, blocks: np.ndarray) -> dict[str, float]:
        """Choose the scale at which held-out windows give the captions of their own scenes most log-probability.

        Parameters
        ----------
        brain : (n, trs, voxels) windows that nothing was fitted to.
        text : (n, dim) embeddings of their captions, among which each is to be found.
        blocks : (n,) the scenes.

        Returns
        -------
        dict : the scale, and the mean log-probability there and where nothing is known.
        """
        rows = torch.as_tensor(np.unique(blocks, return_index=True)[1])  # a caption of every scene
        own = torch.as_tensor(blocks[:, None] == blocks[rows.numpy()][None])  # (n, scenes)
        alike = self.embed(brain) @ text[rows].T
        told = [float((scale * alike).log_softmax(1)[own].mean()) for scale in SCALES]
        best = int(np.argmax(told))
        self.scale = SCALES[best]
        return {"scale": self.scale, "log_probability": told[best], "chance": -float(np.log(len(rows)))}

    @torch.no_grad()
    def probabilities(self, brain: np.ndarray) -> Tensor:
        """Return how probable each caption is for windows (n, trs, voxels), (n, captions)."""
        return (self.scale * self.embed(brain) @ self.keys.cpu().T).softmax(1)

    @torch.no_grad()
    def blend(self, tokens: Tensor, brain: np.ndarray) -> Tensor:
        """Return tokens (n, count, width) of windows (n, trs, voxels) with their share of the captions'."""
        if self.share == 0 or len(brain) == 0:
            return tokens
        told = torch.einsum("nc,ctw->ntw", self.probabilities(brain), self.said.cpu())
        return torch.lerp(tokens, told, self.share)

    def save(self, file: Path) -> None:
        """Write the copy of the network, the captions, and what was chosen."""
        write_state(file, self, about={"scale": repr(self.scale), "share": repr(self.share)})

    @classmethod
    def load(cls, file: Path, encoder: TokenEncoder, config: ContrastiveConfig) -> Self:
        """Return what `save` wrote.

        Parameters
        ----------
        encoder : of the shape of the one that was copied; its weights are replaced in another copy.
        config : of the contrastive stage.
        """
        state, about = read_state(file), read_about(file)
        net = ContrastiveNet(encoder, state["keys"].shape[1], config)
        made = cls(net, state["keys"], state["said"], scale=float(about["scale"]), share=float(about["share"]))
        fill(made, state, file)
        return made
