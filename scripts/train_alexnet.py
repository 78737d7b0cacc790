"""Train the AlexNet that ships with the package, on frames of the simulated world.

    python scripts/train_alexnet.py --out src/neuroreel/weights/alexnet-world

Frames and labels are drawn from a seed of their own, which no simulated subject uses. Accuracy is measured on frames of
other scenes (another seed). A stopped run goes on from its checkpoint and ends with the weights of an unbroken one on
the same machine. About 12 minutes on 2 cores.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from neuroreel.core.files import write_text
from neuroreel.fit.classifier import ClassifierConfig, fit_classifier
from neuroreel.nets.alexnet import WORLD, AlexNet, add_batch_norm, fold_batch_norm
from neuroreel.nets.weights import write_state
from neuroreel.simulate.categories import CATEGORIES
from neuroreel.simulate.sampling import sample_frames

TRAIN_SEED, HELD_OUT_SEED = 7_001, 7_002


def draw(n: int, seed: int, cache: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return n frames (n, 64, 64, 3) uint8 and the numbers of their categories, kept in a cache if there is one."""
    file = cache / f"frames-{seed}-{n}.npz" if cache else None
    if file and file.is_file():
        with np.load(file) as arrays:
            return arrays["frames"], arrays["labels"]
    frames, truth = sample_frames(n, size=WORLD.size, seed=seed, per_scene=2)
    labels = np.array([CATEGORIES.index(category) for category in truth["category"]])
    if file:
        np.savez(file, frames=frames, labels=labels)
    return frames, labels


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
    parser.add_argument("--frames", type=int, default=16_000)
    parser.add_argument("--held-out", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="folder for the drawn frames and the checkpoint")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    frames, labels = draw(args.frames, TRAIN_SEED, args.cache)
    test_frames, test_labels = draw(args.held_out, HELD_OUT_SEED, args.cache)
    print(f"{len(frames)} + {len(test_frames)} frames after {time.perf_counter() - started:.0f} s", flush=True)
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
    found = ranks(AlexNet.load(weights, config, digest), test_frames, test_labels)
    card = {
        "config": config.model_dump(),
        "sha256": digest,
        "bytes": weights.stat().st_size,
        "classes": list(CATEGORIES),
        "trained_on": f"{len(frames)} frames of neuroreel.simulate.sample_frames, seed {TRAIN_SEED}, all categories",
        "fit": fit.model_dump(),
        "seed": args.seed,
        "last_epoch": history[-1],
        "held_out": {
            "frames": len(test_frames),
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
