"""A simulated experiment as a real BIDS-derivatives folder: movies, brains, resting state, and the answers beside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import DataError
from neuroreel.core.files import atomic
from neuroreel.core.system import versions
from neuroreel.core.types import Recording, Run
from neuroreel.core.video import open_video
from neuroreel.datasets.bids_tables import write_tsv
from neuroreel.datasets.bids_writer import write_bids
from neuroreel.simulate.bold import Blood
from neuroreel.simulate.cortex import make_cortex
from neuroreel.simulate.movies import Movie, make_movie, write_mp4
from neuroreel.simulate.responses import Maps, Neurons, look_at

Progress = Callable[[int, int, str], None]
AFTER_S = 12.0
"""How long a run goes on after its movie, so that the last scenes' responses are measured."""

TRUTH, RECIPE = "truth", "simulation.json"


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

    minutes: float = Field(default=40.0, gt=0)
    test_minutes: float = Field(default=8.0, gt=0)
    segment_minutes: float = Field(default=8.0, gt=0)
    train_repeats: int = Field(default=2, ge=1)
    test_repeats: int = Field(default=10, ge=1)
    rest_minutes: float = Field(default=0.0, ge=0)
    size: int = Field(default=64, ge=16)
    fps: float = Field(default=15.0, gt=0)
    subjects: int = Field(default=1, ge=1)
    tr_s: float = Field(default=2.0, gt=0)
    scale: float = Field(default=1.0, gt=0)
    blind: int = Field(default=300, ge=0)
    ceilings: dict[str, float] = Field(default_factory=dict)
    train_categories: tuple[str, ...] = ()
    kind: Literal["cifti", "gifti", "nifti"] = "cifti"
    seed: int = 0


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
    recipe = {"config": config.model_dump(mode="json"), "neuroreel": versions().get("neuroreel")}
    if (out / RECIPE).is_file() and json.loads((out / RECIPE).read_text()) == recipe:
        return out
    free = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    rule = "must be empty, not there yet, or an experiment with the same settings"
    checks.require(free, "output folder", rule, "another one" if (out / RECIPE).is_file() else "files", out, DataError)
    say = progress or (lambda done, total, text: None)
    with atomic(out) as partial:
        partial.mkdir()
        movies = movies_of(config)
        steps = 2 * len(movies) + config.subjects
        files, maps = {}, {}
        (partial / "movies").mkdir()
        for number, (name, movie) in enumerate(movies.items()):
            say(2 * number, steps, f"movie {name}")
            files[name] = write_mp4(partial / "movies" / f"{name}.mp4", movie)
            say(2 * number + 1, steps, f"responses to {name}")
            maps[name] = look_at(open_video(files[name], name=name), movie)

        def recordings() -> list[Recording]:
            made = []
            for number in range(config.subjects):
                say(2 * len(movies) + number, steps, f"subject {number + 1}")
                made.append(_record(f"{number + 1:02d}", config, movies, maps, files, partial / TRUTH))
            return made

        write_bids(partial / "bids", recordings(), kind=config.kind, name="simulated")
        for path in (partial / "bids").iterdir():
            path.rename(partial / path.name)
        (partial / "bids").rmdir()
        for file in files.values():
            file.unlink()
        (partial / "movies").rmdir()
        for name, movie in movies.items():
            write_tsv(partial / TRUTH / f"movie-{name}_scenes.tsv", _scene_table(movie))
        (partial / RECIPE).write_text(json.dumps(recipe, indent=2) + "\n")
    say(steps, steps, "done")
    return out


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
    movies["test"] = make_movie("test", minutes=config.test_minutes, size=config.size, fps=config.fps, seed=config.seed)
    return movies


def _record(
    subject: str,
    config: ExperimentConfig,
    movies: dict[str, Movie],
    maps: dict[str, Maps],
    files: dict[str, Path],
    truth: Path,
) -> Recording:
    """Return one subject's runs and write what is known of its vertices."""
    cortex = make_cortex(subject, seed=config.seed, scale=config.scale, blind=config.blind, ceilings=config.ceilings)
    neurons, blood = Neurons(cortex, seed=config.seed), Blood.of(cortex, seed=config.seed)
    first = neurons.respond(next(iter(maps.values())))
    signals = {}
    for name, movie in movies.items():
        values = neurons.respond(maps[name], first.moments).values
        trs = int(np.ceil((movie.duration_s + AFTER_S) / config.tr_s))
        signals[name] = blood.signal(values, trs, config.tr_s)
    noise_sd = blood.noise_sd(signals["test"])
    runs = []
    for name, movie in movies.items():
        video = open_video(files[name], name=name)
        for repeat in range(config.test_repeats if name == "test" else config.train_repeats):
            run = f"task-{name}_run-{repeat + 1:02d}"
            bold, confounds = blood.run(signals[name], noise_sd, run=run, tr_s=config.tr_s)
            runs.append(Run(bold, name, video, movie.events(), confounds))
    if config.rest_minutes > 0:
        run = "task-rest_run-01"
        bold, confounds = blood.rest(round(60 * config.rest_minutes / config.tr_s), run=run, tr_s=config.tr_s)
        runs.append(Run(bold, "", None, (), confounds))
    truth.mkdir(exist_ok=True)
    columns = {
        "hemisphere": cortex.space.hemisphere,
        "vertex": cortex.space.index,
        "area": cortex.area,
        "x_deg": cortex.x,
        "y_deg": cortex.y,
        "sd_deg": cortex.sd,
        "depth": cortex.depth,
        "ceiling": cortex.ceiling,
        "hrf_delay_s": blood.delays_s,
        "noise_sd": noise_sd,
    }
    write_tsv(truth / f"sub-{subject}_vertices.tsv", {key: list(np.asarray(each)) for key, each in columns.items()})
    return Recording("simulated", subject, tuple(runs))


def _scene_table(movie: Movie) -> dict[str, list[object]]:
    """Return what is known of each scene at its onset."""
    onsets = [scene.onset_s for scene in movie.scenes]
    rows = [movie.truth(number, number + 1) for number in np.ceil(np.array(onsets) * movie.fps - 1e-6).astype(int)]
    columns: dict[str, list[object]] = {"onset": list(onsets), "duration": [scene.duration_s for scene in movie.scenes]}
    for name in rows[0]:
        if name not in ("scene", "time_s"):
            columns[name] = [row[name][0] for row in rows]
    return columns
