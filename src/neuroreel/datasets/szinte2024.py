"""szinte2024: V1 of one subject watching a bar sweep across the screen, with the movie that was shown.

The files come with braincoder (Gilles de Hollander): 150 volumes of the V1 BOLD, the screen as 80 x 45 pixels at every
volume, and a population receptive field fitted to every voxel.
"""

from __future__ import annotations

import json
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neuroreel.core import checks
from neuroreel.core.sets import Split, Window
from neuroreel.core.study import RunSource, Study
from neuroreel.core.types import Bold, Event, Run, Space, Video
from neuroreel.datasets.cards import Card, read_settings

_COMMIT = "ed48b10ab8cfbba317dafc4e513e5bf23a84c802"
BOLD, MOVIE, GRID, PRF = "mask-v1_bold.tsv.gz", "dm_gazecenter.npz", "grid_coordinates.tsv", "gauss_parameters.tsv"
BRIGHTEST = 9.0  # the movie's white
MEASURES = ("x", "y", "sd", "r2")

CARD = Card(
    name="szinte2024",
    title="V1 of one subject watching a moving bar, with the movie",
    address=f"https://raw.githubusercontent.com/Gilles86/braincoder/{_COMMIT}/braincoder/data/szinte2024/",
    folder="szinte2024",
    files={
        BOLD: "c9cd7df157c1239e1eb8ba274cb1083ca28eb59ce03baa236c5067565a7a658e",
        MOVIE: "39607e4c0b2e44ddf526a695ce6f866395ba6932db4e3a10a673c1c3e09fdab5",
        GRID: "87fcac24859d8e7efc73847a091d04431016b7f67405c7ab6b0d0f477f4725fc",
        PRF: "94f099fb3674669929cf68eee5cd1bae82b536d858f263e140feb52834c66fe8",
    },
    licence="MIT",
    citation="Szinte et al. (2024), data as shipped with braincoder (de Hollander, github.com/Gilles86/braincoder)",
    subjects=1,
    runs=1,
    trs=150,
    voxels=2365,
    tr_s=1.317025,
    notes="57 columns are constant and left out. The fixation mark, 8 pixels of which are always on, is taken out "
    "of the movie unless fixation=true.",
)


def szinte2024_study(folder: Path, **settings: Any) -> Study:
    """Return the study from a folder of its files.

    Parameters
    ----------
    folder : holds the files of the card.
    fixation : True to leave the fixation mark in the movie, 8 pixels of which are always on. It says nothing about
        what changes from one volume to the next; without it a frame without a bar is black.
    """
    chosen = {"fixation": False} | read_settings(CARD.name, settings, {"fixation": bool})
    files = tuple(folder / file for file in CARD.files)
    run = RunSource("01", "bar", partial(_read, folder, chosen["fixation"]), files)
    text = resources.files("neuroreel.datasets").joinpath("splits/szinte2024-sweeps.json").read_text()
    split = Split.build(json.loads(text), "szinte2024-sweeps.json")
    window = Window(
        first_lag_s=2 * CARD.tr_s, trs=2, height=45, width=80, only_events="test", block_s=8 * CARD.tr_s, blocks="time"
    )
    return Study(
        CARD.name, (run,), window, {split.name: split}, CARD.licence, CARD.citation, CARD.address, dict(chosen)
    )


def _read(folder: Path, fixation: bool) -> Run:
    table = pd.read_csv(folder / BOLD, sep="\t", index_col="time")
    prf = pd.read_csv(folder / PRF, sep="\t", index_col="source")
    checks.same_length("rows of the receptive fields", len(prf), "columns of the BOLD", table.shape[1], folder / PRF)
    space = Space(
        "columns",
        table.shape[1],
        rois={"V1": np.ones(table.shape[1], dtype=bool)},
        measures={name: prf[name].to_numpy(dtype=np.float64) for name in MEASURES},
    )
    with np.load(folder / MOVIE) as held:
        movie = held["arr_0"]  # (volumes, x, y)
    checks.same_length("frames", len(movie), "volumes", len(table), folder / MOVIE)
    grid = pd.read_csv(folder / GRID, sep="\t").to_numpy().reshape(*movie.shape[1:], 2)
    movie = upright(movie, grid)
    bars = without_fixation(movie, np.min(movie, axis=0) > 0)
    events = sweeps(bars, CARD.tr_s)
    frames = to_rgb(movie if fixation else bars)
    video = Video.from_frames(frames, name="bar", fps=1 / CARD.tr_s)
    bold = Bold(table.to_numpy(dtype=np.float32), CARD.tr_s, space, "01", "bar")
    return Run(bold, "bar", video, events)


def upright(movie: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the movie (frames, x, y) as (frames, height, width), up in the first row and left in the first column.

    Parameters
    ----------
    grid : (x, y, 2) the place of each pixel in degrees, right and up positive.
    """
    columns = np.argsort(grid[:, 0, 0], kind="stable")
    rows = np.argsort(-grid[0, :, 1], kind="stable")
    return movie[:, columns][:, :, rows].transpose(0, 2, 1)


def without_fixation(movie: np.ndarray, mark: np.ndarray) -> np.ndarray:
    """Return the movie (frames, height, width) with what lies around the fixation mark put in its place.

    A bar spans the whole screen, so a pixel of the mark is on a bar if the screen is lit on both sides of it: above
    and below, or left and right.

    Parameters
    ----------
    mark : (height, width) True where the mark is always on. Its bounding box is filled: when a bar is on the screen
        the mark fills out within it.
    """
    rows, columns = (np.flatnonzero(mark.any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    across = np.minimum(movie[:, top - 1, left : right + 1], movie[:, bottom + 1, left : right + 1])
    along = np.minimum(movie[:, top : bottom + 1, left - 1], movie[:, top : bottom + 1, right + 1])
    filled = movie.copy()
    filled[:, top : bottom + 1, left : right + 1] = np.maximum(across[:, None, :], along[:, :, None])
    return filled


def to_rgb(movie: np.ndarray) -> np.ndarray:
    """Return grey frames (frames, height, width) 0..9 as uint8 RGB (frames, height, width, 3)."""
    grey = np.clip(np.rint(movie / BRIGHTEST * 255), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)


def sweeps(movie: np.ndarray, tr_s: float) -> tuple[Event, ...]:
    """Return an event for each stretch of frames that aren't black; its category is where the bar goes.

    Parameters
    ----------
    movie : (frames, height, width), black but for the bar.
    """
    lit = movie.reshape(len(movie), -1).any(axis=1)
    edges = np.flatnonzero(np.diff(np.r_[False, lit, False].astype(int)))
    events = []
    for start, stop in edges.reshape(-1, 2):
        bar = movie[start:stop].astype(np.float64)
        weight = bar.sum(axis=(1, 2))
        down = (bar.sum(axis=2) @ np.arange(bar.shape[1])) / weight
        right = (bar.sum(axis=1) @ np.arange(bar.shape[2])) / weight
        moved = {"right": right[-1] - right[0], "down": down[-1] - down[0]}
        axis = max(moved, key=lambda name: abs(moved[name]))
        way = axis if moved[axis] > 0 else {"right": "left", "down": "up"}[axis]
        text = f"bar moving {way}"
        events.append(Event(float(start * tr_s), float((stop - start) * tr_s), text, f"a {text}", text))
    return tuple(events)
