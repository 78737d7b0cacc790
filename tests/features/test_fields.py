"""Pooling under fields: the grid, where units look, and that pooling in batches is pooling at once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.types import Video
from neuroreel.features.alexnet import AlexNetExtractor, AlexNetFeaturesConfig
from neuroreel.features.fields import FieldPooling, Fields, FieldsConfig
from neuroreel.features.gist import GistConfig, GistExtractor
from neuroreel.features.sift import SiftExtractor
from neuroreel.preprocess.timing import HrfSampling, hrf_by_name

NET = {"layout": "world", "size": 64, "width": 0.1, "hidden": 16, "n_classes": 5}


def alexnet(*layers: str, **more: object) -> AlexNetExtractor:
    return AlexNetExtractor(AlexNetFeaturesConfig(weights="random", net=NET, layers=layers, **more))


def movie(frames: int) -> Video:
    pixels = np.random.default_rng(2).integers(256, size=(frames, 64, 64, 3), dtype=np.uint8)
    return Video.from_frames(pixels, name="noise", fps=2.0)


def test_the_grid_covers_the_frame_with_more_small_fields_than_large_ones() -> None:
    fields = Fields.of(FieldsConfig(sizes=(0.1, 0.3), spacing=2.0))
    assert [int((fields.sd == size).sum()) for size in (0.1, 0.3, np.inf)] == [25, 4, 1]
    np.testing.assert_allclose(np.unique(fields.x[:25]), [0.1, 0.3, 0.5, 0.7, 0.9])
    assert len(Fields.of(FieldsConfig(sizes=(0.1,), spacing=2.0, whole=False))) == 25


def test_weights_are_a_gaussian_about_the_centre_and_sum_to_1() -> None:
    fields = Fields(np.array([0.3, 0.5]), np.array([0.7, 0.5]), np.array([0.1, np.inf]))
    places = (np.arange(40) + 0.5) / 40
    small, whole = fields.weights(places, places).reshape(2, 40, 40)
    np.testing.assert_allclose([small.sum(), whole.sum()], 1, rtol=1e-5)
    np.testing.assert_allclose(whole, 1 / 1600, rtol=1e-5)
    assert small.sum(axis=0) @ places == pytest.approx(0.3, abs=0.003)
    assert small.sum(axis=1) @ places == pytest.approx(0.7, abs=0.003)
    sd = np.sqrt(small.sum(axis=0) @ (places - 0.3) ** 2)
    assert sd == pytest.approx(0.1, abs=0.003)


def test_a_field_far_smaller_than_a_unit_still_sees_the_nearest_one() -> None:
    weights = Fields(np.array([0.9]), np.array([0.1]), np.array([1e-4])).weights(np.arange(7) / 7, np.arange(7) / 7)
    assert np.isfinite(weights).all() and weights.argmax() == 7 + 6


@pytest.mark.parametrize("layer", ["conv1", "conv2:pre", "conv4", "pool5"])
def test_places_of_the_network_are_where_its_units_look(layer: str) -> None:
    """The pixels that a unit's answer depends on lie about its place; those that a maximum leaves out vary."""
    size = 160  # more than any unit sees
    extractor = AlexNetExtractor(AlexNetFeaturesConfig(weights="random", net=NET | {"size": size}, layers=(layer,)))
    net = extractor.net.double()
    found = extractor.places(layer)
    assert found is not None
    middle = extractor.shape(layer)[1] // 2
    reach = torch.zeros(size, dtype=torch.float64)
    for seed in range(20):
        x = torch.randn(1, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        x.requires_grad_()
        net.activations(x, (layer,))[layer][0, :, middle, middle].sum().backward()
        assert x.grad is not None
        reach += x.grad.abs().sum(dim=(0, 1, 2))
    seen = np.flatnonzero(reach.numpy() > 0)
    assert (seen[0] + seen[-1] + 1) / 2 == pytest.approx(size * found[0][middle], abs=1.0)


def test_layers_without_maps_have_no_places_and_are_left_out() -> None:
    extractor = alexnet("conv1", "fc7", "conv3")
    assert extractor.places("fc7") is None
    pooling = FieldPooling(extractor)
    assert pooling.layers == ("conv1", "conv3")
    assert pooling.n_channels == extractor.shape("conv1")[0] + extractor.shape("conv3")[0]
    assert FieldPooling(GistExtractor(GistConfig(size=64))).layers == ("gist",)


@pytest.mark.parametrize("batch", [3, 64])
def test_batches_give_what_all_frames_at_once_give(batch: int, tmp_path: Path) -> None:
    extractor, video = alexnet("conv2", "conv4", batch=batch), movie(50)
    pooling = FieldPooling(extractor, FieldsConfig(sizes=(0.15, 0.3)))
    sampling = HrfSampling.of(50, 2.0, np.arange(-4.0, 30.0, 2.0), hrf_by_name("spm")).weights
    pooled = pooling.pool(extractor.extract_layers(video.frames(), 2.0))
    expected = np.einsum("vt,tfc->vfc", sampling.toarray(), pooled)
    volumes = pooling.volumes(video, sampling, tmp_path / "volumes")
    for number in range(len(pooling.fields)):
        np.testing.assert_allclose(volumes.field(number), expected[:, number], atol=1e-5)
    volumes.close()


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sizes must be > 0, got -0\.1"):
        FieldsConfig.build({"sizes": (0.1, -0.1)})
    with pytest.raises(ConfigError, match=r"^sift must have maps to pool in one layer or more, got sift$"):
        FieldPooling(SiftExtractor())
    sampling = HrfSampling.of(9, 2.0, np.arange(4.0), hrf_by_name("spm")).weights
    rule = r"^frames of a sampling must have as many entries as those of the movie \(50\), got 9 \(noise\)$"
    with pytest.raises(DataError, match=rule):
        FieldPooling(alexnet("conv1")).volumes(movie(50), sampling, tmp_path / "volumes")
