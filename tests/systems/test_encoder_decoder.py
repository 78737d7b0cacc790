import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from neuroreel.brain.video_encoder import VideoEncoderConfig
from neuroreel.core.errors import ConfigError, DataError, FetchError, LeakageError, NeuroreelWarning
from neuroreel.core.sets import Segment, Split, TestSet, TrainingSet, Window
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Bold, Recording, Run, Space, Video
from neuroreel.core.video import write_video
from neuroreel.datasets.cards import study
from neuroreel.fit.loop import LoopConfig
from neuroreel.generate.frame_decoder import FrameDecoderConfig
from neuroreel.metrics.identification import identify_pairwise, similarity_matrix
from neuroreel.metrics.motion import direction_accuracy, endpoint_error_over_flow, flow, without_motion
from neuroreel.metrics.pixel import frame_correlation
from neuroreel.metrics.table import evaluate
from neuroreel.systems.baselines import RidgePixels
from neuroreel.systems.encoder_decoder import (
    Asked,
    Cycles,
    EncoderDecoder,
    EncoderDecoderConfig,
    Mixed,
    StepsConfig,
    stretches_of,
)
from neuroreel.testing import check_system, planted_sets
from neuroreel.workflow import RunConfig, make_sets


def small(**more) -> EncoderDecoderConfig:
    few = LoopConfig(steps=4, batch=8, average=0.9, precision="float32", checkpoint_every=2)
    settings = {
        "encoder": VideoEncoderConfig(components=8, looks=1, grid=2, pixel_grid=8),
        "encoding": StepsConfig(steps=4, batch=16, precision="float32"),
        "components": 12,
        "decoder": FrameDecoderConfig(size=16, width=8),
        "pairs": few,
        "cycles": few,
        "cycled": 60,
        "every": 1,
        "transduction": LoopConfig(steps=2, batch=1, precision="float32"),
    }
    return EncoderDecoderConfig(**settings | more)


PUBLISHED = {
    "encoder": VideoEncoderConfig(trunk="conv3d"),
    "front": "learnt",
    "decoder": FrameDecoderConfig(base="none", size=16, width=8),
    "pixel": 0,
    "noise": 0,
    "from_cycles": 0,
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("run"), seed=1)
    train, test = planted_sets()
    return EncoderDecoder(small()).fit(train, run=run), train, test, run


def fit(tmp_path: Path, train: TrainingSet | None = None, **more) -> EncoderDecoder:
    return EncoderDecoder(small(**more)).fit(train or planted_sets()[0], run=RunFolder(tmp_path / "run", seed=1))


def same_weights(one: EncoderDecoder, other: EncoderDecoder) -> None:
    for part in ("encoder_", "decoder_"):
        states = getattr(one, part).state_dict(), getattr(other, part).state_dict()
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items()), part


def noisy_movie(seconds: float = 20, fps: float = 2, size: int = 16, name: str = "other") -> Video:
    frames = np.random.default_rng(3).integers(0, 255, (round(seconds * fps), size, size, 3), dtype=np.uint8)
    return Video.from_frames(frames, name=name, fps=fps)


def test_it_keeps_the_protocol_and_recovers_what_is_planted():
    check_system(EncoderDecoder, small())


def test_the_published_layers_are_trained_saved_and_loaded(fitted, tmp_path):
    _, train, test, _ = fitted
    system = fit(tmp_path, train, **PUBLISHED)
    system.save(tmp_path / "saved")
    made = [one.reconstruct(test.brain).clips for one in (system, EncoderDecoder.load(tmp_path / "saved"))]
    assert made[0].shape == test.truth.clips.shape and np.array_equal(*made)
    assert system.ceiling(test.truth) is None


def test_a_fit_that_broke_off_ends_at_the_same_weights(fitted, tmp_path):
    system, train, _, run = fitted
    shutil.copytree(run.path, tmp_path / "run")
    for phase in ("encoder", "pairs"):  # the middle of the second phase, and nothing of the third
        last = max((tmp_path / "run" / phase).glob("step-*"))
        shutil.rmtree(last) if last.is_dir() else last.unlink()
    shutil.rmtree(tmp_path / "run" / "cycles")
    same_weights(system, fit(tmp_path, train))
    assert json.loads((tmp_path / "run" / "pairs.json").read_text())["resumed_at"] == 2


def test_test_brains_are_seen_in_the_transductive_mode_only_and_it_stands_beside_the_score(fitted):
    system, _, test, _ = fitted
    before = {name: value.clone() for name, value in system.decoder_.state_dict().items()}
    strict = system.reconstruct(test.brain)
    other = EncoderDecoder(small(mode="transductive"))
    other.__dict__ |= {key: value for key, value in system.__dict__.items() if key != "config"}
    adapted = other.reconstruct(test.brain)
    assert (strict.mode, adapted.mode) == ("strict", "transductive")
    assert not np.array_equal(strict.clips, adapted.clips)
    assert all(torch.equal(value, before[name]) for name, value in system.decoder_.state_dict().items())
    table = evaluate({"a": strict, "b": adapted}, test.truth, variants=("pixcorr",), draws=20).to_dict()["rows"]
    assert (table["a"]["pixcorr"]["mode"], table["b"]["pixcorr"]["mode"]) == ("strict", "transductive")


def test_cycles_on_the_asked_windows_bring_their_fmri_nearer(fitted):
    system, _, test, _ = fitted
    other = EncoderDecoder(small(transduction=LoopConfig(steps=10, batch=1, rate=3e-3, precision="float32")))
    other.__dict__ |= {key: value for key, value in system.__dict__.items() if key != "config"}
    inputs = other.inputs(test.brain.brain)
    stretches = stretches_of(test.brain, other.clip_s_, 10.0)
    source = Asked(test.brain, inputs, stretches, other.clip_s_, other.config.encoder.delays_s)
    batch = source.read(np.arange(len(stretches)), np.arange(len(stretches)))
    adapted = other.adapted(test.brain)
    with torch.no_grad():
        before, after = (other.asked_loss(net, batch).mean() for net in (system.decoder_, adapted))
    assert after < before


def test_a_fit_hands_on_no_test_brain(fitted):
    _, _, test, run = fitted
    with pytest.raises(LeakageError):
        EncoderDecoder(small()).fit(test, run=run)
    with pytest.raises(LeakageError):
        EncoderDecoder(small(mode="transductive")).fit(test.truth, run=run)


def test_its_encoder_predicts_the_voxels_of_unseen_movies(tmp_path):
    train, test = planted_sets(clips=120, noise=0.1)
    system = fit(tmp_path, train, cycles=None, encoder=VideoEncoderConfig(components=40, looks=1, delays_s=(4.0,)))
    made, true = system.encode(test.runs[0]).data[2:], test.runs[0].bold.data[2:]
    r = [np.corrcoef(made[:, voxel], true[:, voxel])[0, 1] for voxel in range(true.shape[1])]
    assert np.mean(r[:30]) > 0.5 and abs(np.mean(r[30:])) < 0.2  # the last quarter of the voxels is blind


def test_cycles_of_an_encoder_that_knows_nothing_have_no_say(fitted, tmp_path):
    _, train, _, _ = fitted
    system = fit(tmp_path, train, noise=100.0)
    chosen = json.loads((tmp_path / "run" / "choices.json").read_text())
    assert chosen["from_cycles"] == 0 and system.cycles_ is None
    errors = chosen["errors_of_from_cycles"]
    assert set(errors) == {"0.5", "0.0", "0.25", "0.75"} and errors["0.75"] > errors["0.25"] > errors["0.0"]


def test_what_was_on_while_nothing_of_the_training_was_measured_is_not_looked_at(tmp_path):
    run = planted_sets(clips=80)[0].runs[0]
    split = Split(
        name="parts",
        reason="the middle of a run is sealed",
        train=(Segment(run="train", stop_s=60), Segment(run="train", start_s=120)),
        test=(Segment(run="train", start_s=74, stop_s=106),),
    )
    sets = split.cut(Recording("planted", "01", (run,))).sets(Window(clip_s=2.0, frames=2, first_lag_s=4.0))
    system = EncoderDecoder(small())
    system.fit(sets[0], run=RunFolder(tmp_path, seed=1))
    assert _recorded(RunFolder(tmp_path))["cycles"] == 30 + 20
    shown, _ = system._scanned(sets[0].runs)
    assert not ((shown[0].onsets_s > 58) & (shown[0].onsets_s < 120)).any()


def drifting_sets(clips: int = 96, frames: int = 4, size: int = 24) -> tuple[TrainingSet, TestSet]:
    """Return sets whose clips drift to the left or right, with voxels that see pixels and voxels that see the way."""
    rng = np.random.default_rng(5)
    weights, runs = rng.normal(size=(36, 30)), []
    for name, count in (("train", clips), ("test", clips // 2)):
        ways = rng.choice([-1, 1], count)
        coarse = rng.integers(0, 255, (count, 6, 6, 3)).astype(np.float32)
        wide = [cv2.resize(one, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 255) for one in coarse]
        shown = [np.roll(one, way * step, 1) for one, way in zip(wide, ways, strict=True) for step in range(frames)]
        seen = (coarse.mean(3).reshape(count, -1) / 127.5 - 1) @ weights / 3
        data = np.zeros((count + 2, 40))
        data[2:] = np.concatenate([seen, np.repeat(ways[:, None], 10, 1)], 1)
        data += 0.3 * rng.normal(size=data.shape)
        video = Video.from_frames(np.stack(shown).astype(np.uint8), name=name, fps=frames / 2)
        bold = Bold(data.astype(np.float32), 2.0, Space("columns", 40), "01", name)
        runs.append(Run(bold, name, video))
    split = Split(name="drifts", reason="two runs", train=(Segment(run="train"),), test=(Segment(run="test"),))
    window = Window(clip_s=2.0, frames=frames, first_lag_s=4.0)
    return split.cut(Recording("drifts", "01", tuple(runs))).sets(window)


def test_clips_move_the_way_that_was_read_and_still_do_after_saving(tmp_path):
    train, test = drifting_sets()
    system = fit(tmp_path, train, motion=8, cycles=None)
    made, true = system.reconstruct(test.brain).clips, flow(test.truth.clips)
    errors = {"made": made} | without_motion(made, seed=0)
    errors = {name: np.nanmean(endpoint_error_over_flow(flow(clips), true)) for name, clips in errors.items()}
    assert errors["made"] < 0.9 < errors["static"] + 1e-6 < errors["reversed"]
    assert direction_accuracy(flow(made), true).mean() > 0.6
    system.save(tmp_path / "saved")
    assert np.array_equal(EncoderDecoder.load(tmp_path / "saved").reconstruct(test.brain).clips, made)
    still = EncoderDecoder(small(motion=0, cycles=None)).fit(train, run=RunFolder(tmp_path / "still", seed=1))
    assert still.motion_ is None
    assert direction_accuracy(flow(still.reconstruct(test.brain).clips), true).mean() < 0.5


def test_movement_that_the_brain_says_nothing_of_is_left_out(tmp_path):
    train = drifting_sets()[0].shuffled(1)
    assert fit(tmp_path, train, motion=8, cycles=None).motion_ is None


@pytest.mark.heavy
def test_few_pairs_are_read_better_with_the_videos_that_nobody_was_scanned_with(tmp_path):
    train, test = planted_sets(clips=300, noise=0.6)
    few = train.take(np.arange(40))
    loop = LoopConfig(steps=40, batch=8, rate=1e-3, average=0.9, precision="float32")
    settings = {"components": 24, "pairs": loop, "cycled": 300, "encoder": VideoEncoderConfig(components=24, looks=1)}
    alone = fit(tmp_path / "alone", few, **settings, cycles=None)
    both = fit(tmp_path / "both", few, **settings, cycles=loop)
    scores = {
        name: frame_correlation(one.reconstruct(test.brain).clips, test.truth.clips).mean()
        for name, one in (("alone", alone), ("both", both))
    }
    assert scores["both"] > scores["alone"] > 0.2


def test_other_videos_join_the_cycles_from_a_folder_or_by_hand(fitted, tmp_path):
    _, train, _, _ = fitted
    frames = noisy_movie(10).frames()
    write_video(tmp_path / "more" / "one.mp4", frames, fps=2.0)
    config = small(external=str(tmp_path / "more"))
    runs = [RunFolder(tmp_path / name, seed=1) for name in ("folder", "hand")]
    EncoderDecoder(config).fit(train, run=runs[0])
    EncoderDecoder(small()).fit(train, run=runs[1], videos=[noisy_movie(20)])
    counts = [_recorded(run)["cycles"] for run in (RunFolder(fitted[3].path), *runs)]
    assert counts[1] - counts[0] == 5 and counts[2] - counts[0] == 10  # one lasts two seconds


def test_batches_have_the_share_of_cycles_that_was_asked_for():
    clips = np.zeros((20, 2, 16, 16, 3), np.uint8)
    cycles = Cycles(np.zeros((30, 3, 5), np.float32), clips[:1].repeat(30, 0), np.zeros((0, 5)), np.zeros(0, int))
    for share, wanted in ((0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)):
        mixed = Mixed(np.zeros((20, 4), np.float32), clips, cycles, lambda brain: brain[:, 0, :4], share)
        batches = mixed.epoch(8, np.random.default_rng(0))
        assert {int((rows >= 20).sum()) for rows in batches} == {wanted}
    read = mixed.read(batches[0], np.arange(8))
    assert read["inputs"].shape == (8, 4) and read["clips"].shape == (8, 2, 3, 16, 16)


def test_a_cycle_gets_errors_of_volumes_that_follow_on_each_other():
    errors = np.arange(10, dtype=np.float32)[:, None].repeat(2, 1)
    cycles = Cycles(np.zeros((4, 3, 2), np.float32), np.zeros((4, 1, 8, 8, 3), np.uint8), errors, np.array([0, 1, 5]))
    brain = cycles.brain(np.array([0, 1, 2]), np.array([3, 4, 5]))
    assert brain[:, :, 0].tolist() == [[0, 1, 2], [1, 2, 3], [5, 6, 7]]


def test_rates_drop_to_a_fifth_every_three_of_ten_epochs():
    loop = StepsConfig(steps=100, rate=1e-4)
    assert [loop.rate_at(step) for step in (0, 29, 30, 60, 99)] == pytest.approx([1e-4, 1e-4, 2e-5, 4e-6, 8e-7])


def test_windows_of_other_volumes_or_voxels_are_refused(fitted):
    system, _, test, _ = fitted
    longer = replace(test.brain, brain=np.concatenate([test.brain.brain] * 2, 1))
    with pytest.raises(DataError, match="brain must have windows of 1 volumes, got 2"):
        system.reconstruct(longer)
    with pytest.raises(DataError, match=r"voxels must have as many entries as those of the training \(40\), got 30"):
        system.reconstruct(planted_sets(voxels=30)[1].brain)
    assert system.reconstruct(test.brain.take(np.arange(0))).clips.shape == (0, 2, 16, 16, 3)


def test_what_cannot_be_opened_is_one_sentence(tmp_path):
    with pytest.raises(FetchError, match="nobody/nothing must be a folder, or a hub network"):
        fit(tmp_path, perceptual="nobody/nothing")
    with pytest.raises(ConfigError, match=r"weights must be a readable file, got .*none\.pth"):
        fit(tmp_path, perceptual=str(tmp_path / "none.pth"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"external must be a folder with videos \(\*\.mp4\), got none"):
        fit(tmp_path, external=str(tmp_path / "empty"))
    with pytest.raises(DataError, match=r"external must be a folder with videos .* got no folder"):
        fit(tmp_path, external=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"frames of a clip must be 8 or fewer, 8 for each volume .* got 9"):
        fit(tmp_path, planted_sets(clips=16, frames=9)[0])
    with pytest.raises(ConfigError, match="mode is wrong: input should be 'strict' or 'transductive'"):
        EncoderDecoderConfig.build({"mode": "cheating"})


def test_a_video_shorter_than_a_clip_is_named(fitted, tmp_path):
    _, train, _, _ = fitted
    short = noisy_movie(1, name="blink")
    with pytest.raises(DataError, match=r"video blink must be as long as a clip \(2 s\), got 1 s"):
        EncoderDecoder(small()).fit(train, run=RunFolder(tmp_path), videos=[short])


@pytest.mark.heavy
def test_a_bar_is_read_from_v1_as_well_as_by_ridge_pixels(tmp_path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NeuroreelWarning)
            sets = make_sets(study("szinte2024").load(), RunConfig())
    except FetchError as error:
        pytest.skip(f"the recording szinte2024 is not here: {error}")
    clips = {}
    for kind in (EncoderDecoder, RidgePixels):
        system = kind().fit(sets.train, run=RunFolder(tmp_path / kind.name))
        clips[kind.name] = system.reconstruct(sets.test.brain).clips
    true = sets.test.truth.clips
    ours, theirs = (frame_correlation(clips[name], true).mean() for name in ("encoder-decoder", "ridge-pixels"))
    assert ours >= theirs > 0.6
    assert identify_pairwise(similarity_matrix(clips["encoder-decoder"], true)).mean() >= 0.97


def _recorded(run: RunFolder) -> dict:
    return json.loads((run.path / "cycles.json").read_text())
