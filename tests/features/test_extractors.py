"""One contract for every extractor."""

import numpy as np
import pytest

from neuroreel.core.config import Config
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.types import Video
from neuroreel.features import EXTRACTORS, Extractor
from neuroreel.features.alexnet import AlexNetFeaturesConfig
from neuroreel.features.gist import GistConfig
from neuroreel.features.hmax import HmaxConfig
from neuroreel.features.motion_energy import MotionEnergyConfig
from neuroreel.features.sift import SiftConfig

NET = {"layout": "world", "size": 64, "width": 0.1, "hidden": 16, "n_classes": 5}
CONFIGS: dict[str, dict] = {
    "alexnet": {"weights": "random", "net": NET, "layers": ("conv1", "conv3:pre", "fc7", "fc8")},
    "gist": {"size": 64},
    "hmax": {"scales": 4, "units": 300, "patches": 12, "patch_sizes": (3, 5)},
    "motion-energy": {"size": 24, "cycles": (2.0, 4.0)},
    "sift": {"words": 9, "size": 64},
}
KINDS: dict[str, type[Config]] = {
    "alexnet": AlexNetFeaturesConfig,
    "gist": GistConfig,
    "hmax": HmaxConfig,
    "motion-energy": MotionEnergyConfig,
    "sift": SiftConfig,
}
every = pytest.mark.parametrize("name", sorted(EXTRACTORS))


def frames(n: int = 7, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(256, size=(n, 12, 10, 3), dtype=np.uint8)
    return coarse.repeat(6, axis=1).repeat(8, axis=2)


def made(name: str, **more: object) -> Extractor:
    extractor = EXTRACTORS[name](KINDS[name].build({**CONFIGS[name], **more}))
    return extractor.fit(frames(9, 1), seed=3)


@every
def test_features_are_float32_with_a_name_for_every_unit(name: str) -> None:
    extractor = made(name)
    found = extractor.extract_layers(frames(), 12.0)
    assert tuple(found) == extractor.layers
    for layer, values in found.items():
        assert values.shape == (7, extractor.n_units[layer])
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        names = extractor.unit_names(layer)
        assert len(set(names)) == len(names) == values.shape[1]
    assert extractor.extract(frames(), 12.0).shape == (7, sum(extractor.n_units.values()))


@every
def test_the_same_frames_give_the_same_features_and_stay_as_they_were(name: str) -> None:
    given = frames()
    first = made(name).extract(given, 12.0)
    np.testing.assert_array_equal(given, frames())
    np.testing.assert_array_equal(made(name).extract(given, 12.0), first)
    assert np.abs(first[0] - first[1]).max() > 0


@every
def test_batches_make_no_difference(name: str) -> None:
    if "batch" not in KINDS[name].model_fields:
        pytest.skip("an extractor of motion has no batches of its own")
    whole = made(name, batch=64).extract(frames(), 12.0)
    np.testing.assert_allclose(made(name, batch=2).extract(frames(), 12.0), whole, rtol=1e-4, atol=1e-5)


@every
def test_a_stream_has_no_seams(name: str) -> None:
    video = Video.from_frames(frames(70), name="v", fps=6.0)
    extractor = made(name, batch=16) if "batch" in KINDS[name].model_fields else made(name)
    found = extractor.features(video)
    whole = extractor.extract_layers(video.frames(), 6.0)
    for layer in extractor.layers:
        assert found[layer].extractor == name
        np.testing.assert_allclose(found[layer].data, whole[layer], rtol=1e-4, atol=1e-5)


@every
def test_what_was_learnt_can_be_saved(name: str) -> None:
    fitted = made(name)
    again = EXTRACTORS[name](KINDS[name].build(CONFIGS[name])).restore(fitted.arrays())
    np.testing.assert_array_equal(again.extract(frames(), 12.0), fitted.extract(frames(), 12.0))


@every
def test_bad_input_is_one_sentence(name: str) -> None:
    extractor = made(name)
    with pytest.raises(DataError, match=r"^frames must be uint8, got float64$"):
        extractor.extract(frames().astype(float), 12.0)
    with pytest.raises(
        DataError, match=r"^frames must have the axes \(frames, height, width, rgb\), got shape \(7, 72, 80\)$"
    ):
        extractor.extract(frames()[..., 0], 12.0)
    with pytest.raises(DataError, match=r"^frames must have 3 colours on the last axis, got shape \(7, 72, 80, 1\)$"):
        extractor.extract(frames()[..., :1], 12.0)
    with pytest.raises(DataError, match=r"^frames must be 1 or more of 1 pixel or more, got shape \(0, 72, 80, 3\)$"):
        extractor.extract(frames()[:0], 12.0)
    with pytest.raises(DataError, match=r"^fps must be > 0, got 0$"):
        extractor.extract(frames(), 0)
    with pytest.raises(ConfigError, match=r"^config key must be one of .*, got 'sise'$"):
        KINDS[name].build({"sise": 3})


@pytest.mark.parametrize("name", [name for name, kind in sorted(EXTRACTORS.items()) if kind.learns])
def test_what_learns_refuses_to_extract_before(name: str) -> None:
    extractor = EXTRACTORS[name](KINDS[name].build(CONFIGS[name]))
    with pytest.raises(DataError, match=rf"^{name} must be fitted before it extracts, got no fit$"):
        extractor.extract(frames(), 12.0)
    with pytest.raises(DataError, match=rf"^{name} \w+ must be there, got nothing$"):
        extractor.restore({})


def test_settings_that_cannot_be_are_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^layer must be one of hmax1, hmax2, hmax3, got 'hmax4'$"):
        made("hmax", layers=("hmax4",))
    with pytest.raises(
        ConfigError, match=r"^patch_sizes must lie within 1\.\.15, the C1 cells of a side, got \(40,\)$"
    ):
        made("hmax", patch_sizes=(40,))
    with pytest.raises(ConfigError, match=r"^layer must be one of conv1, .*, got 'conv9'$"):
        made("alexnet", layers=("conv9",)).extract(frames(), 12.0)
    with pytest.raises(DataError, match=r"^training frames must have as many descriptors .*\(5000\), got \d+$"):
        made("sift", words=5000)
