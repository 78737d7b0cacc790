"""wen2018 on a cortex that is planted in the network's own layers, behind the response that the system assumes."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.seeds import generator
from neuroreel.core.sets import Segment, Split, TestSet, TrainingSet, Window
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Bold, Event, Recording, Run, Space, Video
from neuroreel.features.alexnet import AlexNetExtractor
from neuroreel.preprocess.clean import polynomials
from neuroreel.preprocess.timing import HrfSampling, hrf_by_name, volume_times
from neuroreel.systems.wen2018 import Wen2018, Wen2018Config, covered, into_cells, thinned, without_grid
from neuroreel.testing import check_system

NET = {"layout": "world", "size": 32, "width": 0.125, "hidden": 24, "n_classes": 6}
SMALL = {
    "network": {"weights": "random", "net": NET, "layers": ("conv1", "conv3", "fc7", "fc8")},
    "stream": {"pca_fps": 2.0},
    "encoding": {"folds": 3},
    "visual": {"epochs": 25, "step": 0.01, "least_step": 0.002, "penalty": 0.01},
    "cells": 4,
}
TR_S, FPS, SECONDS, SIZE = 2.0, 4.0, 180, 32
LOW, HIGH, BLIND = slice(0, 20), slice(20, 40), slice(40, 60)
SHOWN = {"a": 2, "b": 2, "c": 2, "d": 2, "test": 4}


def movie(name: str) -> tuple[Video, tuple[Event, ...]]:
    """A new picture of coloured blobs every 2 to 5 s; its category is what is brightest in the middle."""
    rng = generator(3, "movie", name)
    frames, events, at = [], [], 0.0
    while at < SECONDS:
        long = float(rng.integers(4, 11)) / 2
        blobs = cv2.GaussianBlur(rng.normal(size=(SIZE, SIZE, 3)), (0, 0), rng.uniform(3, 7))
        blobs = 127 + 60 * blobs / blobs.std() + rng.normal(0, 50, 3)
        picture = np.clip(blobs, 0, 255).astype(np.uint8)
        events.append(Event(at, long, "rgb"[int(picture[8:24, 8:24].mean((0, 1)).argmax())]))
        frames += [picture] * int(long * FPS)
        at += long
    stacked = np.stack(frames[: int(SECONDS * FPS)])
    return Video.from_frames(stacked, name=name, fps=FPS), tuple(events)


@pytest.fixture(scope="module")
def planted() -> tuple[TrainingSet, TestSet]:
    """Voxels of single units of conv1, of fc7, and of nothing, with noise of the signal's size."""
    network = AlexNetExtractor(Wen2018Config.build(SMALL).network)
    space = Space("columns", 60)
    units = {}
    for layer, values in network.extract_layers(movie("a")[0].frames(), FPS).items():
        living = np.flatnonzero(np.log10(values + 0.01).std(axis=0) > 0.05) if layer != "fc8" else np.arange(1)
        units[layer] = generator(3, "units", layer).choice(living, size=20)
    scale: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    runs = []
    for name, repeats in SHOWN.items():
        video, events = movie(name)
        found = network.extract_layers(video.frames(), FPS)
        blank = Bold(np.zeros((SECONDS // 2 + 4, 60), np.float32), TR_S, space, "01", name)
        response = HrfSampling.of(video.shape[0], FPS, volume_times(blank), hrf_by_name("wen2018"))
        signal = np.zeros((blank.n_trs, 60))
        for layer, place in (("conv1", LOW), ("fc7", HIGH)):
            courses = response(np.log10(found[layer][:, units[layer]] + 0.01))
            mean, sd = scale.setdefault(layer, (courses.mean(0), np.maximum(courses.std(0), 1e-3)))
            signal[:, place] = (courses - mean) / sd
        for repeat in range(repeats):
            noise = 0.5 * generator(3, "noise", name, repeat).normal(size=signal.shape)
            data = (signal + noise).astype(np.float32)
            runs.append(Run(replace(blank, data=data, run=f"{name}_{repeat}"), name, video, events))
    split = Split(
        name="planted",
        reason="a to d are fitted",
        train=tuple(Segment(run=run.bold.run) for run in runs if run.stimulus != "test"),
        test=tuple(Segment(run=run.bold.run) for run in runs if run.stimulus == "test"),
    )
    return split.cut(Recording("planted", "01", tuple(runs))).sets(Window(clip_s=2.0, frames=2, blocks="events"))


@pytest.fixture(scope="module")
def fitted(planted: tuple[TrainingSet, TestSet], tmp_path_factory: pytest.TempPathFactory) -> Wen2018:
    return Wen2018(Wen2018Config.build(SMALL)).fit(planted[0], run=RunFolder(tmp_path_factory.mktemp("run"), seed=1))


def test_it_keeps_the_protocol() -> None:
    check_system(Wen2018, Wen2018Config.build(SMALL))


def test_voxels_that_see_nothing_are_not_reproducible(fitted: Wen2018) -> None:
    assert fitted.reproducibility_ is not None
    r = fitted.reproducibility_.mean_r
    assert r[LOW].min() > 0.3 and r[HIGH].min() > 0.3 and abs(r[BLIND]).max() < 0.3


def test_only_reproducible_voxels_are_decoded_from(planted: tuple[TrainingSet, TestSet]) -> None:
    chosen = Wen2018(Wen2018Config.build(SMALL))._choose_voxels(planted[0].runs)
    assert chosen[:40].mean() > 0.8 and not chosen[BLIND].any()
    assert Wen2018(Wen2018Config.build(SMALL | {"voxels": "all"}))._choose_voxels(planted[0].runs).all()


def test_the_layer_map_finds_the_planted_layers(fitted: Wen2018) -> None:
    names = np.array(fitted.network.layers)[fitted.layer_index_ - 1]
    assert np.mean(names[LOW] == "conv1") > 0.8
    assert np.mean(np.isin(names[HIGH], ["fc7", "fc8"])) > 0.8


def test_encoding_predicts_what_sees_and_nothing_else(fitted: Wen2018, planted: tuple[TrainingSet, TestSet]) -> None:
    scores = fitted.score_encoding(planted[1].runs, n=400)
    assert scores.voxels.correlation_over_ceiling is not None
    assert np.median(scores.voxels.correlation_over_ceiling[:40]) > 0.8
    assert scores.voxels.significant[:40].mean() > 0.9 and scores.voxels.significant[BLIND].mean() < 0.1
    assert np.nanmax(scores.ceiling) <= 1 and np.median(scores.ceiling[:40]) > 0.8


def test_each_voxel_takes_its_layers_and_its_response_and_comes_back_from_its_files(
    planted: tuple[TrainingSet, TestSet], tmp_path: Path
) -> None:
    """No voxel follows motion energy, which is one of the spaces."""
    train, test = planted
    motion = {"cycles": (2.0, 4.0), "hertz": (0.0, 1.0), "size": 16, "window_s": 1.0}
    groups = (("conv1", "conv3"), ("fc7", "fc8"), ("motion-energy",))
    settings = SMALL | {"motion": motion, "encoding": {"folds": 3, "groups": groups}, "visual": {"epochs": 1}}
    settings |= {"hrf": "spm", "other_hrfs": ("wen2018",)}
    system = Wen2018(Wen2018Config.build(settings)).fit(train, run=RunFolder(tmp_path / "run", seed=1))
    assert system.encoding_ is not None and system.motion_ is not None
    group = system.encoding_.group_ % 3
    assert np.mean(group[LOW] == 0) > 0.8 and np.mean(group[HIGH] == 1) > 0.6
    assert np.mean(system.encoding_.group_[:40] >= 3) > 0.8  # the planted response is that of 5 s
    system.save(tmp_path / "saved")
    again = Wen2018.load(tmp_path / "saved").encode(test.runs[0]).data
    np.testing.assert_allclose(again, system.encode(test.runs[0]).data, atol=1e-5)


def test_receptive_fields_stand_beside_the_encoding_models_and_come_back_from_their_files(
    planted: tuple[TrainingSet, TestSet], fitted: Wen2018, tmp_path: Path
) -> None:
    """Voxels of single units of conv1 lie under small fields; those of fc7 take fc7 beside the maps."""
    train, test = planted
    fields = {"grid": {"sizes": (0.05, 0.3), "spacing": 2.0}, "model": {"beside": ((), ("fc7",)), "folds": 3}}
    settings = SMALL | {"fields": fields, "visual": {"epochs": 1}, "other_hrfs": ("spm",)}
    system = Wen2018(Wen2018Config.build(settings)).fit(train, run=RunFolder(tmp_path / "run", seed=1))
    assert system.fields_ is not None and system.stack_ is not None and system.stack_.shape == (3, 60)
    assert np.mean(system.fields_.field_[LOW] < 100) > 0.8  # a grid of 10 x 10 of the small size
    assert np.mean(system.fields_.beside_[HIGH] == 1) > 0.8
    assert np.mean(system.fields_.response_[:40] == 0) > 0.8
    assert (system.stack_[:2] >= 0).all() and system.stack_[:2, :40].sum(0).min() > 0.5
    scores, plain = system.score_encoding(test.runs, n=400), fitted.score_encoding(test.runs, n=400)
    assert scores.voxels.correlation[:40].mean() > plain.voxels.correlation[:40].mean()
    assert scores.voxels.significant[:40].mean() > 0.9 and scores.voxels.significant[BLIND].mean() < 0.1
    system.save(tmp_path / "saved")
    again = Wen2018.load(tmp_path / "saved").encode(test.runs[0]).data
    np.testing.assert_allclose(again, system.encode(test.runs[0]).data, atol=1e-5)


def test_features_lose_the_trend_of_the_volumes_that_are_used_and_nothing_else() -> None:
    """A slope and a level over the kept volumes, whatever stands outside them, beside a wave that has neither."""
    time = np.arange(60.0)
    kept = (time >= 10) & (time < 50)
    wave = np.where(kept, np.cos(2 * np.pi * (time - 10) * 5 / 40), 0.0)
    trend = polynomials(60, 2)
    values = (wave - trend @ np.linalg.lstsq(trend[kept], wave[kept])[0])[:, None]
    system = Wen2018(Wen2018Config.build(SMALL | {"detrend": 2}))
    bent = values + (3 + 0.2 * time - 0.01 * time**2)[:, None] + np.where(kept, 0, 100)[:, None]
    np.testing.assert_allclose(system._detrended(bent, kept)[kept], values[kept], atol=1e-4)
    plain = Wen2018(Wen2018Config.build(SMALL))
    assert plain._detrended(bent, kept) is bent


def test_predictions_of_detrended_features_have_no_trend(
    planted: tuple[TrainingSet, TestSet], fitted: Wen2018, tmp_path: Path
) -> None:
    """Neither those of the layers nor those of the fields; without the setting there is one."""
    fields = {"grid": {"sizes": (0.3,)}, "model": {"folds": 3}}
    settings = SMALL | {"detrend": 3, "fields": fields, "visual": {"epochs": 1}}
    system = Wen2018(Wen2018Config.build(settings)).fit(planted[0], run=RunFolder(tmp_path))
    run = planted[1].runs[0]
    kept = covered(system._sampling(run))
    trend = np.linalg.qr(polynomials(len(kept), 3)[kept])[0][:, 1:]
    slow = []
    for made in (fitted, system):
        predicted = made.encode(run).data[kept][:, :40].astype(np.float64)
        slow.append(np.abs(trend.T @ (predicted / np.linalg.norm(predicted - predicted.mean(0), axis=0))).max())
    assert slow[1] < 1e-3 < 0.1 < slow[0]


def test_a_space_beside_the_fields_that_is_not_there_lists_the_known_ones(
    planted: tuple[TrainingSet, TestSet], tmp_path: Path
) -> None:
    settings = SMALL | {"fields": {"model": {"beside": (("motion-energy",),)}}}
    with pytest.raises(ConfigError, match=r"^space beside the maps must be one of conv1, .*, got 'motion-energy'$"):
        Wen2018(Wen2018Config.build(settings)).fit(planted[0], run=RunFolder(tmp_path))


@pytest.mark.parametrize("lag_s", [-8.0, 8.0])
def test_a_lag_that_is_counted_twice_is_worse(
    fitted: Wen2018, planted: tuple[TrainingSet, TestSet], lag_s: float
) -> None:
    """The control: the same volumes said to have been taken at other times are not predicted."""
    right = fitted.score_encoding(planted[1].runs, n=50).voxels.correlation[:40]
    moved = [replace(run, bold=replace(run.bold, start_s=run.bold.start_s + lag_s)) for run in planted[1].runs]
    wrong = fitted.score_encoding(moved, n=50).voxels.correlation[:40]
    assert np.median(right) > np.median(wrong) + 0.3


def test_categories_that_the_network_does_not_know_are_learnt(
    fitted: Wen2018, planted: tuple[TrainingSet, TestSet]
) -> None:
    truth = planted[1].truth
    made, best = fitted.reconstruct(planted[1].brain), fitted.ceiling(truth)
    assert made.categories == ("b", "g", "r") and best is not None
    for answer, least in ((made, 0.45), (best, 0.5)):
        assert answer.probabilities is not None
        named = np.array(answer.categories)[answer.probabilities.argmax(1)]
        assert np.mean(named == truth.category) > least


def test_classes_that_the_network_knows_are_those_of_fc8(planted: tuple[TrainingSet, TestSet], tmp_path: Path) -> None:
    settings = SMALL | {"classes": ("x", "r", "g", "b", "y", "z"), "encode": False}
    system = Wen2018(Wen2018Config.build(settings)).fit(planted[0], run=RunFolder(tmp_path))
    fc8 = system.network.net.get_submodule("fc8")
    np.testing.assert_array_equal(system.head_["weight"], fc8.weight.detach().numpy()[[3, 2, 1]])
    assert system.makes == {"video", "category"}


def test_the_encoding_comes_back_from_its_files(
    fitted: Wen2018, planted: tuple[TrainingSet, TestSet], tmp_path: Path
) -> None:
    fitted.save(tmp_path / "saved")
    loaded, run = Wen2018.load(tmp_path / "saved"), planted[1].runs[0]
    np.testing.assert_allclose(loaded.encode(run).data, fitted.encode(run).data, atol=1e-5)
    np.testing.assert_array_equal(loaded.layer_index_, fitted.layer_index_)
    assert loaded.makes == fitted.makes == {"video", "category", "bold"}


def test_pictures_show_the_colours_that_were_shown(fitted: Wen2018, planted: tuple[TrainingSet, TestSet]) -> None:
    truth, best = planted[1].truth, fitted.ceiling(planted[1].truth)
    assert best is not None and best.clips is not None and truth.clips is not None
    shrink = [
        np.stack([cv2.resize(clip[0], (8, 8)) for clip in clips]).reshape(len(truth), -1)
        for clips in (best.clips, truth.clips)
    ]
    own = [np.corrcoef(a, b)[0, 1] for a, b in zip(*shrink, strict=True)]
    other = [np.corrcoef(a, b)[0, 1] for a, b in zip(shrink[0], np.roll(shrink[1], 30, axis=0), strict=True)]
    assert np.mean(own) > np.mean(other) + 0.2


def test_a_movie_at_another_rate_shows_the_same_frames_at_the_same_times() -> None:
    frames = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), dtype=np.uint8)
    slow = thinned(Video.from_frames(frames, name="m", fps=30.0), 10.0)
    assert slow.shape[0] == 4 and slow.fps == 10.0
    np.testing.assert_array_equal(slow.frames(1, 4)[:, 0, 0, 0], [3, 6, 9])


def test_the_grid_of_the_filters_is_averaged_out_and_nothing_else() -> None:
    grid = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8).expand(1, 3, 16, 16)
    flat = without_grid(grid + 5, 2)[:, :, :-1, :-1]
    assert flat.shape == (1, 3, 15, 15) and torch.allclose(flat, torch.full_like(flat, 5.0))


def test_cells_are_means() -> None:
    maps = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    np.testing.assert_allclose(into_cells(maps, 2)[0], [[2.5, 4.5], [10.5, 12.5]])


def test_volumes_before_the_response_are_left_out() -> None:
    weights = HrfSampling.of(200, 4.0, np.arange(0, 80, 2.0), hrf_by_name("wen2018")).weights
    kept = covered(weights)
    assert not kept[:2].any() and kept[5:25].all() and not kept[-5:].any()


def test_what_it_cannot_be_fitted_to_is_one_sentence(planted: tuple[TrainingSet, TestSet], tmp_path: Path) -> None:
    train, test = planted
    blind = Recording("planted", "01", tuple(replace(run, video=None) for run in (*train.runs, *test.runs)))
    with pytest.raises(DataError, match=r"^training samples of wen2018 must have clips, got none$"):
        Wen2018(Wen2018Config.build(SMALL)).fit(train.split.cut(blind).sets(train.window)[0], run=RunFolder(tmp_path))
    system = Wen2018(Wen2018Config.build(SMALL | {"encode": False})).fit(train, run=RunFolder(tmp_path))
    with pytest.raises(DataError, match=r"^wen2018 must be fitted with encode=true, got decoders only$"):
        system.encode(test.runs[0])
    few = replace(test.brain, brain=test.brain.brain[:, :, :9], space=Space("columns", 9))
    with pytest.raises(DataError, match=r"^voxels must have as many entries as the training set's \(60\), got 9$"):
        system.reconstruct(few)


def test_a_run_without_a_video_is_not_encoded(fitted: Wen2018, planted: tuple[TrainingSet, TestSet]) -> None:
    with pytest.raises(DataError, match=r"^run test_0 must have a video to be encoded, got none$"):
        fitted.encode(replace(planted[1].runs[0], video=None))


def test_weights_that_are_corrupt_or_missing_are_one_sentence(
    tmp_path: Path, planted: tuple[TrainingSet, TestSet]
) -> None:
    file = tmp_path / "alexnet.safetensors"
    file.write_bytes(b"not weights")
    for sha256, error, rule in ((None, DataError, "whole safetensors"), ("0" * 64, DataError, "SHA-256 0000")):
        network = {"weights": str(file), "net": NET, "sha256": sha256}
        with pytest.raises(error, match=f"^weights must .*{rule}"):
            Wen2018(Wen2018Config.build({"network": network})).fit(planted[0], run=RunFolder(tmp_path))
    with pytest.raises(ConfigError, match=r"^weights must be a readable file"):
        network = {"weights": str(tmp_path / "none.pt"), "net": NET}
        Wen2018(Wen2018Config.build({"network": network})).fit(planted[0], run=RunFolder(tmp_path))
