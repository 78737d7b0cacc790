from dataclasses import replace

import hypothesis.strategies as st
import nilearn.signal
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from nilearn.glm.first_level import make_first_level_design_matrix
from numpy.polynomial import Legendre

from neuroreel.core.errors import ConfigError, DataError, NeuroreelWarning
from neuroreel.preprocess.clean import (
    MOTION,
    CleanConfig,
    choose_confounds,
    clean_run,
    detrend,
    polynomials,
)

RNG = np.random.default_rng(5)
N = 120


def fmriprep_columns(n: int = N) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    ends = ("", "_derivative1", "_power2", "_derivative1_power2")
    names = [name + end for name in (*MOTION, "white_matter", "csf", "global_signal") for end in ends]
    columns = {name: rng.normal(size=n) for name in [*names, *(f"a_comp_cor_{i:02d}" for i in range(8))]}
    for name, values in columns.items():
        if "derivative1" in name:
            values[0] = np.nan
    cosines = {f"cosine{k:02d}": np.cos(np.pi * (np.arange(n) + 0.5) * (k + 1) / n) for k in range(3)}
    return columns | cosines


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.data())
def test_polynomials_of_any_order_are_orthonormal(n_trs: int, data: st.DataObject) -> None:
    order = data.draw(st.integers(0, n_trs - 1))
    basis = polynomials(n_trs, order)
    np.testing.assert_allclose(basis.T @ basis, np.eye(order + 1), atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 12), st.integers(40, 300))
def test_detrend_equals_a_legendre_fit(order: int, n_trs: int) -> None:
    data = np.random.default_rng(order).normal(100, 5, size=(n_trs, 3))
    time = np.arange(n_trs)
    fits = [Legendre.fit(time, column, order)(time) for column in data.T]
    np.testing.assert_allclose(detrend(data, order), data - np.stack(fits, axis=1), atol=1e-8)


def test_a_planted_polynomial_of_order_40_goes_and_the_rest_stays() -> None:
    time = np.linspace(-1, 1, 400)
    rest = np.sin(2 * np.pi * 60 * time)[:, None]
    drift = Legendre(np.random.default_rng(0).normal(size=41) * 50)(time)[:, None]
    np.testing.assert_allclose(detrend(rest + drift, 40), detrend(rest, 40), atol=1e-9)
    assert np.linalg.norm(detrend(rest, 40)) > 0.95 * np.linalg.norm(rest)


def test_order_one_equals_scipys_linear_detrend() -> None:
    data = RNG.normal(size=(50, 4)) + np.arange(50)[:, None]
    np.testing.assert_allclose(detrend(data, 1), scipy.signal.detrend(data, axis=0), atol=1e-10)


def test_an_order_that_the_run_is_too_short_for_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"^detrend_order must be 0 to 4 in a run of 5 volumes, got 5$"):
        detrend(np.zeros((5, 2)), 5)


def test_the_cosine_high_pass_is_nilearns(make_bold) -> None:
    bold = make_bold(RNG.normal(500, 20, size=(N, 6)))
    ours = clean_run(bold, CleanConfig(detrend_order=0, high_pass_s=100))
    theirs = nilearn.signal.clean(
        bold.data.astype(float), detrend=False, standardize=None, filter="cosine", high_pass=0.01, t_r=2.0
    )
    np.testing.assert_allclose(ours.data, theirs - theirs.mean(axis=0), atol=1e-4)
    assert ours.data.dtype == np.float32


def test_the_butterworth_high_pass_is_nilearns(make_bold) -> None:
    bold = make_bold(RNG.normal(500, 20, size=(N, 6)))
    columns = {"a": RNG.normal(size=N)}
    config = CleanConfig(detrend_order=1, high_pass_hz=0.01, filter="butterworth", confounds=("a",))
    theirs = nilearn.signal.clean(
        bold.data.astype(float),
        confounds=columns["a"][:, None],
        detrend=True,
        standardize=None,
        high_pass=0.01,
        t_r=2.0,
    )
    np.testing.assert_allclose(clean_run(bold, config, columns).data, theirs, atol=1e-3)


def test_trend_cosines_and_confounds_go_jointly_as_in_one_regression(make_bold) -> None:
    bold = make_bold(RNG.normal(size=(N, 4)))
    columns = {name: np.cumsum(RNG.normal(size=N)) + 3 for name in ("a", "b")}
    config = CleanConfig(detrend_order=3, high_pass_hz=0.012, confounds=("a", "b"))
    cosines = make_first_level_design_matrix(np.arange(N) * 2.0, high_pass=0.012).to_numpy()
    design = np.column_stack([np.vander(np.linspace(-1, 1, N), 4), cosines, columns["a"], columns["b"]])
    expected = bold.data - design @ np.linalg.lstsq(design, bold.data, rcond=1e-10)[0]
    np.testing.assert_allclose(clean_run(bold, config, columns).data, expected, atol=1e-5)


def test_a_planted_drift_and_motion_are_gone_and_the_signal_is_back(make_bold) -> None:
    columns = {name: RNG.normal(size=N) for name in MOTION}
    signal = np.sin(2 * np.pi * np.arange(N) / 10)[:, None] * RNG.normal(size=(1, 5))
    drift = 1000 + 5 * np.linspace(-1, 1, N)[:, None] ** 4
    noise = np.stack(list(columns.values()), axis=1) @ RNG.normal(size=(6, 5)) * 10
    config = CleanConfig(detrend_order=4, confounds=("motion-6",))
    cleaned = clean_run(make_bold(signal + drift + noise), config, columns).data
    alone = clean_run(make_bold(signal), config, columns).data
    np.testing.assert_allclose(cleaned, alone, atol=2e-3)


def test_what_was_taken_out_of_a_confound_changes_nothing(make_bold) -> None:
    bold = make_bold(RNG.normal(size=(N, 3)))
    line = 1e4 * np.arange(N, dtype=float)
    with_line = clean_run(bold, CleanConfig(detrend_order=2, confounds=("line",)), {"line": line})
    np.testing.assert_allclose(with_line.data, clean_run(bold, CleanConfig(detrend_order=2)).data, atol=1e-6)


def test_the_callers_array_is_left_alone_and_many_voxels_equal_one_by_one(make_bold) -> None:
    bold = make_bold(RNG.normal(size=(30, 5000)))
    before = bold.data.copy()
    bold.data.setflags(write=False)
    cleaned = clean_run(bold, CleanConfig(detrend_order=2, high_pass_s=20))
    alone = clean_run(make_bold(bold.data[:, 4500:4502]), CleanConfig(detrend_order=2, high_pass_s=20))
    np.testing.assert_array_equal(bold.data, before)
    np.testing.assert_allclose(cleaned.data[:, 4500:4502], alone.data, atol=1e-6)


def test_the_mean_can_be_kept_and_a_constant_voxel_stays_constant(make_bold) -> None:
    data = RNG.normal(800, 10, size=(N, 3))
    data[:, 1] = 812.3
    kept = clean_run(make_bold(data), CleanConfig(keep_mean=True))
    gone = clean_run(make_bold(data), CleanConfig())
    np.testing.assert_allclose(kept.data.mean(axis=0), data.mean(axis=0), rtol=1e-5)
    assert np.all(gone.data[:, 1] == 0) and np.ptp(kept.data[:, 1]) == 0


@pytest.mark.parametrize(
    ("strategy", "count"),
    [("motion-6", 6), ("motion-12", 12), ("motion-24", 24), ("wm-csf", 2), ("global-signal", 1), ("cosine", 3)],
)
@pytest.mark.filterwarnings("ignore::neuroreel.core.errors.NeuroreelWarning")
def test_a_strategy_has_as_many_columns_as_fmripreps(strategy: str, count: int) -> None:
    assert choose_confounds(fmriprep_columns(), (strategy,)).data.shape == (N, count)


def test_acompcor_takes_the_first_ones_and_no_column_comes_twice() -> None:
    chosen = choose_confounds(fmriprep_columns(), ("acompcor-3", "trans_x", "motion-6"))
    assert chosen.names == ("a_comp_cor_00", "a_comp_cor_01", "a_comp_cor_02", "trans_x", *MOTION[1:])
    assert chosen.filled == 0


def test_the_leading_nan_of_derivatives_is_filled_counted_and_said() -> None:
    columns = fmriprep_columns()
    with pytest.warns(NeuroreelWarning, match=r"^6 leading NaN of the confounds trans_x_derivative1, .* filled"):
        chosen = choose_confounds(columns, ("motion-12",))
    column = chosen.names.index("rot_z_derivative1")
    assert chosen.filled == 6 and chosen.data[0, column] == columns["rot_z_derivative1"][1]
    assert np.isnan(columns["rot_z_derivative1"][0])


def test_broken_confounds_are_one_sentence_each(make_bold) -> None:
    columns, bold = fmriprep_columns(), make_bold(RNG.normal(size=(N, 2)))
    with pytest.raises(DataError, match=r"^a_comp_cor columns must be 9 or more, got 8$"):
        choose_confounds(columns, ("acompcor-9",))
    with pytest.raises(ConfigError, match=r"^a confound must be a column or one of motion-6, .*, got 'motion-7'$"):
        choose_confounds(columns, ("motion-7",))
    with pytest.raises(DataError, match=r"^confounds for wm-csf must have the column csf, got white_matter$"):
        choose_confounds({"white_matter": np.zeros(N)}, ("wm-csf",))
    columns["csf"][[3, 9]] = np.nan
    with pytest.raises(DataError, match=r"^confound csf must be finite, got 2 of 120 values NaN or infinite$"):
        choose_confounds(columns, ("wm-csf",))
    with pytest.raises(DataError, match=r"^confounds must have as many entries as volumes \(120\), got 60 \(sub-01"):
        clean_run(bold, CleanConfig(confounds=("trans_x",)), fmriprep_columns(60))
    with pytest.raises(DataError, match=r"^confounds must be there for trans_x, got none \(sub-01 run 1\)$"):
        clean_run(bold, CleanConfig(confounds=("trans_x",)))


def test_broken_runs_and_cutoffs_are_one_sentence_each(make_bold) -> None:
    bold = make_bold(RNG.normal(size=(N, 2)))
    broken = replace(bold, data=np.full((N, 2), np.nan, dtype=np.float32))
    with pytest.raises(DataError, match=r"^bold must be finite, got 240 of 240 values NaN or infinite \(sub-01 run 1"):
        clean_run(broken, CleanConfig())
    with pytest.raises(ConfigError, match=r"^high-pass must be under the Nyquist frequency 0.25 Hz, got 0.3 Hz"):
        clean_run(bold, CleanConfig(high_pass_hz=0.3))
    with pytest.raises(DataError, match=r"^volumes must be 19 or more for a Butterworth filter, got 18"):
        clean_run(make_bold(bold.data[:18]), CleanConfig(high_pass_hz=0.1, filter="butterworth"))
    with pytest.raises(DataError, match=r"must leave something of 6 volumes, got 6 regressors"):
        clean_run(make_bold(bold.data[:6]), CleanConfig(detrend_order=5))


def test_nineteen_volumes_are_enough_for_a_butterworth_filter(make_bold) -> None:
    short = make_bold(RNG.normal(size=(19, 2)))
    assert clean_run(short, CleanConfig(high_pass_hz=0.1, filter="butterworth")).data.shape == (19, 2)


def test_a_high_pass_that_does_nothing_in_so_short_a_run_is_said(make_bold) -> None:
    bold = make_bold(RNG.normal(size=(20, 2)))
    with pytest.warns(NeuroreelWarning, match=r"^the high-pass at 0.01 Hz takes out nothing of 40 s \(sub-01 run 1\)$"):
        cleaned = clean_run(bold, CleanConfig(detrend_order=1, high_pass_s=100))
    np.testing.assert_allclose(cleaned.data, detrend(bold.data, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"high_pass_hz": 0.01, "high_pass_s": 100}, "must be given as high_pass_hz or as high_pass_s, not both"),
        ({"high_pass_hz": 0.01, "confounds": ["cosine"]}, "must come from the cosine confounds or from a cut-off"),
        ({"detrend_order": -1}, "detrend_order is wrong"),
        ({"detrnd": 1}, "config key must be one of confounds, detrend_order, filter, high_pass_hz"),
    ],
)
def test_a_config_that_contradicts_itself_is_one_sentence(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CleanConfig.build(values)
