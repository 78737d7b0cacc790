import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.metrics.categories import category_similarity, identify_category, profile_correlation


def test_similarity_is_numpys_correlation_with_known_candidates_only() -> None:
    rng = np.random.default_rng(0)
    predicted, candidates = rng.normal(size=(3, 20)), rng.normal(size=(5, 20))
    candidates[1, 4], candidates[2] = np.nan, 7.0
    found = category_similarity(predicted, candidates)
    wanted = np.corrcoef(predicted, candidates)[:3, 3:]
    np.testing.assert_allclose(found[:, [0, 3, 4]], wanted[:, [0, 3, 4]], atol=1e-11)
    assert np.isnan(found[:, 1:3]).all()


def test_identification_is_the_share_of_other_candidates_that_are_beaten() -> None:
    rng = np.random.default_rng(1)
    similarity, true = rng.normal(size=(30, 12)), rng.integers(12, size=30)
    wanted = [
        np.mean([row[t] > r for j, r in enumerate(row) if j != t]) for row, t in zip(similarity, true, strict=True)
    ]
    np.testing.assert_allclose(identify_category(similarity, true), wanted)
    assert abs(identify_category(rng.normal(size=(4000, 12)), rng.integers(12, size=4000)).mean() - 0.5) < 0.02


def test_a_tie_counts_half_and_a_nan_candidate_is_dropped() -> None:
    similarity = np.array([[0.5, 0.5, 0.1, np.nan], [np.nan, 0.5, 0.1, 0.2], [0.3, np.nan, np.nan, np.nan], [0.0] * 4])
    found = identify_category(similarity, np.array([0, 0, 0, 2]))
    np.testing.assert_array_equal(found, [0.75, np.nan, np.nan, 0.5])


def test_a_constant_prediction_scores_chance() -> None:
    candidates = np.random.default_rng(2).normal(size=(6, 9))
    similarity = category_similarity(np.full((2, 9), 3.0), candidates)
    assert identify_category(similarity, np.array([1, 4])).tolist() == [0.5, 0.5]


def test_profile_correlation_is_per_unit_over_pictures() -> None:
    rng = np.random.default_rng(3)
    truth, predicted = rng.normal(size=(2, 10, 4))
    truth[:, 1], predicted[:, 2] = 5.0, 5.0
    wanted = [np.corrcoef(predicted[:, u], truth[:, u])[0, 1] for u in (0, 3)]
    found = profile_correlation(predicted, truth)
    np.testing.assert_allclose(found[[0, 3]], wanted)
    assert np.isnan(found[1]) and found[2] == 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"^units of the candidates must have as many entries as .* \(3\), got 4$"):
        category_similarity(np.zeros((2, 3)), np.zeros((5, 4)))
    with pytest.raises(DataError, match=r"^true categories must lie within 0..3, got \[4\]$"):
        identify_category(np.zeros((1, 4)), np.array([4]))
