import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.heavy
def test_the_half_of_wen2018_runs_and_says_what_it_recovered(tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / "linear_era_wen.py", "--json", "--quick", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"command", "seed", "commit", "layer_map", "encoding", "decoding"} <= set(found)
    encoding = found["encoding"]
    assert encoding["significant_blind"] < 0.05  # six blocks of the short test movie leave no room for power
    assert 0.2 < encoding["median_normalised_correlation"] < 1
    pairwise = found["decoding"]["scores"]["identification:pairwise"]
    assert pairwise["value"] > pairwise["chance"] + 0.1
