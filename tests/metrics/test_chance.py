from dataclasses import replace

import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.core.types import Reconstruction
from neuroreel.metrics.chance import chance_answers, mean_brain, nearest_train, noise_brains, train_marginal

CATEGORIES = ("a", "b", "c")


@pytest.fixture
def sets(make_samples, make_clips):
    rng = np.random.default_rng(0)
    brain = (rng.standard_normal((40, 2, 6)) * [1, 2, 3, 4, 5, 0] + 100).astype(np.float32)
    train = make_samples(brain, make_clips(40, 2, 12, seed=0), np.array(list("aabc") * 10))
    near = brain[[7, 3, 30]] + 0.01
    return train, make_samples(near, make_clips(3, 2, 12, seed=1), np.array(list("abc")))


def test_the_nearest_training_clip_is_that_of_the_nearest_time_whatever_the_brain(sets):
    train, test = sets
    train = replace(train, onset_s=np.arange(40.0), run=np.repeat(["a", "b"], 20))
    test = replace(test, onset_s=np.array([3.2, 35.9, 12.0]), run=np.array(["a", "a", "other"]))
    answer = nearest_train(train, test, categories=CATEGORIES)
    np.testing.assert_array_equal(answer.clips, train.clips[[3, 19, 12]])
    np.testing.assert_array_equal(answer.probabilities, [[0, 0, 1], [0, 0, 1], [1, 0, 0]])


def test_the_marginal_is_the_mean_clip_and_the_frequencies(sets):
    answer = train_marginal(sets[0], 3, categories=CATEGORIES)
    np.testing.assert_array_equal(answer.clips[2], np.round(sets[0].clips.mean(axis=0)).astype(np.uint8))
    np.testing.assert_allclose(answer.probabilities, [[0.5, 0.25, 0.25]] * 3)


def test_noise_has_the_moments_of_training_and_is_the_same_for_the_same_seed(sets, make_samples):
    many = make_samples(np.zeros((4000, 2, 6), dtype=np.float32))
    noise, other = (each.brain for each in noise_brains(sets[0], many, seed=1, draws=2))
    np.testing.assert_allclose(noise.mean(axis=0), sets[0].brain.mean(axis=0), atol=0.4)
    np.testing.assert_allclose(noise.std(axis=0), sets[0].brain.std(axis=0), rtol=0.06)
    np.testing.assert_array_equal(noise, next(noise_brains(sets[0], many, seed=1, draws=1)).brain)
    assert (noise != next(noise_brains(sets[0], many, seed=2, draws=1)).brain).any() and (noise != other).any()


def test_the_mean_brain_is_one_window_for_all(sets):
    brain = mean_brain(*sets).brain
    np.testing.assert_allclose(brain[0], sets[0].brain.mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(brain[0], brain[2])


def test_a_system_never_sees_the_truth_of_the_test_set(sets):
    train, test = sets
    seen = []

    def reconstruct(samples):
        seen.append(samples)
        clips = np.broadcast_to(np.uint8(samples.brain.mean()), (len(samples), 2, 12, 12, 3))
        return Reconstruction(clips=clips, probabilities=np.full((3, 3), 1 / 3), categories=CATEGORIES)

    answers = chance_answers(reconstruct, train, test, seed=0)
    assert set(answers) == {"mean-brain", "noise", "train-marginal", "nearest-train"}
    assert all(samples.clips is None and set(samples.category) == {""} for samples in seen)
    given = [answer for row in answers.values() for answer in row]
    assert len(given) == 8 and len(seen) == 6
    assert all(answer.clips.shape == test.clips.shape for answer in given)
    assert all(answer.probabilities.shape == (3, 3) for answer in given)
    assert (seen[1].brain != seen[2].brain).any()


def test_a_system_of_categories_alone_gets_no_clips(sets):
    made = Reconstruction(probabilities=np.full((3, 3), 1 / 3), categories=CATEGORIES)
    answers = chance_answers(lambda samples: made, *sets, seed=0)
    assert all(answer.clips is None for row in answers.values() for answer in row)


def test_windows_of_another_shape_are_refused(sets, make_samples):
    other = make_samples(np.zeros((2, 3, 6), dtype=np.float32))
    with pytest.raises(
        DataError, match=r"test windows must have the shape \(2, 6\) of the training windows, got \(3, 6\)"
    ):
        next(noise_brains(sets[0], other, seed=0, draws=1))
