"""The conformance test that every system must pass: ours, and those that other packages bring.

from neuroreel.testing import check_system
check_system(MySystem)
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from neuroreel.core.errors import LeakageError
from neuroreel.core.seeds import generator
from neuroreel.core.sets import Segment, Split, TestSet, TrainingSet, Window
from neuroreel.core.system import MAKES, RunFolder, System
from neuroreel.core.types import Bold, Event, Reconstruction, Recording, Run, Space, Video

TR_S, CLIP_S, LAG_S = 2.0, 2.0, 4.0
CATEGORIES = ("circle", "square", "stripe")


def planted_sets(
    *, clips: int = 48, frames: int = 2, size: int = 16, voxels: int = 40, noise: float = 0.3, seed: int = 0
) -> tuple[TrainingSet, TestSet]:
    """Return a training and a test set with a planted answer: voxels that are random sums of pixels, 4 s late.

    Parameters
    ----------
    clips : clips of the training run; the test run has half as many.
    frames, size : frames of a clip and their height and width in pixels.
    voxels : number of voxels; the last quarter sees nothing.
    noise : SD of the noise, in units of the signal's.
    """
    rng = generator(seed, "planted")
    weights = rng.normal(size=(size * size, voxels))
    weights[:, voxels - voxels // 4 :] = 0
    space = Space("columns", voxels, rois={"all": np.ones(voxels, dtype=bool)})
    runs = []
    for name, count in (("train", clips), ("test", clips // 2)):
        pictures, events = [], []
        for index in range(count):
            kind = int(rng.integers(len(CATEGORIES)))
            pictures.append(_picture(kind, size, rng))
            category = CATEGORIES[kind]
            events.append(Event(index * CLIP_S, CLIP_S, category, f"a {category}"))
        shown = np.repeat(np.stack(pictures), frames, axis=0)  # the clip's frames are equal
        signal = (np.stack(pictures)[..., 0].reshape(count, -1) / 255.0 - 0.5) @ weights
        signal /= np.sqrt(size * size) / 4
        late = round(LAG_S / TR_S)
        data = np.zeros((count + late, voxels))
        data[late:] = signal
        data += noise * rng.normal(size=data.shape)
        bold = Bold(data.astype(np.float32), TR_S, space, "01", name)
        video = Video.from_frames(shown.astype(np.uint8), name=name, fps=frames / CLIP_S)
        runs.append(Run(bold, name, video, tuple(events)))
    split = Split(
        name="planted",
        reason="two runs of different pictures",
        train=(Segment(run="train"),),
        test=(Segment(run="test"),),
    )
    window = Window(clip_s=CLIP_S, frames=frames, first_lag_s=LAG_S, blocks="events")
    return split.cut(Recording("planted", "01", tuple(runs))).sets(window)


def check_system(kind: type[System], config: object = None, *, learns: bool = True) -> None:
    """Check that a system keeps the protocol on a small planted data set; raise AssertionError with what it breaks.

    Parameters
    ----------
    kind : the system's class.
    config : its config; its defaults if None.
    learns : False for systems that don't look at the brain: else one must beat its own answer to shuffled windows.

    It must: name itself; refuse anything but a TrainingSet; leave the caller's arrays alone; answer in the order and
    shape of what was asked, whatever is asked together; make what it says it makes; give the same answer twice and
    after saving and loading; and, if it learns, recover what was planted.
    """
    train, test = planted_sets()
    assert isinstance(kind.name, str) and kind.name, "a system must have a name"
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run", seed=1)
        for wrong in (test, test.truth, train.samples):
            try:
                kind(config).fit(wrong, run=run)  # type: ignore[arg-type]
            except LeakageError:
                continue
            raise AssertionError(f"{kind.name}: fit must raise LeakageError for {type(wrong).__name__}")
        before = train.samples.brain.copy(), train.samples.clips.copy() if train.samples.clips is not None else None
        system = kind(config)
        assert system.fit(train, run=run) is system, f"{kind.name}: fit must return the system"
        assert np.array_equal(before[0], train.samples.brain), f"{kind.name}: fit must not write into the brain windows"
        same = before[1] is None or np.array_equal(before[1], np.asarray(train.samples.clips))
        assert same, f"{kind.name}: fit must not write into the clips"

        assert system.makes and system.makes <= MAKES, f"{kind.name}: makes must be of {sorted(MAKES)}"
        answer = system.reconstruct(test.brain)
        _check_answer(kind.name, answer, system.makes, train, len(test.brain))
        _check_same(kind.name, answer, system.reconstruct(test.brain), "asked twice")
        system.save(Path(folder) / "saved")
        loaded = kind.load(Path(folder) / "saved")
        assert loaded.makes == system.makes, f"{kind.name}: makes must be kept by saving"
        _check_same(kind.name, answer, loaded.reconstruct(test.brain), "after saving and loading")
        if learns:
            few = test.brain.take(np.arange(3, 8))
            _check_same(kind.name, _rows(answer, slice(3, 8)), system.reconstruct(few), "asked for some of them")
            _check_recovers(system, answer, test)


def _picture(kind: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a grey picture (size, size, 3) with a circle, a square or a stripe at a random place."""
    y, x = np.mgrid[:size, :size]
    cy, cx = rng.uniform(0.3, 0.7, size=2) * size
    radius = size / 5
    shapes = (
        (y - cy) ** 2 + (x - cx) ** 2 < radius**2,
        (np.abs(y - cy) < radius) & (np.abs(x - cx) < radius),
        np.abs(y - cy) < radius / 2,
    )
    return np.repeat(np.where(shapes[kind], 220, 30)[..., None], 3, axis=2)


def _check_answer(name: str, answer: Reconstruction, makes: frozenset[str], train: TrainingSet, rows: int) -> None:
    if makes & {"video", "image"}:
        clips, own = answer.clips, train.samples.clips
        assert clips is not None and own is not None, f"{name}: says it makes pictures and makes none"
        assert clips.dtype == np.uint8, f"{name}: clips must be uint8, got {clips.dtype}"
        assert clips.shape == (rows, *own.shape[1:]), (
            f"{name}: clips must be {(rows, *own.shape[1:])}, got {clips.shape}"
        )
    if "category" in makes:
        p = answer.probabilities
        assert p is not None, f"{name}: says it makes categories and makes none"
        assert len(p) == rows and np.allclose(p.sum(1), 1) and (p >= 0).all(), f"{name}: rows must be probabilities"
        assert set(answer.categories) <= set(CATEGORIES), f"{name}: categories must be those of the training set"
    assert answer.drawn >= 1, f"{name}: drawn must be >= 1"


def _rows(answer: Reconstruction, rows: slice) -> Reconstruction:
    clips = None if answer.clips is None else answer.clips[rows]
    return Reconstruction(
        clips, None if answer.probabilities is None else answer.probabilities[rows], answer.categories
    )


def _check_same(name: str, first: Reconstruction, second: Reconstruction, when: str) -> None:
    if first.clips is not None:
        assert second.clips is not None and first.clips.shape == second.clips.shape, f"{name}: clips differ {when}"
        apart = np.abs(first.clips.astype(int) - second.clips)
        assert apart.max() <= 1, f"{name}: clips must be the same {when}, got {apart.max()} grey levels apart"
    if first.probabilities is not None:
        same = second.probabilities is not None and np.allclose(first.probabilities, second.probabilities, atol=1e-4)
        assert same, f"{name}: probabilities must be the same {when}"


def _check_recovers(system: System, answer: Reconstruction, test: TestSet) -> None:
    """The answer to the true windows must be nearer to the truth than the one to shuffled windows."""
    order = np.roll(np.arange(len(test.brain)), len(test.brain) // 2)
    wrong = system.reconstruct(test.brain.take(order))
    if answer.clips is not None and wrong.clips is not None and test.truth.clips is not None:
        right, shuffled = (_correlation(clips, test.truth.clips) for clips in (answer.clips, wrong.clips))
        assert right > shuffled + 0.1, (
            f"{system.name}: must recover what was planted, got {right:.2f} and {shuffled:.2f} shuffled"
        )
    elif answer.probabilities is not None:
        named = np.array(answer.categories)[answer.probabilities.argmax(1)]
        share = float(np.mean(named == test.truth.category))
        assert share > 0.5, f"{system.name}: must name 1 of 3 planted categories, got {share:.2f} right"


def _correlation(clips: np.ndarray, truth: np.ndarray) -> float:
    pairs = zip(clips.reshape(len(clips), -1).astype(float), truth.reshape(len(truth), -1).astype(float), strict=True)
    return float(np.mean([np.corrcoef(a, b)[0, 1] if np.ptp(a) > 0 else 0.0 for a, b in pairs]))
