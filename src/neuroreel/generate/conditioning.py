"""A latent diffusion that is conditioned on what a brain says, and the loss that both are tuned with.

With MinD-Vis (Chen et al. 2023, CVPR, section 3.2) the tokens go in by cross-attention, and their projection is added
to the time embedding. Noise and targets: Ho et al. 2020, arXiv 2006.11239; v: Salimans & Ho 2022, arXiv 2202.00512.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.fit.loop import Batch, in_batches
from neuroreel.fit.losses import apart
from neuroreel.generate.samplers import shared_noise

TUNED = ("attn2", "norm2", "time_embedding", "add_embedding")
"""Names of the layers that are tuned: cross-attention, the norm before it, and the conditioning on time."""

Times = Literal["uniform", "middle"]


class DoubleConditioned(nn.Module):
    """A U-Net that takes its tokens twice: by cross-attention and, projected, beside the time.

    The projection begins at 0, so that at first the network is the one that was given.

    Parameters
    ----------
    unet : a `UNet2DConditionModel`, or what is called like one and has a `time_embedding`.
    tuned : parts of the names of the layers that are to be trained; the rest stays as it is.

    Raises
    ------
    ConfigError : the network has no time embedding, or no layer has such a name.
    """

    def __init__(self, unet: Any, tuned: Sequence[str] = TUNED) -> None:
        super().__init__()
        embedding: Any = getattr(unet, "time_embedding", None)
        rule = "must have a time_embedding that something can be added to"
        checks.require(embedding is not None, "U-Net", rule, type(unet).__name__, error=ConfigError)
        self.unet = unet
        width = int(unet.config.cross_attention_dim)
        self.project = nn.Linear(width, embedding.linear_2.out_features)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        self._added: Tensor | None = None
        embedding.register_forward_hook(self._add)
        found = False
        for name, parameter in unet.named_parameters():
            chosen = any(part in name.split(".") for part in tuned)
            parameter.requires_grad_(chosen)
            found |= chosen
        checks.require(found, "tuned", "must name layers of the U-Net", ", ".join(tuned), error=ConfigError)

    @property
    def config(self) -> Any:
        """The U-Net's own config."""
        return self.unet.config

    def forward(self, x: Tensor, t: Any, tokens: Tensor) -> SimpleNamespace:
        """Return the U-Net's answer to latents (n, channels, h, w) at times t as `.sample`.

        Parameters
        ----------
        tokens : (n, tokens, width).
        """
        self._added = self.project(tokens.mean(1))
        try:
            return SimpleNamespace(sample=self.unet(x, t, tokens).sample)
        finally:
            self._added = None

    def _add(self, module: nn.Module, given: Any, embedded: Tensor) -> Tensor:
        return embedded if self._added is None else embedded + self._added.to(embedded.dtype)


class Noising(nn.Module):
    """The forward process of a diffusion, and what its network is to predict.

    Parameters
    ----------
    noise : config of the scheduler of the training, see `LatentGenerator.noise`.
    times : how times are drawn: "uniform" as published, or "middle" from a logistic normal (Esser et al. 2024, arXiv
        2403.03206, section 3.1), which spends less on steps that are nearly all noise or none.
    shared : share of the variance of its noise that the frames of a clip have in common, see `shared_noise`.

    Raises
    ------
    ConfigError : the scheduler has no noise levels, or its network predicts something unknown.
    """

    kept: Tensor

    def __init__(self, noise: Mapping[str, Any], times: Times = "uniform", shared: float = 0.0) -> None:
        super().__init__()
        import diffusers

        made = diffusers.DDPMScheduler.from_config(dict(noise))
        kind = str(noise.get("prediction_type", "epsilon"))
        self.kind = checks.one_of("prediction_type of the scheduler", kind, ("epsilon", "sample", "v_prediction"))
        self.times, self.shared = times, shared
        self.register_buffer("kept", made.alphas_cumprod.clone(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return noised latents, their times (n,) and what is to be predicted, of clean latents (n, channels, ...)."""
        n, steps = len(x), len(self.kept)
        drawn = torch.rand(n, device=x.device) if self.times == "uniform" else torch.randn(n, device=x.device).sigmoid()
        t = (drawn * steps).long().clamp(0, steps - 1)
        noise = torch.randn_like(x)
        if self.shared > 0:
            noise = shared_noise(noise, torch.randn_like(x[:, :, :1]), self.shared)
        shape = (n, *([1] * (x.ndim - 1)))
        alpha, sigma = self.kept[t].sqrt().view(shape), (1 - self.kept[t]).sqrt().view(shape)
        wanted = {"epsilon": noise, "sample": x, "v_prediction": alpha * noise - sigma * x}[self.kind]
        return alpha * x + sigma * noise, t, wanted


class Together(nn.Module):
    """An encoder and the diffusion that its tokens condition, tuned together with the diffusion's own loss.

    Parameters
    ----------
    encoder : from what is given (n, ...) to tokens (n, count, width); `nn.Identity` where tokens are given.
    unet : called as a `UNet2DConditionModel`, or as one of clips.
    noising : see `Noising`.
    silent : (1, count, width), the tokens that guidance starts from.
    near : weight of the term that holds the tokens near wanted ones, such as those of the captions.
    dropped : share of the rows whose tokens are replaced by those that guidance starts from.
    null : (1, ...) what the encoder makes the tokens of that guidance starts from, in place of `silent`.
    """

    encoder: Any
    unet: Any
    silent: Tensor
    null: Tensor | None

    def __init__(
        self,
        encoder: nn.Module,
        unet: nn.Module,
        noising: Noising,
        silent: Tensor,
        near: float = 0.0,
        dropped: float = 0.0,
        null: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.unet, self.noising, self.near, self.dropped = encoder, unet, noising, near, dropped
        self.register_buffer("silent", silent.clone(), persistent=False)
        self.register_buffer("null", None if null is None else null.clone(), persistent=False)

    def forward(self, given: Tensor, latents: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Return the loss of every row of what is given (n, ...), with the latents (n, channels, ...) of what was seen.

        Parameters
        ----------
        wanted : (n, count, width), NaN where there is none.
        """
        tokens = self.encoder(given)
        noised, t, target = self.noising(latents)
        told = tokens
        if self.training and self.dropped > 0:
            without = torch.rand(len(tokens), device=tokens.device) < self.dropped
            start = self.silent if self.null is None else self.encoder(self.null)
            told = torch.where(without[:, None, None], start.to(tokens.dtype), tokens)
        wrong = (self.unet(noised, t, told).sample.float() - target).square().flatten(1).mean(1)
        if wanted is not None and self.near > 0:
            wrong = wrong + self.near * apart(tokens, wanted)
        return wrong


@dataclass(frozen=True)
class Pairs:
    """What is given with the latents of the clip that was seen, or of one of its frames, drawn anew at every reading.

    Attributes
    ----------
    given : (n, ...) brain windows, or tokens.
    latents : (n, frames, channels, h, w).
    wanted : (n, count, width) tokens to be near, NaN where there are none.
    whole : read clips, (n, channels, frames, h, w), and not one of the frames, (n, channels, h, w).
    """

    given: np.ndarray
    latents: Tensor
    wanted: Tensor | None = None
    whole: bool = False

    def epoch(self, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return all pairs in another order, in batches."""
        return in_batches(rng.permutation(len(self.given)), batch)

    def read(self, rows: np.ndarray, seeds: np.ndarray) -> Batch:
        """Return the given pairs; which frame, the seed says."""
        if self.whole:
            latents = self.latents[rows].transpose(1, 2)
        else:
            latents = self.latents[rows, torch.from_numpy(seeds % self.latents.shape[1])]
        found: Batch = {"given": torch.from_numpy(self.given[rows]), "latents": latents}
        return found if self.wanted is None else found | {"wanted": self.wanted[rows]}


def together_loss(net: nn.Module, batch: Batch) -> Tensor:
    """Return the loss of every pair of a batch of `Pairs`, by a `Together`."""
    found: Tensor = net(batch["given"], batch["latents"], batch.get("wanted"))
    return found


@torch.no_grad()
def held_out_loss(net: Together, pairs: Pairs, batch: int) -> float:
    """Return the mean loss on pairs that aren't trained on, with the same noise at every call."""
    training, device = net.training, next(net.parameters()).device
    net.eval()
    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for rows in np.array_split(np.arange(len(pairs.given)), -(-len(pairs.given) // batch)):
            part = pairs.read(rows, rows)
            losses.append(together_loss(net, {key: value.to(device) for key, value in part.items()}))
    net.train(training)
    return float(torch.cat(losses).mean())
