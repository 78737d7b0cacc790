"""The script that trains the world's generator, from the first clip to the packed folder, at a few steps a stage."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from neuroreel.generate.world import load_world

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_world.py"
LARGEST = 20e6


@pytest.mark.heavy
def test_all_stages_in_one_go_leave_a_generator_that_opens(tmp_path):
    out, judge = tmp_path / "world", tmp_path / "judge"
    call = [sys.executable, SCRIPT, "--work", tmp_path / "work", "--out", out, "--judge-out", judge]
    call += ["--clips", "500", "--steps", "2", "--threads", "1"]
    subprocess.run(list(map(str, call)), check=True)
    card = json.loads((out / "card.json").read_text())
    assert card["bytes"] < LARGEST
    assert (judge / "judge" / "weights.safetensors").is_file()
    world = load_world(out)
    pictures = world.images(["a red cat keeps still in a room"], steps=2, guidance=2.0, sampler="dpm++", seed=0)
    clips = world.clips(["a red cat keeps still in a room"], steps=2, guidance=2.0, sampler="dpm++", seed=0)
    assert pictures.shape == (1, 64, 64, 3) and clips.shape == (1, 6, 64, 64, 3)
    assert np.ptp(pictures) > 0 and np.ptp(clips) > 0
    digests = {name: part["files"] for name, part in card["parts"].items()}
    subprocess.run([*map(str, call), "--stage", "export"], check=True)
    again = json.loads((out / "card.json").read_text())["parts"]
    assert {name: part["files"] for name, part in again.items()} == digests
