"""An autoencoder that learns fast on a CPU, with the interface of diffusers' `AutoencoderKL`.

Its first step folds 4 x 4 pixels into channels (space to depth; Shi et al. 2016, arXiv 1609.05158, eq. 4 the other way
round), so that all convolutions work at a quarter of the resolution. Posterior and penalty are those of Kingma &
Welling 2014, arXiv 1312.6114; the layout of the latents those of Rombach et al. 2022, arXiv 2112.10752.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

FOLD = 4
"""Pixels of one side that share a latent."""

FIRST_LOG_VARIANCE = -6.0
"""Of the untrained posterior: with noise of the latents' own size nothing is learnt for hundreds of steps."""


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity, after a group normalisation each."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, channels), nn.GroupNorm(groups, channels)
        self.conv1, self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1), nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (n, channels, height, width) with what the block adds to it."""
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class FoldedAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Pixels (n, 3, h, w) in -1..1 to a Gaussian over latents (n, latent_channels, h / 4, w / 4), and back.

    `from_pretrained`, `save_pretrained`, `config`, `encode`, `decode` and `forward` are used as those of
    `AutoencoderKL`, so that it takes its place in a `StableDiffusionPipeline`.

    Parameters
    ----------
    latent_channels : channels of the latents.
    block_out_channels : width of the encoder's blocks, of the decoder's, and of its last step at half the resolution;
        three numbers, so that a pipeline reads a factor of 4 from their count.
    layers_per_block : residual blocks of the encoder; the decoder has one more.
    norm_num_groups : groups of the normalisations.
    scaling_factor : what latents are multiplied by before a diffusion; `whiten` makes 1 right.
    sample_size : side of the frames in pixels that it was trained on.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 4,
        block_out_channels: tuple[int, int, int] = (64, 96, 48),
        layers_per_block: int = 2,
        norm_num_groups: int = 16,
        scaling_factor: float = 1.0,
        shift_factor: float | None = None,
        sample_size: int = 64,
        force_upcast: bool = False,
    ) -> None:
        super().__init__()
        wide, back, half = block_out_channels
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels * FOLD**2, wide, 3, 1, 1),
            *[Residual(wide, norm_num_groups) for _ in range(layers_per_block)],
            nn.GroupNorm(norm_num_groups, wide),
            nn.SiLU(),
            nn.Conv2d(wide, 2 * latent_channels, 3, 1, 1),
        )
        self.quant_conv: Any = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        nn.init.constant_(self.quant_conv.get_parameter("bias").data[latent_channels:], FIRST_LOG_VARIANCE)
        self.post_quant_conv: Any = nn.Conv2d(latent_channels, latent_channels, 1)
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, back, 3, 1, 1),
            *[Residual(back, norm_num_groups) for _ in range(layers_per_block + 1)],
            nn.GroupNorm(norm_num_groups, back),
            nn.SiLU(),
            nn.Conv2d(back, half * 4, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(half, out_channels * 4, 3, 1, 1),
            nn.PixelShuffle(2),
        )

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Return the posterior of pixels (n, 3, h, w), h and w multiples of 4, as `.latent_dist`."""
        posterior = DiagonalGaussianDistribution(self.quant_conv(self.encoder(F.pixel_unshuffle(x, FOLD))))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None) -> Any:
        """Return the pixels of latents (n, latent_channels, h, w), (n, 3, 4 h, 4 w), as `.sample`; not clipped."""
        pixels = self.decoder(self.post_quant_conv(z))
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Return pixels (n, 3, h, w) encoded and decoded, from the posterior's mode or from a sample of it."""
        posterior = self.encode(sample).latent_dist
        z = posterior.sample(generator=generator) if sample_posterior else posterior.mode()
        return self.decode(z, return_dict=return_dict)

    @torch.no_grad()
    def whiten(self, x: Tensor) -> None:
        """Make the latents of pixels (n, 3, h, w) uncorrelated between channels, of mean 0 and variance 1, in place.

        Of all such maps it is the one that changes the latents least (Kessy et al. 2018, Am. Stat. 72:309, ZCA), and is
        folded into the two 1 x 1 convolutions around the latents, so that pixels are coded as before.
        """
        latents = self.encode(x).latent_dist.mode().double()  # (n, channels, h, w)
        n = latents.shape[1]
        flat = latents.transpose(0, 1).reshape(n, -1)
        mean = flat.mean(1)
        values, axes = torch.linalg.eigh(torch.cov(flat))
        root = values.clamp_min(1e-12).sqrt()
        into, back = axes / root @ axes.T, axes * root @ axes.T  # z' = into (z - mean), z = back z' + mean
        quant, post = self.quant_conv, self.post_quant_conv
        weights, biases = quant.weight[..., 0, 0].double(), quant.bias.double()
        mode, spread = weights[:n], weights[n:]
        shift = 2 * root.mean().log()  # the axes change: the spread follows on average
        quant.weight.copy_(torch.cat([into @ mode, spread])[..., None, None])
        quant.bias.copy_(torch.cat([into @ (biases[:n] - mean), biases[n:] - shift]))
        weights = post.weight[..., 0, 0].double()
        post.bias.add_((weights @ mean).to(post.bias.dtype))
        post.weight.copy_((weights @ back)[..., None, None])
