"""MinD-Vis: pictures from the brain by latent diffusion (Chen et al. 2023, CVPR, arXiv 2211.06956).

    1. Masked brain modelling: an encoder of brain windows learns to recover masked patches of cortex from the others,
       on all training runs (and on whatever `neuroreel pretrain` was given before).
    2. Its tokens, mixed to the number and width that a latent diffusion model is conditioned with, go in twice: by
       cross-attention, and projected beside the time embedding.
    3. Encoder, mixer, cross-attention, its norm and the time conditioning are tuned together with the diffusion's own
       loss on pairs of brain window and picture.
    4. A picture is sampled for every window with classifier-free guidance, one by default.

Where the pictures have captions and the generator reads text, the mixer begins as the ridge regression from the
encoder's tokens to those of the captions, and is held near them by a term of the loss; neither is in the paper, whose
generator reads no text. `start="random"` and `near=0` leave both out.

What the release is faulted for is not repeated: validation is held out of the training set, one sample is drawn and
none is chosen, masked modelling sees training runs only, and every voxel has its own scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from neuroreel.brain.masked import MaskedBrain, MaskedConfig
from neuroreel.brain.patches import places_mm
from neuroreel.brain.stream import memory_runs
from neuroreel.brain.tokens import TokenEncoder, TokensConfig
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import DataError
from neuroreel.core.seeds import generator
from neuroreel.core.sets import TrainingSet, require_training, resize
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Reconstruction, Samples
from neuroreel.fit.loop import Batch, LoopConfig, Progress, in_batches, train
from neuroreel.generate.conditioning import TUNED, DoubleConditioned, Noising, Times
from neuroreel.generate.latent import LatentGenerator
from neuroreel.generate.samplers import denoise, make_sampler
from neuroreel.generate.world import load_world
from neuroreel.nets.weights import first_weights, read_about, read_state, write_state

WORLD = "world"
IMAGE_PARTS = ("scheduler", "tokenizer", "text_encoder", "vae", "unet")


class MindVisConfig(Config):
    """Settings of mind-vis; the defaults are those of the embedded world, `MindVisConfig.published()` the paper's.

    Attributes
    ----------
    generator : "world" (shipped), or the folder or hub name of a latent diffusion pipeline of diffusers.
    masked : shape of the encoder; its `trs` are those of the window, whatever is said here, and its order is flat
        where the place of the voxels isn't known.
    pretraining : of masked brain modelling on the training runs, in batches no larger than there is data.
    pretrained : folder of `neuroreel pretrain` to go on from; with 1 step it stays nearly as it is.
    tokens : how the encoder's tokens become the generator's.
    start : "ridge" lets the mixer begin as a regression to the tokens of the captions, where there are captions and
        the generator reads text; "random" doesn't.
    near : weight of the term that holds the tokens near those of the captions, beside the diffusion's loss.
    tuning : of the last stage.
    tuned : parts of the names of the layers of the U-Net that are tuned.
    times : how the noise levels of the tuning are drawn, see `Noising`.
    dropped : share of the windows whose tokens are replaced by those that say nothing, for guidance.
    validation : share of the training blocks that is held out of the tuning and only looked at.
    sampler, steps, guidance : of the sampling, see `generate.samplers`.
    batch : pictures sampled together.
    """

    generator: str = WORLD
    masked: MaskedConfig = MaskedConfig(mask=0.75)
    pretraining: LoopConfig = LoopConfig(steps=200, batch=64, rate=1e-3, average=0.99)
    pretrained: str = ""
    tokens: TokensConfig = TokensConfig()
    start: Literal["ridge", "random"] = "ridge"
    near: float = Field(default=0.05, ge=0)
    tuning: LoopConfig = LoopConfig(steps=800, batch=32, rate=3e-4, warm_up=0.05, average=0.99, clip=1.0)
    tuned: tuple[str, ...] = TUNED
    times: Times = "middle"
    dropped: float = Field(default=0.1, ge=0, lt=1)
    validation: float = Field(default=0.1, ge=0, lt=1)
    sampler: Literal["ddim", "pndm", "dpm++", "unipc"] = "dpm++"
    steps: int = Field(default=25, ge=1)
    guidance: float = Field(default=3.0, ge=0)
    batch: int = Field(default=64, ge=1)

    @classmethod
    def published(cls, generator: str) -> MindVisConfig:
        """Return the paper's settings for a generator; epochs are counted as steps of 1,200 pictures."""
        return cls(
            generator=generator,
            masked=MaskedConfig.published(1),
            pretraining=LoopConfig(steps=680_000, batch=100, rate=2.5e-4),
            tokens=TokensConfig(mixing="tokens", noise=0, hidden=0),
            start="random",
            near=0,
            tuning=LoopConfig(steps=120_000, batch=5, rate=5.3e-5),
            times="uniform",
            sampler="pndm",
            steps=250,
        )


class Net(nn.Module):
    """What the last stage tunes: encoder with mixer, and the conditioned U-Net."""

    silent: Tensor

    def __init__(
        self,
        encoder: TokenEncoder,
        unet: DoubleConditioned,
        noising: Noising,
        silent: Tensor,
        near: float,
        dropped: float,
    ) -> None:
        super().__init__()
        self.encoder, self.unet, self.noising, self.near, self.dropped = encoder, unet, noising, near, dropped
        self.register_buffer("silent", silent.clone(), persistent=False)

    def forward(self, brain: Tensor, latents: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Return the loss of every window (n, trs, voxels) with the latents (n, channels, h, w) of its picture.

        Parameters
        ----------
        wanted : (n, tokens, width) of the captions, NaN where there is none.
        """
        tokens = self.encoder(brain)
        noised, t, target = self.noising(latents)
        without = torch.rand(len(tokens), device=tokens.device) < (self.dropped if self.training else 0.0)
        told = torch.where(without[:, None, None], self.silent.to(tokens.dtype), tokens)
        wrong = (self.unet(noised, t, told).sample.float() - target).square().flatten(1).mean(1)
        if wanted is not None and self.near > 0:
            known = ~wanted.isnan().any(2).any(1)
            apart = (tokens.float() - wanted.nan_to_num()).square().flatten(1).mean(1)
            wrong = wrong + self.near * apart * known
        return wrong


@dataclass(frozen=True)
class Pairs:
    """Brain windows with the latents of one of the frames of their clips, drawn anew whenever they are read."""

    brain: np.ndarray
    latents: Tensor  # (n, frames, channels, h, w)
    wanted: Tensor | None

    def epoch(self, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return all pairs in another order, in batches."""
        return in_batches(rng.permutation(len(self.brain)), batch)

    def read(self, rows: np.ndarray, seeds: np.ndarray) -> Batch:
        """Return the given pairs; which frame, the seed says."""
        frame = torch.from_numpy(seeds % self.latents.shape[1])
        found: Batch = {"brain": torch.from_numpy(self.brain[rows]), "latents": self.latents[rows, frame]}
        return found if self.wanted is None else found | {"wanted": self.wanted[rows]}


class MindVis:
    """Masked brain modelling, then a latent diffusion that is conditioned on the brain twice.

    Attributes
    ----------
    net_ : what was tuned.
    generator_ : the latent diffusion model, whose U-Net is tuned in place.
    """

    name: ClassVar[str] = "mind-vis"
    Settings: ClassVar[type[Config]] = MindVisConfig

    def __init__(self, config: MindVisConfig | None = None) -> None:
        self.config: MindVisConfig = config if config is not None else MindVisConfig()

    @property
    def makes(self) -> frozenset[str]:
        """Pictures; of a clip of several frames the same one for all."""
        return frozenset({"image" if self.shape_[0] == 1 else "video"})

    def fit(self, train: TrainingSet, *, run: RunFolder) -> Self:
        """Pre-train the encoder, begin the mixer, tune all together, and return self.

        A fit that broke off goes on from the checkpoints in the run's folder.

        Raises
        ------
        DataError
            The training set has no pictures; the pre-trained weights are of other voxels; as in `fit.loop.train`.
        ConfigError
            The generator is none.
        """
        samples = require_training(train).samples
        checks.require(samples.clips is not None, "training samples of mind-vis", "must have clips", "none")
        assert samples.clips is not None
        self.shape_, self.seed_, self.subject_ = samples.clips.shape[1:], run.seed, train.runs[0].bold.subject
        self.generator_ = open_generator(self.config.generator)
        self.brain_ = self._pretrain(train, run)
        self.net_ = self._assemble()
        fitted, held = train.hold_out(self.config.validation) if self.config.validation > 0 else (train, None)
        started = self._begin(fitted.samples)
        self._tune(fitted.samples, held.samples if held is not None else None, run, started)
        return self

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return a picture for every window; its noise follows from the run and the onset alone."""
        if len(bold) == 0:
            return Reconstruction(np.zeros((0, *self.shape_), np.uint8))
        tokens = self.net_.encoder.tokens(bold.brain)
        return Reconstruction(self._show(self.draw(tokens, noise_of(bold, self._latent_shape(), self.seed_))), drawn=1)

    def samples(self, bold: Samples, count: int) -> np.ndarray:
        """Return several pictures of every window from different noise, (n, count, side, side, 3) uint8."""
        tokens = self.net_.encoder.tokens(bold.brain)
        drawn = [
            self.draw(tokens, noise_of(bold, self._latent_shape(), self.seed_, str(number))) for number in range(count)
        ]
        return np.stack(drawn, 1)

    def ceiling(self, truth: Samples) -> Reconstruction | None:
        """Return what the generator, untuned, makes of the true captions; of none, the pictures coded and decoded."""
        assert truth.clips is not None
        generator_ = self.generator_
        captions = [str(text) for text in truth.caption]
        if generator_.reads and all(captions):
            untuned = open_generator(self.config.generator)
            noise = noise_of(truth, self._latent_shape(), self.seed_)
            return Reconstruction(self._show(self.draw(untuned.tokens(captions), noise, untuned.unet)))
        frames = truth.clips[:, truth.clips.shape[1] // 2]
        return Reconstruction(self._show(generator_.decode(generator_.encode(self._fit_size(frames)))))

    def draw(self, tokens: Tensor, noise: Tensor, unet: Any = None) -> np.ndarray:
        """Return the pictures (n, side, side, 3) uint8 that tokens (n, count, width) make of noise (n, c, h, w)."""
        config, made = self.config, []
        unet = (self.net_.unet if unet is None else unet).eval()
        device = next(unet.parameters()).device
        noise, tokens, silent = noise.to(device), tokens.to(device), self.generator_.silent.to(device)
        for rows in torch.arange(len(tokens)).split(config.batch):
            sampler = make_sampler(config.sampler, self.generator_.noise)
            latents = denoise(
                unet,
                noise[rows],
                tokens[rows],
                silent,
                sampler,
                steps=config.steps,
                guidance=config.guidance,
            )
            made.append(self.generator_.decode(latents))
        return np.concatenate(made)

    def save(self, folder: Path) -> None:
        """Write config, the encoder with its voxels, and what was tuned; the generator is read again by its name."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / "config.json")
        self.brain_.save(folder / "encoder")
        tensors = {name: value for name, value in self.net_.named_parameters() if _own(name, value)}
        about = {"shape": " ".join(map(str, self.shape_)), "seed": str(self.seed_), "subject": self.subject_}
        write_state(folder / "tuned.safetensors", tensors, about=about)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the system that `save` wrote."""
        system = cls(MindVisConfig.load(folder / "config.json"))
        file = folder / "tuned.safetensors"
        about = read_about(file)
        system.shape_ = tuple(int(side) for side in about["shape"].split())
        system.seed_, system.subject_ = int(about["seed"]), about["subject"]
        system.generator_ = open_generator(system.config.generator)
        system.brain_ = MaskedBrain.load(folder / "encoder")
        system.net_ = system._assemble()
        own, state = dict(system.net_.named_parameters()), read_state(file)
        for name, value in state.items():
            same = name in own and own[name].shape == value.shape
            rule = "must be those of the generator that the config names"
            checks.require(same, f"weights {name}", rule, tuple(value.shape), file)
            own[name].data.copy_(value)
        system.net_.eval()
        return system

    # -----------------------------------------------------------------------------------------------------------------
    # Stages

    def _pretrain(self, train: TrainingSet, run: RunFolder) -> MaskedBrain:
        """Return the encoder after masked modelling on the training runs, every repeat by itself."""
        trs = train.samples.brain.shape[1]
        if self.config.pretrained:
            brain = MaskedBrain.load(Path(self.config.pretrained))
            rule = f"must be that of the window ({trs})"
            checks.require(brain.config.trs == trs, "trs of the pre-trained weights", rule, brain.config.trs)
        else:
            known = places_mm(train.samples.space) is not None
            shape = {"trs": trs, "order": self.config.masked.order if known else "flat"}
            brain = MaskedBrain(self.config.masked.model_copy(update=shape), seed=run.seed)
        windows = sum(each.bold.n_trs - trs + 1 for each in train.runs)
        batch = max(1, min(self.config.pretraining.batch, windows // max(1, len(train.runs))))
        loop = self.config.pretraining.model_copy(update={"seed": run.seed, "batch": batch})
        folder = run.file("masked/losses.json").parent
        done = brain.fit(*memory_runs(train.runs), loop=loop, folder=folder, cpu=run.device == "cpu")
        run.record("masked.json", {"losses": _thinned(done.losses), "samples_per_s": done.samples_per_s})
        return brain

    def _assemble(self) -> Net:
        """Return encoder, mixer and conditioned U-Net, the two ends meeting in the shape of the generator's tokens."""
        made, config = self.generator_, self.config
        count, width = made.token_shape
        with first_weights(self.seed_, "mind-vis"):
            encoder = TokenEncoder(self.brain_, self.subject_, count, width, config.tokens)
            unet = DoubleConditioned(made.unet, config.tuned)
        return Net(encoder, unet, Noising(made.noise, config.times), made.silent, config.near, config.dropped)

    def _begin(self, samples: Samples) -> float | None:
        """Let the mixer begin at the captions' tokens, and return the held-out R2 of that; None without captions."""
        config = self.config
        known = samples.caption != ""
        if config.start == "random" or config.tokens.mixing != "full" or not self.generator_.reads or known.sum() < 10:
            return None
        wanted = self.generator_.tokens([str(text) for text in samples.caption[known]])
        return self.net_.encoder.begin_with(samples.brain[known], wanted, samples.block[known])

    def _tune(self, samples: Samples, held: Samples | None, run: RunFolder, started: float | None) -> None:
        """Tune the network on the training pairs and leave it with the average of its weights."""
        config, net = self.config, self.net_
        pairs, aside = self._pairs(samples), self._pairs(held) if held is not None else None
        batch = min(config.tuning.batch, len(samples))
        loop = config.tuning.model_copy(update={"seed": run.seed, "batch": batch})
        seen: list[tuple[int, float]] = []

        def look(now: Progress) -> None:
            if aside is not None and (now.step == 1 or now.step % max(1, loop.steps // 10) == 0):
                seen.append((now.step, self.validate(aside)))

        done = train(
            net,
            _loss,
            pairs,
            loop,
            folder=run.file("tuning/losses.json").parent,
            on_progress=look,
            cpu=run.device == "cpu",
            facts={"generator": config.generator},
            some_unused=True,
        )
        if done.weights:  # a sharded network stays so: it is put together anew
            self.generator_ = open_generator(config.generator)
            net = self.net_ = self._assemble()
            net.load_state_dict(done.weights, strict=False)
        net.to("cpu").eval()
        if done.average:
            net.load_state_dict(done.average, strict=False)
        about = {"ridge_r2": started, "validation": seen, "losses": _thinned(done.losses)}
        if aside is not None:
            about["validation_of_average"] = self.validate(aside)
        run.record("tuning.json", about | {"samples_per_s": done.samples_per_s, "precision": done.precision})

    @torch.no_grad()
    def validate(self, pairs: Pairs) -> float:
        """Return the mean loss on pairs that weren't trained on, with the same noise at every call."""
        net, training = self.net_, self.net_.training
        net.eval()
        device = next(net.parameters()).device
        with torch.random.fork_rng():
            torch.manual_seed(0)
            rows = torch.arange(len(pairs.brain))
            losses = []
            for part in rows.split(self.config.batch):
                batch = pairs.read(part.numpy(), part.numpy())
                losses.append(_loss(net, {key: value.to(device) for key, value in batch.items()}))
        net.train(training)
        return float(torch.cat(losses).mean())

    def _pairs(self, samples: Samples) -> Pairs:
        """Return windows with the latents of all frames, and the captions' tokens where they are to be near those."""
        assert samples.clips is not None
        n, frames = samples.clips.shape[:2]
        flat = samples.clips.reshape(n * frames, *samples.clips.shape[2:])
        latents = self.generator_.encode(self._fit_size(flat)).unflatten(0, (n, frames))
        wanted = None
        captions = [str(text) for text in samples.caption]
        if self.config.near > 0 and self.generator_.reads and any(captions):
            wanted = self.generator_.tokens(captions)
            wanted[torch.from_numpy(samples.caption == "")] = float("nan")
        return Pairs(samples.brain, latents, wanted)

    # -----------------------------------------------------------------------------------------------------------------
    # Sizes

    def _latent_shape(self) -> tuple[int, int, int]:
        config = self.generator_.unet.config
        side = int(config.sample_size)
        return int(config.in_channels), side, side

    def _fit_size(self, frames: np.ndarray) -> np.ndarray:
        """Return frames in the size that the generator knows."""
        return resize(frames, self.generator_.side, self.generator_.side)

    def _show(self, pictures: np.ndarray) -> np.ndarray:
        """Return pictures (n, side, side, 3) in the shape of the training clips, one for all frames."""
        sized = resize(pictures, *self.shape_[1:3])
        return np.ascontiguousarray(np.broadcast_to(sized[:, None], (len(sized), *self.shape_)))


def open_generator(name: str) -> LatentGenerator:
    """Return the latent diffusion model of a name: "world", a folder, or a name on the hub."""
    if name == WORLD:
        return load_world(parts=IMAGE_PARTS)
    made = LatentGenerator(name)
    checks.require("unet" in made.index, "generator", "must have a U-Net", ", ".join(made.index), name, DataError)
    return made


def noise_of(samples: Samples, shape: tuple[int, ...], seed: int, name: str = "sample") -> Tensor:
    """Return normal noise (n, *shape) that follows from each window's run and onset, the seed and a name alone."""
    keys = zip(samples.run, samples.onset_s, strict=True)
    drawn = [
        generator(seed, name, str(run), round(1000 * float(at))).standard_normal(shape, dtype=np.float32)
        for run, at in keys
    ]
    return torch.from_numpy(np.stack(drawn))


def _loss(net: nn.Module, batch: Batch) -> Tensor:
    """Return the loss of every pair of a batch."""
    found: Tensor = net(batch["brain"], batch["latents"], batch.get("wanted"))
    return found


def _own(name: str, value: Tensor) -> bool:
    """Tell whether a parameter is tuned here rather than read with the encoder or the generator."""
    return value.requires_grad and not name.startswith("encoder.net.")


def _thinned(losses: np.ndarray, most: int = 200) -> list[float]:
    """Return a curve as so many means at most."""
    return [float(part.mean()) for part in np.array_split(losses, min(most, len(losses)))] if len(losses) else []
