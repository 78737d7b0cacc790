import numpy as np
import pytest
from sklearn.metrics import r2_score

from neuroreel.core.errors import DataError
from neuroreel.metrics import encoding
from neuroreel.metrics.encoding import over_ceiling, score_voxels, voxel_correlation, voxel_r2

BLOCKS = np.repeat(np.arange(20), 6)


def bold(voxels=30, share=0.5, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((120, voxels)).astype(np.float32) + 100
    return (share * truth + (1 - share) * rng.standard_normal(truth.shape)).astype(np.float32), truth


def test_r2_is_that_of_scikit_learn():
    predicted, truth = bold()
    np.testing.assert_allclose(
        voxel_r2(predicted, truth), r2_score(truth, predicted, multioutput="raw_values"), rtol=1e-6
    )


def test_correlation_is_that_of_numpy_also_in_small_blocks(monkeypatch):
    predicted, truth = bold()
    monkeypatch.setattr(encoding, "VOXELS_AT_ONCE", 7)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, truth.T, strict=True)]
    np.testing.assert_allclose(voxel_correlation(predicted, truth), expected, atol=1e-6)


def test_constant_voxels_are_undefined_and_constant_predictions_are_0():
    predicted, truth = bold()
    truth[:, 0], predicted[:, 1] = 5, 5
    for values in (voxel_correlation(predicted, truth), voxel_r2(predicted, truth)):
        assert np.flatnonzero(np.isnan(values)).tolist() == [0]
    assert voxel_correlation(predicted, truth)[1] == 0


def test_values_are_divided_by_the_ceiling_only_where_there_is_one():
    ratio = over_ceiling(np.array([0.3, 0.3, 0.3]), np.array([0.6, 0.05, np.nan]))
    np.testing.assert_allclose(ratio, [0.5, np.nan, np.nan])
    with pytest.raises(DataError, match=r"ceiling must have the values' shape \(3,\), got \(2,\)"):
        over_ceiling(np.zeros(3), np.zeros(2))


def test_only_predicted_voxels_are_significant():
    predicted, truth = bold(60)
    predicted[:, :30] = bold(60, seed=9)[0][:, :30]
    scores = score_voxels(predicted, truth, BLOCKS, ceiling=np.full(60, 0.8), n=500)
    assert scores.significant[30:].all()
    assert scores.significant[:30].sum() <= 4
    np.testing.assert_allclose(scores.correlation_over_ceiling, scores.correlation / 0.8)
    np.testing.assert_allclose(scores.r2_over_ceiling, scores.r2 / 0.64)


def test_a_constant_voxel_is_never_significant():
    predicted, truth = bold(5)
    truth[:, 2] = 1
    scores = score_voxels(predicted, truth, BLOCKS, n=100)
    assert np.isnan(scores.p[2])
    assert not scores.significant[2]
    assert scores.r2_over_ceiling is None


def test_bold_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match="predicted must be finite, got 1 of 240 values"):
        voxel_r2(np.where(np.arange(240).reshape(120, 2) == 3, np.nan, 1.0), np.ones((120, 2)))
    with pytest.raises(DataError, match=r"predicted must have the truth's shape \(120, 3\), got \(120, 2\)"):
        voxel_r2(np.ones((120, 2)), np.ones((120, 3)))
