"""The facts of the cards against the real files, which are skipped where they can't be had."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import zscore

from neuroreel.core.errors import ConfigError, FetchError, NeuroreelWarning
from neuroreel.core.store import read_store
from neuroreel.core.types import Dataset
from neuroreel.datasets import STUDIES, cards
from neuroreel.datasets.prepare import find_study, prepare

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.environ.get(cards.ENVIRONMENT) and SHARED.is_dir():
        monkeypatch.setenv(cards.ENVIRONMENT, str(SHARED))


def load(name: str, *settings: str) -> Dataset:
    try:
        study = find_study(name, settings)
    except FetchError as error:
        pytest.skip(str(error))
    if name != "szinte2024":
        return study.load()
    with pytest.warns(NeuroreelWarning, match=r"got 0 NaN or infinite and 57 constant of 2365 \(szinte2024\)$"):
        return study.load()


@pytest.mark.parametrize("name", ["szinte2024", "haxby2001-slice"])
def test_the_card_says_what_the_files_hold(name: str) -> None:
    card, _ = cards.known(name)
    dataset = load(name)
    assert (dataset.name, len(dataset.recordings)) == (card.name, card.subjects)
    runs = dataset.recordings[0].runs
    assert len(runs) == card.runs and {run.bold.n_trs for run in runs} == {card.trs}
    assert {round(run.bold.tr_s, 6) for run in runs} == {card.tr_s}
    assert dataset.licence and dataset.citation and card.address.startswith("https://raw.githubusercontent.com/")
    assert runs[0].bold.space.size == card.voxels - (57 if name == "szinte2024" else 0)


def test_every_study_in_the_table_has_a_card_of_its_name() -> None:
    for name in STUDIES:
        card, read = cards.known(name)
        assert card.name == name and callable(read) and card.licence and card.citation and (card.files or card.by_hand)
        assert all(len(checksum) == 64 for checksum in card.files.values())
    with pytest.raises(
        ConfigError, match=r"^data set must be one of cc2017, haxby2001-slice, szinte2024, got 'haxby'$"
    ):
        cards.known("haxby")


def test_the_bar_movie_is_upright_by_the_receptive_fields() -> None:
    run = load("szinte2024").recordings[0].runs[0]
    measures = run.bold.space.measures
    off_axes = (np.abs(measures["x"]) > 1) & (np.abs(measures["y"]) > 1)  # a flip moves only these
    best = np.argsort(-np.nan_to_num(measures["r2"] * off_axes))[:200]
    x, y, sd = (measures[name][best] for name in ("x", "y", "sd"))
    right = np.linspace(-8.912435, 8.912435, 80)
    up = np.linspace(5.0342207, -4.959639, 45)
    fields = np.exp(
        -((right - x[:, None, None]) ** 2 + (up[:, None] - y[:, None, None]) ** 2) / (2 * sd**2)[:, None, None]
    )
    bold = zscore(run.bold.data[:, best])
    assert run.video is not None
    movie = run.video.frames()[..., 0].astype(float)

    def fit(shown: np.ndarray) -> float:
        seen = zscore(np.einsum("thw,vhw->tv", shown, fields))
        return max(float(np.mean(seen[: 150 - lag] * bold[lag:])) for lag in (2, 3, 4))

    assert fit(movie) > 0.75
    assert max(fit(movie[:, ::-1]), fit(movie[:, :, ::-1])) < 0.6


def test_the_sweeps_are_events_with_their_direction() -> None:
    run = load("szinte2024").recordings[0].runs[0]
    found = [(e.category, round(e.onset_s / 1.317025), round(e.duration_s / 1.317025)) for e in run.events]
    assert found == [
        ("bar moving left", 10, 32),
        ("bar moving down", 52, 18),
        ("bar moving right", 80, 32),
        ("bar moving up", 122, 18),
    ]


def test_frames_without_a_bar_are_black_unless_the_fixation_mark_is_asked_for() -> None:
    without, shown = (load("szinte2024", f"fixation={flag}").recordings[0].runs[0] for flag in ("false", "true"))
    assert without.video is not None and shown.video is not None
    bars, movie = without.video.frames(), shown.video.frames()
    blank = np.r_[0:10, 42:52, 70:80, 112:122, 140:150]
    assert bars.shape == (150, 45, 80, 3) and bars[blank].max() == 0 and bars.max() == 255
    assert np.count_nonzero(movie.min(axis=0)[..., 0]) == 8
    differ = np.argwhere((bars != movie).any(axis=(0, 3)))
    assert differ.min(axis=0).tolist() == [21, 37] and differ.max(axis=0).tolist() == [23, 42]
    assert bars[26, 20:25, 38].tolist() == [[255] * 3] * 5


def test_the_named_split_has_only_bars_and_a_gap() -> None:
    dataset = load("szinte2024")
    train, test = dataset.split("szinte2024-sweeps").cut(dataset.recording()).sets(dataset.window)
    tr = 1.317025
    assert (train.runs[0].bold.n_trs, test.runs[0].bold.n_trs) == (70, 70)
    assert round(test.runs[0].bold.start_s / tr) == 80
    assert len(test.truth) == 50 and test.truth.clips is not None and test.truth.clips.shape == (50, 1, 45, 80, 3)
    assert not set(train.samples.category) & set(test.truth.category)
    np.testing.assert_allclose(test.truth.lags_s[:2], tr * np.arange(2, 4))


def test_haxby_labels_are_eight_blocks_a_run_and_splits_leave_one_out() -> None:
    dataset = load("haxby2001-slice")
    runs = dataset.recordings[0].runs
    assert all(len(run.events) == 8 and {e.duration_s for e in run.events} == {22.5} for run in runs)
    assert len({event.category for event in runs[0].events}) == 8 and runs[0].events[0].onset_s == 15.0
    assert len(dataset.splits) == 12
    train, test = dataset.split("leave-out-3").cut(dataset.recording()).sets(dataset.window)
    assert (len(train.samples), len(test.truth), set(test.truth.run)) == (792, 72, {"3"})
    assert runs[4].bold.space.index is not None and runs[4].bold.space.index.shape == (530, 3)


def test_a_real_recording_goes_through_the_store(tmp_path: Path) -> None:
    wanted = load("szinte2024")
    with pytest.warns(NeuroreelWarning, match="57 constant"):
        found = read_store(prepare("szinte2024", tmp_path / "s.zarr"))
    a, b = found.recordings[0].runs[0], wanted.recordings[0].runs[0]
    assert np.array_equal(a.bold.data, b.bold.data) and a.events == b.events
    assert a.video is not None and b.video is not None and np.array_equal(a.video.frames(), b.video.frames())
    assert found.splits == wanted.splits and found.window == wanted.window
    assert "c9cd7df157c1239e" in str(found.provenance["sources"])
