"""What a system's score depends on: brain dimensions, regions, minutes of training scan, test repeats.

Each probe asks one system of a run folder again with less, fitted anew where the training side changes:

    bottleneck   volumes projected to their first k principal components (BrainBits, Mayo et al. 2024, NeurIPS)
    lesions      without each region, and with it alone
    minutes      with a share of every training run
    repeats      with fewer repeats of the test, the system as it was fitted
    attention    where the masked encoder looks, beside one fitted on shuffled pairs

Every point is kept in the run folder as soon as it is measured, so that a probe that was stopped goes on:

    probes/KIND/SYSTEM/POINT-CHECKSUM.json    the score of one point
    probes/KIND-SYSTEM.json                   the result, which the report shows (attention-SYSTEM.npz: maps)
    probes/KIND-SYSTEM.png                    its figure
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neuroreel.core import checks
from neuroreel.core.attention import AttentionMaps, regions_or_networks
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.files import atomic, write_text
from neuroreel.core.scores import Lesions, ScoreCurve, Scores
from neuroreel.core.sets import Cut, Segment, Split, TestSet, TrainingSet
from neuroreel.core.system import RunFolder, System
from neuroreel.core.types import Dataset, Reconstruction, Run, Samples
from neuroreel.metrics.backbones import open_backbones
from neuroreel.metrics.chance import nearest_train, train_marginal
from neuroreel.metrics.embedded import Embed
from neuroreel.metrics.table import evaluate
from neuroreel.preprocess.components import Components
from neuroreel.report.attention_figures import attention_pictures
from neuroreel.report.figures import system_colours
from neuroreel.report.probe_figures import curve_picture, lesions_picture
from neuroreel.report.record import PROBES
from neuroreel.workflow import Progress, RunConfig, ScoringConfig, Sets, load_systems, make_sets, networks_for, open_run

Kind = Literal["bottleneck", "lesions", "minutes", "repeats"]
Measure = Callable[[str, TrainingSet, TestSet], Scores]
"""Fit on a training set and score on a test set; the text is the point's name."""

DIMENSIONS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SHARES = (0.125, 0.25, 0.5, 1.0)
REPEATS = (1, 2, 5, 10)
ALONG = {
    "bottleneck": "brain dimensions kept",
    "minutes": "minutes of training scan",
    "repeats": "repeats of the test averaged",
}
DRAWS = 1000


# ---------------------------------------------------------------------------------------------------------------------
# The probes: sets in, curve out


def bottleneck(sets: Sets, measure: Measure, dimensions: Sequence[int] = ()) -> ScoreCurve:
    """Return the score against the number of principal components that are left of every brain volume.

    The components are those of the training windows' volumes; both sides are projected to them, and the system is
    fitted anew for each number. The last point is the brain as it is.

    Parameters
    ----------
    dimensions : numbers of components; about ten that grow by a factor unless given. Those beyond what the training
        volumes have are left out.

    Raises
    ------
    DataError, ConfigError : as in `Components.fit` and the system's `fit`; a number below 1.
    """
    for count in dimensions:
        checks.require(count >= 1, "dimensions", "must be 1 or more", count, error=ConfigError)
    found = components_of(sets.train)
    counts = [count for count in sorted(set(dimensions or DIMENSIONS)) if count < len(found)]
    scores = [measure(str(count), *reduced(sets.cut, found, count).sets(sets.window)) for count in counts]
    scores.append(measure("all", sets.train, sets.test))
    return ScoreCurve.of([*counts, len(found)], scores, ALONG["bottleneck"])


def components_of(train: TrainingSet) -> Components:
    """Return the principal components of the volumes of the training windows; the test side can't be handed in."""
    brain = train.samples.brain
    return Components.fit(brain.reshape(-1, brain.shape[2]))


def reduced(cut: Cut, found: Components, count: int) -> Cut:
    """Return the runs of both sides with every volume projected to so many components."""

    def keep(run: Run) -> Run:
        return replace(run, bold=replace(run.bold, data=found.keep(run.bold.data, count)))

    return cut.map(keep)


def lesions(sets: Sets, measure: Measure, regions: Sequence[str] = ()) -> Lesions:
    """Return the score without each region's voxels and with them alone, the system fitted anew for each.

    Parameters
    ----------
    regions : names of masks of the space; all of them unless given. One without voxels is left out.

    Raises
    ------
    DataError : the space has no regions. ConfigError : a region is unknown.
    """
    masks = sets.train.samples.space.rois
    checks.require(bool(masks), "regions", "must be known of the voxels to be removed", "none", sets.dataset.name)
    for name in regions:
        checks.one_of("region", name, masks, sets.dataset.name)
    chosen = {name: np.asarray(masks[name], dtype=bool) for name in regions or masks}
    chosen = {name: mask for name, mask in chosen.items() if mask.any()}
    checks.require(bool(chosen), "regions", "must hold voxels", "none", sets.dataset.name)
    whole = measure("whole", sets.train, sets.test)
    rows: dict[str, list[Scores | None]] = {"without": [], "only": []}
    for name, mask in chosen.items():
        left = measure(f"without {name}", *with_voxels(sets.cut, ~mask).sets(sets.window)) if not mask.all() else None
        rows["without"].append(left)
        rows["only"].append(measure(f"only {name}", *with_voxels(sets.cut, mask).sets(sets.window)))
    known = [whole, *(score for row in rows.values() for score in row if score is not None)]
    chances = [score.chance_value for score in known if score.chance_value is not None]
    columns = {}
    for key, row in rows.items():
        columns[key] = [np.nan if score is None else score.mean for score in row]
        for end in ("low", "high"):
            columns[f"{key}_{end}"] = [np.nan if score is None else _or_nan(getattr(score, end)) for score in row]
    return Lesions(
        tuple(chosen),
        np.array([mask.sum() for mask in chosen.values()]),
        **{key: np.array(column) for key, column in columns.items()},
        whole=whole.mean,
        whole_low=_or_nan(whole.low),
        whole_high=_or_nan(whole.high),
        chance=float(np.mean(chances)) if chances else np.nan,
        variant=whole.variant,
        higher_is_better=whole.higher_is_better,
    )


def with_voxels(cut: Cut, mask: np.ndarray) -> Cut:
    """Return the runs of both sides with the voxels where the mask (voxels,) is True."""

    def take(run: Run) -> Run:
        bold = run.bold
        return replace(run, bold=replace(bold, data=bold.data[:, mask], space=bold.space.take(mask)))

    return cut.map(take)


def minutes(dataset: Dataset, config: RunConfig, measure: Measure, wanted: Sequence[float] = ()) -> ScoreCurve:
    """Return the score against the minutes of training scan, the same first share of every training run.

    Cleaning, scaling and all else that is fitted see the share alone.

    Parameters
    ----------
    wanted : minutes; 1/8, 1/4, 1/2 and all unless given. More than there are is all.
    """
    whole = make_sets(dataset, config)
    total = sum(run.bold.n_trs * run.bold.tr_s for run in whole.cut.train) / 60
    for each in wanted:
        checks.require(each > 0, "minutes", "must be > 0", each, error=ConfigError)
    shares = sorted({min(1.0, each / total) for each in wanted} if wanted else set(SHARES))
    splits = [shortened(whole.cut, share) for share in shares]
    lengths = [sum(_length_s(part) for part in split.train) / 60 for split in splits]
    distinct = {round(length, 6): split for length, split in zip(lengths, splits, strict=True)}
    scores = []
    for length, split in distinct.items():
        sets = make_sets(dataset, config, split)
        scores.append(measure(f"{length:g}", sets.train, sets.test))
    return ScoreCurve.of(list(distinct), scores, ALONG["minutes"])


def shortened(cut: Cut, share: float) -> Split:
    """Return the split with the first share of every training run, in whole volumes and at least one."""
    parts = []
    for run in cut.train:
        bold = run.bold
        kept = max(1, round(share * bold.n_trs))
        parts.append(Segment(run=bold.run, start_s=bold.start_s, stop_s=bold.start_s + kept * bold.tr_s))
    reason = f"{cut.split.reason}; the first {share:.3g} of every training run"
    return cut.split.model_copy(update={"train": tuple(parts), "reason": reason})


def repeats(
    dataset: Dataset, config: RunConfig, score: Callable[[str, TestSet], Scores], wanted: Sequence[int] = ()
) -> ScoreCurve:
    """Return the score against the number of test repeats that are averaged, of a system that stays as it is.

    Parameters
    ----------
    score : score a test set; the text is the point's name.
    wanted : numbers of repeats; 1, 2, 5, 10 and all unless given. More than there are is all.

    Raises
    ------
    DataError : nothing is repeated or repeats aren't averaged; or fewer repeats test fewer clips.
    """
    whole = make_sets(dataset, config)
    for each in wanted:
        checks.require(each >= 1, "repeats", "must be 1 or more", each, error=ConfigError)
    groups: dict[str, list[Segment]] = {}
    for run, part in zip(whole.cut.test, whole.cut.split.test, strict=True):
        groups.setdefault(run.stimulus if whole.window.at == "steps" else "", []).append(part)
    most = max(len(parts) for parts in groups.values())
    averaged = whole.window.average and int(whole.test.truth.repeats.max()) > 1
    checks.require(averaged, "test stimuli", "must be repeated and their repeats averaged", "none", dataset.name)
    scores: dict[float, Scores] = {}
    for count in sorted({min(most, each) for each in wanted or (*REPEATS, most)}):
        parts = tuple(part for group in groups.values() for part in group[:count])
        test = make_sets(dataset, config, whole.cut.split.model_copy(update={"test": parts})).test
        checks.same_length("tested clips", len(test.truth), "all repeats", len(whole.test.truth), f"{count} repeats")
        scores[float(test.truth.repeats.mean())] = score(str(count), test)
    return ScoreCurve.of(list(scores), list(scores.values()), ALONG["repeats"])


# ---------------------------------------------------------------------------------------------------------------------
# A system of a run folder


@dataclass(frozen=True)
class Prober:
    """One system, asked again and again; what it answered is kept in a folder.

    Attributes
    ----------
    name, kind, settings : the system, its class and its config.
    metric : variant in METRICS; None for pairwise identification, or category accuracy where no clips are made.
    embed : networks by role.
    seed : of the fits and the bootstrap.
    about : what else the answers depend on, plain: other values are other points.
    folder : where points are kept; None for nowhere.
    store : of the data; None for none.
    """

    name: str
    kind: type[System]
    settings: Any
    metric: str | None
    embed: Embed
    seed: int = 0
    about: Mapping[str, Any] | None = None
    folder: Path | None = None
    progress: Progress | None = None
    store: Path | None = None

    def __call__(self, point: str, train: TrainingSet, test: TestSet) -> Scores:
        """Return the score of the system fitted on a training set; read from the folder where it is known."""

        def fit(log: Path) -> System:
            return self.kind(self.settings).fit(train, run=RunFolder(log, seed=self.seed, store=self.store))

        return self._kept(point, fit, train.samples, test)

    def ask(self, system: System, train: Samples, point: str, test: TestSet) -> Scores:
        """Return the score of a fitted system; read from the folder where it is known."""
        return self._kept(point, lambda log: system, train, test)

    def score(self, system: System, train: Samples, test: TestSet) -> Scores:
        """Return the score of a fitted system, with the chance rows that ask no system."""
        truth, made = test.truth, system.reconstruct(test.brain)
        metric = self.metric or default_metric(made)
        wanted = (made.clips is not None, made.categories)
        chance = {
            "train-marginal": (train_marginal(train, len(truth), *wanted),),
            "nearest-train": (nearest_train(train, truth, *wanted),),
        }
        table = evaluate(
            {self.name: made},
            truth,
            variants=[metric],
            chance={self.name: chance},
            embed=self.embed,
            seed=self.seed,
            draws=DRAWS,
        )
        if metric in table.skipped:
            raise DataError(f"{table.skipped[metric]} ({metric})")
        return next(iter(table.rows[self.name].values()))

    def _kept(self, point: str, fit: Callable[[Path], System], train: Samples, test: TestSet) -> Scores:
        _say(self.progress, f"{self.name}: {point}")
        if self.folder is None:
            return self.score(fit(Path()), train, test)
        facts = {
            "system": self.name,
            "settings": self.settings.model_dump(mode="json"),
            "metric": self.metric,
            "networks": {role: getattr(net, "tag", "") for role, net in sorted(self.embed.items())},
            "seed": self.seed,
            "point": point,
            **(self.about or {}),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]
        file = self.folder / f"{_plain(point)}-{digest}.json"
        if file.is_file():
            return _read_scores(file)
        log = file.with_suffix("")
        found = self.score(fit(log), train, test)
        values = {
            "variant": found.variant,
            "values": found.values.tolist(),
            "higher_is_better": found.higher_is_better,
            "chance": dict(found.chance),
            "low": found.low,
            "high": found.high,
            "p": found.p,
        }
        write_text(file, json.dumps({"scores": values, "of": facts}, indent=2, default=str) + "\n")
        shutil.rmtree(log, ignore_errors=True)
        return found


def default_metric(made: Reconstruction) -> str:
    """Return the metric that a system is judged by unless another is named."""
    return "identification:pairwise" if made.clips is not None else "category-accuracy"


def probe_run(
    run: Path,
    kind: Kind,
    *,
    systems: Sequence[str] = (),
    metric: str | None = None,
    points: Sequence[Any] = (),
    scoring: ScoringConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, ScoreCurve | Lesions]:
    """Probe systems of a run folder, and keep result and figure in it; return the results by system.

    Parameters
    ----------
    run : a folder that `fit` wrote.
    kind : the probe.
    systems : names; all of the folder unless given.
    metric : variant in METRICS; see `Prober`.
    points : dimensions, regions, minutes or repeats; the probe's own unless given.
    scoring : networks of the metric, and where they run, as in `evaluate_run`.

    Raises
    ------
    NeuroreelError : in one sentence, as the parts do.
    """
    asked = {} if metric is None else {"metrics": (metric,)}
    given = ScoringConfig() if scoring is None else scoring
    sets, config = open_run(run, ScoringConfig.build(given.model_dump(exclude_unset=True) | asked))
    fitted = load_systems(run)
    for name in systems:
        checks.one_of("system", name, fitted, run)
    embed = open_backbones(networks_for(sets.dataset, config), device=config.device) if metric else {}
    about = json.loads((run / "run.json").read_text())
    same = {key: about[key] for key in ("dataset", "subject", "split", "window")}
    same["cleaning"] = {key: about["config"].get(key) for key in ("clean", "scale")}
    found: dict[str, ScoreCurve | Lesions] = {}
    for name in systems or fitted:
        system = fitted[name]
        folder = run / PROBES / kind / name
        prober = Prober(
            name, type(system), system.config, metric, embed, config.seed, same, folder, progress, sets.store
        )
        found[name] = _probe(kind, prober, system, sets, config, points)
        _write(run / PROBES, kind, name, found[name])
    return found


def attention_run(
    run: Path,
    *,
    systems: Sequence[str] = (),
    layers: Sequence[int] = (),
    shuffled: bool = True,
    progress: Progress | None = None,
) -> dict[str, AttentionMaps]:
    """Map where the encoders of systems of a run folder look, and keep maps and figures in it; return them by system.

    Parameters
    ----------
    run : a folder that `fit` wrote.
    systems : names; all of the folder that have a masked encoder unless given.
    layers : numbers of the encoder's blocks; the first, the middle and the last one unless given.
    shuffled : fit each system again on shuffled pairs of brain and clip, whose maps stand beside.

    Raises
    ------
    ConfigError : no system, or a named one, has a masked encoder. Else as in the system's `fit`.
    """
    from neuroreel.brain.interpretation import Attending, attention_maps

    sets, config = open_run(run)
    fitted = load_systems(run)
    for name in systems:
        checks.one_of("system", name, fitted, run)
    chosen: dict[str, Attending] = {}
    for name in systems or fitted:
        system = fitted[name]
        if isinstance(system, Attending):
            chosen[name] = system
        rule = "must have a masked encoder (brain_)"
        there = name in chosen or not systems
        checks.require(there, f"system {name}", rule, type(system).__name__, run, ConfigError)
    rule = "must include one with a masked encoder"
    checks.require(bool(chosen), "systems", rule, ", ".join(fitted), run, ConfigError)
    found, windows = {}, sets.test.brain.brain
    for name, attending in chosen.items():
        _say(progress, f"{name}: attention")
        maps = attention_maps(attending, run / "systems" / name / "log", windows, layers)
        if shuffled:
            _say(progress, f"{name}: fitting on shuffled pairs")
            log = run / PROBES / "attention" / name
            kind = type(fitted[name])
            folder = RunFolder(log, seed=config.seed, store=sets.store)
            twin = kind(fitted[name].config).fit(sets.train.shuffled(config.seed), run=folder)
            assert isinstance(twin, Attending)
            maps = replace(maps, shuffled=attention_maps(twin, log, windows, layers).stages)
        maps.save(run / PROBES / f"attention-{name}.npz")
        shutil.rmtree(run / PROBES / "attention" / name, ignore_errors=True)
        regions = regions_or_networks(sets.train.samples.space.rois)
        for drawn in attention_pictures(name, sets.train.samples.space, maps, regions)[0]:
            with atomic(run / PROBES / f"{drawn.name.rpartition('_')[0]}-{name}.png") as partial_file:
                partial_file.write_bytes(drawn.png)
        found[name] = maps
    return found


def _say(progress: Progress | None, text: str) -> None:
    if progress is not None:
        progress(text)


def _probe(
    kind: Kind, prober: Prober, system: System, sets: Sets, config: RunConfig, points: Sequence[Any]
) -> ScoreCurve | Lesions:
    if kind == "bottleneck":
        return bottleneck(sets, prober, [int(each) for each in points])
    if kind == "lesions":
        return lesions(sets, prober, [str(each) for each in points])
    if kind == "minutes":
        return minutes(sets.dataset, config, prober, [float(each) for each in points])
    ask = partial(prober.ask, system, sets.train.samples)
    return repeats(sets.dataset, config, ask, [int(each) for each in points])


def _write(folder: Path, kind: Kind, name: str, found: ScoreCurve | Lesions) -> None:
    """Write a result and its figure."""
    colours = system_colours([name])
    if isinstance(found, Lesions):
        drawn = lesions_picture(name, found, colours[name])
    else:
        drawn = curve_picture({name: found}, colours, kind)
    with atomic(folder / f"{kind}-{name}.png") as partial_file:
        partial_file.write_bytes(drawn.png)
    facts = {"kind": kind, "system": name, "result": found.to_dict()}
    write_text(folder / f"{kind}-{name}.json", json.dumps(facts, indent=2) + "\n")


def _read_scores(file: Path) -> Scores:
    try:
        values = json.loads(file.read_text())["scores"]
        return Scores(**values | {"values": np.array(values["values"], dtype=np.float64)})
    except (ValueError, KeyError, TypeError):
        raise DataError(checks.sentence("a kept point", "must be whole; it can be deleted", "another", file)) from None


def _plain(text: str) -> str:
    """Return a text as a file's name: other signs than letters, digits, dots and dashes become dashes."""
    return "".join(sign if sign.isalnum() or sign in ".-" else "-" for sign in text)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _length_s(part: Segment) -> float:
    assert part.start_s is not None and part.stop_s is not None
    return part.stop_s - part.start_s
