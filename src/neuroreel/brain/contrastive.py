"""The brain brought near to what was seen and to what can be said of it: CLIP's space as the common ground.

MinD-Video (Chen, Qing & Zhou, NeurIPS 2023, section 3.3): half of the loss holds the brain's embedding to that of the
caption, half to that of the frames, with CLIP's own loss (Radford et al. 2021, arXiv 2103.00020, fig. 3). CLIP stays as
it is, and what it makes of captions and frames is computed once.

    seen = embed_clips(clip, clips, captions, config, seed=0)      # other wordings and crops too
    net = ContrastiveNet(encoder, dim, config)
    train(net, contrastive_loss, ContrastivePairs(brain, seen, blocks), config.loop)
    found = net.retrieval(held, held_seen, blocks)                 # {"text_top1": ..., "image_pairwise": ...}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from neuroreel.brain.tokens import TokenEncoder
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.seeds import generator
from neuroreel.fit.loop import Batch, LoopConfig, in_batches
from neuroreel.fit.losses import apart

SYNONYMS = (
    ("big", "large", "huge"),
    ("small", "little", "tiny"),
    ("person", "human"),
    ("man", "guy"),
    ("woman", "lady"),
    ("child", "kid"),
    ("car", "automobile"),
    ("boat", "ship"),
    ("plane", "airplane", "aircraft"),
    ("bike", "bicycle"),
    ("dog", "hound"),
    ("cat", "kitten"),
    ("house", "home"),
    ("street", "road"),
    ("sea", "ocean"),
    ("meadow", "field"),
    ("forest", "woods"),
    ("rock", "stone"),
    ("picture", "image", "photo"),
    ("walks", "strolls"),
    ("runs", "races"),
    ("moves", "goes"),
    ("turns", "rotates"),
    ("quick", "fast"),
    ("near", "close"),
)
"""Words that stand for each other in captions that are edited; ours, since the published ones aren't known."""
LARGEST_SCALE = math.log(100.0)
"""Of the logits, as a logarithm (Radford et al. 2021, section 2.5)."""
AT_ONCE = 256
"""Captions or frames that CLIP is shown at a time."""


class ImageText(Protocol):
    """A model that has pictures and text in one space, such as CLIP."""

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Return embeddings (n, dim) of length 1."""
        ...

    def embed_images(self, frames: np.ndarray) -> Tensor:
        """Return embeddings (n, dim) of length 1 of frames (n, h, w, 3) uint8."""
        ...


class ContrastiveConfig(Config):
    """Settings of the contrastive stage.

    Attributes
    ----------
    against : what the brain is held to: "both", half to the "text" and half to the "image", one alone, or "none".
    loop : of the training.
    scale : logarithm of the logits' scale at the start [code].
    sparse : share of the voxels that is set to their mean, at other places in every window [recall, unconfirmed].
    wordings : edited captions beside each caption.
    edits : share of the words of a caption that is edited: replaced by a synonym, swapped or deleted.
    synonyms : words that stand for each other.
    crops : random parts of frames of each clip, beside the whole frames.
    crop : least side of such a part, in sides of the frame.
    near : weight of the term that holds the tokens near wanted ones, such as those of the captions; ours.
    """

    against: Literal["both", "text", "image", "none"] = "both"
    loop: LoopConfig = LoopConfig(steps=100, batch=48, rate=3e-4, average=0.95, clip=1.0)
    scale: float = 2.6592
    sparse: float = Field(default=0.2, ge=0, lt=1)
    wordings: int = Field(default=2, ge=0)
    edits: float = Field(default=0.15, ge=0, le=1)
    synonyms: tuple[tuple[str, ...], ...] = SYNONYMS
    crops: int = Field(default=2, ge=0)
    crop: float = Field(default=0.8, gt=0, le=1)
    near: float = Field(default=1.0, ge=0)

    @property
    def reads(self) -> bool:
        """Whether captions are needed."""
        return self.against in ("both", "text")


@dataclass(frozen=True)
class Seen:
    """What CLIP makes of clips and their captions, each row of length 1.

    Attributes
    ----------
    text : (n, 1 + wordings, dim), the caption as it is first; NaN where there is none.
    image : (n, frames + crops, dim), the whole frames first.
    frames : number of the whole ones.
    """

    text: Tensor
    image: Tensor
    frames: int

    def take(self, rows: np.ndarray) -> Seen:
        """Return some of the clips."""
        return Seen(self.text[rows], self.image[rows], self.frames)


def embed_clips(
    clip: ImageText,
    clips: np.ndarray,
    captions: Sequence[str],
    config: ContrastiveConfig,
    *,
    seed: int,
    batch: int = 256,
) -> Seen:
    """Return what CLIP makes of clips (n, frames, h, w, 3) uint8 and their captions, "" where there is none."""
    n, frames = clips.shape[:2]
    batch = AT_ONCE
    texts = [wordings(text, config, generator(seed, "wordings", row)) for row, text in enumerate(captions)]
    known = sorted({text for row in texts for text in row if text})
    parts = [clip.embed_text(known[at : at + batch]) for at in range(0, len(known), batch)]
    if not parts:
        parts = [torch.zeros(0, clip.embed_images(clips[:1, 0]).shape[1])]
    table = torch.cat([*parts, torch.full((1, parts[0].shape[1]), float("nan"))])
    place = {text: row for row, text in enumerate(known)} | {"": len(known)}
    text = table[torch.tensor([[place[each] for each in row] for row in texts]).view(n, -1)]
    rng = generator(seed, "crops")
    shown = [clips[:, number] for number in range(frames)]
    for _ in range(config.crops):
        shown.append(cropped(clips[np.arange(n), rng.integers(frames, size=n)], config.crop, rng))
    seen = [torch.cat([clip.embed_images(side[at : at + batch]) for at in range(0, n, batch)]) for side in shown]
    image = torch.stack(seen, 1)
    return Seen(text, image, frames)


def wordings(caption: str, config: ContrastiveConfig, rng: np.random.Generator) -> list[str]:
    """Return a caption and its edited forms; "" for all where there is none."""
    if not caption:
        return [""] * (1 + config.wordings)
    return [caption, *(edited(caption, rng, config.edits, config.synonyms) for _ in range(config.wordings))]


def edited(caption: str, rng: np.random.Generator, share: float, synonyms: Sequence[Sequence[str]] = SYNONYMS) -> str:
    """Return a caption with a share of its words, one at least, replaced by a synonym, swapped or deleted.

    A word without a synonym stays where one was to be put. Source: easy data augmentation, Wei & Zou 2019, EMNLP.
    """
    words = caption.split()
    others = {word: [each for each in group if each != word] for group in synonyms for word in group}
    for _ in range(max(1, round(share * len(words))) if share > 0 else 0):
        how, at = rng.integers(3), int(rng.integers(len(words)))
        if how == 0 and words[at] in others:
            words[at] = str(rng.choice(others[words[at]]))
        elif how == 1:
            other = int(rng.integers(len(words)))
            words[at], words[other] = words[other], words[at]
        elif how == 2 and len(words) > 1:
            del words[at]
    return " ".join(words)


def cropped(frames: np.ndarray, least: float, rng: np.random.Generator) -> np.ndarray:
    """Return a random part of each frame (n, h, w, 3) uint8, in the size of the frame."""
    height, width = frames.shape[1:3]
    out = np.empty_like(frames)
    for row, frame in enumerate(frames):
        side = rng.uniform(least, 1)
        tall, wide = max(1, round(side * height)), max(1, round(side * width))
        top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
        part = frame[top : top + tall, left : left + wide]
        out[row] = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
    return out


class ContrastiveNet(nn.Module):
    """The encoder with its tokens, and what brings them to one embedding in CLIP's space.

    Parameters
    ----------
    encoder : trained with the rest.
    dim : of CLIP's space.
    """

    def __init__(self, encoder: TokenEncoder, dim: int, config: ContrastiveConfig) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.pool, self.project = nn.Linear(encoder.count, 1), nn.Linear(encoder.width, dim)
        nn.init.constant_(self.pool.weight, 1 / encoder.count)
        self.scale = nn.Parameter(torch.tensor(config.scale))

    def forward(self, brain: Tensor, text: Tensor, image: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Return the loss of each brain window (n, trs, voxels) beside the others of the batch, (n,).

        Parameters
        ----------
        text, image : (n, dim) of length 1.
        wanted : (n, count, width) tokens to be near, NaN where there are none.
        """
        if self.training and self.config.sparse > 0:
            kept = torch.rand(len(brain), 1, brain.shape[2], device=brain.device) >= self.config.sparse
            brain = torch.where(kept, brain, self.encoder.mean)
        tokens = self.encoder(brain)
        found, scale = self.embed(tokens), self.scale.clamp(max=LARGEST_SCALE).exp()
        loss = torch.stack([clip_loss(found, side, scale) for side in self._used(text, image)]).mean(0)
        if wanted is not None and self.config.near > 0:
            loss = loss + self.config.near * apart(tokens, wanted)
        return loss

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embeddings (n, dim) of length 1 of tokens (n, count, width)."""
        pooled = self.pool(tokens.transpose(1, 2))[..., 0]  # (n, width)
        return functional.normalize(self.project(pooled).float(), dim=-1)

    @torch.no_grad()
    def begin_with(self, tokens: Tensor, seen: Seen, penalty: float = 0.01) -> None:
        """Let the way from tokens to one embedding begin as the ridge regression from wanted tokens; ours.

        Parameters
        ----------
        tokens : (n, count, width) that the encoder's are to be near, such as those of the captions.
        seen : what CLIP makes of the same clips.
        penalty : in units of the mean variance of the tokens' mean.
        """
        known = ~(tokens.isnan().flatten(1).any(1) | seen.text[:, 0].isnan().any(1))
        wanted = torch.stack(self._used(seen.text[known, 0], seen.image[known, : seen.frames].mean(1))).mean(0)
        x = self.pool(tokens[known].transpose(1, 2))[..., 0] - self.pool.bias
        x_mean, y_mean = x.mean(0), wanted.mean(0)
        gram = (x - x_mean).T @ (x - x_mean)
        weight = torch.linalg.solve(
            gram + penalty * gram.trace() / len(gram) * torch.eye(len(gram)), (x - x_mean).T @ (wanted - y_mean)
        )
        self.pool.bias.zero_()
        self.project.weight.copy_(weight.T)
        self.project.bias.copy_(y_mean - x_mean @ weight)

    def _used(self, text: Tensor, image: Tensor) -> list[Tensor]:
        """Return the sides that the brain is held to."""
        sides = {"text": text, "image": image}
        return [side for name, side in sides.items() if self.config.against in (name, "both")]

    @torch.no_grad()
    def retrieval(self, brain: np.ndarray, seen: Seen, blocks: np.ndarray) -> dict[str, float]:
        """Return how well what was seen is found among all clips by the brain; see `found_among`."""
        made = self.embed(self.encoder.tokens(brain).to(self.project.weight.device)).cpu()
        image = functional.normalize(seen.image[:, : seen.frames].mean(1), dim=-1)
        sides = {"text": seen.text[:, 0], "image": image}
        return {
            f"{name}_{key}": value
            for name, side in sides.items()
            if self.config.against in (name, "both")
            for key, value in found_among(made, side, blocks).items()
        }


def clip_loss(brain: Tensor, other: Tensor, scale: Tensor) -> Tensor:
    """Return CLIP's symmetric loss of every pair (n,): cross-entropies of its row and its column, halved.

    Parameters
    ----------
    brain, other : (n, dim) of length 1, paired by row.
    scale : of the logits.
    """
    logits = scale * brain.float() @ other.float().T
    pairs = torch.arange(len(logits), device=logits.device)
    rows, columns = (functional.cross_entropy(side, pairs, reduction="none") for side in (logits, logits.T))
    return (rows + columns) / 2


def found_among(made: Tensor, other: Tensor, blocks: np.ndarray) -> dict[str, float]:
    """Return how often the nearest clip is of the true scene, one of the five nearest, and how many others are farther.

    Parameters
    ----------
    made, other : (n, dim) of length 1, paired by row.
    blocks : (n,) the scenes; clips of one scene look alike and count as right.

    Returns
    -------
    dict : top1, top5, chance (of top1) and pairwise, whose chance is .5: the share of clips of other scenes that are
    farther from the brain's embedding than the true one.
    """
    similarity = (made @ other.T).numpy()
    same = blocks[:, None] == blocks[None]
    order = np.argsort(-similarity, 1, kind="stable")
    hits = np.take_along_axis(same, order, 1)
    own = np.diagonal(similarity)[:, None]
    beaten = ((similarity < own) + 0.5 * (similarity == own)) * ~same
    return {
        "top1": float(hits[:, 0].mean()),
        "top5": float(hits[:, :5].any(1).mean()),
        "chance": float(same.mean()),
        "pairwise": float(beaten.sum() / max(1, (~same).sum())),
    }


@dataclass(frozen=True)
class ContrastivePairs:
    """Brain windows with what CLIP made of their clips, in batches without two clips of a scene where that can be.

    Attributes
    ----------
    brain : (n, trs, voxels).
    blocks : (n,) the scenes.
    wanted : (n, count, width) tokens to be near.
    """

    brain: np.ndarray
    seen: Seen
    blocks: np.ndarray
    wanted: Tensor | None = None

    def epoch(self, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return batches in another order: two clips of a scene would be told apart that have one caption."""
        order = rng.permutation(len(self.brain))
        rank = np.empty(len(order), dtype=int)
        for rows in (order[self.blocks[order] == block] for block in np.unique(self.blocks)):
            rank[rows] = np.arange(len(rows))
        passes = (order[rank[order] == number] for number in range(int(rank.max()) + 1))
        batches = [part for rows in passes if len(rows) >= batch for part in in_batches(rows, batch)]
        return batches or in_batches(order, batch)

    def read(self, rows: np.ndarray, seeds: np.ndarray) -> Batch:
        """Return the given windows; which wording, frame and crop, the seed says."""
        text, image = self.seen.text, self.seen.image
        wording, view = (
            torch.from_numpy(seeds >> shift) % n for shift, n in ((1, text.shape[1]), (24, image.shape[1]))
        )
        found: Batch = {
            "brain": torch.from_numpy(self.brain[rows]),
            "text": text[rows, wording % text.shape[1]],
            "image": image[rows, view % image.shape[1]],
        }
        return found if self.wanted is None else found | {"wanted": self.wanted[rows]}


def contrastive_loss(net: nn.Module, batch: Batch) -> Tensor:
    """Return the loss of every pair of a batch of `ContrastivePairs`, by a `ContrastiveNet`."""
    found: Tensor = net(batch["brain"], batch["text"], batch["image"], batch.get("wanted"))
    return found


def check_captions(captions: np.ndarray, config: ContrastiveConfig) -> None:
    """Raise DataError where text is needed and no clip has a caption."""
    rule = "must be there to be held to text (name a captioner, or set contrastive.against=image)"
    checks.require(not config.reads or bool((captions != "").any()), "captions of the training clips", rule, "none")
