import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.files import sha256
from neuroreel.generate.samplers import SAMPLERS, denoise, make_sampler, seeded_noise
from neuroreel.generate.world import FRAMES, SHIPPED, World, load_world
from neuroreel.simulate.sampling import sample_frames, still

CAPTIONS = ["a large red cat keeps still in the middle over a meadow", "a blue boat sails to the left over the sea"]


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "world"))


def test_frames_of_new_scenes_come_back_from_their_latents(world: World) -> None:
    shown = (("cat", "red", "sea"), ("car", "blue", "meadow"), ("house", "green", "street"), ("key", "pink", "night"))
    frames = np.stack([still(a, colour=b, background=c, object_size=0.4, look=77) for a, b, c in shown])
    latents = world.encode(frames)
    wrong = (world.decode(latents).astype(float) - frames) ** 2
    assert latents.shape == (4, 8, 16, 16)
    assert 0.5 < float(latents.std()) < 2
    assert np.mean(10 * np.log10(255**2 / wrong.mean((1, 2, 3)))) > 28


def test_pictures_depend_on_caption_seed_and_number_and_not_on_the_batch(world: World) -> None:
    pictures = world.images(CAPTIONS, steps=3)
    assert pictures.shape == (2, 64, 64, 3)
    assert pictures.dtype == np.uint8
    one_by_one = world.images(CAPTIONS, steps=3, batch=1)
    assert np.abs(pictures.astype(int) - one_by_one).max() <= 1
    assert np.abs(pictures.astype(int) - world.images(CAPTIONS[::-1], steps=3)).mean() > 1
    assert np.abs(pictures.astype(int) - world.images(CAPTIONS, steps=3, seed=1)).mean() > 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_ends_at_the_only_picture_that_there_is(sampler: str, world: World) -> None:
    truth = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    kept = make_sampler("ddim", world.noise).alphas_cumprod

    class Certain(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor) -> object:
            alpha, sigma = kept[int(t)].sqrt(), (1 - kept[int(t)]).sqrt()
            velocity = alpha * (x - alpha * truth) / sigma - sigma * truth
            return type("Output", (), {"sample": velocity})()

    tokens = torch.zeros(2, 1, 8)
    noise = seeded_noise(0, (1, 4, 4), range(2))
    found = denoise(Certain(), noise, tokens, tokens[:1], make_sampler(sampler, world.noise), steps=20)
    torch.testing.assert_close(found, truth.expand(2, 1, 4, 4), atol=0.05, rtol=0)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_pipeline_of_diffusers_opens_the_folder_and_draws_the_same_picture(world: World) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(SHIPPED, local_files_only=True).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    noise = seeded_noise(0, (8, 16, 16), [0])
    drawn = pipeline(CAPTIONS[:1], latents=noise, num_inference_steps=3, guidance_scale=3.0, output_type="np").images
    ours = world.images(CAPTIONS[:1], steps=3, guidance=3.0, within=(0.0, 1.0), sampler="ddim")
    assert np.abs(np.round(drawn * 255) - ours).max() <= 1


def test_captions_and_pictures_share_a_space(world: World) -> None:
    frames, truth = sample_frames(8, seed=5, categories=("cat", "car"), per_scene=1)
    texts, pictures = world.embed_text(list(truth["caption"])), world.embed_images(frames)
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(8))
    alike = pictures @ texts.T
    own = alike.diagonal().mean()
    assert own > (alike.sum() - alike.diagonal().sum()) / 56


def test_a_file_of_another_digest_is_named_with_its_part(copied: Path) -> None:
    file = copied / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"weights part vae must have the SHA-256 .*, got .*vae/diffusion"):
        load_world(copied)
    assert load_world(copied, parts=["unet"]).unet.config.sample_size == 16


def test_a_missing_part_is_named(copied: Path) -> None:
    (copied / "unet" / "config.json").unlink()
    with pytest.raises(DataError, match=r"weights part unet must have the file unet/config\.json, got none"):
        load_world(copied)
    with pytest.raises(ConfigError, match=r"weights part must be one of .*, got 'sound'"):
        load_world(copied, parts=["sound"])


def test_a_folder_without_a_card_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"world weights must be a folder with a card, got no card.json \(.*\)"):
        load_world(tmp_path)


def test_a_card_cannot_name_files_outside_its_folder(copied: Path) -> None:
    card = json.loads((copied / "card.json").read_text())
    card["parts"]["unet"]["files"] = {"../secret": "0" * 64}
    (copied / "card.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match="path must stay inside its folder"):
        load_world(copied)


def test_published_classes_take_the_place_of_the_small_ones(copied: Path) -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    blocks |= {"block_out_channels": (8, 8, 8), "latent_channels": 8}
    AutoencoderKL(norm_num_groups=4, **blocks).save_pretrained(copied / "vae")
    index = json.loads((copied / "model_index.json").read_text()) | {"vae": ["diffusers", "AutoencoderKL"]}
    (copied / "model_index.json").write_text(json.dumps(index))
    card = json.loads((copied / "card.json").read_text())
    card["parts"]["vae"]["files"] = {f"vae/{f.name}": sha256(f) for f in (copied / "vae").iterdir()}
    (copied / "card.json").write_text(json.dumps(card))
    world = load_world(copied)
    assert type(world.autoencoder).__name__ == "AutoencoderKL"
    assert world.images(CAPTIONS[:1], steps=1).shape == (1, 64, 64, 3)


def test_tokens_of_another_width_are_refused(world: World) -> None:
    tokens, sampler = torch.zeros(1, 24, 32), make_sampler("ddim", world.noise)
    with pytest.raises(ConfigError, match=r"token width must be that of the network \(128\), got 32"):
        denoise(world.unet, torch.zeros(1, 8, 16, 16), tokens, tokens, sampler)


def test_the_weights_are_small_enough_to_ship() -> None:
    total = sum(file.stat().st_size for file in SHIPPED.parent.rglob("*") if file.is_file())
    assert total < 20e6


def test_clips_move_and_stay_with_their_picture(world: World) -> None:
    clips = world.clips(CAPTIONS, steps=4).astype(float)
    assert clips.shape == (2, FRAMES, 64, 64, 3)
    between = np.abs(clips[0] - clips[1]).mean()
    assert 0 < np.abs(np.diff(clips, axis=1)).mean() < between / 2
