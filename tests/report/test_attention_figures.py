"""Figures of attention: what they show against what went in."""

import io

import numpy as np
from matplotlib.image import imread

from neuroreel.core.attention import AttentionMaps
from neuroreel.core.types import Space
from neuroreel.report.attention_figures import attention_pictures, regions_picture

VERTICES = np.arange(10242)
SPACE = Space("surface", 10242, index=VERTICES, hemisphere=np.full(10242, "R"), template="fsaverage5")


def yellow(png: bytes) -> np.ndarray:
    image = imread(io.BytesIO(png))[..., :3]
    image = image[:, : int(0.9 * image.shape[1])]  # without the colour bar
    return (image[..., 0] > 0.6) & (image[..., 1] > 0.6) & (image[..., 2] < 0.5)


def test_a_layer_that_looks_everywhere_is_bright_and_its_shuffled_twin_is_not() -> None:
    true, twin = np.stack([np.zeros(10242), np.full(10242, 2.0)]), np.zeros((2, 10242))
    maps = AttentionMaps((0, 3), 4, {"masked modelling": twin, "fitted": true}, {"fitted": twin})
    (drawn,), reason = attention_pictures("mind-vis", SPACE, maps, {})
    rows = [np.array_split(row, 2, axis=1) for row in np.array_split(yellow(drawn.png), 2)]
    assert reason == "" and drawn.name == "attention_map_1"
    assert rows[1][0].sum() > 1000 and max(rows[0][0].sum(), rows[0][1].sum(), rows[1][1].sum()) < 50
    assert "first layer" in drawn.svg and "last layer" in drawn.svg and "shuffled pairs" in drawn.svg


def test_regions_say_which_is_looked_at_most_in_each_layer() -> None:
    early = VERTICES < 4000
    values = np.stack([np.where(early, 2.0, 0.5), np.where(early, 0.5, 1.5)])
    maps = AttentionMaps((0, 3), 4, {"fitted": values}, {"fitted": np.ones((2, 10242))})
    drawn = regions_picture("mind-vis", maps, {"early": early, "late": ~early, "unseen": np.zeros(10242, bool)}, "a")
    assert drawn.alt.endswith("Most looked at: first layer: early; last layer: late.")
    assert "early (4000)" in drawn.svg and "unseen" not in drawn.svg and "with shuffled pairs" in drawn.svg
    alone = regions_picture("mind-vis", AttentionMaps((0, 3), 4, {"fitted": values}), {"a": early, "b": ~early}, "a")
    assert "shuffled" not in alone.svg + alone.caption


def test_voxels_without_a_place_have_no_map_but_their_regions() -> None:
    space = Space("columns", 4, rois={"a": np.arange(4) < 2, "b": np.arange(4) > 1})
    found, reason = attention_pictures("x", space, AttentionMaps((0,), 1, {"fitted": np.ones((1, 4))}), space.rois)
    assert [each.name for each in found] == ["attention_regions_1"] and reason == "the place of the voxels isn't known"
