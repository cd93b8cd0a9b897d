"""What every command uses: the application, the project it is called in, and how it talks."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from fusionrec.config import Params
    from fusionrec.paths import Paths

app = typer.Typer(
    name="fusionrec",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From a catalogue with pictures, words, sounds and clips to a registered multimodal recommender.",
)


def project() -> Paths:
    """The project, with its private home and DVC's private site cache in place."""
    from fusionrec.paths import Paths
    from fusionrec.stages.process import private_home, private_site_cache

    paths = Paths.find()
    private_home(paths.home)
    private_site_cache(paths.project, paths.home)
    os.environ["DVC_SITE_CACHE_DIR"] = str(paths.home / "dvc-site")
    return paths


def params_of(paths: Paths, whole: bool = False) -> Params:
    """The project's params.yaml, validated; ``whole``: also that the pipeline can run by it."""
    from fusionrec import config

    return config.load(paths.project / "params.yaml", whole=whole)


def out_file(out: Path | None) -> None:
    """Raises UsageError where ``--out`` names no file that can be written."""
    from fusionrec.errors import UsageError

    if out is not None and (out.is_dir() or not out.resolve().parent.is_dir()):
        raise UsageError(f"--out: {out} must be a file in a folder that exists")


def say(text: str) -> None:
    """One paragraph, as it is: no markup, no folding."""
    from rich.console import Console
    from rich.markup import escape

    Console(highlight=False, soft_wrap=True).print(escape(text))


def print_table(rows: list[dict[str, Any]], title: str = "") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            *("" if v is None else f"{v:,.2f}" if isinstance(v, float) else escape(str(v)) for v in row.values())
        )
    # a file or a pipe has no width of its own: 80 columns would fold every cell of a wide table
    Console(highlight=False, width=None if sys.stdout.isatty() else 240).print(table)
