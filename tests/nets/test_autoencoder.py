from pathlib import Path

import pytest
import torch

from neuroreel.nets.autoencoder import FoldedAutoencoder


@pytest.fixture(scope="module")
def net() -> FoldedAutoencoder:
    torch.manual_seed(0)
    return FoldedAutoencoder(block_out_channels=(16, 16, 8), layers_per_block=1).eval()


def test_latents_are_a_quarter_of_the_frame_and_come_back_at_its_size(net: FoldedAutoencoder) -> None:
    posterior = net.encode(torch.rand(2, 3, 32, 48)).latent_dist
    assert posterior.mode().shape == (2, 4, 8, 12)
    assert net.decode(posterior.mode()).sample.shape == (2, 3, 32, 48)
    assert net.decode(posterior.mode(), return_dict=False)[0].shape == (2, 3, 32, 48)


def test_forward_decodes_the_mode_or_a_sample_by_the_generator(net: FoldedAutoencoder) -> None:
    x = torch.rand(1, 3, 16, 16)
    mode = net(x).sample
    assert torch.equal(mode, net.decode(net.encode(x).latent_dist.mode()).sample)
    first, again = (net(x, sample_posterior=True, generator=torch.Generator().manual_seed(3)).sample for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, mode)


@torch.no_grad()
def test_whitening_changes_the_latents_and_not_the_pixels() -> None:
    torch.manual_seed(1)
    net = FoldedAutoencoder(block_out_channels=(16, 16, 8), layers_per_block=1).eval()
    x = torch.rand(8, 3, 32, 32) * 2 - 1
    before = net(x).sample
    net.whiten(x)
    flat = net.encode(x).latent_dist.mode().transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(flat), torch.eye(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.mean(1), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(net(x).sample, before, atol=1e-4, rtol=0)


def test_what_was_saved_comes_back_with_its_config(net: FoldedAutoencoder, tmp_path: Path) -> None:
    net.save_pretrained(tmp_path)
    back = FoldedAutoencoder.from_pretrained(tmp_path, local_files_only=True)
    x = torch.rand(1, 3, 16, 16)
    assert back.config.latent_channels == 4
    assert tuple(back.config.block_out_channels) == (16, 16, 8)
    assert torch.equal(back(x).sample, net(x).sample)


def test_the_interface_is_that_of_the_published_class(net: FoldedAutoencoder) -> None:
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    real = AutoencoderKL(block_out_channels=(8, 8, 8), norm_num_groups=4, **blocks)
    x = torch.rand(1, 3, 16, 16)
    assert real.encode(x).latent_dist.mode().shape == net.encode(x).latent_dist.mode().shape
    assert real(x).sample.shape == net(x).sample.shape
    assert {"scaling_factor", "latent_channels", "block_out_channels"} <= set(real.config) & set(net.config)
