"""The contrastive stage against transformers' CLIP loss, and against what is planted."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from neuroreel.brain.contrastive import (
    ContrastiveConfig,
    ContrastiveNet,
    ContrastivePairs,
    Seen,
    check_captions,
    clip_loss,
    contrastive_loss,
    cropped,
    edited,
    embed_clips,
    found_among,
)
from neuroreel.brain.masked import MaskedBrain, MaskedConfig
from neuroreel.brain.stream import Moments
from neuroreel.brain.tokens import TokenEncoder, TokensConfig
from neuroreel.core.errors import DataError
from neuroreel.core.types import Space
from neuroreel.fit.loop import LoopConfig, train

SHAPE = {"patch": 4, "dim": 16, "depth": 1, "heads": 2, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
PLAIN = {"sparse": 0.0, "near": 0.0}


class Rotation:
    """Stands for CLIP: an embedding is a fixed random map of the pixels' means, or of the letters."""

    def __init__(self, dim=6):
        rng = torch.Generator().manual_seed(0)
        self.pixels, self.letters = torch.randn(12, dim, generator=rng), torch.randn(128, dim, generator=rng)
        self.asked = 0

    def embed_text(self, captions):
        self.asked += len(captions)
        return normalize(torch.stack([self.letters[[ord(c) for c in text]].mean(0) for text in captions]), dim=-1)

    def embed_images(self, frames):
        x = torch.from_numpy(frames.reshape(len(frames), 2, frames.shape[1] // 2, 2, -1, 3).mean((2, 4)))
        return normalize(x.flatten(1).float() @ self.pixels, dim=-1)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_encoder(trs=2, voxels=24, mixing="full"):
    brain = MaskedBrain(MaskedConfig(**SHAPE, trs=trs, order="flat"), seed=0)
    data = drawn(50, voxels).numpy()
    brain.move("01", Space("columns", voxels), Moments.of([data]))
    torch.manual_seed(0)
    return TokenEncoder(brain, "01", 4, 10, TokensConfig(mixing=mixing, rank=12, noise=0, hidden=0))


def test_the_loss_is_that_of_transformers():
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss as theirs

    brain, other, scale = normalize(drawn(9, 5)), normalize(drawn(9, 5, seed=1)), torch.tensor(2.6592).exp()
    torch.testing.assert_close(clip_loss(brain, other, scale).mean(), theirs(scale * other @ brain.T))


@pytest.mark.parametrize("against", ["text", "image", "both"])
def test_the_halves_of_the_loss_are_those_that_are_asked_for(against):
    text, image, brain = normalize(drawn(6, 5, seed=2)), normalize(drawn(6, 5, seed=3)), drawn(6, 2, 24)
    net = ContrastiveNet(make_encoder(), 5, ContrastiveConfig(against=against, **PLAIN)).eval()
    made, scale = net.embed(net.encoder(brain)), torch.tensor(2.6592).exp()
    sides = {"text": clip_loss(made, text, scale), "image": clip_loss(made, image, scale)}
    wanted = sides.get(against, (sides["text"] + sides["image"]) / 2)
    torch.testing.assert_close(net(brain, text, image), wanted)


def test_embeddings_are_computed_once_and_as_they_would_be_anew():
    clips = np.random.default_rng(0).integers(0, 256, (3, 2, 8, 8, 3)).astype(np.uint8)
    clip, captions = Rotation(), ["a dog runs", "a dog runs", ""]
    seen = embed_clips(clip, clips, captions, ContrastiveConfig(wordings=0, crops=1), seed=0)
    assert clip.asked == 1  # equal captions are read once
    assert seen.text.shape == (3, 1, 6) and seen.image.shape == (3, 3, 6)
    torch.testing.assert_close(seen.image[1, :2], clip.embed_images(clips[1]))
    torch.testing.assert_close(seen.text[1], clip.embed_text(["a dog runs"]))
    assert seen.text[2].isnan().all()


def test_what_was_planted_is_retrieved_and_shuffled_pairs_are_not():
    latent = drawn(160, 6)
    brain = torch.stack([latent @ drawn(6, 24, seed=1), latent @ drawn(6, 24, seed=2)], 1)
    brain = (brain + 0.5 * drawn(*brain.shape, seed=3)).numpy()
    text, image = (normalize(latent @ drawn(6, 8, seed=seed), dim=-1)[:, None] for seed in (4, 5))
    seen, blocks = Seen(text, image, 1), np.arange(160) // 2
    config = ContrastiveConfig(loop=LoopConfig(steps=120, batch=32, rate=3e-3, average=0, clip=1.0), near=0)
    net, some, rest = ContrastiveNet(make_encoder(), 8, config), np.arange(120), np.arange(120, 160)
    before = net.retrieval(brain[rest], seen.take(rest), blocks[rest])
    train(net, contrastive_loss, ContrastivePairs(brain[some], seen.take(some), blocks[some]), config.loop, cpu=True)
    after = net.retrieval(brain[rest], seen.take(rest), blocks[rest])
    wrong = net.retrieval(np.roll(brain[rest], 20, 0), seen.take(rest), blocks[rest])
    assert after["text_pairwise"] > 0.8 and after["image_pairwise"] > 0.8
    assert after["image_pairwise"] > before["image_pairwise"] + 0.15
    assert abs(wrong["text_pairwise"] - 0.5) < 0.15


def test_it_begins_where_the_wanted_tokens_already_lead():
    tokens = drawn(60, 4, 10)
    both = normalize(tokens.mean(1) @ drawn(10, 8, seed=1) + 0.3, dim=-1)
    net = ContrastiveNet(make_encoder(), 8, ContrastiveConfig())
    net.begin_with(tokens[:40], Seen(both[:40, None], both[:40, None], 1), penalty=1e-6)
    found = net.embed(tokens[40:]).detach()
    assert (found * both[40:]).sum(1).min() > 0.9
    assert found_among(found, both[40:], np.arange(20))["top1"] == 1.0


def test_no_batch_has_two_clips_of_a_scene():
    blocks = np.repeat(np.arange(12), 3)
    pairs = ContrastivePairs(
        np.zeros((36, 1, 1), np.float32), Seen(torch.zeros(36, 1, 1), torch.zeros(36, 1, 1), 1), blocks
    )
    batches = pairs.epoch(5, np.random.default_rng(0))
    assert len(batches) == 6
    assert all(len(np.unique(blocks[rows])) == 5 for rows in batches)
    assert len(pairs.epoch(20, np.random.default_rng(0))) == 1  # fewer scenes than that


def test_nearest_clips_are_counted_by_scene():
    eye = torch.eye(4)
    found = found_among(eye, eye[[1, 0, 2, 3]], np.array([0, 0, 1, 2]))
    assert found["top1"] == 1.0  # clips 0 and 1 are of one scene
    assert found["pairwise"] == pytest.approx((0.5 * 4 + 6) / 10)
    assert found["chance"] == pytest.approx(6 / 16)


def test_edited_captions_keep_their_words_or_their_synonyms():
    caption, synonyms = "a big dog runs on the street", (("big", "large"), ("street", "road"))
    found = {edited(caption, np.random.default_rng(seed), 0.3, synonyms) for seed in range(60)}
    allowed = {*caption.split(), "large", "road"}
    assert all(set(text.split()) <= allowed and 5 <= len(text.split()) <= 7 for text in found)
    assert any("large" in text for text in found) and any(len(text.split()) == 5 for text in found)
    assert any(sorted(text.split()) == sorted(caption.split()) and text != caption for text in found)
    assert edited(caption, np.random.default_rng(0), 0.0) == caption


def test_crops_are_parts_of_the_frame_in_its_size():
    ramp = np.tile(np.arange(16, dtype=np.uint8)[None, None, :, None] * 10, (20, 16, 1, 3))
    parts = cropped(ramp, 0.5, np.random.default_rng(0))
    assert parts.shape == ramp.shape
    width = parts[:, 0, -1, 0].astype(int) - parts[:, 0, 0, 0]
    assert (width >= 60).all() and (width < 150).any()
    np.testing.assert_array_equal(cropped(ramp, 1.0, np.random.default_rng(0)), ramp)


def test_sparse_voxels_are_at_their_mean_in_all_volumes():
    encoder, given = make_encoder(), []
    net = ContrastiveNet(encoder, 5, ContrastiveConfig(near=0, sparse=0.2)).train()
    encoder.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    torch.manual_seed(0)
    net(drawn(64, 2, 24), drawn(64, 5, seed=1), drawn(64, 5, seed=2))
    zero = given[0] == encoder.mean
    assert abs(float(zero.float().mean()) - 0.2) < 0.03
    assert (zero[:, 0] == zero[:, 1]).all() and len(zero[:, 0].unique(dim=0)) > 60


@pytest.mark.parametrize("trs", [1, 2, 3])
def test_tokens_of_all_volumes_are_mixed_to_those_of_the_generator(trs):
    encoder = make_encoder(trs, mixing="gelu")
    assert encoder.down.in_features == trs * 6
    made = encoder.up(encoder.down(encoder.encode(drawn(3, trs, 24)).transpose(1, 2)).transpose(1, 2))
    wanted = made + encoder.bend(torch.nn.functional.gelu(made))
    torch.testing.assert_close(encoder(drawn(3, trs, 24)), wanted)


def test_text_without_captions_is_refused():
    none = np.array(["", ""])
    with pytest.raises(DataError, match=r"captions of the training clips must be there .*, got none"):
        check_captions(none, ContrastiveConfig(against="text"))
    check_captions(none, ContrastiveConfig(against="image"))
