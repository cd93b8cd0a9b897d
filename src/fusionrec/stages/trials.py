"""A table of trials that grows on the terminal while a search runs; silent where stderr is none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fusionrec.studies.search import Trial
from fusionrec.studies.space import label

Watch = Callable[[Trial], None]
Epoch = Callable[[int, float], None]
ROWS = 30  # of the newest trials, so that the table fits


def text(value: Any) -> str:
    """A parameter's value for people."""
    return value if isinstance(value, str) else label(value)


def rows(trials: Mapping[int, Trial], metric: str, best: int | None) -> list[dict[str, Any]]:
    """The trials for people, in their order; the same keys in every row."""
    return [
        {
            "trial": trial.number,
            "": "best" if trial.number == best else trial.state,
            metric: None if trial.value is None else round(trial.value, 4),
            **{field: text(value) for field, value in trial.point.items()},
            "seconds": round(trial.seconds, 1),
            "why": trial.reason,
        }
        for trial in (trials[number] for number in sorted(trials))
    ]


@contextmanager
def shown(metric: str, total: int) -> Iterator[tuple[Watch, Epoch]]:
    """Yields what to tell of trials and of the epochs of the one that runs."""
    if not sys.stderr.isatty():
        yield lambda trial: None, lambda epoch, value: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.markup import escape
    from rich.table import Table

    known: dict[int, Trial] = {}

    def table(note: str = "") -> Any:
        done = [t for t in known.values() if t.value is not None]
        best = max(done, key=lambda t: (t.value or 0.0, -t.number)).number if done else None
        made = rows(known, metric, best)
        ended = sum(t.state != "running" for t in known.values())
        drawn = Table(title=f"{ended} of {total} trials  {note}", title_justify="left")
        for column in made[0] if made else ():
            drawn.add_column(escape(column), overflow="fold")
        for row in made[-ROWS:]:
            drawn.add_row(*("" if v is None else escape(str(v)) for v in row.values()))
        return drawn

    with Live(table(), console=Console(stderr=True), refresh_per_second=4, transient=True) as live:

        def watch(trial: Trial) -> None:
            known[trial.number] = trial
            live.update(table())

        yield watch, lambda epoch, value: live.update(table(f"epoch {epoch}: {value:.4f}"))
