"""Beyond accuracy: how much of the catalogue is ever shown, and how far from the obvious it is.

Coverage@K: the share of the catalogue that is in anyone's list. Novelty@K: the mean self-information of the items
shown, log2 of one over the share of training users who touched them (Zhou et al., PNAS 107, 2010), with one user
added to both counts, so that a new item has the largest finite value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from fusionrec.evaluation.plots import bands
from fusionrec.evaluation.protocol import Result
from fusionrec.evaluation.table import number
from fusionrec.types import Int64

TAKEN = "asked"
"""The key of the test set's own choices, the scale for the models' numbers."""


def beyond_accuracy(
    results: Sequence[Result],
    positives: sparse.csr_matrix,
    train_count: Int64,
    n_users: int,
    labels: Mapping[str, str],
    k: int,
) -> list[dict[str, Any]]:
    """One row for what users took and for each model: coverage, novelty in bits, shares of popular and new items.

    ``train_count`` (I,) training rows of each item, ``n_users`` training users; the lists are those of all candidates.
    """
    band = bands(train_count)
    surprise = np.log2((n_users + 1) / (train_count + 1))
    shown = {result.model: result.lists["all"][:, :k].ravel() for result in results}
    rows = []
    for model, items in {TAKEN: positives.indices, **shown}.items():
        places = items[items >= 0]
        here = len(places) > 0
        rows.append(
            {
                "model": model,
                "label": labels.get(model, "what users took"),
                "k": k,
                "coverage": number(len(np.unique(places)) / max(len(train_count), 1)),
                "novelty": number(float(surprise[places].mean())) if here else None,
                "popular": number(float((band[places] == 3).mean())) if here else None,
                "new": number(float((band[places] == 0).mean())) if here else None,
            }
        )
    return rows
