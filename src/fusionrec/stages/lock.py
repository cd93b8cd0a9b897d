"""One lock for the project: whoever comes through either door, one run works at a time.

The lock is an flock on ``.fusionrec/run.lock``; the kernel drops it with its holder, so a killed run leaves nothing
to clean up.
Beside it ``run.json`` says who holds it. A holder hands a token to its children in the environment, so that
a pipeline run's stages do not wait for their own pipeline.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fusionrec.data.files import named
from fusionrec.errors import Busy, ConfigError
from fusionrec.stages.process import private_home

TOKEN = "FUSIONREC_LOCK_TOKEN"  # noqa: S105  (the variable's name)
WAIT = "FUSIONREC_LOCK_WAIT"


def default_wait() -> float:
    """Seconds to wait for the lock: ``FUSIONREC_LOCK_WAIT``, else 600."""
    text = os.environ.get(WAIT, "600")
    try:
        return max(0.0, float(text))
    except ValueError:
        raise ConfigError(f"{WAIT} must be a number of seconds, found {text!r}") from None


def holder(home: Path) -> dict[str, Any] | None:
    """Who holds the lock now ({"pid", "what", "started"}), or None where it is free."""
    lock = FileLock(home / "run.lock", mode=0o600)
    if not (home / "run.lock").exists():
        return None
    try:
        with lock.acquire(timeout=0):
            return None
    except Timeout:
        return _holder_file(home)


def _holder_file(home: Path) -> dict[str, Any]:
    try:
        found = json.loads((home / "run.json").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


@contextmanager
def project_lock(home: Path, what: str, wait: float) -> Iterator[dict[str, str]]:
    """Hold the project's lock; yields the environment that lets children in.

    ``what`` names the run for the others. Raises Busy naming the holder when the lock is not free
    within ``wait`` seconds.
    """
    private_home(home)
    lock = FileLock(home / "run.lock", mode=0o600)
    token = os.environ.get(TOKEN, "")
    deadline = time.monotonic() + wait
    told = False
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            found = _holder_file(home)
        if token and secrets.compare_digest(token, str(found.get("token", ""))):
            yield {TOKEN: token}  # the parent holds it for us
            return
        if time.monotonic() >= deadline:
            raise Busy(
                f"{found.get('what', 'another run')} (pid {found.get('pid', 'unknown')}, since "
                f"{found.get('started', 'unknown')}) holds the project; waited {wait:.0f} s. Wait for it, or stop it "
                f"with: kill {found.get('pid', 'PID')}"
            )
        if not told:
            told = True
            sys.stderr.write(
                f"waiting up to {wait:.0f} s for {found.get('what', 'another run')} (pid {found.get('pid')})\n"
            )
        time.sleep(0.2)
    try:
        token = secrets.token_hex(16)
        _write_holder(
            home,
            {
                "pid": os.getpid(),
                "what": what,
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "token": token,
            },
        )
        yield {TOKEN: token}
    finally:
        (home / "run.json").unlink(missing_ok=True)
        lock.release()


@contextmanager
def folder_lock(home: Path, folder: Path, what: str, wait: float = 0.0) -> Iterator[None]:
    """Hold one folder that is read or replaced as a whole, where the project's lock would be too much.

    Raises Busy naming the holder where the folder is not free within ``wait`` seconds.
    """
    place = private_home(home) / "folders"
    place.mkdir(mode=0o700, exist_ok=True)
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    lock, about = FileLock(place / f"{name}.lock", mode=0o600), place / f"{name}.txt"
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        try:
            held = about.read_text(encoding="utf-8")
        except OSError:
            held = "another command"
        raise Busy(f"{held} is at work on {folder}; try again when it has ended") from None
    try:
        about.write_text(f"{what} (pid {os.getpid()})", encoding="utf-8")
        yield
    finally:
        about.unlink(missing_ok=True)
        lock.release()


def _write_holder(home: Path, value: dict[str, Any]) -> None:
    temporary = home / f"run.json.{os.getpid()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        with named(home / "run.json"), os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.replace(temporary, home / "run.json")
    finally:
        temporary.unlink(missing_ok=True)
