import numpy as np
import pytest
import torch

from neuroreel.core.errors import DataError
from neuroreel.generate.frame_decoder import (
    ClipBasis,
    FrameDecoder,
    FrameDecoderConfig,
    picture_error,
    total_variation,
)


def clips(n: int = 30, frames: int = 3, size: int = 16, seed: int = 0) -> np.ndarray:
    """Clips whose three sources of brightness make them lie in a space of three dimensions, up to rounding."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(7).normal(size=(3, frames, size, size, 3)) * 20
    return np.clip(128 + np.einsum("nk,kfhwc->nfhwc", rng.normal(size=(n, 3)), patterns), 0, 255).astype(np.uint8)


def basis(size: int = 16, components: int = 3) -> ClipBasis:
    return ClipBasis().fit(clips(), size, components)


def test_a_code_gives_the_clip_back_where_clips_have_so_many_dimensions():
    decoder = FrameDecoder(basis(), 16, 16, FrameDecoderConfig(size=16, width=4))
    new = clips(seed=1)
    made = decoder.show(basis().codes(new))
    assert np.abs(made.astype(int) - new).mean() < 3
    assert np.abs(clips(seed=2).astype(int) - new).mean() > 10


def test_components_agree_with_scikit_learn():
    from sklearn.decomposition import PCA

    flat = clips().transpose(0, 1, 4, 2, 3).reshape(30, -1) / 127.5 - 1
    known = PCA(3).fit(flat)
    found = basis()
    np.testing.assert_allclose(np.abs(known.components_ @ found.axes_.T), np.eye(3), atol=1e-3)
    np.testing.assert_allclose(found.sd_, known.singular_values_ / np.sqrt(30), rtol=1e-3)


def test_the_network_begins_by_adding_nothing_and_learns_what_the_code_misses():
    torch.manual_seed(0)
    few = basis(components=1)
    decoder = FrameDecoder(few, 16, 16, FrameDecoderConfig(size=16, width=8))
    codes = torch.from_numpy(few.codes(clips()))
    linear = decoder.linear(codes)
    torch.testing.assert_close(decoder(codes).flatten(1, 2), linear)
    true = linear + 0.3 * (codes > 0)[:, :, None, None]  # brighter on one side: no line says that
    optimiser = torch.optim.Adam(decoder.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = (decoder(codes).flatten(1, 2) - true).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_what_the_network_adds_can_be_halved_or_taken_back():
    decoder = FrameDecoder(basis(), 16, 16, FrameDecoderConfig(size=16, width=4))
    torch.nn.init.normal_(decoder.add[-1].weight, std=0.1)
    codes = basis().codes(clips())
    whole, linear = decoder(torch.from_numpy(codes)), decoder.linear(torch.from_numpy(codes))
    decoder.share = 0.5
    tried = decoder(torch.from_numpy(codes))
    decoder.settle(0.5)
    torch.testing.assert_close(decoder(torch.from_numpy(codes)), tried)
    torch.testing.assert_close((whole + linear.unflatten(1, (3, 3))) / 2, tried, atol=1e-5, rtol=1e-4)
    decoder.settle(0)
    assert np.array_equal(decoder.show(codes), basis().show(codes, 16, 16))
    assert picture_error(decoder.show, codes, decoder.show(codes)) == 0
    assert picture_error(decoder.show, codes, clips(seed=2)) > 0.01


def test_the_published_layers_double_three_times():
    config = FrameDecoderConfig(base="none", size=24, width=4)
    decoder = FrameDecoder(basis(), 24, 24, config)
    made = decoder(torch.randn(2, 3))
    assert made.shape == (2, 3, 3, 24, 24) and -1 <= float(made.detach().min()) <= float(made.detach().max()) <= 1
    assert FrameDecoderConfig.published().size == 14 * 2**3


def test_wide_clips_keep_their_proportions():
    wide = clips()[:, :, :8]
    found = ClipBasis().fit(wide, 4, 3)
    assert found.size == (4, 8)
    assert FrameDecoder(found, 8, 16, FrameDecoderConfig(width=4)).show(found.codes(wide)).shape == wide.shape


def test_total_variation_counts_edges_in_space_and_time():
    step = torch.zeros(1, 2, 1, 4, 4)
    step[0, 1, :, :, 2:] = 1.0  # an edge appears
    assert float(total_variation(step, time=0)) == pytest.approx(4 / (2 * 4 * 3))
    assert float(total_variation(step, time=2) - total_variation(step, time=0)) == pytest.approx(2 * 0.5)


def test_clips_that_are_all_the_same_have_no_code():
    with pytest.raises(DataError, match="clips must differ, got all the same"):
        ClipBasis().fit(np.full((4, 1, 8, 8, 3), 9, np.uint8), 8, 2)
