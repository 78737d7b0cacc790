"""The linear era on the simulated world: generic object decoding and wen2018, into benchmarks/results/linear_era.json.

    python benchmarks/linear_era.py --folder /tmp/linear-era                   # both, an hour or two on 2 cores
    python benchmarks/linear_era.py --folder /tmp/linear-era --only wen2018    # one; the other half stays

Each half carries the command, the seed and the commit that made it.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

from neuroreel.core.files import write_text
from neuroreel.core.system import versions

PARTS = {
    "generic-object-decoding": ("linear_era_god", "god_results"),
    "wen2018": ("linear_era_wen", "wen_results"),
}
PLACES = {"--folder": "FOLDER", "--sheet": "SHEET", "--out": "OUT", "--scratch": "SCRATCH"}
RESULTS = Path(__file__).parent / "results" / "linear_era.json"


def provenance(seed: int) -> dict[str, object]:
    """Return the command, seed, commit, versions and threads of a result, without places of this machine."""
    root = Path(__file__).parents[1]
    words = pairwise(["", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return {
        "command": shlex.join(["python", *(PLACES.get(before, word) for before, word in words)]),
        "seed": seed,
        "commit": asked.stdout.strip() or None,
        "versions": versions(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where experiments and fits are kept")
    parser.add_argument("--only", choices=sorted(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--others", type=int, nargs="*", default=[], help="more seeds for generic object decoding")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    args = parser.parse_args()
    for name in [args.only] if args.only else list(PARTS):
        module, function = PARTS[name]
        about = provenance(args.seed)
        more = {"others": args.others} if name == "generic-object-decoding" else {}
        made = getattr(import_module(module), function)(args.folder / name, seed=args.seed, **more)
        merged = json.loads(args.out.read_text()) if args.out.is_file() else {}  # the other half may have been written
        merged[name] = {**made, **about}
        write_text(args.out, json.dumps(merged, indent=2, default=float) + "\n")
    if args.json:
        print(args.out.read_text())


if __name__ == "__main__":
    main()
