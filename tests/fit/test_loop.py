import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuroreel.core.errors import ConfigError, DataError, NeuroreelWarning
from neuroreel.fit.checkpoints import newest_checkpoint
from neuroreel.fit.loop import Batch, LoopConfig, Player, Progress, Trained, train

from .loop_worker import make_net, make_source, squared_error, teacher_and_pupil

WORKER = Path(__file__).with_name("loop_worker.py")
SHORT = LoopConfig(steps=12, batch=16, rate=0.01, checkpoint_every=5, precision="float32")


def fit(folder: Path | None = None, net: nn.Module | None = None, **changes: object) -> tuple[nn.Module, Trained]:
    net = make_net() if net is None else net
    config = SHORT.model_copy(update=changes)
    return net, train(net, squared_error, make_source(), config, folder=folder, cpu=True)


def worker(folder: Path, *settings: str, processes: int = 1, **environment: str) -> tuple[int, str]:
    """Run the worker in one or more processes; return the first one's exit code and what it complained of."""
    folder.mkdir(exist_ok=True)
    known = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": str(torch.get_num_threads())} | environment
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        known |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), *settings],
            stderr=subprocess.PIPE,
            text=True,
            env=known | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}),
        )
        for rank in range(processes)
    ]
    complaints = [each.communicate(timeout=300)[1] for each in started]
    return started[0].returncode, complaints[0]


def in_process(folder: Path, settings: list[str], *, dropout: bool = True, players: bool = False) -> Trained:
    net, loss = make_net(dropout), teacher_and_pupil() if players else squared_error
    return train(net, loss, make_source(), LoopConfig.read(None, settings), folder=folder, cpu=True)


def weights(folder: Path) -> dict[str, Tensor]:
    found = newest_checkpoint(folder)
    assert found is not None
    return {f"{part}|{name}": value for part, own in found.tensors.items() for name, value in own.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_learns_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    net = make_net()
    torch.manual_seed(11)
    _, trained = fit(net=net, steps=120, average=0.9)
    assert torch.equal(torch.rand(3), expected)
    assert trained.losses[-20:].mean() < 0.5 * trained.losses[:5].mean()
    assert set(trained.average) == {name for name, _ in net.named_parameters()}
    assert not net.training and trained.samples_per_s > 0


def test_a_killed_training_goes_on_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    settings = ["steps=30", "batch=32", "checkpoint_every=4", "average=0.9", "clip=0.5"]
    step = int(np.random.default_rng().integers(5, 29))  # anywhere: the result must not depend on it
    code, _ = worker(tmp_path / "killed", *settings, KILL_AT=str(step))
    assert code == -signal.SIGKILL and not (tmp_path / "killed" / "losses.npy").exists()
    resumed, whole = (in_process(tmp_path / name, settings) for name in ("killed", "whole"))
    assert (resumed.resumed_at, whole.resumed_at) == (
        (step - 1) // 4 * 4,
        0,
    )  # killed before the checkpoint of its step
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole")), f"killed at step {step}"


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=pytest.mark.heavy)])
def test_one_and_two_processes_have_the_same_loss_curve(tmp_path: Path, kind: str) -> None:
    settings = ["precision=float32", "steps=15", "batch=32", "rate=0.01", "checkpoint_every=6"]
    sharded = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
    more = {"NO_DROPOUT": "1"} | (sharded if kind == "fsdp" else {})
    code, complaint = worker(tmp_path / "two", *settings, processes=2, **more)
    assert code == 0, complaint
    one = in_process(tmp_path / "one", settings, dropout=False).losses
    two = np.load(tmp_path / "two" / "losses.npy")
    np.testing.assert_allclose(two, one, rtol=1e-5)
    a, b = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(b[name], a[name], rtol=1e-3, atol=1e-5)


@pytest.mark.heavy
def test_two_sharded_processes_go_on_from_the_checkpoint_of_one(tmp_path: Path) -> None:
    settings = ["precision=float32", "steps=15", "batch=32", "rate=0.01", "checkpoint_every=6", "average=0.9"]
    assert worker(tmp_path / "both", *settings, NO_DROPOUT="1", KILL_AT="8")[0] == -signal.SIGKILL
    sharded = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
    code, complaint = worker(tmp_path / "both", *settings, processes=2, NO_DROPOUT="1", **sharded)
    assert code == 0, complaint
    one = in_process(tmp_path / "one", settings, dropout=False).losses
    np.testing.assert_allclose(np.load(tmp_path / "both" / "losses.npy"), one, rtol=1e-5)


def test_a_nan_loss_stops_with_step_and_sample_named_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    config = SHORT.model_copy(update={"batch": 8, "checkpoint_every": 1})
    net = make_net()
    with pytest.raises(
        DataError, match=r"must be finite, got nan \(step \d+, samples 37; last checkpoint: (step-|none)"
    ):
        train(net, squared_error, make_source(bad=37), config, folder=tmp_path, cpu=True)
    assert all(bool(value.isfinite().all()) for value in net.parameters())
    found = newest_checkpoint(tmp_path)
    assert found is None or all(bool(value.isfinite().all()) for value in found.tensors["model"].values())


def test_a_gradient_without_end_stops_before_the_weights_change() -> None:
    net = make_net()
    before = [value.clone() for value in net.parameters()]

    def steep(net: nn.Module, batch: Batch) -> Tensor:
        return torch.sqrt((net(batch["x"]) * 0).square().sum(1))  # 0, with the slope 0 / 0

    with pytest.raises(DataError, match="loss and gradient must be finite, got 0 with a gradient of nan"):
        train(net, steep, make_source(), SHORT, cpu=True)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    fit(tmp_path)
    newest = tmp_path / "step-00000012" / "model.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(data)
    with pytest.warns(NeuroreelWarning, match=r"passed over: checkpoint must have the SHA-256 .*step-00000012"):
        found = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000012"]


def test_a_checkpoint_of_other_settings_or_of_another_network_is_refused(tmp_path: Path) -> None:
    fit(tmp_path)
    with pytest.raises(
        DataError, match=r"checkpoint must be of the same settings, got other loop.rate \(0.01, not 0.02\)"
    ):
        fit(tmp_path, rate=0.02)
    with pytest.raises(DataError, match=r"checkpoint must be of this network, got other 3\.bias"):
        fit(tmp_path, net=nn.Sequential(nn.Linear(6, 2)))


def test_a_full_disk_lets_training_go_on_with_the_last_checkpoint_whole(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", str(disk)]).returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        with (
            pytest.warns(NeuroreelWarning, match="training goes on, .*: disk must have room for the output"),
            pytest.raises(DataError, match=r"^disk must have room for the output, got no space left"),
        ):
            fit(disk, checkpoint_every=4)  # room for one checkpoint, not for the one after it
        assert newest_checkpoint(disk).step == 4  # type: ignore[union-attr]
        assert [path.name for path in disk.iterdir()] == ["step-00000004"]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_parts_of_a_batch_add_up_to_the_whole_batch() -> None:
    nets = [nn.Sequential(nn.Linear(6, 2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    curves = [fit(net=net, accumulate=parts)[1].losses for net, parts in zip(nets, (1, 4), strict=True)]
    np.testing.assert_allclose(*curves, rtol=1e-5)


def test_the_first_step_is_that_of_adamw_by_hand() -> None:
    net = nn.Linear(6, 2)
    before = net.weight.detach().clone()
    fit(net=net, steps=1, warm_up=0.0, clip=None, weight_decay=0.5, rate=0.01)
    moved = net.weight.detach() - before * (1 - 0.01 * 0.5)  # the first step of Adam is its rate, whatever the slope
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.01), rtol=1e-3, atol=1e-6)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    config = LoopConfig(steps=100, warm_up=0.1, rate=1.0)
    rates = [config.rate_at(step) for step in range(100)]
    assert np.argmax(rates) == 10 and rates[10] == 1.0
    assert np.all(np.diff(rates[:10]) > 0) and np.all(np.diff(rates[10:]) < 0) and rates[99] < 1e-3
    assert rates[55] == pytest.approx(0.5)


def test_progress_tells_what_is_left() -> None:
    said: list[Progress] = []
    train(make_net(), squared_error, make_source(), SHORT, on_progress=said.append, cpu=True)
    assert [each.step for each in said] == list(range(1, 13)) and said[-1].eta_s == 0
    assert all(each.eta_s > 0 and each.samples_per_s > 0 for each in said[:-1])


def test_a_gpu_without_memory_says_what_to_lower() -> None:
    def greedy(net: nn.Module, batch: Batch) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with pytest.raises(DataError, match=r"got out of memory: lower batch \(16\), raise accumulate \(1\)"):
        train(make_net(), greedy, make_source(), SHORT, cpu=True)


def test_a_batch_that_cannot_be_shared_or_filled_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch must be a multiple of processes x accumulate \(1 x 3\), got 16"):
        fit(accumulate=3)
    with pytest.raises(DataError, match=r"batch must be no more than the samples \(96\), got 200"):
        fit(batch=200)


def test_bf16_computes_in_half_and_learns_the_same() -> None:
    _, exact = fit(precision="float32", steps=30)
    net, half = fit(precision="bf16", steps=30)
    assert (exact.precision, half.precision) == ("float32", "bf16")
    assert all(value.dtype == torch.float32 for value in net.parameters())
    assert np.abs(half.losses - exact.losses).max() > 0
    np.testing.assert_allclose(half.losses, exact.losses, atol=0.02)


@pytest.mark.heavy
def test_curves_go_to_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, trained = fit(tmp_path, log="tensorboard")
    events = EventAccumulator(str(next(tmp_path.rglob("events*")).parent))
    events.Reload()
    np.testing.assert_allclose([event.value for event in events.Scalars("loss")], trained.losses, rtol=1e-6)


def test_tensorboard_is_asked_for_by_name_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else found(name))
    with pytest.raises(ConfigError, match="log must name a package that is installed"):
        fit(tmp_path, log="tensorboard")


@pytest.mark.heavy
def test_a_compiled_network_learns_the_same_and_its_checkpoint_fits_the_plain_one(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 2))
    other = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 2))
    other.load_state_dict(net.state_dict())
    _, plain = fit(net=net)
    _, compiled = fit(tmp_path, net=other, compile=True)
    np.testing.assert_allclose(compiled.losses, plain.losses, rtol=1e-4)
    assert set(newest_checkpoint(tmp_path).tensors["model"]) == set(net.state_dict())  # type: ignore[union-attr]


def test_players_learn_their_own_parts_in_turns_and_nobody_elses() -> None:
    net, first, stood = make_net(False), make_net(False), make_net(False)
    config = SHORT.model_copy(update={"steps": 1, "average": 0.5})
    trained = train(net, teacher_and_pupil(), make_source(), config, cpu=True)
    train(first, [teacher_and_pupil()[0]], make_source(), config, cpu=True)
    assert trained.losses.shape == (1, 2)
    torch.testing.assert_close(net[0].weight, first[0].weight, rtol=0, atol=0)  # the teacher's turn comes first
    assert torch.equal(first[3].weight, stood[3].weight) and not torch.equal(net[3].weight, stood[3].weight)
    assert all(value.requires_grad for value in net.parameters())


def test_a_player_at_another_rate_steps_further_by_as_much() -> None:
    far, near = make_net(False), make_net(False)
    start = far[0].weight.detach().clone()
    config = SHORT.model_copy(update={"steps": 1, "weight_decay": 0.0})
    for net, rate in ((far, 2.0), (near, 1.0)):
        train(net, [Player("one", squared_error, ("0.",), rate)], make_source(), config, cpu=True)
    torch.testing.assert_close(far[0].weight - start, 2 * (near[0].weight - start), rtol=1e-3, atol=1e-7)


def test_players_that_were_killed_go_on_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    settings = ["steps=14", "batch=32", "checkpoint_every=4", "average=0.9"]
    assert worker(tmp_path / "killed", *settings, KILL_AT="10", PLAYERS="1")[0] == -signal.SIGKILL
    resumed, whole = (in_process(tmp_path / name, settings, players=True) for name in ("killed", "whole"))
    assert resumed.resumed_at == 8
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


def test_players_of_two_processes_have_the_curves_of_one(tmp_path: Path) -> None:
    settings = ["precision=float32", "steps=8", "batch=32", "rate=0.01"]
    code, complaint = worker(tmp_path / "two", *settings, processes=2, NO_DROPOUT="1", PLAYERS="1")
    assert code == 0, complaint
    one = in_process(tmp_path / "one", settings, dropout=False, players=True).losses
    np.testing.assert_allclose(np.load(tmp_path / "two" / "losses.npy"), one, rtol=1e-5)


def test_the_player_with_a_nan_is_named() -> None:
    wrong = Player("pupil", lambda net, batch: net(batch["x"]).mean(1) * float("nan"), ("3.",))
    with pytest.raises(DataError, match="loss and gradient of the pupil must be finite, got nan"):
        train(make_net(), [teacher_and_pupil()[0], wrong], make_source(), SHORT, cpu=True)


def test_a_player_without_parts_or_with_anothers_is_refused() -> None:
    nothing, twice = Player("pupil", squared_error, ("7.",)), Player("pupil", squared_error, ("0.", "3."))
    with pytest.raises(ConfigError, match=r"the pupil must learn parameters .*, got none that begins with 7\."):
        train(make_net(), [teacher_and_pupil()[0], nothing], make_source(), SHORT, cpu=True)
    with pytest.raises(ConfigError, match=r"the pupil must learn .*learnt by no other, got 0\.weight of the teacher"):
        train(make_net(), [teacher_and_pupil()[0], twice], make_source(), SHORT, cpu=True)
