"""From brain windows to the tokens that condition a generator: the masked encoder, and what mixes its tokens.

Sources: MinD-Vis (Chen et al. 2023, section 3.2), where the encoder's tokens are the condition; MinD-Video (Chen et al.
2023, section 3.3), where the tokens of all volumes are mixed linearly to the generator's number and width.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from neuroreel.brain.masked import MaskedBrain
from neuroreel.brain.stream import key_of
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.fit.ridge import solve_ridge_cv

ALPHAS = tuple(float(10.0**power) for power in range(-1, 8))


class TokensConfig(Config):
    """How the encoder's tokens become those of a generator.

    Attributes
    ----------
    mixing : "tokens" mixes the tokens of all volumes' patches to the generator's number and their width to its width,
        as published with MinD-Vis; "gelu" then adds a linear map of their GELU, as published with MinD-Video (which
        way round is unconfirmed); "full" gives each patch weights of its own, through `rank` numbers.
    rank : see above.
    noise : SD of the noise added to the z-scored voxels while training.
    hidden : share of the patches that is set to 0 while training.
    """

    mixing: Literal["full", "tokens", "gelu"] = "full"
    rank: int = Field(default=256, ge=1)
    noise: float = Field(default=0.3, ge=0)
    hidden: float = Field(default=0.2, ge=0, lt=1)


class TokenEncoder(nn.Module):
    """The masked encoder of one subject with a mixer behind it.

    Parameters
    ----------
    brain : pre-trained, see `MaskedBrain`; its network is trained on.
    subject : whose voxels.
    count, width : of the tokens that come out.
    """

    mean: Tensor
    sd: Tensor

    def __init__(
        self, brain: MaskedBrain, subject: str, count: int, width: int, config: TokensConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config or TokensConfig()
        self.subject, self.key, self.count, self.width = subject, key_of(subject), count, width
        self.net = brain.net
        moments, shape = brain.moments(subject), brain.config
        self.register_buffer("mean", torch.from_numpy(moments.mean))
        self.register_buffer("sd", torch.from_numpy(moments.sd))
        self.trs = shape.trs
        patches = shape.trs * len(brain.patches(subject))
        if self.config.mixing == "full":
            rank = self.config.rank
            self.down = nn.Linear(patches * shape.dim, rank)
            self.up = nn.Linear(rank, count * width)
        else:
            self.down = nn.Linear(patches, count)
            self.up = nn.Linear(shape.dim, width)
        self.bend = nn.Linear(width, width) if self.config.mixing == "gelu" else None
        for parameter in self.net.parameters():
            parameter.requires_grad_(False)
        for part in (self.net.encoder, self.net.norm, self.net.ends[self.key], self.net.embed):
            if part is not None:
                part.requires_grad_(True)
        for name, parameter in self.net.ends[self.key].named_parameters():
            parameter.requires_grad_(not name.startswith("out_"))
        if self.net.time is not None:
            self.net.time.requires_grad_(True)

    def forward(self, brain: Tensor) -> Tensor:
        """Return the tokens (n, count, width) of brain windows (n, trs, voxels) in the units of the training."""
        return self.mix(self.encode(brain))

    def encode(self, brain: Tensor) -> Tensor:
        """Return the encoder's tokens of all volumes, (n, trs x patches, dim)."""
        scaled = (brain - self.mean) / self.sd
        if self.training and self.config.noise > 0:
            scaled = scaled + self.config.noise * torch.randn_like(scaled)
        return self.net.encode(scaled, self.key).flatten(1, 2)

    def mix(self, encoded: Tensor) -> Tensor:
        """Return the generator's tokens (n, count, width) of the encoder's (n, trs x patches, dim)."""
        if self.training and self.config.hidden > 0:
            kept = torch.rand(encoded.shape[:2], device=encoded.device) >= self.config.hidden
            encoded = encoded * (kept / (1 - self.config.hidden)).to(encoded.dtype)[..., None]
        if self.config.mixing == "full":
            return self.up(self.down(encoded.flatten(1))).view(-1, self.count, self.width)
        made = self.up(self.down(encoded.transpose(1, 2)).transpose(1, 2))
        return made if self.bend is None else made + self.bend(functional.gelu(made))

    @torch.no_grad()
    def all_encoded(self, brain: np.ndarray, batch: int = 64) -> Tensor:
        """Return the encoder's tokens of all windows (n, trs, voxels), (n, trs x patches, dim), on the CPU."""
        device = self.mean.device
        parts = range(0, len(brain), batch)
        return torch.cat([self.encode(torch.from_numpy(brain[at : at + batch]).to(device)).cpu() for at in parts])

    @torch.no_grad()
    def tokens(self, brain: np.ndarray, batch: int = 64) -> Tensor:
        """Return the tokens of all windows (n, trs, voxels), (n, count, width), on the CPU; nothing is trained."""
        checks.dimensions("brain", brain, ("n", "trs", "voxels"))
        checks.require(brain.shape[1] == self.trs, "brain", f"must have windows of {self.trs} volumes", brain.shape[1])
        checks.same_length("voxels", brain.shape[2], "those of the weights", len(self.mean))
        training = self.training
        self.eval()
        device = self.mean.device
        made = [self(torch.tensor(brain[at : at + batch], device=device)).cpu() for at in range(0, len(brain), batch)]
        self.train(training)
        return torch.cat(made) if made else torch.zeros(0, self.count, self.width)

    def begin_with(self, brain: np.ndarray, wanted: Tensor, blocks: np.ndarray, *, folds: int = 5) -> float:
        """Let the mixer begin as the ridge regression from the encoder's tokens to wanted ones; return its R2.

        Parameters
        ----------
        brain : (n, trs, voxels) training windows.
        wanted : (n, count, width) tokens, such as those of the captions.
        blocks : (n,) for the folds of the choice of the penalty; the R2 is of the held-out blocks.

        Raises
        ------
        ConfigError : the mixing isn't "full".
        """
        checks.one_of("mixing of tokens that begin with a ridge", self.config.mixing, ("full",))
        self.eval()
        encoded = self.all_encoded(brain).flatten(1).numpy()
        targets = wanted.flatten(1).numpy().astype(np.float32)
        mean = targets.mean(0)
        _, values, axes = np.linalg.svd(targets - mean, full_matrices=False)
        rank = min(self.config.rank, int((values > 1e-6 * values[0]).sum()))
        axes = axes[:rank]  # (rank, count * width)
        scores = (targets - mean) @ axes.T
        centre, spread = encoded.mean(0), float(encoded.std())
        x = (encoded - centre) / spread
        fit = solve_ridge_cv(x, scores, alphas=ALPHAS, folds=folds, groups=blocks, form="dual")
        coef = fit.coef if fit.coef is not None else x.T @ fit.dual_coef
        with torch.no_grad():
            self.down.weight.zero_()
            self.down.bias.zero_()
            self.up.weight.zero_()
            self.down.weight[:rank] = torch.from_numpy((coef.T / spread).astype(np.float32))
            offset = fit.intercept - (centre / spread) @ coef
            self.down.bias[:rank] = torch.from_numpy(offset.astype(np.float32))
            self.up.weight[:, :rank] = torch.from_numpy(axes.T.astype(np.float32))
            self.up.bias.copy_(torch.from_numpy(mean))
        return float(1 + fit.cv_score.sum() / scores.var(0).sum())
