"""Features of AlexNet: any layer before or after its ReLU, in the layout of any of the published weights."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from neuroreel.core import checks
from neuroreel.core.config import Config
from neuroreel.features.extractor import Extractor, known_layers, resize
from neuroreel.nets.world import load_alexnet

if TYPE_CHECKING:
    from neuroreel.nets.alexnet import AlexNet

EIGHT = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


class AlexNetFeaturesConfig(Config):
    """Settings of the extractor.

    Attributes
    ----------
    weights : "world" (shipped, trained on the simulated world), "random" (untrained, by `seed`), or a file.
    net : settings of the network, as of `nets.alexnet.AlexNetConfig`; those of "world" come with its weights.
    sha256 : digest that the file must have.
    layers : names of layers, `:pre` for before the ReLU.
    """

    weights: str = "world"
    net: dict[str, str | int | float] = Field(default_factory=dict)
    sha256: str | None = None
    layers: tuple[str, ...] = EIGHT
    seed: int = 0
    batch: int = Field(default=32, ge=1)


class AlexNetExtractor(Extractor):
    """The layers of an AlexNet, each flattened channel by channel (Wen et al. 2018 use conv1-conv5 and fc6-fc8)."""

    name = "alexnet"

    def __init__(self, config: AlexNetFeaturesConfig | None = None) -> None:
        self.config: AlexNetFeaturesConfig = config or AlexNetFeaturesConfig()

    @cached_property
    def net(self) -> AlexNet:
        """The network, read when it is first used.

        Raises
        ------
        ConfigError, DataError : the weights are missing, corrupt, or of another layout.
        """
        from neuroreel.nets.alexnet import AlexNet, AlexNetConfig

        if self.config.weights == "world":
            return load_alexnet(self.config.net)
        net_config = AlexNetConfig.build(self.config.net)
        if self.config.weights == "random":
            return AlexNet.seeded(net_config, self.config.seed)
        return AlexNet.load(self.config.weights, net_config, self.config.sha256)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order of their units."""
        return known_layers(self.config.layers, self.net.layers)

    def shape(self, layer: str) -> tuple[int, ...]:
        """Return (channels, height, width) of a convolutional layer, (units,) of a fully connected one."""
        return self.net.shapes[checks.one_of("layer", layer, self.net.shapes)]

    def places(self, layer: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the centres of what a convolutional layer's units see, exactly: paddings and strides are counted."""
        checks.one_of("layer", layer, self.net.shapes)
        if layer not in self.net.grids:
            return None
        first, step = self.net.grids[layer]
        centres = (first + step * np.arange(self.shape(layer)[1])) / self.net.config.size
        return centres, centres

    def _compute(self, frames: np.ndarray, fps: float) -> dict[str, np.ndarray]:
        import torch

        size = self.net.config.size
        with torch.inference_mode():
            x = self.net.pixels(torch.from_numpy(np.ascontiguousarray(resize(frames, size, size))))
            found = self.net.activations(x, self.layers)
        return {layer: value.flatten(1).numpy() for layer, value in found.items()}
