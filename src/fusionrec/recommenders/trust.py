"""How far retrieval's order is trusted where a ranker judges its candidates: chosen on validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fusionrec.evaluation.metrics import per_user
from fusionrec.recommenders.recommender import Recommender
from fusionrec.recommenders.validation import validation_requests
from fusionrec.types import Interactions

TRUSTS = tuple(step / 10 for step in range(10, -1, -1))
"""Of equally good ones the first is taken: it changes retrieval least."""


def choose_trust(
    recommender: Recommender, train: Interactions, valid: Interactions, metric: str = "ndcg@20"
) -> list[tuple[float, float]]:
    """(trust, mean of ``metric`` on validation), the best first; nothing where nobody is there to validate on."""
    requests, positives = validation_requests(train, valid)
    if len(requests) == 0:
        return []
    k = int(metric.rpartition("@")[2])
    items, near, wish = recommender.judged(requests, max(k, recommender.depth))
    found = []
    for trust in TRUSTS:
        order = np.argsort(-replace(recommender, trust=trust).mixed(near, wish), axis=1, kind="stable")[:, :k]
        values = per_user(np.take_along_axis(items, order, 1), positives, (k,))[metric]
        found.append((trust, float(np.nanmean(values))))
    return sorted(found, key=lambda one: (-one[1], -one[0]))
