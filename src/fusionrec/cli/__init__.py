"""The command line. Every command imports what it needs when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from difflib import get_close_matches

import typer

from fusionrec.cli import catalogue, models, pipeline, searching, upkeep  # noqa: F401  (they register their commands)
from fusionrec.cli.root import app, project
from fusionrec.errors import FusionrecError, UsageError

INTERRUPTED = 130  # what Typer makes of KeyboardInterrupt, without a word


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code (design: 0, 1, 2, 3, 4, 5, 69, 75, 78, 130, 143)."""
    from fusionrec.stages.process import harden, on_sigterm
    from fusionrec.stages.runner import guarded
    from fusionrec.threads import wait_briefly

    harden()
    wait_briefly()
    on_sigterm()
    arguments = sys.argv[1:] if arguments is None else arguments

    def action() -> int:
        try:
            result = app(args=arguments, standalone_mode=False)
        except SystemExit as stop:
            if isinstance(stop.__context__, BrokenPipeError):  # Typer makes it an exit with 1
                raise stop.__context__ from None
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except typer.Abort as stop:  # Typer makes it of EOFError, which is what a torn file gives
            raise stop.__cause__ or KeyboardInterrupt from None
        except Exception as error:
            usage = _usage(error)
            if usage is None:
                raise
            raise usage from None
        sys.stdout.flush()  # here, a pipe that nobody reads is told as such
        if result == INTERRUPTED:
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0

    return guarded("cli", action, lambda: project().home)


def _usage(error: Exception) -> FusionrecError | None:
    """A mistake on the command line as UsageError with the nearest command; None for anything else."""
    message = getattr(error, "format_message", None)
    if message is None or not hasattr(error, "exit_code"):
        return None
    text = str(message()).strip()
    wrong = text.split("'")[1] if text.startswith("No such command") and "'" in text else None
    if wrong:
        group = getattr(getattr(error, "ctx", None), "command", None)
        near = get_close_matches(wrong, list(getattr(group, "commands", ())), 1)
        text = f"no command {wrong!r}" + (f" (did you mean {near[0]!r}?)" if near else "") + "; see fusionrec --help"
    return UsageError(text or "see fusionrec --help")
