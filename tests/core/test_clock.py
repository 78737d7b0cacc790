import hypothesis.strategies as st
import pytest
from hypothesis import given

from neuroreel.core.clock import to_samples
from neuroreel.core.errors import DataError


@pytest.mark.parametrize(
    ("seconds", "samples"), [(0, 0), (1.0, 1), (0.99, 0), (3.0, 2), (-1.0, 0), (-1.01, -1), (4.0, 2)]
)
def test_an_exact_half_goes_up_and_the_rest_to_the_nearest(seconds: float, samples: int) -> None:
    assert to_samples(seconds, 2.0) == samples


@given(st.integers(-10_000, 10_000), st.floats(0.01, 10))
def test_a_whole_number_of_steps_comes_back(steps: int, step_s: float) -> None:
    assert to_samples(steps * step_s, step_s) == steps


def test_a_step_of_zero_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"^step_s must be > 0, got 0$"):
        to_samples(1.0, 0)
