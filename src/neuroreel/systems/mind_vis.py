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

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuroreel.brain.masked import MaskedBrain, MaskedConfig
from neuroreel.brain.pretraining import begin_brain
from neuroreel.brain.tokens import TokenEncoder, TokensConfig
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.sets import TrainingSet, require_training, resize
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Reconstruction, Samples
from neuroreel.fit.loop import LoopConfig
from neuroreel.fit.watched import train_watched
from neuroreel.generate.conditioning import (
    TUNED,
    DoubleConditioned,
    Noising,
    Pairs,
    Times,
    Together,
    held_out_loss,
    together_loss,
)
from neuroreel.generate.named import WORLD, open_generator
from neuroreel.generate.samplers import Within, denoise, make_sampler, window_noise
from neuroreel.nets.weights import first_weights, read_about, read_state, take_tensors, write_state


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
    sampler, steps, guidance, within : of the sampling, see `generate.samplers.denoise`.
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
    within: Within = (0.0, 1.0)
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
        config = self.config
        self.brain_ = begin_brain(train, config.masked, config.pretraining, run, config.pretrained)
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
        return Reconstruction(
            self._show(self.draw(tokens, window_noise(bold, self.generator_.latent_shape, self.seed_))), drawn=1
        )

    def samples(self, bold: Samples, count: int) -> np.ndarray:
        """Return several pictures of every window from different noise, (n, count, side, side, 3) uint8."""
        tokens = self.net_.encoder.tokens(bold.brain)
        shape, seed = self.generator_.latent_shape, self.seed_
        drawn = [self.draw(tokens, window_noise(bold, shape, seed, str(number))) for number in range(count)]
        return np.stack(drawn, 1)

    def ceiling(self, truth: Samples) -> Reconstruction | None:
        """Return what the generator, untuned, makes of the true captions; of none, the pictures coded and decoded."""
        assert truth.clips is not None
        generator_ = self.generator_
        captions = [str(text) for text in truth.caption]
        if generator_.reads and all(captions):
            untuned = open_generator(self.config.generator)
            noise = window_noise(truth, self.generator_.latent_shape, self.seed_)
            return Reconstruction(self._show(self.draw(untuned.tokens(captions), noise, untuned.unet)))
        middle = truth.clips.shape[1] // 2
        latents = generator_.encode_clips(truth.clips[:, middle : middle + 1])
        return Reconstruction(self._show(generator_.decode(latents[:, 0])))

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
                within=config.within,
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
        take_tensors(system.net_, read_state(file), file)
        system.net_.eval()
        return system

    # -----------------------------------------------------------------------------------------------------------------
    # Stages

    def _assemble(self) -> Together:
        """Return encoder, mixer and conditioned U-Net, the two ends meeting in the shape of the generator's tokens."""
        made, config = self.generator_, self.config
        count, width = made.token_shape
        with first_weights(self.seed_, "mind-vis"):
            encoder = TokenEncoder(self.brain_, self.subject_, count, width, config.tokens)
            unet = DoubleConditioned(made.unet, config.tuned)
        return Together(encoder, unet, Noising(made.noise, config.times), made.silent, config.near, config.dropped)

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
        pairs = self._pairs(samples, run, "train")
        aside = self._pairs(held, run, "held") if held is not None else None
        batch = min(config.tuning.batch, len(samples))
        loop = config.tuning.model_copy(update={"seed": run.seed, "batch": batch})

        def rebuild() -> Together:
            self.generator_ = open_generator(config.generator)
            self.net_ = self._assemble()
            return self.net_

        _, about = train_watched(
            net,
            together_loss,
            pairs,
            loop,
            None if aside is None else lambda: held_out_loss(self.net_, aside, config.batch),
            folder=run.file("tuning/losses.json").parent,
            cpu=run.device == "cpu",
            facts={"generator": config.generator},
            rebuild=rebuild,
        )
        run.record("tuning.json", {"ridge_r2": started} | about)

    def _pairs(self, samples: Samples, run: RunFolder, name: str) -> Pairs:
        """Return windows with the latents of all frames, and the captions' tokens where they are to be near those."""
        assert samples.clips is not None
        latents = self.generator_.kept_latents(samples.clips, run, name)
        wanted = None
        captions = [str(text) for text in samples.caption]
        if self.config.near > 0 and self.generator_.reads and any(captions):
            wanted = self.generator_.tokens(captions)
            wanted[torch.from_numpy(samples.caption == "")] = float("nan")
        return Pairs(samples.brain, latents, wanted)

    # -----------------------------------------------------------------------------------------------------------------
    # Sizes

    def _show(self, pictures: np.ndarray) -> np.ndarray:
        """Return pictures (n, side, side, 3) in the shape of the training clips, one for all frames."""
        sized = resize(pictures, *self.shape_[1:3])
        return np.ascontiguousarray(np.broadcast_to(sized[:, None], (len(sized), *self.shape_)))


def _own(name: str, value: Tensor) -> bool:
    """Tell whether a parameter is tuned here rather than read with the encoder or the generator."""
    return value.requires_grad and not name.startswith("encoder.net.")
