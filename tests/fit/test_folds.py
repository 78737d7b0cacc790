import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from sklearn.model_selection import KFold

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.fit.folds import assign_folds, check_folds, iterate_folds


@pytest.mark.parametrize(("n", "n_folds"), [(10, 5), (11, 3), (7, 7), (23, 4)])
def test_without_groups_the_folds_are_those_of_scikit_learn(n: int, n_folds: int) -> None:
    labels = assign_folds(n, n_folds)
    for (train, held), (sk_train, sk_held) in zip(
        iterate_folds(labels), KFold(n_folds).split(np.zeros(n)), strict=True
    ):
        assert np.array_equal(held, sk_held)
        assert np.array_equal(train, sk_train)


@given(st.lists(st.integers(0, 6), min_size=4, max_size=60), st.integers(2, 4))
def test_no_group_is_split_and_no_fold_is_empty(groups: list[int], n_folds: int) -> None:
    if len(set(groups)) < n_folds:
        return
    labels = assign_folds(len(groups), n_folds, np.array(groups))
    assert set(labels) == set(range(n_folds))
    for name in set(groups):
        assert len(set(labels[np.array(groups) == name])) == 1


def test_groups_of_unlike_size_are_dealt_out_evenly() -> None:
    groups = np.repeat(["a", "b", "c", "d", "e"], [50, 30, 20, 25, 25])
    assert np.bincount(assign_folds(150, 3, groups)).tolist() == [50, 50, 50]


def test_labels_may_leave_rows_out_of_validation() -> None:
    labels = check_folds(6, np.array([-1, -1, 3, 3, 7, 7], dtype=np.int8))
    pairs = list(iterate_folds(labels))
    assert [held.tolist() for _, held in pairs] == [[2, 3], [4, 5]]
    assert [train.tolist() for train, _ in pairs] == [[0, 1, 4, 5], [0, 1, 2, 3]]


def test_a_single_fold_needs_rows_that_are_never_validated() -> None:
    assert len(list(iterate_folds(check_folds(4, np.array([-1, -1, 0, 0]))))) == 1
    with pytest.raises(DataError, match=r"^folds must name 2 or more folds, got 1$"):
        check_folds(4, np.zeros(4, dtype=int))


@pytest.mark.parametrize(
    ("folds", "groups", "error", "text"),
    [
        (1, None, ConfigError, "folds must be a whole number of 2 or more, got 1"),
        (2.5, None, ConfigError, "folds must be a whole number of 2 or more, got 2.5"),
        (np.nan, None, ConfigError, "folds must be a whole number of 2 or more, got nan"),
        ("five", None, ConfigError, "folds must be a whole number of 2 or more, got five"),
        (7, None, DataError, r"rows must be as many as the folds \(7\) or more, got 6 rows"),
        (3, [0, 0, 0, 1, 1, 1], DataError, r"groups must be as many as the folds \(3\) or more, got 2 groups"),
        (2, [0, 1], DataError, r"groups must have as many entries as rows \(6\), got 2"),
        ([0, 1], None, DataError, r"folds must have as many entries as rows \(6\), got 2"),
        ([0.0, 0, 0, 1, 1, 1], None, DataError, "folds must be integers, got dtype float64"),
        ([-2, 0, 0, 1, 1, 1], None, DataError, r"folds must be -1 \(never validated\) or more, got -2"),
        ([[0, 1, 0, 1, 0, 1]], None, DataError, r"folds must have the axes \(rows\), got shape \(1, 6\)"),
        ([0, 0, 0, 1, 1, 1], list("aabbcc"), DataError, r"group b must lie in one fold, got folds \[0, 1\]"),
        (2, [np.nan, 0, 1, 1, 2, 2], DataError, "groups must be finite, got 1 of 6 values NaN or infinite"),
    ],
)
def test_bad_folds_are_one_sentence(folds: object, groups: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{text}$"):
        check_folds(6, folds, groups)  # type: ignore[arg-type]
