import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.core.scores import Scores
from neuroreel.metrics.identification import identification_curve, similarity_matrix
from neuroreel.metrics.sweep import curve_of_candidates, lag_sweep, sweep_lags


def peaked(lag_s):
    value = np.exp(-((lag_s - 5) ** 2) / 8)
    return Scores(
        "pixcorr", np.array([value - 0.1, value + 0.1]), low=value - 0.2, high=value + 0.2, chance={"noise": 0.1}
    )


def test_lags_are_whole_trs_from_6_s_before_to_12_s_after():
    np.testing.assert_allclose(sweep_lags(2.0), np.arange(-6, 13, 2))
    lags = sweep_lags(1.317)
    np.testing.assert_allclose(lags / 1.317, np.arange(-4, 10))
    assert lags[0] >= -6
    assert lags[-1] <= 12


def test_a_sweep_holds_the_score_at_each_lag():
    sweep = lag_sweep(peaked, sweep_lags(1.0))
    assert sweep.best_lag_s == 5
    np.testing.assert_allclose(sweep.values, [np.exp(-((lag - 5) ** 2) / 8) for lag in range(-6, 13)])
    np.testing.assert_allclose(sweep.high - sweep.low, 0.4)
    assert sweep.chance == pytest.approx(0.1)
    assert sweep.variant == "pixcorr"


def test_a_sweep_of_two_metrics_is_refused():
    with pytest.raises(DataError, match="a lag sweep must measure one metric, got mse, psnr"):
        lag_sweep(lambda lag: Scores("mse" if lag > 0 else "psnr", np.ones(2)), [-1.0, 1.0])


def test_the_curve_has_its_mean_interval_and_chance():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((40, 30))
    similarity = similarity_matrix(truth + 2 * rng.standard_normal(truth.shape), truth)
    curve = curve_of_candidates(similarity, np.arange(40) // 4, space="latents")
    assert curve.variant == "identification:top1@latents"
    assert (curve.candidates[0], curve.candidates[-1]) == (2, 40)
    np.testing.assert_allclose(
        curve.values, identification_curve(similarity, curve.candidates.astype(int)).mean(axis=1)
    )
    np.testing.assert_allclose(curve.chance, 1 / curve.candidates)
    assert ((curve.low < curve.values) & (curve.values < curve.high)).all()
