"""Files that are whole or not there: atomic writes, checksums, paths that stay inside their folder."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from neuroreel.core.checks import require, sentence
from neuroreel.core.errors import DataError, NeuroreelError


@contextmanager
def atomic(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write to; it takes the target's name only when the block ends well.

    Works for a file and for a folder. After an error, or a kill, the old target is as it was.

    Raises
    ------
    DataError
        In one sentence, if the disk is full or the folder can't be written.
    """
    target = Path(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if partial.is_dir() and target.is_dir():
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.replace(target)
    except OSError as error:
        raise write_error(error, target) from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        elif partial.exists():  # not where a folder above is a file, which has been said by now
            partial.unlink(missing_ok=True)


def write_error(error: OSError, target: Path) -> NeuroreelError:
    """Return the sentence for an operating-system error while writing."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(sentence("disk", "must have room for the output", "no space left", target))
    reason = (error.strerror or type(error).__name__).lower()
    return DataError(sentence("output", "must be writable", reason, target))


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(file) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256(file: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(parts: Sequence[str | np.ndarray]) -> str:
    """Return the SHA-256 of texts and arrays, one behind the other, as hexadecimal text."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
        else:
            plain = part.astype(str) if part.dtype.kind in "OT" else part  # texts, not where they lie in memory
            digest.update(f"{plain.dtype} {plain.shape}".encode())
            digest.update(np.ascontiguousarray(plain).view(np.uint8).data)
        digest.update(b"\0")
    return digest.hexdigest()


def inside(folder: Path, member: str, source: str | Path | None = None) -> Path:
    """Return folder / member if it stays inside the folder, else raise DataError.

    For archive members and paths from manifests.
    """
    relative = PurePosixPath(member.replace("\\", "/"))
    ok = not relative.is_absolute() and ".." not in relative.parts and not (len(member) > 1 and member[1] == ":")
    path = Path(folder) / Path(*relative.parts)
    ok = ok and path.resolve().is_relative_to(Path(folder).resolve())
    require(ok, "path", "must stay inside its folder", repr(member), source)
    return path
