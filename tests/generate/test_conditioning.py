import pytest
import torch
from tests.generate.small_generators import write_stable_diffusion

from neuroreel.core.errors import ConfigError
from neuroreel.generate.conditioning import DoubleConditioned, Noising
from neuroreel.generate.latent import LatentGenerator


@pytest.mark.parametrize("times", ["uniform", "middle"])
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_clean_latents_follow_from_the_noised_ones_and_the_target(kind, times):
    noising = Noising({"beta_schedule": "squaredcos_cap_v2", "prediction_type": kind}, times)
    clean = torch.randn(64, 4, 2, 2)
    noised, t, target = noising(clean)
    kept = noising.kept[t][:, None, None, None]
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    found = {
        "epsilon": (noised - sigma * target) / alpha,
        "sample": target,
        "v_prediction": alpha * noised - sigma * target,
    }
    torch.testing.assert_close((found[kind] * alpha), clean * alpha, atol=1e-4, rtol=0)
    assert len(t.unique()) > 32


def test_at_first_it_is_the_given_network_and_then_the_tokens_change_the_time(tmp_path):
    unet = LatentGenerator(write_stable_diffusion(tmp_path / "sd")).unet
    x, t, tokens = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 8, 16)
    with torch.no_grad():
        given = unet(x, t, tokens).sample
        both = DoubleConditioned(unet)
        torch.testing.assert_close(both(x, t, tokens).sample, given)
        both.project.weight.normal_()
        assert (both(x, t, tokens).sample - given).abs().max() > 1e-3
        torch.testing.assert_close(unet(x, t, tokens).sample, given)  # called by itself, nothing is added


def test_layers_of_no_such_name_are_refused(tmp_path):
    unet = LatentGenerator(write_stable_diffusion(tmp_path / "sd")).unet
    with pytest.raises(ConfigError, match="tuned must name layers of the U-Net, got attention9"):
        DoubleConditioned(unet, ["attention9"])


def test_frames_have_a_share_of_their_noise_in_common():
    noise = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "epsilon"}
    _, _, target = Noising(noise, shared=0.6)(torch.zeros(400, 2, 3, 4, 4))
    pairs = target.transpose(1, 2).flatten(2).transpose(0, 1).flatten(1)  # (frames, n)
    alike = torch.corrcoef(pairs)
    torch.testing.assert_close(alike[0, 1:], torch.full((2,), 0.6), atol=0.03, rtol=0)
    assert abs(float(target.var()) - 1) < 0.03
