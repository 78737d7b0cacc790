import cv2
import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.generate.movement import FlowBasis, carried, coarse_flow
from neuroreel.metrics.motion import direction_accuracy, endpoint_error_over_flow, flow


def texture(seed: int = 0, size: int = 48) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(size, size, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def drifting(x: int, y: int, frames: int = 4, seed: int = 0) -> np.ndarray:
    return np.stack([np.roll(texture(seed), (y * step, x * step), (0, 1)) for step in range(frames)])


@pytest.mark.parametrize(("x", "y"), [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.7, -0.7)])
def test_a_still_that_is_carried_moves_as_the_field_says(x, y):
    still = np.repeat(texture()[None, None], 5, 1)
    field = np.broadcast_to(np.array([x, y], np.float32), (1, 48, 48, 2))
    moved = carried(still, field)
    found = flow(moved)[0, :, 10:-10, 10:-10].mean((0, 1, 2))
    np.testing.assert_allclose(found, [x, y], atol=0.15)
    assert np.array_equal(moved[:, 2], still[:, 2])  # the middle stays where it is


def test_the_picture_that_is_carried_is_the_mean_of_the_frames_or_the_middle_one():
    clips = np.random.default_rng(0).integers(0, 255, (2, 3, 8, 8, 3), dtype=np.uint8)
    nothing = np.zeros((2, 8, 8, 2), np.float32)
    middle = carried(clips, nothing, "middle")
    assert np.array_equal(middle, np.repeat(clips[:, 1:2], 3, 1))
    mean = np.rint(clips.mean(1, keepdims=True))
    assert np.array_equal(carried(clips, nothing), np.repeat(mean, 3, 1))


def test_a_code_of_movement_gives_true_directions_back():
    ways = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (2, 0)]
    true = flow(np.stack([drifting(x, y, seed=seed) for seed, (x, y) in enumerate(ways)]))
    basis = FlowBasis().fit(coarse_flow(true, 6), 5)
    fields = basis.fields(basis.codes(coarse_flow(true, 6)), 48, 48)
    made = np.repeat(fields[:, None], 3, 1)
    assert direction_accuracy(made, true).min() > 0.8
    assert endpoint_error_over_flow(made, true).max() < 0.5
    again, codes = FlowBasis().restore(basis.arrays()), np.ones((1, 5), np.float32)
    assert np.array_equal(again.fields(codes, 48, 48, 0.3), basis.fields(codes, 48, 48, 0.3))


def test_what_is_slower_than_the_quiet_share_stands_still_and_directions_stay():
    coarse = np.zeros((2, 2, 2, 2), np.float32)
    coarse[0, 0, :, 0], coarse[1, 1, :, 1] = 4.0, -0.4
    basis = FlowBasis().fit(coarse, 2)  # the mean speed is 1.1
    fields = basis.fields(basis.codes(coarse), 2, 2, quiet=0.5)
    np.testing.assert_allclose(fields[0, 0, :, 0], 4.0 - 0.55, atol=1e-4)
    np.testing.assert_allclose(fields[0, 0, :, 1], 0, atol=1e-4)
    np.testing.assert_allclose(fields[1], 0, atol=1e-4)


def test_clips_that_move_alike_have_no_code_of_movement():
    with pytest.raises(DataError, match="movement of clips must differ, got all the same"):
        FlowBasis().fit(np.ones((3, 2, 2, 2), np.float32), 4)
