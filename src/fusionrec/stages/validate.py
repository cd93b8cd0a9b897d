"""validate: the gate in front of everything that learns."""

from __future__ import annotations

import time

from fusionrec.config import Params
from fusionrec.data import gate, tables
from fusionrec.data import verdict as verdicts
from fusionrec.data.rules import Rules
from fusionrec.paths import Paths
from fusionrec.types import Report


def run(params: Params, paths: Paths) -> Report:
    """Raises DataRejected with one line for each broken hard rule; what was found then lies in the home's
    ``rejected/``."""
    started = time.monotonic()
    ledger = tables.ledger(paths)
    frames = {table: tables.read(paths, table) for table in ledger}
    ingested = tables.ingested_quarantine(paths)
    verdict = gate.judge(frames, ledger, ingested, Rules(**params.gate.model_dump()), paths.home / "gate")
    judged = time.monotonic()
    verdicts.write_data_docs(paths.home / "docs" / "gate", verdict)
    if verdict.broken:
        rejected = paths.home / "rejected"
        verdicts.write(rejected, verdict)
        verdicts.require(
            verdict, f"{rejected.name}/quarantine.csv and {rejected.name}/docs/index.html in {paths.home.name}/"
        )
    verdicts.write(paths.gate, verdict)
    accounts = verdict.summary["tables"]
    counts: dict[str, int | float] = {f"{t}_{k}": v for t, account in accounts.items() for k, v in account.items()}
    counts |= {"partitions_judged": verdict.judged, "partitions_remembered": verdict.remembered}
    return Report(
        "validate",
        counts,
        {"judge": judged - started, "write": time.monotonic() - judged},
        {"quarantine": "data/gate/quarantine.csv", "page": "data/gate/docs/index.html"},
        [{"table": t, **account} for t, account in accounts.items()],
        verdict.summary["notes"],
    )
