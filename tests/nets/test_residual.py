from pathlib import Path

import pytest
import torch

from neuroreel.core.errors import DataError
from neuroreel.nets.residual import ResidualConfig, ResidualNet
from neuroreel.nets.weights import write_state

CONFIG = ResidualConfig(size=16, frames=2, widths=(8, 8), heads={"category": 5, "place": 3}, placed=("place",))


def test_every_head_answers_for_pictures_and_for_clips() -> None:
    clips = torch.randint(0, 256, (3, 2, 16, 16, 3), dtype=torch.uint8)
    found = ResidualNet(CONFIG).eval().answers(clips)
    assert {name: tuple(value.shape) for name, value in found.items()} == {"category": (3, 5), "place": (3, 3)}
    pictures = ResidualNet(CONFIG.model_copy(update={"frames": 1})).eval()
    assert pictures.answers(clips[:, 0])["place"].shape == (3, 3)


def test_the_mean_map_forgets_the_place_and_the_kept_one_does_not() -> None:
    torch.manual_seed(0)
    net = ResidualNet(CONFIG).eval()
    last = torch.rand(1, 8, 4, 4)
    net.features = lambda x: x  # type: ignore[method-assign]
    here, there = net(last), net(last.roll(1, -1))
    torch.testing.assert_close(here["category"], there["category"])
    assert (here["place"] - there["place"]).abs().max() > 1e-3


def test_frames_of_another_shape_are_one_sentence() -> None:
    with pytest.raises(DataError, match=r"frames must have the shape \(n, 2, 16, 16, 3\), got \(1, 16, 16, 3\)"):
        ResidualNet(CONFIG).pixels(torch.zeros(4, 16, 16, 3, dtype=torch.uint8))


def test_what_was_written_in_half_answers_the_same(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = ResidualNet(CONFIG).eval()
    digest = write_state(tmp_path / "weights.safetensors", net, half=True)
    back = ResidualNet.load(tmp_path / "weights.safetensors", CONFIG, digest)
    x = torch.rand(2, 6, 16, 16)
    torch.testing.assert_close(back(x)["category"], net(x)["category"], atol=1e-2, rtol=0)


def test_an_attended_answer_says_where_the_attention_looks_and_ignores_the_rest() -> None:
    config = CONFIG.model_copy(update={"heads": {"place": 2}, "placed": (), "attended": ("place",)})
    net = ResidualNet(config).eval()
    head = net.heads["place"]
    torch.nn.init.zeros_(head.look.weight)
    head.look.weight.data[0, 0] = 100  # looks where the first channel is bright
    head.read.weight.data = torch.cat([torch.zeros(2, 8), torch.eye(2)], 1)  # answers with the coordinates
    torch.nn.init.zeros_(head.read.bias)
    last = torch.zeros(1, 8, 4, 4)
    last[0, 0, 1, 3] = 1
    torch.testing.assert_close(head(last), torch.tensor([[3.5 / 4, 1.5 / 4]]))
