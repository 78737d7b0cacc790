from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import cosine
from scipy.stats import spearmanr

from neuroreel.core.errors import DataError
from neuroreel.metrics.consistency import generation_consistency

BLOCKS = np.repeat(np.arange(20), 3)


def planted(seed, *, trial=0.0, brain=0.0):
    """Return samples that share something in a trial, or something that the trial's brain decides, and brains."""
    rng = np.random.default_rng(seed)
    shown = rng.standard_normal((60, 8))
    voxels = shown @ rng.standard_normal((8, 50)) + 0.5 * rng.standard_normal((60, 50))
    own, noise = rng.standard_normal((60, 1, 30)), rng.standard_normal((60, 4, 30))
    meant = (shown @ rng.standard_normal((8, 30)) / 3)[:, None]
    return trial * own + brain * meant + noise, voxels


def measure(seed, **strengths):
    return generation_consistency(*planted(seed, **strengths), BLOCKS, seed=seed, n=200)


def test_cosines_and_rank_correlation_are_those_of_scipy():
    embeddings, brain = planted(0, trial=1.0, brain=1.0)
    found = generation_consistency(embeddings, brain, BLOCKS, seed=0, n=10)
    same = [1 - cosine(a, b) for trial in embeddings for a, b in combinations(trial, 2)]
    pairs = [(i, j) for i, j in combinations(range(60), 2) if BLOCKS[i] != BLOCKS[j]]
    alike = [np.mean([1 - cosine(a, b) for a in embeddings[i] for b in embeddings[j]]) for i, j in pairs]
    brains = [np.corrcoef(brain[i], brain[j])[0, 1] for i, j in pairs]
    assert found.within == pytest.approx(np.mean(same))
    assert found.between == pytest.approx(np.mean(alike))
    assert found.brain_rho == pytest.approx(spearmanr(brains, alike).statistic)


def test_samples_that_share_what_their_trial_shows_are_found():
    found = measure(1, trial=0.7)
    assert found.within > found.between + 0.2 and found.within_p < 0.01
    stays = (found.within - found.between) / 20  # one block in twenty falls on its own place
    assert found.within_chance == pytest.approx(found.between + stays, abs=0.015)
    assert abs(found.brain_rho) < 0.1


def test_brains_that_decide_what_is_shown_are_found():
    found = measure(2, brain=1.0)
    assert found.brain_rho > 0.2 and found.brain_p < 0.01
    assert abs(found.brain_chance) < 0.05


def test_shuffled_brains_and_shuffled_samples_are_not_found():
    embeddings, brain = planted(3, trial=0.7, brain=1.0)
    rng = np.random.default_rng(0)
    mixed = rng.permutation(embeddings.reshape(240, 30)).reshape(60, 4, 30)
    blocks = rng.permutation(20)[BLOCKS] * 3 + np.tile(np.arange(3), 20)
    assert generation_consistency(mixed, brain, BLOCKS, seed=0, n=200).within_p > 0.05
    assert generation_consistency(embeddings, brain[blocks], BLOCKS, seed=0, n=200).brain_p > 0.05


def test_p_values_of_noise_are_spread_evenly():
    found = [measure(seed) for seed in range(100, 140)]
    for name in ("within_p", "brain_p"):
        p = np.array([getattr(one, name) for one in found])
        assert (p < 0.1).mean() < 0.3 and 0.35 < p.mean() < 0.65


def test_trials_that_are_alike_because_they_are_neighbours_make_no_consistency():
    rng = np.random.default_rng(4)
    drift = np.repeat(rng.standard_normal((20, 1, 30)), 3, axis=0)
    embeddings = drift + 0.5 * rng.standard_normal((60, 4, 30))
    brain = np.repeat(rng.standard_normal((20, 50)), 3, axis=0) + 0.5 * rng.standard_normal((60, 50))
    assert generation_consistency(embeddings, brain, BLOCKS, seed=0, n=200).brain_p > 0.05


def test_one_sample_a_trial_says_nothing_of_samples():
    embeddings, brain = planted(5, brain=1.0)
    found = generation_consistency(embeddings[:, :1], brain, BLOCKS, seed=0, n=50).to_dict()
    assert found["within"] is None and found["within_p"] is None and found["brain_rho"] > 0.1


def test_what_cannot_be_measured_is_one_sentence():
    embeddings, brain = planted(6)
    with pytest.raises(DataError, match=r"^brain must have as many entries as embeddings \(60\), got 59$"):
        generation_consistency(embeddings, brain[:-1], BLOCKS, seed=0)
    with pytest.raises(DataError, match=r"^blocks must be at least 3, to have pairs to swap, got 2$"):
        generation_consistency(embeddings, brain, BLOCKS // 10, seed=0)
    brain[3] = 1
    with pytest.raises(DataError, match=r"^brain must vary over the voxels of every trial, got 1 constant trials$"):
        generation_consistency(embeddings, brain, BLOCKS, seed=0)
