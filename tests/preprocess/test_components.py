import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.preprocess.components import Components


def planted(trs: int = 50, voxels: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    spread = np.geomspace(10, 0.5, voxels)
    return (3 + rng.normal(size=(trs, voxels)) * spread).astype(np.float32)


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    for x in (planted(), planted(6, 20)):
        found = Components.fit(x)
        _, values, axes = np.linalg.svd(x.astype(np.float64) - x.mean(0), full_matrices=False)
        assert len(found) == min(len(x) - 1, x.shape[1])
        assert np.allclose(found.variances, values[: len(found)] ** 2 / len(x), rtol=1e-5)
        assert np.allclose(np.abs((found.axes * axes[: len(found)]).sum(1)), 1, atol=1e-5)


def test_kept_volumes_have_so_many_dimensions_and_all_of_them_are_the_volumes() -> None:
    x, new = planted(), planted()[::-1] * 2
    found = Components.fit(x)
    for count in (1, 3):
        kept = found.keep(new, count)
        assert kept.shape == new.shape and kept.dtype == new.dtype
        assert np.linalg.matrix_rank(kept.astype(np.float64) - found.mean, tol=1e-3) == count
    assert np.allclose(found.keep(new, 8), new, atol=1e-4)


def test_what_has_no_components_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"^train must hold volumes that differ, got none"):
        Components.fit(np.ones((4, 3), dtype=np.float32))
    with pytest.raises(DataError, match=r"^train must hold 2 volumes or more, got 1"):
        Components.fit(np.ones((1, 3), dtype=np.float32))
    with pytest.raises(DataError, match=r"^components must lie within 1\.\.8, got 9"):
        Components.fit(planted()).keep(planted(), 9)
