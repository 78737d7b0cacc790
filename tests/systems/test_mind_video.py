"""MinD-Video on small pipelines of the real layout: its stages, what they tune, and what they refuse."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.generate.small_generators import write_blip, write_clip, write_stable_diffusion
from tests.systems.test_encoder_decoder import drifting_sets

from neuroreel.brain.caption_prior import CaptionPriorConfig
from neuroreel.brain.contrastive import ContrastiveConfig
from neuroreel.brain.interpretation import stages_of
from neuroreel.brain.masked import MaskedConfig
from neuroreel.brain.tokens import TokensConfig
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.sets import Segment, Split, Window, resize
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Event, Recording
from neuroreel.fit.loop import LoopConfig
from neuroreel.generate.inflate import inflate
from neuroreel.generate.latent import LatentGenerator
from neuroreel.generate.samplers import denoise, make_sampler, window_noise
from neuroreel.metrics.motion import direction_accuracy, flow
from neuroreel.nets.weights import read_state
from neuroreel.systems.low_level import PictureConfig
from neuroreel.systems.mind_video import MOVEMENT, MindVideo, MindVideoConfig, scenes_shown
from neuroreel.systems.movement import MovementConfig
from neuroreel.testing import check_system, planted_sets

SHAPE = {"patch": 4, "dim": 16, "depth": 1, "heads": 2, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
QUICK = LoopConfig(steps=2, batch=8, average=0.9)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("parts")
    made = {"generator": write_stable_diffusion(root / "sd"), "clip": write_clip(root / "clip")}
    return {name: str(folder) for name, folder in made.items()}


def small(parts, **more) -> MindVideoConfig:
    settings = parts | {
        "masked": MaskedConfig(**SHAPE),
        "pretraining": QUICK,
        "tokens": TokensConfig(rank=16),
        "contrastive": ContrastiveConfig(loop=QUICK, wordings=1),
        "prior": CaptionPriorConfig(shares=(0.0, 0.5, 1.0)),
        "telling": QUICK,
        "tuning": QUICK,
        "guidance": None,
        "guidances": (1.0, 3.0),
        "tried": 3,
        "steps": 2,
        "batch": 8,
    }
    return MindVideoConfig(**settings | more)


def without_captions(train):
    silent = replace(train.samples, caption=np.full(len(train.samples), ""))
    changed = train.take(np.arange(len(train.samples)))
    object.__setattr__(changed, "samples", silent)
    return changed


@pytest.fixture(scope="module")
def fitted(parts, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("run"), seed=1)
    train, test = planted_sets()
    return MindVideo(small(parts)).fit(train, run=run), train, test, run


def test_it_keeps_the_protocol_on_a_pipeline_of_the_real_layout(parts):
    check_system(MindVideo, small(parts), learns=False)  # a random generator shows nothing, whatever it is told


def test_every_stage_is_recorded(fitted):
    system, *_, run = fitted
    told = {name: (run.path / f"{name}.json").read_text() for name in ("masked", "contrastive", "video")}
    assert "losses" in told["masked"] and "validation_of_average" in told["video"]
    assert {"text_top1", "text_pairwise", "image_top1", "image_pairwise"} <= {
        word.strip('"') for word in told["contrastive"].replace(":", " ").split()
    }
    assert list(stages_of(system, run.path)) == ["masked modelling", "contrastive learning", "fitted"]
    assert f'"guidance": {system.guidance_}' in told["video"] and system.guidance_ in (1.0, 3.0)


def test_the_captions_have_their_share_in_the_tokens(fitted):
    system, _, test, run = fitted
    prior, brain = system.prior_, test.brain.brain[:3]
    assert prior is not None and prior.reader is not None
    told = json.loads((run.path / "video.json").read_text())
    assert [row["share_of_captions"] for row in told["guidances"][:3]] == [0.0, 0.5, 1.0]
    chosen, own, said = prior.share, system.encoder_.tokens(brain), system.generator_.tokens(prior.read(brain))
    try:
        for share in (0.0, 0.5, 1.0):
            prior.share = share
            torch.testing.assert_close(system.tokens(brain), (1 - share) * own + share * said)
    finally:
        prior.share = chosen


def test_only_the_named_layers_are_tuned(parts, fitted):
    unet = LatentGenerator(parts["generator"]).unet
    before, after = inflate(unet, 2, seed=1).state_dict(), fitted[0].unet_.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    named = {name for name in before if ".attn2." in name or ".attn1.to_q" in name or ".temporal." in name}
    assert changed and changed <= named
    assert all(any(part in name for name in changed) for part in ("attn1.to_q", "attn2.to_k", "temporal.mix.out"))
    assert all(
        torch.equal(value, unet.state_dict()[name]) for name, value in fitted[0].generator_.unet.state_dict().items()
    )


def test_a_fit_that_broke_off_ends_at_the_same_weights(parts, fitted, tmp_path):
    system, train, _, run = fitted
    shutil.copytree(run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "tuning")
    again = MindVideo(small(parts)).fit(train, run=RunFolder(tmp_path / "run", seed=1))
    for one, two in ((system.encoder_, again.encoder_), (system.unet_, again.unet_)):
        for (name, first), second in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
            assert torch.equal(first, second), name
    assert torch.equal(system.null_, again.null_) and system.guidance_ == again.guidance_


def test_the_null_is_what_the_encoder_makes_of_the_mean_training_window(parts, fitted, tmp_path):
    system, train, test, _ = fitted
    mean = train.samples.brain.mean(0, keepdims=True)
    torch.testing.assert_close(system.null_, system.encoder_.tokens(mean))
    test.truth.brain[:] += 10.0  # whatever the test brains are
    assert torch.equal(MindVideo(small(parts)).fit(train, run=RunFolder(tmp_path, seed=1)).null_, system.null_)


@pytest.mark.parametrize("null", ["zero", "silent"])
def test_other_nulls_are_zeros_and_the_empty_caption(null, parts, tmp_path):
    settings = {"null": null, "pretraining": None, "telling": None, "guidance": 2.0}
    settings["contrastive"] = ContrastiveConfig(against="none")
    system = MindVideo(small(parts, **settings)).fit(planted_sets(clips=16)[0], run=RunFolder(tmp_path))
    wanted = system.generator_.silent * (null == "silent")
    assert torch.equal(system.null_, wanted)


def test_cached_latents_and_embeddings_are_those_computed_anew(fitted):
    system, train, _, run = fitted
    samples = train.hold_out(system.config.validation)[0].samples
    kept = read_state(run.path / "cache" / "latents-train.safetensors")["latents"]
    one = LatentGenerator(system.config.generator).encode_clips(samples.clips[5:6])
    torch.testing.assert_close(kept[5:6], one)
    from neuroreel.generate.named import open_image_text

    clip = open_image_text(system.config.clip)
    seen = read_state(run.path / "cache" / "clip-train.safetensors")
    torch.testing.assert_close(seen["image"][5, :2], clip.embed_images(samples.clips[5]))
    torch.testing.assert_close(seen["text"][5, :1], clip.embed_text([samples.caption[5]]))


def test_a_clip_does_not_depend_on_those_beside_it(fitted):
    system, _, test, _ = fitted
    every = system.reconstruct(test.brain).clips
    few = system.reconstruct(test.brain.take(np.array([7, 3]))).clips
    assert np.abs(few.astype(int) - every[[7, 3]]).max() <= 2
    assert system.reconstruct(test.brain.take(np.arange(0))).clips.shape == (0, *every.shape[1:])


def test_guidance_is_left_out_where_it_is_said_to_be(fitted):
    system, _, test, _ = fitted
    few, config, scale = test.brain.take(np.arange(3)), system.config, system.guidance_
    system.guidance_ = 5.0
    system.config = config.model_copy(update={"within": (0.99999, 1.0)})
    without = system.reconstruct(few).clips
    system.config, system.guidance_ = config, 1.0
    assert np.array_equal(without, system.reconstruct(few).clips)
    system.guidance_ = 5.0
    assert not np.array_equal(without, system.reconstruct(few).clips)
    system.guidance_ = scale


ABLATIONS = {
    "text": {"contrastive": ContrastiveConfig(loop=QUICK, against="text")},
    "image": {"contrastive": ContrastiveConfig(loop=QUICK, against="image")},
    "none": {"contrastive": ContrastiveConfig(against="none")},
    "no prior": {"prior": None},
    "no masked modelling": {"pretraining": None},
    "motion modules": {"inflation": "motion"},
    "self-attention": {"inflation": "self"},
    "published mixing": {"start": "random", "near": 0, "tokens": TokensConfig(mixing="gelu")},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_runs(name, parts, tmp_path):
    train, test = planted_sets(clips=16)
    config = small(parts, **{"guidance": 2.0, "telling": None} | ABLATIONS[name])
    system = MindVideo(config).fit(train, run=RunFolder(tmp_path / "run"))
    assert (tmp_path / "run" / "masked.json").is_file() == (name != "no masked modelling")
    assert (tmp_path / "run" / "contrastive.json").is_file() == (name != "none")
    system.save(tmp_path / "saved")
    few = test.brain.take(np.arange(2))
    again = MindVideo.load(tmp_path / "saved").reconstruct(few).clips
    assert np.abs(again.astype(int) - system.reconstruct(few).clips).max() <= 1


def test_without_inflation_every_frame_is_that_of_the_network_of_pictures(parts, tmp_path):
    train, test = planted_sets(clips=16)
    config = small(parts, inflation="none", telling=None, guidance=2.0, precision="float32", shared=0.0)
    system = MindVideo(config).fit(train, run=RunFolder(tmp_path))
    few, unet = test.brain.take(np.arange(2)), system.unet_.unet  # a network of pictures, tuned
    noise = window_noise(few, (4, 2, 8, 8), system.seed_)
    sampler = make_sampler(config.sampler, system.generator_.noise)
    tokens = system.tokens(few.brain)
    latents = denoise(unet, noise[:, :, 1], tokens, system.null_, sampler, steps=2, guidance=2.0)
    frames = system.generator_.decode(latents)
    assert np.abs(frames.astype(int) - system.reconstruct(few).clips[:, 1]).max() <= 1


def test_layers_over_time_beside_the_generator_are_begun_with(parts, tmp_path):
    copied = Path(shutil.copytree(parts["generator"], tmp_path / "sd"))
    made = inflate(LatentGenerator(copied).unet, 2)
    made.trainable()
    for name, value in made.named_parameters():
        if ".temporal.mix.out" in name:
            torch.nn.init.constant_(value, 0.01)
    made.save(copied / "motion" / "weights.safetensors")
    for wanted, frames, motion in ((0.01, 2, "own"), (0.0, 2, "new"), (0.0, 3, "own")):
        system = MindVideo(small(parts | {"generator": str(copied)}, motion=motion))
        system.generator_, system.shape_, system.seed_ = LatentGenerator(copied), (frames, 16, 16, 3), 0
        unet, _ = system._inflate()
        found = [value for name, value in unet.named_parameters() if name.endswith("temporal.mix.out.bias")]
        assert found and all((value == wanted).all() for value in found)


def scenes(crossing):
    """A training set of two scenes of 3 s in clips of 2 s: the second clip of each pair crosses."""
    train, _ = planted_sets(clips=24)
    run = train.runs[0]
    events = tuple(Event(at, 3.0, "circle", f"scene {at:g}") for at in np.arange(0.0, 48.0, 3.0))
    runs = tuple(replace(run, events=events, bold=replace(run.bold, run=name), stimulus=name) for name in ("a", "b"))
    split = Split(name="s", reason="two runs", train=(Segment(run="a"),), test=(Segment(run="b"),))
    return split.cut(Recording("planted", "01", runs)).sets(Window(clip_s=2.0, frames=2, blocks="time"))[0]


def test_captions_of_clips_that_cross_a_scene_are_joined_left_out_or_refused(parts, tmp_path):
    train = scenes("then")
    shown = scenes_shown(train.samples, train.runs)
    assert shown[:3] == [["scene 0"], ["scene 0", "scene 3"], ["scene 3"]]
    system, run = MindVideo(small(parts, crossing="then")), RunFolder(tmp_path)
    assert list(system._captioned(train.samples, train.runs, run).caption[:2]) == ["scene 0", "scene 0. Then scene 3"]
    system = MindVideo(small(parts))
    kept = system._within_scenes(train.samples, train.runs)
    assert len(kept) == sum(len(scene) == 1 for scene in shown) < len(train.samples)
    with pytest.raises(DataError, match=r"training clips must lie within one scene .*, got \d+ of \d+ that cross one"):
        MindVideo(small(parts, crossing="refuse")).fit(train, run=run)


def test_a_clip_that_leaves_its_run_is_refused(fitted):
    train = fitted[1]
    late = replace(train.samples, onset_s=train.samples.onset_s + 1000)
    with pytest.raises(DataError, match=r"clip of run train must lie inside the run, got 1000 to 1002 s"):
        scenes_shown(late, train.runs)


def test_captions_that_are_missing_are_refused_or_written_by_a_captioner(parts, tmp_path):
    train = without_captions(planted_sets(clips=16)[0])
    with pytest.raises(DataError, match=r"captions of the training clips must be there to be held to text .*none"):
        MindVideo(small(parts)).fit(train, run=RunFolder(tmp_path / "a"))
    image = small(parts, contrastive=ContrastiveConfig(loop=QUICK, against="image"))
    with pytest.raises(DataError, match=r"captions of the training clips must be there to tune the generator on them"):
        MindVideo(image).fit(train, run=RunFolder(tmp_path / "b"))
    written = small(parts, captions=str(write_blip(tmp_path / "blip")), guidance=2.0)
    MindVideo(written).fit(train, run=RunFolder(tmp_path / "c"))
    assert len(list((tmp_path / "c" / "captions").glob("*.json"))) == 2  # the training and the held-out clips


def test_a_generator_that_reads_no_text_cannot_be_tuned_on_it(parts, tmp_path):
    copied = Path(shutil.copytree(parts["generator"], tmp_path / "sd"))
    index = (copied / "model_index.json").read_text().replace('"transformers",\n    "CLIPTextModel"', "null,\n    null")
    (copied / "model_index.json").write_text(index)
    train, silent = planted_sets(clips=16)[0], parts | {"generator": str(copied)}
    with pytest.raises(ConfigError, match=r"generator must have a text encoder to be tuned on captions"):
        MindVideo(small(silent)).fit(train, run=RunFolder(tmp_path / "run"))


def test_more_frames_than_motion_modules_take_are_refused(parts, tmp_path):
    from diffusers import MotionAdapter

    shape = {"block_out_channels": (8, 16), "motion_layers_per_block": 1, "motion_norm_num_groups": 4}
    adapter = MotionAdapter(**shape, motion_num_attention_heads=2, motion_max_seq_length=1)
    adapter.save_pretrained(tmp_path / "motion", safe_serialization=True)
    config = small(parts, inflation="motion", motion=str(tmp_path / "motion"))
    with pytest.raises(ConfigError, match=r"frames must be no more than the motion modules can take \(1\), got 2"):
        MindVideo(config).fit(planted_sets(clips=16)[0], run=RunFolder(tmp_path / "run"))
    with pytest.raises(ConfigError, match="motion must be a folder or hub name of a MotionAdapter"):
        MindVideo(small(parts, inflation="motion", motion=str(tmp_path))).fit(
            planted_sets(clips=16)[0], run=RunFolder(tmp_path / "run")
        )


def test_a_window_longer_than_the_run_is_refused(fitted):
    train = fitted[1]
    with pytest.raises(DataError, match="runs must hold a clip whose window fits, in one run or more, got none in"):
        train.split.cut(Recording("planted", "01", (*train.runs, *fitted[2].runs))).sets(Window(trs=100))


def test_weights_of_another_generator_are_refused(fitted, tmp_path):
    fitted[0].save(tmp_path / "saved")
    wide = write_stable_diffusion(tmp_path / "wide", width=32)
    config = MindVideoConfig.load(tmp_path / "saved" / "config.json").model_copy(update={"generator": str(wide)})
    config.save(tmp_path / "saved" / "config.json")
    with pytest.raises(DataError, match="fingerprint of the weights must be that of the network"):
        MindVideo.load(tmp_path / "saved")


def test_the_published_settings_are_those_of_the_paper():
    config = MindVideoConfig.published()
    assert (config.guidance, config.steps, config.null) == (12.5, 200, "adversarial")
    assert (config.contrastive.scale, config.contrastive.sparse, config.contrastive.against) == (2.6592, 0.2, "both")
    assert (config.masked.depth, config.masked.dim, config.masked.trs) == (24, 1024, 2)
    assert config.clip == "openai/clip-vit-large-patch14" and config.near == config.contrastive.near == 0


@pytest.mark.parametrize("movement", [MovementConfig(), MOVEMENT])
def test_clips_are_carried_along_the_movement_that_was_read(parts, tmp_path, movement):
    train, test = drifting_sets()
    contrastive = ContrastiveConfig(loop=QUICK, against="image")
    config = small(parts, contrastive=contrastive, telling=None, guidance=2.0, tried=8, crossing="first")
    config = config.model_copy(update={"movement": movement})
    system = MindVideo(config).fit(train, run=RunFolder(tmp_path / "run", seed=1))
    told = json.loads((tmp_path / "run" / "video.json").read_text())["movement"]
    assert told["carried"] and told["right_directions"][str(told["quiet"])] > told["right_directions"]["own frames"]
    assert movement.aim == "direction" or told["flow_errors"][str(told["quiet"])] < 1
    made, true = system.reconstruct(test.brain).clips, flow(test.truth.clips)
    assert np.nanmean(direction_accuracy(flow(made), true)) > 0.5
    system.save(tmp_path / "saved")
    again = MindVideo.load(tmp_path / "saved").reconstruct(test.brain).clips
    assert np.abs(again.astype(int) - made).max() <= 1
    still = MindVideo(config.model_copy(update={"movement": None}))
    assert still.fit(train, run=RunFolder(tmp_path / "still", seed=1)).movement_ is None
    assert np.nanmean(direction_accuracy(flow(still.reconstruct(test.brain).clips), true)) < 0.4


def test_the_picture_that_was_read_has_its_share(parts, tmp_path):
    train, test = planted_sets(clips=100, noise=0.1)
    system = MindVideo(small(parts, picture=PictureConfig(share=0.5), movement=None)).fit(
        train, run=RunFolder(tmp_path, seed=1)
    )
    assert system.picture_ is not None
    read = system.picture_.latents(test.brain.brain)
    true = system.generator_.encode_clips(test.truth.clips).mean(1)
    mean = system.generator_.encode_clips(train.samples.clips).mean((0, 1))
    assert float((read - true).square().mean()) < 0.8 * float((mean - true).square().mean())
    mixed = system.reconstruct(test.brain).clips.astype(float)
    system.save(tmp_path / "saved")
    again = MindVideo.load(tmp_path / "saved")
    assert np.abs(again.reconstruct(test.brain).clips - mixed).max() <= 1
    again.picture_ = None
    own = again.reconstruct(test.brain).clips.astype(float)
    seen = resize(system.generator_.decode(read), *own.shape[2:4])[:, None]
    assert np.abs(mixed - (own + seen) / 2).max() <= 1.5


def test_the_scale_of_the_guidance_is_swept_where_none_is_given(fitted):
    system, *_, run = fitted
    told = json.loads((run.path / "video.json").read_text())
    rows = [row for row in told["guidances"] if row["share_of_captions"] == told["share_of_captions"]]
    best = max(rows, key=lambda row: row["similarity"])
    assert {row["guidance"] for row in rows} == {1.0, 3.0} and system.guidance_ == best["guidance"]
