"""Masked brain modelling: what a patch of cortex does is recovered from the others, and so the brain is learnt.

brain = MaskedBrain(MaskedConfig())
brain.fit(*store_runs("study.zarr", split), loop=LoopConfig(steps=5000), folder=Path("masked"))
tokens = brain.encode(bold, "01")            # (n, trs x patches, dim), for a decoder to stand on
brain.move("03", space, Moments.of(runs))    # another subject, whose voxels the weights don't know yet
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from neuroreel.brain.factors import find_factors
from neuroreel.brain.patches import (
    Patches,
    describe,
    fingerprint,
    load_space,
    make_patches,
    neighbours,
    same_space,
    save_space,
)
from neuroreel.brain.stream import Moments, StreamRun, WindowStream, components, draw_masks, key_of
from neuroreel.core import checks
from neuroreel.core.errors import ConfigError, DataError
from neuroreel.core.files import atomic
from neuroreel.core.seeds import generator
from neuroreel.core.types import Space
from neuroreel.fit.checkpoints import newest_checkpoint
from neuroreel.fit.loop import Batch, LoopConfig, Progress, Trained, train
from neuroreel.nets.masked import Ends, MaskedConfig, MaskedNet
from neuroreel.nets.weights import fill, first_weights, read_state, write_state

__all__ = ["MaskedBrain", "MaskedConfig"]

HELD_OUT = 0.1
"""Last share of every run, on which it is weighed how much the network's corrections of the factors are worth."""
CONFIG, WEIGHTS, SUBJECTS = "masked.json", "masked.safetensors", "subjects"


@dataclass(frozen=True)
class _Subject:
    patches: Patches
    moments: Moments


class MaskedBrain:
    """A masked autoencoder of brain activity, of one subject or many.

    Parameters
    ----------
    config : its shape.
    seed : of the first weights.

    Attributes
    ----------
    net : the network, on the CPU unless it is trained elsewhere.
    """

    def __init__(self, config: MaskedConfig | None = None, *, seed: int = 0) -> None:
        self.config, self.seed = config or MaskedConfig(), seed
        with first_weights(seed, "masked brain", "body"):
            self.net = MaskedNet(self.config)
        self._subjects: dict[str, _Subject] = {}
        self._trained = False

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the subjects whose voxels the weights know."""
        return tuple(self._subjects)

    def patches(self, subject: str) -> Patches:
        """Return which voxels lie in which patch; an unknown subject is an error that lists the known ones."""
        return self._known(subject).patches

    def moments(self, subject: str) -> Moments:
        """Return the means and deviations that a subject's voxels are z-scored by."""
        return self._known(subject).moments

    def fit(
        self,
        runs: Sequence[StreamRun],
        spaces: Mapping[str, Space],
        *,
        loop: LoopConfig,
        folder: Path | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        cpu: bool = False,
        pool: int = 8,
        together: int = 4,
    ) -> Trained:
        """Train on all windows of some runs, and go on from the folder's newest checkpoint if there is one.

        Voxels are z-scored by the mean and deviation of the subject's runs that are trained on. Where the loop has a
        moving average of the weights, the network ends with that. Where there are factors, the last tenth of every run
        is kept to weigh the network's corrections by, if the rest of a run fills a batch.

        Parameters
        ----------
        runs, spaces : from `store_runs` or `memory_runs`.
        loop, folder, on_progress, cpu : as in `neuroreel.fit.loop.train`.
        pool, together : runs in memory at a time, see `WindowStream`.

        Raises
        ------
        DataError
            Voxels are others than the weights know and the config's transfer is "refuse"; and as in `train`.
        """
        for subject in dict.fromkeys(run.subject for run in runs):
            own = [run for run in runs if run.subject == subject]
            if subject not in self._subjects or not same_space(self.patches(subject).space, spaces[subject]):
                how = self.config.transfer if self._trained and self._subjects else "new"
                moments = Moments.of(run.read() for run in own)
                self.move(subject, spaces[subject], moments)
                going_on = folder is not None and newest_checkpoint(folder) is not None
                if how != "interpolated" and not going_on:
                    self._begin(subject, own)
        known = {subject: self._known(subject) for subject in dict.fromkeys(run.subject for run in runs)}
        counts = {subject: len(each.patches) for subject, each in known.items()}
        enough = max(run.trs for run in runs) * (1 - HELD_OUT) - self.config.trs >= loop.batch
        source = WindowStream(
            runs,
            {subject: each.moments for subject, each in known.items()},
            counts,
            {subject: self.config.visible(count) for subject, count in counts.items()},
            trs=self.config.trs,
            pool=pool,
            together=together,
            held_out=HELD_OUT if self.config.factors and enough else 0.0,
        )
        facts = {
            "masked": self.config.model_dump(mode="json"),
            "voxels": {s: fingerprint(self.patches(s).space) for s in counts},
        }
        several = len(self._subjects) > 1
        trained = train(
            self.net,
            masked_loss,
            source,
            loop,
            folder=folder,
            on_progress=on_progress,
            cpu=cpu,
            facts=facts,
            some_unused=several,
        )
        if trained.weights:
            self.net = MaskedNet(self.config)
            for subject, each in self._subjects.items():
                self.net.ends[key_of(subject)] = Ends(self.config, each.patches.voxels)
            self.net.load_state_dict(trained.weights)
        self.net.to("cpu")
        self._trained = True
        if trained.average:
            self.net.load_state_dict(trained.average, strict=False)
        if self.config.factors:
            for subject in known:
                self._weigh(subject, source.held(subject))
        return trained

    def move(self, subject: str, space: Space, moments: Moments, *, how: str | None = None) -> Self:
        """Take in a subject, or other voxels of one: the ends are made anew or interpolated, the rest stays.

        The first subjects of a network that knows none yet are taken in without asking.

        Parameters
        ----------
        moments : of the voxels, from training data.
        how : "interpolated" or "relearnt"; None for the config's `transfer`.

        Raises
        ------
        DataError
            `how` is "refuse", in a sentence that names both spaces; or there is no common place to interpolate in.
        """
        how = self.config.transfer if how is None else how
        checks.one_of("transfer", how, ("interpolated", "refuse", "relearnt"))
        checks.same_length("moments", len(moments.mean), "voxels", space.size)
        patches = make_patches(space, self.config.patch, self.config.order)
        checks.require(len(patches) > 1, "patches", f"must be 2 or more of {self.config.patch} voxels", len(patches))
        places = None
        if self.config.positions == "place":
            places = patches.places_mm()
            rule = "must be number where the place of the voxels isn't known"
            checks.require(places is not None, "positions", rule, f"'place' for {describe(space)}", error=ConfigError)
        with first_weights(self.seed, "masked brain", "ends", subject):
            ends = Ends(self.config, patches.voxels, places)
        if self._trained and self._subjects:
            old = self._known(subject) if subject in self._subjects else next(iter(self._subjects.values()))
            name = subject if subject in self._subjects else next(iter(self._subjects))
            rule = f"must be those of the weights (sub-{name}: {describe(old.patches.space)}) unless transfer says how"
            checks.require(how != "refuse", f"voxels of sub-{subject}", rule, describe(space))
            if how == "interpolated":
                self._interpolate(ends, patches, self.net.end(key_of(name)), old.patches)
        self.net.ends[key_of(subject)] = ends
        self._subjects[subject] = _Subject(patches, moments)
        return self

    def encode(self, brain: np.ndarray, subject: str, *, batch: int = 256) -> np.ndarray:
        """Return the tokens of windows (n, trs, voxels) in the units of the training, (n, trs x patches, dim)."""
        out = []
        with torch.inference_mode():
            for part in self._batches(brain, subject, batch):
                out.append(self.net.encode(part, key_of(subject)).flatten(1, 2).numpy())
        return np.concatenate(out)

    def recover(self, brain: np.ndarray, subject: str, masked: np.ndarray, *, batch: int = 256) -> np.ndarray:
        """Return windows (n, trs, voxels) with the masked patches recovered from the others, in the same units.

        Parameters
        ----------
        masked : (patches,) bool for all windows, or (n, patches) with as many masked in each.
        """
        patches, moments = self._known(subject).patches, self._known(subject).moments
        masked = np.broadcast_to(masked, (len(brain), len(patches)))
        counts = masked.sum(1)
        fits = bool((counts == counts[0]).all() and 0 < counts[0] < len(patches))
        checks.require(fits, "masked", "must mask some patches and not all, as many in each window", np.unique(counts))
        hidden = torch.from_numpy(np.nonzero(masked)[1].reshape(len(brain), -1))
        seen = torch.from_numpy(np.nonzero(~masked)[1].reshape(len(brain), -1))
        out, done = [], 0
        with torch.inference_mode():
            for part in self._batches(brain, subject, batch):
                rows = slice(done, done + len(part))
                made = self.net(part, key_of(subject), seen[rows], hidden[rows])  # (rows, trs, masked, size)
                patched = patches.cut(part.numpy())
                for row, numbers in enumerate(hidden[rows].numpy()):
                    patched[row][:, numbers] = made[row].numpy()
                out.append(patches.join(patched))
                done += len(part)
        return moments.undo(np.concatenate(out))

    def attention(self, brain: np.ndarray, subject: str, *, layers: Sequence[int] | None = None) -> np.ndarray:
        """Return how much each voxel's patch is looked at, (layers, voxels): 1 is as much as any on average.

        The mean over windows (n, trs, voxels), volumes, heads and lookers, with all patches visible; padding is
        dropped.

        Parameters
        ----------
        layers : numbers of the encoder's blocks; None for the first, the middle and the last one.
        """
        depth = self.config.depth
        layers = sorted({0, depth // 2, depth - 1}) if layers is None else list(layers)
        checks.require(all(0 <= n < depth for n in layers), "layers", f"must lie within 0..{depth - 1}", layers)
        total, count = np.zeros((len(layers), len(self.patches(subject)))), 0
        with torch.inference_mode():
            for part in self._batches(brain, subject, 64):
                x = self.net.tokens(part, key_of(subject))
                for number, block in enumerate(self.net.blocks()):
                    for row, wanted in enumerate(layers):
                        if wanted == number:
                            total[row] += block.looks(x).mean(1).sum(0).double().numpy()
                    x = block(x)
                count += len(part)
        return self.patches(subject).spread(total / count * total.shape[1])

    def weight_map(self, subject: str) -> np.ndarray:
        """Return the norm of each voxel's weights into its token, (voxels,); shared weights are by place in a patch."""
        patches, ends = self.patches(subject), self.net.end(key_of(subject))
        weight = ends.weight if self.net.embed is None else self.net.embed.weight.T.expand(len(patches), -1, -1)
        return patches.join(weight.detach().norm(dim=-1).numpy())

    def masks(self, subject: str, count: int, seed: int = 0) -> np.ndarray:
        """Return masks drawn as in training, (count, patches) bool, True where masked."""
        patches = len(self.patches(subject))
        seeds = generator(seed, "masks", subject).integers(2**62, size=count)
        _, masked = draw_masks(seeds, patches, self.config.visible(patches))
        out = np.zeros((count, patches), dtype=bool)
        np.put_along_axis(out, masked.numpy(), True, axis=1)
        return out

    def save(self, folder: Path) -> None:
        """Write config, weights, and the voxels and moments of each subject into a folder."""
        self.config.save(folder / CONFIG)
        write_state(folder / WEIGHTS, self.net)
        for subject, known in self._subjects.items():
            here = folder / SUBJECTS / key_of(subject)
            save_space(here / "space.safetensors", known.patches.space)
            moments = {"mean": known.moments.mean, "sd": known.moments.sd, "voxels": known.patches.voxels}
            with atomic(here / "moments.safetensors") as partial:
                save_file({name: np.ascontiguousarray(each) for name, each in moments.items()}, partial)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what `save` wrote.

        Raises
        ------
        ConfigError, DataError : a part is missing or damaged; the sentence names it.
        """
        brain = cls(MaskedConfig.load(folder / CONFIG))
        for here in sorted((folder / SUBJECTS).glob("subject *")):
            subject = here.name.removeprefix("subject ").replace("%2E", ".").replace("%25", "%")
            space = load_space(here / "space.safetensors")
            try:
                values = load_file(here / "moments.safetensors")
                moments, voxels = Moments(values["mean"], values["sd"]), values["voxels"]
            except Exception as error:
                name, reason = here / "moments.safetensors", type(error).__name__
                raise DataError(checks.sentence("moments of the weights", "must be whole", reason, name)) from None
            patches = Patches(space, voxels)
            brain._subjects[subject] = _Subject(patches, moments)
            brain.net.ends[key_of(subject)] = Ends(brain.config, voxels)
        fill(brain.net, read_state(folder / WEIGHTS), folder / WEIGHTS)
        brain.net.eval()
        brain._trained = True
        return brain

    def _weigh(self, subject: str, held: np.ndarray) -> None:
        """Set how far the network's corrections of the factors are trusted: by least squares on held-out windows."""
        ends, masks = self.net.end(key_of(subject)), self.masks(subject, 4, self.seed + 1)
        ends.trust.fill_(1.0)
        together, power = 0.0, 0.0
        for mask in masks if len(held) else ():
            seen, hidden = (torch.from_numpy(np.flatnonzero(each))[None] for each in (~mask, mask))
            with torch.inference_mode():
                for part in torch.from_numpy(held).split(64):
                    visible, masked = seen.expand(len(part), -1), hidden.expand(len(part), -1)
                    linear = ends.by_factors(part, visible, masked)
                    correction = self.net(part, key_of(subject), visible, masked) - linear
                    correction = correction * ends.real[masked][:, None]
                    wanted = ends.patches(part).gather(2, masked[:, None, :, None].expand_as(linear)) - linear
                    together += float((correction * wanted).sum())
                    power += float(correction.square().sum())
        if power > 0:
            ends.trust.fill_(min(1.0, max(0.0, together / power)))

    def _begin(self, subject: str, runs: Sequence[StreamRun]) -> None:
        """Let a new subject's ends begin with the components and factors of its training data, as the config says."""
        config, ends, moments = self.config, self.net.end(key_of(subject)), self.moments(subject)
        if (config.embedding, config.start) == ("own", "components"):
            ends.begin_with(torch.from_numpy(components(runs, moments, config.dim, seed=self.seed)))
        if config.factors:
            hidden = self.patches(subject).spread(self.masks(subject, 2, self.seed))
            found = find_factors(runs, moments, config.trs, config.factors, hidden, seed=self.seed)
            ends.take_factors(torch.from_numpy(found.weights), torch.from_numpy(found.noise))

    def _known(self, subject: str) -> _Subject:
        checks.one_of("subject of the weights", subject, self._subjects)
        return self._subjects[subject]

    def _batches(self, brain: np.ndarray, subject: str, batch: int) -> Iterator[Tensor]:
        """Give windows z-scored in batches, the network ready to be used."""
        known, trs = self._known(subject), self.config.trs
        checks.dimensions("brain", brain, ("n", "trs", "voxels"))
        checks.require(brain.shape[1] == trs, "brain", f"must have windows of {trs} volumes", brain.shape[1])
        space = known.patches.space
        rule = f"must be those of the weights (sub-{subject}: {describe(space)})"
        checks.require(brain.shape[2] == space.size, "voxels", rule, brain.shape[2])
        self.net.eval()
        for start in range(0, len(brain), batch):
            yield torch.from_numpy(known.moments.apply(checks.finite("brain", brain[start : start + batch])))

    def _interpolate(self, ends: Ends, patches: Patches, old: Ends, old_patches: Patches) -> None:
        """Give each new voxel the weights, and each new patch the positions and biases, of its old neighbours."""
        number, share = neighbours(old_patches.space, patches.space)
        patch_of = np.empty(old_patches.space.size, dtype=int)
        patch_of[old_patches.voxels[old_patches.real]] = np.nonzero(old_patches.real)[0]
        mix = np.zeros((len(patches), len(old_patches)))
        for row, voxels in enumerate(patches.voxels):
            voxels = voxels[voxels >= 0]
            np.add.at(mix[row], patch_of[number[voxels]].ravel(), share[voxels].ravel() / len(voxels))
        mixing = torch.from_numpy(mix).float()
        with torch.no_grad():
            ends.position.copy_(mixing @ old.position)
            ends.decoder_position.copy_(mixing @ old.decoder_position)
            if self.config.factors:
                for volume in range(self.config.trs):
                    moved = _moved(old.factor_weight[volume], old_patches, patches, number, share)
                    ends.factor_weight[volume] = moved
                    precision = old.factor_precision[volume][..., None]
                    ends.factor_precision[volume] = _moved(precision, old_patches, patches, number, share)[..., 0]
            if self.config.embedding == "own":
                ends.bias.copy_(mixing @ old.bias)
                ends.weight.copy_(_moved(old.weight, old_patches, patches, number, share))
                out = _moved(old.out_weight.transpose(1, 2), old_patches, patches, number, share)
                ends.out_weight.copy_(out.transpose(1, 2))
                ends.out_bias.copy_(_moved(old.out_bias[..., None], old_patches, patches, number, share)[..., 0])


def masked_loss(net: nn.Module, batch: Batch) -> Tensor:
    """Return the mean squared error on the masked voxels of each sample of a stream's batch, (n,)."""
    brain, key, masked = batch["brain"], batch["key"], batch["masked"]
    recovered = net(brain, key, batch["visible"], masked)
    plain: Any = getattr(net, "module", net)
    return plain.errors(recovered, brain, key, masked)


def _moved(weight: Tensor, old: Patches, new: Patches, number: np.ndarray, share: np.ndarray) -> Tensor:
    """Return per-voxel weights (patches, size, width) of old voxels interpolated to new ones, 0 in the padding."""
    rows = old.join(np.moveaxis(weight.detach().numpy(), 2, 0))  # (width, voxels)
    mixed = (rows[:, number] * share).sum(-1)
    return torch.from_numpy(np.moveaxis(new.cut(mixed), 0, 2)).float()
