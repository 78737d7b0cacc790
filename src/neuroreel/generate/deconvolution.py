"""De-CNN: from the activations of a layer of AlexNet down to pixels.

Source: Zeiler & Fergus 2014, ECCV, arXiv 1311.2901, section 2.1: unpool with the switches of the pooling, rectify,
filter with the transposed kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.nets.alexnet import CONVS, FULLY, POOL_SIZE, POOL_STRIDE, AlexNet


@dataclass(frozen=True)
class Switches:
    """What a forward pass leaves for the way back.

    Attributes
    ----------
    places : (n, channels, height, width) int64 by pooling layer: which position of the map below was the largest.
    divisors : (n, channels, height, width) by normalising layer: what the map was divided by.
    """

    places: dict[str, Tensor]
    divisors: dict[str, Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, net: AlexNet, x: Tensor) -> Self:
        """Return the switches of inputs (n, 3, height, width)."""
        places, divisors, below = {}, {}, x
        for name, value in net.run(x):
            if name.startswith("norm"):
                divisors[name] = getattr(net, name).divisor(below)
            elif name.startswith("pool"):
                places[name] = F.max_pool2d(below, POOL_SIZE, POOL_STRIDE, return_indices=True)[1]
            if name == "pool5":
                break
            below = value
        return cls(places, divisors)


@torch.no_grad()
def deconvolve(net: AlexNet, activations: Tensor, layer: str, switches: Switches) -> Tensor:
    """Return inputs (n, 3, height, width) from activations of one layer: the De-CNN.

    Parameters
    ----------
    net : the network that the activations come from, or that they were decoded for.
    activations : (n, *shape of the layer); all units, or 0 everywhere but at the units to be seen.
    layer : a convolutional, pooling, normalising or fully connected layer; with `:pre` the first rectification is
        left out.
    switches : of the frames (`Switches.of`), n of them or 1 for all.

    Raises
    ------
    ConfigError : the layer is unknown or is `prob`, which has no way back.
    DataError : the activations have another shape than the layer.
    """
    checks.one_of("layer", layer, [name for name in net.layers if name != "prob"])
    shape = net.shapes[layer]
    checks.require(
        tuple(activations.shape[1:]) == shape, layer, f"must have the shape (n, *{shape})", tuple(activations.shape)
    )
    x = activations
    order = list(net.layers)
    for name in reversed(order[: order.index(layer) + 1]):
        if name.endswith(":pre"):
            x = _filter_back(net, name.removesuffix(":pre"), x)
        elif name == "fc8":
            x = _filter_back(net, name, x)
        elif name in (*CONVS, *FULLY):
            x = F.relu(x)
        elif name.startswith("norm"):
            x = x * switches.divisors[name]
        else:
            x = _unpool(x, switches.places[name], net.shapes[f"conv{name.removeprefix('pool')}"])
    return x


def deconvolve_units(
    net: AlexNet, frames: np.ndarray, layer: str, units: np.ndarray | None = None, *, strongest: bool = False
) -> np.ndarray:
    """Return what chosen units of a layer see in frames, as pixel contrast.

    Parameters
    ----------
    frames : (n, size, size, 3) uint8, of the network's size.
    layer : as in `deconvolve`.
    units : channels of a convolutional layer, or units of a fully connected one; None takes all.
    strongest : keep only the position of each chosen channel where it is most active.

    Returns
    -------
    (n, size, size, 3) float32 around 0; `to_frames` makes it a picture.
    """
    size = net.config.size
    right = frames.dtype == np.uint8 and frames.shape[1:] == (size, size, 3)
    checks.require(right, "frames", f"must be uint8 (n, {size}, {size}, 3)", f"{frames.dtype} {frames.shape}")
    with torch.no_grad():
        x = net.pixels(torch.from_numpy(np.ascontiguousarray(frames)))
        activity = net.activations(x, (layer,))[layer]
        if units is not None:
            known = activity.shape[1]
            inside = bool(np.all((np.asarray(units) >= 0) & (np.asarray(units) < known)))
            checks.require(inside, "units", f"must lie within 0..{known - 1}", units, layer, ConfigError)
            mask = torch.zeros(known)
            mask[torch.as_tensor(np.asarray(units))] = 1
            activity = activity * mask.view(1, -1, *[1] * (activity.ndim - 2))
        if strongest and activity.ndim == 4:
            activity = activity * (activity == activity.amax((2, 3), keepdim=True))
        back = deconvolve(net, activity, layer, Switches.of(net, x))
        return (net.frames(back) - net.frames(torch.zeros_like(back))).numpy()


def to_frames(contrast: np.ndarray, mean: float = 127.5, spread: float = 3.0) -> np.ndarray:
    """Return pixel contrast (n, height, width, 3) as uint8 pictures; `spread` deviations reach black and white.

    Every picture has a gain of its own, since the De-CNN keeps the form of a frame and not its contrast.
    """
    checks.dimensions("contrast", contrast, ("n", "height", "width", "rgb"))
    centred = contrast - contrast.mean((1, 2, 3), keepdims=True)
    deviation = centred.std((1, 2, 3), keepdims=True)
    scaled = centred / np.where(deviation > 0, spread * deviation, 1)
    return np.clip(np.rint(mean + scaled * min(mean, 255 - mean)), 0, 255).astype(np.uint8)


def _filter_back(net: AlexNet, name: str, x: Tensor) -> Tensor:
    """Filter with the transposed kernels of a layer, back to the size of its input."""
    module = getattr(net, name)
    if name in FULLY:
        back = x @ module.weight
        return back.view(-1, *net.mapped) if name == "fc6" else back
    order = list(net.layers)
    place = order.index(f"{name}:pre")
    below = net.shapes[order[place - 1]][1] if place else net.config.size
    kernel, stride, pad = module.kernel_size[0], module.stride[0], module.padding[0]
    missing = below - ((x.shape[-1] - 1) * stride - 2 * pad + kernel)
    return F.conv_transpose2d(
        x, module.weight, stride=stride, padding=pad, output_padding=missing, groups=module.groups
    )


def _unpool(x: Tensor, places: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Put values (n, channels, h, w) where the switches point, into maps (n, *shape).

    Windows overlap, so that several may point to one place: it takes their mean, which is the value itself when the
    windows carry the pooled activity.
    """
    n = max(len(x), len(places))
    flat = torch.zeros(n, shape[0], shape[1] * shape[2], dtype=x.dtype)
    values = x.expand(n, *x.shape[1:]).flatten(2)
    flat.scatter_reduce_(2, places.expand(n, *places.shape[1:]).flatten(2), values, "mean", include_self=False)
    return flat.view(n, *shape)
