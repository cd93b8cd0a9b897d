"""The numbers behind the plots, as rows: written to plots/*.csv (DVC plots) and drawn in the report."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from fusionrec.evaluation import metrics
from fusionrec.evaluation.knockout import KnockOut
from fusionrec.evaluation.missing import Point
from fusionrec.evaluation.protocol import Result
from fusionrec.evaluation.table import number
from fusionrec.types import Int64

CURVE = (1, 2, 5, 10, 20, 50)
BANDS = ("new", "tail", "middle", "head")
FORMULA = re.compile(r"\s*[=+\-@\t\r\n|%]")


def by_k(results: Sequence[Result], positives: sparse.csr_matrix, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Recall and NDCG of every model over the list length, all items as candidates."""
    rows = []
    for result in results:
        lists = result.lists["all"]
        ks = [k for k in CURVE if k <= lists.shape[1]]
        means = metrics.means(metrics.per_user(lists, positives, ks))
        rows += [
            {
                "model": result.model,
                "label": labels[result.model],
                "k": k,
                "recall": number(means[f"recall@{k}"]),
                "ndcg": number(means[f"ndcg@{k}"]),
            }
            for k in ks
        ]
    return rows


def bands(train_count: Int64) -> Int64:
    """(I,) band of each item by its number of train rows: 0 none; 1, 2, 3 thirds of the interactions, rare to popular.

    So ``head`` holds the few items that collect a third of all train rows.
    """
    order = np.lexsort((np.arange(len(train_count)), train_count))
    before = np.cumsum(train_count[order]) - train_count[order]
    out = np.zeros(len(train_count), np.int64)
    middle = 2 * before + train_count[order]  # twice the middle of the item's own stretch of the rows
    out[order] = 1 + np.minimum(2, 3 * middle // max(2 * int(train_count.sum()), 1))
    out[train_count == 0] = 0
    return out


def exposure(
    results: Sequence[Result], positives: sparse.csr_matrix, train_count: Int64, labels: Mapping[str, str], k: int
) -> list[dict[str, Any]]:
    """Share of the top-k places that each popularity band gets, by model; ``asked`` is the test set's own share."""
    band = bands(train_count)
    shown = {result.model: result.lists["all"][:, :k].ravel() for result in results}
    shown = {model: rows[rows >= 0] for model, rows in shown.items()}
    rows = []
    for model, items in {"asked": positives.indices, **shown}.items():
        count = np.bincount(band[items], minlength=len(BANDS))
        rows += [
            {
                "model": model,
                "label": labels.get(model, "what users took"),
                "band": name,
                "share": number(count[i] / max(len(items), 1)),
            }
            for i, name in enumerate(BANDS)
        ]
    return rows


def knockouts(found: Sequence[KnockOut]) -> list[dict[str, Any]]:
    """One row for each masked modality and slice: the loss and its interval."""
    return [
        {
            "modality": one.modality,
            "slice": part,
            "loss": number(loss.difference),
            "low": number(loss.low),
            "high": number(loss.high),
            "full": number(one.full[part]),
            "masked": number(one.masked[part]),
            "n": loss.n,
            "p": number(loss.p),
        }
        for one in found
        for part, loss in one.loss.items()
    ]


def degraded(found: Sequence[Point]) -> list[dict[str, Any]]:
    """One row for each point of the missing-modality curve."""
    return [
        {
            "hidden": one.hidden,
            "share": one.share,
            "score": number(one.mean),
            "low": number(one.low),
            "high": number(one.high),
            "n": one.n,
        }
        for one in found
    ]


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    """CSV bytes with a header, also where there are no rows; None is an empty cell.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({c: f"'{v}" if isinstance(v, str) and FORMULA.match(v) else v for c, v in row.items()})
    return text.getvalue().encode("utf-8")
