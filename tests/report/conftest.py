"""Records as a run makes them, small: scores are measured here by plain numpy so that the page can be held to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neuroreel.core.scores import IdentificationCurve, LagSweep, Scores, ScoreTable
from neuroreel.core.types import Reconstruction, Samples, Space
from neuroreel.report.record import Record, VoxelMap

CLIPS, FRAMES, SIDE, FPS = 8, 6, 32, 8.0
HOSTILE = "<script>document.title='owned'</script>"


def moving_squares(shift: int) -> np.ndarray:
    clips = np.full((CLIPS, FRAMES, SIDE, SIDE, 3), 40, dtype=np.uint8)
    for clip in range(CLIPS):
        for frame in range(FRAMES):
            x, y = (3 * clip + 2 * frame + shift) % (SIDE - 8), (2 * clip) % (SIDE - 8)
            clips[clip, frame, y : y + 8, x : x + 8] = (240, 60 + 20 * clip, 80)
    return clips


def surface_space(template: str = "fsaverage5", vertices: int = 10242) -> Space:
    index = np.arange(0, vertices, 4)
    hemisphere = np.repeat(["L", "R"], len(index))
    early = np.zeros(2 * len(index), dtype=bool)
    early[::3] = True
    rois = {"V1": early, "<b>late</b>": ~early}
    return Space("surface", 2 * len(index), np.tile(index, 2), hemisphere=hemisphere, template=template, rois=rois)


def make_truth(space: Space, **changes: object) -> Samples:
    names = np.array([("cat", "bus")[clip // 4] for clip in range(CLIPS)])
    rows = {
        "brain": np.zeros((CLIPS, 2, space.size), dtype=np.float32),
        "clips": moving_squares(0),
        "run": np.repeat("1", CLIPS),
        "onset_s": 10.0 + FRAMES / FPS * np.arange(CLIPS),
        "block": np.arange(CLIPS) // 2,
        "repeats": np.full(CLIPS, 10),
        "category": names,
        "caption": np.array([f"a {name}" for name in names]),
        "stimulus": np.repeat("movie", CLIPS),
    }
    return Samples(**(rows | changes), space=space, tr_s=2.0, fps=FPS, first_lag_s=4.0)


def make_scores(variant: str, values: np.ndarray, **more: object) -> Scores:
    chance = {"shuffled": 0.41, "analytic": 0.5}
    return Scores(variant, values, chance=chance, ceiling=0.97, low=0.2, high=0.95, p=0.004, **more)


@pytest.fixture(scope="session")
def record() -> Record:
    space = surface_space()
    probabilities = np.tile([[0.8, 0.2]], (CLIPS, 1))
    made = {
        "ridge & co": Reconstruction(moving_squares(1), probabilities, ("cat", "bus")),
        "mean-frame": Reconstruction(np.full_like(moving_squares(0), 60), probabilities[:, ::-1], ("cat", "bus")),
    }
    pairwise = {"ridge & co": np.linspace(0.6, 1, CLIPS), "mean-frame": np.full(CLIPS, 0.5)}
    rows = {
        name: {
            "identification:pairwise": make_scores("identification:pairwise", values),
            "mse": make_scores("mse", 1234.5678 * values, higher_is_better=False),
        }
        for name, values in pairwise.items()
    }
    sizes = np.array([2.0, 4.0, 8.0])
    curve = IdentificationCurve(sizes, 1 / sizes + 0.3, 1 / sizes, 1 / sizes + 0.4, 1 / sizes, "identification:top1")
    lags = np.arange(-6.0, 13.0, 2.0)
    values = 0.5 + 0.4 * np.exp(-((lags - 5) ** 2) / 8)
    sweep = LagSweep(lags, values, values - 0.05, values + 0.05, "identification:pairwise", chance=0.5)
    r = np.linspace(-0.05, 0.8, space.size)
    maps = (VoxelMap("encoding correlation on test", r, "r", "ridge from what was shown"),)
    provenance = {"split": {"name": "held-out", "reason": HOSTILE}, "versions": {"numpy": "2"}, "seeds": [0, 1]}
    table = ScoreTable(rows, {"lpips:alex": "the weights must be at hand, got none"})
    return Record(
        "movies", "07", make_truth(space), made, table, space, maps, sweep, dict.fromkeys(made, curve), provenance
    )


@pytest.fixture(scope="session")
def bare(record: Record) -> Record:
    space = Space("columns", 5)
    truth = replace(make_truth(space, category=np.full(CLIPS, ""), caption=np.full(CLIPS, "")), clips=None)
    made = {"no-brain": Reconstruction()}
    return Record("nothing measured", "1", truth, made, ScoreTable({}), space)
