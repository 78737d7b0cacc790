"""Train the world's generator and its judges, which ship with the package, on the simulated world and its captions.

    python scripts/train_world.py --work world --stage all

Clips, captions and truths are drawn once, from seeds that no simulated subject uses; no simulated fMRI is read. Every
stage goes on from its last checkpoint, and `--stage export` packs whatever stages are done. On a GPU pass
`--device cuda`. Each stage's seconds are in the card.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroreel.core.files import atomic, sha256, write_text
from neuroreel.fit.loop import LoopConfig, Progress, in_batches, train
from neuroreel.generate.attention import attend_fast
from neuroreel.generate.samplers import shared_noise
from neuroreel.generate.world import SHARED_NOISE
from neuroreel.nets.weights import fill, read_state, write_state
from neuroreel.simulate.captions import parse_caption
from neuroreel.simulate.categories import CATEGORIES
from neuroreel.simulate.colours import COLOURS
from neuroreel.simulate.sampling import sample_clips
from neuroreel.simulate.scenes import ACTIONS, DIRECTIONS, TURNS

ROOT = Path(__file__).parents[1]
SIZE, FRAMES, FPS = 64, 6, 3.0
FIRST_LATENTS, LATENTS = 4, 8
"""Channels of the latents that the networks begin with, and of those that ship."""
LAYERS = 2
"""Blocks of each level of the U-Net that ships; it begins with one."""
PART = 500
SEEDS = {"train": 8_000_000, "judge": 8_300_000, "test": 8_900_000}
TOKENS = 24
OBJECT_WEIGHT = 4.0
"""How much more the middle of the object weighs in the diffusion's loss than the background."""
DROPPED = 0.12
"""Share of captions left out, for guidance without a classifier (Ho & Salimans 2022, arXiv 2207.12598)."""


@dataclass(frozen=True)
class Job:
    """What the command line says."""

    work: Path
    clips: int
    steps: int | None
    seed: int
    cpu: bool
    workers: int

    def config(self, **settings: Any) -> LoopConfig:
        """Return the settings of a stage's training."""
        if self.steps is not None:
            settings["steps"] = self.steps
        every = max(1, min(250, settings["steps"] // 4))
        return LoopConfig(
            **{"betas": (0.9, 0.99), "clip": 1.0, "weight_decay": 0.01, "average": 0.998, "warm_up": 0.03}
            | settings
            | {"checkpoint_every": every, "seed": self.seed}
        )


def draw_part(folder: Path, name: str, part: int) -> None:
    """Draw the clips, captions and truths of one part, unless they lie there."""
    file = folder / f"{name}-{part:03d}.npz"
    if not file.is_file():
        clips, truth = sample_clips(PART, frames=FRAMES, size=SIZE, fps=FPS, seed=SEEDS[name] + part, per_scene=2)
        with atomic(file) as partial, partial.open("wb") as stream:
            np.savez(stream, clips=clips, **truth)


def draw(job: Job, name: str, n: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return clips (n, frames, size, size, 3), mapped from a file, and their truths; the same for any workers."""
    folder = job.work / "data"
    folder.mkdir(parents=True, exist_ok=True)
    parts = range(-(-n // PART))
    missing = [part for part in parts if not (folder / f"{name}-{part:03d}.npz").is_file()]
    if missing:
        with ProcessPoolExecutor(job.workers) as pool:
            list(pool.map(draw_part, [folder] * len(missing), [name] * len(missing), missing))
    truths = []
    for part in parts:
        with np.load(folder / f"{name}-{part:03d}.npz") as arrays:
            truths.append({key: arrays[key] for key in arrays.files if key != "clips"})
    whole = folder / f"{name}-{len(parts) * PART}.npy"
    if not whole.is_file():
        with atomic(whole) as partial:
            shape = (len(parts) * PART, FRAMES, SIZE, SIZE, 3)
            clips = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            for part in parts:
                with np.load(folder / f"{name}-{part:03d}.npz") as arrays:
                    clips[part * PART : (part + 1) * PART] = arrays["clips"]
            clips.flush()
    return np.load(whole, mmap_mode="r"), {key: np.concatenate([t[key] for t in truths]) for key in truths[0]}


def places(truth: dict[str, np.ndarray]) -> np.ndarray:
    """Return x, y and size of the object in every frame of every clip, (n, frames, 3), by its speed at half time.

    What bounces turns within a clip, so that it has the place of half time in the frames far from that.
    """
    since = (np.arange(FRAMES) - (FRAMES - 1) / 2) / FPS  # (frames,) s
    turns = (truth["action"] == "bounce")[:, None]
    since = np.where(turns & (abs(since) > 1 / FPS), 0.0, since)  # (n, frames)
    x = truth["x"][:, None] + truth["velocity_x"][:, None] * since
    y = truth["y"][:, None] + truth["velocity_y"][:, None] * since
    size = truth["size"][:, None] * np.exp(truth["growth"][:, None] * since)
    return np.stack([x, y, size], -1).astype(np.float32)


@dataclass(frozen=True)
class Rows:
    """Rows of arrays, with one of the frames of every clip where `clips` are to be read as pictures.

    `times` (rows,) says how often each row is read in an epoch; once where it is None.
    """

    arrays: dict[str, np.ndarray]
    pictures: tuple[str, ...] = ()
    times: np.ndarray | None = None

    def epoch(self, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return all rows in another order, in batches."""
        rows = np.arange(len(next(iter(self.arrays.values()))))
        return in_batches(rng.permutation(rows if self.times is None else np.repeat(rows, self.times)), batch)

    def read(self, rows: np.ndarray, seeds: np.ndarray) -> dict[str, Any]:
        """Return the given rows; which frame of a clip, its seed says."""
        order = np.argsort(rows)  # a mapped file is read forwards
        back = np.argsort(order)
        found = {}
        for name, array in self.arrays.items():
            part = array[rows[order]][back]
            if name in self.pictures:
                part = part[np.arange(len(rows)), seeds % part.shape[1]]
            found[name] = torch.from_numpy(np.ascontiguousarray(part))
        return found


@dataclass(frozen=True)
class Closer(Rows):
    """Rows whose clips are cut around their object for half of the reads, and mirrored for half where that is right.

    Small objects on busy backgrounds take a network very long to notice; those that fill the frame don't.
    """

    mirror: bool = True

    def read(self, rows: np.ndarray, seeds: np.ndarray) -> dict[str, Any]:
        """Return the given rows; `near` is True where the clip was cut and its places say nothing."""
        found = super().read(rows, seeds)
        clips, middle = found["clips"].numpy().copy(), found["places"].numpy().copy()
        flat = clips.reshape(len(clips), -1, *clips.shape[-3:])  # (rows, frames, size, size, 3)
        track = middle.reshape(len(clips), -1, 3)
        near = (seeds >> 20) % 2 == 1
        for row in np.flatnonzero(near):
            flat[row] = cut_around(flat[row], track[row])
        if self.mirror:
            over = (seeds >> 21) % 2 == 1
            flat[over] = flat[over, :, :, ::-1]
            track[over, :, 0] = 1 - track[over, :, 0]
        found["clips"], found["places"] = torch.from_numpy(clips), torch.from_numpy(middle)
        return found | {"near": torch.from_numpy(near)}


def cut_around(frames: np.ndarray, track: np.ndarray) -> np.ndarray:
    """Return frames (n, size, size, 3) cut around all places (n, 3) of the object, and enlarged to their size."""
    size = frames.shape[1]
    low = (track[:, :2] - 0.6 * track[:, 2:]).min(0) * size
    high = (track[:, :2] + 0.6 * track[:, 2:]).max(0) * size
    side = int(np.clip((high - low).max(), 12, size))
    left, top = (int(np.clip(m - side / 2, 0, size - side)) for m in (low + high) / 2)
    part = frames[:, top : top + side, left : left + side]
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR) for frame in part])


def fit(job: Job, stage: str, net: nn.Module, loss: Callable[..., Tensor], source: Any, config: LoopConfig) -> float:
    """Train a stage's network, leave its average in its folder, and return the seconds of this run."""
    started = last = time.perf_counter()

    def say(now: Progress) -> None:
        nonlocal last
        if time.perf_counter() - last > 20 or now.step == now.steps:
            last = time.perf_counter()
            row = (
                f"{stage} {now.step}/{now.steps} loss {now.loss:.4f} {now.samples_per_s:.0f}/s, {now.eta_s:.0f} s left"
            )
            print(row, flush=True)

    folder = job.work / stage
    trained = train(net, loss, source, config, folder=folder / "checkpoints", on_progress=say, cpu=job.cpu)
    state = net.cpu().state_dict()
    if trained.average:
        fill(net, state | trained.average)
    net.eval()
    write_state(folder / "weights.safetensors", net)
    seconds = time.perf_counter() - started
    tail = float(np.mean(trained.losses[-100:]))
    facts = {"fit": config.model_dump(mode="json"), "seconds": round(seconds), "clips": job.clips, "last_loss": tail}
    write_text(folder / "facts.json", json.dumps(facts | {"samples_per_s": trained.samples_per_s}, indent=2) + "\n")
    return seconds


def to_pixels(frames: Tensor) -> Tensor:
    """Return frames (n, h, w, 3) uint8 as (n, 3, h, w) in -1..1."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1


def build_autoencoder(latents: int) -> Any:
    from neuroreel.nets.autoencoder import FoldedAutoencoder

    return FoldedAutoencoder(latent_channels=latents, sample_size=SIZE)


class PosteriorNoise(nn.Module):
    """The autoencoder with its loss: squared error, of the edges too, and a small penalty on the latents."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the loss of each picture x (n, 3, h, w), its pixels weighted by (n, 1, h, w)."""
        posterior = self.net.encode(x).latent_dist
        apart = self.net.decode(posterior.sample()).sample - x
        wrong = ((apart.square() + 0.1 * apart.abs()) * weight).mean((1, 2, 3))
        edges = (apart.diff(dim=2).abs() * weight[:, :, 1:]).mean((1, 2, 3))
        edges = edges + (apart.diff(dim=3).abs() * weight[..., 1:]).mean((1, 2, 3))
        return wrong + 0.1 * edges + 1e-5 * posterior.kl() / x[0].numel() * 64


def stage_autoencoder(job: Job) -> None:
    clips, _ = draw(job, "train", job.clips)
    torch.manual_seed(job.seed)
    net = build_autoencoder(FIRST_LATENTS)
    source = Rows({"clips": clips}, ("clips",))
    config = job.config(steps=4000, batch=4, rate=2e-3, average=0.995)

    def loss(model: nn.Module, b: dict[str, Tensor]) -> Tensor:
        x = to_pixels(b["clips"])
        return model(x, torch.ones_like(x[:, :1]))

    fit(job, "autoencoder", PosteriorNoise(net), loss, source, config)
    write_whitened(job, "autoencoder", net, clips)


def stage_autoencoder_wider(job: Job) -> None:
    """Train the autoencoder on, with more channels, and with the object weighing more than what is around it.

    What the first stage leaves is sharp enough for backgrounds and too blurred to tell small objects apart.
    """
    clips, truth = draw(job, "train", job.clips)
    torch.manual_seed(job.seed)
    net = wider(load_autoencoder(job, "autoencoder"), LATENTS).train().requires_grad_(True)
    source = Rows({"clips": clips, "places": places(truth)}, ("clips", "places"))
    config = job.config(steps=6000, batch=8, rate=1.5e-3, average=0.998)

    def loss(model: nn.Module, b: dict[str, Tensor]) -> Tensor:
        weight = object_weight(b["places"][:, None], SIZE)
        return model(to_pixels(b["clips"]), weight / weight.mean((1, 2, 3), keepdim=True))

    fit(job, "autoencoder_wider", PosteriorNoise(net), loss, source, config)
    write_whitened(job, "autoencoder_wider", net, clips)


@torch.no_grad()
def wider(old: Any, latents: int) -> Any:
    """Return the autoencoder with more channels of latents, that decodes as before until the new ones are trained."""
    net, n = build_autoencoder(latents), old.config.latent_channels
    own = net.state_dict()
    own.update({key: value for key, value in old.state_dict().items() if value.shape == own[key].shape})
    net.load_state_dict(own)
    into, last, code = old.quant_conv, old.encoder[-1], net.encoder[-1]
    turned = torch.einsum("ij,jkab->ikab", into.weight[..., 0, 0], last.weight)
    shift = into.weight[..., 0, 0] @ last.bias + into.bias
    weight, bias = 0.3 * code.weight, torch.zeros_like(code.bias)
    weight[latents:], bias[latents:] = 0, shift[n:].mean()
    for rows, part in ((slice(0, n), slice(0, n)), (slice(latents, latents + n), slice(n, 2 * n))):
        weight[rows], bias[rows] = turned[part], shift[part]
    code.weight.copy_(weight)
    code.bias.copy_(bias)
    for conv in (net.quant_conv, net.post_quant_conv):
        conv.weight.copy_(torch.eye(conv.in_channels)[..., None, None])
        conv.bias.zero_()
    net.post_quant_conv.weight[:n, :n] = old.post_quant_conv.weight
    net.post_quant_conv.bias[:n] = old.post_quant_conv.bias
    net.decoder[0].weight.zero_()
    net.decoder[0].weight[:, :n] = old.decoder[0].weight
    net.decoder[0].bias.copy_(old.decoder[0].bias)
    return net


def write_whitened(job: Job, stage: str, net: Any, clips: np.ndarray) -> None:
    """Write the autoencoder with latents of unit variance."""
    net.whiten(to_pixels(torch.from_numpy(clips[:1000:2, 0].copy())))
    write_state(job.work / stage / "whitened.safetensors", net)


def load_autoencoder(job: Job, stage: str = "autoencoder_wider") -> Any:
    net = build_autoencoder(FIRST_LATENTS if stage == "autoencoder" else LATENTS)
    fill(net, read_state(job.work / stage / "whitened.safetensors"))
    return net.eval()


def build_tokenizer(folder: Path, captions: np.ndarray) -> Any:
    """Return the tokenizer of the world's captions, made if it isn't there: byte pairs, every word one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    if not (folder / "vocab.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        plain = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
        plain.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=2000, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False, min_frequency=2
        )
        plain.train_from_iterator((c.replace(",", " ,") for c in captions), trainer)
        merges = [tuple(pair) for pair in json.loads(plain.to_str())["model"]["merges"]]
        words = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
        words = [*dict.fromkeys(words), "<|startoftext|>", "<|endoftext|>"]
        text = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)
        write_text(folder / "merges.txt", text)
        write_text(folder / "vocab.json", json.dumps({word: i for i, word in enumerate(words)}))
        vocabulary = json.loads((folder / "vocab.json").read_text())
        CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def build_clip(tokenizer: Any) -> Any:
    from transformers import CLIPConfig, CLIPModel

    common = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "projection_dim": 128}
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    text = common | {"num_hidden_layers": 2, "vocab_size": len(tokenizer), "max_position_embeddings": TOKENS}
    text |= {"bos_token_id": start, "eos_token_id": end, "pad_token_id": tokenizer.pad_token_id}
    vision = common | {"num_hidden_layers": 4, "image_size": SIZE, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=128)
    config.initializer_factor = 1.0
    return CLIPModel(config)


class Told(nn.Module):
    """The text encoder, and heads that tell from its pooled output what the caption says."""

    def __init__(self, clip: Any, sizes: dict[str, int]) -> None:
        super().__init__()
        self.text_model = clip.text_model
        self.heads = nn.ModuleDict({name: nn.Linear(128, n) for name, n in sizes.items()})

    def forward(self, ids: Tensor, said: dict[str, Tensor]) -> Tensor:
        """Return the loss of each caption."""
        read = self.text_model(input_ids=ids).pooler_output
        return named_loss(self.heads, read, said)


class Paired(nn.Module):
    """CLIP's loss (Radford et al. 2021, arXiv 2103.00020, fig. 3) for a picture encoder beside a text encoder that
    stays as it is (Zhai et al. 2022, arXiv 2111.07991); heads that name what the caption says quicken the start.
    """

    def __init__(self, clip: Any, sizes: dict[str, int]) -> None:
        super().__init__()
        self.vision_model, self.visual_projection = clip.vision_model, clip.visual_projection
        self.text_projection, self.logit_scale = clip.text_projection, clip.logit_scale
        self.heads = nn.ModuleDict({name: nn.Linear(128, n) for name, n in sizes.items()})

    def forward(self, frames: Tensor, read: Tensor, said: dict[str, Tensor]) -> Tensor:
        """Return the loss of each pair."""
        seen = self.vision_model(pixel_values=to_pixels(frames)).pooler_output
        image = F.normalize(self.visual_projection(seen), dim=-1)
        text = F.normalize(self.text_projection(read), dim=-1)
        logits = self.logit_scale.exp().clamp(max=100) * image @ text.T
        pairs = torch.arange(len(logits), device=logits.device)
        loss = F.cross_entropy(logits, pairs, reduction="none") + F.cross_entropy(logits.T, pairs, reduction="none")
        return loss / 2 + 0.3 * named_loss(self.heads, seen, said)


def named_loss(heads: nn.ModuleDict, embedding: Tensor, said: dict[str, Tensor]) -> Tensor:
    """Return the cross-entropy (n,) of all heads; what a caption doesn't say costs nothing."""
    losses = [F.cross_entropy(heads[name](embedding), said[name], reduction="none", ignore_index=-1) for name in heads]
    return torch.stack(losses).sum(0)


SAID = ("category", "colour", "background", "place", "size", "action", "direction", "pan")


def said_of(captions: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return the numbers of what captions say, -1 where they are silent on the place, and how many there are."""
    parsed = [parse_caption(str(caption)) for caption in captions]
    numbers, sizes = {}, {}
    for name in SAID:
        values = sorted({row[name] for row in parsed} - ({""} if name == "place" else set()))
        numbers[name] = np.array([values.index(row[name]) if row[name] in values else -1 for row in parsed])
        sizes[name] = len(values)
    return numbers, sizes


def ids_of(tokenizer: Any, captions: Any) -> np.ndarray:
    """Return token numbers (n, tokens), padded."""
    texts = [str(caption) for caption in captions]
    return np.array(tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True)["input_ids"])


def stage_text(job: Job) -> None:
    """Train the text encoder to tell what captions say."""
    _, truth = draw(job, "train", job.clips)
    tokenizer = build_tokenizer(job.work / "tokenizer", truth["caption"])
    numbers, sizes = said_of(truth["caption"])
    torch.manual_seed(job.seed)
    net = Told(build_clip(tokenizer), sizes)
    source = Rows({"ids": ids_of(tokenizer, truth["caption"])} | numbers)
    config = job.config(steps=600, batch=64, rate=1e-3, warm_up=0.06, average=0.99)
    fit(job, "text", net, lambda m, b: m(b["ids"], {name: b[name] for name in SAID}), source, config)


def load_part(job: Job, stage: str, net: nn.Module) -> None:
    """Fill what a stage has trained of a network."""
    state = read_state(job.work / stage / "weights.safetensors")
    own = net.state_dict()
    fill(net, own | {key: value for key, value in state.items() if key in own})


def stage_clip(job: Job) -> None:
    """Train the picture encoder beside the finished text encoder."""
    clips, truth = draw(job, "train", job.clips)
    tokenizer = build_tokenizer(job.work / "tokenizer", truth["caption"])
    numbers, sizes = said_of(truth["caption"])
    torch.manual_seed(job.seed)
    clip = build_clip(tokenizer)
    load_part(job, "text", clip)
    read = tokens_of(tokenizer, clip, truth["caption"])[1]
    net = Paired(clip, sizes)
    config = job.config(steps=1000, batch=96, rate=1.5e-3, warm_up=0.06, average=0.99)

    def loss(model: nn.Module, b: dict[str, Tensor]) -> Tensor:
        return model(b["clips"], b["read"], {name: b[name] for name in SAID})

    fit(job, "clip", net, loss, Rows({"clips": clips, "read": read} | numbers, ("clips",)), config)


def load_clip(job: Job, stages: tuple[str, ...]) -> tuple[Any, Any]:
    """Return the tokenizer and a CLIPModel with what the given stages have trained."""
    tokenizer = build_tokenizer(job.work / "tokenizer", np.array([]))
    net = build_clip(tokenizer)
    for stage in stages:
        load_part(job, stage, net)
    return tokenizer, net.eval()


def build_unet(latents: int, layers: int = 1) -> Any:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=SIZE // 4,
        in_channels=latents,
        out_channels=latents,
        block_out_channels=(48, 96),
        layers_per_block=layers,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,  # the number of heads, whatever its name says
        norm_num_groups=16,
        addition_embed_type="text",
        encoder_hid_dim=None,
    )
    return attend_fast(unet)


def build_scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def latents_of(job: Job, clips: np.ndarray, stage: str) -> np.ndarray:
    """Return the latents of clips by the autoencoder of a stage, (n, frames, channels, 16, 16) float16, mapped."""
    file = job.work / "data" / f"latents-{stage}-{len(clips)}.npy"
    if not file.is_file():
        net = load_autoencoder(job, stage)
        with atomic(file) as partial, torch.inference_mode():
            shape = (len(clips), FRAMES, net.config.latent_channels, SIZE // 4, SIZE // 4)
            out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
            for start in range(0, len(clips), 50):
                frames = torch.from_numpy(clips[start : start + 50].copy()).flatten(0, 1)
                out[start : start + 50] = net.encode(to_pixels(frames)).latent_dist.mode().unflatten(0, (-1, FRAMES))
            out.flush()
    return np.load(file, mmap_mode="r")


@torch.inference_mode()
def tokens_of(tokenizer: Any, clip: Any, captions: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return of captions the last hidden states, (n, tokens, 128) float16, and the pooled ones, (n, 128) float32."""
    ids = torch.from_numpy(ids_of(tokenizer, captions))
    parts = [clip.text_model(input_ids=part) for part in ids.split(500)]
    tokens = torch.cat([part.last_hidden_state.half() for part in parts])
    return tokens.numpy(), torch.cat([part.pooler_output for part in parts]).numpy()


class Diffusion(nn.Module):
    """A U-Net with its loss: v-prediction (Salimans & Ho 2022, arXiv 2202.00512), t from a logistic normal."""

    def __init__(self, unet: nn.Module, silent: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("silent", silent, persistent=False)
        self.register_buffer("kept", build_scheduler().alphas_cumprod, persistent=False)

    def forward(self, x: Tensor, tokens: Tensor, places: Tensor) -> Tensor:
        """Return the loss of each picture x (n, channels, h, w) or clip (n, channels, frames, h, w)."""
        n, device = len(x), x.device
        t = (torch.sigmoid(torch.randn(n, device=device)) * 1000).long().clamp(0, 999)
        noise = torch.randn_like(x)
        if x.ndim == 5:
            noise = shared_noise(noise, torch.randn_like(x[:, :, :1]), SHARED_NOISE)
        each = (n, *([1] * (x.ndim - 1)))
        alpha, sigma = self.kept[t].sqrt().view(each), (1 - self.kept[t]).sqrt().view(each)
        without = torch.rand(n, device=device) < DROPPED
        tokens = torch.where(without[:, None, None], self.silent, tokens)
        found = self.unet(alpha * x + sigma * noise, t, tokens).sample
        wrong = (found - (alpha * noise - sigma * x)).square()
        weight = object_weight(places, x.shape[-1])  # (n, frames, h, w)
        weight = weight.unsqueeze(1) if x.ndim == 5 else weight
        return (wrong * weight).flatten(1).mean(1) / weight.flatten(1).mean(1)


def object_weight(places: Tensor, side: int) -> Tensor:
    """Return the weight (n, frames, side, side) of places (n, frames, 3): 1, and more around the object."""
    at = (torch.arange(side, device=places.device) + 0.5) / side
    x, y, size = places.unbind(-1)
    far = (at - x[..., None]).square()[..., None, :] + (at - y[..., None]).square()[..., :, None]
    return 1 + OBJECT_WEIGHT * torch.exp(-far / (2 * (0.45 * size[..., None, None]).square()))


def diffusion_parts(job: Job, coder: str) -> tuple[dict[str, np.ndarray], Tensor]:
    clips, truth = draw(job, "train", job.clips)
    tokenizer, clip = load_clip(job, ("text",))
    silent = torch.from_numpy(tokens_of(tokenizer, clip, [""])[0]).float()
    tokens = tokens_of(tokenizer, clip, truth["caption"])[0]
    return {"x": latents_of(job, clips, coder), "places": places(truth), "tokens": tokens}, silent


def picture_loss(net: nn.Module, b: dict[str, Tensor]) -> Tensor:
    """Return the diffusion's loss of a batch of single frames."""
    loss: Tensor = net(b["x"].float(), b["tokens"].float(), b["places"][:, None])
    return loss


def stage_unet(job: Job) -> None:
    arrays, silent = diffusion_parts(job, "autoencoder")
    torch.manual_seed(job.seed)
    net = Diffusion(build_unet(FIRST_LATENTS), silent)
    fit(job, "unet", net, picture_loss, Rows(arrays, ("x", "places")), job.config(steps=6000, batch=32, rate=2e-3))


def stage_unet_longer(job: Job) -> None:
    """Train the U-Net of pictures on, from its average, with a schedule of its own."""
    arrays, silent = diffusion_parts(job, "autoencoder")
    net = Diffusion(build_unet(FIRST_LATENTS), silent)
    load_part(job, "unet", net)
    config = job.config(steps=4500, batch=32, rate=1.5e-3, average=0.999)
    fit(job, "unet_longer", net, picture_loss, Rows(arrays, ("x", "places")), config)


def stage_unet_wider(job: Job) -> None:
    """Train the U-Net of pictures on in the latents of more channels, of which the first are nearly those it knows."""
    arrays, silent = diffusion_parts(job, "autoencoder_wider")
    old, net = Diffusion(build_unet(FIRST_LATENTS), silent), Diffusion(build_unet(LATENTS), silent)
    load_part(job, "unet_longer", old)
    known, own = old.state_dict(), net.state_dict()
    for name, value in known.items():
        if value.shape == own[name].shape:
            own[name] = value
        else:  # the first and the last convolution
            own[name] = torch.zeros_like(own[name])
            own[name][tuple(slice(0, side) for side in value.shape)] = value
    fill(net, own)
    config = job.config(steps=5000, batch=32, rate=1.5e-3, average=0.999)
    fit(job, "unet_wider", net, picture_loss, Rows(arrays, ("x", "places")), config)


def build_pictures(silent: Tensor | None = None) -> Diffusion:
    """Return the U-Net of pictures as it ships, with its loss."""
    return Diffusion(build_unet(LATENTS, LAYERS), torch.zeros(1, TOKENS, 128) if silent is None else silent)


def stage_unet_deeper(job: Job) -> None:
    """Train the U-Net of pictures on with one more block before each that it has, which at first add nothing."""
    arrays, silent = diffusion_parts(job, "autoencoder_wider")
    old = Diffusion(build_unet(LATENTS), silent)
    load_part(job, "unet_wider", old)
    torch.manual_seed(job.seed)
    net = build_pictures(silent)
    deepen(old.unet, net.unet)
    config = job.config(steps=6000, batch=32, rate=1.5e-3, average=0.999)
    fit(job, "unet_deeper", net, picture_loss, Rows(arrays, ("x", "places")), config)


def stage_unet_deeper_longer(job: Job) -> None:
    """Train the deeper U-Net of pictures on, from its average, with clips of what turns four times as often.

    A tenth of the clips show something that turns, at any angle: more to learn than upright things, from less. Named
    right was .29 of such samples, and .86 of all others.
    """
    arrays, silent = diffusion_parts(job, "autoencoder_wider")
    times = np.where(draw(job, "train", job.clips)[1]["action"] == "rotate", 4, 1)
    torch.manual_seed(job.seed)
    net = build_pictures(silent)
    load_part(job, "unet_deeper", net)
    config = job.config(steps=8000, batch=32, rate=1.5e-3, average=0.999)
    fit(job, "unet_deeper_longer", net, picture_loss, Rows(arrays, ("x", "places"), times), config)


SKETCH = 12
"""Steps in which a picture is made for the critic."""
GUIDANCE, WITHIN = 4.0, (0.2, 0.9)
"""Scale of the guidance of those pictures, and the shares of the noise between which there is any."""
SHOWN = (0.05, 0.7)
"""Shares of the noise between which a picture is shown to the critic; above, a network is held to what it did."""
NAMED, HELD, HELD_ABOVE = 0.15, 1.0, 5.0
"""Weights beside the diffusion's loss: of the critic, and of what a network does otherwise than before, on real frames
with noise and where nearly all is noise."""


class Criticised:
    """The diffusion's loss of real frames, and how ill a critic names what is made of their captions.

    A picture is made with guidance, in few steps. At three of them, drawn at random, what the network sees in the noise
    is shown to the critic, whose loss goes back through that one step and through what the caption adds in it. Sources:
    Xu et al. 2023 (ImageReward), arXiv 2304.05977, algorithm 1; that one step is enough, Clark et al. 2024, arXiv
    2309.17400; to be held to the network before, Fan et al. 2023 (DPOK), arXiv 2305.16381. Without that the critic is
    pleased by upright things in the middle, whatever place and background the caption names.
    """

    def __init__(self, job: Job, before: nn.Module, silent: Tensor) -> None:
        self.critic = build_classifier(1)
        load_part(job, "critic", self.critic)
        self.critic.eval().requires_grad_(False)
        self.autoencoder = load_autoencoder(job).requires_grad_(False)
        self.before = copy.deepcopy(before).eval().requires_grad_(False)
        self.silent = silent
        scheduler = build_scheduler()
        scheduler.set_timesteps(SKETCH)
        self.times = [int(t) for t in scheduler.timesteps]
        self.kept = scheduler.alphas_cumprod

    def __call__(self, net: nn.Module, b: dict[str, Tensor]) -> Tensor:
        """Return the loss of each frame and its caption, (n,)."""
        for part in (self.critic, self.autoencoder, self.before):
            part.to(b["x"].device)
        return picture_loss(net, b) + HELD * self.otherwise(net.unet, b) + self.made(net.unet, b)

    def apart(self, unet: nn.Module, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """Return how far the network is from that before, (n,)."""
        with torch.no_grad():
            wanted = self.before(x, t, tokens).sample.float()
        return (unet(x, t, tokens).sample.float() - wanted).square().flatten(1).mean(1)

    def otherwise(self, unet: nn.Module, b: dict[str, Tensor]) -> Tensor:
        """Return how far the network is from that before on real frames in any noise, half of them untold, (n,)."""
        x, n = b["x"].float(), len(b["x"])
        t = (torch.rand(n, device=x.device) * 1000).long()
        kept = self.kept.to(x.device)[t].view(n, 1, 1, 1)
        without = torch.rand(n, device=x.device) < 0.5
        tokens = torch.where(without[:, None, None], self.silent.to(x.device), b["tokens"].float())
        return self.apart(unet, kept.sqrt() * x + (1 - kept).sqrt() * torch.randn_like(x), t, tokens)

    def made(self, unet: nn.Module, b: dict[str, Tensor]) -> Tensor:
        """Return the weighted loss (n,) of pictures of the captions, by the critic and by the network before."""
        tokens = b["tokens"].float()
        n, silent = len(tokens), self.silent.to(tokens.device).expand_as(tokens)
        could = [t for t in self.times if SHOWN[0] <= t / 1000 <= SHOWN[1]]
        above = [t for t in self.times if t / 1000 > SHOWN[1]]
        asked = [could[i] for i in torch.randperm(len(could))[:3].tolist()]
        held = above[int(torch.randint(len(above), ()))]
        x = torch.randn_like(b["x"].float())
        wrong = torch.zeros(n, device=x.device)
        for at, t in enumerate(self.times):
            if t < min(asked):
                break
            if t == held:
                wrong = wrong + HELD_ABOVE * self.apart(unet, x, torch.tensor(t, device=x.device), tokens)
            alpha, sigma = self.kept[t].sqrt(), (1 - self.kept[t]).sqrt()
            with torch.set_grad_enabled(t in asked):
                found = unet(x, t, tokens).sample.float()
            if WITHIN[0] <= t / 1000 <= WITHIN[1]:
                with torch.no_grad():
                    without = unet(x, t, silent).sample.float()
                found = without + GUIDANCE * (found - without)
            clean = alpha * x - sigma * found
            if t in asked:
                wrong = wrong + NAMED * self.misnamed(clean, b) / len(asked)
                clean, found = clean.detach(), found.detach()
            if at + 1 < len(self.times):
                kept = self.kept[self.times[at + 1]]
                x = kept.sqrt() * clean + (1 - kept).sqrt() * (alpha * found + sigma * x)
        return wrong

    def misnamed(self, clean: Tensor, b: dict[str, Tensor]) -> Tensor:
        """Return the critic's cross-entropy (n,) of latents, seen from a little aside and nearer or farther."""
        pictures = self.autoencoder.decode(clean).sample
        n, device = len(pictures), pictures.device
        seen_from = torch.zeros(n, 2, 3, device=device)
        seen_from[:, 0, 0] = seen_from[:, 1, 1] = 1 + 0.1 * (2 * torch.rand(n, device=device) - 1)
        seen_from[:, :, 2] = 0.12 * (2 * torch.rand(n, 2, device=device) - 1)
        grid = F.affine_grid(seen_from, list(pictures.shape), align_corners=False)
        found = self.critic(F.grid_sample(pictures.float(), grid, padding_mode="reflection", align_corners=False))
        named = [F.cross_entropy(found[name].float(), b[name], reduction="none") for name in ("category", "colour")]
        return torch.stack(named).sum(0)


def stage_unet_named(job: Job) -> None:
    """Train the U-Net of pictures on, with a critic of what it makes of captions alone."""
    arrays, silent = diffusion_parts(job, "autoencoder_wider")
    truth = draw(job, "train", job.clips)[1]
    labels = labels_of(truth)
    arrays |= {name: labels[name] for name in ("category", "colour")}
    times = np.where(truth["action"] == "rotate", 3, 1)
    torch.manual_seed(job.seed)
    net = build_pictures(silent)
    load_part(job, "unet_deeper_longer", net)
    config = job.config(steps=300, batch=32, rate=4e-4, average=0.99, warm_up=0.05)
    fit(job, "unet_named", net, Criticised(job, net.unet, silent), Rows(arrays, ("x", "places"), times), config)


def deeper_name(name: str) -> str:
    """Return where what a U-Net of one block a level calls so stands in one of two."""
    return re.sub(r"(up_blocks\.\d+\.(?:resnets|attentions))\.1\.", r"\1.2.", name)


@torch.no_grad()
def deepen(old: Any, new: Any) -> None:
    """Fill a U-Net that has two blocks where the old one has one so that it does as that does.

    What is added stands behind the block of a level on the way down, and in the middle on the way up; it passes on what
    comes to it.
    """
    own = new.state_dict()
    for name, value in old.state_dict().items():
        own[deeper_name(name)] = value
    new.load_state_dict(own)
    for level in (*new.down_blocks, *new.up_blocks):
        block = level.resnets[1]
        silent = [block.conv2, *(attention.proj_out for attention in getattr(level, "attentions", [])[1:2])]
        if block.conv_shortcut is not None:  # what comes by the short cut from the way down is left out
            silent.append(block.conv_shortcut)
        for layer in silent:
            layer.weight.zero_()
            layer.bias.zero_()
        if block.conv_shortcut is not None:
            block.conv_shortcut.weight[:, : block.out_channels, 0, 0] = torch.eye(block.out_channels)


MOVING = ("self", "cross", "temporal")
"""What the U-Net of clips has of its own: the attention to the frames before, to the caption, and over time.

A network that has seen pictures alone doesn't read where something goes.
"""


def build_motion(job: Job, stage: str = "unet_named") -> Any:
    """Return the U-Net of pictures of a stage, rounded as it ships, as one of clips (MinD-Video, section 3.4)."""
    from neuroreel.generate.inflate import inflate

    pictures = Diffusion(build_unet(LATENTS, 1 if stage == "unet_wider" else LAYERS), torch.zeros(1, TOKENS, 128))
    load_part(job, stage, pictures)
    return inflate(pictures.unet.half().float(), FRAMES)


def fit_motion(job: Job, stage: str, unet: Any, **settings: Any) -> None:
    """Train the attention of a U-Net of clips, and nothing else of it."""
    arrays, silent = diffusion_parts(job, "autoencoder_wider")
    unet.trainable(MOVING)
    config = job.config(batch=8, rate=1e-3, average=0.998, **settings)

    def loss(model: nn.Module, b: dict[str, Tensor]) -> Tensor:
        return model(b["x"].float().transpose(1, 2), b["tokens"].float(), b["places"])

    fit(job, stage, Diffusion(unet, silent), loss, Rows(arrays), config)


def stage_motion(job: Job) -> None:
    fit_motion(job, "motion", build_motion(job, "unet_wider"), steps=1200)


def stage_motion_deeper(job: Job) -> None:
    """Train the U-Net of clips on with the blocks that the one of pictures has got."""
    unet = build_motion(job, "unet_deeper")
    before = Diffusion(build_motion(job, "unet_wider"), torch.zeros(1, TOKENS, 128))
    load_part(job, "motion", before)
    over_time = {name: value for name, value in before.unet.state_dict().items() if ".temporal." in name}
    fill(unet, unet.state_dict() | {deeper_name(name): value for name, value in over_time.items()})
    fit_motion(job, "motion_deeper", unet, steps=1800)


def carried_over(job: Job, pictures: str, clips: str, to: str) -> Any:
    """Return the U-Net of clips upon pictures that have gone on to a stage; what clips changed in the old is added."""
    unet, before = build_motion(job, to), Diffusion(build_motion(job, pictures), torch.zeros(1, TOKENS, 128))
    plain = {name: value.clone() for name, value in before.unet.state_dict().items()}
    load_part(job, clips, before)
    own = unet.state_dict()
    for name, value in before.unet.state_dict().items():
        own[name] = value if ".temporal." in name else own[name] + value - plain[name]
    fill(unet, own)
    return unet


def stage_motion_deeper_longer(job: Job) -> None:
    """Train the U-Net of clips on upon the one of pictures that has gone on."""
    unet = carried_over(job, "unet_deeper", "motion_deeper", "unet_deeper_longer")
    fit_motion(job, "motion_deeper_longer", unet, steps=1800)


def stage_motion_named(job: Job) -> None:
    """Train the U-Net of clips on upon the one of pictures that a critic has seen."""
    unet = carried_over(job, "unet_deeper_longer", "motion_deeper_longer", "unet_named")
    fit_motion(job, "motion_named", unet, steps=600)


def build_classifier(frames: int) -> Any:
    from neuroreel.nets.residual import ResidualConfig, ResidualNet

    heads = {"category": len(CATEGORIES), "colour": len(COLOURS), "place": 3}
    heads = heads if frames == 1 else {"category": len(CATEGORIES), "doing": len(DOINGS)}
    widths = (32, 64, 128, 192) if frames == 1 else (32, 48, 64, 96)
    seen = {"attended": ("category", "colour", "place"), "placed": ("doing",)}
    return ResidualNet(ResidualConfig(size=SIZE, frames=frames, widths=widths, heads=heads, **seen))


DOINGS = tuple(
    sorted(
        {f"drift {way}" for way in DIRECTIONS} | {f"rotate {turn}" for turn in TURNS} | set(ACTIONS[1:]) - {"rotate"}
    )
)


def labels_of(truth: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the numbers of every clip's category, colour and doing."""
    doing = [f"{a} {d}".strip() for a, d in zip(truth["action"], truth["direction"], strict=True)]
    known = {"category": CATEGORIES, "colour": tuple(COLOURS), "doing": DOINGS}
    named = {"category": truth["category"], "colour": truth["colour"], "doing": doing}
    return {name: np.array([known[name].index(str(value)) for value in named[name]]) for name in known}


def classifier_loss(net: nn.Module, b: dict[str, Tensor]) -> Tensor:
    """Return the loss of a batch of a classifier's answers; where clips were cut, their places cost nothing."""
    found = net(net.pixels(b["clips"]))
    named = [F.cross_entropy(found[name], b[name], reduction="none") for name in found if name != "place"]
    wrong = torch.stack(named).sum(0)
    if "place" in found:
        apart = F.smooth_l1_loss(found["place"], b["places"], reduction="none", beta=0.1).sum(1)
        wrong = wrong + 10 * apart * ~b["near"]
    return wrong


def fit_classifier(
    job: Job, stage: str, frames: int, before: str | None = None, drawn: str = "judge", **settings: Any
) -> None:
    """Train a classifier of pictures or of clips, from the average of an earlier stage where one is named."""
    clips, truth = draw(job, drawn, job.clips)
    torch.manual_seed(job.seed + frames)
    net = build_classifier(frames)
    if before is not None:
        load_part(job, before, net)
    net.train()
    middle = slice(FRAMES // 2 - 1, FRAMES // 2 + 1) if frames == 1 else slice(None)
    arrays = {"clips": clips[:, middle], "places": places(truth)[:, middle], **labels_of(truth)}
    # left stays left in a clip
    source = Closer(arrays, ("clips", "places") if frames == 1 else (), mirror=frames == 1)
    fit(job, stage, net, classifier_loss, source, job.config(batch=64, **settings))


def stage_judge(job: Job) -> None:
    fit_classifier(job, "judge", 1, steps=1500, rate=2e-3, average=0.99)


def stage_judge_longer(job: Job) -> None:
    fit_classifier(job, "judge_longer", 1, "judge", steps=4500, rate=1.5e-3, average=0.998)


def stage_critic(job: Job) -> None:
    """Train the critic, of the generator's own clips: the judge and the scores know neither it nor what it learns."""
    fit_classifier(job, "critic", 1, drawn="train", steps=3000, rate=2e-3, average=0.998)


def stage_video_classifier(job: Job) -> None:
    fit_classifier(job, "video_classifier", FRAMES, steps=1500, rate=2e-3, average=0.99)


def stage_video_classifier_longer(job: Job) -> None:
    fit_classifier(job, "video_classifier_longer", FRAMES, "video_classifier", steps=4500, rate=1.5e-3, average=0.998)


def write_network(net: Any, folder: Path) -> None:
    """Write a network of diffusers or transformers in float16, to be opened in float32."""
    net.half().save_pretrained(folder, safe_serialization=True)
    file = folder / "config.json"
    write_text(file, file.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))


def write_classifier(job: Job, frames: int, folder: Path) -> None:
    """Write a classifier in float16, with its settings."""
    net = build_classifier(frames)
    load_part(job, "judge_longer" if frames == 1 else "video_classifier_longer", net)
    folder.mkdir(parents=True)
    net.config.save(folder / "config.json")
    write_state(folder / "weights.safetensors", net, half=True)


def write_unet(job: Job, folder: Path) -> None:
    """Write the U-Net of pictures in float16."""
    net = build_pictures()
    load_part(job, "unet_named", net)
    write_network(net.unet, folder)


def write_motion(job: Job, folder: Path) -> None:
    """Write in float16 what the U-Net of clips has beside that of pictures."""
    net = Diffusion(build_motion(job), torch.zeros(1, TOKENS, 128))
    load_part(job, "motion_named", net)
    folder.mkdir(parents=True)
    net.unet.trainable(MOVING)
    net.unet.half().save(folder / "weights.safetensors")


def write_text_encoder(job: Job, folder: Path) -> None:
    """Write CLIP's text encoder alone, as a pipeline wants it."""
    from transformers import CLIPTextModel

    clip = load_clip(job, ("text",))[1]
    encoder = CLIPTextModel(clip.config.text_config)
    fill(encoder, clip.text_model.state_dict())
    write_network(encoder, folder)


INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["neuroreel.nets.autoencoder", "FoldedAutoencoder"],
}


Writers = dict[str, tuple[tuple[str, ...], Callable[[Path], object], dict[str, list[str]]]]
"""By part: the stages that must be done, what writes it into a folder, and the names of a classifier's values."""


def write_tokenizer(job: Job, folder: Path) -> None:
    """Write the tokenizer, in the older layout of two files too."""
    load_clip(job, ())[0].save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        write_text(folder / name, (job.work / "tokenizer" / name).read_text())


def export(job: Job, out: Path) -> None:
    """Write the generator's parts of all stages that are done, and the card."""
    heads = {"category": list(CATEGORIES), "doing": list(DOINGS)}
    writers: Writers = {
        "scheduler": ((), lambda path: build_scheduler().save_pretrained(path), {}),
        "tokenizer": (("text",), lambda path: write_tokenizer(job, path), {}),
        "text_encoder": (("text",), lambda path: write_text_encoder(job, path), {}),
        "clip": (("text", "clip"), lambda path: write_network(load_clip(job, ("text", "clip"))[1], path), {}),
        "vae": (("autoencoder", "autoencoder_wider"), lambda path: write_network(load_autoencoder(job), path), {}),
        "unet": (
            ("unet", "unet_longer", "unet_wider", "unet_deeper", "unet_deeper_longer", "critic", "unet_named"),
            lambda path: write_unet(job, path),
            {},
        ),
        "motion": (
            ("motion", "motion_deeper", "motion_deeper_longer", "motion_named"),
            lambda path: write_motion(job, path),
            {},
        ),
        "video_classifier": (
            ("video_classifier", "video_classifier_longer"),
            lambda path: write_classifier(job, FRAMES, path),
            heads,
        ),
    }
    pack(job, out, writers, {"model_index.json": json.dumps(INDEX, indent=2) + "\n"})


def export_judge(job: Job, out: Path) -> None:
    """Write the judge, which is no part of the package, and its card."""
    heads = {"category": list(CATEGORIES), "colour": list(COLOURS), "place": ["x", "y", "size"]}
    pack(job, out, {"judge": (("judge", "judge_longer"), lambda path: write_classifier(job, 1, path), heads)}, {})


def pack(job: Job, out: Path, writers: Writers, texts: dict[str, str]) -> None:
    """Write a folder of parts and texts with a card that has the SHA-256 of every file of a part."""
    with atomic(out) as partial:
        partial.mkdir(parents=True)
        card: dict[str, Any] = {"trained_on": "clips of the simulated world and their captions", "parts": {}}
        for part, (stages, write, classes) in writers.items():
            if not all((job.work / stage / "facts.json").is_file() for stage in stages):
                print(f"{part} is left out: {', '.join(stages)} not done")
                continue
            write(partial / part)
            files = sorted(path for path in (partial / part).rglob("*") if path.is_file())
            digests = {path.relative_to(partial).as_posix(): sha256(path) for path in files}
            facts = {stage: json.loads((job.work / stage / "facts.json").read_text()) for stage in stages}
            size = sum(path.stat().st_size for path in files)
            card["parts"][part] = {"files": digests, "bytes": size, "training": facts}
            if classes:
                card["parts"][part]["classes"] = classes
        for name, text in texts.items():
            write_text(partial / name, text)
        card["bytes"] = sum(part["bytes"] for part in card["parts"].values())
        card["command"] = "python scripts/train_world.py --work world --stage all"
        write_text(partial / "card.json", json.dumps(card, indent=2) + "\n")
    print(f"{card['bytes'] / 1e6:.2f} MB in {out}")


STAGES: dict[str, Callable[[Job], None]] = {
    "autoencoder": stage_autoencoder,
    "autoencoder_wider": stage_autoencoder_wider,
    "text": stage_text,
    "clip": stage_clip,
    "judge": stage_judge,
    "judge_longer": stage_judge_longer,
    "critic": stage_critic,
    "unet": stage_unet,
    "unet_longer": stage_unet_longer,
    "unet_wider": stage_unet_wider,
    "unet_deeper": stage_unet_deeper,
    "unet_deeper_longer": stage_unet_deeper_longer,
    "unet_named": stage_unet_named,
    "motion": stage_motion,
    "motion_deeper": stage_motion_deeper,
    "motion_deeper_longer": stage_motion_deeper_longer,
    "motion_named": stage_motion_named,
    "video_classifier": stage_video_classifier,
    "video_classifier_longer": stage_video_classifier_longer,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is drawn, and for checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "src" / "neuroreel" / "weights" / "world")
    parser.add_argument("--judge-out", type=Path, default=ROOT / "benchmarks" / "judge")
    parser.add_argument("--stage", choices=[*STAGES, "all", "export"], default="all")
    parser.add_argument("--clips", type=int, default=24_000, help="clips to draw, a multiple of 500")
    parser.add_argument("--steps", type=int, help="steps of the stage, for a trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    job = Job(args.work, args.clips, args.steps, args.seed, args.device == "cpu", args.threads)
    for stage in STAGES if args.stage == "all" else {args.stage} - {"export"}:
        STAGES[stage](job)
    if args.stage in ("all", "export"):
        export(job, args.out)
        export_judge(job, args.judge_out)


if __name__ == "__main__":
    main()
