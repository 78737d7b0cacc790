"""Any pipeline of diffusers that takes `prompt_embeds`, driven by tokens that are read from a brain.

    pipeline = open_pipeline("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")      # or a folder; text encoders are left out
    count, width = token_shape(pipeline)                              # what a brain's tokens are to be projected to
    clips = generate(pipeline, tokens, null, frames=5, size=256)      # (n, 5, 256, 256, 3) uint8

Pictures: Stable Diffusion and its like. Clips: AnimateDiff (Guo et al. 2023, arXiv 2307.04725), Wan, LTX, CogVideoX and
their like. Guidance starts from the brain's own null (MinD-Video, Chen, Qing & Zhou, NeurIPS 2023, section 3.4) or from
that of the empty caption.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, NeuroreelWarning
from neuroreel.core.seeds import generator
from neuroreel.generate.inflate import token_width
from neuroreel.nets.pretrained import quiet

_NETWORKS = ("transformer", "unet", "transformer_2")
_WIDTHS = (
    "joint_attention_dim",
    "text_embed_dim",
    "text_dim",
    "caption_channels",
    "cap_feat_dim",
    "cross_attention_dim",
)
_MASKS = ("prompt_attention_mask", "prompt_embeds_mask")
_SPATIAL = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_scale_factor")
_TEMPORAL = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")
_INDEX = "model_index.json"


def open_pipeline(
    source: str | Path,
    kind: str | None = None,
    *,
    parts: Mapping[str, Any] | None = None,
    text: bool = False,
    offline: bool = False,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Any:
    """Return a pipeline of diffusers from a folder or by its name on the hub, its weights as safetensors only.

    Parameters
    ----------
    source : the folder, or the name; `HF_HOME` and `HF_HUB_OFFLINE` are respected.
    kind : class of the pipeline; by default the one that its index names. `"AnimateDiffPipeline"` opens a Stable
        Diffusion as one, with `parts={"motion_adapter": adapter}`.
    parts : parts to take instead of those of the source; None for one leaves it out.
    text : open the text encoders too. Tokens from a brain don't need them, and they are most of some pipelines.
    offline : fetch nothing.
    dtype, device : of the networks.

    Raises
    ------
    ConfigError : there is no such pipeline, it isn't whole, or it is of a class that takes no `prompt_embeds`.
    """
    import diffusers

    local = Path(source).expanduser().is_dir()
    where = str(Path(source).expanduser()) if local else str(source)
    rule = f"must be a folder with a {_INDEX}, or a name on the hub that can be fetched"
    try:
        index = dict(diffusers.DiffusionPipeline.load_config(where, local_files_only=local or offline))
    except (OSError, ValueError) as error:
        raise ConfigError(checks.sentence("pipeline", rule, type(error).__name__, where)) from None
    name = kind or index.get("_class_name")
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    cls: Any = found if isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline) else None
    checks.require(cls is not None, "pipeline", "must be of a class of diffusers", repr(name), where, ConfigError)
    _check_driven(cls, where)
    own = inspect.signature(cls.__init__).parameters
    absent = [key for key, value in index.items() if isinstance(value, list | tuple) and value[0] is None]
    unread = [] if text else [key for key in own if key.startswith("text_encoder")]
    given = {key: None for key in [*absent, *unread] if key in own} | dict(parts or {})
    for key in given:
        checks.one_of(f"part of a {cls.__name__}", key, [k for k in own if k != "self"], where)
    with quiet("diffusers"):
        try:
            pipeline = cls.from_pretrained(
                where, local_files_only=local or offline, use_safetensors=True, dtype=dtype, **given
            )
        except Exception as error:
            rule = f"must be a whole {cls.__name__}, its weights as safetensors"
            raise ConfigError(checks.sentence("pipeline", rule, _first_words(error), where)) from error
        pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def token_shape(pipeline: Any) -> tuple[int, int]:
    """Return number and width of the tokens that a pipeline is made for.

    The width is that of the network's cross-attention, or of what it projects text from; the number that which its text
    encoder gives. Most pipelines take fewer or more.

    Raises
    ------
    ConfigError : the pipeline doesn't take tokens, or says nowhere how wide they are.
    """
    _check_driven(type(pipeline))
    network, called = _network(pipeline), inspect.signature(type(pipeline).__call__).parameters
    widths = [network.config.get(key) for key in _WIDTHS]
    encoder = getattr(getattr(pipeline, "text_encoder", None), "config", None)
    widths.append(getattr(encoder, "hidden_size", None))
    known = next((value for value in widths if value), None)
    kind = type(pipeline).__name__
    checks.require(
        known is not None, kind, "must say how wide its tokens are", type(network).__name__, None, ConfigError
    )
    width = token_width(network) if network.config.get("cross_attention_dim") == known else int(known or 0)
    default = called["max_sequence_length"].default if "max_sequence_length" in called else None
    longest = getattr(getattr(pipeline, "tokenizer", None), "model_max_length", None)
    counts = (network.config.get("max_text_seq_length"), default, longest if (longest or 0) < 10**6 else None)
    return next((int(count) for count in counts if count), 77), width


def pooled_width(pipeline: Any) -> int | None:
    """Return the width of the pooled text that a pipeline takes beside the tokens; None if it takes none."""
    if "pooled_prompt_embeds" not in inspect.signature(type(pipeline).__call__).parameters:
        return None
    config = _network(pipeline).config
    if config.get("pooled_projection_dim"):  # Stable Diffusion 3, Flux
        return int(config["pooled_projection_dim"])
    return int(config["projection_class_embeddings_input_dim"]) - 6 * int(config["addition_time_embed_dim"])  # SDXL


def generate(
    pipeline: Any,
    tokens: Tensor,
    null: Tensor | None = None,
    *,
    frames: int = 1,
    size: int | tuple[int, int],
    steps: int = 25,
    guidance: float = 7.5,
    seed: int = 0,
    pooled: Tensor | None = None,
    null_pooled: Tensor | None = None,
    batch: int = 8,
    first: int = 0,
    settings: Mapping[str, Any] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Return a clip of every row of tokens, (n, frames, h, w, 3) uint8.

    A row's noise depends on the seed and the row's number alone: every row has a generator of its own, and diffusers
    draws from it whatever the pipeline draws for that row.

    Parameters
    ----------
    pipeline : as of `open_pipeline`.
    tokens : (n, count, width); the width, and as a rule the count, are those of `token_shape`.
    null : what guidance starts from, (1 or n, count, width): the tokens of the mean training fMRI, of the empty
        caption, or zeros. Needed where guidance is above 1.
    frames : of a clip; 1 for a pipeline of pictures.
    size : side in pixels, or (height, width).
    steps : network evaluations, or pairs of them with guidance.
    guidance : w of found = null + w (told - null); 1 for none.
    pooled, null_pooled : (n, `pooled_width`) and (1 or n, `pooled_width`) for pipelines that take it; the null is 0 by
        default, as it is for the empty caption of Stable Diffusion XL.
    batch : rows at a time.
    first : number of the first row, where the rows are part of more.
    settings : further arguments of the pipeline's call, such as `{"frame_rate": 3}` for LTX.
    on_progress : called with the number of rows done.

    Raises
    ------
    ConfigError : the pipeline doesn't take tokens, or not of this width, or not with these settings.
    """
    kind, called = type(pipeline).__name__, inspect.signature(type(pipeline).__call__).parameters
    _check_driven(type(pipeline))
    height, width = (size, size) if isinstance(size, int) else size
    _check_tokens(pipeline, "tokens", tokens, tokens)
    _check_sizes(pipeline, frames, height, width)
    for key in settings or {}:
        checks.one_of(f"setting of a {kind}", key, [k for k in called if k != "self"])
    guided = guidance != 1
    checks.require(guidance >= 1, "guidance", "must be 1 or more", guidance, error=ConfigError)
    can = not guided or "negative_prompt_embeds" in called
    checks.require(can, "guidance", f"must be 1 for a {kind}, which takes no null", guidance, error=ConfigError)
    told: dict[str, Tensor] = {"prompt_embeds": tokens}
    if guided:
        told["negative_prompt_embeds"] = _null(pipeline, null, tokens)
    needed = pooled_width(pipeline)
    if needed is not None:
        told |= _pooled(kind, pooled, null_pooled, (len(tokens), needed), guided)
    for name in _MASKS:
        if name in called:
            told[name] = torch.ones(tokens.shape[:2], dtype=torch.bool)
            if guided:
                told[f"negative_{name}"] = told[name]
    options: dict[str, Any] = {"num_frames": frames} if "num_frames" in called else {}
    options |= {"height": height, "width": width, "num_inference_steps": steps, "output_type": "np"}
    options["true_cfg_scale" if "true_cfg_scale" in called else "guidance_scale"] = guidance
    options |= dict(settings or {})
    network, made, hidden = _network(pipeline), [], 0
    for start in range(0, len(tokens), batch):
        rows = range(first + start, first + min(start + batch, len(tokens)))
        part = {key: value[start : start + batch].to(network.device) for key, value in told.items()}
        part = {key: value.to(network.dtype) if value.is_floating_point() else value for key, value in part.items()}
        try:
            result = pipeline(**part, **options, generator=[_row_generator(seed, row) for row in rows])
        except ValueError as error:
            raise ConfigError(
                checks.sentence(kind, "must be able to take these settings", _first_words(error))
            ) from error
        made.append(_to_uint8(result, kind, (len(rows), frames, height, width, 3)))
        hidden += int(np.sum(getattr(result, "nsfw_content_detected", None) or 0))
        if on_progress is not None:
            on_progress(start + len(rows))
    if hidden:
        said = checks.sentence("safety checker", "must hide no picture that is to be scored", f"{hidden} black ones")
        warnings.warn(said, NeuroreelWarning, stacklevel=2)
    return np.concatenate(made) if made else np.empty((0, frames, height, width, 3), np.uint8)


def _check_driven(cls: Any, source: str | None = None) -> None:
    """Raise ConfigError unless a pipeline's class takes embedded prompts."""
    takes = [name for name in inspect.signature(cls.__call__).parameters if name != "self"]
    rule = "must take prompt_embeds to be driven by tokens"
    checks.require("prompt_embeds" in takes, cls.__name__, rule, ", ".join(takes[:4]) + ", ...", source, ConfigError)


def _network(pipeline: Any) -> Any:
    """Return the network that is conditioned."""
    found = next((net for name in _NETWORKS if (net := getattr(pipeline, name, None)) is not None), None)
    rule = "must have a transformer or a U-Net"
    checks.require(found is not None, type(pipeline).__name__, rule, "neither", error=ConfigError)
    return found


def _check_tokens(pipeline: Any, name: str, given: Tensor, like: Tensor) -> None:
    count, width = token_shape(pipeline)
    kind = type(pipeline).__name__
    checks.require(given.ndim == 3, name, "must be (n, count, width)", tuple(given.shape), error=ConfigError)
    rule = f"must be that of the {kind} ({width})"
    checks.require(given.shape[2] == width, f"width of the {name}", rule, given.shape[2], error=ConfigError)
    fixed = _network(pipeline).config.get("max_text_seq_length") is not None
    wanted = count if fixed else like.shape[1]
    rule = f"must be that of the {kind} ({count})" if fixed else f"must be that of the tokens ({wanted})"
    checks.require(given.shape[1] == wanted, f"count of the {name}", rule, given.shape[1], error=ConfigError)


def _check_sizes(pipeline: Any, frames: int, height: int, width: int) -> None:
    """Raise ConfigError unless a pipeline can make frames in that number and size."""
    kind, config = type(pipeline).__name__, _network(pipeline).config
    whole = isinstance(frames, int) and frames >= 1
    checks.require(whole, "frames", "must be a whole number of 1 or more", frames, error=ConfigError)
    moves = "num_frames" in inspect.signature(type(pipeline).__call__).parameters
    rule = f"must be 1 for a {kind}, which makes pictures"
    checks.require(moves or frames == 1, "frames", rule, frames, error=ConfigError)
    longest = config.get("motion_max_seq_length") or frames
    rule = f"must be no more than the motion modules can take ({longest})"
    checks.require(frames <= longest, "frames", rule, frames, error=ConfigError)
    every = _ratio(pipeline, _TEMPORAL)
    rule = f"must be 1 more than a multiple of {every} for a {kind}"
    checks.require((frames - 1) % every == 0, "frames", rule, frames, error=ConfigError)
    patch = config.get("patch_size") or 1
    patches = (patch, patch) if isinstance(patch, int) else tuple(patch)[-2:]
    for name, side, share in zip(("height", "width"), (height, width), patches, strict=True):
        unit = _ratio(pipeline, _SPATIAL) * share
        rule = f"must be a multiple of {unit} for a {kind}"
        checks.require(side > 0 and side % unit == 0, name, rule, side, error=ConfigError)


def _ratio(pipeline: Any, names: tuple[str, ...]) -> int:
    return next((int(getattr(pipeline, name)) for name in names if hasattr(pipeline, name)), 1)


def _null(pipeline: Any, null: Tensor | None, tokens: Tensor) -> Tensor:
    rule = f"must be given, or guidance be 1, for a {type(pipeline).__name__}"
    if null is None:
        raise ConfigError(checks.sentence("null", rule, None))
    _check_tokens(pipeline, "null", null, tokens)
    return _rows("null", null, len(tokens))


def _pooled(
    kind: str, pooled: Tensor | None, null: Tensor | None, shape: tuple[int, int], guided: bool
) -> dict[str, Tensor]:
    """Return the pooled text, and that of the null with guidance, by the names of a pipeline's arguments."""
    got = None if pooled is None else tuple(pooled.shape)
    if pooled is None or got != shape:
        raise ConfigError(checks.sentence("pooled", f"must be {shape} for a {kind}", got))
    found = {"pooled_prompt_embeds": pooled}
    if guided:
        null = torch.zeros(1, shape[1]) if null is None else null
        rule = f"must be that of a {kind} ({shape[1]})"
        checks.require(null.shape[-1] == shape[1], "width of the pooled null", rule, null.shape[-1], error=ConfigError)
        found["negative_pooled_prompt_embeds"] = _rows("pooled null", null, shape[0])
    return found


def _rows(name: str, value: Tensor, n: int) -> Tensor:
    rule = f"must have 1 row, or as many as the tokens ({n})"
    checks.require(len(value) in (1, n), name, rule, len(value), error=ConfigError)
    return value.expand(n, *value.shape[1:])


def _row_generator(seed: int, row: int) -> torch.Generator:
    """Return the generator of one row, on the CPU, so that every device gets the same noise."""
    return torch.Generator().manual_seed(int(generator(seed, "sample", row).integers(2**62)))


def _to_uint8(result: Any, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return what a pipeline made, values in 0..1, as frames of the shape (n, frames, h, w, 3) uint8."""
    found = np.asarray(result.frames if hasattr(result, "frames") else result.images)
    found = found.reshape(found.shape[0], -1, *found.shape[-3:])
    rule = f"must make {' x '.join(map(str, shape))}"
    checks.require(found.shape == shape, kind, rule, " x ".join(map(str, found.shape)), error=ConfigError)
    checks.require(
        math.isfinite(float(found.sum())), kind, "must make finite values", "NaN or infinite", error=ConfigError
    )
    return (found.clip(0, 1) * 255).round().astype(np.uint8)


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
