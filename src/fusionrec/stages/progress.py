"""Progress bars on stderr where that is a terminal; silent elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Count = Callable[[int, int], None]
"""Called with (done, total)."""


@contextmanager
def counted(label: str) -> Iterator[Count]:
    """A bar for work of known size."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def epochs(label: str, shown: bool = True) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """A line that shows the epoch and its figures; how many will come is not known (early stopping)."""
    if not shown or not sys.stderr.isatty():
        yield lambda epoch, values: None
        return
    from rich.console import Console

    with Console(stderr=True).status(label) as line:
        yield lambda epoch, values: line.update(
            f"{label}: epoch {epoch} " + " ".join(f"{name} {value:.4f}" for name, value in values.items())
        )
