"""AlexNet in both published layouts and a small one, with every layer addressable.

Sources: Krizhevsky, Sutskever & Hinton 2012, NeurIPS 25 (two groups, local response normalisation; the layout that
Caffe's weights have); Krizhevsky 2014, arXiv 1404.5997 (one column; the layout that torchvision's weights have).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError
from neuroreel.core.seeds import generator
from neuroreel.nets.weights import fill, read_state

CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5")
FULLY = ("fc6", "fc7", "fc8")
LEARNT = (*CONVS, *FULLY)
POOLED = ("conv1", "conv2", "conv5")
POOL_SIZE, POOL_STRIDE = 3, 2
LRN_SIZE, LRN_ALPHA, LRN_BETA = 5, 1e-4, 0.75


@dataclass(frozen=True)
class Layout:
    """What differs between the layouts: sizes, groups, normalisation, and how pixels are scaled.

    Attributes
    ----------
    channels : output channels of conv1 to conv5 at width 1.
    kernels, strides, pads : of conv1 to conv5, in pixels.
    groups : of conv1 to conv5.
    lrn : local response normalisation after conv1 and conv2.
    bgr : the network's channels are blue, green, red.
    mean, scale : an input is (pixel - mean) / scale, pixels from 0 to 255 and in the network's order of channels.
    names : the published file's name of each learnt layer.
    """

    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    groups: tuple[int, ...]
    lrn: bool
    bgr: bool
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    names: MappingProxyType[str, str]


_OWN_NAMES = MappingProxyType({name: name for name in LEARNT})
_TORCHVISION_NAMES = MappingProxyType(
    {
        "conv1": "features.0",
        "conv2": "features.3",
        "conv3": "features.6",
        "conv4": "features.8",
        "conv5": "features.10",
        "fc6": "classifier.1",
        "fc7": "classifier.4",
        "fc8": "classifier.6",
    }
)
LAYOUTS = MappingProxyType(
    {
        "caffe": Layout(
            channels=(96, 256, 384, 384, 256),
            kernels=(11, 5, 3, 3, 3),
            strides=(4, 1, 1, 1, 1),
            pads=(0, 2, 1, 1, 1),
            groups=(1, 2, 1, 2, 2),
            lrn=True,
            bgr=True,
            mean=(104.00699, 116.66877, 122.67892),
            scale=(1.0, 1.0, 1.0),
            names=_OWN_NAMES,
        ),
        "torchvision": Layout(
            channels=(64, 192, 384, 256, 256),
            kernels=(11, 5, 3, 3, 3),
            strides=(4, 1, 1, 1, 1),
            pads=(2, 2, 1, 1, 1),
            groups=(1, 1, 1, 1, 1),
            lrn=False,
            bgr=False,
            mean=(123.675, 116.28, 103.53),
            scale=(58.395, 57.12, 57.375),
            names=_TORCHVISION_NAMES,
        ),
        "world": Layout(
            channels=(96, 256, 384, 384, 256),
            kernels=(7, 5, 3, 3, 3),
            strides=(2, 1, 1, 1, 1),
            pads=(3, 2, 1, 1, 1),
            groups=(1, 2, 1, 2, 2),
            lrn=False,
            bgr=False,
            mean=(127.5, 127.5, 127.5),
            scale=(64.0, 64.0, 64.0),
            names=_OWN_NAMES,
        ),
    }
)


class AlexNetConfig(Config):
    """Settings of an AlexNet.

    Attributes
    ----------
    layout : "caffe", "torchvision", or "world": Caffe's layers with a first one for frames of about 64 pixels, and
        without the normalisation, which is 1 to four digits for inputs of order 1.
    size : height and width of the input in pixels.
    width : factor on the channels of the convolutions; 1 is the published size.
    hidden : units of fc6 and of fc7.
    n_classes : units of fc8.
    dropout : share of units dropped before fc6 and before fc7 while training.
    """

    layout: Literal["caffe", "torchvision", "world"] = "caffe"
    size: int = Field(default=227, ge=16)
    width: float = Field(default=1.0, gt=0)
    hidden: int = Field(default=4096, ge=1)
    n_classes: int = Field(default=1000, ge=2)
    dropout: float = Field(default=0.5, ge=0, lt=1)


WORLD = AlexNetConfig(layout="world", size=64, width=0.375, hidden=256, n_classes=32, dropout=0.3)


class LocalResponseNorm(nn.Module):
    """y = x / (1 + alpha / n * sum of x^2 over n neighbouring channels)^beta (Krizhevsky 2012, eq. of section 3.3).

    The sum over channels is a product with a banded matrix, several times as fast on a CPU as torch's own layer.
    """

    band: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        apart = (torch.arange(channels)[:, None] - torch.arange(channels)[None]).abs()
        self.register_buffer("band", (apart <= LRN_SIZE // 2).float() * (LRN_ALPHA / LRN_SIZE), persistent=False)

    def divisor(self, x: Tensor) -> Tensor:
        """Return what x (n, channels, height, width) is divided by, in the same shape."""
        total = torch.matmul(self.band, x.square().flatten(2)).add_(1).view_as(x)
        root = total.sqrt()
        return root * root.sqrt()  # total to the power 3/4, LRN_BETA

    def forward(self, x: Tensor) -> Tensor:
        """Return x (n, channels, height, width) divided by the energy of its neighbouring channels."""
        return x / self.divisor(x)


class AlexNet(nn.Module):
    """Five convolutions, three fully connected layers; `layers` lists every name that `activations` takes.

    Layers are `conv1` (after the ReLU), `conv1:pre` (before it), `norm1`, `pool1`, ..., `fc7`, `fc8` (which has no
    ReLU) and `prob` (the softmax of fc8). `grids` says of every layer with maps where its units look: the centre of the
    first row and column, and the distance of the next, in pixels of the input.

    Raises
    ------
    ConfigError : frames of this size leave nothing after the last pooling.
    """

    def __init__(self, config: AlexNetConfig | None = None) -> None:
        super().__init__()
        config = config or AlexNetConfig()
        self.config = config
        self.layout = LAYOUTS[config.layout]
        channels = [max(2, 2 * round(c * config.width / 2)) for c in self.layout.channels]
        before, side, first, step = 3, config.size, 0.5, 1.0
        shapes: dict[str, tuple[int, ...]] = {}
        self.grids: dict[str, tuple[float, float]] = {}
        for i, name in enumerate(CONVS):
            kernel, stride, pad = self.layout.kernels[i], self.layout.strides[i], self.layout.pads[i]
            conv = nn.Conv2d(before, channels[i], kernel, stride, pad, groups=self.layout.groups[i])
            self.add_module(name, conv)
            side = (side + 2 * pad - kernel) // stride + 1
            shapes[f"{name}:pre"] = shapes[name] = (channels[i], side, side)
            first, step = first + ((kernel - 1) / 2 - pad) * step, step * stride
            self.grids[f"{name}:pre"] = self.grids[name] = (first, step)
            number = name.removeprefix("conv")
            if self.layout.lrn and i < 2:
                self.add_module(f"norm{number}", LocalResponseNorm(channels[i]))
                shapes[f"norm{number}"], self.grids[f"norm{number}"] = shapes[name], (first, step)
            if name in POOLED:
                rule = "must leave 1 pixel or more after every pooling"
                checks.require(side >= POOL_SIZE, "size", rule, config.size, error=ConfigError)
                side = (side - POOL_SIZE) // POOL_STRIDE + 1
                shapes[f"pool{number}"] = (channels[i], side, side)
                first, step = first + (POOL_SIZE - 1) / 2 * step, step * POOL_STRIDE
                self.grids[f"pool{number}"] = (first, step)
            before = channels[i]
        self.mapped = (before, side, side)
        sizes = (before * side * side, config.hidden, config.hidden, config.n_classes)
        for name, n_in, n_out in zip(FULLY, sizes, sizes[1:], strict=False):
            self.add_module(name, nn.Linear(n_in, n_out))
            if name != "fc8":
                shapes[f"{name}:pre"] = (n_out,)
            shapes[name] = (n_out,)
        shapes["prob"] = (config.n_classes,)
        self.shapes = shapes
        self.register_buffer("mean", torch.tensor(self.layout.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(self.layout.scale).view(1, 3, 1, 1), persistent=False)

    mean: Tensor
    scale: Tensor

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of every layer, from the pixels up."""
        return tuple(self.shapes)

    @classmethod
    def seeded(cls, config: AlexNetConfig, seed: int) -> Self:
        """Return an untrained network: He's initial weights (2015, arXiv 1502.01852) by the seed, biases 0."""
        net = cls(config)
        for name in LEARNT:
            weight = getattr(net, name).weight
            noise = generator(seed, "alexnet", name).standard_normal(weight.shape, dtype="float32")
            gain = 2.0 if name != "fc8" else 1.0
            with torch.no_grad():
                weight.copy_(torch.from_numpy(noise) * (gain / weight[0].numel()) ** 0.5)
                getattr(net, name).bias.zero_()
        return net.eval()

    @classmethod
    def load(cls, file: str | Path, config: AlexNetConfig, digest: str | None = None) -> Self:
        """Return the network of a state dict, whose names are the layout's or ours (`conv1.weight`).

        Parameters
        ----------
        file : safetensors, or a torch file of tensors only.
        config : the network that the weights are for.
        digest : SHA-256 that the file must have.

        Raises
        ------
        DataError : the file is corrupt, has another SHA-256, or its tensors are those of another layout.
        ConfigError : the file is missing.
        """
        return cls.of_state(read_state(file, digest), config, file)

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor], config: AlexNetConfig, source: str | Path | None = None) -> Self:
        """Return the network of a state dict that has been read; as `load`."""
        net = cls(config)
        ours = {theirs: name for name, theirs in net.layout.names.items()}
        renamed = {}
        for key, value in state.items():
            layer, _, kind = key.rpartition(".")
            renamed[f"{ours.get(layer, layer)}.{kind}"] = value
        fill(net, renamed, source)
        return net.eval()

    def pixels(self, frames: Tensor) -> Tensor:
        """Return frames (n, height, width, 3) uint8 RGB, of the config's size, as inputs (n, 3, height, width)."""
        x = frames.permute(0, 3, 1, 2).to(self.mean.dtype)
        return ((x.flip(1) if self.layout.bgr else x) - self.mean) / self.scale

    def frames(self, x: Tensor) -> Tensor:
        """Undo `pixels`: return inputs (n, 3, height, width) as RGB values (n, height, width, 3), not clipped."""
        rgb = x * self.scale + self.mean
        return (rgb.flip(1) if self.layout.bgr else rgb).permute(0, 2, 3, 1)

    def run(self, x: Tensor) -> Iterable[tuple[str, Tensor]]:
        """Go through the layers of inputs (n, 3, height, width), one (name, activation) at a time."""
        for name in CONVS:
            x = getattr(self, name)(x)
            yield f"{name}:pre", x
            x = F.relu(x)
            yield name, x
            number = name.removeprefix("conv")
            if f"norm{number}" in self.shapes:
                x = getattr(self, f"norm{number}")(x)
                yield f"norm{number}", x
            if name in POOLED:
                x = F.max_pool2d(x, POOL_SIZE, POOL_STRIDE)
                yield f"pool{number}", x
        x = x.flatten(1)
        for name in FULLY[:2]:
            x = getattr(self, name)(F.dropout(x, self.config.dropout, self.training))
            yield f"{name}:pre", x
            x = F.relu(x)
            yield name, x
        x = self.get_submodule("fc8")(x)
        yield "fc8", x
        yield "prob", x.softmax(1)

    def activations(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the activations of the named layers for inputs (n, 3, height, width); none above them is computed.

        Raises
        ------
        ConfigError : a layer is unknown.
        """
        for layer in layers:
            checks.one_of("layer", layer, self.shapes)
        wanted, found = set(layers), {}
        for name, value in self.run(x):
            if name in wanted:
                found[name] = value
            if len(found) == len(wanted):
                break
        return {layer: found[layer] for layer in layers}

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (n, classes), fc8, of inputs (n, 3, height, width)."""
        return self.activations(x, ("fc8",))["fc8"]


def alexnet_of_state(state: Mapping[str, Tensor], source: str | Path | None = None) -> AlexNet:
    """Return torchvision's AlexNet of a state dict, its sizes read from it; tensors of other modules are left out.

    Raises
    ------
    DataError : a layer is missing or of another shape.
    """
    own = {key: value for key, value in state.items() if key.startswith(("features.", "classifier."))}
    for key in ("features.0.weight", "classifier.1.weight", "classifier.6.weight"):
        there = ", ".join(list(state)[:3]) or "nothing"
        checks.require(key in own, "weights", f"must be torchvision's AlexNet, with {key}", there, source)
    config = AlexNetConfig(
        layout="torchvision",
        size=224,
        width=len(own["features.0.weight"]) / 64,
        hidden=len(own["classifier.1.weight"]),
        n_classes=len(own["classifier.6.weight"]),
    )
    return AlexNet.of_state(own, config, source)


def add_batch_norm(net: AlexNet) -> AlexNet:
    """Put batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167) after every learnt layer but fc8, in place.

    Without it a network this deep hardly starts to learn on a few thousand frames; `fold_batch_norm` takes it out.
    """
    for name in LEARNT[:-1]:
        layer = getattr(net, name)
        convolution = isinstance(layer, nn.Conv2d)
        norm = nn.BatchNorm2d(layer.out_channels) if convolution else nn.BatchNorm1d(layer.out_features)
        setattr(net, name, nn.Sequential(layer, norm))
    return net


@torch.no_grad()
def fold_batch_norm(net: AlexNet) -> AlexNet:
    """Multiply the batch normalisation into the weights before it, in place: the same function without it.

    With the running mean m and variance v: w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta.
    """
    for name in LEARNT[:-1]:
        pair = getattr(net, name)
        if not isinstance(pair, nn.Sequential):
            continue
        layer: Any = pair[0]
        norm: Any = pair[1]
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        layer.weight.mul_(gain.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.copy_((layer.bias - norm.running_mean) * gain + norm.bias)
        setattr(net, name, layer)
    return net
