"""By which outcome candidates are ordered, and how far retrieval's order is trusted: chosen on validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fusionrec.evaluation.metrics import per_user
from fusionrec.recommenders.recommender import Recommender
from fusionrec.recommenders.validation import validation_requests
from fusionrec.types import Interactions

TRUSTS = tuple(step / 10 for step in range(10, -1, -1))
"""Of equally good ones the first is taken: it changes retrieval least."""


def choose_trust(
    recommender: Recommender,
    train: Interactions,
    valid: Interactions,
    tasks: Sequence[str],
    metric: str = "ndcg@20",
) -> list[tuple[str, float, float]]:
    """(task, trust, mean of ``metric`` on validation) of each of the ranker's ``tasks``, the best first, of equally
    good ones that of the earlier task; nothing where nobody is there to validate on."""
    requests, positives = validation_requests(train, valid)
    if len(requests) == 0:
        return []
    k = int(metric.rpartition("@")[2])
    found = []
    for task in tasks:
        one = replace(recommender, task=task)
        judged = one.judged(requests, k)
        for trust in TRUSTS:
            lists, _ = replace(one, trust=trust).ordered(*judged, k)
            values = per_user(lists, positives, (k,))[metric]
            found.append((task, trust, float(np.nanmean(values))))
    return sorted(found, key=lambda one: (-one[2], -one[1], tasks.index(one[0])))
