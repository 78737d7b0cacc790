"""Video from the brain by a conditional adversarial network, in the manner of f-CVGAN (Wang et al. 2022).

    1. The brain window is read as a short code by ridge: components of the clips' pixels, and of what a network of
       clips sees in them.
    2. A generator makes a clip of the code and of noise, by 3-D transposed convolutions.
       At first it learns the pixels alone.
    3. A judge of frames and a judge of movement, both told the code (projection), learn to tell its clips from those
       that were shown; it learns to be taken for real, to have the pixels that were shown and to look like them.
    4. What reconstructs is the moving average of the generator's weights.

The paper (Cereb. Cortex) has the condition on fMRI, the two judges and 8 frames a volume. It publishes neither layers
nor losses nor resolution: those are in `generate.adversarial`. Ours, because there are about a thousand noisy windows:
the code by ridge in place of voxels (`condition="voxels"` leaves that out); a generator that begins as the regression
from codes to small clips and adds to it (`start="random"`); codes with the errors that the ridge makes on windows it
hasn't seen, also those of other windows (`resampled`), and mirrored clips with the codes that their windows would have
had (`mirrored`). Kept from falling apart by spectral norms, hinge losses, pixel and perceptual terms, and the average.

Blocks of the training set are held out of the adversarial training to look at: their losses, samples, and the diversity
of what is made in units of the real clips' are in the training's log, and a collapse is a warning.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from neuroreel.brain.codes import BrainCodes, CodesConfig
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import NeuroreelWarning
from neuroreel.core.sets import TrainingSet, require_training, resize
from neuroreel.core.spread import evenly
from neuroreel.core.system import RunFolder
from neuroreel.core.training import Curve, TrainingLog
from neuroreel.core.types import Reconstruction, Samples
from neuroreel.fit.loop import Batch, LoopConfig, Player, Progress, Trained, in_batches, train
from neuroreel.generate.adversarial import (
    AdversarialConfig,
    Adversaries,
    Generator,
    diversity_ratio,
    hinge_of_generator,
    hinge_of_judge,
    pick,
    small_shape,
)
from neuroreel.generate.samplers import seeded_noise, window_noise
from neuroreel.nets.perceptual import ClipEmbedding, PerceptualLoss, open_clip_embedding, open_perceptual
from neuroreel.nets.weights import fill, first_weights, read_about, read_state, write_state

JUDGES, GENERATOR = "judges", "generator"
LOSSES, HELD_OUT, DIVERSITY = "loss of each player", "error on held-out windows", "diversity, real clips = 1"
SEEN_BY_GENERATOR = ("condition", "codes", "side", "start", "resampled", "least_error", "mirrored", "validation")
TERMS = ("pixel", "perceptual", "adversarial", "perceptual_network")
"""Settings that a fit which goes on must have in common with the one that broke off, besides those of the loops."""

WATCHED, SHOWN = 64, 10
"""Held-out windows that are looked at, at most, and those whose samples are kept."""

POINTS = 80
"""Points of the kept curves, at most."""


class VideoGanConfig(Config):
    """Settings of video-gan; the defaults are those of the embedded world, `VideoGanConfig.published()` the paper's.

    Attributes
    ----------
    condition : "ridge" reads the window as a code, see `codes`; "voxels" gives the networks the z-scored mean of its
        volumes.
    codes : see `CodesConfig`.
    nets : shape of the three networks; `nets.temporal=false` leaves the judge of movement out.
    side : height in pixels that clips are made in; larger ones are shrunk and enlarged again.
    start : "ridge" lets the generator begin as the regression from codes to small clips; "random" doesn't.
    resampled : share of the windows whose code has another window's error.
    least_error : codes have between this share of the ridge's error and all of it. Windows that are averaged over more
        showings than the training's have less of it.
    mirrored : share of the clips that are mirrored.
    pixel, perceptual, adversarial : weights of the generator's terms: mean absolute difference of pixels (-1 to 1),
        distance in a network's activations, and the judges' scores, each.
    perceptual_network, clip_network : see `nets.perceptual`; the second also measures diversity.
    first : of the generator alone, by pixels, before there are judges; None leaves it out.
    training : of all three; its rate is the generator's. In float32, because gradients of 3-D convolutions in bfloat16
        came out infinite on a processor with AVX-512 BF16.
    judges_rate : rate of the judges, in units of the generator's (two time scales: Heusel et al. 2017, 1706.08500).
    validation : share of the training blocks that is held out of the adversarial training and only looked at.
    looks : how often they are looked at.
    collapse : diversity, in units of the real clips', below which a collapse is said.
    batch : clips made together.
    """

    condition: Literal["ridge", "voxels"] = "ridge"
    codes: CodesConfig = CodesConfig()
    nets: AdversarialConfig = AdversarialConfig()
    side: int = Field(default=64, ge=8)
    start: Literal["ridge", "random"] = "ridge"
    resampled: float = Field(default=0.5, ge=0, le=1)
    least_error: float = Field(default=0.0, ge=0, le=1)
    mirrored: float = Field(default=0.5, ge=0, le=1)
    pixel: float = Field(default=10.0, ge=0)
    perceptual: float = Field(default=0.5, ge=0)
    adversarial: float = Field(default=0.15, ge=0)
    perceptual_network: str = "world"
    clip_network: str = "world"
    first: LoopConfig | None = LoopConfig(
        steps=600,
        batch=8,
        rate=3e-3,
        warm_up=0.1,
        weight_decay=1e-4,
        clip=1.0,
        precision="float32",
        checkpoint_every=100,
    )
    training: LoopConfig = LoopConfig(
        steps=200,
        batch=8,
        rate=4e-4,
        warm_up=0.04,
        betas=(0.5, 0.99),
        weight_decay=0.0,
        clip=None,
        average=0.97,
        precision="float32",
        checkpoint_every=100,
    )
    judges_rate: float = Field(default=2.0, gt=0)
    validation: float = Field(default=0.1, gt=0, lt=1)
    looks: int = Field(default=8, ge=1)
    collapse: float = Field(default=0.25, ge=0)
    batch: int = Field(default=64, ge=1)

    @classmethod
    def published(cls) -> VideoGanConfig:
        """Return what the paper has, without what is ours; widths and length, which it doesn't tell, are larger."""
        return cls(
            condition="voxels",
            nets=AdversarialConfig(
                widths=(512, 256, 128, 64),
                noise=128,
                frame_widths=(64, 128, 256, 512),
                clip_widths=(64, 128, 256),
            ),
            start="random",
            resampled=0,
            mirrored=0,
            first=None,
            training=LoopConfig(
                steps=20_000,
                batch=32,
                rate=2e-4,
                betas=(0.5, 0.999),
                weight_decay=0,
                clip=None,
                average=0.999,
                precision="float32",
                checkpoint_every=1000,
            ),
        )


@dataclass(frozen=True)
class Pairs:
    """Clips with codes as the brain would tell them: of the clip, of its mirror image, with this error or another's.

    Attributes
    ----------
    clips : (n, frames, h, w, 3) uint8.
    told : (2, n, code), what is told of each clip and of its mirror image on average; the same where mirrors have none.
    errors : (n, code), by which the reading of each window was off.
    noise, frames_seen : numbers of noise, and frames that the judge of frames sees, of each sample.
    mirrored, resampled, least_error : see `VideoGanConfig`.
    """

    clips: np.ndarray
    told: np.ndarray
    errors: np.ndarray
    noise: int
    frames_seen: int
    mirrored: float
    resampled: float
    least_error: float

    def epoch(self, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return all pairs in another order, in batches."""
        return in_batches(rng.permutation(len(self.clips)), batch)

    def read(self, rows: np.ndarray, seeds: np.ndarray) -> Batch:
        """Return clips, codes, and the noise and frames of either turn; all that is drawn follows from the seeds."""
        clips, codes, noise, frames = [], [], [], []
        count = self.clips.shape[1]
        for row, seed in zip(rows, seeds, strict=True):
            rng = np.random.default_rng(seed)
            mirror = int(rng.random() < self.mirrored)
            other = int(rng.integers(len(self.errors))) if rng.random() < self.resampled else row
            clips.append(self.clips[row, :, :, ::-1] if mirror else self.clips[row])
            codes.append(self.told[mirror, row] + rng.uniform(self.least_error, 1) * self.errors[other])
            noise.append(rng.standard_normal((2, self.noise), dtype=np.float32))
            frames.append([rng.choice(count, min(self.frames_seen, count), replace=False) for _ in range(2)])
        return {
            "clips": to_signed(np.stack(clips)),
            "code": torch.from_numpy(np.stack(codes).astype(np.float32)),
            "noise": torch.from_numpy(np.stack(noise)),
            "frames": torch.from_numpy(np.array(frames)),
        }


class VideoGan:
    """A code of the brain window, a generator of clips, and two judges that are needed for its training only.

    Attributes
    ----------
    generator_ : with the average of its weights.
    log_ : how the training went.
    """

    name: ClassVar[str] = "video-gan"
    Settings: ClassVar[type[Config]] = VideoGanConfig

    def __init__(self, config: VideoGanConfig | None = None) -> None:
        self.config: VideoGanConfig = config if config is not None else VideoGanConfig()

    @property
    def makes(self) -> frozenset[str]:
        """Clips; pictures where the training clips have one frame."""
        return frozenset({"image" if self.shape_[0] == 1 else "video"})

    def fit(self, train: TrainingSet, *, run: RunFolder) -> Self:
        """Fit the code, train generator and judges in turns, and return self.

        A fit that broke off goes on from the checkpoints in the run's folder.

        Raises
        ------
        DataError
            The training set has no clips, or of a size that can't be made; as in `fit.loop.train`.
        ConfigError
            A network's name is none.

        Warns
        -----
        NeuroreelWarning : what is made is much less diverse than what was shown.
        """
        samples = require_training(train).samples
        checks.require(samples.clips is not None, "training samples of video-gan", "must have clips", "none")
        assert samples.clips is not None
        self.shape_, self.seed_ = samples.clips.shape[1:], run.seed
        codes = self._fit_condition(samples)
        held = np.isin(samples.block, np.unique(train.hold_out(self.config.validation)[1].samples.block))
        clips = self._fit_size(samples.clips)
        pairs = self._pairs(clips[~held], codes[~held])
        net = self._assemble(pairs)
        self._train_alone(net.generator, pairs, run)
        self.log_ = self._train(net, pairs, (clips[held], codes[held]), run)
        return self

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return a clip for every window; its noise follows from the run and the onset alone."""
        if len(bold) == 0:
            return Reconstruction(np.zeros((0, *self.shape_), np.uint8))
        noise = window_noise(bold, (self.config.nets.noise,), self.seed_)
        return Reconstruction(self._show(self._draw(self.code(bold.brain), noise)), drawn=1)

    def samples(self, bold: Samples, count: int) -> np.ndarray:
        """Return several clips of every window from different noise, (n, count, frames, h, w, 3) uint8."""
        code, size = self.code(bold.brain), (self.config.nets.noise,)
        drawn = [
            self._show(self._draw(code, window_noise(bold, size, self.seed_, str(number)))) for number in range(count)
        ]
        return np.stack(drawn, 1)

    def ceiling(self, truth: Samples) -> Reconstruction | None:
        """Return what the generator makes of codes without the ridge's errors; None where it is told voxels."""
        if self.codes_ is None:
            return None
        assert truth.clips is not None
        noise = window_noise(truth, (self.config.nets.noise,), self.seed_)
        return Reconstruction(self._show(self._draw(self.codes_.expected(self._fit_size(truth.clips)), noise)))

    def code(self, brain: np.ndarray) -> np.ndarray:
        """Return what the networks are told of brain windows (n, trs, voxels), (n, code) float32."""
        if self.codes_ is not None:
            return self.codes_.read(brain)
        checks.dimensions("brain", brain, ("n", "trs", "voxels"))
        checks.same_length("brain columns", brain.shape[2], "the fit's voxels", len(self.mean_))
        return (brain.mean(1) - self.mean_) / self.sd_

    def save(self, folder: Path) -> None:
        """Write config, code and generator; the judges have done their work."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / "config.json")
        about = {"shape": " ".join(map(str, self.shape_)), "seed": str(self.seed_)}
        state = dict(self.generator_.state_dict())
        if self.codes_ is not None:
            self.codes_.save(folder / "codes")
        else:
            write_state(folder / "voxels.safetensors", {"mean": _tensor(self.mean_), "sd": _tensor(self.sd_)})
        write_state(folder / "generator.safetensors", state, about=about)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the system that `save` wrote."""
        system = cls(VideoGanConfig.load(folder / "config.json"))
        file = folder / "generator.safetensors"
        about = read_about(file)
        system.shape_ = tuple(int(side) for side in about["shape"].split())
        system.seed_ = int(about["seed"])
        if system.config.condition == "ridge":
            system.codes_ = BrainCodes.load(folder / "codes", system.see)
            code = system.codes_.size
        else:
            held = read_state(folder / "voxels.safetensors")
            system.codes_, system.mean_, system.sd_ = None, held["mean"].numpy(), held["sd"].numpy()
            code = len(system.mean_)
        system.generator_ = Generator(system._made_shape(), code, system.config.nets)
        fill(system.generator_, read_state(file), file)
        system.generator_.eval()
        return system

    # -----------------------------------------------------------------------------------------------------------------
    # Stages

    def _fit_condition(self, samples: Samples) -> np.ndarray:
        """Fit what the networks are told, and return it for the training windows (n, code)."""
        assert samples.clips is not None
        self.codes_: BrainCodes | None = None
        if self.config.condition == "ridge":
            self.codes_ = BrainCodes(self.config.codes, self.see)
            self.codes_.fit(samples.brain, self._fit_size(samples.clips), samples.block)
            return self.codes_.held_out_
        means = samples.brain.mean(1)
        self.mean_, spread = means.mean(0), means.std(0)
        self.sd_ = np.where(spread > 0, spread, np.float32(1))
        return self.code(samples.brain)

    def _pairs(self, clips: np.ndarray, codes: np.ndarray) -> Pairs:
        """Return clips with the codes that their windows told, and what mirror images would have been told as.

        A window tells what windows of its clip tell on average, and an error that doesn't depend on the clip.
        """
        config = self.config
        told, errors, mirrored = np.stack([codes, codes]), np.zeros_like(codes), 0.0
        if self.codes_ is not None:
            mirror = np.ascontiguousarray(clips[:, :, :, ::-1])
            told = np.stack([self.codes_.expected(clips), self.codes_.expected(mirror)])
            errors, mirrored = codes - told[0], config.mirrored
        resampled = config.resampled if self.codes_ is not None else 0.0
        seen = config.nets.frames_seen
        return Pairs(clips, told, errors, config.nets.noise, seen, mirrored, resampled, config.least_error)

    def _assemble(self, pairs: Pairs) -> Adversaries:
        """Return generator and judges, the generator as the regression from codes to small clips."""
        shape, codes = self._made_shape(), pairs.told[0] + pairs.errors
        with first_weights(self.seed_, self.name):
            net = Adversaries(shape, codes.shape[1], self.config.nets)
        if self.config.start == "ridge":
            height, width = small_shape(shape)[1:]
            flat = resize(pairs.clips.reshape(-1, *pairs.clips.shape[2:]), height, width)
            wanted = flat.reshape(len(codes), -1).astype(np.float64) / 127.5 - 1
            x, middle = codes - codes.mean(0), wanted.mean(0)
            alpha = 1e-2 * len(x) * float(x.var(0).mean())  # keeps components that hardly vary from growing
            weights = np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ (wanted - middle))
            net.generator.begin_with(_tensor(weights.T), _tensor(middle - codes.mean(0) @ weights))
        return net

    def _train_alone(self, generator: Generator, pairs: Pairs, run: RunFolder) -> None:
        """Train the generator by its pixels."""
        config = self.config.first
        if config is None:
            return
        batch = min(config.batch, len(pairs.clips))
        loop = config.model_copy(update={"seed": run.seed, "batch": batch})
        folder = run.file("first/losses.json").parent
        facts = self.config.model_dump(mode="json", include=set(SEEN_BY_GENERATOR))
        done = train(generator, loss_of_pixels, pairs, loop, folder=folder, cpu=run.device == "cpu", facts=facts)
        generator.load_state_dict(done.weights, strict=False)

    def _train(
        self, net: Adversaries, pairs: Pairs, held: tuple[np.ndarray, np.ndarray], run: RunFolder
    ) -> TrainingLog:
        """Train judges and generator in turns, leave the average of the generator's weights, return how it went."""
        config, folder = self.config, run.file("training/losses.json").parent
        batch = min(config.training.batch, len(pairs.clips))
        loop = config.training.model_copy(update={"seed": run.seed, "batch": batch})
        watch = _Watch(self, net.generator, *held, run)
        done = train(
            net,
            [
                Player(JUDGES, loss_of_judges, ("judges.",), config.judges_rate),
                Player(GENERATOR, self._loss, ("generator.",)),
            ],
            pairs,
            loop,
            folder=folder,
            on_progress=watch.look,
            cpu=run.device == "cpu",
            facts=config.model_dump(mode="json", include={*SEEN_BY_GENERATOR, *TERMS}),
        )
        whole = done.weights | done.average
        own = {name.removeprefix("generator."): value for name, value in whole.items() if name.startswith("generator.")}
        self.generator_ = net.generator.to("cpu")
        if done.weights:  # a sharded network stays so: it is put together anew
            self.generator_ = Generator(net.generator.shape, pairs.told.shape[2], config.nets)
        self.generator_.load_state_dict(own, strict=False)
        self.generator_.eval()
        return watch.close(self.generator_, done)

    def _loss(self, net: nn.Module, batch: Batch) -> Tensor:
        """Return the generator's loss of every clip of a batch."""
        config, frames = self.config, batch["frames"][:, 1]
        made, scores, _ = net(batch["code"], batch["noise"][:, 1], frames)
        loss = config.pixel * (made - batch["clips"]).abs().flatten(1).mean(1)
        if config.perceptual > 0:
            like = self.like.to(made.device)
            apart = like(pick(made, frames).flatten(0, 1), pick(batch["clips"], frames).flatten(0, 1))
            loss = loss + config.perceptual * apart.float().view(frames.shape).mean(1)
        for score in scores.values():
            loss = loss + config.adversarial * hinge_of_generator(score)
        return loss

    # -----------------------------------------------------------------------------------------------------------------
    # Networks and sizes

    @cached_property
    def like(self) -> PerceptualLoss:
        """How unlike two pictures look."""
        return open_perceptual(self.config.perceptual_network)

    @cached_property
    def _embedding(self) -> ClipEmbedding:
        return open_clip_embedding(self.config.clip_network)

    @torch.no_grad()
    def see(self, clips: np.ndarray) -> np.ndarray:
        """Return what the network of clips sees in clips (n, frames, h, w, 3) uint8, (n, units)."""
        parts = np.array_split(clips, -(-len(clips) // self.config.batch))
        return np.concatenate([self._embedding(to_signed(part)).float().numpy() for part in parts])

    def _draw(self, codes: np.ndarray, noise: Tensor) -> np.ndarray:
        return draw(self.generator_, codes, noise, self.config.batch)

    def _made_shape(self) -> tuple[int, int, int]:
        """Return (frames, height, width) of what the generator makes."""
        frames, height, width = self.shape_[:3]
        shrink = min(1.0, self.config.side / height)
        return frames, max(1, round(height * shrink)), max(1, round(width * shrink))

    def _fit_size(self, clips: np.ndarray) -> np.ndarray:
        """Return clips in the size that the generator makes."""
        frames, height, width = self._made_shape()
        return resize(clips.reshape(-1, *clips.shape[2:]), height, width).reshape(-1, frames, height, width, 3)

    def _show(self, clips: np.ndarray) -> np.ndarray:
        """Return made clips in the shape of the training clips."""
        return resize(clips.reshape(-1, *clips.shape[2:]), *self.shape_[1:3]).reshape(-1, *self.shape_)


class _Watch:
    """Looks at windows that were held out while the networks are trained, and keeps what was seen in the run's folder.

    Parameters
    ----------
    clips, codes : of the windows.
    """

    def __init__(
        self, system: VideoGan, generator: Generator, clips: np.ndarray, codes: np.ndarray, run: RunFolder
    ) -> None:
        rows = evenly(len(clips), WATCHED)
        self.system, self.generator, self.run = system, generator, run
        self.clips, self.codes = clips[rows], codes[rows].astype(np.float32)
        self.noise = seeded_noise(run.seed, (generator.noise,), range(len(rows)))
        self.shown = evenly(len(rows), SHOWN)
        self.real = system.see(self.clips)
        self.log: TrainingLog | None = None

    def look(self, now: Progress) -> None:
        """Measure, and keep samples, at every so many steps."""
        if self.log is None:  # the first step of this run; what was seen of later ones than it began at is seen anew
            kept = TrainingLog.load(self.run.path) if now.step > 1 else None
            self.log = kept.until(now.step - 1) if kept is not None else TrainingLog(truth=self._frames(self.clips))
        if now.step == 1 or now.step % max(1, now.steps // self.system.config.looks) == 0:
            made = draw(self.generator, self.codes, self.noise, self.system.config.batch)
            self.log = self.log.add(now.step, self._measure(made), self._frames(made))
            self.log.save(self.run.path)

    def close(self, generator: Generator, done: Trained) -> TrainingLog:
        """Measure the generator that is kept, say if it has collapsed, and return how the training went."""
        made = draw(generator, self.codes, self.noise, self.system.config.batch)
        final = {name: value for name, (_, value) in self._measure(made).items()}
        log = self.log or TrainingLog.load(self.run.path) or TrainingLog()
        parts = np.array_split(np.arange(len(done.losses)), min(POINTS, len(done.losses)))
        middle = np.array([part.mean() + 1 for part in parts])
        curves = {
            name: Curve(middle, np.array([done.losses[part, column].mean() for part in parts]), LOSSES)
            for column, name in enumerate((JUDGES, GENERATOR))
        }
        told = collapse(final["diversity"], self.system.config.collapse)
        if told:
            warnings.warn(told, NeuroreelWarning, stacklevel=4)
        curves |= {name: curve for name, curve in log.curves.items() if name not in curves}
        log = replace(log, curves=curves, final=final, notes=(told,) if told else ())
        log.save(self.run.path)
        return log

    def _measure(self, made: np.ndarray) -> dict[str, tuple[str, float]]:
        """Return values by name, each with the panel it is drawn in."""
        wrong = np.abs(made.astype(np.float32) - self.clips).mean() / 127.5
        like = self.system.like.to("cpu")
        seen = like(*(to_signed(self._frames(clips, all_=True)) for clips in (made, self.clips)))
        apart = diversity_ratio(self.system.see(made), self.real)
        return {
            "pixels": (HELD_OUT, float(wrong)),
            "perceptual": (HELD_OUT, float(seen.mean())),
            "diversity": (DIVERSITY, apart),
        }

    def _frames(self, clips: np.ndarray, all_: bool = False) -> np.ndarray:
        """Return the middle frames of the windows that are shown, or of all."""
        frames = clips[:, clips.shape[1] // 2]
        return frames if all_ else frames[self.shown]


def collapse(ratio: float, least: float) -> str:
    """Return the sentence that says a collapse, or nothing where there is none.

    Parameters
    ----------
    ratio : diversity of what was made of held-out windows, in units of the real clips'.
    least : below which it is one.
    """
    if ratio >= least:
        return ""
    rule = f"must be {least:g} of the real ones' or more, or it has collapsed"
    return checks.sentence("diversity of the made clips", rule, f"{ratio:.3f}")


@torch.no_grad()
def draw(generator: Generator, codes: np.ndarray, noise: Tensor, batch: int) -> np.ndarray:
    """Return the clips (n, frames, h, w, 3) uint8 that codes (n, code) make of noise (n, noise)."""
    device = generator.fc.weight.device
    told, noise = torch.from_numpy(codes).to(device), noise.to(device)
    made = [generator(told[rows], noise[rows]) for rows in torch.arange(len(codes)).split(batch)]
    pixels = torch.cat(made).permute(0, 1, 3, 4, 2) * 127.5 + 127.5
    return pixels.round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def to_signed(frames: np.ndarray) -> Tensor:
    """Return frames (..., h, w, 3) uint8 as (..., 3, h, w) float32 from -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3).float() / 127.5 - 1


def loss_of_pixels(net: nn.Module, batch: Batch) -> Tensor:
    """Return the mean absolute difference of the pixels, -1 to 1, of every clip of a batch."""
    made: Tensor = net(batch["code"], batch["noise"][:, 1])
    return (made - batch["clips"]).abs().flatten(1).mean(1)


def loss_of_judges(net: nn.Module, batch: Batch) -> Tensor:
    """Return the judges' hinge losses of every clip of a batch, summed."""
    _, made, real = net(batch["code"], batch["noise"][:, 0], batch["frames"][:, 0], batch["clips"])
    return torch.stack([hinge_of_judge(real[name], made[name]) for name in made]).sum(0)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
