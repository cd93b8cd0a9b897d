"""DVC as a child: ``python -m fusionrec.stages.reproduce [--single-item] [--force] [ADDRESS ...]``.

What ``dvc repro`` does, with three differences: it dies with its parent, it waits for DVC's own short lock instead of
failing
(somebody may be looking at ``dvc status``), and it ends with the exit code of the stage that failed, not with 255.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fusionrec.errors import ConfigError, FusionrecError
from fusionrec.paths import Paths
from fusionrec.stages.process import child_environment, die_with_parent, harden, on_sigterm
from fusionrec.stages.runner import LABELS, LAST_LINE, fail, guarded
from fusionrec.stages.stale import Step


def command(addresses: Sequence[str] = (), *, single_item: bool = False, force: bool = False) -> list[str]:
    """The argument list that starts this module; never a shell string."""
    flags = [*(["--single-item"] if single_item else []), *(["--force"] if force else [])]
    return [sys.executable, "-m", "fusionrec.stages.reproduce", *flags, "--", *addresses]


def start(
    project: Path, home: Path, arguments: Sequence[str], extra: dict[str, str], *, capture: bool
) -> subprocess.Popen[str]:
    """Start ``arguments`` in its own process group; with ``capture`` stdout and stderr come as one text stream."""
    stream = subprocess.PIPE if capture else None
    return subprocess.Popen(  # noqa: S603  (a list, no shell; addresses are checked against the plan)
        list(arguments),
        cwd=project,
        env=child_environment(home, extra),
        text=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=stream,
        stderr=subprocess.STDOUT if capture else None,
        start_new_session=True,
    )


def stop(child: subprocess.Popen[str], grace: float = 3.0) -> None:
    """End the child's whole process group: SIGTERM, then SIGKILL after ``grace`` seconds. Safe to call on a dead
    child."""
    import contextlib
    import os
    import signal

    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
        if child.poll() is not None and number == signal.SIGTERM and not _group_alive(child.pid):
            return


def _group_alive(group: int) -> bool:
    """Whether any live (non-zombie) process of this group is left, after giving it a moment to go."""
    import time

    from fusionrec.stages.process import group_members

    for _ in range(20):
        if not group_members(group):
            return False
        time.sleep(0.1)
    return True


def single(
    paths: Paths, step: Step, token: dict[str, str], force: bool = False, on_line: Callable[[str], None] = print
) -> str:
    """Reproduce one stale stage in a child process group; returns "Ran", "RunCache" or "Skipped".

    Every output line goes to ``on_line``. Raises the error class of the child's exit code with its one-line cause.
    However this ends,
    no process of the group is left.
    """
    child = start(
        paths.project, paths.home, command([step.address], single_item=True, force=force), token, capture=True
    )
    last, cause, text = "", "", ""
    try:
        for line in child.stdout or ():
            line = line.rstrip()
            if not line:
                continue
            on_line(line)
            text += line + "\n"
            found = LAST_LINE.search(line)
            cause = found[2] if found else cause
            last = line
        code = child.wait()
    finally:
        stop(child)
        if child.stdout is not None:
            child.stdout.close()
    if code:
        raise error_of(
            code, f"{step.address}: {cause or last or 'no output'} (exit {code if code > 0 else 128 - code})"
        )
    if "is cached - skipping run" in text:
        return "RunCache"
    return "Skipped" if "didn't change, skipping" in text else "Ran"


def error_of(code: int, message: str) -> FusionrecError:
    """The member of the error family with this exit code; the base class (a bug) for any other."""
    family: list[type[FusionrecError]] = FusionrecError.__subclasses__()
    return next((kind for kind in family if kind.exit_code == code), FusionrecError)(message)


def reproduce(addresses: Sequence[str], single_item: bool, force: bool) -> int:
    """Reproduce in this process; returns the failed stage's exit code, or 0."""
    from dvc.exceptions import DvcException, ReproductionError
    from dvc.repo import Repo

    try:
        with Repo(_wait_for_lock=True) as repo:
            repo.reproduce(targets=list(addresses) or None, single_item=single_item, force=force)
    except ReproductionError as error:
        causes = []
        cause: BaseException | None = error
        while cause is not None:
            causes.append(str(cause))
            cause = cause.__cause__
        exited = re.search(r"exited with (-?\d+)", causes[-1])
        code = int(exited[1]) if exited else 1
        if code in LABELS and exited:
            return code  # the stage has said why, and its line stays the last
        return fail(code if code > 0 else 128 - code, ": ".join(causes))
    except DvcException as error:
        raise ConfigError(str(error)) from None
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the module; the exit code."""
    harden()
    on_sigterm()
    die_with_parent()
    parser = argparse.ArgumentParser(prog="fusionrec.stages.reproduce")
    parser.add_argument("--single-item", action="store_true")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("addresses", nargs="*")
    given = parser.parse_args(arguments)
    return guarded("reproduce", lambda: reproduce(given.addresses, given.single_item, given.force), _home)


def _home() -> Path:
    return Paths.find().home


if __name__ == "__main__":
    sys.exit(main())
