"""A movie of the simulated world rendered and written as H.264, one frame at a time: frames a second and peak memory.

python benchmarks/movies.py --json            # 40 minutes at 15 fps, 64 pixels
python benchmarks/movies.py --json --quick    # 2 minutes
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from neuroreel.simulate.movies import make_movie, write_mp4
from neuroreel.simulate.sampling import sample_frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    minutes = 2.0 if args.quick else args.minutes
    movie = make_movie("benchmark", minutes=minutes, size=args.size, fps=args.fps, seed=args.seed)

    wall, processor = time.perf_counter(), time.process_time()
    for start in range(0, movie.n_frames, 500):
        movie.frames(start, min(start + 500, movie.n_frames))
    render_s, render_cpu_s = time.perf_counter() - wall, time.process_time() - processor

    with tempfile.TemporaryDirectory() as folder:
        wall = time.perf_counter()
        path = write_mp4(Path(folder) / "movie.mp4", movie)
        write_s, megabytes = time.perf_counter() - wall, path.stat().st_size / 1e6

    wall = time.perf_counter()
    samples, _ = sample_frames(1000, size=args.size, seed=args.seed)
    result = {
        "frames_per_s": movie.n_frames / render_s,
        "frames_per_cpu_s": movie.n_frames / render_cpu_s,
        "mp4_frames_per_s": movie.n_frames / write_s,
        "mp4_seconds": write_s,
        "mp4_megabytes": megabytes,
        "samples_per_s": len(samples) / (time.perf_counter() - wall),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "frames": movie.n_frames,
        "size": args.size,
        "fps": args.fps,
    }
    print(
        f"{movie.n_frames} frames: {result['frames_per_s']:.0f} frames/s rendered, {write_s:.1f} s as H.264 "
        f"({megabytes:.1f} MB), peak {result['peak_gb']:.2f} GB"
    )
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
