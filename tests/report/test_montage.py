"""The movie of a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuroreel.core.types import Reconstruction, Samples
from neuroreel.core.video import open_video
from neuroreel.report.montage import LONGEST_S, make_montage
from neuroreel.report.page import encode
from neuroreel.report.record import Record


def coloured(truth: Samples, colour: tuple[int, int, int]) -> np.ndarray:
    return np.broadcast_to(np.array(colour, dtype=np.uint8), np.shape(truth.clips)).copy()


def test_the_movie_shows_truth_and_systems_at_the_same_time(record: Record, tmp_path: Path) -> None:
    truth = replace(record.truth, clips=coloured(record.truth, (200, 30, 30)))
    made = {"a": Reconstruction(coloured(truth, (30, 180, 30))), "b": Reconstruction(coloured(truth, (30, 30, 200)))}
    montage = make_montage(truth, made, {})
    assert montage is not None
    (tmp_path / "m.mp4").write_bytes(encode(montage))
    video = open_video(tmp_path / "m.mp4", fps=8.0)
    assert video.shape == (8 * 6, *montage.size, 3)
    wide = video.shape[2] // 3
    centres = [video.frames(20, 21)[0, -60, wide * panel + wide // 2] for panel in range(3)]
    np.testing.assert_allclose(centres, [(200, 30, 30), (30, 180, 30), (30, 30, 200)], atol=14)


def test_clips_of_several_frames_play_as_they_were_shown(record: Record) -> None:
    montage = make_montage(record.truth, record.reconstructions, {})
    assert montage is not None
    assert (montage.fps, montage.clips, montage.frames) == (8.0, 8, 48)
    assert montage.speed == pytest.approx(1.0)
    assert montage.panels == ("shown", "ridge & co", "mean-frame")


def test_single_pictures_stay_long_enough_to_be_seen(record: Record) -> None:
    truth = replace(record.truth, clips=record.truth.clips[:, :1], onset_s=2.0 * np.arange(8))
    montage = make_montage(truth, {"a": Reconstruction(truth.clips)}, {})
    assert montage is not None
    assert montage.frames / montage.fps == pytest.approx(8 / 3)
    assert montage.speed == pytest.approx(6.0)


def test_a_long_test_is_cut_and_a_dozen_systems_fit(record: Record) -> None:
    rows = np.arange(2000) % 8
    truth = replace(record.truth.take(rows), onset_s=0.75 * np.arange(2000))
    montage = make_montage(truth, {str(number): Reconstruction(truth.clips) for number in range(12)}, {})
    assert montage is not None
    assert montage.clips < 2000 and montage.frames / montage.fps <= LONGEST_S
    assert montage.size[0] % 2 == montage.size[1] % 2 == 0 and montage.size[1] <= 1100
    assert next(iter(montage)).shape == (*montage.size, 3)


def test_without_clips_there_is_no_movie(bare: Record, record: Record) -> None:
    assert make_montage(bare.truth, bare.reconstructions, {}) is None
    assert make_montage(record.truth, {"categories only": Reconstruction()}, {}) is None
