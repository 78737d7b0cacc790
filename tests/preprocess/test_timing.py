import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from nilearn.glm.first_level import compute_regressor, glover_hrf, spm_hrf

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.types import Bold, Features, Space, Video
from neuroreel.preprocess.timing import (
    HRFS,
    DoubleGamma,
    HrfSampling,
    convolve,
    fir_design,
    frames_of_volumes,
    hrf_by_name,
    shift,
    volume_of_frames,
    volume_times,
)

RNG = np.random.default_rng(11)


def spm_m(p: tuple[float, ...], rt: float, fine: int = 16) -> np.ndarray:
    """What spm_hrf.m computes, in its own order of steps, with scipy's gamma density."""
    dt = rt / fine
    u = np.arange(0, np.ceil(p[6] / dt) + 1) - p[5] / dt
    response = scipy.stats.gamma.pdf(u, p[0] / p[2], scale=p[2] / dt)
    hrf = response - scipy.stats.gamma.pdf(u, p[1] / p[3], scale=p[3] / dt) / p[4]
    hrf = hrf[np.arange(0, np.floor(p[6] / rt) + 1).astype(int) * fine]
    return hrf / hrf.sum()


def video(frames: int, fps: float, start_s: float = 0.0) -> Video:
    return Video.from_frames(np.zeros((frames, 1, 1, 3), np.uint8), name="movie", fps=fps, start_s=start_s)


def test_the_response_of_wen_2018_peaks_at_four_seconds() -> None:
    fine = HRFS["wen2018"].kernel(0.001)
    assert np.argmax(fine) * 0.001 == pytest.approx(4.0, abs=0.005)
    assert np.argmax(HRFS["wen2018"].kernel(2.0)) == 2


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(
        st.floats(3, 9),
        st.floats(10, 20),
        st.floats(0.5, 2),
        st.floats(0.5, 2),
        st.floats(3, 10),
        st.sampled_from([0.0, 1.0, -1.0, 2.5]),
        st.sampled_from([24.0, 32.0, 40.0]),
    ),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_each_of_the_seven_parameters_acts_as_in_spm(parameters: tuple[float, ...], rt: float) -> None:
    np.testing.assert_allclose(DoubleGamma(*parameters).kernel(rt), spm_m(parameters, rt), atol=1e-9)


@pytest.mark.parametrize(("name", "theirs"), [("spm", spm_hrf), ("glover", glover_hrf)])
def test_the_named_responses_are_nilearns(name: str, theirs) -> None:
    step = 0.01
    expected = theirs(1.0, oversampling=100)  # begins one step late, and ends at 32 s
    ours = HRFS[name].kernel(step)[:-1]
    np.testing.assert_allclose(ours, expected, atol=0.015 * expected.max())
    assert np.argmax(ours) == pytest.approx(np.argmax(expected), abs=2)


def test_the_kernel_sums_to_one_and_an_early_onset_moves_it() -> None:
    late, on_time = DoubleGamma(onset_s=2.0), DoubleGamma()
    assert on_time.kernel(0.1).sum() == pytest.approx(1)
    time = np.arange(0, 30, 0.1)
    np.testing.assert_allclose(late.at(time + 2.0), on_time.at(time), atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(30, 400), st.sampled_from([2.0, 8.0, 25.0, 30.0]), st.sampled_from([0.7, 1.3, 2.0]))
def test_sampling_equals_the_full_convolution_read_at_the_nearest_frame(n: int, fps: float, tr_s: float) -> None:
    data = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    times = tr_s * np.arange(int(n / fps / tr_s) + 1)
    values, _ = convolve(Features(data, fps, "x", "y"), HRFS["spm"], times)
    kernel = HRFS["spm"].kernel(1 / fps)
    full = np.stack([np.convolve(column, kernel) for column in data.T.astype(float)], axis=1)
    np.testing.assert_allclose(values, full[np.floor(times * fps + 0.5 + 1e-6).astype(int)], atol=1e-5)


def test_a_block_of_stimulation_gives_nilearns_regressor() -> None:
    fps, tr_s = 50.0, 2.0
    stimulus = np.zeros((int(120 * fps), 1), dtype=np.float32)
    stimulus[int(10 * fps) : int(25 * fps)] = 1
    times = tr_s * np.arange(60)
    theirs, _ = compute_regressor(np.array([[10.0], [15.0], [1.0]]), "spm", times, oversampling=50)
    ours, _ = convolve(Features(stimulus, fps, "x", "y"), HRFS["spm"], times)
    np.testing.assert_allclose(ours, theirs, atol=0.02)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=6))
def test_batches_of_any_length_give_what_the_whole_gives(lengths: list[int]) -> None:
    n = sum(lengths) + 1
    data = np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)
    sampling = HrfSampling.of(n, 10.0, np.arange(0, n / 10, 1.5), HRFS["wen2018"])
    batches = np.split(data, np.cumsum(lengths))
    np.testing.assert_allclose(sampling.stream(iter(batches)), sampling(data), atol=1e-6)


def test_more_units_than_a_block_give_the_same_numbers() -> None:
    data = RNG.normal(size=(60, 5000)).astype(np.float32)
    sampling = HrfSampling.of(60, 1.0, np.arange(0, 60, 2.0), HRFS["spm"])
    np.testing.assert_allclose(sampling(data)[:, 4999:], sampling(data[:, 4999:]), atol=1e-6)


def test_volumes_whose_past_is_not_all_in_the_stimulus_are_marked() -> None:
    features = Features(np.ones((100, 1), np.float32), 1.0, "x", "y")
    values, whole = convolve(features, HRFS["spm"], np.array([0.0, 31.0, 32.0, 99.0, 100.0]), start_s=0.0)
    assert whole.tolist() == [False, False, True, True, False]
    np.testing.assert_allclose(values[whole, 0], 1, rtol=1e-6)
    assert HrfSampling.of(100, 1.0, np.array([31.0]), HRFS["spm"], start_s=-1.0).whole.all()


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(-50, 50))
def test_a_lag_brings_back_what_was_measured_that_much_later(n: int, steps: int) -> None:
    data = np.random.default_rng(n).normal(size=(n, 2)).astype(np.float32)
    moved, known = shift(data, steps * 1.317, 1.317)
    expected = [0 <= row + steps < n for row in range(n)]
    assert known.tolist() == expected and np.isnan(moved[~known]).all()
    np.testing.assert_array_equal(moved[known], data[np.flatnonzero(known) + steps])


def test_an_exact_half_of_a_volume_goes_up_for_either_sign() -> None:
    data = np.arange(5.0)[:, None]
    assert shift(data, 1.0, 2.0)[0][0, 0] == 1 and shift(data, -1.0, 2.0)[0][0, 0] == 0


@settings(deadline=None)
@given(st.integers(1, 30), st.sets(st.integers(-8, 12), min_size=1, max_size=5))
def test_fir_rows_hold_each_delay_or_are_marked(n: int, delays: set[int]) -> None:
    x = np.random.default_rng(n).normal(size=(n, 2))
    design, known = fir_design(x, [2.0 * delay for delay in delays], 2.0)
    padded = {row: x[row] for row in range(n)}
    nothing = np.full(2, np.nan)
    expected = [[value for delay in delays for value in padded.get(row - delay, nothing)] for row in range(n)]
    np.testing.assert_array_equal(design, np.array(expected))
    np.testing.assert_array_equal(known, ~np.isnan(design).any(axis=1))


def test_a_planted_response_comes_back_from_a_fir_fit() -> None:
    x, response = RNG.normal(size=(300, 1)), np.array([0.1, 0.8, 0.5, -0.2])
    brain = np.convolve(x[:, 0], response)[:300]
    design, known = fir_design(x, [0, 2, 4, 6], 2.0)
    np.testing.assert_allclose(np.linalg.lstsq(design[known], brain[known])[0], response, atol=1e-10)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([8.0, 24.0, 25.0, 29.97, 30.0]), st.sampled_from([0.72, 1.3, 2.0]), st.floats(-6, 12))
def test_frames_of_neighbouring_volumes_touch_and_never_overlap(fps: float, tr_s: float, lag_s: float) -> None:
    bold = Bold(np.zeros((40, 1), np.float32), tr_s, Space("columns", 1), "01", "1")
    movie = video(round(40 * tr_s * fps), fps)
    span, inside = frames_of_volumes(movie, bold, lag_s)
    np.testing.assert_array_equal(span[1:, 0], span[:-1, 1])
    np.testing.assert_allclose(span[:, 0] / fps, volume_times(bold) - lag_s, atol=0.51 / fps)
    np.testing.assert_array_equal(inside, (span[:, 0] >= 0) & (span[:, 1] <= movie.shape[0]))


def test_the_volume_of_a_frame_is_the_nearest_one_after_the_lag(make_bold) -> None:
    bold = make_bold(np.zeros((10, 1)), start_s=4.0)
    volume, inside = volume_of_frames(video(60, 1.0), bold, lag_s=4.0)
    times = volume_times(bold)
    nearest = [int(np.argmin(np.abs(times - (t + 4.0) - 1e-3))) for t in range(20)]
    assert volume[:20].tolist() == [*nearest[:19], 10] and inside.sum() == 19
    assert volume_of_frames(video(60, 1.0), bold, lag_s=-6.0)[0][0] == -5


def test_bad_times_and_parameters_are_one_sentence() -> None:
    with pytest.raises(DataError, match=r"^dispersion_s must be > 0, got 0$"):
        DoubleGamma(dispersion_s=0)
    with pytest.raises(ConfigError, match=r"^hrf must be one of glover, spm, wen2018, got 'canonical'$"):
        hrf_by_name("canonical")
    with pytest.raises(DataError, match=r"^the HRF's parameters and step_s must leave a response .*, got 0 at 50 s$"):
        DoubleGamma().kernel(50)
    with pytest.raises(ConfigError, match=r"^delays_s must round to different volumes of 2 s, got \[2.0, 2.4\]$"):
        fir_design(np.zeros((5, 1)), [2.0, 2.4], 2.0)
    with pytest.raises(ConfigError, match=r"^delays_s must hold at least one delay, got none$"):
        fir_design(np.zeros((5, 1)), [], 2.0)
    with pytest.raises(DataError, match=r"^lag_s must be finite, got nan$"):
        shift(np.zeros((5, 1)), float("nan"), 2.0)


def test_batches_that_are_not_the_whole_stimulus_are_one_sentence() -> None:
    sampling = HrfSampling.of(10, 1.0, np.arange(10.0), HRFS["spm"])
    with pytest.raises(
        DataError, match=r"^features must have as many entries as frames of the sampling \(10\), got 4$"
    ):
        sampling.stream([np.zeros((4, 2))])
    with pytest.raises(DataError, match=r"^features must have 10 times, got 12 or more$"):
        sampling.stream([np.zeros((12, 2))])
    with pytest.raises(
        DataError, match=r"^units of a batch must have as many entries as those of the first \(2\), got 3"
    ):
        sampling.stream([np.zeros((4, 2)), np.zeros((6, 3))])
