"""The networks that learned metrics look through, opened by role: the world's own, or published ones by name or file.

`open_backbones` takes the name of a network for each role of `registry.BACKBONES`:

| role | what it takes, besides "world" for the first five |
|---|---|
| `image-classifier` | hub name or folder of a `ViTForImageClassification` |
| `video-classifier` | hub name or folder of a `VideoMAEForVideoClassification` |
| `image-text` | hub name or folder of a `CLIPModel`; its picture tower is used |
| `alexnet2`, `alexnet5` | file of torchvision's AlexNet |
| `video-text` | as `image-text`, and the mean over frames, as ViFi-CLIP has it (Rasheed et al. 2023, CVPR) |
| `efficientnet-b1` | hub name or folder of an `EfficientNetModel` |
| `swav` | file of a ResNet-50 with torchvision's names, as SwAV publishes it |
| `inception` | file of torchvision's Inception v3 |
| `lpips` | folder with torchvision's AlexNet and LPIPS's linear weights (v0.1), or one file with both |

Files are safetensors, or torch files of tensors only. A folder of transformers needs `config.json`,
`preprocessor_config.json`, which says how frames are resized and scaled, and `model.safetensors`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroreel.core.checks import one_of, require, sentence
from neuroreel.core.errors import ConfigError, FetchError
from neuroreel.metrics.embedded import Absent, Backbone
from neuroreel.metrics.registry import BACKBONES
from neuroreel.nets import world
from neuroreel.nets.pretrained import (
    find_network,
    frame_processor,
    joint_digest,
    network_digest,
    read_network,
    read_settings,
)

if TYPE_CHECKING:
    from torch import Tensor

    from neuroreel.nets.alexnet import AlexNet

WORLD = "world"
WORLD_ROLES = ("image-classifier", "video-classifier", "image-text", "alexnet2", "alexnet5")
"""The roles that the simulated world has a network for."""

FRAMES_AT_ONCE = 32
CLIPS_AT_ONCE = 4
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and spread of colours from 0 to 1 that torchvision's networks, SwAV's and LPIPS scale with."""

ALEXNET_SIDE, SWAV_SIDE, INCEPTION_SIDE = 256, 224, 342
"""Pixels of the shorter side that frames are resized to, as in released code of two-way identification."""

SMALLEST_FOR_LPIPS = 31
"""Pixels of a side below which nothing is left after AlexNet's second pooling."""

See = Callable[[np.ndarray], "Tensor"]


@dataclass(frozen=True)
class _Published:
    """How a network of transformers fills a role: its type in config.json, its class, whether it classifies."""

    model_type: str
    kind: str
    classifies: bool = False


PUBLISHED = {
    "image-classifier": _Published("vit", "ViTForImageClassification", classifies=True),
    "video-classifier": _Published("videomae", "VideoMAEForVideoClassification", classifies=True),
    "image-text": _Published("clip", "CLIPModel"),
    "video-text": _Published("clip", "CLIPModel"),
    "efficientnet-b1": _Published("efficientnet", "EfficientNetModel"),
}


def open_backbones(
    spec: Mapping[str, str], *, device: str = "cpu", world_folder: Path | None = None
) -> dict[str, Backbone | Absent]:
    """Return the networks of metrics by role.

    Parameters
    ----------
    spec : by role, "world", a hub name, a folder or a file; see the table above. An empty name leaves the role out.
    device : where the networks run, as torch names it.
    world_folder : the weights of "world"; those shipped with the package by default.

    Returns
    -------
    dict by role. Where a file can't be had, an `Absent` stands in place of the network and says which; the metrics of
    that role are then skipped by name. Networks run in float32, without gradients, a batch of frames at a time; frames
    that are equal are looked at once.

    Raises
    ------
    ConfigError : a role is unknown, the world has no network for it, or the network is of another kind.
    DataError : a file is corrupt, or of another layout.
    """
    found: dict[str, Backbone | Absent] = {}
    wanted = {role: name for role, name in spec.items() if name}
    for role in spec:
        one_of("embed role", role, BACKBONES)
    if wanted:
        _check_device(device)
    for role, name in wanted.items():
        try:
            if name == WORLD:
                found[role] = _open_world(role, world_folder or world.WORLD, device)
            elif role in PUBLISHED:
                found[role] = _open_published(role, name, device)
            else:
                found[role] = FILES[role](role, _files(role, name), device)
        except FetchError as error:
            found[role] = Absent(f"embed[{role!r}] can't be opened: {error}")
    return found


def _check_device(device: str) -> None:
    """Raise ConfigError unless torch has the device."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        rule = "must be one that torch has here, such as cpu or cuda"
        raise ConfigError(sentence("device", rule, repr(device), type(error).__name__)) from None


# ---------------------------------------------------------------------------------------------------------------------
# The world's own


def _open_world(role: str, folder: Path, device: str) -> Backbone:
    """Return the network that the simulated world has for a role."""
    rule = f"must be a file or a hub name, since the world has only {', '.join(WORLD_ROLES)}"
    require(role in WORLD_ROLES, f"embed[{role!r}]", rule, repr(WORLD), error=ConfigError)
    if role == "image-classifier" or role.startswith("alexnet"):
        net, card = world.load_alexnet().to(device), world.alexnet_card()
        layer = "prob" if role == "image-classifier" else f"conv{role[-1]}"
        side = net.config.size

        def see(frames: np.ndarray) -> Tensor:
            x = resized(_to_tensor(frames, device), side, side)
            return net.activations((x - net.mean) / net.scale, (layer,))[layer].flatten(1)

        classes = net.config.n_classes if layer == "prob" else None
        return Backbone("alexnet-world", str(card["sha256"]), _of_frames(see), classes)
    part, file = (
        ("clip", "model.safetensors") if role == "image-text" else (role.replace("-", "_"), "weights.safetensors")
    )
    card_file = folder / "card.json"
    require(card_file.is_file(), WORLD, f"must have the file {card_file.name}", "none", folder, FetchError)
    card = world.read_card(folder)
    there = part in card["parts"]
    require(there, WORLD, f"must have the part {part}, with {part}/{file}", "none", folder, FetchError)
    path = world.check_part(folder, card, part)
    digest = card["parts"][part]["files"].get(f"{part}/{file}")
    require(digest is not None, f"weights part {part}", f"must list {part}/{file}", "none", card_file)
    if role == "image-text":
        return Backbone("clip-world", digest, _of_frames(_world_pictures(path, device)))
    return _world_clips(path, digest, device)


def _world_pictures(folder: Path, device: str) -> See:
    """Return what the world's CLIP sees in frames: its pixels run from -1 to 1."""
    net = _network_of("image-text", folder).to(device)
    side = int(net.config.vision_config.image_size)
    return lambda frames: _image_embeddings(net, resized(_to_tensor(frames, device), side, side) / 127.5 - 1)


def _world_clips(folder: Path, digest: str, device: str) -> Backbone:
    """Return the world's classifier of clips: every category with everything that it may be doing is a class.

    The probability of a class is the product of those that the two heads give.
    """
    net = world.read_classifier(folder).to(device)
    frames, side = net.config.frames, net.config.size

    def see(clips: np.ndarray) -> Tensor:
        shown = clips[:, spread(clips.shape[1], frames)]
        x = resized(_to_tensor(shown.reshape(-1, *shown.shape[2:]), device), side, side) / 127.5 - 1
        answers = net(x.unflatten(0, (len(clips), frames)).flatten(1, 2))
        what, doing = (answers[head].softmax(1) for head in ("category", "doing"))
        return (what[:, :, None] * doing[:, None, :]).flatten(1)

    classes = net.config.heads["category"] * net.config.heads["doing"]
    return Backbone("video-classifier-world", digest, _of_clips(see), classes)


# ---------------------------------------------------------------------------------------------------------------------
# Networks of transformers


def _open_published(role: str, name: str, device: str) -> Backbone:
    """Return a network of transformers with its own way of resizing and scaling frames."""
    folder = find_network(name, ("config.json", "preprocessor_config.json"))
    net = _network_of(role, folder).to(device)
    prepare = frame_processor(folder, clips=role == "video-classifier")
    classes = int(net.config.num_labels) if PUBLISHED[role].classifies else None

    def see(frames: np.ndarray) -> Tensor:
        x = prepare(frames).to(device)
        if role.endswith("text"):
            return _image_embeddings(net, x)
        found = net(pixel_values=x)
        return found.pooler_output.flatten(1) if classes is None else found.logits.softmax(1)

    def see_clips(clips: np.ndarray) -> Tensor:
        distinct = np.unique(spread(clips.shape[1], int(net.config.num_frames)))
        x = prepare(clips[:, distinct].reshape(-1, *clips.shape[2:])).unflatten(0, (len(clips), len(distinct)))
        order = np.searchsorted(distinct, spread(clips.shape[1], int(net.config.num_frames)))
        return net(pixel_values=x[:, order].to(device)).logits.softmax(1)

    embed = _of_clips(see_clips) if role == "video-classifier" else _of_frames(see)
    if role == "video-text":
        embed = _mean_over_frames(embed)
    return Backbone(name, network_digest(folder), embed, classes)


def _network_of(role: str, folder: Path) -> Any:
    """Return the network of a folder if it is of the kind that the role takes."""
    import transformers

    published = PUBLISHED[role]
    got = read_settings(folder / "config.json").get("model_type")
    rule = f"must be a network of the type {published.model_type}"
    require(got == published.model_type, f"embed[{role!r}]", rule, repr(got), folder / "config.json", ConfigError)
    net = read_network(getattr(transformers, published.kind), folder)
    if published.kind == "CLIPModel":
        del net.text_model
    return net


def _image_embeddings(net: Any, x: Tensor) -> Tensor:
    """Return the embeddings of CLIP's picture tower in the space shared with text, not brought to length 1."""
    return net.visual_projection(net.vision_model(pixel_values=x).pooler_output)


# ---------------------------------------------------------------------------------------------------------------------
# State dicts in files


def _files(role: str, name: str) -> list[Path]:
    """Return the files of weights that a name stands for: itself, or all of a folder, in order."""
    path = Path(name).expanduser()
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".pth", ".pt", ".tar"))
    there = bool(files) and all(file.is_file() for file in files)
    require(
        there, name, f"must be a file of weights such as {BACKBONES[role]}, or their folder", "none", None, FetchError
    )
    return files


def _state(files: Sequence[Path]) -> dict[str, Tensor]:
    """Return the tensors of all files by name, without what data-parallel training puts in front."""
    from neuroreel.nets.weights import read_state

    state = {key: value for file in files for key, value in read_state(file).items()}
    return {key.removeprefix("module."): value for key, value in state.items()}


def _alexnet(files: Sequence[Path], device: str) -> tuple[AlexNet, dict[str, Tensor]]:
    """Return torchvision's AlexNet, and what else is in its files."""
    from neuroreel.nets.alexnet import alexnet_of_state

    state = _state(files)
    net = alexnet_of_state(state, files[0]).to(device)
    rest = {key: value for key, value in state.items() if not key.startswith(("features.", "classifier."))}
    return net.requires_grad_(False), rest


def _open_alexnet(role: str, files: Sequence[Path], device: str) -> Backbone:
    """Return the maps of torchvision's `features.4` (alexnet2) or `features.11` (alexnet5): conv2 or conv5 after ReLU.

    Frames are resized to 256 pixels on their shorter side; sizes are then 192 x 31 x 31 and 256 x 15 x 15.
    """
    net, _ = _alexnet(files, device)
    layer = f"conv{role[-1]}"

    def see(frames: np.ndarray) -> Tensor:
        x = _scaled(shorter_side(_to_tensor(frames, device), ALEXNET_SIDE))
        return net.activations(x, (layer,))[layer].flatten(1)

    return Backbone(files[0].stem, joint_digest(files), _of_frames(see))


def _open_lpips(role: str, files: Sequence[Path], device: str) -> Backbone:
    """Return the embedding of frames whose squared distance is LPIPS.

    Activations of conv1 to conv5 after ReLU, brought to length 1 at every place, times the root of the learnt weight of
    their channel over the number of places. Frames keep their size. Source: Zhang et al. 2018, CVPR, eq. 1.
    """
    import torch

    net, rest = _alexnet(files, device)
    layers = [f"conv{number}" for number in range(1, 6)]
    roots = []
    for number, layer in enumerate(layers):
        key = next((key for key in (f"lin{number}.model.1.weight", f"lins.{number}.model.1.weight") if key in rest), "")
        require(bool(key), "weights", f"must have LPIPS's lin{number}.model.1.weight", _some(rest), files[-1])
        wanted = (1, net.shapes[layer][0], 1, 1)
        require(
            rest[key].shape == wanted, f"weights {key}", f"must have the shape {wanted}", rest[key].shape, files[-1]
        )
        require(bool((rest[key] >= 0).all()), f"weights {key}", "must be >= 0", float(rest[key].min()), files[-1])
        roots.append(rest[key].to(device).sqrt())

    def see(frames: np.ndarray) -> Tensor:
        found = net.activations(_scaled(_to_tensor(frames, device)), layers)
        parts = []
        for layer, root in zip(layers, roots, strict=True):
            x = found[layer]  # (n, channels, height, width)
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            parts.append((unit * root / math.sqrt(x[0, 0].numel())).flatten(1))
        return torch.cat(parts, 1)

    return Backbone("lpips-v0.1-alex", joint_digest(files), _of_frames(see), smallest=SMALLEST_FOR_LPIPS)


def _open_swav(role: str, files: Sequence[Path], device: str) -> Backbone:
    """Return the pooled features of a ResNet with bottlenecks in torchvision's names, 2048 of them for ResNet-50.

    Frames are resized to 224 pixels on their shorter side. What SwAV has on top (projection, prototypes) isn't used.
    """
    from neuroreel.nets.resnet import resnet_of_state

    net = resnet_of_state(_state(files), files[0]).to(device)

    def see(frames: np.ndarray) -> Tensor:
        return net(_scaled(shorter_side(_to_tensor(frames, device), SWAV_SIDE))).pooler_output.flatten(1)

    return Backbone(files[0].name.partition(".")[0], joint_digest(files), _of_frames(see))


def _open_inception(role: str, files: Sequence[Path], device: str) -> Backbone:
    """Return the pooled features of torchvision's Inception v3, 2048 of them.

    Frames are resized to 342 pixels on their shorter side; pixels run from -1 to 1, which is what torchvision's
    `transform_input` makes of its own scaling.
    """
    from neuroreel.nets.inception import inception_of_state

    net = inception_of_state(_state(files), files[0]).to(device)

    def see(frames: np.ndarray) -> Tensor:
        return net(shorter_side(_to_tensor(frames, device), INCEPTION_SIDE) / 127.5 - 1)

    return Backbone(files[0].stem, joint_digest(files), _of_frames(see))


FILES: dict[str, Callable[[str, Sequence[Path], str], Backbone]] = {
    "alexnet2": _open_alexnet,
    "alexnet5": _open_alexnet,
    "inception": _open_inception,
    "swav": _open_swav,
    "lpips": _open_lpips,
}


def _some(state: Mapping[str, Any]) -> str:
    return ", ".join(list(state)[:3]) or "nothing"


# ---------------------------------------------------------------------------------------------------------------------
# Frames and clips in batches


def spread(frames: int, wanted: int) -> np.ndarray:
    """Return which of the frames of a clip a network of `wanted` frames sees, evenly spread, array (wanted,).

    The frames at the middles of `wanted` equal parts of the clip; with fewer frames than that, some repeat.
    """
    return ((np.arange(wanted) + 0.5) * frames / wanted).astype(int)


def resized(x: Tensor, height: int, width: int) -> Tensor:
    """Return pictures (n, 3, h, w) in another size: bilinear, with the area that a pixel stands for on the way down."""
    import torch.nn.functional as F

    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=False, antialias=True)


def shorter_side(x: Tensor, side: int) -> Tensor:
    """Return pictures (n, 3, h, w) with the shorter side of so many pixels, and their proportions kept."""
    height, width = x.shape[-2:]
    least = min(height, width)
    return resized(x, side * height // least, side * width // least)


def _to_tensor(frames: np.ndarray, device: str) -> Tensor:
    """Return frames (n, h, w, 3) uint8 as (n, 3, h, w) float32 from 0 to 255."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).float()


def _scaled(x: Tensor) -> Tensor:
    """Return pictures from 0 to 255 as torchvision's networks take them."""
    mean, sd = (x.new_tensor(values).view(1, 3, 1, 1) * 255 for values in (IMAGENET_MEAN, IMAGENET_SD))
    return (x - mean) / sd


def _of_frames(see: See) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of clips (n, frames, h, w, 3) that sees their frames in batches: (n, frames, units)."""

    def embed(clips: np.ndarray) -> np.ndarray:
        n, frames = clips.shape[:2]
        first, which = _distinct([clips[row, frame] for row in range(n) for frame in range(frames)])
        units = _in_batches(
            lambda rows: see(clips[first[rows] // frames, first[rows] % frames]), len(first), FRAMES_AT_ONCE
        )
        return (units if len(first) == len(which) else units[which]).reshape(n, frames, -1)

    return embed


def _of_clips(see: See) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of clips (n, frames, h, w, 3) that sees them in batches: (n, units)."""

    def embed(clips: np.ndarray) -> np.ndarray:
        first, which = _distinct(list(clips))
        return _in_batches(lambda rows: see(clips[first[rows]]), len(first), CLIPS_AT_ONCE)[which]

    return embed


def _mean_over_frames(embed: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda clips: embed(clips).mean(axis=1)


def _distinct(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the first of each group of equal arrays, and to which group every array belongs."""
    place: dict[bytes, int] = {}
    first: list[int] = []
    which: list[int] = []
    for number, array in enumerate(arrays):
        digest = hashlib.sha256(array.tobytes()).digest()
        if digest not in place:
            place[digest] = len(first)
            first.append(number)
        which.append(place[digest])
    return np.array(first, dtype=int), np.array(which, dtype=int)


def _in_batches(see: Callable[[np.ndarray], Tensor], n: int, at_once: int) -> np.ndarray:
    """Return what is seen in rows 0 to n, so many at once, as float32 (n, units)."""
    import torch

    require(n > 0, "clips", "must be 1 or more", n)
    with torch.inference_mode():
        units = see(np.arange(min(at_once, n))).float().cpu().numpy()
        found = np.empty((n, units.shape[1]), dtype=np.float32)
        found[: len(units)] = units
        for start in range(len(units), n, at_once):
            rows = np.arange(start, min(start + at_once, n))
            found[rows] = see(rows).float().cpu().numpy()
    return found
