"""Seconds a clip: few steps, many clips at a time, guidance where it counts, against a loop of the published kind.

    python benchmarks/sampling.py --json                    # the world's generator on captions of new scenes
    python benchmarks/sampling.py --json --quick            # seconds, not to be believed
    python benchmarks/sampling.py --json --full             # the size of Stable Diffusion v1-5, on a GPU

The published kind takes 200 steps of DDIM, one clip at a time, in float32, guidance as two passes (MinD-Video,
SYSTEMS.md 6). Ours is `generate.samplers.denoise`: DPM-Solver++, clips in batches, both halves of guidance in one pass
and only within an interval of the noise, in bfloat16 where the device gains by it, frames decoded batch by batch.
Both have the same weights, captions, noise and guidance and take turns in one process. `ratio` is of seconds on the
wall, `cpu_ratio` of processor seconds, which other work on the machine leaves alone. The loop is timed on `--timed`
clips; the others of its clips, to be scored, are drawn from the same noise in batches: `same_px` is how far the timed
ones, drawn so as well, lie apart at most.

Scores: CLIP similarity to the frames that the caption was written of, two-way identification among them, and whether
the shipped AlexNet names the caption's category; `difference` is ours (first) less the loop's (second), clip by clip,
with its interval over scenes, beside the interval of the loop's own score. `equal` says that every interval of the
difference holds 0 or lies above it. With `--full` weights are at random, so nothing is scored.
"""

import argparse
import copy
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from linear_era import provenance
from simulated import RESULTS, Named, write_sheet
from torch import Tensor, nn

from neuroreel.core.files import write_text
from neuroreel.core.types import Reconstruction
from neuroreel.fit.loop import device_dtype
from neuroreel.generate.inflate import inflate
from neuroreel.generate.latent import to_frames
from neuroreel.generate.samplers import denoise, make_sampler, seeded_noise, shared_noise
from neuroreel.generate.world import SHARED_NOISE, World, load_world
from neuroreel.metrics.backbones import open_backbones
from neuroreel.metrics.inference import interval_of_mean
from neuroreel.metrics.table import score
from neuroreel.simulate.sampling import sample_clips

NEW_SEED = 9_800_000
FRAMES, FPS = 6, 3.0
STEPS = 200
METRICS = ("clip-similarity", "two-way:clip")
SD15: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 32,
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    "autoencoder": {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
    },
    "noise": {
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    },
    "tokens": {"count": 77},
}
"""Stable Diffusion v1-5 at 256 pixels: what its folder says."""
TINY: dict[str, dict[str, Any]] = {
    "unet": SD15["unet"]
    | {"sample_size": 8, "block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "attention_head_dim": 2}
    | {"cross_attention_dim": 16},
    "autoencoder": SD15["autoencoder"] | {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4},
    "noise": SD15["noise"],
    "tokens": {"count": 5},
}


@dataclass(frozen=True)
class Model:
    """A generator of clips: U-Net, decoder, noise of its training, and the condition that says nothing."""

    unet: Any
    autoencoder: Any
    scaling: float
    noise: dict[str, Any]
    silent: Tensor
    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the latents of a clip."""
        config = self.unet.config
        return config.in_channels, self.unet.frames, config.sample_size, config.sample_size

    @torch.inference_mode()
    def decode(self, latents: Tensor, chunk: int) -> np.ndarray:
        """Return the clips of latents (n, channels, frames, h, w), (n, frames, H, W, 3) uint8, a chunk at a time."""
        flat = latents.transpose(1, 2).flatten(0, 1).to(self.autoencoder.dtype) / self.scaling
        frames = [to_frames(self.autoencoder.decode(part).sample.float().cpu()) for part in flat.split(chunk)]
        return np.concatenate(frames).reshape(len(latents), self.unet.frames, *frames[0].shape[1:])


@dataclass(frozen=True)
class Way:
    """A way of sampling, see `denoise`; `batch` clips at a time in `dtype`."""

    sampler: str
    steps: int
    batch: int
    within: tuple[float, float]
    dtype: torch.dtype


class InType(nn.Module):
    """A network in another type than what it is called with."""

    def __init__(self, unet: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.unet, self.kind = copy.deepcopy(unet).to(dtype), dtype
        self.config = unet.config

    def forward(self, x: Tensor, t: Any, tokens: Tensor) -> Any:
        """Return what the network says, in float32."""
        found = self.unet(x.to(self.kind), t, tokens.to(self.kind))
        found.sample = found.sample.float()
        return found


@dataclass
class Clock:
    """Seconds on the wall and of the processor."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    clips: int = 0

    def time(self, model: Model, run: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the clips that a function makes, and add the time that it takes."""
        settle(model.device)
        wall, cpu = time.perf_counter(), time.process_time()
        made = run()
        settle(model.device)
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu
        self.clips += len(made)
        return made


def settle(device: torch.device) -> None:
    """Wait until a device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def published(model: Model, noise: Tensor, tokens: Tensor, *, steps: int, guidance: float) -> np.ndarray:
    """Return clips by the loop of the published kind: DDIM, a pass without the condition and one with it."""
    sampler = make_sampler("ddim", model.noise)
    sampler.set_timesteps(steps, device=noise.device)
    silent = model.silent.expand_as(tokens)
    x = noise * sampler.init_noise_sigma
    for t in sampler.timesteps:
        without = model.unet(x, t, silent).sample
        within = model.unet(x, t, tokens).sample
        x = sampler.step(without + guidance * (within - without), t, x).prev_sample
    return model.decode(x, model.unet.frames)


@torch.inference_mode()
def ours(model: Model, net: Any, way: Way, noise: Tensor, tokens: Tensor, *, guidance: float) -> np.ndarray:
    """Return clips by our sampling; frames are decoded batch by batch."""
    made = []
    for rows in torch.arange(len(noise)).split(way.batch):
        sampler = make_sampler(way.sampler, model.noise)
        settings = {"steps": way.steps, "guidance": guidance, "within": way.within}
        latents = denoise(net, noise[rows], tokens[rows], model.silent, sampler, **settings)
        made.append(model.decode(latents, way.batch * model.unet.frames))
    return np.concatenate(made)


def reset_peak(device: torch.device) -> None:
    """Begin to watch the memory's peak anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_gb(device: torch.device) -> float:
    """Return the most memory held since `reset_peak`: on the device, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) / 2**20 if found else float("nan")


def of_world(device: torch.device) -> tuple[Model, Any]:
    """Return the world's generator of clips; where it has none, its U-Net of pictures inflated, and the world."""
    world = load_world()
    unet = world.video_unet if "motion" in world.card["parts"] else inflate(world.unet, FRAMES)
    scaling = float(world.autoencoder.config.get("scaling_factor", 1.0))
    parts = (unet.to(device).eval(), world.autoencoder.to(device), scaling, world.noise, world.silent.to(device))
    return Model(*parts, device), world


def of_size(size: dict[str, dict[str, Any]], device: torch.device) -> Model:
    """Return a generator of clips of a size, its weights at random."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.manual_seed(0)
    unet = inflate(UNet2DConditionModel(**size["unet"]), FRAMES)
    autoencoder: Any = AutoencoderKL(**size["autoencoder"])
    silent = torch.randn(1, size["tokens"]["count"], size["unet"]["cross_attention_dim"])
    whole = [part.to(device).eval().requires_grad_(False) for part in (unet, autoencoder)]
    return Model(*whole, 0.18215, size["noise"], silent.to(device), device)


def race(
    model: Model, way: Way, noise: Tensor, tokens: Tensor, *, timed: int, steps: int, guidance: float
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Return what both ways cost, taking turns, with all clips of ours and the timed ones of the loop."""
    net = InType(model.unet, way.dtype)
    slow, fast = Clock(), Clock()
    peaks, made, loop = {"ours": 0.0, "published": 0.0}, [], []
    ours(model, net, way, noise[: way.batch], tokens[: way.batch], guidance=guidance)  # warm
    batches = torch.arange(len(noise)).split(way.batch)
    turns = np.array_split(np.arange(timed), len(batches))
    for rows, ones in zip(batches, turns, strict=True):
        reset_peak(model.device)
        made.append(
            fast.time(model, lambda rows=rows: ours(model, net, way, noise[rows], tokens[rows], guidance=guidance))
        )
        peaks["ours"] = max(peaks["ours"], peak_gb(model.device))
        reset_peak(model.device)
        for one in ones:
            row = slice(int(one), int(one) + 1)
            made_one = slow.time(
                model, lambda row=row: published(model, noise[row], tokens[row], steps=steps, guidance=guidance)
            )
            loop.append(made_one)
        peaks["published"] = max(peaks["published"], peak_gb(model.device))
    facts = {
        "ratio": (slow.wall_s / slow.clips) / (fast.wall_s / fast.clips),
        "cpu_ratio": (slow.cpu_s / slow.clips) / (fast.cpu_s / fast.clips),
        "s_per_clip": fast.wall_s / fast.clips,
        "s_per_clip_published": slow.wall_s / slow.clips,
        "cpu_s_per_clip": fast.cpu_s / fast.clips,
        "cpu_s_per_clip_published": slow.cpu_s / slow.clips,
        "peak_gb": peaks["ours"],
        "peak_gb_published": peaks["published"],
        "timed": {"ours": fast.clips, "published": slow.clips},
    }
    return facts, np.concatenate(made), np.concatenate(loop)


def weights(world: World) -> dict[str, str]:
    """Return the beginning of the SHA-256 of the files of the world's generator, by part."""
    parts = {name: world.card["parts"].get(name, {"files": {}})["files"] for name in ("unet", "motion", "vae")}
    return {name: digest[:12] for name, files in parts.items() for file, digest in files.items() if "safetens" in file}


def scores(made: np.ndarray, truth: np.ndarray, said: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return one value per clip of each score; pictures are clips of one frame."""
    embed = open_backbones({"image-text": "world"})
    blocks = said["scene"]
    found = {name: score(name, made, truth, blocks, embed=embed, draws=2).values for name in METRICS}
    named = Named(None).name(Reconstruction(made))
    best = np.array(named.categories)[named.probabilities.argmax(1)]
    return found | {"category": (best == said["category"]).astype(np.float64)}


def compare(first: np.ndarray, second: np.ndarray, truth: np.ndarray, said: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the scores of two sets of clips of one truth, and their difference with its interval over scenes."""
    a, b, ceiling = (scores(clips, truth, said) for clips in (first, second, truth))
    rows: dict[str, Any] = {}
    for name in a:
        low, high = interval_of_mean(a[name] - b[name], said["scene"], seed=0)
        means = {"first": a[name].mean(), "second": b[name].mean(), "truth": ceiling[name].mean()}
        rows[name] = {key: float(value) for key, value in means.items()}
        rows[name] |= {"difference": float((a[name] - b[name]).mean()), "low": low, "high": high}
        rows[name]["no_worse"] = high is not None and high >= 0
        rows[name]["interval_of_second"] = interval_of_mean(b[name], said["scene"], seed=0)
    return rows


def on_world(args: argparse.Namespace, way: Way, device: torch.device) -> dict[str, Any]:
    """Return what both ways cost on the world's generator, and their scores."""
    model, world = of_world(device)
    truth, said = sample_clips(args.clips, frames=FRAMES, fps=FPS, seed=NEW_SEED, per_scene=1)
    tokens = world.tokens([str(text) for text in said["caption"]]).to(device)
    own, common = (
        seeded_noise(0, (model.shape[0], frames, *model.shape[2:]), range(args.clips), name)
        for frames, name in ((FRAMES, "sample"), (1, "clip"))
    )
    noise = shared_noise(own, common, SHARED_NOISE).to(device)
    settings = {"steps": args.published_steps, "guidance": args.guidance}
    facts, fast, timed = race(model, way, noise, tokens, timed=args.timed, **settings)
    parts = torch.arange(len(noise)).split(way.batch)
    slow = np.concatenate([published(model, noise[rows], tokens[rows], **settings) for rows in parts])
    facts["same_px"] = int(np.abs(slow[: len(timed)].astype(int) - timed).max())
    rows = compare(fast, slow, truth, said)
    facts |= {"scores": rows, "equal": all(row["no_worse"] for row in rows.values()), "weights": weights(world)}
    if args.sheet is not None:
        shown = [clips[:4].reshape(-1, *clips.shape[2:]) for clips in (truth, fast, slow)]
        write_sheet(args.sheet, shown)
    return facts


def at_size(
    size: dict[str, dict[str, Any]], args: argparse.Namespace, way: Way, device: torch.device
) -> dict[str, Any]:
    """Return what both ways cost with weights at random, and on a GPU the largest batch."""
    model = of_size(size, device)
    clips = max(args.clips, way.batch)
    tokens = torch.randn(clips, *model.silent.shape[1:], device=device)
    noise = seeded_noise(0, model.shape, range(clips)).to(device)
    settings = {"timed": args.timed, "steps": args.published_steps, "guidance": args.guidance}
    facts = race(model, way, noise, tokens, **settings)[0]
    if device.type == "cuda":
        facts["largest_batch"] = largest_batch(model, way, args.guidance)
    return facts | {"parameters": sum(each.numel() for each in model.unet.parameters())}


def largest_batch(model: Model, way: Way, guidance: float) -> int:
    """Return the largest power of two of clips that fits the device, decoded too."""
    net, fits, count = InType(model.unet, way.dtype), 0, 1
    while True:
        try:
            noise = seeded_noise(0, model.shape, range(count)).to(model.device)
            tokens = model.silent.expand(count, -1, -1)
            few = Way(way.sampler, 2, count, (0.0, 1.0), way.dtype)
            ours(model, net, few, noise, tokens, guidance=guidance)
        except torch.OutOfMemoryError:
            return fits
        fits, count = count, 2 * count


def pictures(args: argparse.Namespace) -> dict[str, Any]:
    """Return 25 steps of DPM-Solver++ beside 200 of DDIM for single pictures of captions: scores and seconds."""
    world = load_world()
    truth, said = sample_clips(args.pictures, frames=1, seed=NEW_SEED + 1, per_scene=1)
    captions = [str(text) for text in said["caption"]]
    world.images(captions[:2], steps=1)  # warm
    made: dict[str, list[np.ndarray]] = {"dpm++": [], "ddim": []}
    clocks = {name: {"wall_s": 0.0, "cpu_s": 0.0} for name in made}
    for start in range(0, len(captions), 50):
        for name, steps in (("dpm++", args.steps_of_pictures), ("ddim", args.published_steps)):
            wall, cpu = time.perf_counter(), time.process_time()
            part = captions[start : start + 50]
            settings = {"guidance": args.guidance, "within": tuple(args.within), "sampler": name, "seed": start}
            made[name].append(world.images(part, steps=steps, **settings)[:, None])
            clocks[name]["wall_s"] += time.perf_counter() - wall
            clocks[name]["cpu_s"] += time.process_time() - cpu
    rows = compare(*(np.concatenate(parts) for parts in made.values()), truth, said)
    seconds = {name: {key: value / len(captions) for key, value in clock.items()} for name, clock in clocks.items()}
    return {
        "steps": {"dpm++": args.steps_of_pictures, "ddim": args.published_steps},
        "pictures": len(captions),
        "guidance": args.guidance,
        "s_per_picture": seconds,
        "ratio": seconds["ddim"]["wall_s"] / seconds["dpm++"]["wall_s"],
        "cpu_ratio": seconds["ddim"]["cpu_s"] / seconds["dpm++"]["cpu_s"],
        "scores": rows,
        "no_worse": all(row["no_worse"] for row in rows.values()),
        "weights": weights(world),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", nargs="?", const="sd15", choices=("sd15", "tiny"))
    parser.add_argument("--samplers", action="store_true", help="single pictures: two samplers, both timed and scored")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--timed", type=int, default=4, help="clips of the published loop that are timed")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--sampler", default="dpm++")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--steps-of-pictures", type=int, default=25)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--within", type=float, nargs=2, default=(0.0, 1.0))
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "float32"))
    parser.add_argument("--published-steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="a PNG: true clips, ours, and those of the published loop")
    parser.add_argument("--out", type=Path, help="results; those of the package unless --quick or --full")
    args = parser.parse_args()
    if args.quick:
        args.clips, args.timed, args.published_steps, args.pictures = 4, 1, 4, 4
        args.steps, args.steps_of_pictures, args.batch = 2, 2, 2
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.samplers:
        found, file = pictures(args), RESULTS / "samplers.json"
    else:
        dtype = device_dtype(args.precision, device)
        way = Way(args.sampler, args.steps, args.batch, tuple(args.within), dtype)
        size = {"sd15": SD15, "tiny": TINY}.get(args.full or "")
        found = at_size(size, args, way, device) if size else on_world(args, way, device)
        about = {"sampler": way.sampler, "steps": way.steps, "batch": way.batch, "within": list(way.within)}
        found["way"] = about | {"precision": str(dtype).removeprefix("torch."), "guidance": args.guidance}
        found["published"] = {"sampler": "ddim", "steps": args.published_steps, "batch": 1, "precision": "float32"}
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        found |= {"device": name, "size": args.full or "world"}
        file = RESULTS / "sampling.json"
    found |= provenance(0) | {"threads": args.threads}
    target = args.out or (None if args.quick or args.full else file)
    if target is not None:
        write_text(target, json.dumps(found, indent=2) + "\n")
    print(json.dumps(found) if args.json else json.dumps(found, indent=2))
    print(target or "", file=sys.stderr)


if __name__ == "__main__":
    main()
