"""How the transformer blocks of a U-Net of diffusers attend, by `nets.transformer.attend`: processors of its layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuroreel.nets.transformer import attend

_MORE = ("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k", "residual_connection")
"""What an attention of diffusers may have and those of a transformer block don't."""


class BlockAttention:
    """Processor of the attention of a transformer block, to its own places or to the tokens of the condition.

    It computes what diffusers' own one does, faster on a processor in bfloat16.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return what the places (n, places, dim) take from themselves or the tokens (n, tokens, width)."""
        if attention_mask is not None:
            from diffusers.models.attention_processor import AttnProcessor2_0

            made: Tensor = AttnProcessor2_0()(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
            return made
        seen = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        return _out(attn, attend(*_heads(attn, hidden_states, seen, len(hidden_states))), hidden_states.shape)


class SparseCausalAttention:
    """Processor of a self-attention: a frame's queries look at the two frames before it.

    Scene-dynamic sparse causal attention (MinD-Video, section 3.4): queries of frame i, keys and values of frames
    i - 2 and i - 1, the first frame for those before it. So frames 0 and 1 look at frame 0 alone: a softmax over the
    same keys twice is the one over them once. Keys and values are computed once a frame and looked at where they lie.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return what the queries take, (n * frames, places, dim), as diffusers calls its processors."""
        rows, places, _ = hidden_states.shape
        q, k, v = _heads(attn, hidden_states, hidden_states, rows // self.frames)
        mixed = [attend(q[:, :, : 2 * places], k[:, :, :places], v[:, :, :places])]
        for start in range(2 * places, self.frames * places, places):
            before = slice(start - 2 * places, start)
            mixed.append(attend(q[:, :, start : start + places], k[:, :, before], v[:, :, before]))
        return _out(attn, torch.cat(mixed, 2), hidden_states.shape)


def attend_fast(unet: Any) -> Any:
    """Give every plain attention of a network of diffusers a `BlockAttention`, and return the network."""
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0

    for module in unet.modules():
        plain = isinstance(module, Attention) and type(module.processor) is AttnProcessor2_0
        if plain and not any(getattr(module, name) for name in _MORE):
            module.set_processor(BlockAttention())
    return unet


def _heads(attn: Any, x: Tensor, seen: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries of x and keys and values of what is seen, (rows, heads, places or tokens, width) each."""
    made = (layer(part) for layer, part in ((attn.to_q, x), (attn.to_k, seen), (attn.to_v, seen)))
    q, k, v = (part.reshape(rows, -1, attn.heads, part.shape[-1] // attn.heads).transpose(1, 2) for part in made)
    return q, k, v


def _out(attn: Any, mixed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return what the heads (rows, heads, places, width) have taken, in the shape (n, places, dim) of the input."""
    joined = mixed.transpose(1, 2).reshape(*shape[:2], -1)
    made: Tensor = attn.to_out[1](attn.to_out[0](joined))
    return made / attn.rescale_output_factor
