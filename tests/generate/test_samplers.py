import pytest
import torch

from neuroreel.core.errors import ConfigError
from neuroreel.generate.samplers import denoise, make_sampler, seeded_noise

NOISE = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


class Counting(torch.nn.Module):
    """Say the mean of the tokens, and remember how many rows were asked at which time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor) -> object:
        self.asked.append((int(t), len(x)))
        return type("Output", (), {"sample": 0 * x + tokens.mean((1, 2)).view(-1, 1, 1, 1)})()


def draw(guidance: float, within: tuple[float, float]) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    net, sampler = Counting(), make_sampler("ddim", NOISE)
    noise = seeded_noise(0, (1, 2, 2), range(3))
    told, silent = torch.full((3, 1, 4), 0.2), torch.zeros(1, 1, 4)
    return denoise(net, noise, told, silent, sampler, steps=10, guidance=guidance, within=within), net.asked


def test_guidance_outside_its_interval_is_none_and_costs_nothing() -> None:
    asked = draw(3.0, (0.25, 0.65))[1]
    assert [rows for time, rows in asked if 250 <= time <= 650] == [6] * 4
    assert [rows for time, rows in asked if not 250 <= time <= 650] == [3] * 6
    never, always = draw(3.0, (0.9999, 1.0))[0], draw(3.0, (0.0, 1.0))[0]
    assert torch.equal(never, draw(1.0, (0.0, 1.0))[0])
    assert not torch.allclose(never, always) and torch.equal(always, draw(3.0, (0.0, 1.0))[0])


def test_an_interval_that_falls_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^within must be two shares that rise, got \(0.8, 0.2\)$"):
        draw(3.0, (0.8, 0.2))
