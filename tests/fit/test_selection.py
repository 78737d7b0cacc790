import numpy as np
import pytest

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.seeds import generator
from neuroreel.fit.selection import Scaling, spread_weights, top_features


def drawn(rows=40, features=30, targets=9):
    rng = generator(0, "selection")
    x = rng.standard_normal((rows, features)) * rng.uniform(0.1, 50, features) + 7
    return x, x[:, :targets] / 10 + rng.standard_normal((rows, targets)) + 100


def test_the_chosen_features_are_those_of_brute_force():
    x, y = drawn()
    chosen = top_features(x, y, 5)
    for target in range(y.shape[1]):
        r = [abs(np.corrcoef(column, y[:, target])[0, 1]) for column in x.T]
        assert set(chosen[target]) == set(np.argsort(r)[-5:])


def test_blocks_of_targets_do_not_change_the_choice():
    x, y = drawn()
    np.testing.assert_array_equal(top_features(x, y, 7, block=2), top_features(x, y, 7))


def test_a_tie_goes_to_the_feature_that_comes_first():
    x, y = drawn()
    x[:, 20:] = x[:, 5:6] * np.arange(1, 11) - 3  # all correlate alike
    best = top_features(x, x[:, 5:6] + 0.1 * y[:, :1], 3)
    assert best.tolist() == [[5, 20, 21]]


def test_constant_voxels_come_last_and_a_constant_target_takes_the_first():
    x, y = drawn()
    x[:, 0], y[:, 1] = 3.3, 0.1
    chosen = top_features(x, y, 29)
    assert 0 not in chosen[0]
    assert chosen[1].tolist() == list(range(29))


def test_more_features_than_there_are_means_all_of_them():
    x, y = drawn()
    assert top_features(x, y, 500).tolist() == [list(range(30))] * 9


def test_scaling_goes_there_and_back_with_ddof_1():
    x, _ = drawn()
    x[:, 2] = 0.1
    scaling = Scaling.of(x)
    scaled = scaling.apply(x)
    np.testing.assert_allclose(np.delete(scaled.std(0, ddof=1), 2), 1)
    assert scaling.sd[2] == 1
    np.testing.assert_allclose(scaling.undo(scaled), x)


def test_spread_weights_stand_in_the_column_of_their_feature():
    dense = spread_weights(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0, 3], [2, 1]]), 4)
    assert dense.T.tolist() == [[1, 0, 0, 2], [0, 4, 3, 0]]


def test_bad_input_is_one_sentence():
    x, y = drawn()
    with pytest.raises(ConfigError, match="count must be a whole number of 1 or more, got 0"):
        top_features(x, y, 0)
    with pytest.raises(DataError, match=r"y must have as many entries as x rows \(40\), got 39"):
        top_features(x, y[1:], 3)
