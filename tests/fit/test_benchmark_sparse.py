import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sparse.py"


@pytest.mark.heavy
def test_the_sparse_benchmark_ends_with_an_object_of_what_it_measured() -> None:
    command = [sys.executable, SCRIPT, "--json", "--quick", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"ratio", "ratio_to_loop_by_inv", "peak_gb", "loop_units_timed", "versions"} <= set(found)
    assert found["ratio"] > 0 and found["peak_gb"] > 0 and found["threads"] == 1
    assert found["weights_max_abs_diff"] < 1e-5
    assert found["weights_max_abs_diff_of_the_two_loops"] < 1e-9
