import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis.extra.numpy import arrays

from neuroreel.core.errors import DataError
from neuroreel.core.stats import bonferroni_adjust, fdr, fdr_adjust

P_VALUES = arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1))


@given(P_VALUES)
def test_fdr_equals_scipys(p: np.ndarray) -> None:
    np.testing.assert_allclose(fdr_adjust(p), scipy.stats.false_discovery_control(p), rtol=1e-12, atol=1e-300)


@given(P_VALUES, st.floats(0.01, 0.5))
def test_what_the_fdr_calls_significant_is_the_step_up_procedure(p: np.ndarray, q: float) -> None:
    ordered = np.sort(p)
    under = np.flatnonzero(scipy.stats.false_discovery_control(p)[np.argsort(p)] <= q)
    threshold = ordered[under[-1]] if under.size else -1.0
    assert np.array_equal(fdr(p, q), p <= threshold)


def test_voxels_without_a_test_count_for_nothing() -> None:
    p = np.array([0.01, np.nan, 0.04, np.nan])
    np.testing.assert_allclose(bonferroni_adjust(p), [0.02, np.nan, 0.08, np.nan])
    np.testing.assert_allclose(fdr_adjust(p), [0.02, np.nan, 0.04, np.nan])


def test_bonferroni_never_exceeds_one() -> None:
    assert np.array_equal(bonferroni_adjust(np.array([0.5, 0.9])), [1.0, 1.0])


@pytest.mark.parametrize("adjust", [bonferroni_adjust, fdr_adjust])
def test_what_is_no_probability_is_one_sentence(adjust) -> None:
    with pytest.raises(DataError, match=r"^p must lie between 0 and 1, got 1 of 2 values outside$"):
        adjust(np.array([0.5, 1.5]))
