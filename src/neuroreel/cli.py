"""The command line: a thin face over documented functions.

Every error is one sentence on standard error and exit code 1 (2 for wrong usage); `--debug` shows the traceback.
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuroreel.core.errors import ConfigError, NeuroreelError, NeuroreelWarning

if TYPE_CHECKING:
    from neuroreel.core.scores import ScoreTable
    from neuroreel.probes import Kind

app = typer.Typer(
    name="neuroreel",
    help="Reconstruct what people see, images and video, from fMRI, with scores that can be believed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
datasets_app = typer.Typer(help="Public data sets, by card.", no_args_is_help=True)
app.add_typer(datasets_app, name="datasets")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Settings = Annotated[list[str] | None, typer.Option("--set", "-s", help="A setting, key=value; may be repeated.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from neuroreel import __version__

        typer.echo(f"neuroreel {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Hold the options that all commands share; `main` looks for `--debug` itself."""


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")] = Path("demo"),
    as_json: AsJson = False,
    seed: Seed = 0,
) -> None:
    """Read a movie from a real brain, then from a simulated one, and write the report."""
    from neuroreel.demo import run_demo

    with _progress(as_json) as say:
        page, tables = run_demo(out, seed=seed, progress=say)
    for dataset, table in tables.items():
        _print_table(dataset, table, as_json)
    _say(f"The report is at {page.resolve()}", as_json)
    if as_json:
        typer.echo(json.dumps({name: table.to_dict()["rows"] for name, table in tables.items()}))


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder of the BIDS derivatives to write.")],
    minutes: Annotated[float, typer.Option(help="Minutes of training movie.")] = 40.0,
    size: Annotated[int, typer.Option(help="Height and width of the movie in pixels.")] = 64,
    seed: Seed = 0,
    subjects: Annotated[int, typer.Option(help="Number of subjects.")] = 1,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Write a simulated experiment, movies and brains with known answers, as BIDS derivatives."""
    from neuroreel.simulate.experiment import ExperimentConfig, simulate_experiment

    given = [f"minutes={minutes}", f"size={size}", f"seed={seed}", f"subjects={subjects}", *(settings or [])]
    config = ExperimentConfig.read(None, given)
    with _progress(as_json) as say:
        written = simulate_experiment(out, config, progress=lambda done, total, text: say(f"{text} ({done}/{total})"))
    _done(
        as_json, f"The experiment is at {written.resolve()}", {"folder": str(written), **config.model_dump(mode="json")}
    )


@app.command()
def prepare(
    source: Annotated[
        str, typer.Argument(help="A data set's name, a TOML about arrays, a BIDS folder or a BData file.")
    ],
    target: Annotated[Path, typer.Argument(help="The store to write, by custom *.zarr.")],
    settings: Settings = None,
    cache_frames: Annotated[bool, typer.Option(help="Keep the decoded frames in the store too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read a data set and write it to a store; interrupted work goes on where it was."""
    from neuroreel.datasets.prepare import prepare as write

    with _progress(as_json) as say:
        path = write(
            source,
            target,
            settings=settings or (),
            cache_frames=cache_frames,
            progress=lambda done, total, text: say(f"{text} ({done}/{total})"),
        )
    _done(as_json, f"The store is at {path.resolve()}", {"store": str(path)})


@app.command()
def pretrain(
    stores: Annotated[list[str], typer.Argument(help="Stores that `prepare` wrote; settings, key=value, may follow.")],
    out: Annotated[Path, typer.Option(help="The folder of weights to write; the same call goes on where it was.")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Pre-train a masked autoencoder of brain activity on all runs that no split tests, resting state too.

    Settings are `masked.dim=256`, `loop.steps=5000`, `average_s=7.2`, `split=NAME`, ...; systems begin with the folder.
    """
    from neuroreel.workflow import pretrain_brain

    given = [word for word in stores if "=" in word and not Path(word).exists()]
    paths = [Path(word) for word in stores if word not in given]
    if not paths:
        raise ConfigError(f"stores must be 1 or more, got only settings ({', '.join(given)})")
    with _progress(as_json) as say:
        facts = pretrain_brain(paths, out, [*given, *(settings or [])], progress=say)
    text = f"{len(facts['subjects'])} subjects, loss {facts['loss']:.4f}, {facts['samples_per_s']:.0f} samples/s"
    _done(as_json, f"The weights are in {out.resolve()} ({text})", facts)


@app.command()
def fit(
    store: Annotated[Path, typer.Argument(help="A store that `prepare` wrote.")],
    out: Annotated[Path, typer.Argument(help="The run folder to write.")],
    system: Annotated[list[str], typer.Option("--system", help="A system; may be repeated.")],
    subject: Annotated[str | None, typer.Option(help="Whose brain; needed where there are several.")] = None,
    split: Annotated[str | None, typer.Option(help="A split's name or JSON file.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with the settings of the run.")] = None,
    settings: Settings = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Fit systems on the training side of a split.

    Settings are `window.trs=2`, `clean.detrend_order=4`, ... of the run, or `SYSTEM:key=value` of one system.
    """
    from neuroreel.workflow import RunConfig, fit_systems

    own: dict[str, list[str]] = {}
    given = [f"seed={seed}"]
    for text in settings or []:
        name, colon, rest = text.partition(":")
        if colon and "=" not in name:
            own.setdefault(name, []).append(rest)
        else:
            given.append(text)
    given += [f"subject={json.dumps(subject)}"] * (subject is not None)
    given += [f"split={json.dumps(split)}"] * (split is not None)
    unknown = sorted(set(own) - set(system))
    if unknown:
        raise ConfigError(f"a system's setting must be for one that is fitted ({', '.join(system)}), got {unknown[0]}")
    with _progress(as_json) as say:
        folder = fit_systems(store, system, out, RunConfig.read(config, given), overrides=own, progress=say)
    _done(as_json, f"The run is at {folder.resolve()}", {"run": str(folder), "systems": system})


@app.command()
def reconstruct(
    run: Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.")], as_json: AsJson = False
) -> None:
    """Reconstruct what was seen in the test runs with every system of a run folder."""
    from neuroreel.workflow import reconstruct_systems

    with _progress(as_json) as say:
        made = reconstruct_systems(run, progress=say)
    shapes = {name: None if one.clips is None else list(one.clips.shape) for name, one in made.items()}
    _done(as_json, f"Reconstructions are in {(run / 'reconstructions').resolve()}", {"run": str(run), "clips": shapes})


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Score every system of a run folder, with chance and ceiling beside each score.

    Settings say what learned metrics look through, by hub name, folder or file, and where:
    `embed.image-text=openai/clip-vit-large-patch14`, `embed.image-classifier=world`, `device=cuda`.
    """
    from neuroreel.workflow import ScoringConfig, dataset_of, evaluate_run

    scoring = ScoringConfig.read(None, settings or [])
    with _progress(as_json) as say:
        table = evaluate_run(run, scoring, progress=say)
    name = dataset_of(run)
    _print_table(name, table, as_json)
    if as_json:
        typer.echo(json.dumps({name: table.to_dict()["rows"]}))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a run folder: one page that plays from a file; settings as for `evaluate`."""
    from neuroreel.workflow import ScoringConfig, report_run

    scoring = ScoringConfig.read(None, settings or [])
    with _progress(as_json) as say:
        page = report_run(run, scoring, progress=say)
    _done(as_json, f"The report is at {page.resolve()}", {"report": str(page)})


Probed = Annotated[list[str] | None, typer.Option("--system", help="A system of the run; may be repeated. All else.")]
Metric = Annotated[
    str | None,
    typer.Option(help="The score; pairwise identification unless given, or category accuracy without clips."),
]


@app.command()
def bottleneck(
    run: Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.")],
    system: Probed = None,
    metric: Metric = None,
    dimensions: Annotated[list[int] | None, typer.Option(help="Components kept; may be repeated.")] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Score systems, each fitted anew, against the number of brain dimensions kept; the report then shows it.

    Volumes are projected to the first principal components of the training volumes; settings as for `evaluate`.
    """
    _probe(run, {"bottleneck": dimensions}, system, metric, settings, as_json)


@app.command()
def lesions(
    run: Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.")],
    system: Probed = None,
    metric: Metric = None,
    region: Annotated[list[str] | None, typer.Option(help="A region of the space; may be repeated. All else.")] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Score systems, each fitted anew, without each region and with it alone; the report then shows it.

    Settings as for `evaluate`.
    """
    _probe(run, {"lesions": region}, system, metric, settings, as_json)


@app.command()
def curve(
    run: Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.")],
    system: Probed = None,
    metric: Metric = None,
    minutes: Annotated[
        list[float] | None, typer.Option(help="Minutes of training scan; may be repeated. 1/8 to all else.")
    ] = None,
    repeats: Annotated[
        list[int] | None, typer.Option(help="Repeats of the test averaged; may be repeated. 1, 2, 5, 10, all else.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Score systems against minutes of training scan and test repeats; the report then shows it.

    With minutes or repeats given, the other curve is left out; settings as for `evaluate`.
    """
    both: dict[Kind, list[Any] | None] = {"minutes": minutes, "repeats": repeats}
    wanted = {kind: points for kind, points in both.items() if points} or both
    _probe(run, wanted, system, metric, settings, as_json)


@app.command()
def attention(
    run: Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.")],
    system: Probed = None,
    layer: Annotated[
        list[int] | None,
        typer.Option(help="A block of the encoder, from 0; may be repeated. First, middle, last else."),
    ] = None,
    shuffled: Annotated[bool, typer.Option(help="Fit again on shuffled pairs, whose maps stand beside.")] = True,
    as_json: AsJson = False,
) -> None:
    """Map where the masked encoder of systems looks, by stage of the fit; the report then shows it."""
    from neuroreel.core.attention import regions_or_networks
    from neuroreel.probes import attention_run
    from neuroreel.workflow import open_run

    with _progress(as_json) as say:
        found = attention_run(run, systems=system or (), layers=layer or (), shuffled=shuffled, progress=say)
    regions = regions_or_networks(open_run(run)[0].train.samples.space.rois)
    facts = {name: {"layers": maps.layers, **maps.by_region(regions)} for name, maps in found.items()}
    _done(as_json, f"Maps and figures are in {(run / 'probes').resolve()}", facts)


@datasets_app.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """List the data sets that are known by name."""
    from neuroreel.datasets import STUDIES
    from neuroreel.datasets.cards import known

    cards = [known(name)[0] for name in sorted(STUDIES)]
    if not as_json:
        for card in cards:
            typer.echo(f"{card.name:20} {card.title} ({card.licence})")
        return
    typer.echo(json.dumps([{"name": card.name, "title": card.title, "licence": card.licence} for card in cards]))


@datasets_app.command("info")
def info_dataset(name: Annotated[str, typer.Argument(help="A data set's name.")], as_json: AsJson = False) -> None:
    """Print the card of a data set: address, licence, citation, checksums, facts."""
    from dataclasses import asdict

    from neuroreel.datasets.cards import known

    facts = asdict(known(name)[0])
    if as_json:
        typer.echo(json.dumps(facts, default=str))
        return
    for key, value in facts.items():
        typer.echo(f"{key:10} {value}")


@datasets_app.command("fetch")
def fetch_dataset(name: Annotated[str, typer.Argument(help="A data set's name.")], as_json: AsJson = False) -> None:
    """Fetch a data set's files into the cache, or find them in NEUROREEL_DATA, and check their checksums."""
    from neuroreel.datasets.cards import fetch, known

    with _progress(as_json) as say:
        folder = fetch(known(name)[0], lambda done, total, text: say(f"{text} ({done}/{total})"))
    _done(as_json, f"{name} is in {folder}", {"name": name, "folder": str(folder)})


@datasets_app.command("check")
def check_dataset(name: Annotated[str, typer.Argument(help="A data set's name.")], as_json: AsJson = False) -> None:
    """Read a data set whole and say what is in it."""
    from neuroreel.datasets.cards import study

    with _progress(as_json) as say:
        say(f"reading {name}")
        dataset = study(name).load()
    facts = {
        f"sub-{one.subject}": {"runs": len(one.runs), "voxels": one.space.size, "tr_s": one.runs[0].bold.tr_s}
        for one in dataset.recordings
    }
    text = "; ".join(f"{who}: {one['runs']} runs, {one['voxels']} voxels" for who, one in facts.items())
    _done(as_json, f"{name} is whole: {text}", {"name": name, "subjects": facts})


def _say(text: str, as_json: bool) -> None:
    typer.echo(text, err=as_json)


def _done(as_json: bool, text: str, facts: dict[str, Any]) -> None:
    _say(text, as_json)
    if as_json:
        typer.echo(json.dumps(facts, default=str))


@contextlib.contextmanager
def _progress(as_json: bool) -> Iterator[Callable[[str], None]]:
    """Show what is going on, with the time it takes, on standard error."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=as_json or not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda text: bar.update(task, description=text)


def _probe(
    run: Path,
    kinds: Mapping[Kind, Sequence[Any] | None],
    systems: list[str] | None,
    metric: str | None,
    settings: list[str] | None,
    as_json: bool,
) -> None:
    """Run probes on systems of a run folder and print what they found."""
    from neuroreel.probes import probe_run
    from neuroreel.workflow import ScoringConfig

    scoring = ScoringConfig.read(None, settings or [])
    facts: dict[str, Any] = {}
    for kind, points in kinds.items():
        with _progress(as_json) as say:
            found = probe_run(
                run, kind, systems=systems or (), metric=metric, points=points or (), scoring=scoring, progress=say
            )
        facts[kind] = {name: one.to_dict() for name, one in found.items()}
        if not as_json:
            _print_probe(kind, facts[kind])
    _done(as_json, f"Results and figures are in {(run / 'probes').resolve()}", facts)


def _print_probe(kind: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the results of one probe by system."""
    from rich.console import Console
    from rich.table import Table

    for name, one in found.items():
        shown = Table(title=f"{name}: {kind}, {one['variant']}", title_justify="left")
        if "regions" in one:
            heads = {"region": "regions", "voxels": "voxels", "without it": "without", "with it alone": "only"}
            shown.caption = f"all voxels {_number(one['whole'])}, chance {_number(one['chance'])}"
        else:
            heads = {one["along"]: "x", "value": "values", "low": "low", "high": "high", "chance": "chance"}
        for head in heads:
            shown.add_column(head, justify="left" if head == "region" else "right")
        for row in zip(*(one[key] for key in heads.values()), strict=True):
            shown.add_row(*(cell if isinstance(cell, str) else _cell(cell) for cell in row))
        Console(width=None if sys.stdout.isatty() else 140).print(shown)


def _cell(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() and value > 1 else _number(value)


def _print_table(dataset: str, table: ScoreTable, as_json: bool) -> None:
    """Print the scores of one data set, each with its interval, chance and ceiling, and what was skipped and why."""
    alike: dict[str, list[str]] = {}
    for name, reason in table.skipped.items():
        alike.setdefault(reason, []).append(name)
    skipped = [f"skipped {', '.join(names)}: {reason}" for reason, names in alike.items()]
    if as_json:
        for text in skipped:
            _say(text, as_json)
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=dataset, title_justify="left")
    for name in ("system", "metric", "value", "95 %", "chance", "ceiling", "normalised", "p"):
        shown.add_column(name, justify="left" if name in ("system", "metric") else "right", no_wrap=True)
    for system, scores in table.rows.items():
        for number, (variant, score) in enumerate(scores.items()):
            numbers = score.to_dict()
            interval = f"{_number(numbers['low'])} to {_number(numbers['high'])}"
            cells = [_number(numbers[key]) for key in ("value", "chance", "ceiling", "normalised", "p")]
            mode = f" ({numbers['mode']})" if numbers.get("mode") else ""
            shown.add_row(system + mode if number == 0 else "", variant, cells[0], interval, *cells[1:])
            for control, value in score.controls.items():
                shown.add_row("", f"  the same, {control}", _number(value), *[""] * 5, style="dim")
        shown.add_section()
    Console(width=None if sys.stdout.isatty() else 140).print(shown)
    for text in skipped:
        typer.echo(text)


def _number(value: object) -> str:
    return "-" if not isinstance(value, int | float) else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, NeuroreelWarning):
        typer.echo(f"note: {message}", err=True)


def main() -> None:
    """Run the command line; errors are one sentence and exit code 1."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            app()
        except NeuroreelError as error:
            if "--debug" in sys.argv:
                raise
            typer.echo(f"neuroreel: {error}", err=True)
            sys.exit(1)
        except Exception as error:
            if "--debug" in sys.argv:
                raise
            text = " ".join(str(error).split()) or "no more is known"
            typer.echo(f"neuroreel: unexpected {type(error).__name__}: {text} (--debug shows where)", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            typer.echo(
                "neuroreel: stopped; what was finished is kept, and the same command goes on from there", err=True
            )
            sys.exit(130)
