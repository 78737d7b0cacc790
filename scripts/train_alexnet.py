"""Train the AlexNet that ships with the package, on frames of the simulated world.

    python scripts/train_alexnet.py --out src/neuroreel/weights/alexnet-world

Frames and labels are drawn from a seed of their own, which no simulated subject uses. Accuracy is measured on frames of
other scenes (another seed). A stopped run goes on from its checkpoint and ends with the weights of an unbroken one on
the same machine. About 7 minutes on 2 busy cores, with 1 to 2 more to draw the frames.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch

from neuroreel.core.files import atomic, write_text
from neuroreel.fit.classifier import ClassifierConfig, fit_classifier
from neuroreel.nets.alexnet import WORLD, AlexNet, add_batch_norm, fold_batch_norm
from neuroreel.nets.weights import write_state
from neuroreel.simulate.categories import CATEGORIES
from neuroreel.simulate.sampling import sample_frames

TRAIN_SEED, HELD_OUT_SEED = 7_000_000, 7_900_000


PART = 1_000


def draw_part(n: int, seed: int, cache: Path | None) -> dict[str, np.ndarray]:
    """Return frames, the numbers of their categories, and x, y and size of the objects as shares of the frame."""
    file = cache / f"frames-{seed}-{n}.npz" if cache else None
    if file and file.is_file():
        with np.load(file) as arrays:
            return dict(arrays)
    frames, truth = sample_frames(n, size=WORLD.size, seed=seed, per_scene=2)
    labels = np.array([CATEGORIES.index(category) for category in truth["category"]])
    places = np.stack([truth[name] for name in ("x", "y", "size")], axis=1)
    part = {"frames": frames, "labels": labels, "places": places}
    if file:
        with atomic(file) as partial, partial.open("wb") as stream:
            np.savez(stream, **part)
    return part


def draw(n: int, seed: int, cache: Path | None, workers: int) -> dict[str, np.ndarray]:
    """Return n frames in parts of a thousand, drawn by several processes; the same for any number of them."""
    sizes = [min(PART, n - start) for start in range(0, n, PART)]
    with ProcessPoolExecutor(workers) as pool:
        parts = list(pool.map(draw_part, sizes, range(seed, seed + len(sizes)), [cache] * len(sizes)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def closer(drawn: dict[str, np.ndarray]) -> np.ndarray:
    """Return every frame seen closer: cut around its object, which then fills about two thirds of the frame."""
    out = np.empty_like(drawn["frames"])
    size = WORLD.size
    for i, (x, y, extent) in enumerate(drawn["places"]):
        side = int(np.clip(extent * size * 1.5, 12, size))
        left = int(np.clip(x * size - side / 2, 0, size - side))
        top = int(np.clip(y * size - side / 2, 0, size - side))
        cut = drawn["frames"][i, top : top + side, left : left + side]
        out[i] = cv2.resize(cut, (size, size), interpolation=cv2.INTER_LINEAR)
    return out


def augment(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror half of the frames and move each by up to 4 pixels, the edge repeated."""
    n, height, width, _ = frames.shape
    wide = np.pad(frames, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    out = np.empty_like(frames)
    for i, (y, x) in enumerate(rng.integers(9, size=(n, 2))):
        out[i] = wide[i, y : y + height, x : x + width]
    mirrored = rng.random(n) < 0.5
    out[mirrored] = out[mirrored, :, ::-1]
    return out


def ranks(net: AlexNet, frames: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many classes the network holds likelier than the true one, per frame."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(frames), 256):
            logits = net(net.pixels(torch.from_numpy(frames[start : start + 256])))
            true = logits.gather(1, torch.from_numpy(labels[start : start + 256])[:, None])
            found.append((logits > true).sum(1).numpy())
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=6_000)
    parser.add_argument("--held-out", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="folder for the drawn frames and the checkpoint")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    drawn = draw(args.frames, TRAIN_SEED, args.cache, args.threads)
    test = draw(args.held_out, HELD_OUT_SEED, args.cache, args.threads)
    frames = np.concatenate([drawn["frames"], closer(drawn)])
    labels = np.concatenate([drawn["labels"]] * 2)
    print(f"{len(frames)} + {len(test['frames'])} frames after {time.perf_counter() - started:.0f} s", flush=True)
    config = WORLD.model_copy(update={"n_classes": len(CATEGORIES)})
    net = add_batch_norm(AlexNet.seeded(config, args.seed))
    fit = ClassifierConfig(epochs=args.epochs, batch=64, rate=2e-3, l2=1e-4, seed=args.seed)
    history = fit_classifier(
        net,
        frames,
        labels,
        net.pixels,
        fit,
        n_classes=config.n_classes,
        augment=augment,
        checkpoint=args.cache / "checkpoint.pt" if args.cache else None,
        on_epoch=lambda row: print(f"{json.dumps(row)} {time.perf_counter() - started:.0f} s", flush=True),
    )
    fold_batch_norm(net)
    args.out.mkdir(parents=True, exist_ok=True)
    weights = args.out / "weights.safetensors"
    digest = write_state(weights, net, half=True)
    found = ranks(AlexNet.load(weights, config, digest), test["frames"], test["labels"])
    card = {
        "config": config.model_dump(),
        "sha256": digest,
        "bytes": weights.stat().st_size,
        "classes": list(CATEGORIES),
        "trained_on": f"{args.frames} frames of the simulated world and the same seen closer, seeds from {TRAIN_SEED}",
        "fit": fit.model_dump(),
        "seed": args.seed,
        "last_epoch": history[-1],
        "held_out": {
            "frames": len(test["frames"]),
            "seed": HELD_OUT_SEED,
            "top1": float(np.mean(found < 1)),
            "top5": float(np.mean(found < 5)),
            "chance_top1": 1 / config.n_classes,
        },
        "seconds": round(time.perf_counter() - started),
        "threads": args.threads,
        "command": f"python scripts/train_alexnet.py --out {args.out} --frames {args.frames} --epochs {args.epochs}",
    }
    write_text(args.out / "card.json", json.dumps(card, indent=2) + "\n")
    print(json.dumps(card["held_out"]))


if __name__ == "__main__":
    main()
