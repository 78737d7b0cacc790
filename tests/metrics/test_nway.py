import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.metrics.nway import category_accuracy, nway, nway_chance, nway_top1, nway_top3_compat


def probabilities(n, classes, seed):
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), n)


def sampled(predicted, truth, n_way, *, top, accepted, trials, seed=0):
    """What released code does: draw distractors and see whether a true class is among the best."""
    rng = np.random.default_rng(seed)
    hits = np.zeros(len(truth))
    for i, (guess, true) in enumerate(zip(predicted, truth, strict=True)):
        own = np.argsort(true)[::-1][:accepted]
        rest = np.setdiff1d(np.arange(len(true)), own)
        for _ in range(trials):
            drawn = rng.choice(rest, n_way - 1, replace=False)
            hits[i] += (guess[drawn] > guess[own].max()).sum() < top
    return hits / trials


@pytest.mark.parametrize("n_way", [2, 10, 30])
@pytest.mark.parametrize(("top", "accepted"), [(1, 1), (1, 3), (3, 1)])
def test_the_exact_accuracy_is_what_sampling_tends_to(n_way, top, accepted):
    truth = probabilities(8, 40, 0)
    predicted = 0.5 * truth + 0.5 * probabilities(8, 40, 1)
    estimate = sampled(predicted, truth, n_way, top=top, accepted=accepted, trials=1500)
    exact = nway(predicted, truth, n_way, top=top, accepted=accepted)
    assert np.abs(exact - estimate).max() < 0.06
    assert abs(exact.mean() - estimate.mean()) < 0.02


@pytest.mark.parametrize(("n_way", "chance"), [(2, 0.75), (50, 3 / 52)])
def test_the_compat_variant_has_a_chance_of_75_percent_and_of_5_77_percent(n_way, chance):
    truth, predicted = probabilities(4000, 400, 2), probabilities(4000, 400, 3)
    assert nway_chance(n_way, accepted=3) == pytest.approx(chance)
    assert nway_top3_compat(predicted, truth, n_way).mean() == pytest.approx(chance, abs=0.015)
    assert nway_top1(predicted, truth, n_way).mean() == pytest.approx(1 / n_way, abs=0.015)


def test_the_published_numbers_of_chance_are_these():
    assert f"{nway_chance(2, accepted=3):.1%}" == "75.0%"
    assert f"{nway_chance(50, accepted=3):.2%}" == "5.77%"
    assert nway_chance(50) == pytest.approx(0.02)
    assert nway_chance(10, top=3) == pytest.approx(0.3)


def test_a_uniform_prediction_scores_exactly_chance():
    truth, flat = probabilities(20, 60, 4), np.full((20, 60), 1 / 60)
    np.testing.assert_allclose(nway(flat, truth, 50), 0.02)
    np.testing.assert_allclose(nway(flat, truth, 10, top=3), 0.3)
    np.testing.assert_allclose(nway(flat, truth, 50, accepted=3), nway_chance(50, accepted=3))


def test_a_perfect_prediction_scores_1_and_the_worst_0():
    truth = probabilities(20, 30, 5)
    assert nway(truth, truth, 30).tolist() == [1.0] * 20
    assert nway(-truth, truth, 2).tolist() == [0.0] * 20


def test_ties_are_broken_at_random():
    truth = np.array([[0.7, 0.1, 0.1, 0.1]])
    predicted = np.array([[0.4, 0.4, 0.1, 0.1]])
    assert nway(predicted, truth, 4)[0] == pytest.approx(0.5)
    assert nway(predicted, truth, 2)[0] == pytest.approx(2 / 3 + 1 / 3 * 0.5)


def test_a_brain_blind_marginal_can_pass_90_percent_of_the_compat_variant():
    rng = np.random.default_rng(6)
    marginal = np.sort(rng.dirichlet(np.full(400, 0.05)))[::-1]
    truth = np.array([rng.dirichlet(marginal * 60 + 1e-3) for _ in range(300)])
    blind = np.tile(marginal, (300, 1))
    assert nway_top3_compat(blind, truth, 2).mean() > 0.9


def test_too_few_classes_are_refused():
    p = probabilities(2, 10, 7)
    with pytest.raises(DataError, match="n_way must be from 2 to 8, what 10 classes with 3 accepted leave, got 50"):
        nway_top3_compat(p, p, 50)
    with pytest.raises(DataError, match="predicted must have the truth's shape"):
        nway_top1(p[:, :9], p, 2)


def test_labels_are_right_wrong_or_missing():
    values = category_accuracy(np.array(["cat", "dog", "cat"]), np.array(["cat", "cat", ""]))
    np.testing.assert_array_equal(values, [1, 0, np.nan])
