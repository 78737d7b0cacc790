"""Train the network that the simulated ventral stream sees with.

    python scripts/train_ventral.py --out src/neuroreel/weights/ventral

As `train_alexnet.py` does, on frames of other scenes than it and than any simulated subject sees. About 10 minutes on
2 busy cores.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from train_alexnet import augment, closer, draw, ranks

from neuroreel.core.files import write_text
from neuroreel.fit.classifier import ClassifierConfig, fit_classifier
from neuroreel.nets.weights import write_state
from neuroreel.simulate.categories import CATEGORIES
from neuroreel.simulate.ventral import WIDTHS, VentralNetwork

TRAIN_SEED, HELD_OUT_SEED = 8_000_000, 8_900_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=6_000)
    parser.add_argument("--held-out", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
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
    net = VentralNetwork.seeded(len(CATEGORIES), args.seed)
    fit = ClassifierConfig(epochs=args.epochs, batch=64, rate=3e-3, l2=1e-4, seed=args.seed)
    history = fit_classifier(
        net,
        frames,
        labels,
        net.pixels,
        fit,
        n_classes=len(CATEGORIES),
        augment=augment,
        checkpoint=args.cache / "ventral.pt" if args.cache else None,
        on_epoch=lambda row: print(row, f"{time.perf_counter() - started:.0f} s", flush=True),
    )
    rank = ranks(net, test["frames"], test["labels"])
    digest = write_state(args.out / "ventral.safetensors", net, half=True)
    card = {
        "classes": len(CATEGORIES),
        "categories": list(CATEGORIES),
        "widths": list(WIDTHS),
        "sha256": digest,
        "fit": fit.model_dump(mode="json"),
        "train_frames": len(frames),
        "held_out": {"frames": len(rank), "top1": float(np.mean(rank < 1)), "top5": float(np.mean(rank < 5))},
        "last_epoch": history[-1],
        "seconds": round(time.perf_counter() - started),
    }
    write_text(args.out / "card.json", json.dumps(card, indent=2) + "\n")
    print(json.dumps(card["held_out"]))


if __name__ == "__main__":
    main()
