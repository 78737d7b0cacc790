import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from neuroreel.core.errors import DataError
from neuroreel.core.types import Run
from neuroreel.preprocess.repeats import (
    average_repeats,
    group_repeats,
    normalised_correlation,
    signal_power,
    signal_power_ceiling,
    split_half_ceiling,
    stack_repeats,
)

CEILINGS = [split_half_ceiling, signal_power_ceiling]


def simulate(
    snr: float, repeats: int, *, trs: int = 480, voxels: int = 400, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return a signal (trs, voxels) of variance `snr` and its repeats in noise of variance 1."""
    rng = np.random.default_rng(seed)
    signal = np.sqrt(snr) * rng.normal(size=(trs, voxels))
    return signal, signal + rng.normal(size=(repeats, trs, voxels))


@pytest.mark.parametrize("ceiling", CEILINGS)
@pytest.mark.parametrize("snr", [0.05, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("repeats", [2, 5, 10])
def test_the_ceiling_of_a_known_snr_comes_back_within_two_hundredths(ceiling, snr: float, repeats: int) -> None:
    _, measured = simulate(snr, repeats, trs=1500)
    known = np.sqrt(snr / (snr + 1 / repeats))
    assert np.mean(ceiling(measured)) == pytest.approx(known, abs=0.02)


@pytest.mark.parametrize("ceiling", CEILINGS)
@pytest.mark.parametrize("of", [1, 2, 10, 100])
def test_the_ceiling_of_another_number_of_repeats_is_extrapolated(ceiling, of: int) -> None:
    _, measured = simulate(0.3, 6, trs=2000)
    assert np.mean(ceiling(measured, of=of)) == pytest.approx(np.sqrt(0.3 / (0.3 + 1 / of)), abs=0.02)


@pytest.mark.parametrize("ceiling", CEILINGS)
def test_the_ceiling_is_what_the_true_signal_scores(ceiling) -> None:
    signal, measured = simulate(0.5, 4, trs=1000)
    mean = measured.mean(axis=0)
    scored = [np.corrcoef(x, y)[0, 1] for x, y in zip(signal.T, mean.T, strict=True)]
    assert np.mean(ceiling(measured)) == pytest.approx(np.mean(scored), abs=0.02)


@pytest.mark.parametrize("ceiling", CEILINGS)
def test_voxels_that_see_nothing_have_a_ceiling_near_zero_and_constant_ones_none(ceiling) -> None:
    _, measured = simulate(0.0, 10, trs=2000)
    measured[3, :, 7] = 1.0
    values = ceiling(measured, of=1)
    assert np.isnan(values[7]) and np.nanmedian(values) < 0.05 and np.nanmin(values) >= 0


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 7), st.integers(3, 30))
def test_signal_power_is_sahani_and_lindens_formula(repeats: int, trs: int) -> None:
    data = np.random.default_rng(trs).normal(size=(repeats, trs, 3)) * [1, 10, 100]
    power_of_mean = data.mean(axis=0).var(axis=0, ddof=1)
    mean_power = data.var(axis=1, ddof=1).mean(axis=0)
    signal, noise = signal_power(data)
    np.testing.assert_allclose(signal, (repeats * power_of_mean - mean_power) / (repeats - 1), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(signal + noise, mean_power, rtol=1e-8)


def test_split_halves_equal_correlations_of_the_means_put_through_spearman_brown() -> None:
    _, measured = simulate(1.0, 4, trs=60, voxels=3)
    halves = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    means = [[measured[list(side)].mean(axis=0) for side in pair] for pair in halves]
    r = np.mean([[np.corrcoef(a[:, v], b[:, v])[0, 1] for v in range(3)] for a, b in means], axis=0)
    np.testing.assert_allclose(split_half_ceiling(measured), np.sqrt(2 * r / (1 + r)), rtol=1e-10)


def test_random_splits_are_near_all_of_them_and_the_same_each_time() -> None:
    _, measured = simulate(0.3, 9, voxels=50)
    some = split_half_ceiling(measured, splits=60, seed=4)
    np.testing.assert_allclose(some, split_half_ceiling(measured, splits=1000), atol=0.02)
    np.testing.assert_array_equal(some, split_half_ceiling(measured, splits=60, seed=4))


def test_more_voxels_than_a_block_give_the_same_ceiling() -> None:
    _, measured = simulate(0.5, 3, trs=20, voxels=2100)
    np.testing.assert_allclose(split_half_ceiling(measured)[2090:], split_half_ceiling(measured[:, :, 2090:]))


def test_the_normalised_correlation_of_the_signal_is_one_and_of_noise_zero() -> None:
    signal, measured = simulate(0.5, 5, trs=2000)
    noise = np.random.default_rng(9).normal(size=signal.shape)
    assert np.mean(normalised_correlation(signal, measured)) == pytest.approx(1, abs=0.02)
    assert np.mean(normalised_correlation(noise, measured)) == pytest.approx(0, abs=0.02)
    half = signal / np.sqrt(0.5) + noise
    assert np.mean(normalised_correlation(half, measured)) == pytest.approx(np.sqrt(0.5), abs=0.02)


def test_repeats_are_grouped_by_stimulus_and_averaged(make_bold) -> None:
    data = {name: np.random.default_rng(ord(name)).normal(size=(12, 3)) for name in "abcd"}
    shown = {"a": "movie", "b": "other", "c": "movie", "d": ""}
    runs = [Run(make_bold(data[name], run=name), shown[name]) for name in "abcd"]
    movie, other, alone = average_repeats(runs)
    assert (movie.of, other.of, alone.of) == (("a", "c"), ("b",), ("d",))
    np.testing.assert_allclose(movie.run.bold.data, (data["a"] + data["c"]) / 2, atol=1e-6)
    assert movie.run.bold.run == "mean of a, c" and movie.run.bold.data.dtype == np.float32
    assert stack_repeats([runs[0], runs[2]]).shape == (2, 12, 3)


def test_two_segments_of_one_stimulus_are_no_repeats(make_bold) -> None:
    runs = [Run(make_bold(np.zeros((5, 2)), run=str(s), start_s=s), "movie") for s in (0.0, 10.0)]
    assert len(group_repeats(runs)) == 2


def test_repeats_that_do_not_match_are_one_sentence(make_bold) -> None:
    first = Run(make_bold(np.zeros((5, 2)), run="1"), "movie")
    shorter, slower = make_bold(np.zeros((4, 2)), run="2"), make_bold(np.zeros((5, 2)), run="2", tr_s=1.0)
    with pytest.raises(DataError, match=r"^volumes of run 2 must be 5, got 4 \(repeat of 1, stimulus movie\)$"):
        average_repeats([first, Run(shorter, "movie")])
    with pytest.raises(DataError, match=r"^tr_s of run 2 must be 2, got 1.0 \(repeat of 1, stimulus movie\)$"):
        average_repeats([first, Run(slower, "movie")])
    with pytest.raises(DataError, match=r"^repeats must be runs of one stimulus, got movie, other$"):
        stack_repeats([first, Run(make_bold(np.zeros((5, 2)), run="2"), "other")])


@pytest.mark.parametrize("ceiling", CEILINGS)
def test_what_no_ceiling_can_be_made_of_is_one_sentence(ceiling) -> None:
    with pytest.raises(DataError, match=r"^repeats must be 2 or more for a noise ceiling, got 1$"):
        ceiling(np.zeros((1, 5, 2)))
    with pytest.raises(DataError, match=r"^repeats must have the axes \(repeats, trs, voxels\), got shape \(5, 2\)$"):
        ceiling(np.zeros((5, 2)))
    with pytest.raises(DataError, match=r"^of must be 1 repeat or more, got 0$"):
        ceiling(np.zeros((2, 5, 2)), of=0)
    with pytest.raises(DataError, match=r"^repeats must be finite, got 1 of 20 values NaN or infinite$"):
        ceiling(np.where(np.arange(20).reshape(2, 5, 2) == 3, np.nan, 0.0))
