import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neuroreel.cli import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs the command line and returns exit code, standard output and standard error."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["neuroreel", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
            sys.exit(0)
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a TOML file that describes two runs of arrays: pictures, and voxels that see them 4 s late."""
    folder = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, size=(80, 6, 6, 3), dtype=np.uint8)
    bold = np.zeros((80, 20), dtype=np.float32)
    bold[2:] = (frames.reshape(80, -1) / 255.0 @ rng.normal(size=(108, 20)))[:-2]
    bold += rng.normal(size=bold.shape)
    np.savez(folder / "mine.npz", bold=bold, frames=frames, runs=np.repeat(["a", "b"], 40))
    text = 'name = "mine"\nfile = "mine.npz"\nbold = "bold"\nframes = "frames"\nruns = "runs"\ntr_s = 2.0\n'
    (folder / "mine.toml").write_text(text)
    return folder / "mine.toml"


def test_the_whole_road_runs_from_the_command_line(call: Call, arrays: Path, tmp_path: Path) -> None:
    store, run = tmp_path / "mine.zarr", tmp_path / "run"
    code, out, err = call("prepare", arrays, store)
    assert code == 0 and str(store) in out, err
    code, _, err = call(
        "fit", store, run, "--system", "mean-frame", "--system", "ridge-latents", "--split", "leave-out-b"
    )
    assert code == 0, err
    code, out, _ = call("reconstruct", run, "--json")
    assert json.loads(out.splitlines()[-1])["clips"]["ridge-latents"][1:] == [1, 6, 6, 3]
    code, out, _ = call("evaluate", run, "--json")
    scores = json.loads(out.splitlines()[-1])["mine"]
    assert set(scores) == {"mean-frame", "ridge-latents"}
    keys = {"value", "chance", "ceiling", "normalised", "low", "high", "p"}
    assert keys <= set(scores["ridge-latents"]["identification:pairwise"])
    code, out, _ = call("evaluate", run)
    assert code == 0 and "identification:pairwise" in out
    code, out, _ = call("report", run)
    assert code == 0 and (run / "report" / "index.html").is_file()


def test_probes_run_from_the_command_line(call: Call, arrays: Path, tmp_path: Path) -> None:
    store, run = tmp_path / "mine.zarr", tmp_path / "run"
    call("prepare", arrays, store)
    call("fit", store, run, "--system", "mean-frame", "--split", "leave-out-b")
    code, out, err = call("bottleneck", run, "--dimensions", "2", "--dimensions", "5", "--json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])["bottleneck"]["mean-frame"]
    assert found["x"] == [2, 5, 20] and found["values"] == pytest.approx([0.5] * 3)
    code, out, _ = call("curve", run, "--minutes", "1", "--metric", "mse")
    assert code == 0 and "minutes of training scan" in out
    code, _, err = call("lesions", run)
    assert code == 1 and err.endswith("regions must be known of the voxels to be removed, got none (mine)\n")
    code, _, err = call("attention", run, "--no-shuffled")
    assert code == 1 and "systems must include one with a masked encoder, got mean-frame" in err
    code, _, err = call("curve", run, "--repeats", "2")
    assert code == 1 and "test stimuli must be repeated and their repeats averaged, got none (mine)" in err


@pytest.fixture
def videomae(tmp_path: Path) -> Path:
    """Return a folder of a small classifier of clips, as transformers writes it."""
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = transformers.VideoMAEConfig(**sizes, image_size=16, patch_size=8, num_frames=4, num_labels=60)
    square = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    transformers.VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "videomae")
    transformers.VideoMAEImageProcessorPil(**square).save_pretrained(tmp_path / "videomae")
    return tmp_path / "videomae"


def test_learned_metrics_see_through_the_networks_that_are_named(
    call: Call, arrays: Path, videomae: Path, tmp_path: Path
) -> None:
    store, run = tmp_path / "mine.zarr", tmp_path / "run"
    call("prepare", arrays, store)
    call("fit", store, run, "--system", "mean-frame", "--split", "leave-out-b")
    code, out, err = call("evaluate", run, "--json")
    assert code == 0 and not any(name.startswith("nway") for name in json.loads(out)["mine"]["mean-frame"])
    reason = (
        "embed['image-classifier'] must be a network, such as the one in google/vit-base-patch16-224/model.safetensors"
    )
    assert f"skipped nway2:top1, nway2:top3-compat, nway50:top1, nway50:top3-compat: {reason}, got none" in err
    named = ("-s", f"embed.video-classifier={videomae}", "-s", "embed.image-classifier=world")
    code, out, err = call("evaluate", run, *named, "--json")
    scores = json.loads(out)["mine"]["mean-frame"]
    nway = {name.partition("@")[0]: score for name, score in scores.items() if name.startswith("nway")}
    wanted = {f"{kind}:{form}" for kind in ("nway2", "nway-video2", "nway-video50") for form in ("top1", "top3-compat")}
    assert set(nway) == wanted
    assert nway["nway-video50:top3-compat"]["rows"]["analytic"] == pytest.approx(3 / 52)
    assert "skipped nway50:top1: the classes of alexnet-world must be at least 50, got 40" in err


def test_settings_go_to_the_run_or_to_one_system(call: Call, arrays: Path, tmp_path: Path) -> None:
    store, run = tmp_path / "mine.zarr", tmp_path / "run"
    call("prepare", arrays, store)
    own = ("--split", "leave-out-b", "-s", "window.trs=2", "-s", "ridge-latents:components=5")
    code, _, err = call("fit", store, run, "--system", "ridge-latents", *own)
    assert code == 0, err
    saved = json.loads((run / "systems" / "ridge-latents" / "model" / "config.json").read_text())
    assert saved["components"] == 5
    code, _, err = call("fit", store, run, "--system", "mean-frame", "-s", "ridge-latents:components=5")
    assert code == 1 and "a system's setting must be for one that is fitted (mean-frame), got ridge-latents" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("prepare", "nothing", "x.zarr"), "source must be a TOML file, a BIDS or HCP folder"),
        (("fit", "nothing.zarr", "run", "--system", "mean-frame"), "store must be"),
        (("fit", "nothing.zarr", "run", "--system", "ridge"), "system must be one of"),
        (("evaluate", "nothing"), "run must be a folder that `neuroreel fit` wrote, got no run.json"),
        (("evaluate", "nothing", "-s", "embed.sound=world"), "embed role must be one of alexnet2, alexnet5, "),
        (
            ("evaluate", "nothing", "-s", "window.trs=2"),
            "config key must be one of device, embed, metrics, got 'window'",
        ),
        (("datasets", "info", "nothing"), "data set must be one of cc2017, haxby2001-slice, szinte2024, got 'nothing'"),
        (("simulate", "out", "-s", "noise=3"), "config key must be one of blind, ceilings, "),
        (("simulate", "out", "--minutes", "-1"), "minutes is wrong: input should be greater than 0, got -1"),
    ],
)
def test_a_user_error_is_one_sentence_and_exit_1(
    call: Call, words: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*words)
    assert code == 1 and out == ""
    assert len(err.splitlines()) == 1 and err.startswith("neuroreel: ") and sentence in err
    assert not list(tmp_path.iterdir())


def test_debug_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from neuroreel.core.errors import StoreError

    monkeypatch.setattr(sys, "argv", ["neuroreel", "--debug", "evaluate", str(tmp_path)])
    with pytest.raises(StoreError):
        main()


def test_even_what_nobody_foresaw_is_a_sentence(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("neuroreel.datasets.cards.known", fail)
    code, _, err = call("datasets", "info", "szinte2024")
    assert code == 1 and err == "neuroreel: unexpected RuntimeError: first second (--debug shows where)\n"


def test_wrong_usage_is_exit_2(call: Call) -> None:
    assert call("prepare")[0] == 2
    assert call("dream")[0] == 2


def test_the_module_is_the_same_program_and_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['neuroreel', '--help']\n"
        "import runpy, atexit\n"
        "heavy = {'torch', 'scipy', 'sklearn', 'nilearn', 'pandas', 'zarr', 'matplotlib', 'diffusers'}\n"
        "atexit.register(lambda: print('HEAVY', sorted(heavy & set(sys.modules))))\n"
        "runpy.run_module('neuroreel', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Reconstruct what people see" in done.stdout
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_the_cards_are_listed_and_shown(call: Call) -> None:
    code, out, _ = call("datasets", "list", "--json")
    assert code == 0 and "szinte2024" in [card["name"] for card in json.loads(out)]
    code, out, _ = call("datasets", "info", "szinte2024")
    assert code == 0 and "MIT" in out and "8d879d35" not in out
    code, out, _ = call("--version")
    assert code == 0 and out.startswith("neuroreel 0.")
