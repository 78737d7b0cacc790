import copy

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from neuroreel.generate.attention import BlockAttention, attend_fast


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=8,
    ).eval()


@pytest.mark.parametrize("masked", [False, True])
def test_the_network_computes_what_it_did(unet: UNet2DConditionModel, masked: bool) -> None:
    given = (torch.randn(3, 4, 8, 8), torch.tensor([1, 500, 990]), torch.randn(3, 5, 12))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 0, 1]]).bool() if masked else None
    fast = attend_fast(copy.deepcopy(unet))
    assert {type(kind) for kind in fast.attn_processors.values()} == {BlockAttention}
    with torch.no_grad():
        before, after = (net(*given, encoder_attention_mask=mask).sample for net in (unet, fast))
        all_seen = fast(*given).sample
    torch.testing.assert_close(after, before)
    assert torch.allclose(all_seen, after) != masked


def test_gradients_are_the_same_too(unet: UNet2DConditionModel) -> None:
    given = (torch.randn(2, 4, 8, 8), 300, torch.randn(2, 5, 12))
    nets = (copy.deepcopy(unet), attend_fast(copy.deepcopy(unet)))
    for net in nets:
        net(*given).sample.square().mean().backward()
    for one, two in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(two.grad, one.grad, atol=1e-6, rtol=1e-3)


def test_attention_with_more_to_it_is_left_alone() -> None:
    coder = AutoencoderKL(block_out_channels=(16,), norm_num_groups=8)
    attend_fast(coder)
    kinds = [type(part.processor) for part in coder.modules() if hasattr(part, "processor")]
    assert kinds and set(kinds) == {AttnProcessor2_0}
