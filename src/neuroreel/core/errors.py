"""The errors of neuroreel: each is one sentence with the name, the rule, the value got and the file."""

from __future__ import annotations


class NeuroreelError(Exception):
    """Base of every error that a user can cause; its text is one sentence that says what to do."""


class DataError(NeuroreelError):
    """A file or an array breaks a rule that the data must keep."""


class ConfigError(NeuroreelError):
    """A setting is unknown, missing or out of its range."""


class LeakageError(NeuroreelError):
    """What is to be fitted overlaps with what is to be tested."""


class FetchError(NeuroreelError):
    """A public file could not be had, or is not the one whose checksum is known."""


class StoreError(NeuroreelError):
    """A store is missing, half-written or of another layout."""


class NeuroreelWarning(UserWarning):
    """Something was left out or mended, and the result stands: it is counted and said."""
