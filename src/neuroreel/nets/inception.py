"""Inception v3 with torchvision's names, up to the pooled features.

No installed library has it. Source: Szegedy et al. 2016, CVPR, arXiv 1512.00567, table 1 and figs. 5, 6, 7 and 10, with
the channels of the published weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroreel.core.checks import require
from neuroreel.nets.weights import fill


class Conv(nn.Module):
    """Convolution, batch normalisation, ReLU; with a stride nothing is padded."""

    def __init__(
        self, before: int, after: int, size: int | tuple[int, int], stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        kernel = (size, size) if isinstance(size, int) else size
        pad = (kernel[0] // 2, kernel[1] // 2) if padded and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(before, after, kernel, stride, pad, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, after, height, width)."""
        return F.relu(self.bn(self.conv(x)))


def _pooled(x: Tensor) -> Tensor:
    """Return the mean over 3 x 3 places, zeros around the border counted."""
    return F.avg_pool2d(x, 3, 1, 1)


class MixedA(nn.Module):
    """1 x 1, 5 x 5, two 3 x 3, and pooling, beside each other (fig. 5)."""

    def __init__(self, before: int, pooled: int, unit: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(before, 4 * unit, 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(before, 3 * unit, 1), Conv(3 * unit, 4 * unit, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(before, 4 * unit, 1), Conv(4 * unit, 6 * unit, 3)
        self.branch3x3dbl_3 = Conv(6 * unit, 6 * unit, 3)
        self.branch_pool = Conv(before, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches one behind the other along the channels."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_pooled(x))], 1)


class MixedB(nn.Module):
    """Half the resolution: 3 x 3, two 3 x 3, and pooling, with stride 2 (fig. 10)."""

    def __init__(self, before: int, unit: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(before, 24 * unit, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(before, 4 * unit, 1), Conv(4 * unit, 6 * unit, 3)
        self.branch3x3dbl_3 = Conv(6 * unit, 6 * unit, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches one behind the other along the channels."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class MixedC(nn.Module):
    """7 x 7 as 1 x 7 and 7 x 1, once and twice (fig. 6)."""

    def __init__(self, before: int, inner: int, unit: int) -> None:
        super().__init__()
        after = 12 * unit
        self.branch1x1 = Conv(before, after, 1)
        self.branch7x7_1, self.branch7x7_2 = Conv(before, inner, 1), Conv(inner, inner, (1, 7))
        self.branch7x7_3 = Conv(inner, after, (7, 1))
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(before, inner, 1), Conv(inner, inner, (7, 1))
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Conv(inner, inner, (1, 7)), Conv(inner, inner, (7, 1))
        self.branch7x7dbl_5 = Conv(inner, after, (1, 7))
        self.branch_pool = Conv(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches one behind the other along the channels."""
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(_pooled(x))], 1)


class MixedD(nn.Module):
    """Half the resolution again: 3 x 3, 7 x 7 and 3 x 3, and pooling, with stride 2."""

    def __init__(self, before: int, unit: int) -> None:
        super().__init__()
        inner = 12 * unit
        self.branch3x3_1, self.branch3x3_2 = Conv(before, inner, 1), Conv(inner, 20 * unit, 3, 2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(before, inner, 1), Conv(inner, inner, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = Conv(inner, inner, (7, 1)), Conv(inner, inner, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches one behind the other along the channels."""
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], 1)


class MixedE(nn.Module):
    """3 x 3 spread into 1 x 3 and 3 x 1 beside each other (fig. 7)."""

    def __init__(self, before: int, unit: int) -> None:
        super().__init__()
        inner = 24 * unit
        self.branch1x1 = Conv(before, 20 * unit, 1)
        self.branch3x3_1 = Conv(before, inner, 1)
        self.branch3x3_2a, self.branch3x3_2b = Conv(inner, inner, (1, 3)), Conv(inner, inner, (3, 1))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(before, 28 * unit, 1), Conv(28 * unit, inner, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Conv(inner, inner, (1, 3)), Conv(inner, inner, (3, 1))
        self.branch_pool = Conv(before, 12 * unit, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches one behind the other along the channels."""
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        spread = [self.branch3x3_2a(once), self.branch3x3_2b(once)]
        spread += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return torch.cat([self.branch1x1(x), *spread, self.branch_pool(_pooled(x))], 1)


class InceptionV3(nn.Module):
    """Pixels (n, 3, height, width) from -1 to 1, of 299 or about that, to pooled features (n, 128 `unit`).

    Parameters
    ----------
    unit : channels that all others are multiples of; 16 is the published network.
    """

    def __init__(self, unit: int = 16) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 2 * unit, 3, 2)
        self.Conv2d_2a_3x3 = Conv(2 * unit, 2 * unit, 3, padded=False)
        self.Conv2d_2b_3x3, self.Conv2d_3b_1x1 = Conv(2 * unit, 4 * unit, 3), Conv(4 * unit, 5 * unit, 1)
        self.Conv2d_4a_3x3 = Conv(5 * unit, 12 * unit, 3, padded=False)
        self.Mixed_5b, self.Mixed_5c = MixedA(12 * unit, 2 * unit, unit), MixedA(16 * unit, 4 * unit, unit)
        self.Mixed_5d = MixedA(18 * unit, 4 * unit, unit)
        self.Mixed_6a = MixedB(18 * unit, unit)
        self.Mixed_6b, self.Mixed_6c = MixedC(48 * unit, 8 * unit, unit), MixedC(48 * unit, 10 * unit, unit)
        self.Mixed_6d, self.Mixed_6e = MixedC(48 * unit, 10 * unit, unit), MixedC(48 * unit, 12 * unit, unit)
        self.Mixed_7a = MixedD(48 * unit, unit)
        self.Mixed_7b, self.Mixed_7c = MixedE(80 * unit, unit), MixedE(128 * unit, unit)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over places of the last block, (n, 128 unit)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


def inception_of_state(state: Mapping[str, Tensor], source: str | Path | None = None) -> InceptionV3:
    """Return the network of a state dict in torchvision's names, without its two classifiers.

    Raises
    ------
    DataError : a layer is missing or of another shape.
    """
    key = "Conv2d_1a_3x3.conv.weight"
    there = ", ".join(list(state)[:3]) or "nothing"
    require(key in state, "weights", f"must be Inception v3 in torchvision's names, with {key}", there, source)
    net = InceptionV3(len(state[key]) // 2)
    fill(net, {name: value for name, value in state.items() if not name.startswith(("fc.", "AuxLogits."))}, source)
    return net.eval().requires_grad_(False)
