"""The command line. Every command imports what it needs when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from fusionrec.errors import FusionrecError, UsageError

app = typer.Typer(
    name="fusionrec", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="From a catalogue with pictures, words, sounds and clips to a registered multimodal recommender.",
)
config_app = typer.Typer(no_args_is_help=True, help="Show or check params.yaml.")
app.add_typer(config_app, name="config")


def _paths() -> Any:
    from fusionrec.paths import Paths
    from fusionrec.stages.process import private_home

    paths = Paths.find()
    private_home(paths.home)
    return paths


@app.command()
def run(
    stage: Annotated[str, typer.Argument(help="ingest, validate, split, embed, train, evaluate, bundle, register or promote")],
    modality: Annotated[str | None, typer.Option(help="for embed: which modality of params.yaml")] = None,
    wait: Annotated[float | None, typer.Option(help="seconds to wait for another run; default FUSIONREC_LOCK_WAIT or 600")] = None,
) -> None:
    """Run one stage now, whatever is up to date (what DVC calls)."""
    from fusionrec.stages.runner import main as run_main

    raise SystemExit(run_main(stage, modality, wait))


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code (design: 0, 1, 2, 3, 4, 5, 69, 75, 78, 130, 143)."""
    from fusionrec.stages.process import harden, on_sigterm
    from fusionrec.stages.runner import fail, guarded

    harden()
    on_sigterm()
    arguments = sys.argv[1:] if arguments is None else arguments

    def action() -> int:
        try:
            result = app(args=arguments, standalone_mode=False)
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except Exception as error:
            usage = _usage(error)
            if usage is None:
                raise
            raise usage from None
        return result if isinstance(result, int) else 0

    del fail
    return guarded("cli", action, lambda: _paths().home)


def _usage(error: Exception) -> FusionrecError | None:
    """A mistake on the command line as UsageError with the nearest command; None for anything else."""
    message = getattr(error, "format_message", None)
    if message is None or not hasattr(error, "exit_code"):
        return None
    text = str(message()).strip()
    wrong = text.split("'")[1] if text.startswith("No such command") and "'" in text else None
    if wrong:
        names = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
        near = get_close_matches(wrong, names, 1)
        text = f"no command {wrong!r}" + (f" (did you mean {near[0]!r}?)" if near else "") + "; see fusionrec --help"
    return UsageError(text or "see fusionrec --help")


__all__ = ["Path", "app", "main"]
