"""The one place that turns predictions into scores: value, chance, ceiling, interval and p-value, by one code."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neuroreel.core.checks import one_of, require, same_length
from neuroreel.core.errors import DataError
from neuroreel.core.files import digest_of
from neuroreel.core.scores import CHANCE_ROWS, Scores, ScoreTable
from neuroreel.core.types import Reconstruction, Samples
from neuroreel.metrics.embedded import Embed, one_hot
from neuroreel.metrics.inference import (
    block_members,
    block_permutation,
    defined_mean,
    interval_of_mean,
    shuffled_chance,
)
from neuroreel.metrics.motion import without_motion
from neuroreel.metrics.registry import METRICS, Metric, Parts

PAIRED_CLIPS = 64
NUMBERS_HELD = 2**27  # of the embeddings of one side; beyond, they are computed a frame at a time
ANSWERED_ROWS = tuple(row for row in CHANCE_ROWS if row not in ("shuffled", "analytic"))


def score(
    variant: str,
    predicted: np.ndarray,
    truth: np.ndarray,
    blocks: np.ndarray,
    *,
    chance: Mapping[str, np.ndarray] | None = None,
    ceiling: np.ndarray | None = None,
    embed: Embed | None = None,
    space: str = "",
    seed: int = 0,
    draws: int = 2000,
    drawn: int = 1,
    chosen_by: str = "first",
) -> Scores:
    """Measure one metric with everything that makes it believable.

    Parameters
    ----------
    variant : a name in METRICS.
    predicted, truth : clips (n, frames, height, width, 3) uint8; for `identification` also features (n, units); for
        metrics of categories, probabilities (n, categories), where a row of NaN in the truth is a clip without a label.
    blocks : array (n,), the scene or segment of each clip.
    chance : trivial answers of the form of `predicted` by row: `train-marginal`, `mean-brain`, `noise`,
        `nearest-train`.
    ceiling : the answer from the truth's own features through the same generator, or None.
    embed : networks by role, for metrics that look through one.
    space : name of the space that features lie in, which then stands in the variant: `identification:pairwise@latents`.
    seed : seed of the bootstrap and the permutations.
    draws : number of bootstrap draws and of permutations.
    drawn, chosen_by : how many reconstructions were drawn per clip, and how one was chosen.

    Returns
    -------
    Scores. The row `shuffled` is the mean over pairs from different blocks; for identification, clips of the
    prediction's own block are then no candidates. Where a metric is too slow for every pair, this row and p are of
    every k-th clip, 64 at most. The interval and p are None where fewer than two blocks have a value.

    Raises
    ------
    DataError : fewer than two blocks, arrays that don't fit, or something that the metric needs is missing.
    ConfigError : the variant or a row is unknown.
    """
    metric = METRICS[one_of("metric", variant, METRICS)]
    lacking = metric.lacks(truth, embed or {})
    if lacking:
        raise DataError(f"{lacking} ({variant})")
    measure = _Measure(metric, truth, embed or {}, _Memory())
    return measure.score(
        predicted,
        blocks,
        {row: (answer,) for row, answer in (chance or {}).items()},
        ceiling,
        seed=seed,
        draws=draws,
        drawn=drawn,
        chosen_by=chosen_by,
        space=space,
    )


def evaluate(
    systems: Mapping[str, Reconstruction],
    truth: Samples,
    *,
    variants: Sequence[str] | None = None,
    chance: Mapping[str, Mapping[str, Sequence[Reconstruction]]] | None = None,
    ceiling: Mapping[str, Reconstruction | None] | None = None,
    embed: Embed | None = None,
    seed: int = 0,
    draws: int = 2000,
) -> ScoreTable:
    """Measure several systems on one test set with the same code.

    Parameters
    ----------
    systems : reconstruction of the test set by name of the system. A system is scored with what it makes.
    truth : the test samples, opened: clips, categories and blocks.
    variants : names in METRICS; all of them unless given.
    chance : trivial answers by system and row, as `chance_answers` returns them; a row's value is their mean.
    ceiling : by system, what its generator makes of the truth's own features.
    embed : networks by role, for learned metrics, as `backbones.open_backbones` returns them.
    seed, draws : as in `score`.

    Returns
    -------
    ScoreTable. A metric that couldn't be measured for any system stands in `skipped` with its reason.
    `to_dict()["rows"]` is `{system: {variant: {"value", "chance", "ceiling", "normalised", "low", "high", "p", ...}}}`.
    """
    rows: dict[str, dict[str, Scores]] = {system: {} for system in systems}
    skipped: dict[str, str] = {}
    measured: list[Metric] = []
    for name in METRICS if variants is None else variants:
        metric = METRICS[one_of("metric", name, METRICS)]
        reason = _reason(metric, systems, truth, embed or {})
        if reason:
            skipped[name] = reason
        else:
            measured.append(metric)
    alike: dict[object, list[Metric]] = {}
    for metric in measured:
        alike.setdefault(metric.prepare, []).append(metric)
    for metrics in alike.values():
        memory = _Memory()
        for name, made in systems.items():
            for metric in metrics:
                columns = _columns(made.categories, truth.category)
                true, answer = _truth(metric, truth, columns), _answer(metric, made, columns)
                if true is None or answer is None:
                    continue
                trivial = {
                    row: [_answer(metric, one, columns) for one in answers]
                    for row, answers in (chance or {}).get(name, {}).items()
                }
                one = _Measure(metric, true, embed or {}, memory).score(
                    answer,
                    truth.block,
                    {
                        row: known
                        for row, all_ in trivial.items()
                        if (known := [one for one in all_ if one is not None])
                    },
                    _answer(metric, (ceiling or {}).get(name), columns),
                    seed=seed,
                    draws=draws,
                    drawn=made.drawn,
                    chosen_by="first" if made.drawn == 1 else made.chosen_by,
                )
                rows[name][one.variant] = replace(one, mode=made.mode)
            given = (chance or {}).get(name, {})
            of_all = [one.clips for row in ("train-marginal", "nearest-train") for one in given.get(row, ())]
            memory.keep([clips for clips in (truth.clips, *of_all) if clips is not None])
    order = {metric.full_name(embed or {}): place for place, metric in enumerate(measured)}
    by_name = {name: dict(sorted(own.items(), key=lambda pair: order[pair[0]])) for name, own in rows.items()}
    return ScoreTable(by_name, skipped)


def _reason(metric: Metric, systems: Mapping[str, Reconstruction], truth: Samples, embed: Embed) -> str | None:
    """Return why a metric can't be measured of every system that makes what it takes, or None if it can."""
    makers = [made for made in systems.values() if _makes(metric, made)]
    if not makers:
        return f"a system must make {metric.takes}, got none"
    truths = [_truth(metric, truth, _columns(made.categories, truth.category)) for made in makers]
    return next((reason for reason in (metric.lacks(true, embed) for true in truths) if reason), None)


class _Memory:
    """What was computed from arrays, once for all that hold the same.

    Chance rows that ask no system are the same for all of them, and what a system that makes one picture answers to
    noise is the same every time.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Any] = {}
        self._digests: dict[int, tuple[weakref.ref[np.ndarray], str]] = {}

    def get(self, function: Callable[..., Any], arrays: Sequence[np.ndarray], compute: Callable[[], Any]) -> Any:
        """Return what a function gave for arrays, computed if it isn't known."""
        key = (function, *map(self.digest, arrays))
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def keep(self, arrays: Sequence[np.ndarray]) -> None:
        """Forget all but what was computed from some arrays."""
        kept = set(map(self.digest, arrays))
        self._known = {key: known for key, known in self._known.items() if kept.issuperset(key[1:])}

    def digest(self, array: np.ndarray) -> str:
        """Return a digest of what an array holds."""
        there, digest = self._digests.get(id(array), (lambda: None, ""))
        if there() is not array:
            digest = digest_of([array])
            self._digests[id(array)] = (weakref.ref(array), digest)
        return digest


@dataclass(frozen=True)
class _Measure:
    """One metric against one truth."""

    metric: Metric
    truth: np.ndarray
    embed: Embed
    memory: _Memory

    def score(
        self,
        predicted: np.ndarray,
        blocks: np.ndarray,
        chance: Mapping[str, Sequence[np.ndarray]],
        ceiling: np.ndarray | None,
        *,
        seed: int,
        draws: int,
        drawn: int,
        chosen_by: str,
        space: str = "",
    ) -> Scores:
        """Return the scores of one system, as `score` says."""
        metric, blocks = self.metric, np.asarray(blocks)
        same_length("blocks", len(blocks), "clips", len(self.truth), metric.variant)
        block_members(blocks)
        for row in chance:
            one_of("chance row", row, ANSWERED_ROWS, metric.variant)
        values = self.values(predicted)
        shuffled, p = self.null(predicted, blocks, seed, draws)
        rows = {"shuffled": shuffled}
        for row, answers in chance.items():
            rows[row] = float(np.mean([defined_mean(self.values(answer)) for answer in answers]))
        if metric.analytic is not None:
            rows["analytic"] = metric.analytic(self.truth)
        low, high = interval_of_mean(values, blocks, seed=seed, n=draws)
        return Scores(
            variant=metric.full_name(self.embed) + (f"@{space}" if space else ""),
            values=values,
            higher_is_better=metric.higher_is_better,
            chance=rows,
            ceiling=None if ceiling is None else defined_mean(self.values(ceiling)),
            low=low,
            high=high,
            p=p,
            controls={row: defined_mean(self.values(clips)) for row, clips in self.controls(predicted, seed).items()},
            samples=drawn,
            chosen_by=chosen_by,
        )

    def values(self, predicted: np.ndarray) -> np.ndarray:
        """Return the value of each clip, array (n,)."""
        metric = self.metric
        rule = f"must have the truth's shape {self.truth.shape}"
        require(predicted.shape == self.truth.shape, "an answer", rule, predicted.shape, metric.variant)
        if metric.rank is not None and metric.pairs is not None:
            return np.diagonal(metric.rank(self.pairs(metric.pairs, predicted))).copy()
        if metric.at_once is None:
            return metric.compare(self.parts(predicted), self.parts(self.truth))
        rows = [slice(start, start + metric.at_once) for start in range(0, len(predicted), metric.at_once)]
        sides = ([metric.prepare(side[i], self.embed) for side in (predicted, self.truth)] for i in rows)
        return np.concatenate([metric.compare(*pair) for pair in sides])

    def null(self, predicted: np.ndarray, blocks: np.ndarray, seed: int, draws: int) -> tuple[float, float | None]:
        """Return the mean over pairs from different blocks, and the p-value of the true pairs."""
        metric = self.metric
        if metric.pairs is not None:
            matrix = self.pairs(metric.pairs, predicted)
        else:
            step = -(-len(predicted) // PAIRED_CLIPS)
            blocks = blocks[::step]
            own, other = (self.thinned(side, step) for side in (predicted, self.truth))
            columns = [{name: part[j : j + 1] for name, part in other.items()} for j in range(len(blocks))]
            matrix = np.stack([metric.compare(own, column) for column in columns], axis=1)
        ranked = matrix
        if metric.rank is not None:
            ranked = metric.rank(matrix)
            matrix = metric.rank(np.where(blocks[:, None] == blocks, np.nan, matrix))
        known = ~np.isnan(ranked).all(axis=0)
        if len(np.unique(blocks[known])) < 2:
            return float("nan"), None
        shuffled = shuffled_chance(matrix, None, None, blocks, seed=seed)
        test = block_permutation(ranked, blocks, seed=seed, n=draws, higher_is_better=metric.higher_is_better)
        return shuffled, float(test.p)

    def parts(self, answer: np.ndarray) -> Parts:
        """Return an answer or the truth as the metric sees it, prepared once."""
        prepare = self.metric.prepare
        return self.memory.get(prepare, (answer,), lambda: prepare(answer, self.embed))

    def pairs(self, function: Callable[[Parts, Parts], np.ndarray], predicted: np.ndarray) -> np.ndarray:
        """Return the value of every prediction (rows) with every truth (columns), computed once, array (n, n)."""
        sides = (predicted, self.truth)
        if self.metric.by_frame and not self.fits():
            return self.memory.get(function, sides, lambda: self.mean_of_frames(function, predicted))
        return self.memory.get(function, sides, lambda: function(self.parts(predicted), self.parts(self.truth)))

    def fits(self) -> bool:
        """Return whether the parts of all frames of a side may be held at a time."""
        one = self.metric.prepare(self.truth[:1, :1], self.embed)
        frames = self.truth.shape[0] * self.truth.shape[1]
        return frames * sum(part.size for part in one.values()) <= NUMBERS_HELD

    def mean_of_frames(self, function: Callable[[Parts, Parts], np.ndarray], predicted: np.ndarray) -> np.ndarray:
        """Return the mean over frames of a function of pairs, with the parts of one frame held at a time."""
        frames = range(self.truth.shape[1])
        matrices = (
            function(*(self.metric.prepare(side[:, f : f + 1], self.embed) for side in (predicted, self.truth)))
            for f in frames
        )
        return np.asarray(sum(matrices) / len(frames))

    def thinned(self, side: np.ndarray, step: int) -> Parts:
        """Return every step-th clip as the metric sees it."""
        if self.metric.at_once is not None:
            return self.metric.prepare(side[::step], self.embed)
        return {name: part[::step] for name, part in self.parts(side).items()}

    def controls(self, predicted: np.ndarray, seed: int) -> Parts:
        """Return the prediction without its motion, by row; nothing for metrics that aren't of motion."""
        if not self.metric.controls:
            return {}
        return self.memory.get(without_motion, (predicted,), lambda: without_motion(predicted, seed=seed))


def _makes(metric: Metric, made: Reconstruction) -> bool:
    """Return whether a system makes what the metric takes."""
    return (made.clips if metric.takes == "clips" else made.probabilities) is not None


def _columns(categories: tuple[str, ...], labels: np.ndarray) -> tuple[str, ...]:
    """Return the categories of a system and then the true ones that it doesn't know."""
    unknown = sorted({str(label) for label in labels if label} - set(categories))
    return (*categories, *unknown)


def _truth(metric: Metric, truth: Samples, columns: tuple[str, ...]) -> np.ndarray | None:
    """Return the true clips, or the true categories as probabilities; None where they are unknown."""
    if metric.takes == "clips":
        return truth.clips
    return one_hot(truth.category, columns) if (truth.category != "").any() else None


def _answer(metric: Metric, made: Reconstruction | None, columns: tuple[str, ...]) -> np.ndarray | None:
    """Return what the metric takes of a reconstruction; categories that the system doesn't know get probability 0."""
    if made is None or not _makes(metric, made):
        return None
    if metric.takes == "clips" or made.probabilities is None:
        return made.clips
    wide = np.zeros((len(made.probabilities), len(columns)))
    for source, name in enumerate(made.categories):
        wide[:, columns.index(name)] = made.probabilities[:, source]
    return wide
