"""Embed: the accepted items of one modality become a matrix; only content that is new is encoded."""

from __future__ import annotations

import time
from collections import Counter

from fusionrec.config import Params
from fusionrec.data import tables
from fusionrec.data.files import fresh_folder
from fusionrec.embeddings import base
from fusionrec.embeddings.engine import embed
from fusionrec.embeddings.store import Store
from fusionrec.errors import DataRejected, UsageError
from fusionrec.paths import Paths
from fusionrec.stages.progress import counted
from fusionrec.types import Columns, Report, item_order

SHOWN = 100  # rows of the report's table


def run(params: Params, paths: Paths, modality: str) -> Report:
    """Writes data/embeddings/<modality>/; see docs/contracts.md.

    Raises UsageError for a modality that params.yaml does not name, DataRejected where no item has it.
    """
    if modality not in params.modalities:
        raise UsageError(f"unknown modality {modality!r}; params.yaml names {', '.join(params.modalities) or 'none'}")
    report, start = Report(f"embed@{modality}"), time.monotonic()
    spec = params.modalities[modality]
    encoder = spec.encoder.bound(paths.encoders / modality)
    store = Store(paths.store)
    base.seed(paths, modality, store)  # before this stage's own out is replaced

    items = tables.accepted(paths, "items")
    ids = item_order(items[Columns.ITEM].to_list())
    row = {item: number for number, item in enumerate(items[Columns.ITEM].to_list())}
    items = items[[row[i] for i in ids]]
    source = spec.build()
    rows = source.rows(items, params.source.media_root(paths.project))
    if not rows.present.any():
        raise DataRejected(f"modality {modality}: none of {len(ids)} items has it; add data or remove the modality")
    report.seconds["read"] = time.monotonic() - start

    with fresh_folder(paths.embeddings / modality) as folder:
        with counted(f"embed {modality}") as progress:
            result = embed(
                source, rows, encoder, store, engine=params.embed, progress=progress, out=folder / "vectors.npy"
            )
        if not result.present.any():
            codes = Counter(code for code, _ in result.failed.values()).most_common()
            raise DataRejected(
                f"modality {modality}: not one of {len(result.failed)} items could be read: "
                + ", ".join(f"{code} ({n})" for code, n in codes)
            )
        base.write(folder, modality, spec.kind, ids, rows, result)
    report.seconds["encode"] = time.monotonic() - start - report.seconds["read"]
    report.counts |= {
        "items": len(ids),
        "present": int(result.present.sum()),
        "encoded": result.encoded,
        "reused": result.reused,
        "failed": len(result.failed),
        "dim": int(result.vectors.shape[1]),
    }
    report.table = [
        {"item_id": ids[r], "code": code, "found": message[:120]}
        for r, (code, message) in sorted(result.failed.items())[:SHOWN]
    ]
    report.notes += [result.note] if result.note else []
    if result.halved:
        report.notes.append(f"memory was short: batches of {result.halved} shards were computed in halves")
    if result.failed:
        codes = Counter(code for code, _ in result.failed.values()).most_common()
        report.notes.append("failed: " + ", ".join(f"{code} {n}" for code, n in codes))
        report.links["failed"] = f"data/embeddings/{modality}/failed.parquet"
    return report
