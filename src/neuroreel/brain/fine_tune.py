"""A decoder that stands on the masked encoder: its tokens, a linear head, and both trained on paired data."""

from __future__ import annotations

from copy import deepcopy
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from neuroreel.brain.masked import MaskedBrain
from neuroreel.brain.stream import key_of
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import DataError
from neuroreel.fit.loop import Arrays, Batch, LoopConfig, train


class FineTuneConfig(Config):
    """How a decoder is trained on paired data.

    Attributes
    ----------
    pool : the head reads the "mean" of all tokens, or "all" of them, each with weights of its own.
    noise : SD of the noise that is added to the z-scored voxels while training.
    loop : how it is trained; the network ends with the moving average of its weights.
    """

    pool: Literal["mean", "all"] = "mean"
    noise: float = Field(default=0.3, ge=0)
    loop: LoopConfig = Field(
        default_factory=lambda: LoopConfig(steps=300, batch=32, rate=1e-3, average=0.98, precision="float32")
    )


class FineTunedDecoder:
    """Brain windows to targets through the masked encoder, which is tuned too.

    Parameters
    ----------
    brain : whose encoder the decoder begins with; it is copied and stays as it is.
    subject : whose voxels.
    seed : of the head's first weights.

    Attributes
    ----------
    losses_ : (steps,) of the training.
    """

    losses_: np.ndarray

    def __init__(
        self, brain: MaskedBrain, subject: str, config: FineTuneConfig | None = None, *, seed: int = 0
    ) -> None:
        self.brain, self.subject, self.config, self.seed = brain, subject, config or FineTuneConfig(), seed
        self._net: _Decoder | None = None

    def fit(self, windows: np.ndarray, targets: np.ndarray, *, cpu: bool = False) -> Self:
        """Train on windows (n, trs, voxels) in the units of the pre-training, and targets (n, units)."""
        scaled = self.brain.moments(self.subject).apply(checks.finite("brain", windows))
        checks.same_length("targets", len(targets), "brain windows", len(windows))
        mean, sd = targets.mean(0), targets.std(0)
        sd = np.where(sd > 0, sd, 1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = _Decoder(self.brain, self.subject, targets.shape[1], self.config.pool)
        noise = self.config.noise

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            x = batch["brain"]
            return (model(x + noise * torch.randn_like(x)) - batch["targets"]).square().mean(1)

        arrays = {"brain": scaled, "targets": ((targets - mean) / sd).astype(np.float32)}
        done = train(net, loss, Arrays(arrays), self.config.loop, cpu=cpu)
        net.to("cpu").load_state_dict(done.average, strict=False)
        self._net, self._mean, self._sd, self.losses_ = net.eval(), mean, sd, done.losses
        return self

    def predict(self, windows: np.ndarray, *, batch: int = 256) -> np.ndarray:
        """Return the targets (n, units) of windows (n, trs, voxels)."""
        if self._net is None:
            raise DataError(checks.sentence("decoder", "must be fitted before it predicts", "no weights"))
        scaled = torch.from_numpy(self.brain.moments(self.subject).apply(checks.finite("brain", windows)))
        with torch.inference_mode():
            parts = [self._net(scaled[at : at + batch]).numpy() for at in range(0, len(scaled), batch)]
        return np.asarray(np.concatenate(parts) * self._sd + self._mean)


class _Decoder(nn.Module):
    """The encoder of one subject and a linear head; what only recovering needs is not trained."""

    def __init__(self, brain: MaskedBrain, subject: str, units: int, pool: str) -> None:
        super().__init__()
        self.key, self.pool = key_of(subject), pool
        self.net = deepcopy(brain.net).requires_grad_(False)
        ends = self.net.end(self.key)
        for part in (self.net.encoder, self.net.norm, self.net.embed):
            if part is not None:
                part.requires_grad_(True)
        for name, value in [*ends.named_parameters(), ("time", self.net.time)]:
            if value is not None:
                value.requires_grad_(not name.startswith("out_"))
        tokens = brain.config.trs * len(brain.patches(subject))
        self.head = nn.Linear(brain.config.dim * (tokens if pool == "all" else 1), units)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, brain: Tensor) -> Tensor:
        """Return (batch, units) of z-scored windows (batch, trs, voxels)."""
        x = self.net.encode(brain, self.key)  # (batch, trs, patches, dim)
        return self.head(x.flatten(1) if self.pool == "all" else x.mean((1, 2)))
