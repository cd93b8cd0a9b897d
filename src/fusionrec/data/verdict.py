"""What the gate found, and how it is written: data/gate, the Data Docs, the one-line causes of a stopped run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from fusionrec.data import docs
from fusionrec.data.files import fresh_folder, write_bytes, write_json
from fusionrec.data.tables import parquet
from fusionrec.errors import DataRejected


@dataclass
class Verdict:
    """``quarantine``: lines of ingest and validate; ``summary``: data/gate/summary.json; ``broken``: one line a broken
    hard rule; ``pages``: renderers of the Data Docs by table, of what was judged in this run."""

    quarantine: pl.DataFrame
    summary: dict[str, Any]
    broken: list[str]
    pages: dict[str, Callable[[], str]] = field(default_factory=dict)
    judged: int = 0
    remembered: int = 0


def write(folder: Path, verdict: Verdict) -> None:
    """data/gate: the quarantine as Parquet and CSV, the page, the summary last."""
    with fresh_folder(folder) as building:
        write_bytes(building / "quarantine.parquet", parquet(verdict.quarantine))
        write_bytes(building / "quarantine.csv", spreadsheet(verdict.quarantine))
        write_bytes(
            building / "docs" / "index.html", docs.summary_page(verdict.summary, verdict.quarantine).encode("utf-8")
        )
        write_json(building / "summary.json", verdict.summary)


def spreadsheet(frame: pl.DataFrame) -> bytes:
    """CSV whose cells no spreadsheet takes for a formula: a text that starts like one gets an apostrophe in front."""
    texts = [c for c in frame.columns if frame[c].dtype == pl.String]
    safe = frame.with_columns(
        [
            pl.when(pl.col(c).str.contains(r"^\s*[=+\-@\t\r\n|%]"))
            .then(pl.lit("'") + pl.col(c))
            .otherwise(pl.col(c))
            .alias(c)
            for c in texts
        ]
    )
    return safe.write_csv(quote_style="non_numeric").encode("utf-8")


def write_data_docs(folder: Path, verdict: Verdict) -> None:
    """Great Expectations Data Docs of what was judged in this run; untouched where nothing was."""
    for name, body in verdict.pages.items():
        write_bytes(folder / f"{name}.html", docs.page(f"Data Docs: {name}", body()).encode("utf-8"))
    if verdict.pages:
        names = sorted(p.stem for p in folder.glob("*.html") if p.stem != "index")
        write_bytes(folder / "index.html", docs.index_page(names).encode("utf-8"))


def require(verdict: Verdict, where: str) -> None:
    """Raises DataRejected with one line for each broken hard rule; ``where`` says where the details are."""
    if verdict.broken:
        raise DataRejected("\n".join([*_first_nothing(verdict.broken), f"details: {where}"]))


def _first_nothing(broken: Sequence[str]) -> list[str]:
    """ "Nothing to train on" is the one-line cause where it applies, whatever else is broken."""
    return sorted(broken, key=lambda line: "nothing to train on" not in line)
