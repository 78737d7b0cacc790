import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroreel.core.spread import evenly


@given(st.integers(2, 500), st.integers(2, 500))
def test_a_few_reach_from_the_first_to_the_last_in_nearly_equal_steps(count: int, most: int) -> None:
    rows = evenly(count, most)
    assert len(rows) == min(count, most) and rows[0] == 0 and rows[-1] == count - 1
    assert np.ptp(np.diff(rows)) <= 1


@pytest.mark.parametrize(("count", "most", "rows"), [(0, 3, []), (1, 3, [0]), (5, 1, [0]), (3, 9, [0, 1, 2])])
def test_of_few_there_are_no_more(count: int, most: int, rows: list[int]) -> None:
    assert evenly(count, most).tolist() == rows
