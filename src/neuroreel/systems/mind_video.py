"""MinD-Video: clips from the brain by an inflated latent diffusion (Chen, Qing & Zhou, NeurIPS 2023, arXiv 2305.11675).

    1. Masked brain modelling: an encoder of windows of w volumes, which attends over patches and then over volumes,
       learns to recover masked patches of cortex from the others, on all training runs.
    2. Multimodal contrastive learning: its tokens, mixed to the generator's number and width, are held half to the
       captions and half to the frames in CLIP's space.
    3. Inflation: a diffusion of pictures becomes one of clips, whose frames look at the two before them and, in new
       layers, over time. It is tuned on the training clips with their captions, then together with the encoder.
    4. Adversarial guidance: every step leads away from what the encoder makes of the mean training window.

Where the pictures have captions and the generator reads text, some things are ours. The mixer begins as the ridge
regression from the encoder's tokens to those of the captions, and is held near them by a term of the loss
(`start="random"`, `near=0` and `contrastive.near=0` leave that out). And the training clips' captions are a prior:
what the contrastive stage takes for probable has its share in the tokens, since a regression answers with a mean that
no caption has (`prior=None` leaves that out, see `brain.caption_prior`). Movement is read from the brain beside, and
the generated clip's middle frame carried along it where held-out clips move better by that (`movement=None` leaves it
out): a small network of clips draws what a caption says sooner than it moves it.
And a blurred
picture that is read from the brain has its share in every frame (`picture=None` leaves it out), since few captions say
what is where.

What the release is faulted for is not repeated: the null comes from training windows and not from the test set, the
scale of the guidance from held-out training blocks, the lag is the window's and is said, and what trains it is here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from neuroreel.brain.caption_prior import CaptionPrior, CaptionPriorConfig
from neuroreel.brain.contrastive import (
    ContrastiveConfig,
    ContrastiveNet,
    ContrastivePairs,
    Seen,
    check_captions,
    contrastive_loss,
    embed_clips,
    found_among,
)
from neuroreel.brain.interpretation import keep_stage
from neuroreel.brain.masked import MaskedBrain, MaskedConfig
from neuroreel.brain.pretraining import begin_brain
from neuroreel.brain.tokens import TokenEncoder, TokensConfig
from neuroreel.brain.window import WindowDecoderConfig
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError
from neuroreel.core.files import digest_of, sha256
from neuroreel.core.sets import TrainingSet, require_training, resize
from neuroreel.core.spread import evenly
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Reconstruction, Run, Samples
from neuroreel.features.captions import Captioner, joined
from neuroreel.fit.loop import LoopConfig, device_dtype
from neuroreel.fit.watched import train_watched
from neuroreel.generate.conditioning import Noising, Pairs, Times, Together, held_out_loss, together_loss
from neuroreel.generate.inflate import TUNED, ClipUNet, inflate, motion_unet
from neuroreel.generate.named import WORLD, open_generator, open_image_text
from neuroreel.generate.samplers import Within, denoise, make_sampler, shared_noise, window_noise
from neuroreel.nets.cache import cached
from neuroreel.nets.weights import first_weights, read_about, read_state, take_tensors, write_state
from neuroreel.systems.low_level import BrainPicture, PictureConfig
from neuroreel.systems.movement import BrainMovement, MovementConfig

PUBLISHED_WINDOW = {"clip_s": 2.0, "frames": 6, "height": 256, "width": 256, "trs": 2, "first_lag_s": 4.0}
"""Settings of `Window` that MinD-Video was published with: 6 frames at 3 per second, 2 volumes; the lag is ours."""
PRIOR = "prior"
"""Folder of the prior of captions within a saved system."""
_CLOSE = 1e-6


MOVEMENT = MovementConfig(
    quiet=(0.0, 0.125),
    aim="direction",
    still="middle",
    reading=WindowDecoderConfig(per_target=True, keep=(0.0625, 0.125)),
)
"""How movement is read beside the pictures; held-out training blocks of a simulated world prefer so few voxels."""


class MindVideoConfig(Config):
    """Settings of mind-video; the defaults are those of the embedded world, `MindVideoConfig.published()` the paper's.

    The volumes of a window and their lag are those of the run's window: `trs` 1, 2 and 3 were compared, 3 is best.

    Attributes
    ----------
    generator : "world" (shipped), or the folder or hub name of a latent diffusion pipeline of diffusers.
    clip : of the contrastive stage and the choice of the guidance: "world", or the folder or hub name of a `CLIPModel`.
    captions : "data" takes those of the data set; else the folder or hub name of a BLIP that writes them.
    crossing : clips in which a scene ends: "then" joins both captions, "first" takes that of the onset, "leave-out"
        does so too but keeps such clips out of the contrastive and the video stage, "refuse" refuses them.
    masked : shape of the encoder; its `trs` are those of the window, whatever is said here, and its order is flat
        where the place of the voxels isn't known.
    pretraining : of masked brain modelling on the training runs; None leaves it out.
    pretrained : folder of `neuroreel pretrain` to go on from; with 1 step it stays nearly as it is.
    tokens : how the encoder's tokens become the generator's.
    start : "ridge" lets the mixer begin as a regression to the tokens of the captions, where there are captions and
        the generator reads text; "random" doesn't.
    contrastive : the second stage; `against` "none", "text" or "image" are its ablations.
    prior : of the captions, after that stage; None leaves it out, as does a training set without captions. Its share
        is chosen with the scale of the guidance.
    inflation : "sparse-causal" as published; "self" with frames that look at themselves; "motion" with the motion
        modules of diffusers; "none" makes every frame by the 2-D network.
    motion : what the layers over time begin with: "own" takes those that lie beside the generator, if they fit; "new"
        none; else a file of `ClipUNet.save`, or a folder or hub name of a `MotionAdapter` for "motion".
    parts : what is tuned of the inflated network, see `generate.inflate.PARTS`.
    telling : of the tuning on clips with their captions; None leaves it out.
    tuning : of the tuning together with the encoder.
    near : weight of the term that holds the tokens near those of the captions in the tuning; ours.
    times : how the noise levels are drawn, see `Noising`.
    shared : share of the variance of its noise that the frames of a clip have in common, while tuning and sampling;
        0 as published. Without long training on clips, objects jump where frames have noise of their own.
    dropped : share of the windows that say nothing while tuning: the mean window, zeros or the empty caption.
    validation : share of the training blocks that is held out of the tuning.
    null : what guidance starts from: "adversarial", what the encoder makes of the mean training window; "zero";
        "silent", the empty caption, without a classifier.
    guidance : its scale, that of mind-vis by default; None chooses among `guidances` by how alike CLIP finds held-out
        clips and the true ones, for which CLIP must see what is to be right.
    guidances : scales to choose among.
    within : shares of the noise between which there is guidance, see `generate.samplers.denoise`.
    tried : most held-out clips that are looked at for that; for the movement twice as many.
    sampler, steps : of the sampling, see `generate.samplers`.
    precision : of the sampling, as `LoopConfig.precision`.
    batch : clips sampled together.
    movement : of a regression to optical flow, along which a clip's middle frame is carried where more of what moves
        in held-out clips goes in its true direction by that than by their own frames. None leaves it out.
    picture : of a regression to the latents of the clips, whose blurred picture has its share in every frame; None
        leaves it out.
    checkpointing : keep no activations of the U-Net while tuning, to save memory.
    """

    generator: str = WORLD
    clip: str = WORLD
    captions: str = "data"
    crossing: Literal["then", "first", "leave-out", "refuse"] = "leave-out"
    masked: MaskedConfig = MaskedConfig(mask=0.75)
    pretraining: LoopConfig | None = LoopConfig(steps=60, batch=32, rate=1e-3, average=0.97)
    pretrained: str = ""
    tokens: TokensConfig = TokensConfig()
    start: Literal["ridge", "random"] = "ridge"
    contrastive: ContrastiveConfig = ContrastiveConfig()
    prior: CaptionPriorConfig | None = CaptionPriorConfig()
    inflation: Literal["sparse-causal", "self", "motion", "none"] = "sparse-causal"
    motion: str = "own"
    parts: tuple[str, ...] = TUNED
    telling: LoopConfig | None = LoopConfig(steps=20, batch=8, rate=3e-4, average=0.9, clip=1.0)
    tuning: LoopConfig = LoopConfig(steps=100, batch=8, rate=5e-4, average=0.95, clip=1.0, checkpoint_every=40)
    near: float = Field(default=0.1, ge=0)
    times: Times = "middle"
    shared: float = Field(default=0.8, ge=0, le=1)
    dropped: float = Field(default=0.1, ge=0, lt=1)
    validation: float = Field(default=0.1, gt=0, lt=1)
    null: Literal["adversarial", "zero", "silent"] = "adversarial"
    guidance: float | None = Field(default=3.0, ge=0)
    guidances: tuple[float, ...] = Field(default=(1.5, 3.0, 5.0), min_length=1)
    within: Within = (0.0, 1.0)
    tried: int = Field(default=24, ge=2)
    sampler: Literal["ddim", "pndm", "dpm++", "unipc"] = "dpm++"
    steps: int = Field(default=8, ge=1)
    precision: Literal["auto", "bf16", "float32"] = "auto"
    batch: int = Field(default=16, ge=1)
    movement: MovementConfig | None = MOVEMENT
    picture: PictureConfig | None = PictureConfig()
    checkpointing: bool = False

    @classmethod
    def published(cls, generator: str = "stable-diffusion-v1-5/stable-diffusion-v1-5") -> MindVideoConfig:
        """Return the paper's settings for a generator; steps are those of its epochs where it says so, else ours."""
        return cls(
            generator=generator,
            clip="openai/clip-vit-large-patch14",
            captions="Salesforce/blip-image-captioning-large",
            crossing="then",
            masked=MaskedConfig.published(2),
            pretraining=LoopConfig(steps=680_000, batch=100, rate=2.5e-4),
            tokens=TokensConfig(mixing="gelu", noise=0, hidden=0),
            start="random",
            contrastive=ContrastiveConfig(loop=LoopConfig(steps=20_000, batch=64, rate=5e-5), near=0),
            prior=None,
            motion="new",
            telling=LoopConfig(steps=10_000, batch=8, rate=2e-5, checkpoint_every=500),
            tuning=LoopConfig(steps=10_000, batch=8, rate=2e-5, checkpoint_every=500),
            near=0,
            times="uniform",
            shared=0,
            dropped=0,
            guidance=12.5,
            sampler="pndm",
            steps=200,
            movement=None,
            picture=None,
            checkpointing=True,
        )


class MindVideo:
    """Masked brain modelling, contrastive learning, and an inflated diffusion that is tuned with the encoder.

    Attributes
    ----------
    brain_, encoder_ : the masked encoder, and with its mixer.
    prior_ : of the captions, or None.
    movement_ : read from the brain, or None where clips move better by themselves.
    picture_ : the blurred picture read from the brain, or None, also where clips are too few for it.
    unet_ : the U-Net of clips.
    null_ : tokens that guidance starts from, (1, count, width).
    guidance_ : scale of the guidance.
    generator_ : the latent diffusion model, which stays as it is.
    """

    name: ClassVar[str] = "mind-video"
    Settings: ClassVar[type[Config]] = MindVideoConfig

    def __init__(self, config: MindVideoConfig | None = None) -> None:
        self.config: MindVideoConfig = config if config is not None else MindVideoConfig()
        self.prior_: CaptionPrior | None = None
        self.movement_: BrainMovement | None = None
        self.picture_: BrainPicture | None = None

    @property
    def makes(self) -> frozenset[str]:
        """Clips; pictures where clips have one frame."""
        return frozenset({"image" if self.shape_[0] == 1 else "video"})

    def fit(self, train: TrainingSet, *, run: RunFolder) -> Self:
        """Go through the stages in turn, and return self.

        A fit that broke off goes on from the checkpoints of its stages in the run's folder, which also keeps what CLIP
        and the autoencoder made of the clips.

        Raises
        ------
        DataError
            The training set has no clips or no captions where they are needed; clips cross a scene where they must
            not; the pre-trained weights are of other voxels; as in `fit.loop.train`.
        ConfigError
            The generator is none, reads no text where it must, or its motion modules take fewer frames.
        """
        config, samples = self.config, require_training(train).samples
        checks.require(samples.clips is not None, "training samples of mind-video", "must have clips", "none")
        assert samples.clips is not None
        self.shape_, self.seed_, self.subject_ = samples.clips.shape[1:], run.seed, train.runs[0].bold.subject
        self.generator_ = open_generator(config.generator)
        self.unet_, self.begins_ = self._inflate()
        sides = [side.samples for side in train.hold_out(config.validation)]
        fitted, held = (self._captioned(side, train.runs, run) for side in sides)
        check_captions(fitted.caption, config.contrastive)
        whole = [self._within_scenes(side, train.runs) for side in (fitted, held)]

        self.brain_ = begin_brain(train, config.masked, config.pretraining, run, config.pretrained)
        self.encoder_ = self._mixer()
        started = self._begin(fitted)
        self.prior_ = self._contrast(whole[0], whole[1], run, started)
        latents = []
        for side, name in zip(whole, ("train", "held"), strict=True):
            assert side.clips is not None
            latents.append(self.generator_.kept_latents(side.clips, run, name))
        told = self._tell(whole[0], latents[0], run)
        mean = torch.from_numpy(samples.brain.mean(0, keepdims=True, dtype=np.float64).astype(np.float32))
        tuned = self._tune(whole, latents, mean, run)
        self.null_ = self._null(mean)
        self.movement_ = self.picture_ = None
        swept = self._choose(whole[1])
        if config.picture is not None:
            self.picture_ = BrainPicture.fit(whole[0].brain, latents[0], whole[0].block, config.picture)
        carried = self._read_movement(fitted, whole[1])
        about: dict[str, Any] = {"begins_with": self.begins_, "telling": told, "tuning": tuned, "null": config.null}
        about |= {
            "movement": carried,
            "picture_r2": self.picture_.reading.cv_r2_ if self.picture_ is not None else None,
        }
        about["share_of_captions"] = self.prior_.share if self.prior_ is not None else 0.0
        run.record("video.json", about | {"guidance": self.guidance_, "guidances": swept})
        return self

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return a clip for every window; its noise follows from the run and the onset alone."""
        clips = self._read(bold)
        if self.movement_ is not None and len(bold):
            clips = self.movement_.carry(clips, self.movement_.codes(bold.brain))
        return Reconstruction(clips, drawn=1)

    def tokens(self, brain: np.ndarray) -> Tensor:
        """Return the tokens that windows (n, trs, voxels) are for the generator, (n, count, width)."""
        made = self.encoder_.tokens(brain)
        if self.prior_ is None or self.prior_.share == 0 or len(brain) == 0:
            return made
        return torch.lerp(made, self.generator_.tokens(self.prior_.read(brain)), self.prior_.share)

    def ceiling(self, truth: Samples) -> Reconstruction | None:
        """Return what is made of true captions, latents and movement; without captions, the clips coded and decoded."""
        assert truth.clips is not None
        captions = [str(text) for text in truth.caption]
        if self.generator_.reads and all(captions):
            clips = self._clips(truth, self.generator_.tokens(captions), self.generator_.silent)
            if self.picture_ is not None:
                clips = self._mixed(clips, self.picture_, self.generator_.encode_clips(truth.clips).mean(1))
        else:
            latents = self.generator_.encode_clips(truth.clips)
            clips = self._sized(self.generator_.decode_clips(latents.transpose(1, 2)))
        if self.movement_ is not None:
            clips = self.movement_.carry(clips, self.movement_.true_codes(truth.clips))
        return Reconstruction(clips)

    def save(self, folder: Path) -> None:
        """Write config, the encoder with its voxels, the mixer, what was tuned of the U-Net, and the null."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / "config.json")
        self.brain_.save(folder / "encoder")
        self.unet_.save(folder / "video.safetensors")
        own = {n: value for n, value in self.encoder_.named_parameters() if not n.startswith("net.")}
        about = {"shape": " ".join(map(str, self.shape_)), "seed": str(self.seed_), "subject": self.subject_}
        about["guidance"] = repr(self.guidance_)
        write_state(folder / "mixer.safetensors", own, about=about)
        write_state(folder / "null.safetensors", {"null": self.null_})
        if self.prior_ is not None:
            self.prior_.save(folder / PRIOR)
        if self.movement_ is not None:
            self.movement_.save(folder)
        if self.picture_ is not None:
            self.picture_.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the system that `save` wrote; the generator is read again by its name."""
        system = cls(MindVideoConfig.load(folder / "config.json"))
        file = folder / "mixer.safetensors"
        about = read_about(file)
        system.shape_ = tuple(int(side) for side in about["shape"].split())
        system.seed_, system.subject_ = int(about["seed"]), about["subject"]
        system.guidance_ = float(about["guidance"])
        system.generator_ = open_generator(system.config.generator)
        system.picture_ = BrainPicture.load(folder, system.generator_.latent_shape)
        system.unet_, system.begins_ = system._inflate()
        system.unet_.load(folder / "video.safetensors")
        system.brain_ = MaskedBrain.load(folder / "encoder")
        system.encoder_ = system._mixer()
        take_tensors(system.encoder_, read_state(file), file)
        system.null_ = read_state(folder / "null.safetensors")["null"]
        system.prior_, system.movement_ = None, BrainMovement.load(folder)
        if (folder / PRIOR).is_dir():
            system.prior_ = CaptionPrior.load(folder / PRIOR, system.encoder_, system.config.contrastive)
        system.encoder_.eval()
        system.unet_.eval()
        return system

    # -----------------------------------------------------------------------------------------------------------------
    # Stages

    def _mixer(self) -> TokenEncoder:
        """Return the encoder with what mixes its tokens to the generator's number and width."""
        count, width = self.generator_.token_shape
        with first_weights(self.seed_, "mind-video"):
            return TokenEncoder(self.brain_, self.subject_, count, width, self.config.tokens)

    def _begin(self, samples: Samples) -> float | None:
        """Let the mixer begin at the captions' tokens, and return the held-out R2 of that; None without captions."""
        config, known = self.config, samples.caption != ""
        if config.start == "random" or config.tokens.mixing != "full" or not self.generator_.reads or known.sum() < 10:
            return None
        wanted = self.generator_.tokens([str(text) for text in samples.caption[known]])
        return self.encoder_.begin_with(samples.brain[known], wanted, samples.block[known])

    def _contrast(self, samples: Samples, held: Samples, run: RunFolder, started: float | None) -> CaptionPrior | None:
        """Hold the encoder's tokens to captions and frames in CLIP's space, and return the prior of captions."""
        config = self.config.contrastive
        if config.against == "none":
            return None
        if config.reads:
            samples, held = (side.take(side.caption != "") for side in (samples, held))
        seen = self._seen(samples, run, "train")
        seen_held = self._seen(held, run, "held") if len(held) > 1 else None
        with first_weights(self.seed_, "contrastive"):
            net = ContrastiveNet(self.encoder_, seen.image.shape[-1], config)
        if started is not None:
            net.begin_with(self.generator_.tokens([str(text) for text in samples.caption]), seen)
        loop = config.loop.model_copy(update={"seed": run.seed, "batch": min(config.loop.batch, len(samples))})
        _, about = train_watched(
            net,
            contrastive_loss,
            ContrastivePairs(samples.brain, seen, samples.block, self._wanted(samples, config.near)),
            loop,
            None if seen_held is None else lambda: net.retrieval(held.brain, seen_held, held.block),
            folder=run.file("contrastive/losses.json").parent,
            cpu=run.device == "cpu",
            facts={"clip": self.config.clip, "contrastive": config.model_dump(mode="json", exclude={"loop"})},
        )
        prior, calibrated = self._prior(net, samples, held)
        about = {"ridge_r2": started, "clips": len(samples), "held": len(held), "prior": calibrated} | about
        run.record("contrastive.json", about)
        keep_stage(self.brain_, run, "contrastive learning")
        return prior

    def _prior(
        self, net: ContrastiveNet, samples: Samples, held: Samples
    ) -> tuple[CaptionPrior | None, dict[str, float]]:
        """Return the prior of captions after the contrastive stage, calibrated on held-out clips, and the record."""
        config, said = self.config.prior, held.take(held.caption != "")
        if config is None or not self.generator_.reads or not len(said):
            return None, {}
        captions = config.captions([str(text) for text in samples.caption])
        if not captions:
            return None, {}
        embed = open_image_text(self.config.clip).embed_text
        prior = CaptionPrior.of(net, captions, embed, config, samples.brain, samples.category, samples.block)
        calibrated = prior.calibrate(said.brain, [str(text) for text in said.caption], embed)
        return prior, {"captions": len(prior.texts)} | calibrated

    def _inflate(self) -> tuple[ClipUNet, str]:
        """Return the U-Net of clips with what is to be tuned of it, and what its layers over time begin with."""
        config, unet, frames = self.config, self.generator_.unet, self.shape_[0]
        begins: str | Path | None = self.generator_.motion if config.motion == "own" else config.motion
        begins = None if config.motion == "new" else begins
        made: ClipUNet
        if config.inflation == "motion":
            own = config.motion in ("own", "new")
            made = motion_unet(unet, frames, None if own else read_motion(config.motion), seed=self.seed_)
            begins = None if own else begins
        else:
            attention = "sparse-causal" if config.inflation == "sparse-causal" else "self"
            made = inflate(unet, frames, attention, config.inflation != "none", seed=self.seed_)
            if begins is not None and (config.motion != "own" or self._fits(begins)):
                made.load(Path(begins))
            else:
                begins = None
        made.trainable([part for part in config.parts if part != "temporal" or config.inflation != "none"])
        if config.checkpointing:
            made.enable_gradient_checkpointing()
        file = begins is not None and Path(begins).is_file()
        return made, sha256(Path(str(begins))) if file else str(begins or "nothing")

    def _fits(self, file: str | Path) -> bool:
        """Tell whether the layers over time beside the generator are for such a network."""
        said = read_about(file)
        same = said.get("frames") == str(self.shape_[0]) and said.get("temporal") == "True"
        return same and said.get("attention") == self.config.inflation

    def _tell(self, samples: Samples, latents: Tensor, run: RunFolder) -> dict[str, Any] | None:
        """Tune the U-Net of clips on the training clips with their captions, and return the record."""
        loop, known = self.config.telling, np.flatnonzero(samples.caption != "")
        if loop is None:
            return None
        rule = "must have a text encoder to be tuned on captions (or telling be none)"
        parts = ", ".join(self.generator_.index)
        checks.require(self.generator_.reads, "generator", rule, parts, self.config.generator, ConfigError)
        rule = "must be there to tune the generator on them (name a captioner, or leave telling out)"
        checks.require(len(known) > 0, "captions of the training clips", rule, "none")
        tokens = self.generator_.tokens([str(text) for text in samples.caption[known]])
        net = Together(nn.Identity(), self.unet_, self._noising(), self.generator_.silent, dropped=self.config.dropped)
        pairs = Pairs(tokens.numpy(), latents[known], whole=True)
        _, about = train_watched(
            net,
            together_loss,
            pairs,
            loop.model_copy(update={"seed": run.seed, "batch": min(loop.batch, len(known))}),
            folder=run.file("telling/losses.json").parent,
            cpu=run.device == "cpu",
            facts=self._facts(),
        )
        return about

    def _tune(
        self, samples: Sequence[Samples], latents: Sequence[Tensor], mean: Tensor, run: RunFolder
    ) -> dict[str, Any]:
        """Tune encoder, mixer and U-Net together on pairs of brain window and clip, and return the record."""
        config, loop = self.config, self.config.tuning
        silent = self.generator_.silent * (config.null != "zero")
        null = mean if config.null == "adversarial" else None
        net = Together(self.encoder_, self.unet_, self._noising(), silent, config.near, config.dropped, null)
        sides = [
            Pairs(side.brain, coded, self._wanted(side, config.near), whole=True)
            for side, coded in zip(samples, latents, strict=True)
        ]
        _, about = train_watched(
            net,
            together_loss,
            sides[0],
            loop.model_copy(update={"seed": run.seed, "batch": min(loop.batch, len(samples[0]))}),
            lambda: held_out_loss(net, sides[1], config.batch),
            folder=run.file("tuning/losses.json").parent,
            cpu=run.device == "cpu",
            facts=self._facts(),
            looks=4,
        )
        return about

    @torch.no_grad()
    def _null(self, mean: Tensor) -> Tensor:
        """Return the tokens that guidance starts from, (1, count, width)."""
        if self.config.null == "adversarial":
            return self.encoder_.tokens(mean.numpy())
        return self.generator_.silent * (self.config.null != "zero")

    def _choose(self, held: Samples) -> list[dict[str, float]]:
        """Choose the guidance, and the share of the captions, whose clips are most like held-out ones in CLIP's space.

        Every share is tried with the scale in the middle, and then every scale with the share that was best.
        """
        config = self.config
        scales = config.guidances if config.guidance is None else (config.guidance,)
        shares = () if self.prior_ is None or config.prior is None else config.prior.shares
        self.guidance_ = scales[0]
        if len(scales) == 1 and len(shares) < 2:
            return []
        few = held.take(evenly(len(held), config.tried))
        assert few.clips is not None
        clip = open_image_text(config.clip)
        truth = self._seen_whole(clip, few.clips)
        found: list[dict[str, float]] = []

        def best(tried: Sequence[tuple[float, float]]) -> tuple[float, float]:
            """Return the scale and share, of those tried, whose clips are most alike."""
            for scale, share in tried:
                self._set(scale, share)
                made = self._seen_whole(clip, self._clips(few, self.tokens(few.brain), self.null_))
                alike = {"similarity": float((made * truth).sum(1).mean())} | found_among(made, truth, few.block)
                found.append({"guidance": scale, "share_of_captions": share} | alike)
            rows = found[-len(tried) :]
            return tried[int(np.argmax([row["similarity"] for row in rows]))]

        share = shares[0] if shares else 0.0
        if len(shares) > 1:
            share = best([(scales[len(scales) // 2], each) for each in shares])[1]
        self._set(*best([(scale, share) for scale in scales]))
        return found

    def _read_movement(self, fitted: Samples, held: Samples) -> dict[str, Any] | None:
        """Fit the regression to movement, keep it if held-out clips move better by it, and tell."""
        config = self.config
        assert fitted.clips is not None and held.clips is not None
        if config.movement is None:
            return None
        movement = BrainMovement.fit(fitted.brain, fitted.clips, fitted.block, config.movement)
        if movement is None:
            return None
        few = held.take(evenly(len(held), 2 * config.tried))
        assert few.clips is not None
        made = self._read(few)
        told = movement.choose(made, movement.codes(few.brain), few.clips)
        self.movement_ = movement if told["carried"] else None
        return told

    def _set(self, guidance: float, share: float) -> None:
        """Take the scale of the guidance, and the share of the captions where there is a prior."""
        self.guidance_ = guidance
        if self.prior_ is not None:
            self.prior_.share = share

    # -----------------------------------------------------------------------------------------------------------------
    # Captions, and what is made of clips once

    def _captioned(self, samples: Samples, runs: Sequence[Run], run: RunFolder) -> Samples:
        """Return samples with the captions that are to be used."""
        config, shown = self.config, scenes_shown(samples, runs)
        across = sum(len(scenes) > 1 for scenes in shown)
        rule = "must lie within one scene (or crossing be then, first or leave-out)"
        got = f"{across} of {len(samples)} that cross one"
        checks.require(config.crossing != "refuse" or across == 0, "training clips", rule, got)
        if config.captions != "data":
            return replace(samples, caption=self._written(samples, run))
        if config.crossing != "then":
            return samples
        texts = [
            joined(scenes) if len(scenes) > 1 else str(own) for scenes, own in zip(shown, samples.caption, strict=True)
        ]
        return replace(samples, caption=np.array(texts))

    def _within_scenes(self, samples: Samples, runs: Sequence[Run]) -> Samples:
        """Return the samples that the contrastive and the video stage see."""
        if self.config.crossing != "leave-out":
            return samples
        kept = np.array([len(scenes) <= 1 for scenes in scenes_shown(samples, runs)])
        checks.require(
            bool(kept.any()), "training clips", "must lie within one scene, in part at least", "none that does"
        )
        return samples.take(kept)

    def _written(self, samples: Samples, run: RunFolder) -> np.ndarray:
        """Return the captions that a captioner writes, kept in the run's folder."""
        assert samples.clips is not None
        key = digest_of([self.config.captions, samples.clips])
        file = run.file(f"captions/{key[:16]}.json")
        if not file.is_file():
            run.record(
                f"captions/{key[:16]}.json", {"captions": Captioner(self.config.captions).of_clips(samples.clips)}
            )
        return np.array(json.loads(file.read_text())["captions"])

    def _seen(self, samples: Samples, run: RunFolder, name: str) -> Seen:
        """Return what CLIP makes of captions and frames, kept as `nets.cache.cached` does."""
        config, clips = self.config.contrastive, samples.clips
        assert clips is not None
        settings = config.model_dump_json(exclude={"loop", "near", "against", "scale", "sparse"})

        clip = open_image_text(self.config.clip)

        def make() -> dict[str, Tensor]:
            texts = [str(text) for text in samples.caption]
            seen = embed_clips(clip, clips, texts, config, seed=self.seed_)
            return {"text": seen.text, "image": seen.image}

        made_of: list[str | np.ndarray] = [
            f"embeddings by {clip.fingerprint}",
            settings,
            str(self.seed_),
            samples.caption,
            clips,
        ]
        return Seen(**cached(run, f"clip-{name}", made_of, make), frames=clips.shape[1])

    def _seen_whole(self, clip: Any, clips: np.ndarray) -> Tensor:
        """Return the mean of the embeddings of a clip's frames, (n, dim) of length 1."""
        flat = clips.reshape(-1, *clips.shape[2:])
        each = torch.cat([clip.embed_images(flat[at : at + 256]) for at in range(0, len(flat), 256)])
        return nn.functional.normalize(each.unflatten(0, (len(clips), -1)).mean(1), dim=-1)

    def _wanted(self, samples: Samples, near: float) -> Tensor | None:
        """Return the captions' tokens where the brain's are to be near those, NaN where there is none."""
        captions = [str(text) for text in samples.caption]
        if near == 0 or not self.generator_.reads or not any(captions):
            return None
        wanted = self.generator_.tokens(captions)
        wanted[torch.from_numpy(samples.caption == "")] = float("nan")
        return wanted

    def _noising(self) -> Noising:
        return Noising(self.generator_.noise, self.config.times, self.config.shared)

    def _facts(self) -> dict[str, Any]:
        """Return what checkpoints of the U-Net of clips must agree with."""
        own = {"unet": self.unet_.fingerprint, "layers over time": self.begins_}
        return own | {name: getattr(self.config, name) for name in ("inflation", "shared")}

    # -----------------------------------------------------------------------------------------------------------------
    # Sampling

    def _read(self, samples: Samples) -> np.ndarray:
        """Return the clips that are read from windows, not yet carried along their movement."""
        clips = self._clips(samples, self.tokens(samples.brain), self.null_)
        if self.picture_ is None or len(samples) == 0:
            return clips
        return self._mixed(clips, self.picture_, self.picture_.latents(samples.brain))

    def _mixed(self, clips: np.ndarray, picture: BrainPicture, latents: Tensor) -> np.ndarray:
        """Return clips in which the picture of latents (n, channels, h, w) has its share."""
        return picture.mixed(clips, resize(self.generator_.decode(latents), *self.shape_[1:3]))

    def _clips(self, samples: Samples, tokens: Tensor, null: Tensor) -> np.ndarray:
        """Return the clips of windows by their tokens, a batch at a time, in the shape of the training clips."""
        made = np.zeros((len(samples), *self.shape_), np.uint8)
        for start in range(0, len(samples), self.config.batch):
            rows = np.arange(start, min(start + self.config.batch, len(samples)))
            made[rows] = self._sized(self.draw(tokens[rows], self._noise(samples.take(rows)), null))
        return made

    def _noise(self, samples: Samples) -> Tensor:
        """Return the noise of the clips of windows, (n, channels, frames, h, w)."""
        channels, *sides = self.generator_.latent_shape
        own = window_noise(samples, (channels, self.shape_[0], *sides), self.seed_)
        common = window_noise(samples, (channels, 1, *sides), self.seed_, "common")
        return shared_noise(own, common, self.config.shared)

    def draw(self, tokens: Tensor, noise: Tensor, null: Tensor) -> np.ndarray:
        """Return the clips (n, frames, side, side, 3) uint8 that tokens (n, count, width) make of noise.

        Parameters
        ----------
        noise : (n, channels, frames, h, w).
        null : (1, count, width), what guidance starts from.
        """
        unet, config = self.unet_.eval(), self.config
        device = unet.device
        dtype = device_dtype(config.precision, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            latents = denoise(
                unet,
                noise.to(device),
                tokens.to(device),
                null.to(device),
                make_sampler(config.sampler, self.generator_.noise),
                steps=config.steps,
                guidance=self.guidance_,
                within=config.within,
            )
        return self.generator_.decode_clips(latents.float())

    def _sized(self, clips: np.ndarray) -> np.ndarray:
        """Return clips (n, frames, side, side, 3) in the shape of the training clips."""
        flat = resize(clips.reshape(-1, *clips.shape[2:]), *self.shape_[1:3])
        return flat.reshape(len(clips), *self.shape_)


def scenes_shown(samples: Samples, runs: Sequence[Run]) -> list[list[str]]:
    """Return the captions of the scenes that each clip shows, in order: one where it doesn't cross a scene's end.

    Parameters
    ----------
    samples : clips that were taken from the runs.
    runs : with the scenes as their events.

    Raises
    ------
    DataError : a clip isn't wholly inside its run.
    """
    known, found = {run.bold.run: run for run in runs}, []
    length = (samples.clips.shape[1] if samples.clips is not None else 1) / samples.fps
    for name, onset in zip(samples.run, samples.onset_s, strict=True):
        run = known.get(str(name))
        inside = run is not None and run.bold.start_s - _CLOSE <= onset and onset + length <= run.bold.stop_s + _CLOSE
        checks.require(inside, f"clip of run {name}", "must lie inside the run", f"{onset:g} to {onset + length:g} s")
        assert run is not None
        shown = [
            event
            for event in run.events
            if event.onset_s + event.duration_s > onset + _CLOSE and event.onset_s < onset + length - _CLOSE
        ]
        found.append([event.caption for event in sorted(shown, key=lambda event: event.onset_s)])
    return found


def read_motion(name: str) -> Any:
    """Return the `MotionAdapter` of a folder or hub name; ConfigError if there is none."""
    from diffusers import MotionAdapter

    try:
        return MotionAdapter.from_pretrained(name, local_files_only=Path(name).is_dir(), use_safetensors=True)
    except (OSError, ValueError) as error:
        rule = "must be a folder or hub name of a MotionAdapter, its weights as safetensors"
        raise ConfigError(checks.sentence("motion", rule, repr(name), type(error).__name__)) from None
