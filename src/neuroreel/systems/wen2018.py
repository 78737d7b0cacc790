"""wen2018: movies to the brain and back through a convolutional network (Wen et al. 2018, Cereb. Cortex 28:4136).

Encoding, from what is shown to every voxel:
    reproducibility   which voxels answer alike to two showings of a segment
    layer map         for each voxel the layer whose best unit correlates with it most
    encoding models   eight layers -> log -> principal components -> haemodynamic response -> voxelwise ridge
                      (ours, where asked: motion energy beside the layers, for each voxel the layers that suit it, and
                      stacked with these a model of one receptive field for each voxel)

Decoding, from the reproducible voxels to what is shown:
    pictures          voxels -> maps of the first layer, by regression with an L1 penalty -> De-CNN -> pixels
    meaning           voxels -> principal components of fc7, by kernel ridge -> fc7 -> fc8 -> softmax -> categories

The lag lies on the clock and is counted once: encoding samples the response at the volumes' own times (`Bold.start_s`),
decoding reads the volumes of the window (`Window.first_lag_s`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from neuroreel.brain.encoding import (
    EncodingConfig,
    EncodingModel,
    best_unit_correlation,
    layer_index,
    stack_weights,
)
from neuroreel.brain.linear import ComponentRidge, ComponentRidgeConfig, L1Decoder, L1DecoderConfig
from neuroreel.brain.receptive_fields import Pooled, ReceptiveFieldConfig, ReceptiveFieldModel
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.sets import TrainingSet, require_training, resize
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Bold, Reconstruction, Run, Samples, Video
from neuroreel.features.alexnet import AlexNetExtractor, AlexNetFeaturesConfig
from neuroreel.features.fields import FieldPooling, Fields, FieldsConfig, PooledVolumes
from neuroreel.features.motion_energy import MotionEnergyConfig, MotionEnergyExtractor
from neuroreel.features.streaming import FeatureStream, StreamConfig
from neuroreel.metrics.encoding import VoxelScores, score_voxels
from neuroreel.nets.world import alexnet_card
from neuroreel.preprocess.clean import polynomials
from neuroreel.preprocess.repeats import average_repeats, group_repeats, split_half_ceiling, stack_repeats
from neuroreel.preprocess.timing import HrfSampling, hrf_by_name, volume_times
from neuroreel.preprocess.voxels import Reproducibility, reproducibility

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from torch import Tensor

MAPS, CODE = "conv1", "fc7"
MOTION = MotionEnergyExtractor.layers[0]
COVERED = 0.75
"""Share of the response's weight that must fall within the movie for a volume to be used."""
STEPS = 12
"""Least number of steps in an epoch of the visual decoder."""
UNITS_AT_ONCE, CLIPS_AT_ONCE = 2048, 32


class HeadConfig(Config):
    """How the categories are learnt from fc7 where the network doesn't know them: as `fit.classifier` says."""

    epochs: int = Field(default=30, ge=1)
    batch: int = Field(default=64, ge=1)
    rate: float = Field(default=1e-2, gt=0)
    l2: float = Field(default=1e-3, ge=0)


class FieldModelConfig(Config):
    """A model of one receptive field for each voxel (St-Yves & Naselaris 2018) beside the encoding models.

    Attributes
    ----------
    grid : the fields to choose from, see `FieldsConfig`.
    model : see `ReceptiveFieldConfig`; its spaces beside the maps are the layers' and motion energy's components.
    fps : rate at which the movies' frames are looked at for it; None looks at all.
    """

    grid: FieldsConfig = FieldsConfig()
    model: ReceptiveFieldConfig = ReceptiveFieldConfig()
    fps: float | None = Field(default=None, gt=0)


class Wen2018Config(Config):
    """Settings of wen2018.

    Attributes
    ----------
    network : the AlexNet and its layers: "world" (shipped), or a file of weights with its SHA-256 and layout.
    classes : names of the units of fc8, in order; those of "world" come with its weights. Empty, or others than the
        training set's categories: the categories are learnt from fc7 of the training clips.
    encode : fit the encoding direction too.
    fps : rate at which the movies' frames are looked at for encoding; None looks at all.
    stream : logarithm and principal components of the layers. One frame a second enters the components.
    hrf : name of the haemodynamic response.
    other_hrfs : names of more responses; each voxel takes the one (and the group of spaces, see `EncodingConfig`) that
        predicts held-out volumes best. Ours: delays differ between areas and vessels. Empty: `hrf` for all.
    encoding : see `EncodingConfig`; its spaces are the layers, and "motion-energy" where there is one.
    motion : motion energy of the whole movie as one more space of the encoding models, an extension in the manner of
        Nishimoto et al. 2011 (Curr. Biol. 21:1641); None, as in the paper: the network's layers alone.
    detrend : order of the polynomial that is taken out of the features of each run at its volumes: what cleaning took
        out of the BOLD can't be predicted. None, as in the paper: the features as they are.
    fields : a model of one receptive field for each voxel too; each voxel weighs the two predictions by how well they
        predict held-out volumes (`stack_weights`). None, as in the paper: no such model.
    voxels : decode from "reproducible" voxels (segments must have been shown twice or more) or from "all".
    alpha, correction : level of the test of reproducibility, and how it is corrected for the number of voxels.
    pieces : the test needs so many stretches of time; fewer segments are cut into equal pieces. The paper has 18.
    combine : "mean" averages the volumes of a window, "concat" gives each its own weights.
    cells : the maps of the first layer are decoded as averages over so many cells a side [open: the paper decodes every
        position; a voxel sees more than one].
    visual : see `L1DecoderConfig`.
    semantic : see `ComponentRidgeConfig`.
    head : see `HeadConfig`.
    """

    network: AlexNetFeaturesConfig = AlexNetFeaturesConfig()
    classes: tuple[str, ...] = ()
    encode: bool = True
    fps: float | None = Field(default=None, gt=0)
    stream: StreamConfig = StreamConfig(pca_fps=1.0)
    hrf: str = "wen2018"
    other_hrfs: tuple[str, ...] = ()
    encoding: EncodingConfig = EncodingConfig()
    motion: MotionEnergyConfig | None = None
    detrend: int | None = Field(default=None, ge=0)
    fields: FieldModelConfig | None = None
    voxels: Literal["reproducible", "all"] = "reproducible"
    alpha: float = Field(default=0.05, gt=0, lt=1)
    correction: Literal["bonferroni", "fdr", "none"] = "bonferroni"
    pieces: int = Field(default=18, ge=2)
    combine: Literal["mean", "concat"] = "mean"
    cells: int = Field(default=16, ge=1)
    visual: L1DecoderConfig = L1DecoderConfig()
    semantic: ComponentRidgeConfig = ComponentRidgeConfig()
    head: HeadConfig = HeadConfig()


@dataclass(frozen=True, eq=False)
class EncodingScores:
    """How well test movies predict the voxels.

    Attributes
    ----------
    voxels : correlation, R2, both over the ceiling, p of the block permutation, significant voxels.
    ceiling : (voxels,) the highest correlation that a perfect model can have; NaN where nothing was repeated.
    predicted, measured : (trs, voxels) float32.
    """

    voxels: VoxelScores
    ceiling: np.ndarray
    predicted: np.ndarray
    measured: np.ndarray


class Wen2018:
    """Both directions of Wen et al. 2018.

    Attributes
    ----------
    voxels_ : (voxels,) bool, those that are decoded from.
    reproducibility_ : `Reproducibility` of the training segments, None where too few were repeated; not saved.
    layer_correlation_ : (layers, voxels) the best correlation with a unit of each layer; encoding only.
    encoding_ : the fitted `EncodingModel`; encoding only.
    fields_ : the fitted `ReceptiveFieldModel`, where there is one.
    stack_ : (3, voxels) weights of the predictions of `encoding_` and `fields_`, and the intercept.
    visual_, semantic_ : the fitted decoders.
    """

    name: ClassVar[str] = "wen2018"
    Settings: ClassVar[type[Config]] = Wen2018Config

    def __init__(self, config: Wen2018Config | None = None) -> None:
        self.config: Wen2018Config = config if config is not None else Wen2018Config()
        self.network = AlexNetExtractor(self.config.network)
        self.reproducibility_: Reproducibility | None = None
        self.stream_: FeatureStream | None = None
        self.motion_: FeatureStream | None = None
        self.encoding_: EncodingModel | None = None
        self.fields_: ReceptiveFieldModel | None = None
        self.stack_: np.ndarray | None = None
        self.layer_correlation_: np.ndarray | None = None

    @property
    def makes(self) -> frozenset[str]:
        """What the fitted system makes: pictures, categories where there are any, and BOLD (`encode`)."""
        made = {"video" if self.shape_[0] > 1 else "image"}
        made |= {"category"} if self.categories_ else set()
        return frozenset(made | ({"bold"} if self.encoding_ is not None else set()))

    def fit(self, train: TrainingSet, *, run: RunFolder) -> Self:
        """Fit both directions on the training set and return self.

        Raises
        ------
        DataError
            If the training set has no pictures, or encoding is asked for and no run has a video.
        """
        samples = require_training(train).samples
        checks.require(samples.clips is not None, "training samples of wen2018", "must have clips", "none")
        assert samples.clips is not None
        self.shape_ = samples.clips.shape[1:]
        self.voxels_ = self._choose_voxels(train.runs)
        if self.config.encode:
            self._fit_encoding(train.runs, run)
        maps, codes = self._look(samples.clips)
        self._fit_pictures(samples, maps, run)
        self._fit_meaning(samples, codes, run)
        return self

    # -----------------------------------------------------------------------------------------------------------------
    # Encoding

    def _choose_voxels(self, runs: Sequence[Run]) -> np.ndarray:
        """Return the voxels that answer alike to two showings of the training segments; all where that isn't known."""
        everything = np.ones(runs[0].bold.space.size, dtype=bool)
        repeated = [group for group in group_repeats(runs) if len(group) > 1]
        if not repeated:
            return everything
        cuts = -(-self.config.pieces // len(repeated))
        first, second = (
            [part for group in repeated for part in _pieces(group[number].bold.data, cuts)] for number in (0, 1)
        )
        if len(first) < 2:
            return everything
        self.reproducibility_ = reproducibility(first, second)
        chosen = self.reproducibility_.chosen(self.config.alpha, self.config.correction)
        return chosen if self.config.voxels == "reproducible" and chosen.any() else everything

    def _fit_encoding(self, runs: Sequence[Run], folder: RunFolder) -> None:
        shown = [each.run for each in average_repeats(runs) if each.run.video is not None]
        rule = "must have a video in one or more of them (encode=false fits the decoders only)"
        checks.require(bool(shown), "training runs of wen2018", rule, "none")
        stream = FeatureStream(self.network, folder.file("features/stream.json").parent, self.config.stream)
        scores = stream.fit_transform([self._video(run) for run in shown], [self._samplings(run) for run in shown])
        rows = [covered(self._sampling(run)) for run in shown]
        bold = np.concatenate([run.bold.data[kept] for run, kept in zip(shown, rows, strict=True)])
        segments = np.repeat(np.arange(len(shown)), [int(kept.sum()) for kept in rows])
        self.stream_ = stream
        if self.config.motion is not None:
            place = folder.file("motion/stream.json").parent
            self.motion_ = FeatureStream(MotionEnergyExtractor(self.config.motion), place, self.config.stream)
            samplings = [self._samplings(run, _whole(run)) for run in shown]
            found = self.motion_.fit_transform([_whole(run) for run in shown], samplings)
            scores = [one | more for one, more in zip(scores, found, strict=True)]
        spaces = [self._spaces(one, kept) for one, kept in zip(scores, rows, strict=True)]
        joined = {
            name: np.concatenate([one[name][kept] for one, kept in zip(spaces, rows, strict=True)])
            for name in spaces[0]
        }
        self.layer_correlation_ = np.stack(
            [best_unit_correlation(self._units(layer, joined[layer]), bold)[0] for layer in self.network.layers]
        )
        settings = self._encoding_config(tuple(scores[0]))
        both = self.config.fields is not None
        self.encoding_ = EncodingModel(settings).fit(joined, bold, segments, device=folder.device, held_out=both)
        if both:
            self._fit_fields(shown, rows, joined, bold, segments)

    def _fit_fields(
        self,
        shown: Sequence[Run],
        rows: Sequence[np.ndarray],
        spaces: Mapping[str, np.ndarray],
        bold: np.ndarray,
        segments: np.ndarray,
    ) -> None:
        """Fit the receptive fields, and how far each voxel trusts them beside the encoding models."""
        settings, encoding = self.config.fields, self.encoding_
        assert settings is not None and encoding is not None
        with tempfile.TemporaryDirectory(prefix="neuroreel-fields-") as scratch:
            pooled = [self._pool(run, Path(scratch) / f"run{number}") for number, run in enumerate(shown)]
            model = ReceptiveFieldModel(settings.model)
            n_fields = len(Fields.of(settings.grid))
            self.fields_ = model.fit(self._sources(pooled, rows), n_fields, bold, segments, self._beside(spaces))
            for part in pooled:
                part.close()
        weights, intercept = stack_weights(np.stack([encoding.held_out_, model.held_out_]), bold)
        self.stack_ = np.concatenate([weights, intercept[None]])

    def _pool(self, run: Run, file: Path) -> PooledVolumes:
        """Return the maps of a run's video under every field at its volumes, for every response."""
        settings = self.config.fields
        assert settings is not None
        video = thinned(_whole(run), settings.fps)
        return FieldPooling(self.network, settings.grid).volumes(video, self._samplings(run, video), file)

    def _sources(
        self, pooled: Sequence[PooledVolumes], rows: Sequence[np.ndarray], *, every: bool = False
    ) -> list[Pooled]:
        """Return for every response what gives the features of a field: all runs, their kept volumes or `every` one."""
        count = 1 + len(self.config.other_hrfs)

        def source(response: int) -> Pooled:
            def read(field: int) -> np.ndarray:
                parts = []
                for part, kept in zip(pooled, rows, strict=True):
                    values = self._detrended(part.field(field).reshape(count, len(kept), -1)[response], kept)
                    parts.append(values if every else values[kept])
                return np.concatenate(parts)

            return read

        return [source(response) for response in range(count)]

    def _beside(self, spaces: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Return for every response the spaces that the receptive fields may have beside the maps."""
        assert self.config.fields is not None
        names = dict.fromkeys(name for group in self.config.fields.model.beside for name in group)
        for name in names:
            checks.one_of("space beside the maps", name, spaces)
        return [{name: spaces[_space(name, hrf)] for name in names} for hrf in ("", *self.config.other_hrfs)]

    def _encoding_config(self, names: tuple[str, ...]) -> EncodingConfig:
        """Return the config with the groups of spaces of every response."""
        settings = self.config.encoding
        if not self.config.other_hrfs:
            return settings
        groups = settings.groups or (names,)
        more = tuple(tuple(_space(name, hrf) for name in group) for hrf in self.config.other_hrfs for group in groups)
        return settings.model_copy(update={"groups": (*groups, *more)})

    def _spaces(self, scores: Mapping[str, np.ndarray], kept: np.ndarray) -> dict[str, np.ndarray]:
        """Return the spaces (trs, components) of scores of all responses, (responses * trs, components) by layer.

        Parameters
        ----------
        kept : (trs,) bool, the volumes that are used.
        """
        names = ("", *self.config.other_hrfs)
        return {
            _space(layer, hrf): self._detrended(part, kept)
            for number, hrf in enumerate(names)
            for layer, values in scores.items()
            for part in [values.reshape(len(names), -1, values.shape[1])[number]]
        }

    def _detrended(self, values: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Return features (trs, units) of one run without the trend of the volumes that are used."""
        if self.config.detrend is None:
            return values
        trend = polynomials(len(values), self.config.detrend)
        weights = np.linalg.lstsq(trend[kept], values[kept].astype(np.float64))[0]
        return (values - trend @ weights).astype(np.float32)

    @property
    def layer_index_(self) -> np.ndarray:
        """The number of each voxel's best layer, from 1, (voxels,) int."""
        checks.require(self.layer_correlation_ is not None, "wen2018", "must be fitted with encode=true", "no maps")
        assert self.layer_correlation_ is not None
        return layer_index(self.layer_correlation_)

    def encode(self, run: Run) -> Bold:
        """Return the BOLD that a run's video predicts, at the run's volumes, (trs, voxels); its own BOLD isn't read.

        Raises
        ------
        DataError
            If the run has no video, or the system was fitted without encoding.
        """
        checks.require(self.encoding_ is not None, "wen2018", "must be fitted with encode=true", "decoders only")
        checks.require(run.video is not None, f"run {run.bold.run}", "must have a video to be encoded", "none")
        assert self.encoding_ is not None and self.stream_ is not None
        scores = self.stream_.transform(self._video(run), self._samplings(run))
        if self.motion_ is not None:
            scores |= self.motion_.transform(_whole(run), self._samplings(run, _whole(run)))
        kept = covered(self._sampling(run))
        spaces = self._spaces(scores, kept)
        predicted = self.encoding_.predict(np.concatenate(list(spaces.values()), axis=1))
        if self.fields_ is not None and self.stack_ is not None:
            predicted = (
                self.stack_[0] * predicted + self.stack_[1] * self._by_fields(run, spaces, kept) + self.stack_[2]
            )
        return replace(run.bold, data=predicted.astype(np.float32))

    def _by_fields(self, run: Run, spaces: Mapping[str, np.ndarray], kept: np.ndarray) -> np.ndarray:
        """Return what the receptive fields alone predict of a run, (trs, voxels)."""
        assert self.fields_ is not None
        with tempfile.TemporaryDirectory(prefix="neuroreel-fields-") as scratch:
            pooled = self._pool(run, Path(scratch) / "run")
            sources = self._sources([pooled], [kept], every=True)
            predicted = self.fields_.predict(sources, self._beside(spaces))
            pooled.close()
        return predicted

    def score_encoding(
        self, runs: Sequence[Run], *, q: float = 0.01, block_s: float = 20.0, seed: int = 0, n: int = 1000
    ) -> EncodingScores:
        """Score the encoding models on test runs: repeats averaged, blocks permuted, beside the noise ceiling.

        Parameters
        ----------
        runs : test runs with videos; runs of one stimulus are its repeats.
        q : false discovery rate.
        block_s : length of the blocks that are permuted, in seconds.
        seed, n : of the permutations.
        """
        predicted: list[np.ndarray] = []
        measured: list[np.ndarray] = []
        blocks: list[np.ndarray] = []
        ceilings: list[np.ndarray] = []
        for group in group_repeats(runs):
            mean = average_repeats(group)[0].run
            kept = covered(self._sampling(mean))
            predicted.append(self.encode(mean).data[kept])
            measured.append(mean.bold.data[kept])
            number = np.floor(np.arange(len(kept)) * mean.bold.tr_s / block_s)[kept].astype(int)
            blocks.append(number + (blocks[-1].max() + 1 if blocks else 0))
            if len(group) > 1:
                ceilings.append(split_half_ceiling(stack_repeats(group)[:, kept], seed=seed))
        size = runs[0].bold.space.size
        ceiling = np.mean(ceilings, axis=0) if ceilings else np.full(size, np.nan)
        both = np.concatenate(predicted), np.concatenate(measured)
        scores = score_voxels(*both, np.concatenate(blocks), ceiling=ceiling if ceilings else None, q=q, seed=seed, n=n)
        return EncodingScores(scores, ceiling, *both)

    def _video(self, run: Run) -> Video:
        assert run.video is not None
        return thinned(run.video, self.config.fps)

    def _samplings(self, run: Run, video: Video | None = None) -> csr_array:
        """Return what `_sampling` returns for every response, one below the other, (responses * trs, frames)."""
        from scipy.sparse import vstack

        names = (self.config.hrf, *self.config.other_hrfs)
        return vstack([self._sampling(run, video, name) for name in names], format="csr")

    def _sampling(self, run: Run, video: Video | None = None, hrf: str | None = None) -> csr_array:
        """Return the response and the sampling of a run's frames at its volumes, (trs, frames) sparse.

        Parameters
        ----------
        video : the run's video at the rate at which it is looked at; None for that of the network's layers.
        """
        video = self._video(run) if video is None else video
        response = hrf_by_name(hrf or self.config.hrf)
        return HrfSampling.of(
            video.shape[0], video.fps, volume_times(run.bold), response, start_s=video.start_s
        ).weights

    def _units(self, layer: str, scores: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the time courses (trs, units) of a layer, some units at a time, up to scale and offset.

        Response and sampling commute with the components, so these are the units' own courses less the share of the
        variance that the components leave out.
        """
        assert self.stream_ is not None
        basis = self.stream_.bases_[layer]
        for start in range(0, len(basis.mean), UNITS_AT_ONCE):
            part = basis.components.read(slice(start, start + UNITS_AT_ONCE), slice(None))
            yield scores @ part.T

    # -----------------------------------------------------------------------------------------------------------------
    # Decoding

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return the pictures of decoded maps, and the probability of every category where there are any."""
        x = self._window(bold)
        return self._answer(self.visual_.predict(x), self.semantic_.predict(x) if self.categories_ else None)

    def ceiling(self, truth: Samples) -> Reconstruction | None:
        """Return the truth's own maps through the De-CNN, and its own fc7 through fc8."""
        if truth.clips is None:
            return None
        maps, codes = self._look(truth.clips)
        return self._answer(maps, codes if self.categories_ else None)

    def _window(self, bold: Samples) -> np.ndarray:
        """Return the chosen voxels of brain windows, (clips, voxels) or (clips, trs * voxels)."""
        checks.same_length("voxels", bold.brain.shape[2], "the training set's", len(self.voxels_))
        chosen = bold.brain[:, :, self.voxels_]
        return chosen.mean(axis=1) if self.config.combine == "mean" else chosen.reshape(len(chosen), -1)

    def _look(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first layer's maps in cells and fc7, both averaged over a clip's frames, (clips, units) each."""
        channels, height, width = self.network.shape(MAPS)
        looker = AlexNetExtractor(self.config.network.model_copy(update={"layers": (MAPS, CODE)}))
        looker.__dict__["net"] = self.network.net  # the weights are read once
        cells = min(self.config.cells, height, width)
        maps = np.empty((len(clips), channels, cells, cells), dtype=np.float32)
        codes = np.empty((len(clips), looker.n_units[CODE]), dtype=np.float32)
        for start in range(0, len(clips), CLIPS_AT_ONCE):
            part = clips[start : start + CLIPS_AT_ONCE]
            found = looker.extract_layers(part.reshape(-1, *part.shape[2:]), 1.0)
            mean = {layer: values.reshape(len(part), -1, values.shape[1]).mean(1) for layer, values in found.items()}
            grid = mean[MAPS].reshape(-1, height, width)
            maps[start : start + len(part)] = into_cells(grid, cells).reshape(len(part), channels, cells, cells)
            codes[start : start + len(part)] = mean[CODE]
        return maps.reshape(len(clips), -1), codes

    def _fit_pictures(self, samples: Samples, maps: np.ndarray, run: RunFolder) -> None:
        batch = min(self.config.visual.batch, max(1, len(samples) // STEPS))  # a short recording still takes its steps
        settings = self.config.visual.model_copy(update={"device": run.device, "seed": run.seed, "batch": batch})
        self.visual_ = L1Decoder(settings).fit(self._window(samples), maps)

    def _fit_meaning(self, samples: Samples, codes: np.ndarray, run: RunFolder) -> None:
        settings = self.config.semantic.model_copy(update={"device": run.device})
        self.semantic_ = ComponentRidge(settings).fit(self._window(samples), codes, samples.block)
        named = tuple(str(name) for name in np.unique(samples.category) if name)
        classes = self._classes()
        self.categories_ = named if len(named) >= 2 else classes
        if not self.categories_:
            self.head_ = {}
        elif set(self.categories_) <= set(classes):
            fc8 = self.network.net.get_submodule("fc8")
            units = [classes.index(name) for name in self.categories_]
            self.head_ = {name: getattr(fc8, name).detach().numpy()[units] for name in ("weight", "bias")}
        else:
            self.head_ = self._learn_head(samples, codes, run.seed)

    def _classes(self) -> tuple[str, ...]:
        """Return the names of the units of fc8, empty where they aren't known."""
        if self.config.network.weights == "world" and not self.config.classes:
            known = alexnet_card()["classes"]
            return tuple(str(name) for name in known) if isinstance(known, list) else ()
        units = self.network.net.config.n_classes
        if self.config.classes:
            checks.same_length("classes", len(self.config.classes), "units of fc8", units)
        return self.config.classes

    def _learn_head(self, samples: Samples, codes: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """Return weights (categories, units) and bias of a softmax layer on fc7, by KL divergence and L2."""
        import torch

        from neuroreel.fit.classifier import ClassifierConfig, fit_classifier

        named = samples.category != ""
        labels = np.array([self.categories_.index(name) for name in samples.category[named]])
        mean, sd = codes[named].mean(0), codes[named].std(0)
        sd = np.where(sd > 0, sd, 1.0)
        head = torch.nn.Linear(codes.shape[1], len(self.categories_))
        with torch.no_grad():
            head.weight.zero_()
            head.bias.zero_()
        settings = ClassifierConfig(**self.config.head.model_dump(), seed=seed)
        scaled = ((codes[named] - mean) / sd).astype(np.float32)
        fit_classifier(head, scaled, labels, lambda x: x, settings, n_classes=len(self.categories_))
        weight = head.weight.detach().numpy() / sd
        return {"weight": weight.astype(np.float32), "bias": head.bias.detach().numpy() - weight @ mean}

    def _answer(self, maps: np.ndarray, codes: np.ndarray | None) -> Reconstruction:
        clips = self._pictures(maps)
        if codes is None:
            return Reconstruction(clips=clips)
        logits = (codes @ self.head_["weight"].T + self.head_["bias"]).astype(np.float64)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return Reconstruction(clips, p / p.sum(axis=1, keepdims=True), self.categories_)

    def _pictures(self, maps: np.ndarray) -> np.ndarray:
        """Return clips (clips, frames, height, width, 3) uint8 of maps in cells, through the De-CNN."""
        import torch

        from neuroreel.generate.deconvolution import Switches, deconvolve, to_frames

        net = self.network.net
        channels, high, wide = self.network.shape(MAPS)
        cells = round((maps.shape[1] / channels) ** 0.5)
        frames, height, width, _ = self.shape_
        clips = np.empty((len(maps), *self.shape_), dtype=np.uint8)
        for start in range(0, len(maps), CLIPS_AT_ONCE):
            part = torch.from_numpy(
                maps[start : start + CLIPS_AT_ONCE].reshape(-1, channels, cells, cells).astype(np.float32)
            )
            grown = torch.nn.functional.interpolate(part, (high, wide), mode="bilinear")
            back = without_grid(deconvolve(net, grown, MAPS, Switches({}, {})), net.layout.strides[0])
            contrast = (net.frames(back) - net.frames(torch.zeros_like(back))).numpy()
            pictures = resize(to_frames(contrast), height, width)
            clips[start : start + CLIPS_AT_ONCE] = np.repeat(pictures[:, None], frames, axis=1)
        return clips

    # -----------------------------------------------------------------------------------------------------------------
    # Files

    def save(self, folder: Path) -> None:
        """Write config, decoders, encoding models and the stream's components into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / "config.json")
        arrays: dict[str, Any] = {"shape": np.array(self.shape_), "voxels": self.voxels_.astype(np.uint8)}
        arrays |= {f"head.{name}": values for name, values in self.head_.items()}
        if self.encoding_ is not None and self.stream_ is not None:
            arrays |= {f"encoding.{name}": values for name, values in self.encoding_.arrays().items()}
            arrays["layer_correlation"] = self.layer_correlation_
            if self.fields_ is not None:
                arrays |= {f"fields.{name}": values for name, values in self.fields_.arrays().items()}
                arrays["stack"] = self.stack_
            shutil.copytree(self.stream_.folder, folder / "features", dirs_exist_ok=True)
            if self.motion_ is not None:
                shutil.copytree(self.motion_.folder, folder / "motion", dirs_exist_ok=True)
        kept = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        save_file(kept, folder / "weights.safetensors", {"categories": "\n".join(self.categories_)})
        self.visual_.save(folder / "visual")
        self.semantic_.save(folder / "semantic")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the system that `save` wrote."""
        system = cls(Wen2018Config.load(folder / "config.json"))
        file = folder / "weights.safetensors"
        checks.require(file.is_file(), "weights", "must be there", "no such file", file)
        arrays = load_file(file)
        with safe_open(file, framework="numpy") as opened:
            names = (opened.metadata() or {}).get("categories", "")
        system.categories_ = tuple(names.split("\n")) if names else ()
        system.shape_ = tuple(int(side) for side in arrays["shape"])
        system.voxels_ = arrays["voxels"].astype(bool)
        system.head_ = _below(arrays, "head.")
        if "layer_correlation" in arrays:
            system.layer_correlation_ = arrays["layer_correlation"]
            system.encoding_ = EncodingModel(system.config.encoding).restore(_below(arrays, "encoding."))
            system.stream_ = FeatureStream.load(system.network, folder / "features")
            if system.config.fields is not None:
                model = ReceptiveFieldModel(system.config.fields.model)
                system.fields_, system.stack_ = model.restore(_below(arrays, "fields.")), arrays["stack"]
            if system.config.motion is not None:
                extractor = MotionEnergyExtractor(system.config.motion)
                system.motion_ = FeatureStream.load(extractor, folder / "motion")
        system.visual_ = L1Decoder.load(folder / "visual")
        system.semantic_ = ComponentRidge.load(folder / "semantic")
        return system


def _space(layer: str, hrf: str) -> str:
    return f"{layer}@{hrf}" if hrf else layer


def _whole(run: Run) -> Video:
    assert run.video is not None
    return run.video


def covered(sampling: csr_array) -> np.ndarray:
    """Return the volumes (trs,) bool whose response falls within the movie, but for a share of 1 - `COVERED`."""
    weight = np.asarray(abs(sampling).sum(axis=1)).ravel()
    return weight >= COVERED * weight.max()


def into_cells(maps: np.ndarray, cells: int) -> np.ndarray:
    """Return maps (channels, height, width) averaged over a grid, (channels, cells, cells) float32."""
    import torch

    return torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(maps), cells).numpy()


def without_grid(pictures: Tensor, stride: int) -> Tensor:
    """Return pictures (n, 3, height, width) without the pattern that filters `stride` pixels apart leave: box means."""
    from torch.nn.functional import avg_pool2d, pad

    before = (stride - 1) // 2
    after = stride - 1 - before
    return avg_pool2d(pad(pictures, (before, after, before, after), mode="replicate"), stride, stride=1)


def thinned(video: Video, fps: float | None) -> Video:
    """Return the video at about another rate: every n-th frame, n whole; itself where that is 1 or `fps` is None."""
    step = 1 if fps is None else max(1, round(video.fps / fps))
    if step == 1:
        return video
    count = -(-video.shape[0] // step)

    def read(start: int, stop: int) -> np.ndarray:
        return video.frames(start * step, min((stop - 1) * step + 1, video.shape[0]))[::step]

    return Video(video.name, video.fps / step, (count, *video.shape[1:]), read, video.start_s)


def _pieces(data: np.ndarray, count: int) -> list[np.ndarray]:
    """Return data (trs, voxels) cut into a number of stretches of time, fewer where they would be under 10 volumes."""
    return np.array_split(data, max(1, min(count, len(data) // 10)))


def _below(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
