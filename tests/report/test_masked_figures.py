"""Figures of masked modelling: their pixels against what went in."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from neuroreel.core.errors import DataError
from neuroreel.core.types import Space
from neuroreel.report.masked_figures import loss_picture, recovery_picture


def test_hidden_voxels_are_grey_in_the_middle_row_only() -> None:
    vertices = np.arange(10242)
    space = Space("surface", 10242, index=vertices, hemisphere=np.full(10242, "R"), template="fsaverage5")
    truth = np.where(vertices % 2, 1.0, 1.1)
    hidden = np.ones(10242, dtype=bool)
    hidden[:10] = False
    drawn, why = recovery_picture(space, truth, hidden, truth)
    assert drawn is not None and why == "" and "100%" in drawn.caption and "r = 1.00" in drawn.caption
    image = imread(io.BytesIO(drawn.png))[..., :3]
    image = image[:, : int(0.85 * image.shape[1])]  # without the colour bar
    red = (image[..., 0] > 0.3) & (image[..., 0] > 2 * image[..., 1]) & (image[..., 0] > 2 * image[..., 2])
    rows = np.array_split(red, 3)
    assert rows[0].sum() > 1000 and rows[2].sum() > 1000 and rows[1].sum() < 0.02 * rows[0].sum()


def test_what_cannot_be_drawn_says_why() -> None:
    values = np.arange(4.0)
    drawn, why = recovery_picture(Space("columns", 4), values, values > 2, values)
    assert drawn is None and why == "the voxels don't lie on a surface"
    with pytest.raises(DataError, match=r"recovered must have as many entries as voxels \(4\), got 3"):
        recovery_picture(Space("columns", 4), values, values > 2, values[:3])


def test_curves_of_losses_name_each_training_and_where_it_ends() -> None:
    drawn = loss_picture({"cortical": np.linspace(1, 0.5, 200), "flat": np.linspace(1, 0.75, 200)}, window=1)
    assert "cortical" in drawn.svg and "flat" in drawn.svg
    assert drawn.alt.endswith("cortical: 0.500; flat: 0.750.")
