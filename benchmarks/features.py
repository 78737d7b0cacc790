"""Features of a long movie at all layers of AlexNet in bounded memory: frames a second and peak memory.

    python benchmarks/features.py --json                 # 8 minutes at 30 fps, the full Caffe AlexNet
    python benchmarks/features.py --out FILE             # the same into a file, with what made it
    python benchmarks/features.py --json --pca-fps 30    # every frame enters the principal components too (slow)
    python benchmarks/features.py --json --quick         # seconds: the small network of the simulated world

The movie is drawn: gratings in a window over drifting 1/f noise. The weights are untrained, which changes no time or
memory.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from linear_era import provenance

from neuroreel.core.files import write_text
from neuroreel.core.seeds import generator
from neuroreel.core.types import Video
from neuroreel.features.alexnet import EIGHT, AlexNetExtractor, AlexNetFeaturesConfig
from neuroreel.features.streaming import FeatureStream, StreamConfig
from neuroreel.preprocess.timing import HrfSampling, hrf_by_name


def movie(frames: int, size: int, fps: float, seed: int) -> Video:
    """Return a movie that is drawn when it is read: a new scene every 6 s."""
    fy, fx = np.meshgrid(np.fft.fftfreq(2 * size), np.fft.fftfreq(2 * size), indexing="ij")
    amplitude = 1 / np.maximum(np.hypot(fx, fy), 1 / (2 * size))

    def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
        rng = generator(seed, "scene", number)
        noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((3, 2 * size, 2 * size))) * amplitude).real
        noise = 127 + 45 * noise / noise.std()
        return noise.transpose(1, 2, 0), rng.uniform(-1, 1, size=4)

    def read(start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, size, size, 3), np.uint8)
        y, x = np.mgrid[:size, :size] / size
        last, texture, kind = -1, np.empty(0), np.empty(0)
        for i in range(start, stop):
            number, within = divmod(i, int(6 * fps))
            if number != last:
                texture, kind = scene(number)
                last = number
            t = within / fps
            dx, dy = (int(size / 2 * (1 + kind[j] * np.sin(t / 2))) for j in (0, 1))
            grating = np.sin(2 * np.pi * (6 * kind[2] * x + 6 * kind[3] * y + 2 * t))
            picture = (
                texture[dy : dy + size, dx : dx + size] + 50 * (grating * (np.hypot(x - 0.5, y - 0.5) < 0.3))[..., None]
            )
            out[i - start] = np.clip(picture, 0, 255)
        return out

    return Video("drawn", fps, (frames, size, size, 3), read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--out", type=Path, help="write the result with its command, commit and versions to a file")
    parser.add_argument("--quick", action="store_true", help="20 s of the small network")
    parser.add_argument("--minutes", type=float, help="length of the movie (8)")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--pca-fps", type=float, default=5.0, help="rate of frames that enter the components")
    parser.add_argument("--layout", choices=("caffe", "torchvision", "world"))
    parser.add_argument("--layers", nargs="+", default=list(EIGHT))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="folder with room for the frames of the basis")
    args = parser.parse_args()
    layout = args.layout or ("world" if args.quick else "caffe")
    minutes = args.minutes or (1 / 3 if args.quick else 8)
    size = {"caffe": 227, "torchvision": 224, "world": 64}[layout]
    net: dict[str, str | int | float] = {"layout": layout, "size": size}
    if layout == "world":
        net |= {"width": 0.375, "hidden": 256, "n_classes": 32}
    config = AlexNetFeaturesConfig(weights="random", net=net, layers=tuple(args.layers), batch=args.batch)
    extractor = AlexNetExtractor(config)
    n_frames = round(minutes * 60 * args.fps)
    video = movie(n_frames, size, args.fps, args.seed)
    times_s = np.arange(0, minutes * 60, 2.0)
    sampling = HrfSampling.of(n_frames, args.fps, times_s, hrf_by_name("wen2018")).weights
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        stream = FeatureStream(extractor, folder, StreamConfig(pca_fps=args.pca_fps))
        started = time.perf_counter()
        scores = stream.fit_transform([video], [sampling])[0]
        seconds = time.perf_counter() - started
        components = {layer: basis.n_components for layer, basis in stream.bases_.items()}
    result = {
        "frames_per_s": n_frames / seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "seconds": seconds,
        "frames": n_frames,
        "fps": args.fps,
        "pca_fps": args.pca_fps,
        "layout": layout,
        "units": extractor.n_units,
        "components": components,
        "volumes": len(next(iter(scores.values()))),
    }
    print(
        f"{n_frames} frames in {seconds:.1f} s: {result['frames_per_s']:.1f} frames/s, peak {result['peak_gb']:.2f} GB"
    )
    if args.out:
        write_text(args.out, json.dumps(result | provenance(args.seed), indent=2) + "\n")
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
