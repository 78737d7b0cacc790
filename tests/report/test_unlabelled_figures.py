import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.report.unlabelled_figures import Helped, unlabelled_picture


def world(shift: float) -> Helped:
    without = np.array([0.6, 0.7, 0.8, 0.85]) + shift
    gain = np.array([0.05, 0.03, 0.02, 0.01])
    return Helped(np.array([4.0, 10, 20, 40]), without, without + gain, gain, gain - 0.02, gain + 0.02)


def test_it_says_what_was_gained_where_least_was_paired():
    drawn = unlabelled_picture({"ssim": [world(0), world(0.02)], "identification": [world(0.1)]})
    assert drawn.png.startswith(b"\x89PNG") and len(drawn.png) > 10_000
    assert "ssim: +0.050 at 4 min, +0.050 at 4 min" in drawn.alt
    assert "pairs alone" in drawn.svg and "added by unlabelled video" in drawn.svg


def test_nothing_to_draw_is_one_sentence():
    with pytest.raises(DataError, match="metrics must be 1 or more, each of 1 world or more, got 0"):
        unlabelled_picture({"ssim": []})
