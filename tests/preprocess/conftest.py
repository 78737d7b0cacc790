from collections.abc import Callable

import numpy as np
import pytest

from neuroreel.core.types import Bold, Space


@pytest.fixture
def make_bold() -> Callable[..., Bold]:
    def make(data: np.ndarray, *, tr_s: float = 2.0, run: str = "1", start_s: float = 0.0, **rois: np.ndarray) -> Bold:
        space = Space("columns", data.shape[1], rois=rois)
        return Bold(np.asarray(data, dtype=np.float32), tr_s, space, subject="01", run=run, start_s=start_s)

    return make
