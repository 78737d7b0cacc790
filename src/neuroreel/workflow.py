"""From a store to a report: split, clean, fit, reconstruct, evaluate; each step a function and a folder of files.

A run folder holds

    run.json                    what was done: data, split, window, cleaning, seed, versions
    systems/NAME/               a fitted system: config and weights
    reconstructions/NAME.npz    what it made of the test brains
    reconstructions/beside/NAME what stands beside it: answers of chance and the ceiling
    scores.json                 the table, with chance, ceiling and intervals
    probes/                     what scores depend on, as `neuroreel.probes` measured it
    report/index.html           the page
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError, DataError, StoreError
from neuroreel.core.files import atomic, write_text
from neuroreel.core.scores import IdentificationCurve, LagSweep, Scores, ScoreTable
from neuroreel.core.sets import Cut, Segment, Split, TestSet, TrainingSet, Window, read_split
from neuroreel.core.store import read_store, store_table
from neuroreel.core.system import RunFolder, System, versions
from neuroreel.core.training import TrainingLog
from neuroreel.core.types import Dataset, Reconstruction, Recording, Run, Samples
from neuroreel.fit.ridge import predict_ridge, solve_ridge_cv
from neuroreel.metrics.backbones import WORLD, WORLD_ROLES, open_backbones
from neuroreel.metrics.chance import chance_answers
from neuroreel.metrics.encoding import over_ceiling, voxel_correlation
from neuroreel.metrics.identification import similarity_matrix
from neuroreel.metrics.registry import BACKBONES, METRICS
from neuroreel.metrics.sweep import curve_of_candidates, lag_sweep, sweep_lags
from neuroreel.metrics.table import evaluate, score
from neuroreel.preprocess.clean import CleanConfig, clean_run
from neuroreel.preprocess.repeats import group_repeats, split_half_ceiling, stack_repeats
from neuroreel.preprocess.scale import Scaler
from neuroreel.report.record import CURVES, PROBES, Probed, Record, VoxelMap, read_probes
from neuroreel.systems import find_system

if TYPE_CHECKING:
    from neuroreel.fit.loop import Progress as TrainingProgress

Progress = Callable[[str], None]
SIMULATED = "simulated"  # what `neuroreel simulate` calls its data sets
SECONDS_A_DEGREE = 150.0
RAW = 5.0  # mean over SD above which a voxel is in a scanner's units
FRAME_METRICS = (
    "frame-correlation",
    "pixcorr",
    "mse",
    "psnr",
    "ssim:rgb-uniform7",
    "ssim:gray-gauss",
    "identification:pairwise",
    "identification:top1",
    "identification:top5",
)
LEARNED_METRICS = tuple(name for name, metric in METRICS.items() if metric.backbones and metric.group != "motion")
MOTION_METRICS = tuple(name for name, metric in METRICS.items() if metric.group == "motion")
CATEGORY_METRICS = ("category-accuracy", "nway-category2:top1")


class ScoringConfig(Config):
    """How reconstructions are scored, which may be asked anew of a run that is fitted.

    Attributes
    ----------
    metrics : variants to measure; None for all that fit what was made.
    embed : by role, the network that learned metrics look through: "world", a hub name, a folder or a file, as
        `metrics.backbones.open_backbones` takes them; "" for none. Data of the simulated world have the world's own by
        default, other data none, and metrics without a network are skipped by name.
    device : where these networks run, as torch names it.
    """

    metrics: tuple[str, ...] | None = None
    embed: dict[str, str] = Field(default_factory=dict)
    device: str = "cpu"

    @field_validator("embed")
    @classmethod
    def _known_roles(cls, embed: dict[str, str]) -> dict[str, str]:
        for role in embed:
            checks.one_of("embed role", role, BACKBONES)
        return embed


class RunConfig(ScoringConfig):
    """How a run goes from a data set to scores; `metrics`, `embed` and `device` are those of `ScoringConfig`.

    Attributes
    ----------
    subject : whose recording; None for the only one.
    split : name of one of the data set's splits, or a JSON file; None for its only one, or the last stimuli held out.
    window : settings of `Window` that differ from the data set's own.
    clean : settings of `CleanConfig`; None for polynomials of an order that grows with the run (1 + 1 for every 150 s,
        the rule of AFNI's 3dDeconvolve) and the six motion parameters where they were measured.
    scale : "z" with the training runs' moments; "none"; "auto" takes "z" where voxels are in a scanner's units.
    seed : of everything random.
    """

    subject: str | None = None
    split: str | None = None
    window: dict[str, Any] = Field(default_factory=dict)
    clean: CleanConfig | None = None
    scale: Literal["auto", "z", "none"] = "auto"
    seed: int = 0

    def scored(self, scoring: ScoringConfig | None) -> Self:
        """Return the config with what was given of a scoring in place of its own; networks role by role."""
        given = {key: getattr(scoring, key) for key in scoring.model_fields_set} if scoring else {}
        if "embed" in given:
            given["embed"] = self.embed | given["embed"]
        return self.model_copy(update=given)


# ---------------------------------------------------------------------------------------------------------------------
# Sets


@dataclass(frozen=True)
class Sets:
    """A training set and a test set with how they came about; `store` is where the data set lies, if in one."""

    dataset: Dataset
    subject: str
    cut: Cut
    window: Window
    train: TrainingSet
    test: TestSet
    store: Path | None = None

    def at(self, window: Window) -> tuple[TrainingSet, TestSet]:
        """Return the sets of the same cleaned runs with another window."""
        return self.cut.sets(window)


def make_sets(dataset: Dataset, config: RunConfig, split: Split | None = None) -> Sets:
    """Split one subject's recording, clean every part by itself, scale with the training part, and take windows.

    Parameters
    ----------
    split : None for the one that the config names.

    Raises
    ------
    LeakageError, DataError, ConfigError
        As the parts do.
    """
    recording = choose_recording(dataset, config.subject)
    split = split or choose_split(dataset, recording, config.split)
    window = Window.build(dataset.window.model_dump() | config.window)
    cut = split.cut(recording)
    raw = _in_scanner_units(cut.train)
    cut = cut.map(lambda run: _clean(run, config.clean))
    if config.scale == "z" or (config.scale == "auto" and raw):
        scaler = Scaler.fit([run.bold.data for run in cut.train])
        cut = cut.map(lambda run: replace(run, bold=replace(run.bold, data=scaler.transform(run.bold.data))))
    train, test = cut.sets(window)
    return Sets(dataset, recording.subject, cut, window, train, test)


def stored_sets(store: Path, config: RunConfig, split: Split | None = None) -> Sets:
    """Return `make_sets` of what lies in a store."""
    return replace(make_sets(read_store(store), config, split), store=store.resolve())


def choose_recording(dataset: Dataset, subject: str | None) -> Recording:
    """Return one subject's recording; ConfigError if it isn't said which and there are several."""
    names = [recording.subject for recording in dataset.recordings]
    if subject is None:
        rule = f"must be given, one of {', '.join(names)}"
        checks.require(len(names) == 1, "subject", rule, "none", dataset.name, ConfigError)
        return dataset.recordings[0]
    checks.one_of("subject", subject, names, dataset.name)
    return dataset.recordings[names.index(subject)]


def choose_split(dataset: Dataset, recording: Recording, name: str | None) -> Split:
    """Return a split by its name or its JSON file, or the only one of the data set, or one that holds out stimuli."""
    if name is not None and name.endswith(".json"):
        return read_split(Path(name))
    if name is not None:
        checks.one_of("split", name, dataset.splits, dataset.name)
        return dataset.splits[name]
    if dataset.splits:
        rule = f"must be given, one of {', '.join(sorted(dataset.splits))}, or a JSON file"
        checks.require(len(dataset.splits) == 1, "split", rule, "none", dataset.name, ConfigError)
        return next(iter(dataset.splits.values()))
    return hold_out_stimuli(recording)


def hold_out_stimuli(recording: Recording) -> Split:
    """Return a split that tests on the stimuli shown most often, or on the last one, by whole runs.

    Test movies are repeated more often than training movies, so that is what more repeats mean. With one run, its last
    third is tested.

    Runs in which nothing was shown (resting state) are on neither side.
    """
    shown: dict[str, list[str]] = {}
    for run in [run for run in recording.runs if run.video is not None or run.events] or recording.runs:
        shown.setdefault(run.stimulus or run.bold.run, []).append(run.bold.run)
    if len(shown) < 2:
        bold = recording.runs[0].bold
        checks.require(len(recording.runs) == 1, "runs", "must show 2 stimuli or more to be split", len(shown))
        border = bold.start_s + bold.n_trs * bold.tr_s * 2 / 3
        return Split(
            name="last-third",
            reason="one run: its last third is tested, 12 s after the training part ends",
            train=(Segment(run=bold.run, stop_s=border - 12.0),),
            test=(Segment(run=bold.run, start_s=border),),
        )
    most = max(len(runs) for runs in shown.values())
    least = min(len(runs) for runs in shown.values())
    tested = [name for name, runs in shown.items() if len(runs) == most] if most > least else [list(shown)[-1]]
    reason = "the stimuli shown most often are tested" if most > least else "the last stimulus is tested"
    sides = [
        tuple(Segment(run=run) for name, runs in shown.items() for run in runs if (name in tested) is test)
        for test in (False, True)
    ]
    return Split(name="held-out-stimuli", reason=f"{reason}: {', '.join(tested)}", train=sides[0], test=sides[1])


def _in_scanner_units(runs: Sequence[Run]) -> bool:
    """Tell whether the voxels lie far from 0, as a scanner's do and percent or z-scores don't."""
    data = runs[0].bold.data
    spread = data.std(0)
    return bool(np.median(np.abs(data.mean(0)) / np.where(spread > 0, spread, 1.0)) > RAW)


def _clean(run: Run, config: CleanConfig | None) -> Run:
    if config is None:
        order = 1 + int(run.bold.n_trs * run.bold.tr_s // SECONDS_A_DEGREE)
        motion = all(name in run.confounds for name in ("trans_x", "rot_z"))
        config = CleanConfig(detrend_order=order, confounds=("motion-6",) if motion else ())
    return replace(run, bold=clean_run(run.bold, config, run.confounds))


# ---------------------------------------------------------------------------------------------------------------------
# Steps, each a folder of files


def fit_systems(
    store: Path,
    names: Sequence[str],
    out: Path,
    config: RunConfig | None = None,
    *,
    overrides: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fit systems on one split of a store and save them in a run folder; those already there stay.

    Parameters
    ----------
    store : what `prepare` wrote.
    names : systems.
    out : the run folder.
    overrides : `key=value` settings by system.

    Raises
    ------
    ConfigError
        If the folder holds a run of other data or settings.
    """
    config = config or RunConfig()
    classes = {name: find_system(name) for name in names}
    settings = {name: kind.Settings.read(None, (overrides or {}).get(name, ())) for name, kind in classes.items()}
    sets = stored_sets(store, config)
    about = describe(sets, config)
    _same_run(out, about)
    write_text(out / "run.json", json.dumps(about, indent=2) + "\n")
    for name, kind in classes.items():
        _say(progress, f"fitting {name}")
        run = RunFolder(out / "systems" / name / "log", seed=config.seed, store=sets.store)
        system = kind(settings[name]).fit(sets.train, run=run)
        with atomic(out / "systems" / name / "model") as partial:
            system.save(partial)
        (out / "reconstructions" / f"{name}.npz").unlink(missing_ok=True)
        shutil.rmtree(out / "reconstructions" / "beside" / name, ignore_errors=True)
        for probe in (*CURVES, "lesions"):
            (out / PROBES / f"{probe}-{name}.json").unlink(missing_ok=True)
        (out / PROBES / f"attention-{name}.npz").unlink(missing_ok=True)
    return out


def pretrain_brain(
    stores: Sequence[Path], out: Path, settings: Sequence[str] = (), *, progress: Progress | None = None
) -> dict[str, Any]:
    """Pre-train a masked autoencoder of brain activity on all that some stores don't test; return what was done.

    Every run is cleaned as systems clean theirs: polynomials, and head motion where it was measured.

    Parameters
    ----------
    stores : what `prepare` wrote, of one subject or many, resting state too.
    out : folder of the weights; the same call goes on where it was stopped.
    settings : `key=value` settings of `neuroreel.brain.pretraining.PretrainConfig`: `masked.dim=256 loop.steps=5000`.

    Raises
    ------
    NeuroreelError
        In one sentence: a store that isn't one, a split that isn't there, nothing left to train on, and as in `fit`.
    """
    from neuroreel.brain.pretraining import PretrainConfig, pretrain

    config = PretrainConfig.read(None, settings)
    _say(progress, "finding the runs that are not tested")
    splits = {store: _split_of(store, config.split) for store in stores}

    def show(done: TrainingProgress) -> None:
        left, speed = f"{done.eta_s / 60:.1f} min left", f"{done.samples_per_s:.0f} samples/s"
        _say(progress, f"step {done.step} of {done.steps}, loss {done.loss:.4f}, {speed}, {left}")

    _say(progress, "scales, components and factors of the training runs")
    facts = pretrain(splits, out, config, prepare=lambda run: _clean(run, None), on_progress=show)
    left_out = {
        str(store): [part.run for part in split.test] if split is not None else [] for store, split in splits.items()
    }
    return {"folder": str(out), **facts, "left_out": left_out}


def _split_of(store: Path, name: str | None) -> Split | None:
    """Return the split of a store, None where nothing was shown in any of its runs and so nothing is tested."""
    table, named = store_table(store)
    subjects = list(dict.fromkeys(row["subject"] for row in table))
    if name is not None or named:
        first = read_store(store, subjects=subjects[:1], runs=[table[0]["run"]])
        return choose_split(first, first.recordings[0], name)
    for subject in subjects:
        dataset = read_store(store, subjects=[subject])
        recording = dataset.recordings[0]
        if any(run.video is not None or run.events for run in recording.runs):
            return choose_split(dataset, recording, None)
    return None


def reconstruct_systems(out: Path, *, progress: Progress | None = None) -> dict[str, Reconstruction]:
    """Return what the systems of a run folder make of the test brains, and keep it in the folder."""
    sets = open_run(out)[0]
    return {name: _reconstruct(out, name, system, sets, progress) for name, system in load_systems(out).items()}


def evaluate_run(out: Path, scoring: ScoringConfig | None = None, *, progress: Progress | None = None) -> ScoreTable:
    """Score the systems of a run folder with chance and ceiling, and write `scores.json`.

    Parameters
    ----------
    scoring : what is to be scored otherwise than the run's config says.
    """
    sets, config = open_run(out, scoring)
    table = evaluate_systems(load_systems(out), sets, config, out=out, progress=progress)[1]
    write_text(out / "scores.json", json.dumps(table.to_dict(), indent=2) + "\n")
    return table


def report_run(out: Path, scoring: ScoringConfig | None = None, *, progress: Progress | None = None) -> Path:
    """Write the report of a run folder and return the page; `scoring` as in `evaluate_run`."""
    from neuroreel.report.page import write_report

    sets, config = open_run(out, scoring)
    record = make_record(load_systems(out), sets, config, json.loads((out / "run.json").read_text()), out, progress)
    write_text(out / "scores.json", json.dumps(record.table.to_dict(), indent=2) + "\n")
    _say(progress, "writing the report")
    return write_report([record], out / "report")


def make_record(
    systems: Mapping[str, System],
    sets: Sets,
    config: RunConfig,
    provenance: Mapping[str, Any],
    out: Path | None = None,
    progress: Progress | None = None,
    of_data: bool = True,
) -> Record:
    """Return everything that a report shows of some fitted systems.

    Parameters
    ----------
    of_data : also what depends on the data alone, the lag sweep and the scores of voxels.
    """
    made, table = evaluate_systems(systems, sets, config, out=out, progress=progress)
    _say(progress, "lag sweep, identification curves, voxel scores" if of_data else "identification curves")
    return Record(
        dataset=sets.dataset.name,
        subject=sets.subject,
        truth=sets.test.truth,
        reconstructions=made,
        table=table,
        space=sets.train.samples.space,
        voxel_maps=voxel_scores(sets) if of_data else (),
        lag_sweep=sweep(sets, config.seed) if of_data else None,
        curves=identification_curves(made, sets.test.truth, config.seed),
        trainings={} if out is None else read_trainings(out, systems),
        probed=Probed() if out is None else read_probes(out),
        provenance=provenance,
    )


def read_trainings(out: Path, systems: Iterable[str]) -> dict[str, TrainingLog]:
    """Return the logs that systems of a run folder kept of their training."""
    found = {name: TrainingLog.load(out / "systems" / name / "log") for name in systems}
    return {name: log for name, log in found.items() if log is not None}


def evaluate_systems(
    systems: Mapping[str, System],
    sets: Sets,
    config: RunConfig,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Reconstruction], ScoreTable]:
    """Return what each system makes of the test brains, and the scores of all with their chance rows and ceilings."""
    truth = sets.test.truth
    embed = open_backbones(networks_for(sets.dataset, config), device=config.device)
    made, chance, ceiling = {}, {}, {}
    for name, system in systems.items():
        made[name] = _reconstruct(out, name, system, sets, progress)
        chance[name], ceiling[name] = _beside(out, name, system, sets, config.seed, progress)
    _say(progress, "scores")
    wanted = config.metrics or metrics_for(made, truth)
    table = evaluate(made, truth, variants=wanted, chance=chance, ceiling=ceiling, embed=embed, seed=config.seed)
    return made, table


def networks_for(dataset: Dataset, config: ScoringConfig) -> dict[str, str]:
    """Return the names of the networks of the metrics that are wanted, by role."""
    own = dict.fromkeys(WORLD_ROLES, WORLD) if dataset.name == SIMULATED else {}
    metrics = (
        METRICS.values() if config.metrics is None else [METRICS[name] for name in config.metrics if name in METRICS]
    )
    wanted = {role for metric in metrics for role in metric.backbones}
    return {role: name for role, name in (own | config.embed).items() if role in wanted}


def metrics_for(made: Mapping[str, Reconstruction], truth: Samples) -> tuple[str, ...]:
    """Return the variants that fit what was made: of frames, of motion, of categories that the test set has too."""
    wanted: tuple[str, ...] = ()
    if truth.clips is not None and any(one.clips is not None for one in made.values()):
        wanted += FRAME_METRICS + LEARNED_METRICS
        if truth.clips.shape[1] > 1:
            wanted += MOTION_METRICS
    # categories that no system has ever been shown can't be named
    if any(np.isin(one.categories, truth.category).any() for one in made.values() if one.probabilities is not None):
        wanted += CATEGORY_METRICS
    return wanted


def sweep(sets: Sets, seed: int) -> LagSweep:
    """Return the score of ridge-latents from one volume at each lag from -6 to +12 s, fitted anew at each.

    The sweep says when the brain knows, not how good a system is: a fast decoder of small pictures serves for all.
    """
    kind = find_system("ridge-latents")
    settings = kind.Settings.read(None, ("largest=16", "decoder.keep=[0.25]"))

    def measure(lag_s: float) -> Scores:
        window = sets.window.model_copy(update={"first_lag_s": lag_s, "trs": 1})
        train, test = sets.at(window)
        system = kind(settings).fit(train, run=RunFolder(Path(), seed=seed))
        answer = system.reconstruct(test.brain)
        truth = test.truth
        if answer.clips is not None and truth.clips is not None:
            return score("identification:pairwise", answer.clips, truth.clips, truth.block, seed=seed, draws=500)
        table = evaluate({"ridge-latents": answer}, truth, variants=["category-accuracy"], seed=seed, draws=500)
        return table.rows["ridge-latents"]["category-accuracy"]

    return lag_sweep(measure, sweep_lags(sets.train.samples.tr_s))


def identification_curves(
    made: Mapping[str, Reconstruction], truth: Samples, seed: int
) -> dict[str, IdentificationCurve]:
    """Return the accuracy of finding the true clip among more and more others, by system, in pixels."""
    if truth.clips is None:
        return {}
    return {
        name: curve_of_candidates(similarity_matrix(one.clips, truth.clips), truth.block, seed=seed)
        for name, one in made.items()
        if one.clips is not None
    }


def voxel_scores(sets: Sets) -> tuple[VoxelMap, ...]:
    """Return how well each voxel is predicted from what was shown, and its noise ceiling where runs were repeated.

    The prediction is a ridge from the principal components of the clips (or from their categories) to the window's
    mean, fitted on train, correlated with the test windows.
    """
    train, test = sets.train.samples, sets.test.truth
    x, new = _stimulus_features(train, test)
    fit = solve_ridge_cv(x, train.brain.mean(1), alphas=np.logspace(-1, 5, 13), folds=5)
    r = voxel_correlation(predict_ridge(fit, new), test.brain.mean(1))
    note = "ridge from what was shown to each voxel, fitted on train, correlated with the test set"
    maps = [VoxelMap("encoding correlation on test", r, "r", note)]
    repeated = [list(group) for group in group_repeats(sets.cut.test) if len(group) > 1]
    if repeated:
        ceilings = np.mean([split_half_ceiling(stack_repeats(group)) for group in repeated], axis=0)
        maps.append(VoxelMap("noise ceiling", ceilings, "r", "split halves of the test repeats, Spearman-Brown"))
        relative = over_ceiling(r, ceilings)
        maps.append(VoxelMap("encoding correlation over the noise ceiling", relative, "r / ceiling", note))
    return tuple(maps)


def _stimulus_features(train: Samples, test: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Return the components of the clips, or the codes of the categories, of both sides."""
    if train.clips is None or test.clips is None:
        names = np.unique(train.category)
        x, new = ((side.category[:, None] == names).astype(np.float32) for side in (train, test))
        return x, new
    flat = [
        side.clips[:, :, ::2, ::2].reshape(len(side), -1).astype(np.float32)
        for side in (train, test)
        if side.clips is not None
    ]
    mean = flat[0].mean(0)
    left, values, right = np.linalg.svd(flat[0] - mean, full_matrices=False)
    count = min(64, int((values > 1e-3 * values[0]).sum()))
    return left[:, :count] * values[:count], (flat[1] - mean) @ right[:count].T


# ---------------------------------------------------------------------------------------------------------------------
# The run folder


def describe(sets: Sets, config: RunConfig) -> dict[str, Any]:
    """Return the provenance of a run: settings, split with its reason, counts, versions, sources."""
    return {
        "dataset": sets.dataset.name,
        "subject": sets.subject,
        "store": None if sets.store is None else str(sets.store),
        "config": config.model_dump(mode="json"),
        "split": sets.cut.split.model_dump(mode="json"),
        "window": sets.window.model_dump(mode="json"),
        "counts": {
            "training clips": len(sets.train.samples),
            "test clips": len(sets.test.truth),
            "voxels": sets.train.samples.space.size,
            "test blocks": len(np.unique(sets.test.truth.block)),
        },
        "licence": sets.dataset.licence,
        "citation": sets.dataset.citation,
        "address": sets.dataset.address,
        "data": dict(sets.dataset.provenance),
        "versions": versions(),
    }


def open_run(out: Path, scoring: ScoringConfig | None = None) -> tuple[Sets, RunConfig]:
    """Return the sets and the config of a run folder, made anew from its store; `scoring` as in `evaluate_run`."""
    about = _read_run(out)
    config = RunConfig.build(about["config"], out / "run.json").scored(scoring)
    return stored_sets(Path(about["store"]), config), config


def dataset_of(out: Path) -> str:
    """Return the name of the data set of a run folder."""
    return str(_read_run(out)["dataset"])


def load_systems(out: Path) -> dict[str, System]:
    """Return the fitted systems of a run folder by name."""
    folders = sorted((out / "systems").glob("*/model"))
    checks.require(bool(folders), "run", "must hold a fitted system", "none", out, StoreError)
    return {folder.parent.name: find_system(folder.parent.name).load(folder) for folder in folders}


def _read_run(out: Path) -> dict[str, Any]:
    file = out / "run.json"
    checks.require(file.is_file(), "run", "must be a folder that `neuroreel fit` wrote", "no run.json", out, StoreError)
    about = json.loads(file.read_text())
    return dict(about)


def _same_run(out: Path, about: Mapping[str, Any]) -> None:
    if not (out / "run.json").is_file():
        return
    old = _read_run(out)
    scoring = set(ScoringConfig.model_fields)  # may change without a new fit
    for key in ("dataset", "subject", "split", "window", "config"):
        was, now = old.get(key), json.loads(json.dumps(about[key]))
        if key == "config" and isinstance(was, dict):
            was, now = ({name: one[name] for name in one if name not in scoring} for one in (was, now))
        same = was == now
        checks.require(
            same, f"run folder's {key}", "must be that of this run, or the folder another", "another", out, DataError
        )


def _reconstruct(out: Path | None, name: str, system: System, sets: Sets, progress: Progress | None) -> Reconstruction:
    """Return what a system makes of the test brains, read from the run folder where it already lies there."""
    file = None if out is None else out / "reconstructions" / f"{name}.npz"
    if file is not None and file.is_file():
        return _read_reconstruction(file)
    _say(progress, f"reconstructing with {name}")
    made = system.reconstruct(sets.test.brain)
    if file is not None:
        with atomic(file) as partial:
            _write_reconstruction(partial, made)
    return made


def _beside(
    out: Path | None, name: str, system: System, sets: Sets, seed: int, progress: Progress | None
) -> tuple[dict[str, tuple[Reconstruction, ...]], Reconstruction | None]:
    """Return a system's answers of chance and its ceiling, read from the run folder where they already lie there."""
    folder = None if out is None else out / "reconstructions" / "beside" / name
    if folder is not None and folder.is_dir():
        kept: dict[str, tuple[Reconstruction, ...]] = {}
        for file in sorted(folder.glob("*.npz")):
            row = file.stem.partition("-")[2]
            kept[row] = (*kept.get(row, ()), _read_reconstruction(file))
        return {row: kept[row] for row in kept if row != "ceiling"}, *kept.get("ceiling", (None,))
    _say(progress, f"chance and ceiling of {name}")
    chance = chance_answers(system.reconstruct, sets.train.samples, sets.test.truth, seed=seed)
    ceiling = system.ceiling(sets.test.truth)
    if folder is not None:
        with atomic(folder) as partial:
            partial.mkdir()
            answers = [(row, answer) for row, given in chance.items() for answer in given]
            answers += [("ceiling", ceiling)] if ceiling is not None else []
            for number, (row, answer) in enumerate(answers):
                _write_reconstruction(partial / f"{number:03d}-{row}.npz", answer)
    return chance, ceiling


def _write_reconstruction(file: Path, made: Reconstruction) -> None:
    arrays: dict[str, Any] = {
        "categories": np.array(made.categories),
        "drawn": made.drawn,
        "chosen_by": made.chosen_by,
        "mode": made.mode,
    }
    arrays |= {key: getattr(made, key) for key in ("clips", "probabilities") if getattr(made, key) is not None}
    with file.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def _read_reconstruction(file: Path) -> Reconstruction:
    with np.load(file, allow_pickle=False) as held:
        return Reconstruction(
            clips=held.get("clips"),
            probabilities=held.get("probabilities"),
            categories=tuple(str(name) for name in held["categories"]),
            drawn=int(held["drawn"]),
            chosen_by=str(held["chosen_by"]),
            mode=str(held.get("mode", "")),
        )


def _say(progress: Progress | None, text: str) -> None:
    if progress is not None:
        progress(text)
