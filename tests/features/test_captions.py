"""Captions by a tiny BLIP in the folder layout of the real one."""

import numpy as np
import pytest
import torch
from tests.generate.small_generators import write_blip, write_clip

from neuroreel.core.errors import ConfigError, FetchError
from neuroreel.features.captions import Captioner, joined, scenes_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_blip(tmp_path_factory.mktemp("captioner") / "blip")


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 24, 24, 3)).astype(np.uint8)


def test_it_says_what_transformers_says(folder):
    from transformers import BertTokenizer, BlipForConditionalGeneration, BlipImageProcessorPil

    frames = pictures(5)
    net = BlipForConditionalGeneration.from_pretrained(folder).eval()
    pixels = BlipImageProcessorPil.from_pretrained(folder)(list(frames), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        ids = net.generate(pixels, max_length=20)
    said = BertTokenizer.from_pretrained(folder).batch_decode(ids, skip_special_tokens=True)
    assert Captioner(str(folder)).captions(frames, batch=2) == [text.strip() for text in said]


def test_a_clip_with_a_cut_has_the_captions_of_both_scenes(folder):
    captioner, dark = Captioner(str(folder)), np.zeros((3, 24, 24, 3), np.uint8)
    bright = np.repeat(pictures(1) // 2 + 128, 3, 0)
    both, first = captioner.of_clips(np.stack([np.concatenate([dark, bright]), np.concatenate([dark, dark])]))
    one, two = captioner.captions(np.stack([dark[0], bright[0]]))
    assert first == one
    assert both == joined([one, two])


def test_scenes_end_where_the_colours_change():
    red, blue = (np.full((2, 8, 8, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))
    assert scenes_of(np.concatenate([red, blue, red])) == [(0, 2), (2, 4), (4, 6)]
    assert scenes_of(red) == [(0, 2)]
    moving = np.roll(np.repeat(pictures(1), 2, 0), 3, axis=2)
    assert scenes_of(moving) == [(0, 2)]


def test_what_is_said_twice_is_said_once():
    assert joined(["a dog runs", "a dog runs", "", "a car drives"]) == "a dog runs. Then a car drives"
    assert joined([]) == ""


def test_another_network_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="captioner must be a network of the type blip, got 'clip'"):
        Captioner(str(write_clip(tmp_path / "clip")))
    with pytest.raises(FetchError, match=r"must have the file config\.json"):
        Captioner(str(tmp_path))
