"""Residual networks with bottlenecks from torchvision's names: the architecture is that of transformers.

Source: He et al. 2016, CVPR, arXiv 1512.03385, table 1; the stride lies in the 3 x 3 convolution, as in
torchvision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from neuroreel.core.checks import require
from neuroreel.nets.weights import fill

STAGES = (1, 2, 3, 4)


def resnet_of_state(state: Mapping[str, Tensor], source: str | Path | None = None) -> Any:
    """Return transformers' `ResNetModel` with the weights of a state dict in torchvision's names.

    Depths and widths are read from the state; what is no part of the trunk (`fc`, SwAV's `projection_head` and
    `prototypes`) is left out.

    Raises
    ------
    DataError : a layer is missing or of another shape.
    """
    from transformers import ResNetConfig, ResNetModel

    first = [f"layer{stage}.0.conv3.weight" for stage in STAGES]
    for key in ("conv1.weight", *first):
        there = ", ".join(list(state)[:3]) or "nothing"
        require(
            key in state,
            "weights",
            f"must be a ResNet with bottlenecks in torchvision's names, with {key}",
            there,
            source,
        )
    blocks = [{key.split(".")[1] for key in state if key.startswith(f"layer{stage}.")} for stage in STAGES]
    net = ResNetModel(
        ResNetConfig(
            embedding_size=len(state["conv1.weight"]),
            hidden_sizes=[len(state[key]) for key in first],
            depths=[len(numbers) for numbers in blocks],
            layer_type="bottleneck",
        )
    )
    named = {name: value for key, value in state.items() if (name := _name(key))}
    fill(net, named, source)
    return net.eval().requires_grad_(False)


def _name(key: str) -> str:
    """Return transformers' name of one of torchvision's, or "" for what is no part of the trunk."""
    if found := re.fullmatch(r"(conv|bn)1\.(\w+)", key):
        return f"embedder.embedder.{_kind(found[1])}.{found[2]}"
    found = re.fullmatch(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([01]))\.(\w+)", key)
    if not found:
        return ""
    block = f"encoder.stages.{int(found[1]) - 1}.layers.{found[2]}"
    if found[5]:
        return f"{block}.shortcut.{_kind('bn' if found[5] == '1' else 'conv')}.{found[6]}"
    return f"{block}.layer.{int(found[4]) - 1}.{_kind(found[3])}.{found[6]}"


def _kind(short: str) -> str:
    return "normalization" if short == "bn" else "convolution"
