"""How good the world's generator is: its samples named by networks that it never saw, beside real frames.

    python benchmarks/world.py --json                      # 400 captions of new scenes
    python benchmarks/world.py --sheet samples.png         # look at them too

Categories, colours and places are named by the judge, which learnt from scenes of other seeds than the generator and
was used for nothing else. `position_accuracy` counts captions that name a place, right when the judged centre lies in
that one of nine places. What the same captions' real frames get is beside them (`real`), and what the shipped AlexNet
would name, which other benchmarks use.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from neuroreel.core.files import write_text
from neuroreel.generate.world import GUIDANCE, WITHIN, World, load_world
from neuroreel.nets.residual import ResidualConfig, ResidualNet
from neuroreel.nets.world import alexnet_card, load_alexnet
from neuroreel.simulate.captions import parse_caption, place_of
from neuroreel.simulate.categories import GROUP_OF
from neuroreel.simulate.sampling import sample_clips

NEW_SEED = 9_700_000
JUDGE = Path(__file__).parent / "judge"


def load_judge(folder: Path) -> tuple[ResidualNet, dict[str, list[str]]]:
    """Return the judge, its file checked, and the names of its values."""
    card = json.loads((folder / "card.json").read_text())["parts"]["judge"]
    digest = card["files"]["judge/weights.safetensors"]
    config = ResidualConfig.load(folder / "judge" / "config.json")
    return ResidualNet.load(folder / "judge" / "weights.safetensors", config, digest), card["classes"]


@torch.inference_mode()
def categories_of(frames: np.ndarray, batch: int = 256) -> np.ndarray:
    """Return the category of each frame as the shipped AlexNet sees it, (n,)."""
    net = load_alexnet().eval()
    parts = range(0, len(frames), batch)
    logits = torch.cat([net(net.pixels(torch.from_numpy(frames[start : start + batch]))) for start in parts])
    return np.array(alexnet_card()["classes"])[logits.argmax(1).numpy()]


def shares(
    judge: ResidualNet, classes: dict[str, list[str]], frames: np.ndarray, captions: np.ndarray
) -> dict[str, float]:
    """Return the shares of frames whose category, group, colour and place are those that the caption says."""
    found = judge.answers(torch.from_numpy(frames))
    said = [parse_caption(str(caption)) for caption in captions]
    named = {name: np.array(classes[name])[found[name].argmax(1).numpy()] for name in ("category", "colour")}
    places = [place_of(float(x), float(y)) for x, y, _ in found["place"]]
    pairs = [(place, row["place"]) for place, row in zip(places, said, strict=True) if row["place"]]
    groups = [GROUP_OF[name] for name in named["category"]]
    wanted = [row["category"] for row in said]
    return {
        "category": float(np.mean(named["category"] == wanted)),
        "group": float(np.mean([group == GROUP_OF[name] for group, name in zip(groups, wanted, strict=True)])),
        "colour": float(np.mean(named["colour"] == [row["colour"] for row in said])),
        "position": float(np.mean([a == b for a, b in pairs])),
        "category_by_alexnet": float(np.mean(categories_of(frames) == wanted)),
    }


def psnr(world: World, frames: np.ndarray) -> float:
    """Return the mean over frames of the peak signal to noise ratio of the autoencoder, in dB."""
    wrong = (world.decode(world.encode(frames)).astype(np.float64) - frames) ** 2
    return float(np.mean(10 * np.log10(255**2 / wrong.mean((1, 2, 3)))))


def retrieval(world: World, frames: np.ndarray, captions: np.ndarray, of: int = 100) -> float:
    """Return the share of frames whose own caption is the nearest of a hundred different ones."""
    distinct = np.sort(np.unique(captions, return_index=True)[1])
    right = []
    for start in range(0, len(distinct) - of + 1, of):
        rows = distinct[start : start + of]
        alike = world.embed_images(frames[rows]) @ world.embed_text(list(captions[rows])).T
        right.append((alike.argmax(1) == torch.arange(of)).float().mean().item())
    return float(np.mean(right))


def clip_shares(world: World, clips: np.ndarray, captions: np.ndarray) -> dict[str, float]:
    """Return the shares of clips whose category and doing are those that the caption says."""
    found = world.video_classifier.answers(torch.from_numpy(clips))
    classes = world.classes("video_classifier")
    said = [parse_caption(str(caption)) for caption in captions]
    doing = [f"{row['action']} {row['direction']}".strip() for row in said]
    category = np.array(classes["category"])[found["category"].argmax(1).numpy()]
    done = np.array(classes["doing"])[found["doing"].argmax(1).numpy()]
    return {
        "category": float(np.mean(category == [row["category"] for row in said])),
        "doing": float(np.mean(done == doing)),
    }


def write_sheet(file: Path, pictures: np.ndarray, columns: int = 12) -> None:
    """Write pictures (n, h, w, 3) in rows, twice as large."""
    rows, (height, width) = len(pictures) // columns, pictures.shape[1:3]
    grid = pictures[: rows * columns].reshape(rows, columns, height, width, 3)
    sheet = grid.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
    Image.fromarray(sheet).resize((2 * columns * width, 2 * rows * height), Image.Resampling.NEAREST).save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--weights", type=Path, help="folder of the weights; those of the package by default")
    parser.add_argument("--judge", type=Path, default=JUDGE)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--within", type=float, nargs=2, default=WITHIN, metavar=("FROM", "TO"))
    parser.add_argument("--clips-guidance", type=float, default=3.0)
    parser.add_argument("--clips-within", type=float, nargs=2, default=(0.0, 1.0), metavar=("FROM", "TO"))
    parser.add_argument("--sampler", default="dpm++")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sheet", type=Path, help="a PNG of real frames, and under each the sample of its caption")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    world = load_world(args.weights)
    judge, classes = load_judge(args.judge)
    clips, truth = sample_clips(max(args.samples, 500), frames=6, fps=3.0, seed=NEW_SEED + args.seed, per_scene=1)
    frames, captions = clips[:, 2], truth["caption"]
    common = {"steps": args.steps, "sampler": args.sampler, "seed": args.seed}
    settings = common | {"guidance": args.guidance, "within": tuple(args.within)}
    of_clips = common | {"guidance": args.clips_guidance, "within": tuple(args.clips_within)}
    chosen = captions[: args.samples]
    started = time.perf_counter()
    made = world.images(list(chosen), **settings)
    seconds = time.perf_counter() - started
    judged = shares(judge, classes, made, chosen)
    real = shares(judge, classes, frames[: args.samples], chosen)
    result: dict[str, Any] = {
        **{f"{name}_accuracy": judged[name] for name in ("group", "category", "colour", "position")},
        "classifier_accuracy": real["category"],
        "autoencoder_psnr": psnr(world, frames[:500]),
        "retrieval_top1_of_100": retrieval(world, frames, captions),
        "real": real,
        "samples": len(made),
        "samples_per_s": len(made) / seconds,
        "settings": settings,
        "threads": args.threads,
        "bytes": world.card["bytes"],
    }
    if {"motion", "video_classifier"} <= set(world.card["parts"]):
        films = world.clips(list(captions[: args.clips]), **of_clips)
        result["clips"] = clip_shares(world, films, captions[: args.clips]) | {"settings": of_clips}
        result["clips"]["real"] = clip_shares(world, clips[: args.clips], captions[: args.clips])
        if args.sheet is not None:
            strips = np.concatenate([clips[: len(films)], films], 1)[:10].reshape(-1, *clips.shape[2:])
            write_sheet(args.sheet.with_stem(f"{args.sheet.stem}-clips"), strips)
    if args.sheet is not None:
        columns = min(12, len(made))
        n = min(5, len(made) // columns) * columns
        pairs = np.stack([part[:n].reshape(-1, columns, *part.shape[1:]) for part in (frames, made)], 1)
        write_sheet(args.sheet, pairs.reshape(-1, *frames.shape[1:]), columns)
    text = json.dumps(result, indent=2)
    if args.out is not None:
        write_text(args.out, text + "\n")
    print(text if args.json else "\n".join(f"{key:24} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
