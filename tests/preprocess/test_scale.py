import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from sklearn.preprocessing import StandardScaler

from neuroreel.core.errors import DataError, NeuroreelWarning
from neuroreel.preprocess.scale import Scaler, percent_signal_change, zscore_run

RNG = np.random.default_rng(3)


def test_the_test_data_is_scaled_with_the_moments_of_train_as_scikit_learn_does() -> None:
    train, test = RNG.normal(1e4, 3, size=(600, 5)), RNG.normal(1e4 + 2, 6, size=(40, 5))
    theirs = StandardScaler().fit(train)
    ours = Scaler.fit(train)
    np.testing.assert_allclose(ours.transform(test), theirs.transform(test), atol=1e-4)
    np.testing.assert_allclose(ours.inverse(ours.transform(test)), test, rtol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(2, 300), min_size=1, max_size=4), st.sampled_from([0, 1]))
def test_several_runs_are_fitted_as_if_they_were_one(lengths: list[int], ddof: int) -> None:
    runs = [np.random.default_rng(n).normal(n, 2, size=(n, 3)).astype(np.float32) for n in lengths]
    expected = scipy.stats.zscore(np.concatenate(runs).astype(float), axis=0, ddof=ddof)
    scaler = Scaler.fit(runs, ddof=ddof)
    np.testing.assert_allclose(np.concatenate([scaler.transform(run) for run in runs]), expected, atol=1e-4)


def test_windows_are_scaled_per_voxel_over_clips_and_volumes() -> None:
    windows = RNG.normal(size=(20, 4, 3)) * [1, 10, 100]
    scaled = Scaler.fit(windows).transform(windows)
    np.testing.assert_allclose(scaled.std(axis=(0, 1)), 1, rtol=1e-5)
    assert scaled.shape == windows.shape and scaled.dtype == np.float32


def test_constant_voxels_are_counted_said_and_become_zero() -> None:
    train = RNG.normal(size=(30, 4))
    train[:, 2] = 0.1
    with pytest.warns(NeuroreelWarning, match=r"^1 of 4 voxels are constant in training and become 0$"):
        scaler = Scaler.fit(train)
    scaled = scaler.transform(RNG.normal(size=(10, 4)))
    assert scaler.constant.tolist() == [False, False, True, False] and np.all(scaled[:, 2] == 0)
    np.testing.assert_allclose(scaler.inverse(scaled)[:, 2], 0.1, rtol=1e-6)
    np.testing.assert_allclose(scaler.inverse(np.ones((5, 4)))[:, 2], 0.1, rtol=1e-6)


def test_fitting_and_scaling_write_nothing_into_the_callers_array() -> None:
    train = RNG.normal(size=(30, 4)).astype(np.float32)
    before = train.copy()
    Scaler.fit(train).transform(train)
    np.testing.assert_array_equal(train, before)


def test_one_run_scaled_by_itself_equals_scipys_zscore(make_bold) -> None:
    bold = make_bold(RNG.normal(300, 9, size=(50, 6)))
    np.testing.assert_allclose(zscore_run(bold, ddof=1).data, scipy.stats.zscore(bold.data, ddof=1), atol=1e-4)


def test_percent_signal_change_is_a_share_of_the_mean(make_bold) -> None:
    wave = np.sin(np.arange(100) * 2 * np.pi / 10)[:, None]
    bold = make_bold(np.array([[500.0, 1200.0]]) * (1 + 0.02 * wave))
    np.testing.assert_allclose(percent_signal_change(bold).data, np.tile(2 * wave, 2), atol=1e-4)


def test_voxels_without_a_mean_are_counted_and_none_at_all_is_refused(make_bold) -> None:
    data = RNG.normal(500, 5, size=(60, 3))
    data[:, 1] -= data[:, 1].mean()
    with pytest.warns(NeuroreelWarning, match=r"^1 of 3 voxels have no mean above 0 and become 0 \(sub-01 run 1\)$"):
        assert np.all(percent_signal_change(make_bold(data)).data[:, 1] == 0)
    with pytest.raises(DataError, match=r"^bold must have voxels with a mean above 0 .*, got 0 of 1 \(sub-01 run 1\)$"):
        percent_signal_change(make_bold(data[:, 1:2]))


def test_what_cannot_be_fitted_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"^train must be finite, got 1 of 4 values NaN or infinite$"):
        Scaler.fit(np.array([[1.0, np.nan], [1, 2]]))
    with pytest.raises(DataError, match=r"^voxels of a run must have as many entries as those of the first \(2\)"):
        Scaler.fit([np.zeros((3, 2)), np.zeros((3, 4))])
    with pytest.raises(DataError, match=r"^train must have more than 1 samples, got 1$"):
        Scaler.fit(np.zeros((1, 2)), ddof=1)
    with pytest.raises(DataError, match=r"^voxels must have as many entries as those of the scaler \(2\), got 3$"):
        Scaler.fit(RNG.normal(size=(9, 2))).transform(np.zeros((4, 3)))
