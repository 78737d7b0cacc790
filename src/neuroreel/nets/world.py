"""The networks of the simulated world that ship with the package: where they lie, checked by SHA-256, opened.

`weights/world` is laid out as a `StableDiffusionPipeline`, with the whole CLIP model and the classifiers beside it;
`weights/alexnet-world` is an AlexNet alone. A card in each says what it is and has the SHA-256 of every file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.core.files import inside, sha256

if TYPE_CHECKING:
    from neuroreel.nets.alexnet import AlexNet, AlexNetConfig
    from neuroreel.nets.residual import ResidualNet

SHIPPED = Path(__file__).parents[1] / "weights"
WORLD = SHIPPED / "world"
ALEXNET = SHIPPED / "alexnet-world"


def read_card(folder: str | Path | None = None) -> dict[str, Any]:
    """Return what is known of the world's weights: every part's files with SHA-256, how it was trained and measured.

    Raises
    ------
    ConfigError : the folder has no card.
    """
    file = Path(folder or WORLD) / "card.json"
    checks.require(file.is_file(), "world weights", "must be a folder with a card", "no card.json", file, ConfigError)
    return json.loads(file.read_text())


def check_part(folder: Path, card: dict[str, Any], part: str) -> Path:
    """Return the folder of a part of the world's weights, its files checked.

    Raises
    ------
    ConfigError : the part isn't in the card.
    DataError : a file of the part is missing or has another SHA-256 than the card says; the part is named.
    """
    checks.one_of("weights part", part, card["parts"], folder)
    for name, digest in card["parts"][part]["files"].items():
        file = inside(folder, name, folder / "card.json")
        checks.require(file.is_file(), f"weights part {part}", f"must have the file {name}", "none", folder)
        got = sha256(file)
        checks.require(got == digest, f"weights part {part}", f"must have the SHA-256 {digest}", got, file)
    return folder / part


def read_classifier(folder: Path) -> ResidualNet:
    """Return a classifier of pictures or clips from the folder of its part."""
    from neuroreel.nets.residual import ResidualConfig, ResidualNet

    return ResidualNet.load(folder / "weights.safetensors", ResidualConfig.load(folder / "config.json"))


def alexnet_card() -> dict[str, Any]:
    """Return what is known of the shipped AlexNet: config, SHA-256, classes, held-out accuracy, how it was made."""
    card = ALEXNET / "card.json"
    checks.require(card.is_file(), "shipped weights", "must be installed", "no card", card, ConfigError)
    return json.loads(card.read_text())


def alexnet_config() -> AlexNetConfig:
    """Return the settings of the shipped AlexNet."""
    from neuroreel.nets.alexnet import AlexNetConfig

    return AlexNetConfig.build(alexnet_card()["config"], ALEXNET / "card.json")


def load_alexnet(overrides: dict[str, str | int | float] | None = None) -> AlexNet:
    """Return the shipped AlexNet, its file checked by SHA-256.

    Raises
    ------
    ConfigError : settings are given that differ from the shipped ones.
    DataError : the file is corrupt.
    """
    from neuroreel.nets.alexnet import AlexNet

    config = alexnet_config()
    own = config.model_dump()
    for key, value in (overrides or {}).items():
        checks.one_of("network setting", key, own)
        rule = f"must be {own[key]} for the shipped weights"
        checks.require(value == own[key], key, rule, value, error=ConfigError)
    return AlexNet.load(ALEXNET / "weights.safetensors", config, str(alexnet_card()["sha256"]))
