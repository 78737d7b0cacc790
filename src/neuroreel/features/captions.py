"""What clips show in words, by a captioner of pictures: a caption a scene, joined with "Then".

MinD-Video (Chen, Qing & Zhou, NeurIPS 2023, section 4.1) has BLIP (Li et al. 2022, arXiv 2201.12086) name frames at 3
per second. How a scene change is found isn't published: here, by the colours of neighbouring frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.nets.pretrained import (
    TOKENIZER,
    find_network,
    frame_processor,
    read_network,
    read_settings,
    read_tokenizer,
)

BINS = 8
"""Of each colour of a histogram."""
SAME_SCENE = 0.5
"""Share of the pixels that two neighbouring frames of one scene have in common in their histograms of colours."""


class Captioner:
    """BLIP, by the name of a folder or on the hub, such as `Salesforce/blip-image-captioning-large`.

    Parameters
    ----------
    name : of a `BlipForConditionalGeneration`, with its tokenizer and processor beside it.
    words : most tokens of a caption.

    Raises
    ------
    FetchError : it can't be had.
    ConfigError : it is another kind of network.
    """

    def __init__(self, name: str, words: int = 20) -> None:
        from transformers import BlipForConditionalGeneration

        folder = find_network(name, ("config.json", "preprocessor_config.json"), TOKENIZER)
        kind = read_settings(folder / "config.json").get("model_type")
        checks.require(
            kind == "blip", "captioner", "must be a network of the type blip", repr(kind), folder, ConfigError
        )
        self.net: Any = read_network(BlipForConditionalGeneration, folder)
        self.tokenizer, self.prepare, self.words = read_tokenizer(folder), frame_processor(folder), words

    def captions(self, frames: np.ndarray, batch: int = 16) -> list[str]:
        """Return what frames (n, h, w, 3) uint8 show, the same for equal frames."""
        import torch

        found: list[str] = []
        for start in range(0, len(frames), batch):
            with torch.inference_mode():
                ids = self.net.generate(self.prepare(frames[start : start + batch]), max_length=self.words)
            found += [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return found

    def of_clips(self, clips: np.ndarray) -> list[str]:
        """Return what clips (n, frames, h, w, 3) uint8 show: the middle frame of every scene, joined with "Then"."""
        scenes = [scenes_of(clip) for clip in clips]
        middles = [
            clip[(start + stop) // 2] for clip, parts in zip(clips, scenes, strict=True) for start, stop in parts
        ]
        said = iter(self.captions(np.stack(middles)) if middles else [])
        return [joined([next(said) for _ in parts]) for parts in scenes]


def joined(captions: Sequence[str]) -> str:
    """Return the captions of scenes that follow each other as one; what is said twice in a row is said once.

    >>> joined(["a dog runs", "a dog runs", "a car drives"])
    'a dog runs. Then a car drives'
    """
    told = [text for at, text in enumerate(captions) if text and (at == 0 or text != captions[at - 1])]
    return ". Then ".join(told)


def scenes_of(clip: np.ndarray, same: float = SAME_SCENE) -> list[tuple[int, int]]:
    """Return first and end of every scene of a clip (frames, h, w, 3) uint8.

    Parameters
    ----------
    same : least share of the pixels that neighbouring frames of one scene have in common, by histograms of colours.
    """
    checks.dimensions("clip", clip, ("frames", "height", "width", "rgb"))
    colours = (clip.astype(np.int64) * BINS // 256) @ np.array([BINS * BINS, BINS, 1])  # (frames, h, w)
    counts = np.stack([np.bincount(frame.ravel(), minlength=BINS**3) for frame in colours])
    common = np.minimum(counts[1:], counts[:-1]).sum(1) / colours[0].size
    cuts = [0, *(int(at) + 1 for at in np.flatnonzero(common < same)), len(clip)]
    return list(pairwise(cuts))
