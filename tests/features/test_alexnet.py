from pathlib import Path

import numpy as np
import pytest
import torch

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.files import sha256
from neuroreel.features.alexnet import AlexNetExtractor, AlexNetFeaturesConfig
from neuroreel.generate.deconvolution import deconvolve_units
from neuroreel.nets.alexnet import AlexNet, AlexNetConfig
from neuroreel.nets.weights import write_state
from neuroreel.nets.world import ALEXNET, alexnet_card, load_alexnet
from neuroreel.simulate.sampling import sample_frames


def test_the_shipped_weights_are_those_of_their_card_and_small() -> None:
    card, file = alexnet_card(), ALEXNET / "weights.safetensors"
    assert sha256(file) == card["sha256"]
    assert file.stat().st_size == card["bytes"] < 4e6


def test_the_shipped_network_names_new_frames_far_above_chance() -> None:
    classes = alexnet_card()["classes"]
    frames, truth = sample_frames(160, size=64, seed=99, per_scene=1)
    found = AlexNetExtractor(AlexNetFeaturesConfig(layers=("prob",))).extract(frames, 1.0)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-4)
    right = np.array(classes)[found.argmax(1)] == truth["category"]
    assert right.mean() > 8 / len(classes)


def test_the_card_says_how_well_held_out_frames_were_named() -> None:
    held_out = alexnet_card()["held_out"]
    assert held_out["top5"] > held_out["top1"] > 10 * held_out["chance_top1"]


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "conv5"])
def test_the_shipped_network_shows_a_frame_from_its_own_activations(layer: str) -> None:
    frames, _ = sample_frames(12, size=64, seed=98, per_scene=1)
    seen = deconvolve_units(load_alexnet(), frames, layer)
    both = np.corrcoef(seen.reshape(12, -1), frames.reshape(12, -1).astype(float))[:12, 12:]
    own, other = np.diag(both), both[~np.eye(12, dtype=bool)]
    assert own.mean() > other.mean() + 4 * other.std()
    assert (both.argmax(1) == np.arange(12)).all()


def test_layers_before_and_after_the_relu_are_features(tmp_path: Path) -> None:
    net = {"layout": "torchvision", "size": 96, "width": 0.2, "hidden": 20, "n_classes": 4}
    model = AlexNet.seeded(AlexNetConfig.build(net), 5)
    digest = write_state(tmp_path / "net.safetensors", model)
    layers = ("conv2:pre", "conv2", "pool5", "fc6")
    config = AlexNetFeaturesConfig(weights=str(tmp_path / "net.safetensors"), net=net, sha256=digest, layers=layers)
    frames = np.random.default_rng(0).integers(256, size=(3, 96, 96, 3), dtype=np.uint8)
    found = AlexNetExtractor(config).extract_layers(frames, 1.0)
    with torch.no_grad():
        known = model.activations(model.pixels(torch.from_numpy(frames)), layers)
    for layer in layers:
        np.testing.assert_allclose(found[layer], known[layer].flatten(1), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.maximum(found["conv2:pre"], 0), found["conv2"])


def test_wrong_weights_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^size must be 64 for the shipped weights, got 96$"):
        load_alexnet({"size": 96})
    with pytest.raises(ConfigError, match=r"^weights must be a readable file, got 'none\.safetensors'$"):
        AlexNetExtractor(AlexNetFeaturesConfig(weights="none.safetensors")).net  # noqa: B018
    (tmp_path / "bad.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(DataError, match=r"^weights must be whole safetensors, got .*bad\.safetensors\)$"):
        AlexNetExtractor(AlexNetFeaturesConfig(weights=str(tmp_path / "bad.safetensors"))).net  # noqa: B018
