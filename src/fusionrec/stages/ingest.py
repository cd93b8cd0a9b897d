"""ingest: the source's tables become typed, pseudonymised, content-addressed partitions in data/tables."""

from __future__ import annotations

import time

from fusionrec.config import Params
from fusionrec.data import media, tables
from fusionrec.data.ingest import canonical
from fusionrec.embeddings import base as embeddings
from fusionrec.embeddings.store import Store
from fusionrec.encoders.remembered import remember
from fusionrec.paths import Paths
from fusionrec.privacy import pseudonyms
from fusionrec.stages.progress import counted
from fusionrec.types import Report


def run(params: Params, paths: Paths) -> Report:
    """Raises DataRejected where the source cannot be read or nothing usable is in it."""
    started = time.monotonic()
    # After `dvc pull` the vectors are here, the store is empty. DVC deletes data/embeddings/<modality> before it runs
    # that stage, so the store is filled now, and only what is new is encoded. What was learnt is kept likewise.
    store = Store(paths.store)
    seeded = sum(embeddings.seed(paths, f.parent.name, store) for f in sorted(paths.embeddings.glob("*/manifest.json")))
    remember(paths.encoders, paths.home / "learnt")
    raw = params.source.build(paths.project).read()
    read = time.monotonic()
    with counted("look at media") as progress, media.memory(paths, raw.media_root, progress) as memory:
        result = canonical(raw, pseudonyms.key(paths), memory.look)
    cleaned = time.monotonic()
    names = tables.write(paths, result)
    counts: dict[str, int | float] = {f"{t}_{k}": v for t, account in result.ledger.items() for k, v in account.items()}
    if seeded:
        counts["vectors_restored"] = seeded
    counts |= {"partitions": len(names), "media_read": memory.fresh, "media_decoded": memory.decoded}
    return Report(
        "ingest",
        counts,
        {"read": read - started, "clean": cleaned - read, "write": time.monotonic() - cleaned},
        {"tables": "data/tables"},
        [{"table": t, **account} for t, account in result.ledger.items()],
        result.notes,
    )
