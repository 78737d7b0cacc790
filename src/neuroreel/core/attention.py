"""Where an encoder of brain activity looks: maps of attention by stage, beside those of a model of shuffled pairs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import DataError
from neuroreel.core.files import atomic

NETWORK = re.compile(r"^(?:\d+Networks_)?[LR]H_(?P<network>[A-Za-z]+)")
"""A parcel of Schaefer et al. 2018, named by hemisphere and network: 7Networks_LH_Vis_1."""


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """How much each voxel's patch is attended to; 1 is as much as any on average.

    Parameters
    ----------
    layers : numbers of the encoder's blocks.
    depth : how many blocks it has.
    stages : by stage of the fit, in order, (layers, voxels).
    shuffled : the same of a model whose brain windows were paired with other pictures; empty where none was fitted.

    Raises
    ------
    DataError : a map has another shape than the others, or there is none.
    """

    layers: tuple[int, ...]
    depth: int
    stages: Mapping[str, np.ndarray]
    shuffled: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.require(bool(self.stages), "stages", "must be 1 or more", 0)
        shape = next(iter(self.stages.values())).shape
        for name, values in (*self.stages.items(), *self.shuffled.items()):
            checks.dimensions(name, values, ("layers", "voxels"))
            checks.require(values.shape == shape, f"map {name}", f"must have the shape {shape}", values.shape)
        checks.same_length("maps", shape[0], "layers", len(self.layers))

    def layer_names(self) -> list[str]:
        """Return the layers in words."""
        words = {0: "first layer", self.depth - 1: "last layer"}
        return [words.get(layer, f"layer {layer + 1} of {self.depth}") for layer in self.layers]

    def by_region(self, regions: Mapping[str, np.ndarray]) -> dict[str, dict[str, dict[str, list[float]]]]:
        """Return the mean over each region's voxels, plain: pairs ("true", "shuffled"), stage, region, layers."""
        found: dict[str, dict[str, dict[str, list[float]]]] = {}
        for pairs, maps in (("true", self.stages), ("shuffled", self.shuffled)):
            found[pairs] = {
                stage: {name: values[:, mask].mean(1).tolist() for name, mask in regions.items() if mask.any()}
                for stage, values in maps.items()
            }
        return found

    def save(self, file: Path) -> None:
        """Write the maps as one npz file."""
        arrays = {f"true {place} {name}": values for place, (name, values) in enumerate(self.stages.items())}
        arrays |= {f"shuffled {place} {name}": values for place, (name, values) in enumerate(self.shuffled.items())}
        with atomic(file) as partial, partial.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, layers=self.layers, depth=self.depth, **arrays)

    @classmethod
    def load(cls, file: Path) -> AttentionMaps:
        """Return the maps that `save` wrote; DataError if the file is damaged."""
        maps: dict[str, dict[str, np.ndarray]] = {"true": {}, "shuffled": {}}
        try:
            with np.load(file, allow_pickle=False) as held:
                for name in sorted(set(held) - {"layers", "depth"}):
                    pairs, _, stage = name.split(" ", 2)
                    maps[pairs][stage] = held[name]
                layers, depth = tuple(int(each) for each in held["layers"]), int(held["depth"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(checks.sentence("maps of attention", "must be whole", type(error).__name__, file)) from None
        return cls(layers, depth, maps["true"], maps["shuffled"])


def regions_or_networks(rois: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return masks (voxels,) by name, parcels that are named by their network joined to networks."""
    found: dict[str, np.ndarray] = {}
    for name, mask in rois.items():
        match = NETWORK.match(name)
        key = match["network"] if match else name
        found[key] = found[key] | mask if key in found else np.asarray(mask, dtype=bool)
    return found
