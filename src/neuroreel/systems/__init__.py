"""Where stages meet: one file per published system, and the baselines; found by name through entry points."""

from __future__ import annotations

from importlib.metadata import entry_points

from neuroreel.core import checks
from neuroreel.core.errors import ConfigError
from neuroreel.core.system import System

GROUP = "neuroreel.systems"


def system_names() -> tuple[str, ...]:
    """Return the names of all systems, ours and those that other packages bring, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def find_system(name: str) -> type[System]:
    """Return the class of a system.

    Raises
    ------
    ConfigError
        If no package brings one of that name (the known ones are listed), or it can't be imported.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    checks.one_of("system", name, points)
    try:
        found = points[name].load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(checks.sentence(f"system {name}", "must be importable", reason)) from error
    return found
