from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.files import sha256
from neuroreel.nets.alexnet import LAYOUTS, WORLD, AlexNet, AlexNetConfig, add_batch_norm, fold_batch_norm
from neuroreel.nets.weights import write_state

SMALL = {"hidden": 24, "n_classes": 10}


def published_torchvision() -> nn.Module:
    """The layers as torchvision documents them, so that their state dict has its names."""
    net = nn.Module()
    c = [nn.Conv2d(3, 64, 11, 4, 2), nn.Conv2d(64, 192, 5, 1, 2), nn.Conv2d(192, 384, 3, 1, 1)]
    c += [nn.Conv2d(384, 256, 3, 1, 1), nn.Conv2d(256, 256, 3, 1, 1)]
    relu, pool = nn.ReLU(), nn.MaxPool2d(3, 2)
    net.features = nn.Sequential(c[0], relu, pool, c[1], relu, pool, c[2], relu, c[3], relu, c[4], relu, pool)
    linear = [nn.Linear(9216, 24), nn.Linear(24, 24), nn.Linear(24, 10)]
    drop = nn.Dropout()
    net.classifier = nn.Sequential(drop, linear[0], relu, drop, linear[1], relu, linear[2])
    return net.eval()


def published_caffe(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The deploy file's layers, one by one."""

    def conv(x: torch.Tensor, name: str, **kind: int) -> torch.Tensor:
        return F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **kind))

    x = F.max_pool2d(F.local_response_norm(conv(x, "conv1", stride=4), 5, 1e-4, 0.75, 1), 3, 2)
    x = F.max_pool2d(F.local_response_norm(conv(x, "conv2", padding=2, groups=2), 5, 1e-4, 0.75, 1), 3, 2)
    x = conv(conv(x, "conv3", padding=1), "conv4", padding=1, groups=2)
    x = F.max_pool2d(conv(x, "conv5", padding=1, groups=2), 3, 2).flatten(1)
    x = F.relu(F.linear(x, state["fc6.weight"], state["fc6.bias"]))
    x = F.relu(F.linear(x, state["fc7.weight"], state["fc7.bias"]))
    return F.linear(x, state["fc8.weight"], state["fc8.bias"])


def test_torchvision_weights_load_by_name_and_give_its_answer(tmp_path: Path) -> None:
    theirs = published_torchvision()
    torch.save(theirs.state_dict(), tmp_path / "alexnet.pth")
    ours = AlexNet.load(tmp_path / "alexnet.pth", AlexNetConfig(layout="torchvision", size=224, **SMALL))
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        known = theirs.classifier(theirs.features(x).flatten(1))
        torch.testing.assert_close(ours(x), known, rtol=1e-4, atol=1e-5)


def test_caffe_layout_is_the_published_network(tmp_path: Path) -> None:
    net = AlexNet.seeded(AlexNetConfig(**SMALL), 0)
    digest = write_state(tmp_path / "caffe.safetensors", net)
    again = AlexNet.load(tmp_path / "caffe.safetensors", AlexNetConfig(**SMALL), digest)
    x = 50 * torch.randn(2, 3, 227, 227, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(again(x), published_caffe(net.state_dict(), x), rtol=1e-4, atol=1e-3)


def test_conv1_of_the_full_caffe_network_has_290400_units() -> None:
    net = AlexNet(AlexNetConfig(hidden=8, n_classes=2))
    assert [net.shapes[f"conv{i}"] for i in range(1, 6)] == [
        (96, 55, 55),
        (256, 27, 27),
        (384, 13, 13),
        (384, 13, 13),
        (256, 13, 13),
    ]
    assert net.mapped == (256, 6, 6)


def test_every_layer_has_the_shape_it_says_and_relu_follows_pre() -> None:
    net = AlexNet.seeded(WORLD, 0)
    x = net.pixels(torch.randint(256, (2, 64, 64, 3), dtype=torch.uint8))
    with torch.no_grad():
        found = net.activations(x, net.layers)
    assert {layer: tuple(value.shape[1:]) for layer, value in found.items()} == net.shapes
    for layer in (name for name in net.layers if name.endswith(":pre")):
        torch.testing.assert_close(found[layer.removesuffix(":pre")], found[layer].relu())
    torch.testing.assert_close(found["prob"], found["fc8"].softmax(1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pixels_can_be_undone(layout: str) -> None:
    net = AlexNet(AlexNetConfig(layout=layout, size=96, width=0.1, **SMALL))
    frames = torch.randint(256, (3, 96, 96, 3), dtype=torch.uint8)
    torch.testing.assert_close(net.frames(net.pixels(frames)), frames.float(), rtol=0, atol=1e-3)


def test_caffe_inputs_are_blue_green_red_less_their_mean() -> None:
    net = AlexNet(AlexNetConfig(size=96, width=0.1, **SMALL))
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(1, 96, 96, 3)
    seen = net.pixels(red)[0, :, 0, 0].numpy()
    np.testing.assert_allclose(seen, [-104.00699, -116.66877, 255 - 122.67892], rtol=1e-6)


def test_weights_of_another_layout_are_one_sentence(tmp_path: Path) -> None:
    write_state(tmp_path / "a.safetensors", AlexNet(AlexNetConfig(layout="torchvision", size=224, **SMALL)))
    with pytest.raises(
        DataError, match=r"^weights conv1.weight must have the shape \(96, 3, 11, 11\), got \(64, 3, 11"
    ):
        AlexNet.load(tmp_path / "a.safetensors", AlexNetConfig(**SMALL))
    torch.save(published_torchvision().state_dict(), tmp_path / "b.pth")
    with pytest.raises(DataError, match=r"^weights conv1.weight must be there, \(96, .* got a file with features.0"):
        AlexNet.load(tmp_path / "b.pth", AlexNetConfig(**SMALL))


def test_corrupt_weights_are_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    digest = write_state(file, AlexNet(WORLD))
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + b"\x00" * 9)
    with pytest.raises(DataError, match=rf"^weights must have the SHA-256 {digest}, got {sha256(file)} \(.*\)$"):
        AlexNet.load(file, WORLD, digest)
    file.write_bytes(whole[:1000])
    with pytest.raises(DataError, match=r"^weights must be whole safetensors, got .*net\.safetensors\)$"):
        AlexNet.load(file, WORLD)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Path("x")}, tmp_path / "bad.pth")
    with pytest.raises(DataError, match=r"^weights must be a state dict of tensors, got .*bad\.pth\)$"):
        AlexNet.load(tmp_path / "bad.pth", WORLD)
    with pytest.raises(ConfigError, match=r"^weights must be a readable file, got '.*none.pth'$"):
        AlexNet.load(tmp_path / "none.pth", WORLD)


def test_settings_that_make_no_network_are_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^size must leave 1 pixel or more after every pooling, got 40$"):
        AlexNet(AlexNetConfig(size=40))
    with pytest.raises(ConfigError, match=r"^layer must be one of conv1, .*, got 'conv9'$"):
        AlexNet(WORLD).activations(torch.zeros(1, 3, 64, 64), ["conv9"])


def test_batch_normalisation_folded_into_the_weights_is_the_same_function() -> None:
    net = AlexNet.seeded(WORLD, 0)
    names = list(net.state_dict())
    add_batch_norm(net).train()
    x = net.pixels(torch.randint(256, (16, 64, 64, 3), dtype=torch.uint8))
    with torch.no_grad():
        for _ in range(3):
            net(x)
        net.conv2[1].weight.mul_(1.7)
        net.fc6[1].bias.add_(0.3)
        known = net.eval()(x)
        folded = fold_batch_norm(net)(x)
    assert list(net.state_dict()) == names
    torch.testing.assert_close(folded, known, rtol=1e-4, atol=1e-4)
