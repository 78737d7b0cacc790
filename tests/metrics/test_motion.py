import numpy as np
import pytest
from skimage.data import astronaut

from neuroreel.core.errors import DataError
from neuroreel.metrics import motion

FRAMES = 4
DRIFTS = [(1, 0), (-1, 0), (0, 1), (0, -1)]


def drifting(x, y, size=48):
    """A photograph that moves by (x, y) pixels per frame."""
    picture = astronaut()[60:260, 100:300]
    starts = [(60 - y * t, 60 - x * t) for t in range(FRAMES)]
    return np.array([[picture[top : top + size, left : left + size] for top, left in starts]])


@pytest.mark.parametrize(("x", "y"), DRIFTS)
def test_the_flow_of_a_drifting_photograph_is_its_drift(x, y):
    field = motion.flow(drifting(x, y))[0, :, 8:-8, 8:-8]
    assert field.shape == (FRAMES - 1, 32, 32, 2)
    assert np.median(field, axis=(0, 1, 2)) == pytest.approx((x, y), abs=0.15)


def test_what_stands_still_has_no_flow():
    assert not motion.flow(drifting(0, 0)).any()


def test_endpoint_error_is_the_length_of_the_difference_and_depends_on_speed():
    true, slow = (np.full((1, 2, 3, 3, 2), value) for value in ([3.0, 4.0], [0.0, 0.0]))
    assert motion.endpoint_error(slow, true) == pytest.approx(5)
    assert motion.endpoint_error(slow, true / 10) == pytest.approx(0.5)
    assert motion.endpoint_error_over_flow(slow, true) == pytest.approx(1)
    assert motion.endpoint_error_over_flow(slow, true / 10) == pytest.approx(1)
    assert np.isnan(motion.endpoint_error_over_flow(true, slow))


def test_direction_is_right_within_45_degrees():
    angles = np.radians([0, 40, 50, 180])
    predicted = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None, None, None]
    truth = np.broadcast_to([2.0, 0.0], predicted.shape)
    assert motion.direction_accuracy(predicted, truth)[0] == 0.5
    assert motion.direction_accuracy(0 * predicted, truth)[0] == 0
    assert np.isnan(motion.direction_accuracy(predicted, 0 * truth)[0])


def test_a_direction_at_random_is_right_one_time_in_four():
    predicted, truth = np.random.default_rng(0).standard_normal((2, 50, 2, 20, 20, 2))
    assert motion.direction_accuracy(predicted, truth).mean() == pytest.approx(0.25, abs=0.01)


def test_a_still_wins_consistency_and_loses_what_looks_at_motion():
    clip = drifting(1, 0)
    still = motion.without_motion(clip, seed=0)["static"]
    pixels = still.reshape(1, FRAMES, -1), clip.reshape(1, FRAMES, -1)
    assert motion.consistency_adjacent(pixels[0]) == pytest.approx(1)
    assert motion.consistency_adjacent(pixels[1])[0] < 0.999
    true = motion.flow(clip)
    assert motion.endpoint_error_over_flow(motion.flow(still), true) == pytest.approx(1)
    assert motion.direction_accuracy(motion.flow(still), true) == 0


def test_a_reversed_clip_moves_the_other_way():
    clip = drifting(0, 1)
    backwards = motion.flow(motion.without_motion(clip, seed=0)["reversed"])
    assert motion.direction_accuracy(motion.flow(clip), motion.flow(clip)) == 1
    assert motion.direction_accuracy(backwards, motion.flow(clip))[0] < 0.05


def test_what_has_no_motion_is_made_of_the_same_frames():
    clips = np.random.default_rng(1).integers(0, 255, (40, 3, 2, 2, 3)).astype(np.uint8)
    made = motion.without_motion(clips, seed=0)
    np.testing.assert_array_equal(made["reversed"][:, 0], clips[:, 2])
    np.testing.assert_array_equal(made["static"], np.repeat(clips[:, 1:2], 3, axis=1))
    np.testing.assert_array_equal(np.sort(made["frame-shuffled"], axis=1), np.sort(clips, axis=1))
    assert (made["frame-shuffled"] != clips).any(axis=(1, 2, 3, 4)).all()
    np.testing.assert_array_equal(made["frame-shuffled"], motion.without_motion(clips, seed=0)["frame-shuffled"])


def test_consistency_is_the_mean_cosine_of_pairs_of_frames():
    frames = np.random.default_rng(2).standard_normal((2, 4, 8))
    unit = frames / np.linalg.norm(frames, axis=2, keepdims=True)
    every = [np.mean([u[i] @ u[j] for i in range(4) for j in range(i)]) for u in unit]
    np.testing.assert_allclose(motion.consistency_all_pairs(frames), every)
    near = [np.mean([u[i] @ u[i + 1] for i in range(3)]) for u in unit]
    np.testing.assert_allclose(motion.consistency_adjacent(frames), near)
    np.testing.assert_allclose(motion.consistency_gated_compat(frames, np.array([0.6, 0.7])), [0, near[1]])


def test_one_frame_does_not_move():
    with pytest.raises(DataError, match="clips must have at least 2 frames to move, got 1"):
        motion.flow(drifting(1, 0)[:, :1])
    with pytest.raises(DataError, match="embeddings must be of at least 2 frames, got 1"):
        motion.consistency_adjacent(np.ones((2, 1, 3)))
