import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tests.datasets.bdata_files import trials, write_hdf5
from tests.generate.small_generators import write_stable_diffusion

from neuroreel.brain.masked import MaskedConfig
from neuroreel.brain.tokens import TokensConfig
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.store import write_store
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Dataset, Recording
from neuroreel.datasets.prepare import find_study
from neuroreel.fit.loop import LoopConfig
from neuroreel.generate.latent import LatentGenerator
from neuroreel.systems.mind_vis import MindVis, MindVisConfig
from neuroreel.testing import check_system, planted_sets


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_stable_diffusion(tmp_path_factory.mktemp("generator") / "sd")


def small(folder: Path, **more) -> MindVisConfig:
    settings = {
        "generator": str(folder),
        "masked": MaskedConfig(patch=4, dim=16, depth=1, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2),
        "pretraining": LoopConfig(steps=3, batch=16, average=0.9),
        "tokens": TokensConfig(rank=16),
        "tuning": LoopConfig(steps=4, batch=8, average=0.9),
        "steps": 2,
        "batch": 8,
    }
    return MindVisConfig(**settings | more)


@pytest.fixture(scope="module")
def fitted(folder, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("run"), seed=1)
    train, test = planted_sets()
    return MindVis(small(folder)).fit(train, run=run), train, test, run


def test_it_keeps_the_protocol_on_a_pipeline_of_the_real_layout(folder):
    check_system(MindVis, small(folder), learns=False)  # a random generator shows nothing, whatever it is told


def test_tokens_of_unseen_windows_tell_stripes_from_what_is_round(folder, tmp_path):
    train, test = planted_sets(clips=200, noise=0.1)
    system = MindVis(small(folder)).fit(train, run=RunFolder(tmp_path))
    made = system.net_.encoder.tokens(test.truth.brain).flatten(1)
    wanted = system.generator_.tokens([str(text) for text in test.truth.caption]).flatten(1)
    apart = torch.cdist(made, wanted)
    stripe = test.truth.category == "stripe"
    other = torch.from_numpy(stripe[:, None] != stripe[None])
    assert float((apart.diagonal()[:, None] < apart)[other].float().mean()) > 0.8


def test_only_what_is_named_is_tuned(folder, fitted):
    from diffusers import UNet2DConditionModel

    system = fitted[0]
    before = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").state_dict()
    after = system.net_.unet.unet.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    named = {name for name in before if {"attn2", "norm2", "time_embedding"} & set(name.split("."))}
    assert changed and changed <= named
    assert all(any(part in name for name in changed) for part in ("attn2.to_k", "norm2", "time_embedding"))


def test_a_fit_that_broke_off_ends_at_the_same_weights(folder, fitted, tmp_path):
    system, train, _, run = fitted
    shutil.copytree(run.path, tmp_path / "run")
    again = MindVis(small(folder)).fit(train, run=RunFolder(tmp_path / "run", seed=1))
    for (name, one), two in zip(system.net_.state_dict().items(), again.net_.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def test_every_fit_of_a_store_finds_the_latents_of_the_first(folder, fitted, tmp_path, monkeypatch):
    system, train, _, _ = fitted
    recording = Recording("planted", "01", train.runs)
    store = write_store(tmp_path / "data.zarr", Dataset("planted", (recording,), train.window))
    encode, asked = LatentGenerator.encode_clips, []

    def counted(generator, clips):
        asked.append(len(clips))
        return encode(generator, clips)

    monkeypatch.setattr(LatentGenerator, "encode_clips", counted)
    for seed in (1, 2):
        again = MindVis(small(folder)).fit(train, run=RunFolder(tmp_path / str(seed), seed=seed, store=store))
        assert len(asked) == 2  # of the training clips and of those held out of them, by the first fit
        same = [torch.equal(a, b) for a, b in zip(system.net_.parameters(), again.net_.parameters(), strict=True)]
        assert all(same) is (seed == 1)


def test_the_same_window_has_other_pictures_from_other_noise(fitted):
    system, _, test, _ = fitted
    few = test.brain.take(np.arange(3))
    drawn = system.samples(few, 2)
    assert drawn.shape == (3, 2, 16, 16, 3)
    assert not np.array_equal(drawn[:, 0], drawn[:, 1])
    assert system.reconstruct(few).drawn == 1


def test_guidance_is_left_out_where_it_is_said_to_be(fitted):
    system, _, test, _ = fitted
    few = test.brain.take(np.arange(3))

    def drawn(**settings):
        system.config, before = system.config.model_copy(update=settings), system.config
        made = system.reconstruct(few).clips
        system.config = before
        return made

    assert np.array_equal(drawn(guidance=3.0, within=(0.99999, 1.0)), drawn(guidance=1.0))
    assert not np.array_equal(drawn(guidance=3.0, within=(0.0, 1.0)), drawn(guidance=1.0))


def test_an_interval_of_guidance_that_falls_is_refused_before_any_fit():
    with pytest.raises(ConfigError, match=r"^within must be two shares that rise, got \(0.8, 0.2\)$"):
        MindVisConfig.build({"within": (0.8, 0.2)})


def test_pictures_without_captions_begin_at_random(folder, tmp_path):
    from dataclasses import replace

    train, test = planted_sets()
    silent = replace(train.samples, caption=np.full(len(train.samples), ""))
    object.__setattr__(train, "samples", silent)
    system = MindVis(small(folder)).fit(train, run=RunFolder(tmp_path))
    assert system.reconstruct(test.brain).clips.shape == test.truth.clips.shape
    assert system.ceiling(replace(test.truth, caption=np.full(len(test.truth), ""))).clips.shape[0] == len(test.truth)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_every_kind_of_prediction_is_tuned(prediction, tmp_path):
    made = write_stable_diffusion(tmp_path / "sd", prediction=prediction)
    train, _ = planted_sets(clips=16)
    system = MindVis(small(made)).fit(train, run=RunFolder(tmp_path / "run"))
    assert system.net_.noising.kind == prediction


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler"])
def test_a_missing_part_of_the_generator_is_named(part, folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "sd"))
    shutil.rmtree(copied / part)
    with pytest.raises(DataError, match=f"generator part {part} must be in the folder of the generator"):
        MindVis(small(copied)).fit(planted_sets(clips=16)[0], run=RunFolder(tmp_path / "run"))


def test_corrupt_weights_of_the_generator_are_named(folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "sd"))
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"generator part unet must be whole.*sd\)"):
        MindVis(small(copied)).fit(planted_sets(clips=16)[0], run=RunFolder(tmp_path / "run"))


def test_no_generator_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"generator must be a folder with a model_index\.json or a model's name"):
        MindVis(small(tmp_path)).fit(planted_sets(clips=16)[0], run=RunFolder(tmp_path / "run"))


def test_pretrained_weights_of_other_voxels_name_both_spaces(folder, fitted, tmp_path):
    system, *_ = fitted
    system.brain_.save(tmp_path / "encoder")
    other = planted_sets(voxels=30)[0]
    with pytest.raises(DataError, match=r"voxels of sub-01 must be those of the weights \(.*40.*got .*30"):
        MindVis(small(folder, pretrained=str(tmp_path / "encoder"))).fit(other, run=RunFolder(tmp_path / "run"))


def test_weights_of_another_generator_are_refused(fitted, tmp_path):
    fitted[0].save(tmp_path / "saved")
    wide = write_stable_diffusion(tmp_path / "wide", width=32)
    config = MindVisConfig.load(tmp_path / "saved" / "config.json").model_copy(update={"generator": str(wide)})
    config.save(tmp_path / "saved" / "config.json")
    with pytest.raises(DataError, match="must be those of the generator that the config names"):
        MindVis.load(tmp_path / "saved")


def test_pictures_are_read_from_a_subject_as_it_is_published(folder, tmp_path):
    train, test = ([1443537 + k + 0.000048 for k in some] for some in (range(16), range(16, 20)))
    (tmp_path / "images").mkdir()
    for k, label in enumerate([*train, *test]):
        picture = np.full((16, 16, 3), 12 * k, np.uint8)
        assert cv2.imwrite(str(tmp_path / "images" / f"n{int(label):08d}_48.png"), picture)
    file = write_hdf5(tmp_path / "Subject1.h5", *trials(train=train, test=test))
    study = find_study(file, [f"images={tmp_path / 'images'}", "image_size=16"])
    sets = study.splits["published"].cut(study.load().recording()).sets(study.window)
    system = MindVis(small(folder)).fit(sets[0], run=RunFolder(tmp_path / "run", seed=1))
    made = system.reconstruct(sets[1].brain)
    assert system.makes == {"image"} and made.drawn == 1
    assert made.clips.shape == (4, 1, 16, 16, 3) and len(sets[0].samples) == 16
    tuned = json.loads((tmp_path / "run" / "tuning.json").read_text())
    assert tuned["ridge_r2"] is None and np.isfinite(tuned["validation_of_average"])  # no captions to begin with
