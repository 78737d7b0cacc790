"""Generic object decoding (Horikawa & Kamitani 2017, Nat. Commun. 8:15037): which object is seen, or imagined?

    1. Every picture is described by visual features: layers of a network, or any table of features by picture.
    2. For every region and layer, every unit of the features is decoded by linear regression from the voxels that
       correlate with it most: sparse (automatic relevance determination) as in the paper, or ridge.
    3. The decoded pattern is compared with the average pattern of many categories, those that the decoders never saw
       among them. The most similar one is the answer.

`decode_objects` gives the numbers of the paper for seen and for imagined pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import quote

import numpy as np
from pydantic import Field

from neuroreel.brain.linear import LinearDecoder, SparseDecoder, SparseDecoderConfig, TopVoxelRidge, TopVoxelRidgeConfig
from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError
from neuroreel.core.seeds import generator
from neuroreel.core.sets import TrainingSet, require_training
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Reconstruction, Samples, Space
from neuroreel.datasets.feature_tables import FeatureTable, read_features, write_decoded_features
from neuroreel.datasets.pictures import pictures_by_category, read_pictures
from neuroreel.features import EXTRACTORS, Extractor
from neuroreel.fit.selection import Scaling
from neuroreel.metrics.categories import category_similarity, identify_category, profile_correlation
from neuroreel.report.figures import Picture
from neuroreel.report.objects import accuracy_figure, identification_figure, similar_figure, unit_figure

CODES = "codes"
WHOLE = "all"
WIDE = ("LVC", "HVC", "VC", WHOLE)
VOXELS, WIDE_VOXELS = 500, 1000
FRAMES_AT_ONCE = 64

Pair = tuple[str, str]  # region, layer


class GenericObjectDecodingConfig(Config):
    """Settings of generic-object-decoding.

    Attributes
    ----------
    rois : regions, each with decoders of its own; empty for one of all voxels, called "all".
    features : file like ImageFeatures.h5 or folder LAYER/NAME.mat with the features of every picture by its name;
        empty to compute them from the clips. Decoding needs it no more once the system is fitted, scoring does.
    extractor : name in `EXTRACTORS`, or "codes": 1 for the picture's category, which needs no pictures.
    extractor_settings : of the extractor's config.
    layers : of the features; empty for all.
    units : of each layer at most; more are drawn by the seed (the paper takes up to 1000).
    decoder : "ridge" (what the laboratory uses now) or "sparse" (the paper's; slower).
    voxels : that a unit is decoded from; None for the paper's 500, and 1000 in LVC, HVC, VC and "all".
    alpha : penalty of the ridge.
    n_iter : iterations of the sparse regression, at most.
    candidates : folder with a folder of pictures for each candidate category, described by the extractor; empty for
        those whose averages `features` has, or else the categories of training.
    compare : patterns as they are ("raw", the paper's), or every unit z-scored by its mean and SD in training ("z",
        ours), so that a few large units don't decide.
    temperature : a probability is exp(similarity / temperature), scaled; ours, the paper names no probability.
    """

    rois: tuple[str, ...] = ()
    features: str = ""
    extractor: str = "alexnet"
    extractor_settings: dict[str, Any] = Field(default_factory=dict)
    layers: tuple[str, ...] = ()
    units: int = Field(default=1000, ge=1)
    decoder: Literal["ridge", "sparse"] = "ridge"
    voxels: int | None = Field(default=None, ge=1)
    alpha: float = Field(default=100.0, gt=0)
    n_iter: int = Field(default=2000, ge=1)
    candidates: str = ""
    compare: Literal["raw", "z"] = "raw"
    temperature: float = Field(default=0.05, gt=0)


class GenericObjectDecoding:
    """The system; see the module.

    Attributes
    ----------
    decoders_ : by region and layer.
    categories_ : names of the candidate categories.
    averages_ : their average features by layer, (categories, units) float32, NaN where a layer has none.
    masks_ : voxels of each region, (voxels,) bool.
    moments_ : mean and SD of every unit in training by layer, (2, units).
    """

    name: ClassVar[str] = "generic-object-decoding"
    Settings: ClassVar[type[Config]] = GenericObjectDecodingConfig

    def __init__(self, config: Any = None) -> None:
        self.config: GenericObjectDecodingConfig = config or GenericObjectDecodingConfig()
        self.decoders_: dict[Pair, LinearDecoder[Any]] = {}
        self.masks_: dict[str, np.ndarray] = {}
        self.categories_: tuple[str, ...] = ()
        self.averages_: dict[str, np.ndarray] = {}
        self.moments_: dict[str, np.ndarray] = {}

    @property
    def makes(self) -> frozenset[str]:
        """Features, and categories where 2 or more are known."""
        return frozenset({"features", "category"} if len(self.categories_) > 1 else {"features"})

    # -----------------------------------------------------------------------------------------------------------------
    # Fitting

    def fit(self, train: TrainingSet, *, run: RunFolder) -> Self:
        """Fit a decoder for every region, layer and unit, and average the features of every category.

        Raises
        ------
        LeakageError, ConfigError, DataError
            If it isn't handed a training set; a region or layer isn't there (those that are get listed); a picture has
            no features.
        """
        samples = require_training(train).samples
        self.seed_ = run.seed
        self.describer_ = Describer(self.config, samples, run.seed)
        features = self.describer_.describe(samples)
        names, averages = self.describer_.candidates()
        self.categories_, self.averages_ = (names, averages) if names else average_by(samples.category, features)
        self.fit_decoders(samples, features, run.device)
        return self

    def fit_decoders(self, samples: Samples, features: Mapping[str, np.ndarray], device: str = "cpu") -> None:
        """Fit a decoder for every region, layer and unit of the clips' features, (clips, units) by layer."""
        self.masks_ = choose_regions(samples.space, self.config.rois)
        scalings = {layer: Scaling.of(units) for layer, units in features.items()}
        self.moments_ = {layer: np.stack([each.mean, each.sd]) for layer, each in scalings.items()}
        patterns = trial_patterns(samples)
        self.decoders_ = {
            (roi, layer): self._decoder(roi, device).fit(patterns[:, mask], units)
            for roi, mask in self.masks_.items()
            for layer, units in features.items()
        }

    def _decoder(self, roi: str, device: str) -> SparseDecoder | TopVoxelRidge:
        voxels = self.config.voxels or (WIDE_VOXELS if roi in WIDE else VOXELS)
        if self.config.decoder == "sparse":
            values = {"voxels": voxels, "n_iter": self.config.n_iter, "device": device}
            return SparseDecoder(SparseDecoderConfig.build(values))
        values = {"voxels": voxels, "alpha": self.config.alpha, "device": device}
        return TopVoxelRidge(TopVoxelRidgeConfig.build(values))

    # -----------------------------------------------------------------------------------------------------------------
    # Decoding

    def predict_features(self, bold: Samples) -> dict[Pair, np.ndarray]:
        """Return the decoded features by region and layer, (clips, units) in the features' own units."""
        patterns = trial_patterns(bold)
        return {
            (roi, layer): decoder.predict(patterns[:, self.masks_[roi]])
            for (roi, layer), decoder in self.decoders_.items()
        }

    def reconstruct(self, bold: Samples) -> Reconstruction:
        """Return the probability of every candidate, by its similarity averaged over regions and layers."""
        return self._name(self.predict_features(bold))

    def ceiling(self, truth: Samples) -> Reconstruction | None:
        """Return the same from the true features; None where a picture has none."""
        described = self.describer_.describe(truth, missing=True)
        if described is None:
            return None
        return self._name({("truth", layer): values for layer, values in described.items()})

    def _name(self, predicted: Mapping[Pair, np.ndarray]) -> Reconstruction:
        if "category" not in self.makes:
            return Reconstruction()
        similarities = [
            self.similarity(layer, values, self.averages_[layer]) for (_, layer), values in predicted.items()
        ]
        known = np.isfinite(similarities)
        count = known.sum(axis=0)
        mean = np.where(known, similarities, 0).sum(axis=0) / np.maximum(count, 1)
        score = np.where(count > 0, mean, -np.inf) / self.config.temperature
        weight = np.exp(score - score.max(axis=1, keepdims=True))
        return Reconstruction(
            probabilities=weight / weight.sum(axis=1, keepdims=True),
            categories=self.categories_,
        )

    def similarity(self, layer: str, patterns: np.ndarray, averages: np.ndarray) -> np.ndarray:
        """Return r of patterns (trials, units) with category averages (categories, units), (trials, categories)."""
        mean, sd = self.moments_[layer] if self.config.compare == "z" else (0.0, 1.0)
        return category_similarity((patterns - mean) / sd, (averages - mean) / sd)

    def write_features(self, folder: str | Path, bold: Samples, names: Sequence[str], subject: str) -> None:
        """Write the decoded features of clips with the given names as LAYER/SUBJECT/ROI/NAME.mat."""
        for (roi, layer), values in self.predict_features(bold).items():
            write_decoded_features(folder, values, names, layer=layer, subject=subject, roi=roi)

    # -----------------------------------------------------------------------------------------------------------------
    # Files

    def save(self, folder: Path) -> None:
        """Write config and weights into a folder."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder / "config.json")
        arrays = {f"average/{layer}": values for layer, values in self.averages_.items()}
        arrays |= {f"moments/{layer}": values for layer, values in self.moments_.items()}
        arrays |= {f"mask/{roi}": mask for roi, mask in self.masks_.items()}
        arrays |= {f"describer/{key}": values for key, values in self.describer_.arrays().items()}
        names = {"categories": "\n".join(self.categories_), "seed": str(self.seed_), **self.describer_.names()}
        tensors = {key: np.ascontiguousarray(values) for key, values in arrays.items()}
        save_file(tensors, folder / "weights.safetensors", names)
        for (roi, layer), decoder in self.decoders_.items():
            decoder.save(folder / "decoders" / _part(roi) / _part(layer))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the system that `save` wrote; the features' file isn't needed."""
        from safetensors import safe_open

        system = cls(cls.Settings.load(folder / "config.json"))
        file = folder / "weights.safetensors"
        checks.require(file.is_file(), "weights", "must be there", "no such file", file)
        with safe_open(file, framework="numpy") as opened:
            names = dict(opened.metadata() or {})
            arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        system.seed_ = int(names["seed"])
        system.categories_ = tuple(names["categories"].split("\n")) if names["categories"] else ()
        system.averages_, system.masks_ = _under("average/", arrays), _under("mask/", arrays)
        system.moments_ = _under("moments/", arrays)
        system.describer_ = Describer.restore(system.config, _under("describer/", arrays), names)
        kind = SparseDecoder if system.config.decoder == "sparse" else TopVoxelRidge
        for roi in system.masks_:
            for layer in system.describer_.layers:
                place = folder / "decoders" / _part(roi) / _part(layer)
                system.decoders_[roi, layer] = kind.load(place)
        return system


def _part(name: str) -> str:
    return quote(name, safe="")


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): values for key, values in arrays.items() if key.startswith(prefix)}


def trial_patterns(samples: Samples) -> np.ndarray:
    """Return the pattern of each trial, the mean of its window's volumes, (clips, voxels) float64."""
    return samples.brain.mean(axis=1, dtype=np.float64)


def choose_regions(space: Space, rois: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the voxels of each region, (voxels,) bool; "all" is every voxel.

    Raises
    ------
    ConfigError, DataError
        If a region isn't there (those that are get listed), or has no voxel.
    """
    masks = {}
    for roi in rois or (WHOLE,):
        checks.one_of("ROI", roi, (*space.rois, WHOLE))
        masks[roi] = np.ones(space.size, dtype=bool) if roi == WHOLE else np.asarray(space.rois[roi], dtype=bool)
        checks.require(bool(masks[roi].any()), f"ROI {roi}", "must have 1 voxel or more", 0)
    return masks


def average_by(labels: np.ndarray, features: Mapping[str, np.ndarray]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the labels that aren't empty, sorted, and the average features of each by layer, (labels, units)."""
    names = tuple(str(name) for name in np.unique(labels) if name)
    averages = {
        layer: np.array([values[labels == name].mean(axis=0) for name in names]).reshape(len(names), values.shape[1])
        for layer, values in features.items()
    }
    return names, averages


# ---------------------------------------------------------------------------------------------------------------------
# Features of pictures


class Describer:
    """The features of clips: from a table by the picture's name, by an extractor, or the codes of categories.

    Parameters
    ----------
    config : says which.
    samples : of training: what the extractor may learn from, and whose categories are coded.
    seed : draws the units.
    """

    def __init__(self, config: GenericObjectDecodingConfig, samples: Samples | None, seed: int) -> None:
        self.config, self.seed = config, seed
        self.table: FeatureTable | None = None
        self.extractor: Extractor | None = None
        self.coded: tuple[str, ...] = ()
        self.units: dict[str, np.ndarray] = {}
        self.side = 0  # height of the training clips, to which candidates' pictures are brought
        if samples is None:
            return
        if config.features:
            self.table = read_features(config.features, config.layers)
            for layer, values in self.table.pictures.items():
                self.units[layer] = self._draw(layer, values.shape[1])
        elif config.extractor == CODES:
            self.coded = tuple(str(name) for name in np.unique(samples.category) if name)
            checks.require(len(self.coded) > 1, "categories", "must be 2 or more to be coded", len(self.coded))
            self.units = {CODES: np.arange(len(self.coded))}
        else:
            has = samples.clips is not None
            rule = f"must have clips for {config.extractor}, or features={CODES}, or a file of features"
            checks.require(has, "training samples", rule, "none")
            assert samples.clips is not None
            self.side = samples.clips.shape[2]
            self.extractor = self._make().fit(samples.clips.reshape(-1, *samples.clips.shape[2:]), seed=seed)
            for layer in config.layers or self.extractor.layers:
                checks.one_of("layer", layer, self.extractor.layers)
                self.units[layer] = self._draw(layer, self.extractor.n_units[layer])

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(self.units)

    def _make(self) -> Extractor:
        known = (*EXTRACTORS, CODES)
        kind = EXTRACTORS[checks.one_of("extractor", self.config.extractor, known)]
        settings = type(kind().config).build(self.config.extractor_settings)
        return kind(settings)  # type: ignore[call-arg]

    def _draw(self, layer: str, count: int) -> np.ndarray:
        """Return the units of a layer that are kept, in order."""
        if count <= self.config.units:
            return np.arange(count)
        rng = generator(self.seed, "units", layer)
        return np.sort(rng.choice(count, size=self.config.units, replace=False))

    def _table(self) -> FeatureTable | None:
        """Return the table of features, None where its file is gone since the fit."""
        if self.table is None and self.config.features and Path(self.config.features).exists():
            self.table = read_features(self.config.features, self.layers)
        return self.table

    def describe(self, samples: Samples, *, missing: bool = False) -> Any:
        """Return the features of clips by layer, (clips, units) float32; of several frames their mean.

        With `missing`, None where a clip has no features; else that is a DataError.
        """
        if self.coded:
            codes = samples.category[:, None] == np.array(self.coded)
            lost = not codes.any(axis=1).all()
            return None if missing and lost else {CODES: codes.astype(np.float32)}
        if self.extractor is None:
            table = self._table()
            if missing and (table is None or set(samples.stimulus) - set(table.names)):
                return None
            rule, got = "must be there to describe pictures", repr(self.config.features)
            checks.require(table is not None, "file of features", rule, got, error=ConfigError)
            assert table is not None
            found = table.of(samples.stimulus.tolist(), self.config.features)
            return {layer: found[layer][:, kept] for layer, kept in self.units.items()}
        if missing and samples.clips is None:
            return None
        checks.require(samples.clips is not None, "samples", "must have clips", "none")
        assert samples.clips is not None
        return self.of_clips(samples.clips, samples.fps)

    def of_clips(self, clips: np.ndarray, fps: float) -> dict[str, np.ndarray]:
        """Return the features of clips (clips, frames, height, width, 3) by layer, (clips, units) float32."""
        extractor = self.extractor
        assert extractor is not None
        frames = clips.shape[1]
        step = 1 if extractor.reach_s > 0 else max(1, FRAMES_AT_ONCE // frames)
        found: dict[str, list[np.ndarray]] = {layer: [] for layer in self.units}
        for start in range(0, len(clips), step):
            part = clips[start : start + step]
            layers = extractor.extract_layers(part.reshape(-1, *part.shape[2:]), fps)
            for layer, kept in self.units.items():
                values = layers[layer][:, kept].reshape(len(part), frames, -1)
                found[layer].append(values.mean(axis=1))
        return {layer: np.concatenate(parts) for layer, parts in found.items()}

    def candidates(self) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
        """Return the categories of the table or the folder and their average features, none where there is neither."""
        if self.table is not None:
            if not self.table.categories:
                return (), {}
            return self.table.categories, {
                layer: self.table.averages[layer][:, kept] for layer, kept in self.units.items()
            }
        if not self.config.candidates:
            return (), {}
        rule = "must come with an extractor to describe its pictures"
        checks.require(self.extractor is not None, "candidates", rule, self.config.extractor, error=ConfigError)
        folder = pictures_by_category(self.config.candidates)
        rows = []
        for paths in folder.values():
            pictures = read_pictures(paths, self.side)
            found = self.of_clips(pictures[:, None], 1.0)
            rows.append({layer: values.mean(axis=0) for layer, values in found.items()})
        return tuple(folder), {layer: np.stack([row[layer] for row in rows]) for layer in self.units}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what has to be saved."""
        learnt = {} if self.extractor is None else self.extractor.arrays()
        return {f"units/{layer}": kept for layer, kept in self.units.items()} | {
            f"extractor/{key}": values for key, values in learnt.items()
        }

    def names(self) -> dict[str, str]:
        """Return the texts that have to be saved."""
        return {"layers": "\n".join(self.layers), "coded": "\n".join(self.coded)}

    @classmethod
    def restore(
        cls, config: GenericObjectDecodingConfig, arrays: Mapping[str, np.ndarray], names: Mapping[str, str]
    ) -> Describer:
        """Return the describer of what was saved; a table of features is not among it."""
        describer = cls(config, None, 0)
        describer.coded = tuple(names["coded"].split("\n")) if names["coded"] else ()
        describer.units = {layer: arrays[f"units/{layer}"] for layer in names["layers"].split("\n")}
        if not config.features and not describer.coded:
            describer.extractor = describer._make().restore(_under("extractor/", arrays))
        return describer


# ---------------------------------------------------------------------------------------------------------------------
# The paper's results


@dataclass(frozen=True)
class ObjectScores:
    """What one region and layer tell of the objects that were seen or imagined.

    Attributes
    ----------
    roi, layer, condition : "seen" or "imagined" in the last.
    predicted, true : features of each picture, (pictures, units).
    image_profile : r of each unit between its predicted and true value over the pictures, (units,).
    category_profile : the same against the averages of the pictures' categories, on predictions averaged by category.
    tested : names of the tested categories.
    similarity : (tested, candidates), r of the decoded pattern with each candidate's.
    candidates : names of the candidates.
    identification : (tested,), share of the other candidates that are less similar than the true one; chance .5.
    """

    roi: str
    layer: str
    condition: str
    predicted: np.ndarray
    true: np.ndarray
    image_profile: np.ndarray
    category_profile: np.ndarray
    tested: tuple[str, ...]
    similarity: np.ndarray
    candidates: tuple[str, ...]
    identification: np.ndarray


def decode_objects(
    system: GenericObjectDecoding,
    truth: Samples,
    condition: str = "seen",
    *,
    others: bool = True,
    features: Mapping[str, np.ndarray] | None = None,
) -> list[ObjectScores]:
    """Return the paper's scores of a fitted system for every region and layer.

    Predictions are averaged over the repeats of a picture, then of a category (the window has often averaged them
    before; the decoders are linear, so that the order doesn't matter).

    Parameters
    ----------
    truth : test samples with their categories, and with pictures or names that have features.
    condition : what the trials are, "seen" or "imagined".
    others : candidates are the tested categories and all others that the system knows; False for the tested ones alone.
    features : of the pictures by layer, (clips, units), where they are known already; None to describe them.

    Raises
    ------
    DataError
        If fewer than 2 categories are tested, or a picture has no features.
    """
    tested = tuple(str(name) for name in np.unique(truth.category) if name)
    checks.require(len(tested) > 1, "tested categories", "must be 2 or more", len(tested))
    has = truth.category != ""
    named = truth.take(has)
    features = {k: v[has] for k, v in (features or system.describer_.describe(truth)).items()}
    names, averages = candidate_averages(system, named.category, features)
    columns = np.arange(len(names)) if others else np.array([names.index(name) for name in tested])
    scores = []
    for (roi, layer), predicted in system.predict_features(named.sealed()).items():
        shown = average_by(named.stimulus, {"predicted": predicted, "true": features[layer]})[1]
        by_category = average_by(named.category, {layer: predicted})[1][layer]
        category_truth = averages[layer][[names.index(name) for name in tested]]
        similarity = system.similarity(layer, by_category, averages[layer][columns])
        chosen = tuple(names[column] for column in columns)
        true = np.array([chosen.index(name) for name in tested])
        scores.append(
            ObjectScores(
                roi=roi,
                layer=layer,
                condition=condition,
                predicted=shown["predicted"],
                true=shown["true"],
                image_profile=_profile(shown["predicted"], shown["true"]),
                category_profile=_profile(by_category, category_truth),
                tested=tested,
                similarity=similarity,
                candidates=chosen,
                identification=identify_category(similarity, true),
            )
        )
    return scores


def _profile(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    known = np.isfinite(truth).all(axis=1)
    if known.sum() < 2:
        return np.full(truth.shape[1], np.nan)
    return profile_correlation(predicted[known], truth[known])


def candidate_averages(
    system: GenericObjectDecoding, category: np.ndarray, features: Mapping[str, np.ndarray]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the candidates: the categories that the system knows, and tested ones that it doesn't.

    An unknown category's average is that of its tested pictures (`features`, rows as in `category`); the paper's are of
    other pictures, which is what `features` with averages and `candidates` are for.
    """
    names, averages = list(system.categories_), dict(system.averages_)
    fresh, more = average_by(np.where(np.isin(category, names), "", category), features)
    joined = {layer: np.concatenate([values, more[layer]]) if fresh else values for layer, values in averages.items()}
    return (*names, *fresh), joined


def object_figures(scores: Sequence[ObjectScores], roi: str, layer: str, unit: int | None = None) -> list[Picture]:
    """Return the paper's figures: one unit, accuracy per region and layer, identification, the most similar categories.

    Parameters
    ----------
    scores : of one or both conditions, as from `decode_objects`.
    roi, layer : of the unit and of the similar categories.
    unit : number of the unit within those decoded; None for the one that is decoded best.

    Raises
    ------
    ConfigError
        If the region or layer isn't among the scores.
    """
    rois, layers, conditions = (
        list(dict.fromkeys(getattr(each, name) for each in scores)) for name in ("roi", "layer", "condition")
    )
    checks.one_of("ROI", roi, rois)
    checks.one_of("layer", layer, layers)
    found = {(each.condition, each.roi, each.layer): each for each in scores}
    chosen = found[conditions[0], roi, layer]
    best = int(np.argmax(np.nan_to_num(chosen.image_profile, nan=-1.0))) if unit is None else unit
    means = {name: _table(found, name, rois, layers) for name in conditions}
    lines = {name: np.stack([found[name, each, layer].identification for each in rois]) for name in conditions}
    return [
        unit_figure(chosen.predicted[:, best], chosen.true[:, best], f"{layer} unit {best} from {roi}"),
        accuracy_figure(means, rois, layers),
        identification_figure(lines, rois),
        similar_figure(chosen.similarity, chosen.tested, chosen.candidates),
    ]


def _table(
    found: Mapping[tuple[str, str, str], ObjectScores], condition: str, rois: Sequence[str], layers: Sequence[str]
) -> np.ndarray:
    """Return mean identification (rois, layers), NaN where no category was scored."""
    table = np.full((len(rois), len(layers)), np.nan)
    for row, roi in enumerate(rois):
        for column, layer in enumerate(layers):
            values = found[condition, roi, layer].identification
            if np.isfinite(values).any():
                table[row, column] = np.nanmean(values)
    return table
