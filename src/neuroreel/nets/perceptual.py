"""Frozen networks that losses look through, opened by name: how unlike two pictures look, and what a clip shows.

    like = open_perceptual("world")                  # the shipped AlexNet; or a file, a folder, a hub name
    loss = like(made, true)                          # (n,), of pictures (n, 3, h, w) from -1 to 1

Sources: Zhang et al. 2018, CVPR, arXiv 1801.03924, eq. 1 (perceptual image similarity); Johnson et al. 2016, ECCV,
arXiv 1603.08155 (distance of activations as a loss). Nothing here is trained; gradients go to the pictures only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.nets import world
from neuroreel.nets.alexnet import CONVS, AlexNet, alexnet_of_state
from neuroreel.nets.pretrained import find_network, read_network, read_settings
from neuroreel.nets.weights import read_state

WORLD = "world"
FILES = (".safetensors", ".pth", ".pt", ".tar")
SMALLEST = 64
"""Pixels of the shorter side under which pictures are enlarged for a published network."""

IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Maps = Callable[[Tensor], list[Tensor]]


class Frozen(nn.Module):
    """A network that is looked through and never trained, whatever it is part of."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Stay as it is: nothing is dropped and no mean runs on."""
        return self


class PerceptualLoss(Frozen):
    """Distance of pictures in the activations of a frozen network (Zhang et al. 2018, eq. 1).

    The activations of a layer are brought to length 1 at every place; the squared difference is summed over channels,
    with the channel's weight where weights are known, and is the mean over places and layers.

    Parameters
    ----------
    net : what is frozen.
    maps : function of pictures (n, 3, h, w) from -1 to 1 that returns the activations (n, channels, ...) of layers.
    weights : (channels,) >= 0 of every layer, LPIPS's linear ones; None for 1.
    seen : as `maps`, with what layers see that keep no place (n, units) behind; `maps` alone where there are none.
    """

    def __init__(
        self, net: nn.Module, maps: Maps, weights: Sequence[Tensor] | None = None, seen: Maps | None = None
    ) -> None:
        super().__init__(net)
        self.maps, self.seen = maps, seen or maps
        for number, weight in enumerate(weights or ()):
            self.register_buffer(f"weight{number}", weight.flatten(), persistent=False)
        self.weighted = weights is not None

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        """Return the distance of every two pictures (n, 3, h, w) from -1 to 1, (n,); 0 for the same picture."""
        with torch.no_grad():
            wanted = self.maps(true)
        apart = []
        for number, (one, other) in enumerate(zip(self.maps(made), wanted, strict=True)):
            square = (_unit(one) - _unit(other)).square().flatten(2).mean(2)  # (n, channels)
            apart.append((square * getattr(self, f"weight{number}") if self.weighted else square).sum(1))
        return torch.stack(apart).mean(0)


class ClipEmbedding(Frozen):
    """What a frozen network sees in a clip.

    Parameters
    ----------
    net : what is frozen.
    see : function of clips (n, frames, 3, h, w) from -1 to 1 that returns embeddings (n, units).
    """

    def __init__(self, net: nn.Module, see: Callable[[Tensor], Tensor]) -> None:
        super().__init__(net)
        self.see = see

    def forward(self, clips: Tensor) -> Tensor:
        """Return the embeddings (n, units) of clips (n, frames, 3, h, w) from -1 to 1."""
        return self.see(clips)


def open_perceptual(name: str, layers: Sequence[str] = CONVS) -> PerceptualLoss:
    """Return the perceptual loss through a network.

    Parameters
    ----------
    name : "world" for the shipped AlexNet; a file of torchvision's AlexNet (with LPIPS's linear weights in it, if they
        are to weigh) or of one of its VGG networks; the folder or hub name of a `CLIPModel`, whose picture tower is
        used.
    layers : of an AlexNet, which ones. A VGG shows the last map before every pooling, CLIP the output of every block.

    Raises
    ------
    ConfigError : the name is none of these, or a layer unknown.
    DataError : the weights are corrupt.
    FetchError : the network can't be had.
    """
    if name == WORLD:
        return _through_alexnet(world.load_alexnet(), layers)
    file = Path(name).expanduser()
    if file.suffix not in FILES:
        return _through_clip(name)
    state = {key.removeprefix("module."): value for key, value in read_state(file).items()}
    if "classifier.1.weight" in state:
        return _through_alexnet(alexnet_of_state(state, file), layers, _linear(state, layers))
    rule = "must be torchvision's AlexNet or VGG, with features.0.weight"
    known = state.get("features.0.weight", torch.zeros(0)).shape[1:] == (3, 3, 3)
    checks.require(known, "perceptual network", rule, ", ".join(list(state)[:3]), file, ConfigError)
    return _through_vgg(state)


def open_clip_embedding(name: str) -> ClipEmbedding:
    """Return what a network sees in clips.

    Parameters
    ----------
    name : "world" for the shipped classifier of clips, of which the last map is taken, with its places; the folder or
        hub name of a `VideoMAEForVideoClassification`, of which the pooled output is.

    Raises
    ------
    ConfigError : the network is of another kind.
    DataError : the weights are corrupt.
    FetchError : the network can't be had.
    """
    if name == WORLD:
        classifier = world.read_classifier(world.check_part(world.WORLD, world.read_card(), "video_classifier"))
        frames, side = classifier.config.frames, classifier.config.size

        def see(clips: Tensor) -> Tensor:
            shown = _sized(clips[:, _spread(clips.shape[1], frames)].flatten(0, 1), side)
            return classifier.features(shown.unflatten(0, (len(clips), frames)).flatten(1, 2)).flatten(1)

        return ClipEmbedding(classifier, see)
    folder = find_network(name, ("config.json", "preprocessor_config.json"))
    kind = _kind("video network", folder, ("videomae",))
    import transformers

    net = read_network(getattr(transformers, kind), folder)
    scale = _scaling(folder)

    def see_published(clips: Tensor) -> Tensor:
        shown = clips[:, _spread(clips.shape[1], int(net.config.num_frames))]
        flat = scale(_sized(shown.flatten(0, 1), int(net.config.image_size)))
        hidden = net.videomae(pixel_values=flat.unflatten(0, shown.shape[:2]))[0]
        return net.fc_norm(hidden.mean(1)) if net.fc_norm is not None else hidden[:, 0]

    return ClipEmbedding(net, see_published)


# ---------------------------------------------------------------------------------------------------------------------
# Networks


def _through_alexnet(net: AlexNet, layers: Sequence[str], weights: Sequence[Tensor] | None = None) -> PerceptualLoss:
    for layer in layers:
        checks.one_of("layer", layer, [name for name in net.layers if len(net.shapes[name]) == 3])
    own = net.config.size if net.config.layout == "world" else None

    def look(pictures: Tensor, layers: Sequence[str]) -> list[Tensor]:
        pixels = (_sized(pictures, own) if own else _large(pictures)) * 127.5 + 127.5
        found = net.activations(((pixels.flip(1) if net.layout.bgr else pixels) - net.mean) / net.scale, layers)
        return [found[layer] for layer in layers]

    seen = (*layers, "fc6", "fc7") if own else tuple(layers)  # fully connected layers see one size only
    return PerceptualLoss(net, lambda x: look(x, layers), weights, lambda x: look(x, seen))


def _linear(state: Mapping[str, Tensor], layers: Sequence[str]) -> list[Tensor] | None:
    """Return LPIPS's weights of the channels of layers, if the file has them of all."""
    keys = [f"lin{CONVS.index(layer)}.model.1.weight" if layer in CONVS else "" for layer in layers]
    return [state[key] for key in keys] if all(key in state for key in keys) else None


def _through_vgg(state: Mapping[str, Tensor]) -> PerceptualLoss:
    """Return a VGG (Simonyan & Zisserman 2015, arXiv 1409.1556) that is pooled where its numbers leave room for it.

    In torchvision's list of layers a convolution is followed by its ReLU, and either by the next or by a pooling.
    """
    numbers = sorted(int(key.split(".")[1]) for key in state if key.startswith("features.") and key.endswith("weight"))
    stages: list[nn.Sequential] = [nn.Sequential()]
    for number, after in zip(numbers, [*numbers[1:], numbers[-1] + 3], strict=True):
        weight, bias = (state[f"features.{number}.{what}"] for what in ("weight", "bias"))
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=weight.shape[2] // 2)
        conv.load_state_dict({"weight": weight, "bias": bias})
        stages[-1].extend([conv, nn.ReLU()])
        if after - number == 3:
            stages.append(nn.Sequential(nn.MaxPool2d(2)))
    net = nn.ModuleList(stages[:-1])
    scale = _Scaling(IMAGENET_MEAN, IMAGENET_SD)

    def maps(pictures: Tensor) -> list[Tensor]:
        x, found = scale(_large(pictures)), []
        for stage in net:
            x = stage(x)
            found.append(x)
        return found

    return PerceptualLoss(net, maps)


def _through_clip(name: str) -> PerceptualLoss:
    import transformers

    folder = find_network(name, ("config.json", "preprocessor_config.json"))
    net = read_network(getattr(transformers, _kind("perceptual network", folder, ("clip",))), folder).vision_model
    scale, side = _scaling(folder), int(net.config.image_size)

    def maps(pictures: Tensor) -> list[Tensor]:
        found = net(pixel_values=scale(_sized(pictures, side)), output_hidden_states=True).hidden_states
        return [tokens[:, 1:].transpose(1, 2) for tokens in found[1:]]  # (n, channels, patches), without the class's

    return PerceptualLoss(net, maps)


KINDS = {"clip": "CLIPModel", "videomae": "VideoMAEForVideoClassification"}


def _kind(what: str, folder: Path, types: Sequence[str]) -> str:
    """Return the class of transformers that a folder is of, one of those allowed."""
    got = read_settings(folder / "config.json").get("model_type")
    rule = f"must be {WORLD!r}, a file of weights, or of the type {' or '.join(types)}"
    checks.require(got in types, what, rule, repr(got), folder / "config.json", ConfigError)
    return KINDS[str(got)]


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


class _Scaling:
    """Pictures from -1 to 1 as a network takes them: (share - mean) / sd, shares from 0 to 1."""

    def __init__(self, mean: Sequence[float], sd: Sequence[float]) -> None:
        self.mean, self.sd = mean, sd

    def __call__(self, pictures: Tensor) -> Tensor:
        mean, sd = (pictures.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.sd))
        return (pictures / 2 + 0.5 - mean) / sd


def _scaling(folder: Path) -> _Scaling:
    """Return the scaling that a folder's preprocessor_config.json tells."""
    told: dict[str, Any] = read_settings(folder / "preprocessor_config.json")
    return _Scaling(told.get("image_mean", IMAGENET_MEAN), told.get("image_std", IMAGENET_SD))


def _sized(pictures: Tensor, side: int) -> Tensor:
    """Return pictures (n, 3, h, w) as squares of so many pixels."""
    if pictures.shape[-2:] == (side, side):
        return pictures
    return F.interpolate(pictures, (side, side), mode="bilinear", align_corners=False, antialias=True)


def _large(pictures: Tensor) -> Tensor:
    """Return pictures (n, 3, h, w) with a shorter side of at least so many pixels that a published network needs."""
    height, width = pictures.shape[-2:]
    least = min(height, width)
    if least >= SMALLEST:
        return pictures
    size = (SMALLEST * height // least, SMALLEST * width // least)
    return F.interpolate(pictures, size, mode="bilinear", align_corners=False)


def _spread(frames: int, wanted: int) -> Tensor:
    """Return which frames of a clip stand for so many: those at the middles of equal parts."""
    return ((torch.arange(wanted) + 0.5) * frames / wanted).long()


def _unit(maps: Tensor) -> Tensor:
    """Return maps (n, channels, ...) of length 1 at every place."""
    return maps / (maps.square().sum(1, keepdim=True) + 1e-10).sqrt()
