"""Figures: their pixels against what went in."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
from matplotlib.image import imread

from neuroreel.core.scores import LagSweep, Scores
from neuroreel.core.types import Reconstruction
from neuroreel.report import figures
from neuroreel.report.figures import Picture
from neuroreel.report.record import Record


def pixels(drawn: Picture | None) -> np.ndarray:
    assert drawn is not None
    return (imread(io.BytesIO(drawn.png))[..., :3] * 255).round().astype(int)


def rows_of(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.flatnonzero((np.abs(picture - colour).max(-1) <= 2).sum(1) > 50)


def test_the_contact_sheet_has_the_truth_above_the_systems(record: Record) -> None:
    paints = {"shown": (200, 30, 30), "a": (30, 180, 30), "b": (30, 30, 200)}
    clips = {name: np.full((8, 6, 32, 32, 3), paint, dtype=np.uint8) for name, paint in paints.items()}
    truth = replace(record.truth, clips=clips.pop("shown"))
    made = {name: Reconstruction(each) for name, each in clips.items()}
    sheet = pixels(figures.contact_sheet(truth, made, {"a": "#999999", "b": "#777777"}))
    rows = [rows_of(sheet, paint) for paint in paints.values()]
    assert all(len(each) > 80 for each in rows)
    assert rows[0].max() < rows[1].min() < rows[1].max() < rows[2].min()


def test_the_worst_clip_is_shown_beside_the_best(record: Record) -> None:
    paints = [(20 * clip + 30, 90, 200 - 20 * clip) for clip in range(8)]
    clips = np.stack([np.full((6, 32, 32, 3), paint, dtype=np.uint8) for paint in paints])
    truth, made = replace(record.truth, clips=clips), Reconstruction(clips)
    values = np.array([0.5, 0.1, 0.6, 0.9, 0.55, 0.3, 0.7, np.nan])
    drawn = figures.best_to_worst(truth, "a", made, Scores("pixcorr", values), {})
    sheet = pixels(drawn)
    places = [np.flatnonzero((np.abs(sheet - paint).max(-1) <= 2).sum(0) > 50) for paint in paints]
    assert [len(each) > 0 for each in places] == [False, True, False, True, True, False, False, False]
    assert places[3].max() < places[4].min() < places[4].max() < places[1].min()


def test_errors_rank_the_smallest_first(record: Record) -> None:
    errors = Scores("mse", np.arange(8.0) + 1, higher_is_better=False)
    drawn = figures.best_to_worst(record.truth, "a", Reconstruction(record.truth.clips), errors, {})
    assert drawn is not None and "best 1.00" in drawn.svg and "worst 8.00" in drawn.svg


def test_figures_follow_the_reader_to_a_dark_page(record: Record) -> None:
    drawn = figures.curve_figure(record.curves, figures.system_colours(record.curves))
    assert drawn is not None
    root = ElementTree.fromstring(drawn.svg)
    assert root.tag.endswith("svg")
    assert "prefers-color-scheme:dark" in drawn.svg and "var(--ink)" in drawn.svg
    assert drawn.svg.count(figures.INK) == 1  # in the rule alone
    assert not [each for each in root.iter() if each.tag.endswith(("script", "foreignObject"))]


def test_a_system_has_one_colour_wherever_it_stands() -> None:
    colours = figures.system_colours(["a", "b", "a", "c"])
    assert list(colours) == ["a", "b", "c"]
    assert len(set(colours.values())) == 3
    assert figures.system_colours([str(number) for number in range(40)])["39"] in figures.COLOURS


def test_lags_before_the_clip_are_shaded_as_a_control() -> None:
    lags = np.array([-4.0, -2.0, 2.0, 4.0])
    values, none = np.array([0.5, 0.5, 0.9, 0.7]), np.full(4, np.nan)
    with_past = figures.lag_figure(LagSweep(lags, values, none, none, "x", chance=0.5))
    without = figures.lag_figure(LagSweep(lags[2:], values[2:], none[2:], none[2:], "x", chance=0.5))
    assert "before the clip: control" in with_past.svg and "before the clip: control" not in without.svg
    assert with_past.alt == "x by lag: best 0.90 at 2.0 s."
    grey = (np.abs(pixels(with_past) - 238).max(-1) < 8).mean()
    assert grey > 0.15 > (np.abs(pixels(without) - 238).max(-1) < 8).mean()


def test_the_confusion_matrix_counts_what_was_read(record: Record) -> None:
    drawn, reason = figures.confusion_figure("ridge & co", record.reconstructions["ridge & co"], record.truth)
    assert drawn is not None and reason == ""
    assert drawn.alt == "Confusion matrix of ridge & co; 50% on the diagonal."  # all is read as a cat, half are cats


def test_categories_that_training_never_showed_are_left_out_by_name(record: Record) -> None:
    made = replace(record.reconstructions["ridge & co"], categories=("boat", "tree"))
    drawn, reason = figures.confusion_figure("x", made, record.truth)
    assert (drawn, reason) == (None, "no category of the test was shown in training")
    assert figures.category_strip(record.truth, {"x": made}, {}) == (None, reason)


def test_onsets_get_decimals_only_where_they_need_them() -> None:
    assert figures.seconds(np.array([10.2, 15.9])) == ["10", "16"]
    assert figures.seconds(np.array([10.0, 10.75])) == ["10.0", "10.8"]


def test_small_pixels_are_repeated_not_blurred() -> None:
    frame = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = figures.enlarge(frame, least=8)
    assert large.shape == (8, 8, 3)
    assert np.array_equal(large[::4, ::4], frame) and np.array_equal(large[3, 3], frame[0, 0])


def test_lists_read_as_sentences() -> None:
    assert [figures.listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
