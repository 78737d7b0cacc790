"""A latent diffusion that is conditioned twice on what a brain says, and the loss that it is tuned with.

The tokens go in by cross-attention, and their projection is added to the time embedding (Chen et al. 2023, MinD-Vis,
CVPR, section 3.2). Noise and targets: Ho et al. 2020, arXiv 2006.11239; v: Salimans & Ho 2022, arXiv 2202.00512.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError

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

    Raises
    ------
    ConfigError : the scheduler has no noise levels, or its network predicts something unknown.
    """

    kept: Tensor

    def __init__(self, noise: Mapping[str, Any], times: Times = "uniform") -> None:
        super().__init__()
        import diffusers

        made = diffusers.DDPMScheduler.from_config(dict(noise))
        kind = str(noise.get("prediction_type", "epsilon"))
        self.kind = checks.one_of("prediction_type of the scheduler", kind, ("epsilon", "sample", "v_prediction"))
        self.times = times
        self.register_buffer("kept", made.alphas_cumprod.clone(), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return noised latents, their times (n,) and what is to be predicted, of clean latents (n, ...)."""
        n, steps = len(x), len(self.kept)
        drawn = torch.rand(n, device=x.device) if self.times == "uniform" else torch.randn(n, device=x.device).sigmoid()
        t = (drawn * steps).long().clamp(0, steps - 1)
        noise = torch.randn_like(x)
        shape = (n, *([1] * (x.ndim - 1)))
        alpha, sigma = self.kept[t].sqrt().view(shape), (1 - self.kept[t]).sqrt().view(shape)
        wanted = {"epsilon": noise, "sample": x, "v_prediction": alpha * noise - sigma * x}[self.kind]
        return alpha * x + sigma * noise, t, wanted
