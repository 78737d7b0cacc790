import json
import sys
from pathlib import Path

import numpy as np
import pytest

from neuroreel.brain.masked import MaskedBrain
from neuroreel.brain.stream import average_volumes, store_runs
from neuroreel.cli import main
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.sets import Window
from neuroreel.core.store import write_store
from neuroreel.core.types import Bold, Dataset, Event, Recording, Run, Space
from neuroreel.workflow import pretrain_brain

SETTINGS = [
    ["masked.patch=4", "masked.order=flat", "masked.dim=8", "masked.depth=1", "masked.heads=2", "masked.decoder_dim=8"],
    ["masked.decoder_depth=1", "masked.decoder_heads=2", "masked.trs=1", "masked.factors=3"],
    ["loop.steps=4", "loop.batch=4", "loop.checkpoint_every=2", "cpu=true"],
]
TINY = [each for row in SETTINGS for each in row]


def make_store(file: Path, subjects: tuple[str, ...], shown: tuple[str, ...], tr_s: float = 2.0) -> Path:
    """Write a store whose runs show stimuli by name; an empty name is rest."""
    rng = np.random.default_rng([*file.name.encode()])
    recordings = []
    for subject in subjects:
        runs = []
        for number, name in enumerate(shown):
            bold = rng.normal(500, 20, (40, 24)).astype(np.float32)
            events = (Event(0.0, 40 * tr_s, "thing"),) if name else ()
            place = Bold(bold, tr_s, Space("columns", 24), subject, f"run{number}-{name or 'rest'}")
            runs.append(Run(place, name, None, events))
        recordings.append(Recording(file.stem, subject, tuple(runs)))
    return write_store(file, Dataset(file.stem, tuple(recordings), Window()))


def test_many_stores_are_trained_on_without_what_is_tested(tmp_path: Path) -> None:
    movies = make_store(tmp_path / "movies.zarr", ("01", "02"), ("a", "b", "b", "b", ""))
    rest = make_store(tmp_path / "rest.zarr", ("01",), ("", ""), tr_s=1.0)
    said: list[str] = []
    facts = pretrain_brain([movies, rest], tmp_path / "out", TINY, progress=said.append)
    assert facts["subjects"] == ["movies-01", "02", "rest-01"]
    assert facts["runs"]["02"] == ["run0-a", "run4-rest"] and facts["runs"]["rest-01"] == ["run0-rest", "run1-rest"]
    assert facts["left_out"][str(movies)] == ["run1-b", "run2-b", "run3-b"] and facts["left_out"][str(rest)] == []
    assert any("step 4 of 4, loss" in text and "samples/s" in text and "min left" in text for text in said)
    assert MaskedBrain.load(tmp_path / "out").encode(np.full((2, 1, 24), 500.0), "02").shape == (2, 6, 8)


def test_a_second_call_goes_on_and_gives_the_same_weights(tmp_path: Path) -> None:
    store = make_store(tmp_path / "movies.zarr", ("01",), ("a", "b", "b"))
    pretrain_brain([store], tmp_path / "whole", TINY)

    class Stop(Exception):
        pass

    def stop(text: str) -> None:
        if text.startswith("step 3 "):
            raise Stop

    with pytest.raises(Stop):
        pretrain_brain([store], tmp_path / "cut", TINY, progress=stop)
    facts = pretrain_brain([store], tmp_path / "cut", TINY)
    assert facts["resumed_at"] == 2
    name = "masked.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_volumes_are_averaged_in_whole_numbers_before_windows_are_taken(tmp_path: Path) -> None:
    store = make_store(tmp_path / "rest.zarr", ("01",), ("", ""), tr_s=0.72)
    whole, _ = store_runs(store, None)
    runs, _ = store_runs(store, None, average_s=7.2)
    assert [run.trs for run in runs] == [4, 4] and runs[0].read().shape == (4, 24)
    np.testing.assert_allclose(runs[1].read()[2], whole[1].read()[20:30].mean(0), rtol=1e-6)
    assert average_volumes(np.zeros((23, 2)), 10).shape == (2, 2)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        (["masked.dims=4"], ConfigError, "^config key must be one of .*decoder_depth.*, got 'masked.dims'"),
        (["split=mine"], ConfigError, "^split must be one of"),
        (["loop.batch=900"], DataError, "^batch must be no more than the windows of a group of runs"),
    ],
)
def test_bad_settings_are_one_sentence(tmp_path: Path, settings: list[str], error: type, text: str) -> None:
    store = make_store(tmp_path / "movies.zarr", ("01",), ("a", "b", "b"))
    with pytest.raises(error, match=text):
        pretrain_brain([store], tmp_path / "out", [*TINY, *settings])


def test_the_command_line_says_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path / "movies.zarr", ("01",), ("a", "b", "b"))
    words = ["neuroreel", "pretrain", str(store), *TINY, "--out", str(tmp_path / "out"), "--json"]
    monkeypatch.setattr(sys, "argv", words)
    main_ended(main)
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["steps"] == 4 and facts["loss"] > 0 and facts["samples_per_s"] > 0 and facts["subjects"] == ["01"]


def main_ended(command: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        command()  # type: ignore[operator]
    assert not stopped.value.code
