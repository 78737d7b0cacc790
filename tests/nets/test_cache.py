from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from neuroreel.core.sets import Window
from neuroreel.core.store import write_store
from neuroreel.core.system import RunFolder
from neuroreel.core.types import Bold, Dataset, Recording, Run, Space
from neuroreel.nets.cache import cached


@pytest.fixture
def store(tmp_path: Path) -> Path:
    bold = Bold(np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32), 2.0, Space("columns", 4), "01", "1")
    recording = Recording("data", "01", (Run(bold, "movie"),))
    return write_store(tmp_path / "data.zarr", Dataset("data", (recording,), Window()))


class Maker:
    """Makes twice what it is given, and counts."""

    def __init__(self) -> None:
        self.data, self.made = np.arange(6.0).reshape(2, 3), 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.made += 1
        return {"twice": torch.from_numpy(2 * self.data)}

    def ask(self, run: RunFolder, name: str) -> np.ndarray:
        return cached(run, "kept", [name, self.data], self)["twice"].numpy()


def test_tensors_are_made_once_and_anew_when_what_they_are_made_of_changes(tmp_path):
    make, run = Maker(), RunFolder(tmp_path)
    for name in ("a", "a", "b", "b", "a"):
        np.testing.assert_array_equal(make.ask(run, name), 2 * make.data)
    assert make.made == 3  # the folder of a run keeps the last ones
    make.data = make.data + 1
    np.testing.assert_array_equal(make.ask(run, "a"), 2 * make.data)


def test_every_fit_of_a_store_finds_what_an_earlier_one_made(tmp_path, store):
    make, runs = Maker(), [RunFolder(tmp_path / str(seed), seed=seed, store=store) for seed in range(2)]
    for name in ("a", "b", "a", "b"):
        for run in runs:
            np.testing.assert_array_equal(make.ask(run, name), 2 * make.data)
    assert make.made == 2 and not (tmp_path / "0").exists()
    first = next((store / "derived").glob("[0-9a-f]*"))
    (first / "twice" / "c" / "0" / "0").write_bytes(b"damaged")
    for name in ("a", "b"):
        np.testing.assert_array_equal(make.ask(runs[0], name), 2 * make.data)
    assert make.made == 3  # what was damaged, once more
    assert zarr.open_group(store, path=f"derived/{first.name}", mode="r").attrs["what"] == "kept"


def test_a_store_that_cannot_be_written_leaves_it_to_the_folder_of_the_run(tmp_path, store):
    (store / "derived").write_text("in the way")  # who runs the tests may write anywhere
    make, run = Maker(), RunFolder(tmp_path / "run", store=store)
    for _ in range(2):
        np.testing.assert_array_equal(make.ask(run, "a"), 2 * make.data)
    assert make.made == 1 and (tmp_path / "run" / "cache" / "kept.safetensors").is_file()
