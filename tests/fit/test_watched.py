import numpy as np
import pytest
import torch
from torch import nn

from neuroreel.fit.loop import Arrays, LoopConfig, train
from neuroreel.fit.watched import thinned, train_watched


def line():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def wrong(net, batch):
    return (net(batch["x"])[:, 0] - batch["x"].sum(1)).square()


SOURCE = Arrays({"x": np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)})


def test_the_network_ends_with_its_moving_average_and_was_looked_at():
    config, net = LoopConfig(steps=20, batch=8, rate=0.05, average=0.9), line()
    _, about = train_watched(net, wrong, SOURCE, config, lambda: float(net.weight.detach().sum()), cpu=True, looks=4)
    plain = line()
    average = train(plain, wrong, SOURCE, config, cpu=True).average
    torch.testing.assert_close(net.weight.detach(), average["weight"])
    assert [step for step, _ in about["validation"]] == [1, 5, 10, 15, 20]
    assert about["validation_of_average"] == pytest.approx(float(average["weight"].sum()))
    assert len(about["losses"]) == 20 and not net.training


def test_a_stage_that_is_done_is_not_done_again(tmp_path):
    config = LoopConfig(steps=6, batch=8, average=0.9)
    first, second = line(), line()
    train_watched(first, wrong, SOURCE, config, folder=tmp_path, cpu=True)
    _, about = train_watched(second, wrong, SOURCE, config, folder=tmp_path, cpu=True)
    assert about["resumed_at"] == 6
    assert torch.equal(first.weight, second.weight)


def test_curves_are_thinned_to_means():
    assert thinned(np.arange(6.0), 3) == [0.5, 2.5, 4.5]
    assert thinned(np.array([])) == []
