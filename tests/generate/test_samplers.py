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
        self.first = torch.empty(0)

    def forward(self, x: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor) -> object:
        self.first = x if not self.asked else self.first
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


class Knowing(torch.nn.Module):
    """Tell the noise that was added to a picture which it knows, and remember when it was asked."""

    def __init__(self, picture: torch.Tensor) -> None:
        super().__init__()
        self.picture, self.asked = picture, []
        self.kept = make_sampler("ddim", NOISE).alphas_cumprod

    def forward(self, x: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor) -> object:
        self.asked.append(int(t))
        kept = self.kept[int(t)]
        return type("Output", (), {"sample": (x - kept.sqrt() * self.picture) / (1 - kept).sqrt()})()


@pytest.mark.parametrize("name", ["ddim", "pndm", "dpm++", "unipc"])
def test_sampling_that_begins_with_a_picture_takes_its_steps_from_there(name: str) -> None:
    picture, noise = seeded_noise(1, (2, 4, 4), range(3)), seeded_noise(0, (2, 4, 4), range(3))
    net, tokens, sampler = Knowing(picture), torch.zeros(3, 1, 4), make_sampler(name, NOISE | {"clip_sample": False})
    made = denoise(net, noise, tokens, tokens, sampler, steps=10, guidance=1.0, start=picture, strength=0.5)
    assert float((made - picture).abs().mean()) < 0.05  # pndm's first steps are rough
    assert len(set(net.asked)) == 10 and max(net.asked) <= 510


def test_how_much_is_left_of_the_start_falls_with_the_strength() -> None:
    start, noise, tokens = torch.full((3, 2, 4, 4), 2.0), torch.zeros(3, 2, 4, 4), torch.zeros(3, 1, 4)

    def left(strength: float) -> float:
        sampler, silent = make_sampler("ddim", NOISE), Counting()  # which takes all of what it is given for the picture
        made = denoise(silent, noise, tokens, tokens, sampler, steps=5, guidance=1.0, start=start, strength=strength)
        assert len(silent.asked) == 5
        return float(silent.first.mean() * (made.mean() > 0))

    assert 2 > left(0.2) > left(0.5) > left(1.0) > 0
    with pytest.raises(ConfigError, match=r"^strength must be above 0 and at most 1, got 0$"):
        left(0)
