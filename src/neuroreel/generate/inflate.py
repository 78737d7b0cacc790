"""From a U-Net of pictures to one of clips: frames by the 2-D layers, attention to earlier frames and over time.

`inflate` does it as MinD-Video; `motion_unet` by diffusers' `UNetMotionModel`. Both are called alike:

    video = inflate(unet, frames=6)                # computes what `unet` does, frame by frame
    tuned = video.trainable()                      # queries, cross-attention, attention over time
    noise = video(latents, t, tokens).sample       # latents (n, channels, frames, h, w)
    video.save(Path("tuned.safetensors"))          # those layers alone

Sources: MinD-Video, Chen, Qing & Zhou, NeurIPS 2023, section 3.4; Tune-A-Video, Wu et al. 2023, arXiv 2212.11565,
sections 4.1 and 4.2; AnimateDiff, Guo et al. 2023, arXiv 2307.04725, section 4.2.
"""

from __future__ import annotations

import copy
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.generate.attention import SparseCausalAttention, attend_fast
from neuroreel.nets.pretrained import quiet
from neuroreel.nets.transformer import Attention, sine_positions
from neuroreel.nets.weights import fill, fingerprint, first_weights, read_about, read_state, write_state

ATTENTIONS = ("self", "sparse-causal")
"""What the spatial self-attention of a frame looks at: the frame alone, or the two frames before it."""
PARTS = ("queries", "self", "cross", "temporal")
"""What can be trained: the queries of the self-attention, all of it, the cross-attention, the layers over time."""
TUNED = ("queries", "cross", "temporal")
"""What is trained by default (Tune-A-Video, section 4.2; MinD-Video, section 3.4)."""
_MARKS = {"queries": ".attn1.to_q.", "self": ".attn1.", "cross": ".attn2."}
_ROWS = 2**15
"""Rows of one attention over time: a CUDA kernel takes no more than 65,535."""
_PLAIN = {
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "dual_cross_attention": False,
    "dropout": 0.0,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_embedding_act_fn": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}
"""Settings of a U-Net that a `UNetMotionModel` does not have, and would leave out without a word."""


class ClipUNet(nn.Module, ABC):
    """A U-Net over clips that was made from one over pictures; `InflatedUNet` or `MotionUNet`.

    Nothing of it trains until `trainable` says what.

    Attributes
    ----------
    unet : the network inside.
    frames : of a clip.
    fingerprint : of the 2-D network that it was made from.
    parts : of PARTS, those that may differ from the 2-D network, which are the ones that are saved.
    """

    kind: str

    def __init__(self, unet: Any, frames: int, base: str) -> None:
        super().__init__()
        self.unet, self.frames, self.fingerprint = unet, frames, base
        self.parts: frozenset[str] = frozenset({"temporal"})
        self.requires_grad_(False)

    @property
    def config(self) -> Any:
        """Config of the U-Net inside."""
        return self.unet.config

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next(self.parameters()).device

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        *,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Return what the network predicts of every frame, `.sample` (n, channels, frames, h, w).

        Parameters
        ----------
        sample : latents (n, channels, frames, h, w).
        timestep : one, or one a clip (n,).
        encoder_hidden_states : the condition, (n, tokens, width) for all frames alike or (n, frames, tokens, width).
        added_cond_kwargs : what else some U-Nets take, (n, ...) each: the pooled text and the sizes of SDXL.
        return_dict : False gives a tuple, as diffusers' networks do.

        Raises
        ------
        ConfigError : another number of axes, channels or frames, or tokens of another width, than the network has.
        """
        channels = self.config.in_channels
        rule = f"must be (n, {channels}, {self.frames}, height, width) for this network"
        fits = sample.ndim == 5 and sample.shape[1:3] == (channels, self.frames)
        checks.require(fits, "latents", rule, tuple(sample.shape), error=ConfigError)
        tokens = self._per_frame(encoder_hidden_states, len(sample))
        found = self._run(sample, torch.as_tensor(timestep, device=sample.device), tokens, added_cond_kwargs)
        return found if return_dict else (found.sample,)

    def enable_gradient_checkpointing(self) -> None:
        """Keep no activations inside the blocks, and compute them again in the backward pass."""
        self.unet.enable_gradient_checkpointing()

    def disable_gradient_checkpointing(self) -> None:
        """Keep all activations."""
        self.unet.disable_gradient_checkpointing()

    def trainable(self, parts: Sequence[str] = TUNED) -> list[nn.Parameter]:
        """Let the named parts train, freeze all else, and return the weights that train.

        Raises
        ------
        ConfigError : a part isn't one of PARTS, or the network has no such layer.
        """
        for part in parts:
            checks.one_of("trainable part", part, PARTS)
            there = any(_belongs(name, part) for name, _ in self.named_parameters())
            checks.require(there, "trainable part", "must be in the network", repr(part), error=ConfigError)
        for name, weight in self.named_parameters():
            weight.requires_grad_(any(_belongs(name, part) for part in parts))
        self.parts |= set(parts)
        return [weight for weight in self.parameters() if weight.requires_grad]

    def tuned_state(self) -> dict[str, Tensor]:
        """Return the tensors that may differ from the 2-D network's, by name: the new layers and those once trained."""
        return {k: v for k, v in self.state_dict().items() if any(_belongs(k, part) for part in self.parts)}

    def save(self, file: Path) -> str:
        """Write `tuned_state` as safetensors, with the fingerprint of the 2-D network; return the file's SHA-256."""
        return write_state(file, self.tuned_state(), about=self._about() | {"parts": json.dumps(sorted(self.parts))})

    def load(self, file: Path) -> None:
        """Take the tensors that `save` wrote, into a network made from the same 2-D one in the same way.

        Raises
        ------
        ConfigError : the file is missing, or the network was made in another way or has other frames.
        DataError : the file is corrupt, or of another 2-D network.
        """
        said = read_about(file)
        checks.require("fingerprint" in said, "weights", "must have been saved from a U-Net of clips", "others", file)
        for name, own in self._about().items():
            error = {} if name == "fingerprint" else {"error": ConfigError}
            rule = f"must be that of the network ({own})"
            checks.require(said.get(name) == own, f"{name} of the weights", rule, said.get(name), file, **error)
        self.parts |= set(json.loads(said["parts"]))
        state, wanted = read_state(file), self.tuned_state()
        lost = sorted(set(wanted) ^ set(state))
        checks.require(not lost, "weights", "must have the layers that they name, and no others", lost[:1], file)
        fill(self, self.state_dict() | state, file)

    def _per_frame(self, tokens: Tensor, n: int) -> Tensor:
        """Return the condition of every frame, (n * frames, tokens, width)."""
        width = token_width(self.unet)
        shape = tuple(tokens.shape)
        checks.require(
            shape[-1] == width, "token width", f"must be that of the network ({width})", shape[-1], None, ConfigError
        )
        each = tokens.ndim == 4 and shape[:2] == (n, self.frames)
        rule = f"must be ({n}, tokens, width) or ({n}, {self.frames}, tokens, width)"
        checks.require(each or (tokens.ndim == 3 and shape[0] == n), "tokens", rule, shape, error=ConfigError)
        return tokens.flatten(0, 1) if each else tokens.repeat_interleave(self.frames, 0)

    @abstractmethod
    def _about(self) -> dict[str, str]:
        """Return what a file of weights must agree with."""

    @abstractmethod
    def _run(self, sample: Tensor, timestep: Tensor, tokens: Tensor, added: Mapping[str, Tensor] | None) -> Any:
        """Return the network's output for tokens of every frame."""


class InflatedUNet(ClipUNet):
    """The U-Net that `inflate` makes.

    Attributes
    ----------
    attention : of ATTENTIONS.
    temporal : whether it has attention over time.
    """

    def __init__(self, unet: Any, frames: int, base: str, attention: str, temporal: bool) -> None:
        super().__init__(unet, frames, base)
        self.attention, self.temporal = attention, temporal

    def _about(self) -> dict[str, str]:
        made = {"kind": "inflated", "attention": self.attention, "temporal": str(self.temporal)}
        return made | {"frames": str(self.frames), "fingerprint": self.fingerprint}

    def _run(self, sample: Tensor, timestep: Tensor, tokens: Tensor, added: Mapping[str, Tensor] | None) -> Any:
        each = {key: value.repeat_interleave(self.frames, 0) for key, value in (added or {}).items()}
        if timestep.ndim:
            timestep = timestep.expand(len(sample)).repeat_interleave(self.frames)
        flat = sample.transpose(1, 2).flatten(0, 1)  # (n * frames, channels, h, w)
        found = self.unet(flat, timestep, tokens, added_cond_kwargs=each or None)
        found.sample = found.sample.unflatten(0, (-1, self.frames)).transpose(1, 2)
        return found


class MotionUNet(ClipUNet):
    """The U-Net that `motion_unet` makes; `unet` is its `UNetMotionModel`."""

    def _about(self) -> dict[str, str]:
        return {"kind": "motion", "frames": str(self.frames), "fingerprint": self.fingerprint}

    def _run(self, sample: Tensor, timestep: Tensor, tokens: Tensor, added: Mapping[str, Tensor] | None) -> Any:
        told = isinstance(self.unet.time_embedding, _TimeAndText)
        condition = tokens.unflatten(0, (-1, self.frames)) if told else None
        return self.unet(sample, timestep, tokens, timestep_cond=condition, added_cond_kwargs=added)


class TemporalAttention(nn.Module):
    """Attention over the frames of each place, added to its input; at first it adds nothing.

    Tune-A-Video, section 4.1; the output's first weights are 0, and the frames' positions are sines and cosines.
    """

    def __init__(self, dim: int, heads: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.norm, self.mix = nn.LayerNorm(dim), Attention(dim, heads)
        nn.init.zeros_(self.mix.out.weight)
        nn.init.zeros_(self.mix.out.bias)
        self.positions: Tensor
        self.register_buffer("positions", sine_positions(torch.arange(frames), dim), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n * frames, places, dim) from the same."""
        places = x.shape[1]
        clips = self.norm(x).unflatten(0, (-1, self.frames)) + self.positions[:, None]
        rows = clips.transpose(1, 2).flatten(0, 1)  # (n * places, frames, dim)
        mixed = torch.cat([self.mix(part) for part in rows.split(_ROWS)])
        return x + mixed.unflatten(0, (-1, places)).transpose(1, 2).flatten(0, 1)


class _Timed(nn.Module):
    """A transformer block of a U-Net with attention over time behind it."""

    def __init__(self, block: nn.Module, temporal: nn.Module) -> None:
        super().__init__()
        self.block, self.temporal = block, temporal

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.temporal(self.block(hidden_states, *args, **kwargs))


class _TimeAndText(nn.Module):
    """The time embedding of a U-Net that adds one of its tokens, in the place that a `UNetMotionModel` has for it.

    A `UNetMotionModel` has one time embedding a clip: that of the tokens is the mean over the frames.
    """

    def __init__(self, time: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.time, self.text = time, text

    def forward(self, sample: Tensor, condition: Tensor) -> Tensor:
        read = self.text(condition.flatten(0, 1)).unflatten(0, condition.shape[:2])
        return self.time(sample) + read.mean(1)


def inflate(
    unet: Any, frames: int, attention: str = "sparse-causal", temporal: bool = True, *, seed: int = 0
) -> InflatedUNet:
    """Return a U-Net over clips with the weights of one over pictures, which stays as it is.

    Convolutions and cross-attention see one frame at a time. Before any training the result is exactly that of the 2-D
    network: with attention "self" for every clip, with "sparse-causal" for a clip whose frames are equal.

    Parameters
    ----------
    unet : a `UNet2DConditionModel`, of any size, whose blocks have cross-attention.
    frames : of a clip.
    attention : "sparse-causal" (MinD-Video, section 3.4) or "self".
    temporal : put attention over time behind every transformer block (Tune-A-Video, section 4.1).
    seed : of the first weights of the attention over time.

    Raises
    ------
    ConfigError : frames or attention are wrong, or the network has no transformer block.
    """
    checks.one_of("attention", attention, ATTENTIONS)
    _check_frames(frames)
    net = copy.deepcopy(unet)
    found = [getattr(module, "transformer_blocks", None) for module in net.modules()]
    lists: list[Any] = [blocks for blocks in found if isinstance(blocks, nn.ModuleList)]
    kinds = "/".join(unet.config.down_block_types)
    checks.require(bool(lists), "U-Net", "must have blocks with cross-attention", kinds, None, ConfigError)
    like = next(net.parameters())
    with first_weights(seed, "inflate"):
        for blocks in lists:
            for i, block in enumerate(blocks):
                if attention == "sparse-causal" and not block.only_cross_attention:
                    block.attn1.set_processor(SparseCausalAttention(frames))
                if temporal:
                    over_time = TemporalAttention(block.attn1.query_dim, block.attn1.heads, frames)
                    blocks[i] = _Timed(block, over_time.to(like.device, like.dtype))
    return InflatedUNet(net, frames, fingerprint(unet), attention, temporal)


def motion_unet(unet: Any, frames: int, motion: Any = None, *, seed: int = 0) -> MotionUNet:
    """Return a `UNetMotionModel` with the weights of a U-Net over pictures, called as an `InflatedUNet`.

    Parameters
    ----------
    unet : a `UNet2DConditionModel`.
    frames : of a clip; no more than the motion modules have positions for.
    motion : a trained `MotionAdapter`; or settings of one to train, beside those that follow from the U-Net, such as
        `{"motion_max_seq_length": 16}`. A new one adds nothing at first: the output layers of its modules are 0
        (AnimateDiff, section 4.2), so that the network computes what the 2-D one does.
    seed : of the first weights of a new one.

    Raises
    ------
    ConfigError : the frames are more than the motion modules can take, or the U-Net has something that a
        `UNetMotionModel` can't, or the motion adapter is for another one.
    """
    from diffusers import MotionAdapter, UNetMotionModel

    _check_frames(frames)
    config = unet.config
    for name, plain in _PLAIN.items():
        got = config.get(name, plain)
        checks.require(
            got == plain, name, f"of a U-Net with motion modules must be {plain!r}", repr(got), None, ConfigError
        )
    added = config.addition_embed_type
    known = added in (None, "text", "text_time")
    checks.require(known, "addition_embed_type", "must be None, text or text_time", repr(added), None, ConfigError)
    if not isinstance(motion, MotionAdapter):
        with first_weights(seed, "motion"):
            motion = _new_adapter(config, motion or {})
    longest = motion.config.motion_max_seq_length
    rule = f"must be no more than the motion modules can take ({longest})"
    checks.require(frames <= longest, "frames", rule, frames, error=ConfigError)
    blocks = len(config.down_block_types)
    for own, theirs in (("block_out_channels",) * 2, ("layers_per_block", "motion_layers_per_block")):
        needed, got = (_each(c[key], blocks) for c, key in ((config, own), (motion.config, theirs)))
        checks.require(got == needed, f"{theirs} of the motion adapter", f"must be {needed}", got, None, ConfigError)
    with first_weights(seed, "replaced"), quiet("diffusers"):
        model = UNetMotionModel.from_unet2d(unet, motion).train(unet.training)
    if added == "text":
        model.time_embedding = _TimeAndText(model.time_embedding, copy.deepcopy(unet.add_embedding))
    elif added == "text_time":
        model.add_embedding.load_state_dict(unet.add_embedding.state_dict())
    return MotionUNet(attend_fast(model.to(unet.device)), frames, fingerprint(unet))


def token_width(unet: Any) -> int:
    """Return the width of the tokens that a U-Net's cross-attention takes."""
    width = getattr(unet.config, "encoder_hid_dim", None) or unet.config.cross_attention_dim
    return int(width if isinstance(width, int) else width[0])


def _new_adapter(config: Any, settings: Mapping[str, Any]) -> Any:
    """Return a motion adapter for a U-Net whose modules add nothing yet."""
    from diffusers import MotionAdapter

    known = [name for name in inspect.signature(MotionAdapter.__init__).parameters if name != "self"]
    for name in settings:
        checks.one_of("motion setting", name, known)
    fitting = {
        "block_out_channels": tuple(config.block_out_channels),
        "motion_layers_per_block": config.layers_per_block,
        "motion_norm_num_groups": config.norm_num_groups,
        "motion_num_attention_heads": config.num_attention_heads or config.attention_head_dim,
    }
    adapter: Any = MotionAdapter(**(fitting | dict(settings)))
    for name, module in adapter.named_modules():
        if name.split(".")[-1] == "proj_out":
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return adapter


def _belongs(name: str, part: str) -> bool:
    """Tell whether a tensor's name is that of a part."""
    over_time = ".temporal." in name or ".motion_modules." in name
    return over_time if part == "temporal" else not over_time and _MARKS[part] in name


def _check_frames(frames: int) -> None:
    whole = isinstance(frames, int) and frames >= 1
    checks.require(whole, "frames", "must be a whole number of 1 or more", frames, error=ConfigError)


def _each(value: Any, count: int) -> list[int]:
    return [value] * count if isinstance(value, int) else list(value)
