"""Generators and image-text models by name, against transformers' own answers."""

import numpy as np
import pytest
import torch
from tests.generate.small_generators import write_blip, write_clip, write_stable_diffusion

from neuroreel.core.errors import ConfigError, DataError, FetchError
from neuroreel.generate.named import open_generator, open_image_text


def frames(n=3, side=24):
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


def test_a_published_clip_embeds_as_transformers_does(tmp_path):
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    folder = write_clip(tmp_path / "clip")
    net, found = CLIPModel.from_pretrained(folder).eval(), open_image_text(str(folder))
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(list(frames()), return_tensors="pt")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    read = tokenizer(["a cab", "b"], padding="max_length", max_length=8, truncation=True, return_tensors="pt")
    with torch.no_grad():
        answer = net(pixel_values=pixels["pixel_values"], **read)
    torch.testing.assert_close(found.embed_images(frames()), answer.image_embeds)
    torch.testing.assert_close(found.embed_text(["a cab", "b"]), answer.text_embeds)


def test_the_worlds_clip_takes_frames_of_any_size():
    clip = open_image_text("world")
    seen, read = clip.embed_images(frames(2, 80)), clip.embed_text(["a red car"])
    assert seen.shape == (2, read.shape[1])
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(2))


def test_another_network_is_no_clip(tmp_path):
    with pytest.raises(ConfigError, match="clip must be a network of the type clip, got 'blip'"):
        open_image_text(str(write_blip(tmp_path / "blip")))
    with pytest.raises(FetchError, match=r"must have the file config\.json"):
        open_image_text(str(tmp_path))


def test_a_generator_opens_by_its_folder_and_codes_clips_of_any_size(tmp_path):
    made = open_generator(str(write_stable_diffusion(tmp_path / "sd")))
    clips = np.repeat(frames(2)[:, None], 3, 1)
    latents = made.encode_clips(clips)
    assert latents.shape == (2, 3, *made.latent_shape) == (2, 3, 4, 8, 8)
    assert made.decode_clips(latents.transpose(1, 2)).shape == (2, 3, 16, 16, 3)
    torch.testing.assert_close(latents[1, 0], latents[1, 2])
    assert made.motion is None


def test_a_generator_without_a_unet_is_refused(tmp_path):
    folder = write_stable_diffusion(tmp_path / "sd")
    index = (folder / "model_index.json").read_text().replace('"unet"', '"other"')
    (folder / "model_index.json").write_text(index)
    with pytest.raises(DataError, match="generator must have a U-Net, got "):
        open_generator(str(folder))
