"""Scores: one value per clip, with the variant, the chance, the ceiling and the interval that make it believable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroreel.core.checks import dimensions, one_of, require, same_length
from neuroreel.core.errors import DataError

CHANCE_ROWS = ("shuffled", "train-marginal", "mean-brain", "noise", "nearest-train", "analytic")
CONTROLS = ("static", "reversed", "frame-shuffled")
CHOICES = ("first", "random", "average", "brain")
LESION_COLUMNS = ("voxels", "without", "without_low", "without_high", "only", "only_low", "only_high")


@dataclass(frozen=True, eq=False)
class Scores:
    """What one metric says of one system: a value per clip and everything needed to judge it.

    Parameters
    ----------
    variant : full name of the metric, `metric:variant`, e.g. `ssim:rgb-uniform7`.
    values : array (clips,), kept as read-only float64; NaN where the metric is undefined for the clip.
    higher_is_better : False for distances and errors.
    chance : value of the metric for each trivial answer, by row: `shuffled` pairs, `train-marginal`, `mean-brain` and
        `noise` through the fitted system, `nearest-train` clip, `analytic`.
    ceiling : value for the truth's own features through the same generator, or None where nobody measured it.
    low, high : 95 % confidence interval of the mean, from a bootstrap over blocks of clips.
    p : p-value from a permutation of blocks of clips.
    controls : value of the metric for the same reconstruction with its motion taken away, by row: `static`, `reversed`,
        `frame-shuffled`; only for metrics of motion.
    samples : reconstructions drawn per clip.
    chosen_by : how one of them was chosen: the `first`, one at `random`, their `average`, or by the `brain`.
    mode : how the system came to see the test brains, e.g. "transductive": it stands beside the score.

    Raises
    ------
    DataError : the values are not one number per clip, an interval is reversed, p is no probability, or a sample was
        chosen with the truth.
    ConfigError : a chance row, a control or a way of choosing is unknown.
    """

    variant: str
    values: np.ndarray
    higher_is_better: bool = True
    chance: Mapping[str, float] = field(default_factory=dict)
    ceiling: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    controls: Mapping[str, float] = field(default_factory=dict)
    samples: int = 1
    chosen_by: str = "first"
    mode: str = ""

    def __post_init__(self) -> None:
        where = self.variant or None
        require(bool(self.variant), "variant", "must name the metric", repr(self.variant))
        values = np.array(self.values, dtype=np.float64)
        dimensions("values", values, ("clips",), where)
        require(values.size > 0, "values", "must hold at least one clip", values.size, where)
        require(not np.isinf(values).any(), "values", "must not be infinite", np.isinf(values).sum(), where)
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        for name, known in (("chance", CHANCE_ROWS), ("controls", CONTROLS)):
            rows = getattr(self, name)
            for row in rows:
                one_of("chance row" if name == "chance" else "control", row, known, where)
            object.__setattr__(self, name, {row: float(value) for row, value in rows.items()})
        if self.low is not None and self.high is not None:
            interval = f"{self.low:g} to {self.high:g}"
            require(not self.low > self.high, "the interval", "must have low <= high", interval, where)
        if self.p is not None:
            require(0 <= self.p <= 1, "p", "must lie between 0 and 1", self.p, where)
        require(self.samples >= 1, "samples", "must be >= 1", self.samples, where)
        rule = "must not look at the truth: a sample chosen with it scores what no decoder can reach"
        require(self.chosen_by != "truth", "chosen_by", rule, repr(self.chosen_by), where)
        one_of("chosen_by", self.chosen_by, CHOICES, where)

    @property
    def metric(self) -> str:
        """The metric's name without variant and network: `ssim` of `ssim:rgb-uniform7`, `lpips` of `lpips@alex-...`."""
        return self.variant.partition(":")[0].partition("@")[0]

    @property
    def mean(self) -> float:
        """Mean over the clips for which the metric is defined; NaN if there are none."""
        defined = self.values[~np.isnan(self.values)]
        return float(defined.mean()) if defined.size else float("nan")

    @property
    def undefined(self) -> int:
        """Number of clips for which the metric is undefined."""
        return int(np.isnan(self.values).sum())

    @property
    def chance_value(self) -> float | None:
        """The best of the chance rows, so that a system has to beat every trivial answer; None if none was measured."""
        known = [value for value in self.chance.values() if np.isfinite(value)]
        if not known:
            return None
        return max(known) if self.higher_is_better else min(known)

    def normalise(self, value: float | None) -> float | None:
        """Return (value - chance) / (ceiling - chance), or None.

        0 is chance and 1 is the ceiling, also where lower is better. None where the value, the chance or the ceiling is
        missing, and where the ceiling is no better than chance, since the metric then can't tell anything.
        """
        chance, ceiling = self.chance_value, self.ceiling
        if value is None or chance is None or ceiling is None or not np.isfinite([value, ceiling]).all():
            return None
        room = ceiling - chance
        if room == 0 or (room > 0) != self.higher_is_better:
            return None
        return float((value - chance) / room)

    @property
    def normalised(self) -> float | None:
        """The mean on the scale from chance (0) to the ceiling (1), or None."""
        return self.normalise(self.mean)

    @property
    def normalised_interval(self) -> tuple[float, float] | None:
        """The confidence interval on the scale from chance to the ceiling, smaller number first, or None.

        Chance and ceiling are taken as known, so the interval holds only the uncertainty from the clips.
        """
        ends = [self.normalise(self.low), self.normalise(self.high)]
        known = sorted(end for end in ends if end is not None)
        return (known[0], known[1]) if len(known) == 2 else None

    def to_dict(self) -> dict[str, object]:
        """Return plain numbers, ready for JSON: NaN and what is missing become None; `rows` holds the chance rows."""
        interval = self.normalised_interval
        return {
            "value": _plain(self.mean),
            "chance": _plain(self.chance_value),
            "ceiling": _plain(self.ceiling),
            "normalised": self.normalised,
            "low": _plain(self.low),
            "high": _plain(self.high),
            "p": _plain(self.p),
            "rows": {row: _plain(value) for row, value in self.chance.items()},
            "controls": {row: _plain(value) for row, value in self.controls.items()},
            "normalised_interval": list(interval) if interval else None,
            "higher_is_better": self.higher_is_better,
            "clips": int(self.values.size),
            "undefined": self.undefined,
            "samples": self.samples,
            "chosen_by": self.chosen_by,
            "mode": self.mode,
        }


@dataclass(frozen=True)
class ScoreTable:
    """Scores of several systems on one test set, all measured with the same code.

    Parameters
    ----------
    rows : scores by system and by variant.
    skipped : reason by name of each metric that was asked for and could not be measured.

    Raises
    ------
    DataError : two systems have different variants of one metric, or were scored on different numbers of clips; a score
        stands under another name than its own; a metric is both scored and skipped.
    """

    rows: Mapping[str, Mapping[str, Scores]]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", {system: dict(scores) for system, scores in self.rows.items()})
        object.__setattr__(self, "skipped", dict(self.skipped))
        seen: dict[str, tuple[str, dict[str, Scores]]] = {}
        for system, scores in self.rows.items():
            by_metric: dict[str, dict[str, Scores]] = {}
            for variant, score in scores.items():
                require(variant == score.variant, "a score", f"must stand under {score.variant}", variant, system)
                by_metric.setdefault(score.metric, {})[variant] = score
            for metric, own in by_metric.items():
                other, known = seen.setdefault(metric, (system, own))
                _same_measure(metric, (other, known), (system, own))
        for name, reason in self.skipped.items():
            require(bool(reason), "a skipped metric", "must have a reason", repr(reason), name)
            require(name not in self.variants, "a skipped metric", "must not have scores", name)

    @property
    def variants(self) -> tuple[str, ...]:
        """Every variant that some system was scored with, in order of appearance."""
        return tuple(dict.fromkeys(variant for scores in self.rows.values() for variant in scores))

    def to_dict(self) -> dict[str, dict[str, object]]:
        """Return `{"rows": {system: {variant: numbers}}, "skipped": {metric: reason}}`, ready for JSON."""
        rows: dict[str, object] = {
            system: {variant: score.to_dict() for variant, score in scores.items()}
            for system, scores in self.rows.items()
        }
        return {"rows": rows, "skipped": dict(self.skipped)}


@dataclass(frozen=True, eq=False)
class LagSweep:
    """A score against the time from the onset of a clip to the brain it is decoded from; negative lags are a control.

    Parameters
    ----------
    lags_s : array (lags,), rising.
    values : array (lags,), the mean of the metric at each lag; NaN where it could not be measured.
    low, high : arrays (lags,), 95 % confidence interval of the mean; NaN where there is none.
    variant : full name of the metric.
    chance : value of the metric that needs no brain, or None where nobody measured it.
    higher_is_better : False for distances and errors.

    Raises
    ------
    DataError : the arrays differ in length, are empty, or the lags don't rise.
    """

    lags_s: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    variant: str
    chance: float | None = None
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        _keep_columns(self, ("lags_s", "values", "low", "high"), "lags", self.variant)
        require(bool(np.all(np.diff(self.lags_s) > 0)), "lags_s", "must rise", self.lags_s.tolist(), self.variant)

    @property
    def best_lag_s(self) -> float:
        """The lag with the best score; NaN if there is none."""
        signed = self.values if self.higher_is_better else -self.values
        return float(self.lags_s[np.nanargmax(signed)]) if np.isfinite(signed).any() else float("nan")

    def to_dict(self) -> dict[str, object]:
        """Return plain lists and numbers, ready for JSON: NaN and what is missing become None."""
        columns = {name: _plain_list(getattr(self, name)) for name in ("lags_s", "values", "low", "high")}
        extra = {"chance": _plain(self.chance), "higher_is_better": self.higher_is_better}
        return {"variant": self.variant, **columns, **extra}


@dataclass(frozen=True, eq=False)
class IdentificationCurve:
    """Accuracy of finding the true clip among more and more candidates.

    Parameters
    ----------
    candidates : array (sizes,), number of clips to choose from, the true one included; rising.
    values : array (sizes,), the mean accuracy over the clips.
    low, high : arrays (sizes,), 95 % confidence interval of the mean; NaN where there is none.
    chance : array (sizes,), the accuracy of a guess: top / candidates.
    variant : full name of the metric, e.g. `identification:top1`.

    Raises
    ------
    DataError : the arrays differ in length, are empty, or the candidates don't rise.
    """

    candidates: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chance: np.ndarray
    variant: str

    def __post_init__(self) -> None:
        _keep_columns(self, ("candidates", "values", "low", "high", "chance"), "sizes", self.variant)
        rises = bool(np.all(np.diff(self.candidates) > 0))
        require(rises, "candidates", "must rise", self.candidates.tolist(), self.variant)

    def to_dict(self) -> dict[str, object]:
        """Return plain lists and numbers, ready for JSON: NaN and what is missing become None."""
        names = ("candidates", "values", "low", "high", "chance")
        return {"variant": self.variant, **{name: _plain_list(getattr(self, name)) for name in names}}


@dataclass(frozen=True, eq=False)
class ScoreCurve:
    """A score against how much a system was given: brain dimensions, minutes of training scan, test repeats.

    Parameters
    ----------
    x : array (points,), how much, rising.
    values : array (points,), the mean of the metric at each.
    low, high : arrays (points,), 95 % confidence interval of the mean; NaN where there is none.
    chance : array (points,), the best answer that decodes nothing at each; NaN where nobody measured it.
    along : what `x` counts, e.g. "minutes of training scan".
    variant : full name of the metric.
    higher_is_better : False for distances and errors.

    Raises
    ------
    DataError : the arrays differ in length, are empty, or `x` doesn't rise.
    """

    x: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chance: np.ndarray
    along: str
    variant: str
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        _keep_columns(self, ("x", "values", "low", "high", "chance"), "points", self.variant)
        require(bool(np.all(np.diff(self.x) > 0)), self.along, "must rise", self.x.tolist(), self.variant)

    @classmethod
    def of(cls, x: Sequence[float], scores: Sequence[Scores], along: str) -> ScoreCurve:
        """Return the curve of the scores of one metric, measured at each of `x`; DataError if they are of several."""
        require(len(scores) > 0, along, "must have 1 point or more", 0)
        names = sorted({score.variant for score in scores})
        require(len(names) == 1, f"scores along {along}", "must be of one metric", ", ".join(names))
        values, low, high, chance = (_column(scores, name) for name in ("mean", "low", "high", "chance_value"))
        higher = scores[0].higher_is_better
        return cls(np.asarray(x, dtype=np.float64), values, low, high, chance, along, names[0], higher)

    def to_dict(self) -> dict[str, object]:
        """Return plain lists and numbers, ready for JSON: NaN and what is missing become None."""
        columns = {name: _plain_list(getattr(self, name)) for name in ("x", "values", "low", "high", "chance")}
        return {"variant": self.variant, "along": self.along, "higher_is_better": self.higher_is_better, **columns}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScoreCurve:
        """Return the curve that `to_dict` made plain."""
        return cls(**_restored(values, ("x", "values", "low", "high", "chance")))


@dataclass(frozen=True, eq=False)
class Lesions:
    """A score with each region of the brain taken away, and with only that region.

    Parameters
    ----------
    regions : names.
    voxels : array (regions,), voxels of each.
    without, without_low, without_high : arrays (regions,), the mean of the metric with the region's voxels removed and
        its 95 % interval; NaN where nothing is left.
    only, only_low, only_high : arrays (regions,), the same with the region's voxels alone.
    whole, whole_low, whole_high : the same with all voxels.
    chance : the best answer that decodes nothing, the mean over all fits; NaN where nobody measured it.
    variant : full name of the metric.
    higher_is_better : False for distances and errors.

    Raises
    ------
    DataError : the arrays differ in length or are empty.
    """

    regions: tuple[str, ...]
    voxels: np.ndarray
    without: np.ndarray
    without_low: np.ndarray
    without_high: np.ndarray
    only: np.ndarray
    only_low: np.ndarray
    only_high: np.ndarray
    whole: float
    whole_low: float
    whole_high: float
    chance: float
    variant: str
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "regions", tuple(self.regions))
        _keep_columns(self, LESION_COLUMNS, "regions", self.variant)
        same_length("voxels", len(self.voxels), "regions", len(self.regions), self.variant)

    def to_dict(self) -> dict[str, object]:
        """Return plain lists and numbers, ready for JSON: NaN and what is missing become None."""
        columns = {name: _plain_list(getattr(self, name)) for name in LESION_COLUMNS}
        alone = {name: _plain(getattr(self, name)) for name in ("whole", "whole_low", "whole_high", "chance")}
        facts = {"variant": self.variant, "higher_is_better": self.higher_is_better, "regions": list(self.regions)}
        return facts | columns | alone

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Lesions:
        """Return the lesions that `to_dict` made plain."""
        return cls(**_restored(values, (*LESION_COLUMNS, "whole", "whole_low", "whole_high", "chance")))


def _column(scores: Sequence[Scores], name: str) -> np.ndarray:
    """Return one attribute of each of some scores, array (scores,), NaN where it is missing."""
    found = [getattr(score, name) for score in scores]
    return np.array([np.nan if value is None else value for value in found], dtype=np.float64)


def _restored(values: Mapping[str, Any], numbers: tuple[str, ...]) -> dict[str, Any]:
    """Return what `to_dict` made plain with the named numbers and lists as floats and arrays, NaN for None."""
    made = {}
    for name in numbers:
        array = np.array(values[name], dtype=np.float64)
        made[name] = array if array.ndim else float(array)
    return dict(values) | made


def _keep_columns(owner: object, names: tuple[str, ...], axis: str, where: str) -> None:
    """Replace the named arrays of a frozen dataclass by read-only float64 copies, if they have one common length."""
    expected = np.size(getattr(owner, names[0]))
    require(expected > 0, names[0], "must hold at least one value", expected, where)
    for name in names:
        column = np.array(getattr(owner, name), dtype=np.float64)
        dimensions(name, column, (axis,), where)
        same_length(name, column.size, names[0], expected, where)
        column.setflags(write=False)
        object.__setattr__(owner, name, column)


def _plain_list(values: np.ndarray) -> list[float | None]:
    """Return Python floats, None for NaN."""
    return [_plain(value) for value in values.tolist()]


def _plain(value: float | None) -> float | None:
    """Return a Python float, or None for what is missing or NaN."""
    return None if value is None or not np.isfinite(value) else float(value)


def _same_measure(metric: str, first: tuple[str, dict[str, Scores]], second: tuple[str, dict[str, Scores]]) -> None:
    """Raise DataError unless two systems were scored with the same variants of a metric on as many clips."""
    (system, known), (other, own) = first, second
    if set(known) != set(own):
        got = f"{', '.join(sorted(known))} for {system} and {', '.join(sorted(own))} for {other}"
        raise DataError(f"{metric} must be measured with the same variants for every system of a table, got {got}")
    for variant, score in own.items():
        expected = known[variant].values.size
        got = f"{score.values.size} for {other} and {expected} for {system}"
        require(score.values.size == expected, variant, "must be measured on the same clips for every system", got)
        same = score.higher_is_better == known[variant].higher_is_better
        require(same, variant, "must point the same way for every system", f"{other} against {system}")
