import numpy as np
import pytest
from scipy.stats import bootstrap, kstest

from neuroreel.core.errors import DataError
from neuroreel.metrics.inference import (
    block_bootstrap,
    block_orders,
    block_permutation,
    interval_of_mean,
    shuffled_chance,
)

BLOCKS = np.repeat(np.arange(12), 5)


def by_blocks(rng, blocks=BLOCKS, share=0.8):
    """Values whose blocks move together."""
    return share * rng.standard_normal(blocks.max() + 1)[blocks] + (1 - share) * rng.standard_normal(len(blocks))


def test_the_interval_of_correlated_clips_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = [np.subtract(*np.sign(block_bootstrap(by_blocks(rng), BLOCKS, seed=i, n=500))) < 0 for i in range(400)]
    assert 0.92 < np.mean(inside) < 0.98


def test_an_interval_that_takes_clips_for_independent_is_too_narrow():
    rng = np.random.default_rng(1)
    single = np.arange(len(BLOCKS))
    inside = [np.subtract(*np.sign(block_bootstrap(by_blocks(rng), single, seed=i, n=500))) < 0 for i in range(200)]
    assert np.mean(inside) < 0.75


def test_with_many_single_blocks_the_interval_is_that_of_scipy():
    values = np.random.default_rng(2).exponential(size=400)
    scipy = bootstrap((values,), np.mean, method="percentile", rng=0, n_resamples=5000).confidence_interval
    assert block_bootstrap(values, np.arange(400), seed=0, n=5000) == pytest.approx((scipy.low, scipy.high), abs=0.01)


def test_the_interval_is_the_same_for_the_same_seed_and_leaves_undefined_clips_out():
    values = by_blocks(np.random.default_rng(3))
    assert block_bootstrap(values, BLOCKS, seed=4) == block_bootstrap(values, BLOCKS, seed=4)
    assert block_bootstrap(values, BLOCKS, seed=4) != block_bootstrap(values, BLOCKS, seed=5)
    values[:5] = np.nan
    assert block_bootstrap(values, BLOCKS, seed=4) == block_bootstrap(values[5:], BLOCKS[5:], seed=4)


def test_one_block_gives_no_interval():
    with pytest.raises(DataError, match="blocks with a value must be at least 2"):
        block_bootstrap(np.ones(5), np.zeros(5), seed=0)
    assert interval_of_mean(np.where(BLOCKS == 3, 1.0, np.nan), BLOCKS, seed=0) == (None, None)


def test_orders_move_whole_blocks_and_use_every_clip_once():
    for order in block_orders(BLOCKS, 50, np.random.default_rng(0)):
        assert sorted(order) == list(range(60))
        assert (np.diff(order.reshape(12, 5), axis=1) == 1).all()
    uneven = np.repeat([0, 1, 2], [2, 5, 3])
    for order in block_orders(uneven, 20, np.random.default_rng(0)):
        assert sorted(order) == list(range(10))
        assert (np.diff(order) == 1).sum() >= 7


def test_p_is_uniform_where_nothing_is_decoded():
    rng = np.random.default_rng(5)
    ps = [
        block_permutation(np.outer(by_blocks(rng), by_blocks(rng)), BLOCKS, seed=i, n=199).p.item() for i in range(300)
    ]
    assert kstest(ps, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(ps) <= 0.05) < 0.08


def test_permuting_single_clips_calls_noise_significant():
    rng = np.random.default_rng(6)
    single = np.arange(len(BLOCKS))
    ps = [
        block_permutation(np.outer(by_blocks(rng), by_blocks(rng)), single, seed=i, n=199).p.item() for i in range(200)
    ]
    assert np.mean(np.array(ps) <= 0.05) > 0.2


def test_a_true_effect_has_a_small_p_in_either_direction():
    distance = np.abs(np.subtract.outer(np.arange(60.0), np.arange(60.0)))
    assert block_permutation(-distance, BLOCKS, seed=0, n=999).p == pytest.approx(0.001)
    assert block_permutation(distance, BLOCKS, seed=0, n=999, higher_is_better=False).p == pytest.approx(0.001)
    assert block_permutation(distance, BLOCKS, seed=0, n=999).p == 1


def test_a_function_of_the_order_gives_the_p_of_the_matrix():
    rng = np.random.default_rng(7)
    a, b = by_blocks(rng), by_blocks(rng)
    of_matrix = block_permutation(np.outer(a, b), BLOCKS, seed=1, n=199)
    of_function = block_permutation(lambda order: np.mean(a * b[order]), BLOCKS, seed=1, n=199)
    np.testing.assert_allclose(of_function.null, of_matrix.null)
    assert of_function.p == of_matrix.p


def test_shuffled_chance_takes_only_pairs_of_different_blocks():
    pairs = np.where(BLOCKS[:, None] == BLOCKS, 100.0, 0.25)
    assert shuffled_chance(pairs, None, None, BLOCKS, seed=0) == 0.25
    predicted, truth = BLOCKS.astype(float), BLOCKS.astype(float)
    same = shuffled_chance(lambda a, b: (a == b).astype(float), predicted, truth, BLOCKS, seed=0)
    assert same == 0
