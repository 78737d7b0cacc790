import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sampling.py"
SCORES = {"clip-similarity", "two-way:clip", "category"}


def run(*arguments: str) -> dict[str, Any]:
    words = [sys.executable, SCRIPT, "--json", "--quick", *arguments]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


@pytest.mark.heavy
def test_the_sampling_benchmark_ends_with_what_a_clip_costs_and_scores() -> None:
    found = run()
    assert found["ratio"] > 0 and found["s_per_clip"] > 0 and found["peak_gb"] > 0
    assert set(found["scores"]) == SCORES and found["same_px"] <= 1
    row = found["scores"]["clip-similarity"]
    assert row["truth"] == pytest.approx(1) and row["low"] <= row["difference"] <= row["high"]


@pytest.mark.heavy
def test_the_size_of_a_published_generator_runs_by_the_same_code() -> None:
    found = run("--full", "tiny", "--precision", "bf16")
    assert found["ratio"] > 0 and found["size"] == "tiny" and "scores" not in found
    assert found["way"]["precision"] == "bfloat16" and found["published"]["precision"] == "float32"


@pytest.mark.heavy
def test_two_samplers_of_pictures_are_timed_and_scored() -> None:
    found = run("--samplers")
    assert set(found["scores"]) == SCORES and set(found["s_per_picture"]) == {"dpm++", "ddim"}
    assert found["ratio"] > 0
