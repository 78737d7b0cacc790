"""One folder with a self-contained page: it opens from a file, asks the network for nothing and runs no script."""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from neuroreel.core import checks
from neuroreel.core.attention import regions_or_networks
from neuroreel.core.files import atomic, write_text
from neuroreel.core.scores import ScoreCurve, Scores
from neuroreel.core.video import write_video
from neuroreel.report import cortex, figures
from neuroreel.report.attention_figures import attention_pictures
from neuroreel.report.figures import Picture
from neuroreel.report.montage import Montage, make_montage
from neuroreel.report.probe_figures import curve_picture, lesions_picture
from neuroreel.report.record import CURVES, Record
from neuroreel.report.training_figures import curves_picture, samples_picture

HEADLINE = ("identification:pairwise", "category-accuracy", "frame-correlation")
PLACES = (
    "contact_sheet",
    "best_to_worst",
    "categories",
    "scores_over_time",
    "voxels",
    "lag_sweep",
    "identification",
    "bottleneck",
    "lesions",
    "minutes",
    "repeats",
    "attention_map",
    "attention_regions",
    "confusion",
    "regions",
    "training_curves",
    "training_samples",
)
CHANCE_WORDS = {
    "shuffled": "answers to other clips",
    "train-marginal": "the average of the training clips",
    "mean-brain": "the mean brain, through the system",
    "noise": "noise in place of the brain, through the system",
    "nearest-train": "the training clip nearest in time",
    "analytic": "a guess, calculated",
}
CONTROL_WORDS = {
    "static": "the same, held still",
    "reversed": "the same, backwards",
    "frame-shuffled": "the same, its frames shuffled",
}
METRIC_WORDS = {
    "frame-correlation": "Correlation of each frame with the one shown; frames without contrast count as 0",
    "pixcorr": "Correlation of the pixels of the whole clip",
    "mse": "Mean squared error of the pixels",
    "psnr": "Peak signal over noise, dB",
    "ssim": "Structural similarity",
    "identification": "Is the clip shown found among others by its reconstruction?",
    "category-accuracy": "Is the most probable category the one shown?",
    "nway2": "Is the clip's class found among n?",
    "nway50": "Is the clip's class found among 50?",
    "epe": "Error of the optical flow",
    "clip-consistency": "How alike are the frames of a clip? A still frame wins",
    "direction-accuracy": "Share of moving pixels that move the right way",
    "lpips": "Perceptual distance",
}
SHARES = ("identification", "category-accuracy", "nway2", "nway50")


@dataclass(frozen=True)
class Film:
    """A video on the page: base64 of the file, what it shows, how fast."""

    name: str
    data: str
    caption: str
    label: str
    width: int
    height: int


@dataclass(frozen=True)
class Plot:
    """One line of the forest plot, in percent of its width: interval, dot, chance and ceiling; None is left out."""

    dot: float | None
    low: float | None
    high: float | None
    chance: float | None
    ceiling: float | None


@dataclass(frozen=True)
class Row:
    """One system's scores in one metric."""

    system: str
    colour: str
    score: Scores
    plot: Plot
    best: bool
    chance_row: str


@dataclass(frozen=True)
class Metric:
    """One metric's rows of the score table."""

    variant: str
    words: str
    higher_is_better: bool
    rows: list[Row]


@dataclass
class Section:
    """What the template shows of one record."""

    record: Record
    anchor: str
    headline: str
    sentences: list[str]
    tiles: list[Row]
    metrics: list[Metric]
    pictures: list[Picture] = field(default_factory=list)
    film: Film | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)


def write_report(records: Sequence[Record], folder: Path) -> Path:
    """Write the report of one or more records and return its page.

    The folder then holds `index.html`, which needs nothing else, and beside it every figure as PNG and every movie as
    mp4. All is made before anything is written; other files of the folder stay.

    Raises
    ------
    DataError
        If there is no record or the folder can't be written.
    """
    checks.require(len(records) > 0, "records", "must be 1 or more", 0, folder)
    colours = figures.system_colours(name for record in records for name in _systems(record))
    files: dict[str, bytes] = {}
    sections = []
    for record, anchor in zip(records, _anchors(records), strict=True):
        section = make_section(record, anchor, colours)
        prefix = "" if len(records) == 1 else f"{anchor}_"
        montage = make_montage(record.truth, record.reconstructions, colours)
        if montage is None:
            section.skipped.append(("movie", "no system made clips"))
        else:
            files[f"{prefix}montage.mp4"] = encode(montage)
            section.film = film(montage, f"{prefix}montage.mp4", files[f"{prefix}montage.mp4"])
        files |= {f"{prefix}{each.name}.png": each.png for each in section.pictures}
        sections.append(section)
    page = render(sections, colours)
    for name, content in files.items():
        with atomic(Path(folder) / name) as partial:
            partial.write_bytes(content)
    write_text(Path(folder) / "index.html", page)
    return Path(folder) / "index.html"


def render(sections: Sequence[Section], colours: Mapping[str, str]) -> str:
    """Return the page. Every text of the data is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    world = Environment(
        loader=PackageLoader("neuroreel.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    world.filters |= {"number": number, "percent": percent, "p": p_value, "data_uri": data_uri}
    style = world.loader.get_source(world, "report.css")[0] if world.loader else ""
    return world.get_template("report.html").render(
        sections=sections,
        colours=colours,
        style=style,
        chance_words=CHANCE_WORDS,
        control_words=CONTROL_WORDS,
    )


def make_section(record: Record, anchor: str, colours: Mapping[str, str]) -> Section:
    """Return what the page shows of a record, all but its movie."""
    variant = headline_variant(record)
    order = dict.fromkeys([*_shown(record), *record.table.variants])
    metrics = [_metric(record, each, colours) for each in order]
    by_name = {metric.variant: metric for metric in metrics}
    best = best_system(record, variant)
    section = Section(
        record,
        anchor,
        record.dataset,
        sentences(record, variant, best),
        [row for each in _shown(record) for row in by_name[each].rows if row.system == best],
        metrics,
        skipped=list(record.table.skipped.items()),
    )
    truth, made = record.truth, record.reconstructions
    _keep(section, figures.contact_sheet(truth, made, colours), "contact sheet", "no system made clips")
    strip, reason = figures.category_strip(truth, made, colours)
    _keep(section, strip, "category strip", reason)
    if variant is not None:
        picked = next((each for each in ("frame-correlation",) if each in record.table.variants), variant)
        values = {name: row[picked].values for name, row in record.table.rows.items() if picked in row}
        if picked != "category-accuracy":
            _keep(section, figures.time_figure(picked, values, truth, colours))
        if best is not None and best in made and picked in record.table.rows[best]:
            scores = record.table.rows[best][picked]
            _keep(section, figures.best_to_worst(truth, best, made[best], scores, colours))
    if record.lag_sweep is None:
        section.skipped.append(("lag sweep", "not measured"))
    else:
        _keep(section, figures.lag_figure(record.lag_sweep, _block_s(record)))
    _keep(section, figures.curve_figure(record.curves, colours), "identification curve", "not measured")
    _keep_probes(section, colours)
    if best is not None and best in made:
        matrix, reason = figures.confusion_figure(best, made[best], truth)
        _keep(section, matrix, "confusion matrix", reason)
    if not record.voxel_maps:
        section.skipped.append(("voxel scores", "not measured"))
    for place, chart in enumerate(record.voxel_maps, start=1):
        drawn, reason = cortex.voxel_picture(record.space, chart, f"voxels_{place}")
        _keep(section, drawn, f"map of {chart.title}", reason)
        _keep(section, cortex.roi_picture(record.space, chart, f"regions_{place}"))
    for place, (name, log) in enumerate(record.trainings.items(), start=1):
        _keep(section, curves_picture(name, log, f"training_curves_{place}"))
        _keep(section, samples_picture(name, log, f"training_samples_{place}"))
    section.pictures.sort(key=lambda each: PLACES.index(re.sub(r"_\d+$", "", each.name)))
    return section


def headline_variant(record: Record) -> str | None:
    """Return the variant that the headline and the choice of the best system go by."""
    known = record.table.variants
    return next((each for each in HEADLINE if each in known), known[0] if known else None)


def best_system(record: Record, variant: str | None) -> str | None:
    """Return the system with the best mean in a variant, or None where there is none."""
    if variant is None:
        return None
    scored = {
        name: row[variant].mean * (1 if row[variant].higher_is_better else -1)
        for name, row in record.table.rows.items()
        if variant in row and np.isfinite(row[variant].mean)
    }
    return max(scored, key=lambda name: scored[name], default=None)


def sentences(record: Record, variant: str | None, best: str | None) -> list[str]:
    """Return the result in plain words."""
    truth = record.truth
    clips = "clips" if truth.clips is not None and truth.clips.shape[1] > 1 else "pictures"
    kinds = {str(name) for name in truth.category if name}
    shown = f"{len(truth)} test {clips if truth.clips is not None else 'volumes'}"
    if kinds:
        shown += f" of {len(kinds)} categories" if len(kinds) > 8 else f" ({figures.listed(sorted(kinds))})"
    repeats = float(np.mean(truth.repeats)) if len(truth) else 1.0
    averaged = f", averaged over {repeats:.0f} showings" if repeats > 1.5 else ""
    lines = [
        f"Subject {record.subject} was shown {shown}{averaged}. "
        f"From {record.space.size:,} voxels, {_many(len(_systems(record)), 'system')} read back what that was; "
        "none was fitted on the test."
    ]
    if variant is None or best is None:
        return lines
    score = record.table.rows[best][variant]
    value = percent(score.mean) if score.metric in SHARES else number(score.mean)
    lead = {
        "identification:pairwise": f"The best, {best}, tells the true one from another in {value} of all pairs",
        "category-accuracy": f"The best, {best}, names the right category in {value} of them",
    }.get(variant, f"The best in {variant}, {best}, reaches {value}")
    if score.low is not None and score.high is not None:
        ends = [percent(end) if score.metric in SHARES else number(end) for end in (score.low, score.high)]
        lead += f" (95\u00a0% interval {ends[0]} to {ends[1]})"
    beside = []
    guess = score.chance.get("analytic")
    if guess is not None:
        beside.append(f"a guess gives {percent(guess) if score.metric in SHARES else number(guess)}")
    if score.chance_value is not None and score.chance_value != guess:
        row = _chance_row(score)
        text = percent(score.chance_value) if score.metric in SHARES else number(score.chance_value)
        beside.append(f"the best answer that decodes nothing {text} ({CHANCE_WORDS[row]})")
    if score.ceiling is not None:
        text = percent(score.ceiling) if score.metric in SHARES else number(score.ceiling)
        beside.append(f"the true features through the same generator {text}")
    return [*lines, f"{lead}; {figures.listed(beside)}." if beside else f"{lead}."]


def encode(montage: Montage) -> bytes:
    """Return a montage as the bytes of an H.264 mp4."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "montage.mp4"
        write_video(file, montage, montage.fps, crf=21)
        return file.read_bytes()


def film(montage: Montage, name: str, content: bytes) -> Film:
    """Return a movie for the page."""
    height, width = montage.size
    same = abs(montage.speed - 1) < 0.05
    speed = "at the speed at which it was shown" if same else f"{montage.speed:.1f} times as fast as it was shown"
    total = len(montage.truth)
    part = f"all {total} test clips" if montage.clips == total else f"the first {montage.clips} of {total} test clips"
    return Film(
        name,
        base64.b64encode(content).decode(),
        f"{part[:1].upper()}{part[1:]} in the order of the test, {speed}: what was shown, and what each system read "
        "from the brain at that time.",
        f"Movie: what was shown beside what was reconstructed by {figures.listed(montage.made)}.",
        width,
        height,
    )


def data_uri(one: Picture) -> str:
    """Return a picture's SVG as a data address."""
    return "data:image/svg+xml;base64," + base64.b64encode(one.svg.encode()).decode()


def number(value: float | None) -> str:
    """Return a number as the table shows it: three decimals, fewer where it is large, a dash where it is missing."""
    if value is None or not np.isfinite(value):
        return "–"
    size = abs(value)
    text = f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:,.0f}"
    return text.replace("-", "−")


def percent(value: float) -> str:
    """Return a share in whole percent, with a decimal near the ends."""
    form = ".1%" if 0.985 < value < 1 or 0 < value < 0.015 else ".0%"
    return format(value, form).replace("%", "\u00a0%")


def p_value(value: float | None) -> str:
    """Return a p-value: never 0."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _metric(record: Record, variant: str, colours: Mapping[str, str]) -> Metric:
    scores = {name: row[variant] for name, row in record.table.rows.items() if variant in row}
    best = best_system(record, variant)
    leader = best if best is not None and _above_chance(scores[best]) else None
    ends: list[float | None] = []
    for score in scores.values():
        ends += [score.mean, score.low, score.high, score.chance_value, score.ceiling]
    known = [end for end in ends if end is not None and np.isfinite(end)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    first = next(iter(scores.values()))
    rows = [
        Row(name, colours[name], score, _plot(score, low, high), name == leader, _chance_row(score))
        for name, score in scores.items()
    ]
    words = METRIC_WORDS.get(first.metric, "")
    if variant == "identification:pairwise":
        words = "How often is the reconstruction nearer to the clip shown than to another?"
    return Metric(variant, words, first.higher_is_better, rows)


def _plot(score: Scores, low: float, high: float) -> Plot:
    def place(value: float | None) -> float | None:
        if value is None or not np.isfinite(value) or high <= low:
            return None
        return round(3 + 94 * (value - low) / (high - low), 2)

    return Plot(*(place(value) for value in (score.mean, score.low, score.high, score.chance_value, score.ceiling)))


def _above_chance(score: Scores) -> bool:
    chance = score.chance_value
    return chance is None or (score.mean > chance if score.higher_is_better else score.mean < chance)


def _chance_row(score: Scores) -> str:
    best = score.chance_value
    return next((row for row, value in score.chance.items() if value == best), "")


def _shown(record: Record) -> list[str]:
    """Return the variants of the tiles: the headline's, and others of other metrics, at most four."""
    read = {name for one in record.reconstructions.values() for name in one.categories}
    dull = {"mse", "psnr", "pixcorr"} if record.truth.clips is not None else set()
    if read.isdisjoint(record.truth.category.tolist()):
        dull.add("category-accuracy")
    unlike: dict[str, str] = {}
    for each in (*HEADLINE, *record.table.variants):
        if each in record.table.variants and each.partition(":")[0] not in dull:
            unlike.setdefault(each.partition(":")[0], each)
    return list(unlike.values())[:4]


def _block_s(record: Record) -> float | None:
    """Return the usual length of the blocks of a category, None where nothing is repeated within them."""
    truth = record.truth
    if truth.clips is not None or len(truth) < 2:
        return None
    lengths = [np.ptp(truth.onset_s[truth.block == each]) for each in np.unique(truth.block)]
    return float(np.median(lengths))


def _systems(record: Record) -> list[str]:
    probed = [name for curves in record.probed.curves.values() for name in curves]
    return list(
        dict.fromkeys([*record.reconstructions, *record.table.rows, *record.curves, *probed, *record.probed.lesions])
    )


def _keep(section: Section, drawn: Picture | None, name: str = "", reason: str = "") -> None:
    if drawn is not None:
        section.pictures.append(drawn)
    elif name and reason:
        section.skipped.append((name, reason))


def _keep_probes(section: Section, colours: Mapping[str, str]) -> None:
    """Put the figures of what the scores depend on into a section, those of one metric together."""
    probed = section.record.probed
    for kind in CURVES:
        by_metric: dict[str, dict[str, ScoreCurve]] = {}
        for name, curve in probed.curves.get(kind, {}).items():
            by_metric.setdefault(curve.variant, {})[name] = curve
        for place, curves in enumerate(by_metric.values(), start=1):
            drawn = curve_picture(curves, colours, kind)
            _keep(section, drawn if place == 1 else replace(drawn, name=f"{kind}_{place}"))
        if not by_metric and kind == "bottleneck":
            section.skipped.append(("bottleneck", "not measured (neuroreel bottleneck)"))
    for place, (name, found) in enumerate(probed.lesions.items(), start=1):
        _keep(section, lesions_picture(name, found, colours[name], f"lesions_{place}"))
    for place, (name, maps) in enumerate(probed.attention.items(), start=1):
        space = section.record.space
        pictures, reason = attention_pictures(name, space, maps, regions_or_networks(space.rois), place)
        section.pictures += pictures
        _keep(section, None, f"map of where {name} looks", reason)
    if not probed.lesions and section.record.space.rois:
        section.skipped.append(("lesions", "not measured (neuroreel lesions)"))


def _anchors(records: Sequence[Record]) -> list[str]:
    """Return a name for each record that is safe in an address and a file name, all different."""
    anchors: list[str] = []
    for record in records:
        base = re.sub(r"[^A-Za-z0-9]+", "-", record.dataset).strip("-") or "data"
        name, count = base, 1
        while name in anchors:
            count += 1
            name = f"{base}-{count}"
        anchors.append(name)
    return anchors


def _many(count: int, noun: str) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return f"{words[count] if count < len(words) else count} {noun}{'' if count == 1 else 's'}"
