import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neuroreel.core.errors import ConfigError, DataError
from neuroreel.generate.deconvolution import Switches, deconvolve, deconvolve_units, to_frames
from neuroreel.nets.alexnet import WORLD, AlexNet, AlexNetConfig

CAFFE = AlexNetConfig(layout="caffe", size=95, width=0.3, hidden=12, n_classes=7)
WIDE = AlexNetConfig(layout="caffe", size=95, hidden=12, n_classes=7)
TORCHVISION = AlexNetConfig(layout="torchvision", size=96, width=0.25, hidden=12, n_classes=7)


def pictures(n: int, size: int, seed: int = 0) -> np.ndarray:
    """Smooth coloured pictures, each its own."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (n, 3, 6, 6)).astype(np.float32))
    smooth = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False).clamp(0, 255)
    return smooth.byte().permute(0, 2, 3, 1).numpy()


def correlations(reconstructed: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Correlation of every reconstruction (rows) with every frame (columns)."""
    n = len(frames)
    return np.corrcoef(reconstructed.reshape(n, -1), frames.reshape(n, -1).astype(float))[:n, n:]


@pytest.mark.parametrize(("config", "layer"), [*((WORLD, f"conv{i}") for i in (1, 2, 3)), (WIDE, "conv2")])
def test_a_frame_comes_back_from_its_own_activations(config: AlexNetConfig, layer: str) -> None:
    net = AlexNet.seeded(config, 0)
    frames = pictures(6, config.size)
    found = correlations(deconvolve_units(net, frames, layer), frames)
    own, other = np.diag(found), found[~np.eye(6, dtype=bool)]
    assert own.mean() > other.mean() + 0.25
    assert (own[:, None] >= found).mean() > 0.9


@pytest.mark.parametrize("config", [WORLD, CAFFE, TORCHVISION])
def test_the_way_back_is_the_gradient_where_the_forward_signal_is_linear(config: AlexNetConfig) -> None:
    """From before the first ReLU, transposed filters are the adjoint: <conv x, y> - bias = <x, conv' y>."""
    net = AlexNet.seeded(config, 1)
    x = torch.randn(2, 3, config.size, config.size, generator=torch.Generator().manual_seed(0))
    y = torch.randn(2, *net.shapes["conv1"], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        forward = (net.activations(x, ("conv1:pre",))["conv1:pre"] * y).sum()
        back = (x * deconvolve(net, y, "conv1:pre", Switches.of(net, x))).sum()
    torch.testing.assert_close(back, forward, rtol=1e-3, atol=1e-2)


def test_unpooling_puts_every_maximum_where_it_was() -> None:
    net = AlexNet.seeded(WORLD, 0)
    x = net.pixels(torch.from_numpy(pictures(2, 64)))
    switches = Switches.of(net, x)
    with torch.no_grad():
        pooled = net.activations(x, ("pool1",))["pool1"]
        known = F.max_unpool2d(pooled, switches.places["pool1"], 3, 2, output_size=(32, 32))
    back = deconvolve(net, pooled, "pool1", switches)
    torch.testing.assert_close(back, deconvolve(net, known, "conv1", switches), rtol=1e-4, atol=1e-5)


def test_normalisation_is_undone_by_what_was_divided_by() -> None:
    net = AlexNet.seeded(CAFFE, 0)
    x = net.pixels(torch.from_numpy(pictures(2, 95)))
    switches = Switches.of(net, x)
    with torch.no_grad():
        found = net.activations(x, ("conv1", "norm1"))
    assert float(switches.divisors["norm1"].max()) > 1.01
    back = deconvolve(net, found["norm1"], "norm1", switches)
    torch.testing.assert_close(back, deconvolve(net, found["conv1"], "conv1", switches), rtol=1e-4, atol=1e-3)


def test_one_unit_is_seen_only_where_it_looks() -> None:
    net = AlexNet.seeded(WORLD, 0)
    frames = pictures(1, 64)
    x = net.pixels(torch.from_numpy(frames))
    one = torch.zeros(1, *net.shapes["conv2"])
    one[0, 5, 7, 7] = 1.0
    back = deconvolve(net, one, "conv2", Switches.of(net, x)).abs().amax((0, 1))
    rows = torch.nonzero(back.amax(1))[:, 0]
    assert 0 < len(rows) <= 31  # 5 cells of pool1, each 3 x 3 of a stride of 2, each filtered with 7 of a stride of 2
    assert rows.min() > 8
    assert rows.max() < 56


@pytest.mark.parametrize("layer", ["pool5", "fc6", "fc7:pre", "fc8"])
def test_every_layer_and_unit_leads_to_pixels(layer: str) -> None:
    net = AlexNet.seeded(WORLD, 0)
    frames = pictures(3, 64)
    seen = deconvolve_units(net, frames, layer, np.array([0, 3]), strongest=True)
    assert seen.shape == (3, 64, 64, 3)
    assert np.isfinite(seen).all()
    assert np.abs(deconvolve_units(net, frames, layer)).max() > 0


def test_decoded_activations_take_the_switches_of_one_frame() -> None:
    net = AlexNet.seeded(WORLD, 0)
    one = Switches.of(net, net.pixels(torch.from_numpy(pictures(1, 64))))
    many = deconvolve(net, torch.rand(4, *net.shapes["conv3"]), "conv3", one)
    assert many.shape == (4, 3, 64, 64)


def test_pictures_are_centred_with_the_contrast_asked_for() -> None:
    contrast = np.random.default_rng(0).standard_normal((2, 32, 32, 3)) * np.array([1, 40]).reshape(2, 1, 1, 1)
    shown = to_frames(contrast)
    assert shown.dtype == np.uint8
    np.testing.assert_allclose(shown.reshape(2, -1).mean(1), 127.5, atol=1)
    np.testing.assert_allclose(shown.reshape(2, -1).std(1), 127.5 / 3, rtol=0.02)
    np.testing.assert_array_equal(to_frames(np.zeros((1, 4, 4, 3))), 128)


def test_bad_input_is_one_sentence() -> None:
    net = AlexNet.seeded(WORLD, 0)
    switches = Switches.of(net, torch.zeros(1, 3, 64, 64))
    with pytest.raises(ConfigError, match=r"^layer must be one of conv1, .*, got 'prob'$"):
        deconvolve(net, torch.zeros(1, 32), "prob", switches)
    with pytest.raises(DataError, match=r"^fc7 must have the shape \(n, \*\(256,\)\), got \(1, 32\)$"):
        deconvolve(net, torch.zeros(1, 32), "fc7", switches)
    with pytest.raises(ConfigError, match=r"^units must lie within 0\.\.31, got \[32\] \(fc8\)$"):
        deconvolve_units(net, pictures(1, 64), "fc8", np.array([32]))
    with pytest.raises(DataError, match=r"^frames must be uint8 \(n, 64, 64, 3\), got uint8 \(1, 32, 32, 3\)$"):
        deconvolve_units(net, pictures(1, 32), "fc8")
