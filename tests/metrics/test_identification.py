import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.metrics.identification import (
    identification_curve,
    identify_pairwise,
    identify_top,
    similarity_matrix,
    top_pairs,
)


def decoded(n=30, units=40, share=0.25, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((n, units))
    return share * truth + (1 - share) * rng.standard_normal((n, units)), truth


def test_similarity_is_the_correlation_of_every_pair():
    predicted, truth = decoded()
    expected = np.corrcoef(predicted, truth)[:30, 30:]
    np.testing.assert_allclose(similarity_matrix(predicted, truth), expected, atol=1e-11)


def test_pairwise_identification_is_the_share_of_pairs_won_by_brute_force():
    similarity = similarity_matrix(*decoded())
    for i, value in enumerate(identify_pairwise(similarity)):
        won = [similarity[i, i] > similarity[i, j] for j in range(30) if j != i]
        assert value == pytest.approx(np.mean(won))
    assert 0.6 < identify_pairwise(similarity).mean() < 0.99


@pytest.mark.parametrize("top", [1, 5, 30])
def test_top_identification_is_a_place_in_the_sorted_list(top):
    similarity = similarity_matrix(*decoded())
    places = [list(np.argsort(-row)).index(i) for i, row in enumerate(similarity)]
    np.testing.assert_array_equal(identify_top(similarity, top), np.array(places) < top)


def test_clips_work_as_vectors_of_their_pixels(photographs):
    predicted, truth = photographs
    as_vectors = similarity_matrix(predicted.reshape(6, -1).astype(float), truth.reshape(6, -1).astype(float))
    np.testing.assert_allclose(similarity_matrix(predicted, truth), as_vectors, atol=1e-10)
    assert identify_pairwise(similarity_matrix(predicted, truth)).mean() == 1


@pytest.mark.parametrize("answer", [np.zeros(40), np.arange(40.0)])
def test_one_answer_to_everything_scores_exactly_chance(answer):
    similarity = similarity_matrix(np.tile(answer, (30, 1)), decoded()[1])
    assert identify_pairwise(similarity).mean() == pytest.approx(0.5)
    assert identify_top(similarity, 1).mean() == pytest.approx(1 / 30)
    assert identify_top(similarity, 5).mean() == pytest.approx(5 / 30)


def test_equal_clips_tie_and_count_one_half():
    predicted, truth = decoded()
    truth[1] = truth[0]
    similarity = similarity_matrix(predicted, truth)
    assert similarity[0, 0] == similarity[0, 1]
    sure = np.array([[0.9, 0.9, 0.1], [0.0, 0.5, 0.5], [0.1, 0.2, 0.3]])
    np.testing.assert_allclose(identify_pairwise(sure), [0.75, 0.75, 1])
    np.testing.assert_allclose(identify_top(sure, 1), [0.5, 0.5, 1])
    np.testing.assert_allclose(top_pairs(sure, 1).sum(axis=1), 1)


def test_a_constant_truth_is_no_candidate():
    predicted, truth = decoded()
    truth[3] = 2.0
    similarity = similarity_matrix(predicted, truth)
    values = identify_pairwise(similarity)
    assert np.isnan(values[3])
    keep = np.arange(30) != 3
    np.testing.assert_allclose(values[keep], identify_pairwise(similarity[np.ix_(keep, keep)]))


@pytest.mark.parametrize("top", [1, 3])
def test_the_curve_is_what_drawing_candidates_tends_to(top):
    similarity = similarity_matrix(*decoded(12))
    sizes, rng = [4, 8, 12], np.random.default_rng(1)
    curve = identification_curve(similarity, sizes, top=top).mean(axis=1)
    for size, exact in zip(sizes, curve, strict=True):
        hits = []
        for i in np.tile(np.arange(12), 400):
            others = rng.choice(np.delete(np.arange(12), i), size - 1, replace=False)
            hits.append((similarity[i, others] > similarity[i, i]).sum() < top)
        assert exact == pytest.approx(np.mean(hits), abs=0.025)


def test_the_curve_ends_in_pairwise_and_in_top_identification():
    similarity = similarity_matrix(*decoded())
    curve = identification_curve(similarity, [2, 30])
    np.testing.assert_allclose(curve[0], identify_pairwise(similarity))
    np.testing.assert_allclose(curve[1], identify_top(similarity, 1))


def test_what_cannot_be_told_apart_is_refused():
    with pytest.raises(DataError, match="similarity must have as many predictions as true clips"):
        similarity_matrix(np.zeros((3, 4)), np.ones((2, 4)))
    with pytest.raises(DataError, match="similarity must have at least 2 clips to tell apart, got 1"):
        similarity_matrix(np.zeros((1, 4)), np.ones((1, 4)))
    with pytest.raises(DataError, match="candidates must be from 2 to the 30 clips, got 31"):
        identification_curve(similarity_matrix(*decoded()), [31])
