"""Every metric by its full variant name: what it needs, how it is computed, which way it points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from neuroreel.metrics import embedded, identification, motion, pixel
from neuroreel.metrics.embedded import Absent, Embed, network
from neuroreel.metrics.nway import COMPAT_ACCEPTED, nway_chance

GROUPS = ("pixel", "perceptual", "semantic", "motion", "identification")

BACKBONES = {
    "image-classifier": "google/vit-base-patch16-224/model.safetensors",
    "video-classifier": "MCG-NJU/videomae-base-finetuned-kinetics/model.safetensors",
    "image-text": "openai/clip-vit-large-patch14/model.safetensors",
    "video-text": "vifi_clip_10_epochs_k400_full_finetuned.safetensors",
    "alexnet2": "alexnet-owt-7be5be79.safetensors",
    "alexnet5": "alexnet-owt-7be5be79.safetensors",
    "inception": "inception_v3_google-0cc3c7bd.safetensors",
    "efficientnet-b1": "google/efficientnet-b1/model.safetensors",
    "swav": "swav_800ep_pretrain.safetensors",
    "lpips": "lpips-v0.1-alex.safetensors",
}
"""The file that each role of network is usually filled with."""

WIDE = ("alexnet2", "alexnet5")
"""Roles whose embeddings are maps, 0.1 to 0.7 MB a frame, and LPIPS, 2.6 MB, of which few clips are held at a time."""

LPIPS_AT_ONCE = 16

Parts = dict[str, np.ndarray]


def as_given(answer: np.ndarray, embed: Embed) -> Parts:
    """Return clips, features or probabilities as the parts of a metric that needs no network."""
    return {"given": answer}


@dataclass(frozen=True)
class Metric:
    """One metric.

    Parameters
    ----------
    variant : full name, `metric:variant`.
    group : one of GROUPS.
    compare : function of the parts of prediction and truth that returns a value per clip. Where there are no `pairs`,
        the truth may be a single clip, to which all predictions are then held.
    prepare : function of clips, features or probabilities and the networks by role that returns arrays by name, clips
        first.
    pairs : function of the parts that returns the value of every prediction (rows) with every truth (columns), or None
        where nothing is quicker than `compare` for each column.
    rank : set where the true clip is to be found among others: function of the similarities of `pairs` that returns the
        success of every clip (columns) as the answer to every prediction (rows).
    analytic : function of the truth that returns the chance by calculation, or None.
    higher_is_better : False for distances and errors.
    takes : "clips" (n, frames, height, width, 3) uint8, or "probabilities" (n, categories).
    backbones : roles of the networks that it looks through, see BACKBONES.
    smallest : frames, height and width that the clips must have at least.
    classes : number of categories that there must be at least.
    at_once : number of clips whose parts are held at the same time, or None for all.
    by_frame : True where `pairs` is a mean over frames, so that parts too large for memory can be had one by one.
    controls : True for metrics of motion, which also score the reconstruction without its motion.
    """

    variant: str
    group: str
    compare: Callable[[Parts, Parts], np.ndarray]
    prepare: Callable[[np.ndarray, Embed], Parts] = as_given
    pairs: Callable[[Parts, Parts], np.ndarray] | None = None
    rank: Callable[[np.ndarray], np.ndarray] | None = None
    analytic: Callable[[np.ndarray], float] | None = None
    higher_is_better: bool = True
    takes: str = "clips"
    backbones: tuple[str, ...] = ()
    smallest: tuple[int, int, int] = (1, 1, 1)
    classes: int = 2
    at_once: int | None = None
    by_frame: bool = False
    controls: bool = False

    def full_name(self, embed: Embed) -> str:
        """Return the variant with the name and weight hash of every network that the metric looks through."""
        return "@".join([self.variant, *(network(embed, role).tag for role in self.backbones)])

    def lacks(self, truth: np.ndarray | None, embed: Embed) -> str | None:
        """Return the sentence why the metric can't be measured on such a truth with such networks, or None."""
        if truth is None:
            what = "the true clips" if self.takes == "clips" else "the true categories"
            return f"{what} must be known, got none"
        for role in self.backbones:
            found = embed.get(role)
            if found is None:
                return f"embed[{role!r}] must be a network, such as the one in {BACKBONES[role]}, got none"
            if isinstance(found, Absent):
                return found.reason
            if found.classes is not None and found.classes < self.classes:
                return f"the classes of {found.name} must be at least {self.classes}, got {found.classes}"
            if self.takes == "clips" and min(truth.shape[2:4]) < found.smallest:
                size = f"{truth.shape[2]} x {truth.shape[3]}"
                return f"frames for {found.name} must have sides of at least {found.smallest} pixels, got {size}"
        if self.takes == "probabilities":
            enough = truth.shape[1] >= self.classes
            return None if enough else f"the categories must be at least {self.classes}, got {truth.shape[1]}"
        sides = zip(("frames", "height", "width"), self.smallest, truth.shape[1:4], strict=False)
        for name, least, got in sides:
            if got < least:
                return f"the {name} of the clips must be at least {least}, got {got}"
        return None


def _pixel(
    name: str,
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    pairs: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    higher_is_better: bool = True,
) -> Metric:
    """Return a metric of two arrays of clips."""
    return Metric(
        name,
        "pixel",
        lambda a, b: function(a["given"], b["given"]),
        pairs=lambda a, b: pairs(a["given"], b["given"]),
        higher_is_better=higher_is_better,
    )


def _ssim(form: str) -> Metric:
    """Return one of the functions that are called SSIM."""
    spec = pixel.SSIM_FORMS[form]
    return Metric(
        f"ssim:{form}",
        "pixel",
        lambda a, b: pixel.ssim_compare(a, b, form),
        prepare=lambda clips, embed: pixel.ssim_parts(clips, form),
        smallest=(1, spec.down.size, spec.across.size),
        at_once=pixel.CLIPS_AT_ONCE,
    )


def _similarity(a: Parts, b: Parts) -> np.ndarray:
    """Return the correlation of every prediction (rows) with every truth (columns), in the space of what is given."""
    return identification.similarity_matrix(a["given"], b["given"])


def _identification(top: int | None) -> Metric:
    """Return identification among all test clips in the space of what is given; pairwise if `top` is None."""

    def rank(similarity: np.ndarray) -> np.ndarray:
        if top is None:
            return identification.pairwise_pairs(similarity)
        return identification.top_pairs(similarity, top)

    return Metric(
        "identification:pairwise" if top is None else f"identification:top{top}",
        "identification",
        lambda a, b: np.diagonal(rank(_similarity(a, b))).copy(),
        pairs=_similarity,
        rank=rank,
        analytic=lambda truth: 0.5 if top is None else min(1.0, top / len(truth)),
    )


@cache
def _seen_by(*roles: str) -> Callable[[np.ndarray, Embed], Parts]:
    """Return the function that embeds clips with the networks of these roles."""
    return lambda clips, embed: {role: network(embed, role)(clips) for role in roles}


def _two_way(role: str, name: str) -> Metric:
    """Return two-way identification of embeddings: the share of other true clips that are less alike."""

    def pairs(a: Parts, b: Parts) -> np.ndarray:
        return embedded.embedding_similarity(a[role], b[role])

    return Metric(
        f"two-way:{name}",
        "perceptual",
        lambda a, b: identification.identify_pairwise(pairs(a, b)),
        prepare=_seen_by(role),
        pairs=pairs,
        rank=identification.pairwise_pairs,
        analytic=lambda truth: 0.5,
        backbones=(role,),
        by_frame=role in WIDE,
    )


def _embedded(
    variant: str,
    group: str,
    role: str,
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    higher_is_better: bool = True,
) -> Metric:
    """Return a metric of the embeddings of prediction and truth."""
    return Metric(
        variant,
        group,
        lambda a, b: function(a[role], b[role]),
        prepare=_seen_by(role),
        higher_is_better=higher_is_better,
        backbones=(role,),
    )


def _nway(name: str, n_way: int, accepted: int, role: str | None) -> Metric:
    """Return an n-way accuracy: of a classifier's answers to the clips, or of the system's own probabilities."""
    key = role or "given"
    chance = nway_chance(n_way, accepted=accepted)
    return Metric(
        f"{name}{n_way}:{'top1' if accepted == 1 else 'top3-compat'}",
        "semantic",
        lambda a, b: embedded.nway_frames(a[key], b[key], n_way, accepted=accepted),
        prepare=_seen_by(role) if role else as_given,
        pairs=lambda a, b: embedded.nway_pairs(a[key], b[key], n_way, accepted=accepted),
        analytic=lambda truth: chance,
        takes="clips" if role else "probabilities",
        backbones=(role,) if role else (),
        classes=n_way - 1 + accepted,
    )


def _category_accuracy() -> Metric:
    """Return the share of clips whose most probable category is the true one; ties are broken at random."""
    return Metric(
        "category-accuracy",
        "semantic",
        lambda a, b: embedded.nway_frames(a["given"], b["given"], b["given"].shape[-1]),
        pairs=lambda a, b: embedded.nway_pairs(a["given"], b["given"], b["given"].shape[-1]),
        analytic=lambda truth: 1 / truth.shape[1],
        takes="probabilities",
    )


def _consistency(name: str, function: Callable[[np.ndarray], np.ndarray]) -> Metric:
    """Return a metric of how alike the frames of a clip are; it doesn't look at the truth."""
    return Metric(
        f"clip-consistency:{name}",
        "motion",
        lambda a, b: function(a["image-text"]),
        prepare=_seen_by("image-text"),
        backbones=("image-text",),
        smallest=(2, 1, 1),
        controls=True,
    )


def _gated_consistency() -> Metric:
    """Return the consistency that released code sets to 0 where the clip is not enough like the truth."""

    def compare(a: Parts, b: Parts) -> np.ndarray:
        alike = embedded.cosine_similarity(a["video-text"], b["video-text"])
        return motion.consistency_gated_compat(a["image-text"], alike)

    roles = ("image-text", "video-text")
    consistency = _consistency("gated-compat", motion.consistency_adjacent)
    return replace(consistency, compare=compare, prepare=_seen_by(*roles), backbones=roles)


def _see_flow(clips: np.ndarray, embed: Embed) -> Parts:
    """Return the optical flow of clips."""
    return {"flow": motion.flow(clips)}


def _flow(
    variant: str,
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    higher_is_better: bool = False,
    analytic: Callable[[np.ndarray], float] | None = None,
) -> Metric:
    """Return a metric of the optical flow of prediction and truth."""
    return Metric(
        variant,
        "motion",
        lambda a, b: function(a["flow"], b["flow"]),
        prepare=_see_flow,
        higher_is_better=higher_is_better,
        analytic=analytic,
        smallest=(2, 16, 16),
        controls=True,
    )


def _all() -> list[Metric]:
    """Return every metric."""
    classifiers = (("nway", "image-classifier"), ("nway-video", "video-classifier"), ("nway-category", None))
    return [
        _pixel("mse", pixel.mse, pixel.mse_pairs, higher_is_better=False),
        _pixel("psnr", pixel.psnr, pixel.psnr_pairs),
        replace(_pixel("pixcorr", pixel.pixcorr, pixel.pixcorr_pairs), pairs=_similarity),
        _pixel("frame-correlation", pixel.frame_correlation, pixel.frame_correlation_pairs),
        *(_identification(top) for top in (None, 1, 5)),
        *(_ssim(form) for form in pixel.SSIM_FORMS),
        *(_two_way(role, role) for role in ("alexnet2", "alexnet5", "inception")),
        _two_way("image-text", "clip"),
        *(
            _embedded(
                f"correlation-distance:{role}",
                "perceptual",
                role,
                embedded.correlation_distance,
                higher_is_better=False,
            )
            for role in ("efficientnet-b1", "swav")
        ),
        replace(
            _embedded("lpips", "perceptual", "lpips", embedded.squared_distance, higher_is_better=False),
            at_once=LPIPS_AT_ONCE,
        ),
        _embedded("clip-similarity", "semantic", "image-text", embedded.cosine_similarity),
        *(
            _nway(name, n_way, accepted, role)
            for name, role in classifiers
            for n_way in (2, 50)
            for accepted in (1, COMPAT_ACCEPTED)
        ),
        _category_accuracy(),
        _consistency("all-pairs", motion.consistency_all_pairs),
        _consistency("adjacent", motion.consistency_adjacent),
        _gated_consistency(),
        _flow("epe:raw", motion.endpoint_error),
        _flow("epe:over-flow", motion.endpoint_error_over_flow),
        _flow("direction-accuracy", motion.direction_accuracy, higher_is_better=True, analytic=lambda truth: 0.25),
    ]


METRICS: dict[str, Metric] = {metric.variant: metric for metric in _all()}
