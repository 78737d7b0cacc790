from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn

from neuroreel.core.errors import DataError
from neuroreel.fit.classifier import ClassifierConfig, fit_classifier, kl_divergence


class Small(nn.Module):
    """A linear classifier with dropout, so that random numbers of training matter."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 3)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(nn.functional.dropout(x, 0.2, self.training))


def prepare(frames: torch.Tensor) -> torch.Tensor:
    return frames.flatten(1).float() / 255 - 0.5


def problem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=200)
    frames = rng.integers(100, size=(200, 2, 2, 3))
    frames[np.arange(200), 0, 0, labels] += 120
    return frames.astype(np.uint8), labels


def fitted(config: ClassifierConfig, labels: np.ndarray | None = None, **more: Path) -> tuple[Small, list]:
    frames, known = problem()
    net = Small()
    return net, fit_classifier(net, frames, known if labels is None else labels, prepare, config, n_classes=3, **more)


def test_the_divergence_is_that_of_scipy() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet([0.5, 1, 2], size=20)
    q = rng.dirichlet([1, 1, 1], size=20)
    ours = kl_divergence(torch.from_numpy(np.log(q) + 3), torch.from_numpy(p))
    np.testing.assert_allclose(ours, entropy(p, q, axis=1), rtol=1e-9)


def test_classes_are_learnt_and_the_loss_falls() -> None:
    _, history = fitted(ClassifierConfig(epochs=30, rate=0.05, l2=0))
    assert history[-1]["kl"] < 0.4 * history[0]["kl"]
    assert history[-1]["accuracy"] > 0.9


def test_soft_labels_that_say_nothing_are_reached_with_divergence_0() -> None:
    _, history = fitted(ClassifierConfig(epochs=5, rate=0.05, l2=0), np.full((200, 3), 1 / 3))
    assert history[-1]["kl"] == pytest.approx(0, abs=1e-6)


def test_the_penalty_is_half_the_squared_norm_of_the_weights() -> None:
    net, history = fitted(ClassifierConfig(epochs=40, rate=0.05, l2=0.1))
    norm = float(net.fc.weight.detach().square().sum())
    assert history[-1]["penalty"] == pytest.approx(0.05 * norm, rel=0.05)
    free, _ = fitted(ClassifierConfig(epochs=40, rate=0.05, l2=0))
    assert norm < 0.5 * float(free.fc.weight.detach().square().sum())


def test_a_stopped_fit_goes_on_to_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    config = ClassifierConfig(epochs=4, rate=0.05)
    whole, _ = fitted(config)

    class Stop(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        fitted(config, checkpoint=tmp_path / "c.pt", on_epoch=stop)
    again, history = fitted(config, checkpoint=tmp_path / "c.pt")
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    torch.testing.assert_close(again.fc.weight, whole.fc.weight, rtol=0, atol=0)


def test_the_global_generator_is_left_alone() -> None:
    net, (frames, labels) = Small(), problem()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    fit_classifier(net, frames, labels, prepare, ClassifierConfig(epochs=1), n_classes=3)
    torch.testing.assert_close(torch.rand(2), expected)


def test_bad_labels_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^labels must lie within 0\.\.2, got \[3 3"):
        fitted(ClassifierConfig(), np.full(200, 3))
    with pytest.raises(DataError, match=r"^labels must be >= 0 and sum to 1, got 1\.5"):
        fitted(ClassifierConfig(), np.full((200, 3), 0.5))
    with pytest.raises(DataError, match=r"^labels must have as many entries as frames \(200\), got 7$"):
        fitted(ClassifierConfig(), np.zeros(7, int))
    (tmp_path / "c.pt").write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match=r"^checkpoint must be whole and of this network, got .*c\.pt\)$"):
        fitted(ClassifierConfig(), checkpoint=tmp_path / "c.pt")
