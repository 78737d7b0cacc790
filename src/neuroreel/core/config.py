"""Settings: frozen, validated, read from TOML and `key=value`, saved beside what they made."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from neuroreel.core.checks import sentence
from neuroreel.core.errors import ConfigError
from neuroreel.core.files import write_text


class Config(BaseModel):
    """Base of every config: it can't be changed, and an unknown key is an error that lists the known ones.

    TOML and `key=value` have no word for None; a setting that may be None, and no text, is None as `none`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _take_none(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        kinds = {name: get_args(cls.model_fields[name].annotation) for name in values if name in cls.model_fields}
        may_be = {name for name, kind in kinds.items() if NoneType in kind and str not in kind}
        return {
            name: None if name in may_be and isinstance(value, str) and value == "none" else value
            for name, value in values.items()
        }

    @classmethod
    def build(cls, values: Mapping[str, Any] | None = None, source: str | Path | None = None) -> Self:
        """Return the config of the given values.

        Raises
        ------
        ConfigError
            In one sentence: an unknown key with the known ones listed, or a value that breaks a rule.
        """
        try:
            return cls.model_validate(dict(values or {}))
        except ValidationError as error:
            raise ConfigError(cls._explain(error, source)) from None

    @classmethod
    def read(cls, file: str | Path | None = None, overrides: Sequence[str] = ()) -> Self:
        """Return the config of a TOML file and `key=value` overrides, which may be dotted (`window.trs=2`).

        Raises
        ------
        ConfigError
            If the file is missing or no TOML, an override has no `=`, or as in `build`.
        """
        values = read_toml(file) if file is not None else {}
        for override in overrides:
            key, value = parse_override(override)
            place = values
            *path, last = key.split(".")
            for name in path:
                place = place.setdefault(name, {})
                if not isinstance(place, dict):
                    raise ConfigError(sentence(name, "must be a table to hold a dotted key", repr(override)))
            place[last] = value
        return cls.build(values, file)

    def save(self, file: Path) -> None:
        """Write the config as JSON."""
        write_text(file, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, file: Path) -> Self:
        """Return the config that `save` wrote."""
        try:
            values = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(sentence("config", "must be a JSON file", type(error).__name__, file)) from None
        return cls.build(values, file)

    @classmethod
    def _explain(cls, error: ValidationError, source: str | Path | None) -> str:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _known_keys(cls, first["loc"])
            return sentence("config key", f"must be one of {', '.join(known)}", repr(place), source)
        rule = first["msg"].removeprefix("Value error, ")
        rule = rule[:1].lower() + rule[1:]
        return sentence(place or "config", f"is wrong: {rule}", repr(first.get("input")), source)


def _known_keys(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that stand where an unknown one was given."""
    model: Any = cls
    for part in loc[:-1]:
        field = getattr(model, "model_fields", {}).get(str(part))
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        models = [kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            break
        model = models[0]
    return sorted(model.model_fields)


def read_toml(file: str | Path) -> dict[str, Any]:
    """Return what a TOML file holds; a missing or broken one is one sentence."""
    try:
        with Path(file).open("rb") as stream:
            return tomllib.load(stream)
    except OSError:
        raise ConfigError(sentence("config file", "must be a readable file", repr(str(file)))) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(sentence("config file", "must be TOML", str(error), file)) from None


def parse_override(text: str) -> tuple[str, Any]:
    """Return the key and the value of `key=value`; a value that is no TOML value is taken as text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(sentence("setting", "must have the form key=value", repr(text)))
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value
