import numpy as np
import pytest
import scipy.signal

from neuroreel.preprocess.clean import MOTION, CleanConfig, clean_run
from neuroreel.preprocess.repeats import signal_power, split_half_ceiling
from neuroreel.simulate.bold import HRF_DELAYS_S, SIGNAL_PERCENT, Blood
from neuroreel.simulate.cortex import AREAS, make_cortex
from neuroreel.simulate.responses import RATE_HZ

TR_S, TRS = 2.0, 120


@pytest.fixture(scope="module")
def blood():
    return Blood.of(make_cortex("01", scale=0.4, blind=60), seed=2)


@pytest.fixture(scope="module")
def responses(blood):
    rng = np.random.default_rng(0)
    slow = np.repeat(rng.normal(size=(TRS // 3, blood.cortex.space.size)), int(3 * TR_S * RATE_HZ), axis=0)
    return (slow * (blood.cortex.ceiling > 0)).astype(np.float32)  # scenes of 6 s


@pytest.fixture(scope="module")
def signal(blood, responses):
    signal = blood.signal(responses, TRS, TR_S)
    return signal / np.where(signal.std(0) > 0, signal.std(0), 1)


def runs_of(blood: Blood, signal: np.ndarray, count: int = 10) -> list:
    names = [f"run-{number}" for number in range(count)]
    noise_sd = blood.noise_sd(signal, names, TR_S)
    return [blood.run(signal, noise_sd, run=name, tr_s=TR_S) for name in names]


@pytest.fixture(scope="module")
def runs(blood, signal):
    return runs_of(blood, signal)


def cleaned(bold, confounds) -> np.ndarray:
    order = 1 + int(bold.n_trs * bold.tr_s // 150)
    return clean_run(bold, CleanConfig(detrend_order=order, confounds=("motion-6",)), confounds).data


def explained(data: np.ndarray, by: np.ndarray) -> float:
    basis = np.linalg.qr(np.column_stack([np.ones(len(by)), by]))[0]
    spread = data - data.mean(0)
    return float(1 - np.mean((spread - basis @ (basis.T @ spread)).var(0) / spread.var(0)))


def lag_one(data: np.ndarray) -> np.ndarray:
    time = np.linspace(-1, 1, len(data))
    data = data - np.polynomial.polynomial.polyval(time, np.polynomial.polynomial.polyfit(time, data, 8)).T
    return (data[1:] * data[:-1]).mean(0) / (data**2).mean(0)


def test_ceilings_after_cleaning_are_those_asked_in_every_area(blood, runs):
    repeats = np.stack([cleaned(*run) for run in runs])
    found = split_half_ceiling(repeats)
    for area in AREAS:
        rows = blood.cortex.rows(area)
        assert np.mean(found[rows]) == pytest.approx(blood.cortex.ceiling[rows[0]], abs=0.05)
    signal, noise = signal_power(repeats[:, :, blood.cortex.area == "blind"])
    assert abs(signal.mean()) < 0.02 * noise.mean()


@pytest.mark.parametrize("asked", [0.4, 0.95])
def test_low_and_high_ceilings_are_met_too(signal, asked):
    blood = Blood.of(make_cortex("01", scale=0.4, blind=60, ceilings=dict.fromkeys(AREAS, asked)), seed=3)
    found = split_half_ceiling(np.stack([cleaned(*run) for run in runs_of(blood, signal)]))
    assert np.median(found[blood.cortex.ceiling > 0]) == pytest.approx(asked, abs=0.05)


def test_a_short_answer_peaks_at_the_planted_delay(blood):
    flash = np.zeros((200, blood.cortex.space.size), np.float32)
    flash[0] = 1
    times = np.arange(400) * 0.1
    peaks = times[blood.signal(flash, 400, 0.1).argmax(0)]
    # the mode of a gamma density of shape d and scale 1 is d - 1, and the undershoot hardly moves it
    np.testing.assert_allclose(peaks, blood.delays_s - 1, atol=0.3)


def test_delays_differ_between_areas_and_are_found_from_noiseless_runs(blood, responses, signal):
    at = np.arange(TRS) * int(TR_S * RATE_HZ)
    lags = np.arange(8, 33)  # 2 to 8 s
    shifted = np.stack([np.roll(responses, lag, axis=0)[at] for lag in lags])  # (lags, trs, voxels)
    seeing = np.flatnonzero(blood.cortex.ceiling > 0)
    r = np.einsum("ltv,tv->lv", shifted[:, :, seeing], signal[:, seeing] - signal[:, seeing].mean(0))
    centre = (np.maximum(r, 0) ** 4 * lags[:, None]).sum(0) / (np.maximum(r, 0) ** 4).sum(0) / RATE_HZ
    assert np.corrcoef(centre, blood.delays_s[seeing])[0, 1] > 0.7
    area = blood.cortex.area[seeing]
    assert centre[np.isin(area, ("FFA", "PPA"))].mean() > centre[area == "V1"].mean() + 0.3
    assert HRF_DELAYS_S["FFA"] > HRF_DELAYS_S["V1"]


def test_volumes_of_any_tr_lie_on_one_curve(blood, responses):
    fine, coarse = blood.signal(responses, 480, 0.5), blood.signal(responses, 79, 1.5)
    np.testing.assert_allclose(fine[::3][:79], coarse, atol=1e-5)


def test_a_run_is_about_its_baseline_in_the_units_of_a_scanner(blood, runs):
    bold, confounds = runs[0]
    assert bold.data.dtype == np.float32 and bold.data.shape == (TRS, blood.cortex.space.size)
    assert 600 < bold.data.mean() < 1400
    percent = 100 * (bold.data / bold.data.mean(0) - 1).std(0)
    assert SIGNAL_PERCENT < np.median(percent) < 5
    assert set(confounds) == {*MOTION, "csf", "white_matter"}
    assert all(len(each) == TRS for each in confounds.values())


def test_head_motion_explains_much_before_cleaning_and_nothing_after(runs):
    for bold, confounds in runs[:3]:
        motion = np.column_stack([confounds[name] for name in MOTION])
        assert explained(bold.data, motion) > 0.15
        assert explained(cleaned(bold, confounds), motion) < 1e-4


def test_drift_is_slow_and_gone_with_the_polynomial(blood):
    drift = blood._drift(TRS, TR_S, np.random.default_rng(1))
    time = np.linspace(-1, 1, TRS)
    rest = drift - np.polynomial.polynomial.polyval(time, np.polynomial.polynomial.polyfit(time, drift, 2)).T
    assert rest.std() < 0.1 * drift.std()


def test_heart_and_breath_are_in_the_vertices_and_seen_by_csf_and_white_matter(blood, signal):
    bold, confounds = blood.run(0 * signal, np.full(signal.shape[1], 2.0), run="a", tr_s=TR_S)
    seen = np.column_stack([confounds["csf"], confounds["white_matter"]])
    with_motion = cleaned(bold, confounds)
    assert explained(with_motion, seen) > 0.04
    assert explained(with_motion, np.random.default_rng(0).normal(size=seen.shape)) < 0.03


def test_noise_has_the_planted_autocorrelation(blood):
    names, sd = [str(number) for number in range(3)], np.full(len(blood.ar), 3.0)
    runs = [blood.run(np.zeros((300, len(sd))), sd, run=name, tr_s=TR_S)[0].data for name in names]
    white = np.random.default_rng(0).normal(size=(400, len(sd)))
    columns = zip(white.T, blood.ar, strict=True)
    alike = np.stack([scipy.signal.lfilter([1], [1, -ar], column)[100:] for column, ar in columns], axis=1)
    found, expected = np.mean([lag_one(data) for data in runs], axis=0), lag_one(alike)
    # a tenth is physiology: 1.1 and 0.28 Hz, seen every 2 s, go to themselves by cos(4 pi f), -0.31 in the mean
    assert np.median(found) == pytest.approx(0.9 * np.median(expected) - 0.03, abs=0.05)
    assert np.corrcoef(found, blood.ar)[0, 1] > 0.5


def test_noise_is_another_one_in_every_run_and_the_same_in_the_same(blood, signal):
    noise_sd = np.ones(signal.shape[1])
    first, again, other = (blood.run(signal, noise_sd, run=name, tr_s=TR_S)[0].data for name in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_at_rest_an_area_s_vertices_go_together_more_than_two_areas_do(blood):
    runs = [cleaned(*blood.rest(300, run=name, tr_s=TR_S)) for name in ("task-rest_run-01", "task-rest_run-02")]
    assert abs(np.corrcoef(runs[0][:, 0], runs[1][:, 0])[0, 1]) < 0.3
    r = np.corrcoef(runs[0].T)
    seeing = np.flatnonzero(blood.cortex.ceiling > 0)
    same = blood.cortex.area[seeing][:, None] == blood.cortex.area[seeing]
    side = blood.cortex.space.hemisphere[seeing]
    among = r[np.ix_(seeing, seeing)]
    apart = ~np.eye(len(seeing), dtype=bool)
    assert among[same & apart].mean() > among[~same].mean() + 0.1
    alike = side[:, None] == side
    assert among[~same & alike].mean() > among[~same & ~alike].mean() + 0.05
