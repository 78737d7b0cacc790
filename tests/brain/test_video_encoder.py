import numpy as np
import pytest
import torch
from torch import nn

from neuroreel.brain.video_encoder import (
    Conv3dTrunk,
    FrozenTrunk,
    VideoEncoder,
    VideoEncoderConfig,
    begin_readout,
    design_of,
    encoding_loss,
    mixing_of,
    to_signed,
)


def clips(n: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (n, 3, 16, 16, 3), dtype=np.uint8)


def trunk(components: int = 5) -> FrozenTrunk:
    config = VideoEncoderConfig(components=components, looks=1, grid=2, pixel_grid=4)
    made = FrozenTrunk(config, lambda pictures: [pictures[:, :, ::2, ::2]], lambda shown: shown.mean((2, 3, 4)))
    made.begin(clips())
    return made


def test_volumes_mix_the_clips_that_were_shown_so_long_before():
    mixing = mixing_of(np.array([0.0, 2.0, 4.0]), 2.0, np.array([4.0, 5.0, 20.0]), (2.0, 4.0))
    assert mixing[0].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert mixing[1].tolist() == [[0, 0.5, 0.5], [0.5, 0.5, 0]]
    assert not mixing[2].any()  # nothing was shown then


def test_the_features_of_each_space_weigh_the_same_and_are_the_module_s():
    made = trunk()
    features = made(to_signed(clips())).numpy()
    assert features.shape == (40, made.units) and made.spaces == 4
    assert float(features[:, :5].var(0).sum()) == pytest.approx(1, rel=1e-3)
    again = FrozenTrunk(made.config, made.maps, made.see)
    again.restore(dict(made.named_buffers(recurse=False)))
    torch.testing.assert_close(again(to_signed(clips(5, 1))), made(to_signed(clips(5, 1))))


def test_what_never_moves_has_no_components_of_movement():
    still = np.repeat(clips()[:, :1], 3, axis=1)
    made = trunk()
    before = made.units
    made.begin(still)
    assert len(made.axes2) == 0 and made.units < before
    assert torch.isfinite(made(to_signed(still))).all()


def test_the_readout_begins_as_the_regression_and_tells_what_it_missed():
    rng = np.random.default_rng(0)
    design = rng.normal(size=(120, 6)).astype(np.float32)
    weights = rng.normal(size=(6, 4)).astype(np.float32)
    bold = (design @ weights + 0.5 * rng.normal(size=(120, 4))).astype(np.float32)
    readout = nn.Linear(6, 4)
    ridge = begin_readout(readout, design, bold, np.arange(120) // 6, VideoEncoderConfig().ridge)
    np.testing.assert_allclose(readout.weight.detach().numpy().T, weights, atol=0.2)
    assert (bold - ridge.held_out_).std() == pytest.approx(0.5, rel=0.15)


def test_clips_at_delays_and_their_features_are_the_same_to_the_encoder():
    encoder = VideoEncoder(trunk(), 7, (2.0, 4.0))
    shown = to_signed(clips(6, 3)).view(3, 2, 3, 3, 16, 16)
    features = encoder.trunk(shown.flatten(0, 1))
    torch.testing.assert_close(encoder(shown), encoder(features.view(3, -1)))
    mixing = torch.zeros(3, 2, 6)
    for volume in range(3):
        mixing[volume, 0, 2 * volume] = mixing[volume, 1, 2 * volume + 1] = 1
    torch.testing.assert_close(encoder.answer(features, mixing), encoder(shown))
    np.testing.assert_allclose(design_of(features.numpy(), mixing.numpy()), features.view(3, -1).numpy(), rtol=1e-5)


def test_gradients_go_through_the_encoder_to_the_video():
    for one in (trunk(), Conv3dTrunk(8)):
        shown = to_signed(clips(2)).requires_grad_()
        VideoEncoder(one, 5, (2.0, 4.0))(shown[None]).sum().backward()
        assert shown.grad is not None and shown.grad.abs().sum() > 0


def test_the_loss_is_the_distance_and_half_the_angle():
    true = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    made = torch.tensor([[6.0, 8.0], [0.0, 1.0]])
    assert encoding_loss(made, true).tolist() == pytest.approx([np.sqrt(12.5), 1 + 0.5])
    assert float(encoding_loss(true, true).max()) < 1e-5
