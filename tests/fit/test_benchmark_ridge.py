import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ridge.py"


def run(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, SCRIPT, "--json", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.heavy
def test_the_ridge_benchmark_ends_with_an_object_of_what_it_measured() -> None:
    pytest.importorskip("himalaya", reason="himalaya is not installed: pip install neuroreel[bench]")
    found = run("--quick", "--repeats", "0")
    assert {"ratio", "same_alphas", "coef_max_rel", "peak_gb", "seconds", "size", "versions"} <= set(found)
    assert found["ratio"] > 0 and found["peak_gb"] >= 0
    assert found["best_of_himalaya"].startswith("himalaya") and found["best_of_himalaya"] in found["seconds"]
    for agreement in found["agreement"].values():  # with every candidate, scikit-learn's too
        assert agreement["same_alphas"] > 0.99 and agreement["coef_max_rel"] < 1e-3


@pytest.mark.heavy
def test_the_large_mode_fits_from_disk_to_disk_at_any_size() -> None:
    found = run("--large", "--n", "200", "--p", "50", "--v", "300", "--alphas", "4", "--folds", "3")
    assert found["size"] == {"n": 200, "p": 50, "v": 300, "alphas": 4, "folds": 3}
    assert found["precision"] == "float32" and 0 <= found["peak_gb"] < 1 and found["seconds"] > 0
