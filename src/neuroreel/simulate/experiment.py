"""A simulated experiment as a real BIDS-derivatives folder: movies, brains, resting state, and the answers beside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import DataError, NeuroreelError
from neuroreel.core.files import atomic
from neuroreel.core.system import versions
from neuroreel.core.types import Recording, Run
from neuroreel.core.video import open_video
from neuroreel.datasets.bids_tables import write_tsv
from neuroreel.datasets.bids_writer import write_bids
from neuroreel.simulate.bold import Blood
from neuroreel.simulate.cortex import LARGEST, SMALLEST, check_ceilings, make_cortex
from neuroreel.simulate.movies import Movie, make_movie, write_mp4
from neuroreel.simulate.responses import Maps, Moments, Neurons, look_at

Progress = Callable[[int, int, str], None]
AFTER_S = 12.0
"""How long a run goes on after its movie, so that the last scenes' responses are measured."""

TRUTH, RECIPE, TEST = "truth", "simulation.json", "test"


class ExperimentConfig(Config):
    """What is scanned.

    Attributes
    ----------
    minutes : of training movie, cut into segments of `segment_minutes`, each of them a run shown `train_repeats` times.
    test_minutes, test_repeats : of the test movie.
    rest_minutes : of resting state.
    size, fps : of the movies: side in pixels, frames per second.
    subjects : number of subjects; all see the same movies.
    tr_s : seconds per volume.
    scale : size of the visual areas, see `make_cortex`.
    blind : vertices that see nothing.
    ceilings : noise ceilings by area, where they are to differ from the default.
    train_categories : categories of the training movie; empty for all. The test movie shows all.
    kind : of the files: CIFTI or GIFTI on fsaverage5, or a NIfTI volume.
    seed : of everything.
    """

    minutes: float = Field(default=40.0, gt=0, allow_inf_nan=False)
    test_minutes: float = Field(default=8.0, gt=0, allow_inf_nan=False)
    segment_minutes: float = Field(default=8.0, gt=0, allow_inf_nan=False)
    train_repeats: int = Field(default=2, ge=1)
    test_repeats: int = Field(default=10, ge=1)
    rest_minutes: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    size: int = Field(default=64, ge=16)
    fps: float = Field(default=15.0, gt=0, allow_inf_nan=False)
    subjects: int = Field(default=1, ge=1)
    tr_s: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    scale: float = Field(default=1.0, ge=SMALLEST, le=LARGEST)
    blind: int = Field(default=300, ge=0)
    ceilings: dict[str, float] = Field(default_factory=dict)
    train_categories: tuple[str, ...] = ()
    kind: Literal["cifti", "gifti", "nifti"] = "cifti"
    seed: int = Field(default=0, ge=0)

    @field_validator("ceilings")
    @classmethod
    def _reachable(cls, ceilings: dict[str, float]) -> dict[str, float]:
        try:
            check_ceilings(ceilings)
        except NeuroreelError as error:
            raise ValueError(str(error)) from None
        return ceilings

    @model_validator(mode="after")
    def _testable(self) -> Self:
        if self.test_repeats < self.train_repeats:
            raise ValueError(f"test_repeats must be train_repeats ({self.train_repeats}) or more")
        return self


def simulate_experiment(
    out: str | Path, config: ExperimentConfig | None = None, *, progress: Progress | None = None
) -> Path:
    """Write a simulated experiment as BIDS derivatives, whole or not at all, and return the folder.

    Besides what `write_bids` writes, the folder holds `simulation.json` (the config) and `truth/`: a table of the
    vertices (area, receptive field, place in the hierarchy, ceiling that was asked, haemodynamic delay) for each
    subject, and one of the scenes for each movie. A folder with the same config is left as it is.

    Raises
    ------
    DataError
        If the folder holds something else, or the disk is full.
    """
    out, config = Path(out), config or ExperimentConfig()
    if _is_there(out, config):
        return out
    movies = movies_of(config)
    say = progress or (lambda done, total, text: None)
    steps = 2 * len(movies) + config.subjects
    with atomic(out) as partial:
        partial.mkdir()
        (partial / "movies").mkdir()
        (partial / TRUTH).mkdir()
        subjects = [_Subject(f"{number + 1:02d}", config) for number in range(config.subjects)]
        files = {}
        for number, (name, movie) in enumerate(movies.items()):
            parts = f"{movie.duration_s / 60:.3g} min of movie {name}"
            say(2 * number, steps, parts)
            files[name] = write_mp4(partial / "movies" / f"{name}.mp4", movie)
            say(2 * number + 1, steps, f"responses to {parts}")
            maps = look_at(open_video(files[name], name=name), movie)
            for subject in subjects:
                subject.watch(movie, maps)

        def recordings() -> Iterator[Recording]:
            for number, subject in enumerate(subjects):
                say(2 * len(movies) + number, steps, f"scans of subject {number + 1}")
                yield subject.scan(movies, files, partial / TRUTH)

        write_bids(partial / "bids", recordings(), kind=config.kind, name="simulated")
        for path in (partial / "bids").iterdir():
            path.rename(partial / path.name)
        (partial / "bids").rmdir()
        shutil.rmtree(partial / "movies")
        for name, movie in movies.items():
            write_tsv(partial / TRUTH / f"movie-{name}_scenes.tsv", _scene_table(movie))
        (partial / RECIPE).write_text(json.dumps(_recipe(config), indent=2) + "\n")
    say(steps, steps, "done")
    return out


def _recipe(config: ExperimentConfig) -> dict[str, object]:
    return {"config": config.model_dump(mode="json"), "neuroreel": versions().get("neuroreel")}


def _is_there(out: Path, config: ExperimentConfig) -> bool:
    """Return whether the folder holds the same experiment; DataError if it holds something else."""
    rule = "must be empty, not there yet, or this experiment"
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    checks.require((out / RECIPE).is_file(), "output folder", rule, "other files", out)
    try:
        found = json.loads((out / RECIPE).read_text())
        settings, version = dict(found["config"]), found["neuroreel"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(checks.sentence("output folder", rule, f"a {RECIPE} that can't be read", out)) from None
    recipe = _recipe(config)
    asked = config.model_dump(mode="json")
    others = [f"{key} = {settings.get(key)}" for key in asked if settings.get(key) != asked[key]]
    others += [f"neuroreel {version}"] if version != recipe["neuroreel"] else []
    checks.require(not others, "output folder", rule, f"one with {', '.join(others)}", out)
    return True


def movies_of(config: ExperimentConfig) -> dict[str, Movie]:
    """Return the movies of an experiment by name: the training segments, then the test movie."""
    movies = {}
    left, number = config.minutes, 1
    while left > 1e-6:
        minutes = min(config.segment_minutes, left)
        movies[f"train{number}"] = make_movie(
            f"train{number}",
            minutes=minutes,
            size=config.size,
            fps=config.fps,
            seed=config.seed,
            categories=config.train_categories or None,
        )
        left, number = left - minutes, number + 1
    movies[TEST] = make_movie(TEST, minutes=config.test_minutes, size=config.size, fps=config.fps, seed=config.seed)
    return movies


class _Subject:
    """One subject: watches movies, which leaves the signals of its vertices, then is scanned."""

    def __init__(self, name: str, config: ExperimentConfig) -> None:
        self.name, self.config = name, config
        self.cortex = make_cortex(
            name, seed=config.seed, scale=config.scale, blind=config.blind, ceilings=config.ceilings
        )
        self.neurons, self.blood = Neurons(self.cortex, seed=config.seed), Blood.of(self.cortex, seed=config.seed)
        self.signals: dict[str, np.ndarray] = {}
        self.moments: Moments | None = None
        self.gain = np.ones(0)

    def watch(self, movie: Movie, maps: Maps) -> None:
        """Keep the signal of a movie, in SDs of the first movie's."""
        answer = self.neurons.respond(maps, self.moments)
        tr_s = self.config.tr_s
        signal = self.blood.signal(answer.values, int(np.ceil((movie.duration_s + AFTER_S) / tr_s)), tr_s)
        if self.moments is None:
            sd = signal.std(0)
            self.moments, self.gain = answer.moments, np.where(sd > 0, 1 / np.maximum(sd, 1e-6), 0.0)
        self.signals[movie.name] = (signal * self.gain).astype(np.float32)

    def scan(self, movies: dict[str, Movie], files: dict[str, Path], truth: Path) -> Recording:
        """Return all runs, and write what is known of the vertices."""
        config, blood = self.config, self.blood
        names = {
            name: [
                f"task-{name}_run-{repeat + 1:02d}"
                for repeat in range(config.test_repeats if name == TEST else config.train_repeats)
            ]
            for name in movies
        }
        noise_sd = blood.noise_sd(self.signals[TEST], names[TEST], config.tr_s)
        runs = []
        for name, movie in movies.items():
            video = open_video(files[name], name=name)
            for run in names[name]:
                bold, confounds = blood.run(self.signals[name], noise_sd, run=run, tr_s=config.tr_s)
                runs.append(Run(bold, name, video, movie.events(), confounds))
        if config.rest_minutes > 0:
            trs = int(np.ceil(60 * config.rest_minutes / config.tr_s))
            bold, confounds = blood.rest(trs, run="task-rest_run-01", tr_s=config.tr_s)
            runs.append(Run(bold, "", None, (), confounds))
        cortex = self.cortex
        columns = {
            "hemisphere": cortex.space.hemisphere,
            "vertex": cortex.space.index,
            "area": cortex.area,
            "x_deg": cortex.x,
            "y_deg": cortex.y,
            "sd_deg": cortex.sd,
            "depth": cortex.depth,
            "orientation_deg": np.where(self.neurons.shares[:, 0] > 0, self.neurons.orientation_deg, np.nan),
            "direction_deg": np.where(self.neurons.shares[:, 1] > 0, self.neurons.direction_deg, np.nan),
            "ceiling": cortex.ceiling,
            "hrf_delay_s": blood.delays_s,
            "noise_sd": noise_sd,
        }
        table = {key: list(np.asarray(each)) for key, each in columns.items()}
        write_tsv(truth / f"sub-{self.name}_vertices.tsv", table)
        return Recording("simulated", self.name, tuple(runs))


def _scene_table(movie: Movie) -> dict[str, list[object]]:
    """Return what is known of each scene at its onset."""
    onsets = [scene.onset_s for scene in movie.scenes]
    rows = [movie.truth(number, number + 1) for number in np.ceil(np.array(onsets) * movie.fps - 1e-6).astype(int)]
    columns: dict[str, list[object]] = {"onset": list(onsets), "duration": [scene.duration_s for scene in movie.scenes]}
    for name in rows[0]:
        if name not in ("scene", "time_s"):
            columns[name] = [row[name][0] for row in rows]
    return columns
