"""From noise to latents: diffusers' samplers by name, and the loop that they share, with classifier-free guidance.

Sources: DDIM, Song et al. 2021, arXiv 2010.02502; PNDM, Liu et al. 2022, arXiv 2202.09778; DPM-Solver++, Lu et al.
2022, arXiv 2211.01095; UniPC, Zhao et al. 2023, arXiv 2302.04867; guidance, Ho & Salimans 2022, arXiv 2207.12598,
eq. 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import AfterValidator
from torch import Tensor

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.core.seeds import generator
from neuroreel.core.types import Samples

SAMPLERS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "ddim": ("DDIMScheduler", {}),
        "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
        "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
        "unipc": ("UniPCMultistepScheduler", {}),
    }
)
"""The class in diffusers of every sampler, and the settings that it has beside those of the training's noise."""


def rising(within: tuple[float, float]) -> tuple[float, float]:
    """Return two shares of the noise; ConfigError if they lie outside 0..1 or fall."""
    first, last = within
    checks.require(0 <= first <= last <= 1, "within", "must be two shares that rise", within, error=ConfigError)
    return within


Within = Annotated[tuple[float, float], AfterValidator(rising)]
"""Of a config: between which shares of the noise there is guidance, see `denoise`."""


def make_sampler(name: str, noise: Mapping[str, Any]) -> Any:
    """Return a sampler for a network that was trained with the given noise.

    Parameters
    ----------
    name : one of SAMPLERS.
    noise : config of the scheduler of the training: its betas, what is predicted, how time steps are spaced.

    Raises
    ------
    ConfigError : the name is unknown.
    """
    import diffusers

    kind, settings = SAMPLERS[checks.one_of("sampler", name, SAMPLERS)]
    return getattr(diffusers, kind).from_config(dict(noise) | dict(settings))


def seeded_noise(seed: int, shape: Sequence[int], rows: Sequence[int], name: str = "sample") -> Tensor:
    """Return normal noise (rows, *shape) float32; a row's noise depends on the seed and its number alone."""
    drawn = [generator(seed, name, int(row)).standard_normal(tuple(shape), dtype=np.float32) for row in rows]
    return torch.from_numpy(np.stack(drawn)) if drawn else torch.empty((0, *shape))


def window_noise(samples: Samples, shape: Sequence[int], seed: int, name: str = "sample") -> Tensor:
    """Return normal noise (n, *shape) that follows from each window's run and onset, the seed and a name alone."""
    keys = zip(samples.run, samples.onset_s, strict=True)
    drawn = [
        generator(seed, name, str(run), round(1000 * float(at))).standard_normal(tuple(shape), dtype=np.float32)
        for run, at in keys
    ]
    return torch.from_numpy(np.stack(drawn)) if drawn else torch.empty((0, *shape))


def shared_noise(own: Tensor, common: Tensor, share: float) -> Tensor:
    """Return noise (n, channels, frames, h, w) whose frames have a share of its variance in common.

    With noise of their own, frames begin with objects at different places, which only well trained layers over time
    bring together. Source: Ge et al. 2023, arXiv 2305.10474, section 3.1, mixed noise.

    Parameters
    ----------
    own : (n, channels, frames, h, w), common : (n, channels, 1, h, w), both normal.
    """
    return share**0.5 * common + (1 - share) ** 0.5 * own


@torch.no_grad()
def denoise(
    unet: Any,
    noise: Tensor,
    tokens: Tensor,
    silent: Tensor,
    sampler: Any,
    *,
    steps: int = 25,
    guidance: float = 3.0,
    within: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Return latents made from noise of their shape: (n, channels, h, w), or (n, channels, frames, h, w) of clips.

    Parameters
    ----------
    unet : a `UNet2DConditionModel`, or anything called like one.
    tokens : condition of every row, (n, tokens, width).
    silent : condition that says nothing, (1, tokens, width) or (n, tokens, width).
    sampler : as of `make_sampler`; its steps are set here.
    steps : network evaluations, or pairs of them with guidance.
    guidance : w of found = silent + w (told - silent); at 1 the silent half isn't computed.
    within : shares of the training's time, from no noise (0) to nothing else (1), between which there is guidance;
        elsewhere w is 1 and a step costs half (Kynkäänniemi et al. 2024, arXiv 2404.07724).

    Raises
    ------
    ConfigError : the steps, the width of the tokens, or the ends of `within` are wrong.
    """
    whole = isinstance(steps, int) and steps >= 1
    checks.require(whole, "steps", "must be a whole number of 1 or more", steps, error=ConfigError)
    wanted = getattr(getattr(unet, "config", None), "cross_attention_dim", tokens.shape[-1])
    rule = f"must be that of the network ({wanted})"
    checks.require(tokens.shape[-1] == wanted, "token width", rule, tokens.shape[-1], error=ConfigError)
    first, last = rising(within)
    both = torch.cat([silent.expand_as(tokens), tokens]) if guidance != 1.0 else tokens
    sampler.set_timesteps(steps, device=noise.device)
    span = sampler.config.num_train_timesteps
    x = noise * sampler.init_noise_sigma
    for t in sampler.timesteps:
        guided = guidance != 1.0 and first <= float(t) / span <= last
        scaled = sampler.scale_model_input(x, t)
        given = torch.cat([scaled, scaled]) if guided else scaled
        found = unet(given, t, both if guided else tokens).sample.to(x.dtype)  # which autocast may have changed
        if guided:
            without, told = found.chunk(2)
            found = without + guidance * (told - without)
        x = sampler.step(found, t, x).prev_sample
    return x
