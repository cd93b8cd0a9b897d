"""What every process of the project does first: private files, no telemetry, and dying with its parent.

The parent of a stage is ``dvc repro``. DVC killed with SIGKILL leaves its stage running, and a stage that nobody
waits for would write into a folder that the next run owns. Linux can signal a child when its parent dies
(``prctl(PR_SET_PDEATHSIG)``); a watching thread covers what that misses: a shell between the two, and a main
thread deep inside native code that cannot run its signal handler.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_PR_SET_PDEATHSIG = 1
_SHELLS = {"sh", "dash", "bash", "zsh", "fish", "ksh", "busybox"}


class Terminated(BaseException):
    """SIGTERM arrived; unwinds like KeyboardInterrupt so that temporary files are removed."""


def harden() -> None:
    """umask 077 and telemetry off, for this process and its children."""
    os.umask(0o077)
    os.environ.update(TELEMETRY_OFF)


def private_home(home: Path) -> Path:
    """Make the home and DVC's site cache in it, readable by their owner alone (also where DVC made them before us)."""
    for folder in (home, home / "dvc-site"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
    return home


def child_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child: this interpreter first on PATH, private DVC site cache, telemetry off."""
    bin_folder = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    return {
        **os.environ,
        **TELEMETRY_OFF,
        "PATH": path if path.split(os.pathsep)[0] == bin_folder else bin_folder + os.pathsep + path,
        "FUSIONREC_HOME": str(home),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }


def on_sigterm() -> None:
    """Turn SIGTERM into :class:`Terminated` and SIGINT into KeyboardInterrupt, even where they were inherited as
    ignored."""

    def terminate(signum: int, frame: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def die_with_parent(grace: float = 2.0) -> None:
    """SIGTERM for this process when its parent dies, SIGKILL for it and its children ``grace`` seconds later.

    A shell between this process and the real parent is watched as well. Call from the main thread, early.
    """
    watched = _ancestors()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    threading.Thread(target=_watch, args=(watched, grace), name="parent-watch", daemon=True).start()


def _ancestors() -> list[tuple[int, str]]:
    """The parent, and the grandparent where the parent is a shell, each with its start time."""
    found: list[tuple[int, str]] = []
    pid = os.getppid()
    while pid > 1:
        stat = _stat(pid)
        if stat is None:
            break
        name, parent, start = stat
        found.append((pid, start))
        if name not in _SHELLS:
            break
        pid = parent
    return found[:2]


def _stat(pid: int) -> tuple[str, int, str] | None:
    """(command name, parent, start time in ticks) of a live process, from /proc; None where it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else (name, int(fields[1]), fields[19])


def alive(pid: int) -> bool:
    """Whether a process with this id exists and is no zombie."""
    return _stat(pid) is not None


def _watch(watched: list[tuple[int, str]], grace: float) -> None:
    if not watched:
        return
    while all((stat := _stat(pid)) is not None and stat[2] == start for pid, start in watched):
        time.sleep(0.5)
    with contextlib.suppress(ProcessLookupError):
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    for pid in [*descendants(os.getpid()), os.getpid()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def descendants(root: int) -> list[int]:
    """Every live process below ``root``, deepest last."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (stat := _stat(int(folder.name))) is not None:
            parents[int(folder.name)] = stat[1]
    found, queue = [], [root]
    while queue:
        parent = queue.pop()
        children = [pid for pid, owner in parents.items() if owner == parent]
        found += children
        queue += children
    return found


def group_members(group: int) -> list[int]:
    """The live processes of a process group."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and _stat(int(folder.name)) is not None:
            try:
                if os.getpgid(int(folder.name)) == group:
                    found.append(int(folder.name))
            except ProcessLookupError:
                continue
    return found


def private_site_cache(project: Path, home: Path) -> None:
    """Point DVC's site cache into the home, for a bare ``dvc`` too.

    DVC's default is a folder that everyone may write to and that it unpickles from. The path is absolute and so
    belongs in
    .dvc/config.local, which git ignores; it is rewritten when the project has moved.
    """
    import configparser

    folder = project / ".dvc"
    # A home that the environment names is not the project's to keep.
    if not folder.is_dir() or home != project / ".fusionrec":
        return
    local, wanted = folder / "config.local", str(home / "dvc-site")
    config = configparser.ConfigParser(interpolation=None)
    config.read(local, encoding="utf-8")
    if config.get("core", "site_cache_dir", fallback=None) == wanted:
        return
    if not config.has_section("core"):
        config.add_section("core")
    config.set("core", "site_cache_dir", wanted)
    temporary = folder / f"config.local.{os.getpid()}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        config.write(file)
    os.replace(temporary, local)
