import numpy as np
import pytest

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.seeds import generator


def test_the_sentence_names_rule_value_and_file() -> None:
    with pytest.raises(DataError, match=r"^tr_s must be > 0, got -2\.0 \(sub-01/run-3\.nii\.gz\)$"):
        checks.positive("tr_s", -2.0, "sub-01/run-3.nii.gz")


def test_values_that_are_not_finite_are_counted() -> None:
    with pytest.raises(DataError, match=r"^bold must be finite, got 2 of 4 values NaN or infinite$"):
        checks.finite("bold", np.array([1.0, np.nan, np.inf, 0.0]))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^system must be one of mean-frame, no-brain, got 'means'$"):
        checks.one_of("system", "means", ["no-brain", "mean-frame"])


def test_wrong_axes_are_refused_with_the_shape() -> None:
    with pytest.raises(DataError, match=r"axes \(trs, voxels\), got shape \(3,\)"):
        checks.dimensions("bold", np.zeros(3), ("trs", "voxels"))


def test_seeds_depend_on_seed_and_name_only() -> None:
    first = generator(1, "noise", "sub-01").normal(size=4)
    generator(1, "voxels").normal(size=100)
    assert np.array_equal(first, generator(1, "noise", "sub-01").normal(size=4))
    assert not np.array_equal(first, generator(1, "noise", "sub-02").normal(size=4))
    assert not np.array_equal(first, generator(2, "noise", "sub-01").normal(size=4))
