"""The prior of captions: what was planted is read, and each source counts where it knows something."""

import numpy as np
import pytest
import torch
from tests.brain.test_contrastive import drawn, make_encoder

from neuroreel.brain.caption_prior import CaptionPrior, CaptionPriorConfig, recombined
from neuroreel.brain.contrastive import ContrastiveConfig, ContrastiveNet
from neuroreel.core.errors import ConfigError

ANIMALS, PLACES = ("cat", "cow", "dog"), ("forest", "street", "sea")
WAYS = {name: drawn(8, seed=number) for number, name in enumerate((*ANIMALS, *PLACES))}
CONFIG = ContrastiveConfig(near=0)


def embed(captions):
    """Stand for a CLIP that reads the place and hardly the animal."""
    found = [sum((0.05 if w in ANIMALS else 1.0) * WAYS[w] for w in text.split() if w in WAYS) for text in captions]
    return torch.nn.functional.normalize(torch.stack(found), dim=-1)


def planted(n=120, noise=0.5, seed=0):
    """Return windows (n, 2, 24) in whose voxels animal and place are planted, with captions and categories."""
    rng = np.random.default_rng(seed)
    animal, place = rng.integers(3, size=n), rng.integers(3, size=n)
    axes = np.random.default_rng(99).normal(size=(6, 2, 24))
    brain = axes[animal] + axes[3 + place] + noise * rng.normal(size=(n, 2, 24))
    category = np.array([ANIMALS[a] for a in animal])
    captions = [f"a {a} in the {PLACES[p]}" for a, p in zip(category, place, strict=True)]
    return brain.astype(np.float32), captions, category, np.arange(n) // 2


def reading_net(brain, captions):
    """Return a contrastive net whose embedding is the ridge regression from windows to those of the captions."""
    net = ContrastiveNet(make_encoder(), 8, CONFIG)
    encoder = net.encoder
    encoder.begin_with(brain, embed(captions)[:, None].repeat(1, 4, 2)[..., :10], np.arange(len(brain)) // 2)
    with torch.no_grad():
        net.pool.bias.zero_()
        net.project.weight.copy_(torch.eye(8, 10))
        net.project.bias.zero_()
    return net.eval()


@pytest.fixture(scope="module")
def prior():
    brain, captions, category, blocks = planted()
    net = reading_net(brain, captions)
    made = CaptionPrior.of(net, sorted(set(captions)), embed, CaptionPriorConfig(), brain, category, blocks)
    held, texts, *_ = planted(60, seed=1)
    return made, made.calibrate(held, texts, embed)


def test_recombined_captions_name_every_category_once():
    texts, members = recombined(["a dog runs", "a cat runs", "nobody"], ("cat", "dog", "hot dog"))
    assert texts == ["a cat runs", "a dog runs", "a hot dog runs", "nobody"]
    assert members.tolist() == [0, 1, 2, -1]
    assert recombined(["a hot dog lies"], ("dog", "hot dog"))[0] == ["a dog lies", "a hot dog lies"]
    assert recombined(["a dog runs"], ())[0] == ["a dog runs"]
    assert recombined(["a doghouse"], ("dog", "cat"))[1].tolist() == [-1]  # whole words only


def test_what_was_planted_is_read_and_noise_reads_as_nothing(prior):
    made, calibrated = prior
    brain, captions, *_ = planted(90, seed=2)
    read = made.read(brain)
    assert np.mean([a == b for a, b in zip(read, captions, strict=True)]) > 0.6  # chance is 1 in 9
    noise = np.random.default_rng(3).normal(size=(90, 2, 24)).astype(np.float32)
    wrong = np.mean([a == b for a, b in zip(made.read(noise), captions, strict=True)])
    assert wrong < 0.3
    assert calibrated["log_probability"] > calibrated["chance"] + 1


def test_the_regression_knows_the_categories_that_the_embeddings_hardly_tell(prior):
    made, calibrated = prior
    brain, _, category, _ = planted(90, seed=2)
    right = np.mean([name in text.split() for name, text in zip(category, made.read(brain), strict=True)])
    assert calibrated["weight"] > 0 and right > 0.7
    alone = CaptionPrior(made.net, made.texts, made.keys, made.members, None, scale=made.scale)
    without = np.mean([name in text.split() for name, text in zip(category, alone.read(brain), strict=True)])
    assert without < right - 0.1


def test_probabilities_are_calibrated_on_what_was_held_out(prior):
    made, _ = prior
    brain, captions, *_ = planted(200, seed=4)
    told = made.log_probabilities(brain).exp()
    torch.testing.assert_close(told.sum(1), torch.ones(200))
    right = [made.texts[row] == text for row, text in zip(told.argmax(1), captions, strict=True)]
    assert abs(float(told.max(1).values.mean()) - np.mean(right)) < 0.15


def test_a_prior_that_was_saved_reads_the_same(prior, tmp_path):
    made, brain = prior[0], planted(20, seed=5)[0]
    made.share = 0.5
    made.save(tmp_path)
    again = CaptionPrior.load(tmp_path, make_encoder(), CONFIG)
    assert again.read(brain) == made.read(brain) and again.share == 0.5
    torch.testing.assert_close(again.log_probabilities(brain), made.log_probabilities(brain))
    made.share = 0.0


def test_clips_without_categories_leave_the_embeddings(tmp_path):
    brain, captions, category, blocks = planted()
    net = reading_net(brain, captions)
    made = CaptionPrior.of(net, captions[:5], embed, CaptionPriorConfig(), brain, np.full_like(category, ""), blocks)
    assert made.reader is None and set(made.texts) == set(captions[:5])
    assert len(made.read(brain[:3])) == 3 and made.read(brain[:0]) == []


def test_captions_of_a_file_are_known_too(tmp_path):
    file = tmp_path / "captions.txt"
    file.write_text("a cow in the sea\n\n a dog in the street \n")
    assert CaptionPriorConfig(more=str(file)).captions(["a cat"]) == [
        "a cat",
        "a cow in the sea",
        "a dog in the street",
    ]
    with pytest.raises(ConfigError, match=r"more captions must be a text file .*, got none"):
        CaptionPriorConfig(more=str(tmp_path / "no.txt")).captions(["a cat"])
