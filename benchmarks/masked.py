"""Masked brain modelling: samples a second against a plain implementation, and what it recovers on the simulated world.

    python benchmarks/masked.py --json                       # speed; minutes
    python benchmarks/masked.py --json --quick               # seconds, on a small network
    python benchmarks/masked.py --json --compare WORK        # R2 of cortical and flat patches beside ridge and mean

The plain implementation is the common one: blocks as timm writes them with the attention matrix materialised, float32,
all patches embedded before the masked ones are dropped and all predicted before the visible ones are left out of the
loss, AdamW and clipping as they come. It has the same parameters, and its loss is checked to be the same. Both take
steps in turns in one process, so that what else the machine does weighs on both alike; `ratio` is of the median step's
seconds on the wall, `cpu_ratio` of processor seconds. `matrix_peak_share` is the step's floating-point operations a
second over the best that a matrix product reached here in the same type.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from neuroreel.brain.masked import MaskedBrain, MaskedConfig, masked_loss
from neuroreel.brain.patches import make_patches
from neuroreel.brain.recovery import score_recovery
from neuroreel.brain.stream import draw_masks, store_runs
from neuroreel.core.files import write_text
from neuroreel.core.seeds import generator
from neuroreel.core.sets import Segment, Split
from neuroreel.core.store import read_store, store_table
from neuroreel.core.system import versions
from neuroreel.core.types import Run, Space
from neuroreel.fit.loop import LoopConfig, device_dtype
from neuroreel.nets.masked import Ends, MaskedNet

Batch = dict[str, Any]
BIG = MaskedConfig(
    order="flat",
    embedding="shared",
    dim=384,
    depth=6,
    heads=6,
    decoder_dim=192,
    decoder_depth=3,
    decoder_heads=6,
    trs=2,
)
SMALL = BIG.model_copy(
    update={"dim": 64, "depth": 2, "decoder_dim": 32, "decoder_depth": 1, "heads": 4, "decoder_heads": 4}
)


class PlainAttention(nn.Module):
    """Attention as timm writes it where no fused kernel is asked for."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, tokens, dim)."""
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, c))


class PlainBlock(nn.Module):
    """A block with the parameters of `neuroreel.nets.transformer.Block`."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, trs: int) -> None:
        super().__init__()
        hidden = round(dim * mlp_ratio)
        self.norm_space, self.space = nn.LayerNorm(dim), PlainAttention(dim, heads)
        if trs > 1:
            self.norm_time, self.time = nn.LayerNorm(dim), PlainAttention(dim, heads)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, trs, tokens, dim)."""
        b, t, n, d = x.shape
        x = x.reshape(b * t, n, d)
        x = (x + self.space(self.norm_space(x))).reshape(b, t, n, d)
        if t > 1:
            x = x.permute(0, 2, 1, 3).reshape(b * n, t, d)
            x = x + self.time(self.norm_time(x))
            x = x.reshape(b, n, t, d).permute(0, 2, 1, 3)
        return x + self.mlp(self.norm_mlp(x))


class PlainNet(nn.Module):
    """The masked autoencoder in plain words, with the parameters of `MaskedNet`."""

    def __init__(self, config: MaskedConfig, ends: Ends) -> None:
        super().__init__()
        self.ends = nn.ModuleDict({"one": ends})
        shape = (config.heads, config.mlp_ratio, config.trs)
        self.embed, self.readout = nn.Linear(config.patch, config.dim), nn.Linear(config.decoder_dim, config.patch)
        self.encoder = nn.ModuleList([PlainBlock(config.dim, *shape) for _ in range(config.depth)])
        self.norm, self.to_decoder = nn.LayerNorm(config.dim), nn.Linear(config.dim, config.decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(config.decoder_dim))
        if config.trs > 1:
            self.time = nn.Parameter(torch.zeros(config.trs, config.dim))
            self.decoder_time = nn.Parameter(torch.zeros(config.trs, config.decoder_dim))
        shape = (config.decoder_heads, config.mlp_ratio, config.trs)
        self.decoder = nn.ModuleList([PlainBlock(config.decoder_dim, *shape) for _ in range(config.decoder_depth)])
        self.decoder_norm = nn.LayerNorm(config.decoder_dim)

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean squared error on the masked voxels."""
        ends, brain, visible, masked = self.ends["one"], batch["brain"], batch["visible"], batch["masked"]
        patches = ends.patches(brain)
        b, t, n, _ = patches.shape
        x = self.embed(patches) + ends.position
        if t > 1:
            x = x + self.time[:, None]
        x = torch.gather(x, 2, visible[:, None, :, None].repeat(1, t, 1, x.shape[-1]))
        for block in self.encoder:
            x = block(x)
        x = self.to_decoder(self.norm(x))
        x = torch.cat([x, self.mask_token.repeat(b, t, masked.shape[1], 1)], dim=2)
        back = torch.argsort(torch.cat([visible, masked], dim=1), dim=1)
        x = torch.gather(x, 2, back[:, None, :, None].repeat(1, t, 1, x.shape[-1])) + ends.decoder_position
        if t > 1:
            x = x + self.decoder_time[:, None]
        for block in self.decoder:
            x = block(x)
        made = self.readout(self.decoder_norm(x))
        hidden = torch.zeros(b, n).scatter(1, masked, 1.0)[:, None, :, None] * ends.real
        return (((made - patches) ** 2) * hidden).sum() / (hidden.sum() * t)


def make_step(net: nn.Module, loss: Callable[[], Tensor], *, plain: bool, dtype: torch.dtype) -> Callable[[], float]:
    """Return a function that takes a step of training and returns the loss."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.05, fused=not plain)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.8)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return float(value.detach())

    return step


def matrix_peak(dtype: torch.dtype, tries: int = 8) -> float:
    """Return the most floating-point operations a second that a square matrix product reaches."""
    a, b = torch.randn(2, 2048, 2048, dtype=torch.float32).to(dtype).unbind()
    best = math.inf
    for _ in range(tries):
        start = time.process_time()
        a @ b
        best = min(best, time.process_time() - start)
    return 2 * 2048**3 / best


def measure_speed(config: MaskedConfig, voxels: int, batch: int, repeats: int, precision: str) -> dict[str, Any]:
    """Return samples a second of both implementations, their ratio, and the share of the matrix peak."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rng = generator(0, "masked benchmark")
    patches = make_patches(Space("columns", voxels), config.patch, config.order)
    torch.manual_seed(0)
    net = MaskedNet(config)
    net.ends["one"] = Ends(config, patches.voxels)
    plain = PlainNet(config, Ends(config, patches.voxels))
    plain.load_state_dict(net.state_dict())
    visible, masked = draw_masks(rng.integers(2**62, size=batch), len(patches), config.visible(len(patches)))
    brain = torch.from_numpy(rng.standard_normal((batch, config.trs, voxels)).astype(np.float32))
    data = {"brain": brain, "key": "one", "visible": visible, "masked": masked}
    with torch.no_grad():
        ours, theirs = float(masked_loss(net, data).mean()), float(plain(data))
    assert abs(ours - theirs) < 1e-4 * theirs, f"losses differ: {ours} and {theirs}"
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        masked_loss(net, data).mean().backward()
    net.zero_grad(set_to_none=True)
    steps = {
        "neuroreel": make_step(net, lambda: masked_loss(net, data).mean(), plain=False, dtype=dtype),
        "plain": make_step(plain, lambda: plain(data), plain=True, dtype=torch.float32),
    }
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start, begun = time.process_time(), time.perf_counter()
            step()
            if turn:  # the first turn warms up
                cpu[name].append(time.process_time() - start)
                wall[name].append(time.perf_counter() - begun)
    seconds = {name: float(np.median(each)) for name, each in wall.items()}
    cpu_seconds = {name: float(np.median(each)) for name, each in cpu.items()}
    peak = matrix_peak(dtype)
    rate = counter.get_total_flops() / cpu_seconds["neuroreel"]  # of one core, as the peak is
    return {
        "ratio": seconds["plain"] / seconds["neuroreel"],
        "cpu_ratio": cpu_seconds["plain"] / cpu_seconds["neuroreel"],
        "samples_per_s": batch / seconds["neuroreel"],
        "plain_samples_per_s": batch / seconds["plain"],
        "matrix_peak_share": rate / peak,
        "matrix_peak_gflops": peak / 1e9,
        "step_gflop": counter.get_total_flops() / 1e9,
        "seconds": wall,
        "cpu_seconds": cpu,
        "precision": precision,
        "same_loss": [ours, theirs],
        "voxels": voxels,
        "batch": batch,
        "config": config.model_dump(mode="json"),
    }


WORLD = {"minutes": 24.0, "test_minutes": 4.0, "train_repeats": 2, "test_repeats": 4, "rest_minutes": 20.0}
RECOVERY = MaskedConfig(dim=96, depth=2, decoder_dim=96, decoder_depth=1, trs=2)
VARIANTS = {
    "cortical order": {"order": "cortical"},
    "flat order": {"order": "flat"},
    "flat order, shared embedding": {"order": "flat", "embedding": "shared"},
    "cortical order, random start": {"order": "cortical", "start": "random"},
}


def make_world(work: Path, seed: int) -> Path:
    """Return the store of a simulated study of two subjects, made if it isn't there."""
    from neuroreel.datasets.prepare import prepare
    from neuroreel.simulate.experiment import ExperimentConfig, simulate_experiment

    config = ExperimentConfig(**WORLD, subjects=2, scale=0.5, fps=8.0, seed=seed, blind=100)
    simulate_experiment(work / f"bids{seed}", config)
    return prepare(str(work / f"bids{seed}"), work / f"world{seed}.zarr")


def clean(run: Run) -> Run:
    """Return a run without drift and head motion."""
    from neuroreel.preprocess.clean import CleanConfig, clean_run

    settings = CleanConfig(detrend_order=4, confounds=("motion-6",))
    return replace(run, bold=clean_run(run.bold, settings, run.confounds))


def windows(runs: list[np.ndarray], trs: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return windows that begin every `step` volumes (n, trs, voxels), and the number of each one's run (n,)."""
    cut = [np.stack([data[at : at + trs] for at in range(0, len(data) - trs + 1, step)]) for data in runs]
    return np.concatenate(cut), np.repeat(np.arange(len(cut)), [len(each) for each in cut])


def compare(
    store: Path,
    seed: int,
    config: MaskedConfig,
    loop: LoopConfig,
    subjects: int,
    variants: list[str],
    figures: Path | None = None,
) -> dict[str, Any]:
    """Return held-out R2 of the first subject by variant, beside the ridge's and the mean's under the same masks.

    The ridge is fitted on the very windows that the network trains on.
    """
    table, _ = store_table(store)
    names = list(dict.fromkeys(row["run"] for row in table))
    parts = {side: tuple(Segment(run=name) for name in names if f"task-{side}" in name) for side in ("train", "test")}
    split = Split(name="test movie", reason="the test movie is shown nowhere else", **parts)
    runs, spaces = store_runs(store, split, prepare=clean)
    first = runs[0].subject
    chosen = list(dict.fromkeys(run.subject for run in runs))[:subjects]
    kept = [run for run in runs if run.subject in chosen]
    train, groups = windows([run.read() for run in kept if run.subject == first], config.trs, 1)
    held = read_store(store, subjects=[first], runs=[part.run for part in split.test]).recordings[0].runs
    test, _ = windows([clean(run).bold.data for run in held], config.trs, config.trs)
    out: dict[str, Any] = {
        "variants": variants,
        "voxels": spaces[first].size,
        "train_windows": len(train),
        "test_windows": len(test),
    }
    curves: dict[str, np.ndarray] = {}
    for name in variants:
        start = time.process_time()
        brain = MaskedBrain(config.model_copy(update=VARIANTS[name]), seed=seed)
        trained = brain.fit(kept, spaces, loop=loop.model_copy(update={"seed": seed}), cpu=True, pool=16)
        score = score_recovery(brain, first, train, test, masks=4, seed=seed, groups=groups)
        cpu_s = time.process_time() - start
        out[name] = {"r2": score.r2, "cpu_seconds": cpu_s, "loss": float(trained.losses[-100:].mean())}
        say(f"seed {seed} {name}: " + ", ".join(f"{key} {value:.4f}" for key, value in score.r2.items()))
        curves[name] = trained.losses
        if figures is not None:
            draw(brain, first, test, curves, figures)
    return out


def draw(brain: MaskedBrain, subject: str, test: np.ndarray, curves: dict[str, np.ndarray], folder: Path) -> None:
    """Write figures of the latest network's recovery of the held-out volume that stands out most, and of all losses."""
    from neuroreel.report.masked_figures import loss_picture, recovery_picture

    moments, patches = brain.moments(subject), brain.patches(subject)
    mask = brain.masks(subject, 1)[0]
    truth, made = (moments.apply(each)[:, 0] for each in (test, brain.recover(test, subject, mask)))
    row = int(np.argmax((truth**2).mean(1)))
    shown, why = recovery_picture(patches.space, truth[row], patches.spread(mask), made[row])
    say(why)
    name = list(curves)[-1].replace(" ", "-").replace(",", "")
    for picture in (shown, loss_picture(curves)):
        if picture is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{picture.name}-{name}.png").write_bytes(picture.png)


def summarise(seeds: dict[str, Any]) -> dict[str, Any]:
    """Return mean and SD over seeds of each variant's R2 beside the ridge's and the mean's for the same masks."""
    out = {}
    for name in next(iter(seeds.values()))["variants"]:
        rows = [seed[name]["r2"] for seed in seeds.values()]
        out[name] = {
            key: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}
            for key in rows[0]
            for values in [[row[key] for row in rows]]
        }
    return out


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--quick", action="store_true", help="a small network, in seconds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7, help="steps that are timed")
    parser.add_argument("--precision", choices=("bf16", "float32"), help="by default what a training here would take")
    parser.add_argument("--compare", type=Path, metavar="WORK", help="compare orders there, on simulated studies")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--subjects", type=int, default=1, help="that the comparison pre-trains on")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS)[:2])
    parser.add_argument("--figures", type=Path, help="of the comparison, to a folder")
    parser.add_argument("--out", type=Path, help="keep the result there, beside what an earlier call kept")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {"threads": args.threads, "versions": versions()}
    if args.compare is not None:
        loop = LoopConfig(steps=args.steps, batch=64, rate=2e-3, average=0.99, precision="float32")
        seeds = {}
        for seed in range(args.seeds):
            store = make_world(args.compare, seed)
            seeds[str(seed)] = compare(store, seed, RECOVERY, loop, args.subjects, args.variants, args.figures)
            result["compare"] = {"seeds": seeds, "summary": summarise(seeds), "world": WORLD, "subjects": args.subjects}
            result["compare"] |= {"config": RECOVERY.model_dump(mode="json"), "loop": loop.model_dump(mode="json")}
            keep(result, args.out)
    else:
        precision = args.precision or (
            "bf16" if device_dtype("auto", torch.device("cpu")) == torch.bfloat16 else "float32"
        )
        size = (SMALL, 640, 8) if args.quick else (BIG, 4500, 16)
        result |= measure_speed(*size, args.repeats if not args.quick else 2, precision)
        keep(result, args.out)
    print(json.dumps(result) if args.json else json.dumps(result, indent=2))


def keep(result: dict[str, Any], file: Path | None) -> None:
    """Write a result, with what an earlier call of another kind kept."""
    if file is not None:
        old = json.loads(file.read_text()) if file.is_file() else {}
        write_text(file, json.dumps(old | result, indent=2) + "\n")


if __name__ == "__main__":
    main()
