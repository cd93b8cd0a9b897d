"""The same lists by category of what was taken: where a model is strong and where it is weak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from fusionrec.evaluation import metrics
from fusionrec.evaluation.protocol import Result
from fusionrec.evaluation.significance import intervals
from fusionrec.evaluation.slices import of_items
from fusionrec.evaluation.table import number

MOST = 10
"""Categories that are shown: those with the most choices in the test."""

NONE = "(none)"
"""Items whose category is not given."""


def by_category(
    results: Sequence[Result],
    positives: sparse.csr_matrix,
    category: Sequence[str | None],
    labels: Mapping[str, str],
    metric: str,
    repeats: int,
    seed: int,
    most: int = MOST,
) -> list[dict[str, Any]]:
    """One row for each category and model: mean of ``metric`` over the users who took something of it, with interval.

    ``category`` (I,) of each item; [] where no item has one. The lists are those of all candidates. Bounds are None
    where one user is all there is.
    """
    names = np.array([c if c else NONE for c in category], dtype=object)
    if not any(category) or positives.nnz == 0:
        return []
    found, count = np.unique(names[positives.indices].astype(str), return_counts=True)
    chosen = [str(found[at]) for at in np.lexsort((found, -count))[:most]]
    k, rows = int(metric.rpartition("@")[2]), []
    for name in chosen:
        asked = of_items(positives, names == name)
        users = np.flatnonzero(np.diff(asked.indptr))
        columns = np.stack(
            [metrics.per_user(r.lists["all"][users], asked[users], (k,))[metric] for r in results], axis=1
        )
        low, high = intervals(columns, repeats, seed)
        rows += [
            {
                "category": name,
                "model": result.model,
                "label": labels[result.model],
                "metric": metric,
                "choices": int(asked.nnz),
                "n": len(users),
                "mean": number(float(columns[:, at].mean())),
                "low": number(low[at]),
                "high": number(high[at]),
            }
            for at, result in enumerate(results)
        ]
    return rows
