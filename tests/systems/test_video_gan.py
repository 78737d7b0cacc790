import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from neuroreel.brain.codes import CodesConfig
from neuroreel.brain.window import WindowDecoderConfig
from neuroreel.core.errors import ConfigError, DataError, NeuroreelWarning
from neuroreel.core.system import RunFolder
from neuroreel.core.training import TrainingLog
from neuroreel.fit.loop import LoopConfig
from neuroreel.generate.adversarial import AdversarialConfig, diversity_ratio
from neuroreel.metrics.identification import identify_pairwise, similarity_matrix
from neuroreel.systems.video_gan import Pairs, VideoGan, VideoGanConfig, collapse
from neuroreel.testing import check_system, planted_sets


def small(**more) -> VideoGanConfig:
    settings = {
        "codes": CodesConfig(pixels=16, seen=6, decoder=WindowDecoderConfig(keep=(0.75,), per_target=True)),
        "nets": AdversarialConfig(widths=(16, 8), noise=4, frame_widths=(8, 8), clip_widths=(8, 8)),
        "first": LoopConfig(steps=3, batch=8, precision="float32"),
        "training": LoopConfig(steps=4, batch=8, average=0.9, precision="float32", checkpoint_every=2),
        "looks": 2,
        "collapse": 0,
    }
    return VideoGanConfig(**settings | more)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("run"), seed=1)
    train, test = planted_sets(clips=40, frames=4)
    return VideoGan(small()).fit(train, run=run), train, test, run


def same(one: VideoGan, two: VideoGan) -> bool:
    states = one.generator_.state_dict(), two.generator_.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_it_keeps_the_protocol():
    check_system(VideoGan, small())


def test_it_keeps_the_protocol_as_published_but_for_its_size():
    published = VideoGanConfig.published()
    assert (published.condition, published.start, published.first, published.nets.temporal) == (
        "voxels",
        "random",
        None,
        True,
    )
    own = small().model_dump(include={"nets", "training", "looks", "collapse"})
    check_system(VideoGan, VideoGanConfig.build(published.model_dump() | own), learns=False)


def test_the_same_seed_makes_the_same_generator_and_another_one_another(fitted, tmp_path):
    system, train, *_ = fitted
    again, other = (VideoGan(small()).fit(train, run=RunFolder(tmp_path / str(seed), seed=seed)) for seed in (1, 2))
    assert same(system, again) and not same(system, other)


def test_a_fit_that_broke_off_ends_at_the_same_weights_and_the_same_log(fitted, tmp_path):
    system, train, _, run = fitted
    shutil.copytree(run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "training" / "step-00000004")
    again = VideoGan(small()).fit(train, run=RunFolder(tmp_path / "run", seed=1))
    assert same(system, again)
    assert (tmp_path / "run" / "training.json").read_text() == (run.path / "training.json").read_text()
    np.testing.assert_array_equal(system.log_.samples, again.log_.samples)


def test_a_fit_of_other_settings_does_not_go_on_from_these(fitted, tmp_path):
    _, train, _, run = fitted
    shutil.copytree(run.path, tmp_path / "run")
    for name, value, folder in (("pixel", 3.0, "training"), ("mirrored", 0.0, "first")):
        rule = rf"checkpoint must be of the same settings, got other {name} .*{folder}\)"
        with pytest.raises(DataError, match=rule):
            VideoGan(small(**{name: value})).fit(train, run=RunFolder(tmp_path / "run", seed=1))


def test_the_same_window_has_other_clips_from_other_noise_and_one_is_shown(fitted):
    system, _, test, _ = fitted
    few = test.brain.take(np.arange(3))
    drawn = system.samples(few, 2)
    assert drawn.shape == (3, 2, 4, 16, 16, 3)
    assert not np.array_equal(drawn[:, 0], drawn[:, 1])
    assert system.reconstruct(few).drawn == 1


def test_the_ceiling_is_nearer_to_the_truth_than_what_the_brain_told(fitted):
    system, _, test, _ = fitted
    made, best = system.reconstruct(test.brain).clips, system.ceiling(test.truth).clips
    wrong = [np.abs(clips.astype(int) - test.truth.clips).mean() for clips in (made, best)]
    assert wrong[1] < wrong[0]


def test_the_log_has_both_players_and_the_windows_that_were_held_out(fitted):
    system, train, _, run = fitted
    log = TrainingLog.load(run.path)
    assert log.steps.tolist() == [1, 2, 4] and log.samples.shape[:2] == (3, len(log.truth))
    assert set(log.curves) == {"judges", "generator", "pixels", "perceptual", "diversity"}
    held = train.hold_out(0.1)[1].samples.clips[:, 2]
    assert all((frame == held).all((1, 2, 3)).any() for frame in log.truth)
    assert log.final == system.log_.final and log.final["diversity"] > 0


def test_samples_that_are_all_the_same_are_a_collapse_and_diverse_ones_are_not(fitted):
    system, train, *_ = fitted
    clips = train.samples.clips
    real = system.see(clips)
    told = collapse(diversity_ratio(system.see(np.repeat(clips[:1], len(clips), 0)), real), 0.25)
    assert told == "diversity of the made clips must be 0.25 of the real ones' or more, or it has collapsed, got 0.000"
    assert collapse(diversity_ratio(system.see(clips[::-1]), real), 0.25) == ""


def test_a_collapse_is_a_warning_and_stands_in_the_run_folder(tmp_path):
    train, _ = planted_sets(clips=24)
    with pytest.warns(NeuroreelWarning, match=r"diversity of the made clips must be 50 .* or it has collapsed, got"):
        VideoGan(small(collapse=50.0)).fit(train, run=RunFolder(tmp_path))
    assert "it has collapsed" in json.loads((tmp_path / "training.json").read_text())["notes"][0]


def test_pairs_have_the_code_that_was_told_or_that_of_the_mirror_image_with_some_windows_error():
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 256, (5, 4, 8, 8, 3), dtype=np.uint8)
    told, errors = rng.normal(size=(2, 5, 3)), rng.normal(size=(5, 3))
    plain = Pairs(clips, told, errors, 4, 2, 0.0, 0.0, 1.0).read(np.arange(5), np.arange(5))
    np.testing.assert_allclose(plain["code"], told[0] + errors, rtol=1e-6)
    np.testing.assert_allclose(plain["clips"].movedim(2, -1) * 127.5 + 127.5, clips, atol=1e-3)
    other = Pairs(clips, told, errors, 4, 2, 1.0, 1.0, 1.0).read(np.arange(5), np.arange(5))
    np.testing.assert_allclose(other["clips"], plain["clips"].flip(-1))
    left = other["code"].numpy() - told[1]
    assert all(np.isclose(row, errors).all(1).any() for row in left) and not np.allclose(left, errors)
    assert plain["noise"].shape == (5, 2, 4) and plain["frames"].shape == (5, 2, 2)


def test_large_clips_are_made_smaller_and_enlarged_again(tmp_path):
    train, test = planted_sets(clips=24, frames=1, size=32)
    system = VideoGan(small(side=16)).fit(train, run=RunFolder(tmp_path))
    assert system.generator_.shape == (1, 16, 16) and system.makes == {"image"}
    assert system.reconstruct(test.brain).clips.shape == test.truth.clips.shape


def test_windows_without_clips_or_of_a_size_that_cannot_be_made_are_one_sentence(tmp_path):
    train, _ = planted_sets(clips=24, size=18)
    with pytest.raises(
        DataError, match="height and width of generated clips must be multiples of 2 and 8 or more, got 9"
    ):
        VideoGan(small(side=9)).fit(train, run=RunFolder(tmp_path / "odd"))
    object.__setattr__(train, "samples", replace(train.samples, clips=None))
    with pytest.raises(DataError, match="training samples of video-gan must have clips, got none"):
        VideoGan(small()).fit(train, run=RunFolder(tmp_path / "none"))


def test_a_network_that_is_none_is_named(tmp_path):
    train, _ = planted_sets(clips=24)
    with pytest.raises(ConfigError, match=r"weights must be a readable file, got '.*none\.safetensors'"):
        VideoGan(small(perceptual_network=str(tmp_path / "none.safetensors"))).fit(train, run=RunFolder(tmp_path))


def test_windows_of_other_voxels_are_refused(fitted):
    system, *_ = fitted
    other = planted_sets(clips=24, frames=4, voxels=30)[1].brain
    with pytest.raises(DataError, match=r"brain columns must have as many entries as the fit's voxels \(40\), got 30"):
        system.reconstruct(other)


@pytest.mark.heavy
def test_a_longer_training_finds_the_true_clip_among_others_and_stays_diverse(tmp_path):
    train, test = planted_sets(clips=240, frames=4, size=32)
    nets = AdversarialConfig(widths=(32, 16, 8), noise=4, frame_widths=(8, 16), clip_widths=(8, 16))
    loop = LoopConfig(steps=120, batch=8, rate=1e-3, average=0.95, precision="float32", weight_decay=0)
    system = VideoGan(small(nets=nets, first=loop, training=loop, collapse=0.25)).fit(train, run=RunFolder(tmp_path))
    made = system.reconstruct(test.brain).clips
    assert identify_pairwise(similarity_matrix(made, test.truth.clips)).mean() > 0.85
    pixels = system.log_.curves["pixels"].values
    assert system.log_.final["pixels"] < 0.3 and pixels[-1] < 1.2 * pixels[0]
