"""encoder-decoder: fMRI to video and video to fMRI, trained on each other (Kupershmidt et al. 2022, arXiv 2206.03544).

    1. Encoder, video -> fMRI: L_E = ||r - r^||_2 + 0.5 cosine distance, on the paired scan.
    2. Decoder, fMRI -> frames: 0.35 perceptual similarity + 0.35 video embedding + 0.30 total variation, on the pairs.
    3. Self-supervision: the decoder is trained on with videos that nobody was scanned with, video -> fMRI^ -> video^
       through the frozen encoder, beside the pairs. Clips begin between the volumes too, and all frames of a clip are
       decoded from its window: up to 8 times the rate of the scan.

Ours, because a deep decoder of 1,200 noisy windows learns them by heart:
    the encoder begins as a ridge regression from what frozen networks see;
    the decoder reads a short code of whole clips by ridge, each training window by the folds without it, and begins as
    the clip that this code says (`front="learnt"`, `decoder.base="none"` and `pixel=0` leave that out);
    what the encoder makes of a video gets the errors that it had on held-out volumes, so that a cycle is as noisy as a
    scan (`noise=0`: as published), and a second regression reads the code from cycles, averaged with the first;
    how much of it counts, how fine the code's clips are and how much the network adds to them is what held-out training
    blocks prefer. The code's components are those of all training clips, held-out ones too: of few clips, what is held
    out looks easier to read than new clips are (no test clip is ever in them);
    movement is little of what varies in clips, so it has a code of its own (components of optical flow), along which
    the clip's mean frame is carried where held-out blocks move better by it (`motion=0` leaves that out).

Strict by default: cycles see the training set's videos and external ones, never the test fMRI. `mode="transductive"`
lets the decoder also adapt to the windows that `reconstruct` is handed, fMRI -> video^ -> fMRI^, as published; the
mode stands in the reconstruction and beside its scores.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from neuroreel.brain.video_encoder import (
    Conv3dTrunk,
    FrozenTrunk,
    VideoEncoder,
    VideoEncoderConfig,
    begin_readout,
    design_of,
    encoding_loss,
    mixing_of,
    to_signed,
)
from neuroreel.brain.window import WindowDecoder, WindowDecoderConfig
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.seeds import generator
from neuroreel.core.sets import TrainingSet, Window, require_training, sample
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Bold, Reconstruction, Run, Samples, Space, Video
from neuroreel.core.video import open_video
from neuroreel.fit.loop import Arrays, Batch, LoopConfig, Source, in_batches
from neuroreel.fit.watched import train_watched
from neuroreel.generate.frame_decoder import ClipBasis, FrameDecoder, FrameDecoderConfig, picture_error, total_variation
from neuroreel.nets.perceptual import ClipEmbedding, PerceptualLoss, open_clip_embedding, open_perceptual
from neuroreel.nets.weights import fill, first_weights, read_about, read_state, write_state
from neuroreel.systems.movement import BrainMovement, MovementConfig

MODES = ("strict", "transductive")
AHEAD = 8
"""Frames of a clip for each volume of its time, at most, as published."""

_CLOSE_S = 1e-3
_Share = Annotated[float, Field(ge=0, le=1)]


class StepsConfig(LoopConfig):
    """A `LoopConfig` whose rate drops every so often instead of following a cosine, as published for the encoder.

    Attributes
    ----------
    drop_every : share of the training between two drops; 0 keeps the cosine.
    drop : factor at each drop.
    """

    drop_every: float = Field(default=0.3, ge=0, le=1)
    drop: float = Field(default=0.2, gt=0, le=1)

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if self.drop_every == 0:
            return super().rate_at(step)
        return self.rate * self.drop ** (step // max(1, round(self.drop_every * self.steps)))


class EncoderDecoderConfig(Config):
    """Settings of encoder-decoder; the defaults are those of the embedded world, `.published()` the paper's.

    Attributes
    ----------
    perceptual, video : networks that the losses and the encoder look through, by name: see `nets.perceptual`.
    encoder : shape of video -> fMRI.
    encoding : its training; the rate drops to a fifth every 3 of 10 epochs, as published.
    cosine : weight of the cosine distance in its loss.
    front : "ridge" reads a code of clips by ridge, "learnt" learns a linear layer with the rest.
    components : length of that code.
    based : clips that its components are of, at most.
    reading : choices of the ridge.
    combines : ways of combining the volumes of a window, of which the ridge takes the one that held-out blocks prefer.
    decoder : shape of code -> frames.
    sizes : heights in pixels to decode at, of which held-out blocks choose; empty for the decoder's `size`.
    added : shares of what the network adds to the clip that the code says, of which held-out blocks choose.
    image, embedding, smooth : weights beta, gamma, delta of perceptual similarity, distance in the video network's
        embedding, and total variation.
    time : weight of the differences between frames within the total variation: the temporal prior.
    pixel : weight of the squared difference of pixels from -1 to 1, ours; 0 in the paper.
    pairs : training on the pairs alone.
    cycles : training on with cycles beside the pairs; None leaves the self-supervision out.
    unpaired : share of cycles in a batch.
    every : clips of the cycles begin so often within a clip's time.
    noise : factor on the encoder's errors that a cycle gets.
    from_cycles : share of the code that the regression on cycles says; the rest is that on pairs. Of several, held-out
        blocks choose, encoder and regressions fitted without them; the first where the encoder's layers are learnt.
    cycled : clips of that regression, at most.
    external : folder of mp4 files that nobody was scanned with, for the cycles.
    motion : components of the clips' movement, optical flow on a coarse grid, that are read beside the code; the mean
        frame of a clip is then carried along what was read, where held-out blocks come nearer to the
        true flow by that than by the clip's own frames and by a still. How the code's clip changes otherwise, as where
        scenes are cut, is lost with that. 0 leaves it out.
    grid : cells of that grid on a side.
    quiet : shares of the mean speed to choose from, by which the flow that was read is made slower, to 0 at least: more
        stands still, less goes astray. Of those that come nearer than a still, held-out blocks choose that with the
        most of right directions less the error of the flow.
    mode : "strict" or "transductive".
    transduction : training on the windows that are asked for, in that mode.
    validation : share of the training blocks that is only looked at.
    """

    perceptual: str = "world"
    video: str = "world"
    encoder: VideoEncoderConfig = VideoEncoderConfig()
    encoding: StepsConfig = StepsConfig(
        steps=150, batch=64, rate=1e-4, warm_up=0, weight_decay=0, clip=None, precision="float32"
    )
    cosine: float = Field(default=0.5, ge=0)
    front: Literal["ridge", "learnt"] = "ridge"
    components: int = Field(default=192, ge=1)
    based: int = Field(default=1000, ge=2)
    reading: WindowDecoderConfig = WindowDecoderConfig(per_target=True, keep=(0.125, 0.25))
    combines: tuple[Literal["mean", "concat"], ...] = Field(default=("mean", "concat"), min_length=1)
    decoder: FrameDecoderConfig = FrameDecoderConfig()
    sizes: tuple[Annotated[int, Field(ge=8)], ...] = (32, 45)
    added: tuple[_Share, ...] = Field(default=(1.0, 0.5, 0.0), min_length=1)
    image: float = Field(default=0.35, ge=0)
    embedding: float = Field(default=0.35, ge=0)
    smooth: float = Field(default=0.30, ge=0)
    time: float = Field(default=1.0, ge=0)
    pixel: float = Field(default=20.0, ge=0)
    pairs: LoopConfig = LoopConfig(
        steps=40, batch=8, rate=5e-4, warm_up=0.1, average=0.97, clip=1.0, precision="float32", checkpoint_every=20
    )
    cycles: LoopConfig | None = LoopConfig(
        steps=120, batch=8, rate=1e-3, warm_up=0.1, average=0.97, clip=1.0, precision="float32", checkpoint_every=40
    )
    unpaired: float = Field(default=0.75, ge=0, le=1)
    every: int = Field(default=2, ge=1)
    noise: float = Field(default=1.0, ge=0)
    from_cycles: _Share | Annotated[tuple[_Share, ...], Field(min_length=1)] = (0.5, 0.0, 0.25, 0.75)
    cycled: int = Field(default=1200, ge=10)
    external: str = ""
    motion: int = Field(default=32, ge=0)
    grid: int = Field(default=8, ge=1)
    quiet: tuple[Annotated[float, Field(ge=0)], ...] = Field(default=(0.0, 0.125, 0.25, 0.375, 0.5), min_length=1)
    mode: Literal["strict", "transductive"] = "strict"
    transduction: LoopConfig = LoopConfig(
        steps=30, batch=2, rate=2e-4, warm_up=0.1, clip=1.0, precision="float32", weight_decay=0
    )
    validation: float = Field(default=0.1, gt=0, lt=1)

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the regression on cycles to choose from."""
        return self.from_cycles if isinstance(self.from_cycles, tuple) else (self.from_cycles,)

    @classmethod
    def published(cls, perceptual: str, video: str) -> EncoderDecoderConfig:
        """Return the paper's settings, without what is ours; the layers are a third party's, unconfirmed.

        Parameters
        ----------
        perceptual, video : networks of the losses, such as a file of LPIPS's AlexNet and a VideoMAE's hub name.
        """
        return cls(
            perceptual=perceptual,
            video=video,
            encoder=VideoEncoderConfig(trunk="conv3d"),
            encoding=StepsConfig(steps=10 * 270, batch=16, rate=1e-4, warm_up=0, clip=None),
            front="learnt",
            decoder=FrameDecoderConfig.published(),
            sizes=(),
            added=(1.0,),
            pixel=0,
            pairs=LoopConfig(steps=10_000, batch=16, rate=1e-3),
            cycles=LoopConfig(steps=20_000, batch=32, rate=1e-3),
            noise=0,
            from_cycles=0,
            motion=0,
        )


@dataclass(frozen=True)
class Shown:
    """What a video shows, clip after clip.

    Attributes
    ----------
    name : of the run or file.
    onsets_s : (clips,) on the stimulus clock, `step_s` apart.
    clips : (clips, frames, height, width, 3) uint8.
    features : (clips, units) of the encoder's trunk; empty until it is known.
    """

    name: str
    onsets_s: np.ndarray
    clips: np.ndarray
    step_s: float
    features: np.ndarray


@dataclass(frozen=True)
class Answers:
    """What the encoder's regression stands on: the training volumes, all runs one after the other.

    Attributes
    ----------
    volumes : by run.
    design : (n, delays * units) features of what was shown before each volume.
    ridge : from there to the voxels; None where the encoder's layers are learnt, and then nothing else is known.
    errors : (n, voxels) float32, by which the regression of the other folds misses, times the config's `noise`.
    """

    volumes: Sequence[_Volumes]
    design: np.ndarray
    ridge: WindowDecoder | None
    errors: np.ndarray

    def starts(self, trs: int, tr_s: float) -> np.ndarray:
        """Return the numbers of the volumes that errors may be taken from on; none where none are known."""
        return _starts(self.volumes, trs, tr_s) if self.errors.any() else np.zeros(0, int)

    def within(self, samples: Samples) -> np.ndarray:
        """Return which volumes the windows of samples have, (n,) bool."""
        found = []
        for one in self.volumes:
            times = (samples.onset_s[samples.run == one.run, None] + samples.lags_s).ravel()
            found.append(np.isin(_ticks(one.times_s), _ticks(times)))
        return np.concatenate(found)


@dataclass(frozen=True)
class Cycles:
    """Videos as the encoder answers to them.

    Attributes
    ----------
    bold : (n, trs, voxels) float32, what it makes of the windows of `clips`.
    clips : (n, frames, h, w, 3) uint8.
    errors : (volumes, voxels) float32, of held-out volumes one after the other, `starts` those that `trs` follow on.
    """

    bold: np.ndarray
    clips: np.ndarray
    errors: np.ndarray
    starts: np.ndarray

    def brain(self, rows: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Return windows (n, trs, voxels) with errors; which ones, the seeds say."""
        made = self.bold[rows]
        if not len(self.starts):
            return made
        at = self.starts[seeds % len(self.starts)][:, None] + np.arange(made.shape[1])
        return made + self.errors[at]


@dataclass(frozen=True)
class Mixed:
    """Pairs and cycles in one batch: the first numbers are pairs, the others cycles, whose errors are drawn anew.

    Attributes
    ----------
    inputs : (n, units), what the decoder reads of the pairs.
    clips : (n, frames, h, w, 3) uint8.
    cycles : or None.
    reads : function of windows that returns what the decoder reads of them.
    share : of cycles in a batch.
    """

    inputs: np.ndarray
    clips: np.ndarray
    cycles: Cycles | None = None
    reads: Callable[[np.ndarray], np.ndarray] | None = None
    share: float = 0.0

    def epoch(self, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return so many batches as pass all pairs once, or all cycles where there are no pairs in a batch."""
        unpaired = 0 if self.cycles is None else round(batch * self.share)
        if self.cycles is None or unpaired == 0:
            return in_batches(rng.permutation(len(self.inputs)), batch)
        other = len(self.inputs) + rng.permutation(len(self.cycles.clips))
        if unpaired == batch:
            return in_batches(other, batch)
        own = in_batches(rng.permutation(len(self.inputs)), batch - unpaired)
        turns = other[np.arange(unpaired * len(own)) % len(other)]
        return [np.concatenate([mine, turns[i * unpaired :][:unpaired]]) for i, mine in enumerate(own)]

    def read(self, rows: np.ndarray, seeds: np.ndarray) -> Batch:
        """Return what the decoder reads, the clips that it should show (from -1 to 1), and a frame to look at."""
        inputs, clips = [], []
        for row, seed in zip(rows, seeds, strict=True):
            if row < len(self.inputs):
                inputs.append(self.inputs[row])
                clips.append(self.clips[row])
                continue
            assert self.cycles is not None and self.reads is not None
            number = np.array([row - len(self.inputs)])
            inputs.append(self.reads(self.cycles.brain(number, np.array([seed])))[0])
            clips.append(self.cycles.clips[number[0]])
        shown = np.stack(clips)
        frame = torch.from_numpy(seeds // 7 % shown.shape[1])
        return {"inputs": torch.from_numpy(np.stack(inputs)), "clips": to_signed(shown), "frame": frame}


class Decoder(nn.Module):
    """What is trained: a linear layer from voxels where one is learnt, and the decoder of frames."""

    def __init__(self, frames: FrameDecoder, front: nn.Linear | None) -> None:
        super().__init__()
        self.frames, self.front = frames, front

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the clips (n, frames, 3, h, w), from -1 to 1, of codes or flat windows (n, units)."""
        return self.frames(inputs if self.front is None else self.front(inputs))

    @torch.no_grad()
    def show(self, inputs: np.ndarray) -> np.ndarray:
        """Return the clips (n, frames, h, w, 3) uint8."""
        if self.front is not None:
            inputs = self.front(torch.from_numpy(inputs)).numpy()
        return self.frames.show(inputs)


class EncoderDecoder:
    """Video -> fMRI and fMRI -> video, trained on each other.

    Attributes
    ----------
    encoder_ : video -> fMRI.
    basis_ : the code of clips.
    decoder_ : fMRI -> video.
    pairs_, cycles_ : the regressions from windows to codes, on pairs and on cycles; None without.
    share_ : of the code that the second one says.
    motion_ : movement read from windows; None where the decoder's own frames come nearer to the true flow.
    """

    name: ClassVar[str] = "encoder-decoder"
    Settings: ClassVar[type[Config]] = EncoderDecoderConfig

    def __init__(self, config: EncoderDecoderConfig | None = None) -> None:
        self.config: EncoderDecoderConfig = config if config is not None else EncoderDecoderConfig()
        self.pairs_: WindowDecoder | None = None
        self.cycles_: WindowDecoder | None = None
        self.motion_: BrainMovement | None = None
        self.share_ = 0.0

    @property
    def makes(self) -> frozenset[str]:
        """Clips, or pictures where the training clips have one frame; and BOLD, by `encode`."""
        return frozenset({"image" if self.shape_[0] == 1 else "video", "bold"})

    def fit(self, train: TrainingSet, *, run: RunFolder, videos: Sequence[Video] = ()) -> Self:
        """Fit the encoder, the decoder on the pairs, and the decoder on cycles, and return self.

        A fit that broke off goes on from the checkpoints in the run's folder.

        Parameters
        ----------
        videos : more videos that nobody was scanned with, beside those of the config's folder.

        Raises
        ------
        DataError
            The training set has no clips, or clips of more frames than are decoded from a window; the folder of
            external videos has none; as in `fit.loop.train`.
        ConfigError
            A network's name is none.
        """
        samples = require_training(train).samples
        checks.require(samples.clips is not None, "training samples of encoder-decoder", "must have clips", "none")
        assert samples.clips is not None
        self.shape_, self.seed_ = samples.clips.shape[1:], run.seed
        self.window_ = samples.brain.shape[1:]
        self.clip_s_ = self.shape_[0] / samples.fps
        most = AHEAD * max(1, round(self.clip_s_ / samples.tr_s))
        rule = f"must be {most} or fewer, {AHEAD} for each volume of its {self.clip_s_:g} s"
        checks.require(self.shape_[0] <= most, "frames of a clip", rule, self.shape_[0])
        self.open_networks()
        shown, number = self._scanned(train.runs)
        external = self._external(videos) if self.config.cycles is not None else []
        self.begin_encoder(shown, run.seed)
        shown = [self.with_features(each) for each in shown]
        known = self._fit_encoder(samples, {name: shown[i] for name, i in number.items()}, run)
        chosen = self._fit_codes(samples, shown if self.config.cycles is not None else [])
        self._fit_pairs(train, run)
        if self.config.cycles is not None:
            shown = [*shown, *map(self.with_features, external)]
            chosen |= self._fit_cycles(train, shown, number, known, run)
        chosen |= self._choose_added(train)
        run.record("choices.json", chosen | self._fit_motion(samples))
        return self

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return a clip for every window, with the mode that it was made in.

        In the transductive mode a copy of the decoder is first trained on these very windows, without any truth.

        Raises
        ------
        DataError : the windows have other volumes or voxels than those of the training.
        """
        mode = self.config.mode
        if len(bold) == 0:
            return Reconstruction(np.zeros((0, *self.shape_), np.uint8), mode=mode)
        trs, voxels = self.window_
        checks.require(bold.brain.shape[1] == trs, "brain", f"must have windows of {trs} volumes", bold.brain.shape[1])
        checks.same_length("voxels", bold.brain.shape[2], "those of the training", voxels)
        decoder = self.decoder_ if mode == "strict" else self.adapted(bold)
        clips = decoder.show(self.inputs(bold.brain))
        if self.motion_ is not None:
            clips = self.motion_.carry(clips, self.motion_.codes(bold.brain))
        return Reconstruction(clips, mode=mode)

    def ceiling(self, truth: Samples) -> Reconstruction | None:
        """Return the true clips' own codes, of movement too, through the decoder; None where the code is learnt."""
        if self.config.front == "learnt":
            return None
        assert truth.clips is not None
        clips = self.decoder_.frames.show(self.basis_.codes(truth.clips))
        if self.motion_ is not None:
            clips = self.motion_.carry(clips, self.motion_.true_codes(truth.clips))
        return Reconstruction(clips, mode=self.config.mode)

    def encode(self, run: Run) -> Bold:
        """Return the BOLD that a run's video predicts, at the run's volumes, (trs, voxels); its own BOLD isn't read.

        Raises
        ------
        DataError : the run has no video.
        """
        checks.require(run.video is not None, f"run {run.bold.run}", "must have a video to be encoded", "none")
        assert run.video is not None
        bold = run.bold
        shown = self.with_features(self.clips_of(run.video, run.bold.run))
        made = self._predict(shown, bold.start_s + bold.tr_s * np.arange(bold.n_trs))
        return Bold(made, bold.tr_s, bold.space, bold.subject, bold.run, bold.start_s)

    # -----------------------------------------------------------------------------------------------------------------
    # 1. Encoder

    def begin_encoder(self, shown: Sequence[Shown], seed: int, most: int = 600) -> None:
        """Make the encoder, its components from so many of the clips at most."""
        with first_weights(seed, "encoder-decoder", "encoder"):
            trunk = self._trunk()
            if isinstance(trunk, FrozenTrunk):
                clips = [each.clips for each in shown]
                rows = generator(seed, "encoder-decoder", "components").permutation(sum(map(len, clips)))[:most]
                trunk.begin(_rows(clips, np.sort(rows)))
            self.encoder_ = VideoEncoder(trunk, self.window_[1], self.config.encoder.delays_s)

    def _fit_encoder(self, samples: Samples, scanned: Mapping[str, Shown], run: RunFolder) -> Answers:
        """Fit video -> fMRI on the volumes of the windows, and return what it stands on."""
        config, trunk = self.config, self.encoder_.trunk
        volumes = _volumes(samples)
        known = Answers(volumes, np.zeros((0, 0), np.float32), None, np.zeros((0, self.window_[1]), np.float32))
        source: Source
        if isinstance(trunk, FrozenTrunk):
            design = np.concatenate([self._design(scanned[one.run], one.times_s) for one in volumes])
            bold = np.concatenate([one.bold for one in volumes])
            blocks = np.concatenate([one.block for one in volumes])
            ridge = begin_readout(self.encoder_.readout, design, bold, blocks, config.encoder.ridge)
            errors = (config.noise * (bold - ridge.held_out_)).astype(np.float32)
            known, source = Answers(volumes, design, ridge, errors), Arrays({"seen": design, "bold": bold})
        else:
            source = _Watched(volumes, scanned, config.encoder.delays_s)
        most = sum(len(one.bold) for one in volumes)
        loop = config.encoding.model_copy(update={"seed": run.seed, "batch": min(config.encoding.batch, most)})
        net, about = train_watched(
            self.encoder_,
            self._encoding_loss,
            source,
            loop,
            folder=run.file("encoder/losses.json").parent,
            cpu=run.device == "cpu",
        )
        self.encoder_ = net.requires_grad_(False)  # type: ignore[assignment]
        run.record("encoder.json", about)
        return known

    def _encoding_loss(self, net: nn.Module, batch: Batch) -> Tensor:
        return encoding_loss(net(batch["seen"]), batch["bold"], self.config.cosine)

    def _trunk(self) -> FrozenTrunk | Conv3dTrunk:
        if self.config.encoder.trunk == "conv3d":
            return Conv3dTrunk()
        return FrozenTrunk(self.config.encoder, self.perceptual.seen, self.embedding)

    def _scanned(self, runs: Sequence[Run]) -> tuple[list[Shown], dict[str, int]]:
        """Return what the runs showed, once for all repeats, and the number of each run's.

        Only what was on while volumes of the training were measured: the rest of a video may be what is tested.
        """
        parts: dict[str, list[Run]] = {}
        for run in runs:
            if run.video is not None:
                parts.setdefault(run.bold.run, []).append(run)
        keys: dict[object, int] = {}
        shown: list[Shown] = []
        number: dict[str, int] = {}
        for name, own in parts.items():
            video, spans = own[0].video, [(one.bold.start_s, one.bold.stop_s) for one in own]
            assert video is not None
            key = (own[0].stimulus or name, video.start_s, *np.round(spans, 3).ravel().tolist())
            if key not in keys:
                keys[key] = len(shown)
                shown.append(self.clips_of(video, name, spans))
            number[name] = keys[key]
        checks.require(bool(shown), "training runs of encoder-decoder", "must have videos", "none")
        return shown, number

    def clips_of(self, video: Video, name: str, spans: Sequence[tuple[float, float]] = ((-np.inf, np.inf),)) -> Shown:
        """Return the clips of a video one after the other, `every` for each clip's time, as the encoder looks at it.

        Parameters
        ----------
        spans : from when to when on the stimulus clock it is looked at.
        """
        step = self.clip_s_ / self.config.every
        frames, height, width, _ = self.shape_
        seconds = video.shape[0] / video.fps
        window = Window(clip_s=self.clip_s_, step_s=step, frames=frames, height=height, width=width, first_lag_s=0)
        clocks = []
        for start, stop in spans:
            start, stop = max(start, video.start_s), min(stop, video.start_s + seconds)
            volumes = int(np.floor((stop - start - self.clip_s_) / step + _CLOSE_S)) + self.config.every
            if volumes >= self.config.every:
                clocks.append(Bold(np.zeros((volumes, 1), np.float32), step, Space("columns", 1), "", name, start))
        rule = f"must be as long as a clip ({self.clip_s_:g} s)"
        checks.require(bool(clocks), f"video {video.name}", rule, f"{seconds:g} s")
        # no name of a stimulus: spans aren't repeats of each other
        found = sample([Run(clock, "", video) for clock in clocks], window)
        assert found.clips is not None
        return Shown(name, found.onset_s, found.clips, step, np.zeros((0, 0), np.float32))

    @torch.no_grad()
    def with_features(self, shown: Shown, batch: int = 20) -> Shown:
        """Return a video with the features that the encoder's trunk has of its clips."""
        if len(shown.features):
            return shown
        parts = range(0, len(shown.clips), batch)
        seen = [self.encoder_.trunk(to_signed(shown.clips[at : at + batch])) for at in parts]
        return Shown(shown.name, shown.onsets_s, shown.clips, shown.step_s, torch.cat(seen).numpy())

    def _design(self, shown: Shown, times_s: np.ndarray) -> np.ndarray:
        mixing = mixing_of(shown.onsets_s, shown.step_s, times_s, self.config.encoder.delays_s)
        return design_of(shown.features, mixing)

    @torch.no_grad()
    def _predict(self, shown: Shown, times_s: np.ndarray, batch: int = 500) -> np.ndarray:
        """Return the encoder's answer (times, voxels) to a video."""
        parts = [times_s[at : at + batch] for at in range(0, len(times_s), batch)]
        made = [self.encoder_.readout(torch.from_numpy(self._design(shown, part))).numpy() for part in parts]
        return np.concatenate(made)

    # -----------------------------------------------------------------------------------------------------------------
    # 2. Decoder on pairs

    def _fit_codes(self, samples: Samples, shown: Sequence[Shown]) -> dict[str, Any]:
        """Find the code in the clips of the training, and the regression from its windows to it, and return choices.

        Videos that nobody was scanned with have no say in what the code is: few pairs then read it worse.
        """
        config = self.config
        assert samples.clips is not None
        self.centre_, self.spread_ = samples.brain.mean((0, 1)), samples.brain.std((0, 1)) + np.float32(1e-6)
        rng = generator(self.seed_, "encoder-decoder", "basis")
        clips = [samples.clips, *(each.clips for each in shown)]
        rows = np.sort(rng.permutation(sum(map(len, clips)))[: config.based])
        learnt = config.front == "learnt" or config.decoder.base == "none"
        sizes = (config.decoder.size,) if learnt or not config.sizes else config.sizes
        bases = {size: ClipBasis().fit(_rows(clips, rows), size, config.components) for size in sizes}
        if config.front == "learnt":
            self.basis_ = bases[sizes[0]]
            return {}
        readings = {
            size: self._read(samples.brain, basis.codes(samples.clips), samples.block) for size, basis in bases.items()
        }
        errors = {size: self._error(bases[size], readings[size].held_out_, samples.clips) for size in sizes}
        best = min(sizes, key=lambda size: errors[size])
        self.basis_, self.pairs_ = bases[best], readings[best]
        return {"size": best, "errors_of_sizes": errors, "combine": self.pairs_.config.combine}

    def _error(self, basis: ClipBasis, codes: np.ndarray, clips: np.ndarray) -> float:
        height, width = self.shape_[1:3]
        return picture_error(lambda part: basis.show(part, height, width), codes, clips)

    def _read(self, brain: np.ndarray, codes: np.ndarray, blocks: np.ndarray) -> WindowDecoder:
        """Return the regression from windows to codes that predicts held-out blocks best."""
        ways = [self.config.reading.model_copy(update={"combine": combine}) for combine in self.config.combines]
        return max((WindowDecoder(way).fit(brain, codes, blocks) for way in ways), key=lambda one: one.cv_r2_)

    def _fit_pairs(self, train: TrainingSet, run: RunFolder) -> None:
        """Train the decoder on the training windows, each read by the folds without it."""
        self.decoder_ = self._assemble()
        self.held_out_ = self.pairs_.held_out_ if self.pairs_ is not None else self.inputs(train.samples.brain)
        self._train(train, self.held_out_, None, self.config.pairs, "pairs", run)

    def inputs(self, brain: np.ndarray) -> np.ndarray:
        """Return what the decoder reads of windows (n, trs, voxels): codes, or flat z-scored windows, (n, units)."""
        if self.pairs_ is None:
            return ((brain - self.centre_) / self.spread_).reshape(len(brain), -1).astype(np.float32)
        return self._mean_code(self.pairs_.predict(brain), brain)

    def _mean_code(self, code: np.ndarray, brain: np.ndarray) -> np.ndarray:
        """Return a code averaged with what the regression on cycles reads, where there is one."""
        if self.cycles_ is None:
            return code.astype(np.float32)
        return _mix(code, self.cycles_.predict(brain), self.share_)

    def _assemble(self) -> Decoder:
        with first_weights(self.seed_, "encoder-decoder", "decoder"):
            height, width = self.shape_[1:3]
            frames = FrameDecoder(self.basis_, height, width, self.config.decoder)
            learnt = self.config.front == "learnt"
            front = nn.Linear(int(np.prod(self.window_)), len(self.basis_.axes_)) if learnt else None
            return Decoder(frames, front)

    def _train(
        self, train: TrainingSet, inputs: np.ndarray, cycles: Cycles | None, loop: LoopConfig, name: str, run: RunFolder
    ) -> None:
        """Train the decoder on pairs, and on cycles where there are any; the last blocks of pairs are looked at."""
        clips = train.samples.clips
        assert clips is not None
        aside = self._aside(train)
        share = self.config.unpaired if cycles is not None else 0.0
        source = Mixed(inputs[~aside], clips[~aside], cycles, self.inputs, share)
        batch = min(loop.batch, int((~aside).sum()))
        if cycles is not None:
            batch = min(batch, len(cycles.clips))
        loop = loop.model_copy(update={"seed": run.seed, "batch": batch})
        kept = Mixed(inputs[aside], clips[aside])
        net, about = train_watched(
            self.decoder_,
            self.decoding_loss,
            source,
            loop,
            lambda: self.validate(kept),
            folder=run.file(f"{name}/losses.json").parent,
            cpu=run.device == "cpu",
            facts={"size": list(self.basis_.size), "share": self.share_},
            rebuild=self._assemble,
            looks=4,
        )
        assert isinstance(net, Decoder)
        self.decoder_ = net
        run.record(
            f"{name}.json", about | {"mode": self.config.mode, "cycles": 0 if cycles is None else len(cycles.clips)}
        )

    def _aside(self, train: TrainingSet) -> np.ndarray:
        """Return which training samples are only looked at, (n,) bool."""
        return np.isin(train.samples.block, np.unique(train.hold_out(self.config.validation)[1].samples.block))

    def _choose_added(self, train: TrainingSet) -> dict[str, Any]:
        """Choose how much the network adds by the training samples that it wasn't trained on, and return the choice."""
        clips, frames, added = train.samples.clips, self.decoder_.frames, self.config.added
        assert clips is not None
        if self.decoder_.front is not None or frames.config.base == "none":
            return {}
        aside, errors = self._aside(train), {}
        for share in added:
            frames.share = share
            errors[share] = picture_error(frames.show, self.held_out_[aside], clips[aside])
        best = min(added, key=lambda share: errors[share])
        frames.settle(best)
        return {"added": best, "errors_of_added": errors}

    def decoding_loss(self, net: nn.Module, batch: Batch) -> Tensor:
        """Return beta L_im + gamma L_vid + delta L_R of every clip of a batch, and what is ours of pixels, (n,)."""
        config = self.config
        made, true = net(batch["inputs"]), batch["clips"]
        loss = config.smooth * total_variation(made, config.time)
        if config.pixel > 0:
            loss = loss + config.pixel * (made - true).square().flatten(1).mean(1)
        if config.image > 0:
            rows = torch.arange(len(made), device=made.device)
            like = self.perceptual.to(made.device)
            loss = loss + config.image * like(made[rows, batch["frame"]], true[rows, batch["frame"]])
        if config.embedding > 0:
            see = self.embedding.to(made.device)
            with torch.no_grad():
                wanted = see(true)
            apart = (see(made) - wanted).square().mean(1) / wanted.square().mean(1).clamp(min=1e-6)
            loss = loss + config.embedding * apart
        return loss

    @torch.no_grad()
    def validate(self, kept: Mixed, most: int = 64) -> float:
        """Return the mean loss on pairs that aren't trained on, so many at most."""
        net = self.decoder_
        training = net.training
        net.eval()
        device = next(net.parameters()).device
        rows = np.linspace(0, len(kept.inputs) - 1, min(most, len(kept.inputs))).astype(int)
        losses = []
        for part in np.array_split(rows, max(1, len(rows) // 16)):
            batch = {key: value.to(device) for key, value in kept.read(part, 7 * part).items()}
            losses.append(self.decoding_loss(net, batch))
        net.train(training)
        return float(torch.cat(losses).mean())

    # -----------------------------------------------------------------------------------------------------------------
    # 3. Self-supervision

    def _fit_cycles(
        self, train: TrainingSet, shown: Sequence[Shown], number: Mapping[str, int], known: Answers, run: RunFolder
    ) -> dict[str, Any]:
        """Train the decoder on with cycles video -> fMRI^ -> video^ beside the pairs, and return what was chosen."""
        config, samples = self.config, train.samples
        assert config.cycles is not None
        bold, clips = [], []
        for each in shown:
            times = each.onsets_s[:, None] + samples.lags_s  # (clips, trs)
            bold.append(self._predict(each, times.ravel()).reshape(*times.shape, -1))
            clips.append(each.clips)
        starts = known.starts(self.window_[0], samples.tr_s)
        cycles = Cycles(np.concatenate(bold), np.concatenate(clips), known.errors, starts)
        chosen: dict[str, Any] = {}
        if self.pairs_ is not None and max(config.shares) > 0:
            rng = generator(self.seed_, "encoder-decoder", "cycled")
            rows = np.sort(rng.permutation(len(cycles.clips))[: config.cycled])
            seeds = rng.integers(2**62, size=len(rows))
            codes = self.basis_.codes(cycles.clips[rows])
            blocks = rows // max(1, round(20 / self.clips_step_s()))
            self.cycles_ = self._read(cycles.brain(rows, seeds), codes, blocks)
            self.share_ = config.shares[0]
            if len(config.shares) > 1 and known.ridge is not None:
                chosen = self._choose_share(samples, shown, number, known, rows, seeds)
            else:
                self.held_out_ = self._mean_code(self.pairs_.held_out_, samples.brain)
            chosen |= {"from_cycles": self.share_}
            if self.share_ == 0:
                self.cycles_ = None
        self._train(train, self.held_out_, cycles, config.cycles, "cycles", run)
        return chosen

    def _choose_share(
        self,
        samples: Samples,
        shown: Sequence[Shown],
        number: Mapping[str, int],
        known: Answers,
        rows: np.ndarray,
        seeds: np.ndarray,
    ) -> dict[str, Any]:
        """Choose how much the regression on cycles says, and return the errors of every share.

        Every fold of the training windows is read by an encoder and by cycles that know neither its volumes nor its
        clips; penalties are those that the whole fit chose.

        Parameters
        ----------
        rows, seeds : clips of the cycles and of their errors, as in the whole fit.
        """
        assert known.ridge is not None and self.cycles_ is not None and self.pairs_ is not None
        assert samples.clips is not None
        bold = np.concatenate([one.bold for one in known.volumes])
        clips = _rows([each.clips for each in shown], rows)
        place = np.repeat(np.arange(len(shown)), [len(each.clips) for each in shown])[rows]
        onsets = np.concatenate([each.onsets_s for each in shown])[rows]
        times = onsets[:, None] + samples.lags_s  # (n, trs)
        design = np.concatenate([self._design(each, times[place == at].ravel()) for at, each in enumerate(shown)])
        design = design.reshape(*times.shape, -1)
        starts, trs = known.starts(self.window_[0], samples.tr_s), np.arange(self.window_[0])
        read = np.empty_like(self.pairs_.held_out_)
        for _, held in self.pairs_.folds(samples.block):
            other, own = samples.take(held), np.zeros(len(rows), dtype=bool)
            inside = known.within(other)
            for run in np.unique(other.run):
                apart = np.abs(onsets[:, None] - other.onset_s[other.run == run]).min(1)
                own |= (place == number[str(run)]) & (apart < self.clip_s_ - _CLOSE_S)
            ridge = known.ridge.again(known.design[~inside][:, None], bold[~inside])
            made = ridge.predict(design[~own].reshape(-1, 1, design.shape[2])).reshape(-1, *self.window_)
            free = starts[~inside[starts[:, None] + trs].any(1)]
            noisy = Cycles(made, clips[~own], known.errors, free).brain(np.arange(len(made)), seeds[~own])
            read[held] = self.cycles_.again(noisy, self.basis_.codes(clips[~own])).predict(other.brain)
        mixed = {share: _mix(self.pairs_.held_out_, read, share) for share in self.config.shares}
        errors = {share: self._error(self.basis_, codes, samples.clips) for share, codes in mixed.items()}
        self.share_ = min(self.config.shares, key=lambda share: errors[share])
        self.held_out_ = mixed[self.share_]
        return {"errors_of_from_cycles": errors}

    def clips_step_s(self) -> float:
        """Return the time from one clip of a cycle to the next."""
        return self.clip_s_ / self.config.every

    def _external(self, videos: Sequence[Video]) -> list[Shown]:
        """Return what the videos show that nobody was scanned with."""
        more = list(videos)
        if self.config.external:
            folder = Path(self.config.external).expanduser()
            rule = "must be a folder with videos (*.mp4)"
            files = sorted(folder.glob("*.mp4")) if folder.is_dir() else []
            checks.require(bool(files), "external", rule, "none" if folder.is_dir() else "no folder", folder)
            more += [open_video(file) for file in files]
        return [self.clips_of(video, video.name) for video in more]

    # -----------------------------------------------------------------------------------------------------------------
    # Movement

    def _fit_motion(self, samples: Samples, most: int = 240) -> dict[str, Any]:
        """Fit the regression to movement, keep it if held-out windows, so many at most, move better by it, and tell."""
        config = self.config
        assert samples.clips is not None
        if config.motion == 0 or self.pairs_ is None:
            return {}
        own = {name: getattr(config, name) for name in ("grid", "quiet", "reading", "combines")}
        settings = MovementConfig(components=config.motion, **own)
        movement = BrainMovement.fit(samples.brain, samples.clips, samples.block, settings)
        if movement is None:
            return {}
        rows = np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(int)
        made = self.decoder_.show(self.held_out_[rows])
        told = movement.choose(made, movement.reading.held_out_[rows], samples.clips[rows])
        self.motion_ = movement if told["carried"] else None
        return told

    # -----------------------------------------------------------------------------------------------------------------
    # Transduction

    def adapted(self, bold: Samples) -> Decoder:
        """Return a copy of the decoder after cycles fMRI -> video^ -> fMRI^ on windows, whose truth isn't needed.

        Windows of a run are taken in stretches, so that the encoder has what was shown before each volume.
        """
        decoder = copy.deepcopy(self.decoder_)
        stretches = stretches_of(bold, self.clip_s_, max(self.config.encoder.delays_s))
        loop = self.config.transduction
        loop = loop.model_copy(update={"seed": self.seed_, "batch": min(loop.batch, len(stretches))})
        inputs = self.inputs(bold.brain)
        source = Asked(bold, inputs, stretches, self.clip_s_, self.config.encoder.delays_s)
        net, _ = train_watched(decoder, self.asked_loss, source, loop, cpu=True)
        assert isinstance(net, Decoder)
        return net

    def asked_loss(self, net: nn.Module, batch: Batch) -> Tensor:
        """Return the encoding loss of the videos that are made of stretches of windows, (stretches,)."""
        losses = []
        for inputs, mixing, brain in zip(batch["inputs"], batch["mixing"], batch["brain"], strict=True):
            features = self.encoder_.trunk(net(inputs).clamp(-1, 1))
            losses.append(encoding_loss(self.encoder_.answer(features, mixing), brain, self.config.cosine).mean())
        return torch.stack(losses)

    # -----------------------------------------------------------------------------------------------------------------
    # Networks and files

    def open_networks(self) -> None:
        """Open the networks that the losses and the encoder look through."""
        self.perceptual: PerceptualLoss = open_perceptual(self.config.perceptual)
        self.embedding: ClipEmbedding = open_clip_embedding(self.config.video)

    def save(self, folder: Path) -> None:
        """Write config and weights; the networks that are looked through are read again by their names."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / "config.json")
        trunk = self.encoder_.trunk
        own = dict(trunk.named_buffers(recurse=False)) if isinstance(trunk, FrozenTrunk) else trunk.state_dict()
        tensors = {f"trunk.{name}": value for name, value in own.items()}
        tensors |= {f"readout.{name}": value for name, value in self.encoder_.readout.state_dict().items()}
        tensors |= {f"decoder.{name}": value for name, value in self.decoder_.state_dict().items()}
        arrays = self.basis_.arrays() | {"centre": self.centre_, "spread": self.spread_}
        tensors |= {f"array.{name}": torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
        about = {
            "shape": " ".join(map(str, self.shape_)),
            "window": " ".join(map(str, self.window_)),
            "clip_s": str(self.clip_s_),
            "seed": str(self.seed_),
            "share": str(self.share_),
        }
        write_state(folder / "weights.safetensors", tensors, about=about)
        for name, reading in (("pairs", self.pairs_), ("cycles", self.cycles_)):
            if reading is not None:
                reading.save(folder, name)
        if self.motion_ is not None:
            self.motion_.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the system that `save` wrote."""
        system = cls(EncoderDecoderConfig.load(folder / "config.json"))
        file = folder / "weights.safetensors"
        about, state = read_about(file), read_state(file)
        system.shape_ = tuple(int(side) for side in about["shape"].split())
        trs, voxels = (int(side) for side in about["window"].split())
        system.window_, system.clip_s_, system.seed_ = (trs, voxels), float(about["clip_s"]), int(about["seed"])
        system.open_networks()
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in ("trunk", "readout", "decoder", "array")}
        for name, value in state.items():
            part, _, key = name.partition(".")
            parts[checks.one_of("part of the weights", part, parts, file)][key] = value
        trunk = system._trunk()
        if isinstance(trunk, FrozenTrunk):
            trunk.restore(parts["trunk"])
        else:
            fill(trunk, parts["trunk"], file)
        system.encoder_ = VideoEncoder(trunk, voxels, system.config.encoder.delays_s).eval().requires_grad_(False)
        fill(system.encoder_.readout, parts["readout"], file)
        arrays = {name: value.numpy() for name, value in parts["array"].items()}
        system.centre_, system.spread_ = arrays.pop("centre"), arrays.pop("spread")
        system.motion_ = BrainMovement.load(folder)
        system.basis_ = ClipBasis().restore(arrays)
        if system.config.front == "ridge":
            system.pairs_ = WindowDecoder.load(folder, "pairs")
            system.share_ = float(about["share"])
            if system.share_ > 0:
                system.cycles_ = WindowDecoder.load(folder, "cycles")
        system.decoder_ = system._assemble()
        fill(system.decoder_, parts["decoder"], file)
        system.decoder_.eval()
        return system


# ---------------------------------------------------------------------------------------------------------------------
# Volumes, stretches and videos on the clock


@dataclass(frozen=True)
class _Volumes:
    """The volumes of one run that windows have: times (n,), bold (n, voxels), block (n,), in order."""

    run: str
    times_s: np.ndarray
    bold: np.ndarray
    block: np.ndarray


def _volumes(samples: Samples) -> list[_Volumes]:
    """Return every volume of the windows once, by run."""
    found = []
    trs = samples.brain.shape[1]
    for run in np.unique(samples.run):
        rows = np.flatnonzero(samples.run == run)
        times = (samples.onset_s[rows, None] + samples.lags_s).ravel()
        _, first = np.unique(_ticks(times), return_index=True)
        own, tr = rows[first // trs], first % trs
        found.append(_Volumes(str(run), times[first], samples.brain[own, tr], samples.block[own]))
    return found


def _ticks(times_s: np.ndarray) -> np.ndarray:
    """Return times as whole numbers that are the same where the times all but are."""
    return np.round(times_s / _CLOSE_S).astype(np.int64)


def _starts(volumes: Sequence[_Volumes], trs: int, tr_s: float) -> np.ndarray:
    """Return the numbers of the volumes, all runs one after the other, that `trs` volumes in a row begin with."""
    starts, before = [], 0
    for one in volumes:
        n = len(one.times_s)
        at = np.arange(max(0, n - trs + 1))
        whole = np.abs(one.times_s[at + trs - 1] - one.times_s[at] - (trs - 1) * tr_s) < _CLOSE_S * 10
        starts.append(before + at[whole])
        before += n
    return np.concatenate(starts) if starts else np.zeros(0, int)


@dataclass(frozen=True)
class _Watched:
    """Volumes with the clips that were shown at each delay before them, for a trunk that is learnt."""

    volumes: Sequence[_Volumes]
    shown: Mapping[str, Shown]
    delays_s: tuple[float, ...]

    def epoch(self, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return all volumes in another order, in batches."""
        return in_batches(rng.permutation(sum(len(one.bold) for one in self.volumes)), batch)

    def read(self, rows: np.ndarray, seeds: np.ndarray) -> Batch:
        """Return volumes and their clips; before the first one it is shown as if still."""
        ends = np.cumsum([len(one.bold) for one in self.volumes])
        seen, bold = [], []
        for row in rows:
            number = int(np.searchsorted(ends, row, side="right"))
            one = self.volumes[number]
            at = int(row - (ends[number - 1] if number else 0))
            shown = self.shown[one.run]
            wanted = one.times_s[at] - np.asarray(self.delays_s)
            nearest = np.abs(wanted[:, None] - shown.onsets_s).argmin(1)
            seen.append(to_signed(shown.clips[nearest]))
            bold.append(one.bold[at])
        return {"seen": torch.stack(seen), "bold": torch.from_numpy(np.stack(bold))}


@dataclass(frozen=True)
class Asked:
    """Stretches of windows that are asked for, with how the clips made of them mix into the windows' volumes."""

    bold: Samples
    inputs: np.ndarray
    stretches: Sequence[np.ndarray]
    clip_s: float
    delays_s: tuple[float, ...]

    def epoch(self, batch: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return all stretches in another order, in batches."""
        return in_batches(rng.permutation(len(self.stretches)), batch)

    def read(self, rows: np.ndarray, seeds: np.ndarray) -> Batch:
        """Return lists, an entry for each stretch: inputs, mixing, volumes."""
        found: Batch = {"inputs": [], "mixing": [], "brain": []}
        for row in rows:
            own = self.stretches[row]
            onsets = self.bold.onset_s[own]
            times = (onsets[:, None] + self.bold.lags_s).ravel()
            mixing = mixing_of(onsets, self.clip_s, times, self.delays_s)
            known = mixing.sum((1, 2)) > 0.5 * len(self.delays_s)
            known = known if known.any() else mixing.sum((1, 2)) > 0
            brain = self.bold.brain[own].reshape(len(times), -1)[known]
            for key, value in (("inputs", self.inputs[own]), ("mixing", mixing[known]), ("brain", brain)):
                found[key].append(torch.from_numpy(np.ascontiguousarray(value)))
        return found


def stretches_of(bold: Samples, clip_s: float, before_s: float, most: int = 12) -> list[np.ndarray]:
    """Return numbers of windows of one run that follow on each other without a long gap, so many at most."""
    found = []
    for run in np.unique(bold.run):
        rows = np.flatnonzero(bold.run == run)
        rows = rows[np.argsort(bold.onset_s[rows], kind="stable")]
        gaps = np.flatnonzero(np.diff(bold.onset_s[rows]) > before_s) + 1
        for part in np.split(rows, gaps):
            found += [part[at : at + most] for at in range(0, len(part), most)]
    return found


def _mix(of_pairs: np.ndarray, of_cycles: np.ndarray, share: float) -> np.ndarray:
    return ((1 - share) * of_pairs + share * of_cycles).astype(np.float32)


def _rows(parts: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Return some rows of arrays that lie one after the other; the whole is never copied."""
    ends = np.cumsum([0, *map(len, parts)])
    inside = [rows[(rows >= a) & (rows < b)] - a for a, b in pairwise(ends)]
    return np.concatenate([part[own] for part, own in zip(parts, inside, strict=True)])
