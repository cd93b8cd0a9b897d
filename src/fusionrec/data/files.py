"""Atomic writes: a temporary sibling, fsync, rename. Nothing partial is ever visible under a final name."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``, or leave what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with named(path), open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """What fails in the block for want of space says where: an error of ``write`` names no file by itself."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def to_json(value: Any) -> bytes:
    """The one JSON form of the contract files: UTF-8, sorted keys, indent 1, newline at the end."""
    return (json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False) + "\n").encode("utf-8")


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, to_json(value))


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """Yield an empty sibling folder that takes ``target``'s place when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in target.parent.glob(f".{target.name}.*.tmp"):  # of a run that was killed
        shutil.rmtree(stale, ignore_errors=True)
    token = secrets.token_hex(4)
    building, old = (target.with_name(f".{target.name}.{token}{end}.tmp") for end in ("", "-old"))
    building.mkdir()
    try:
        yield building
        if target.exists():
            os.rename(target, old)
        os.rename(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
