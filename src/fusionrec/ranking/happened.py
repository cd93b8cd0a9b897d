"""What a ranker predicts for impressions that really happened, each as its user was known then."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from fusionrec.ranking.base import Impressions, Ranker
from fusionrec.ranking.past import Past
from fusionrec.types import Float32, Interactions, Requests

ROWS = 20_000  # impressions asked at once
EVERYTHING = 1_000_000


def predictions(ranker: Ranker, shown: Impressions, positives: Interactions) -> dict[str, Float32]:
    """Task -> (N,) float32 of every impression at the place where it stood.

    ``positives``: of train and after; of them each impression's user is known by those strictly before it, and of the
    words that the ranker was told by those strictly before it too: by none where nobody knows when it was.
    """
    time = np.full(len(shown), np.iinfo(np.int64).min) if shown.time is None else shown.time
    past = Past(positives, EVERYTHING)
    spans = past.spans(shown.user, shown.time)
    found: dict[str, list[Float32]] = {task: [] for task in ranker.tasks}
    for first in range(0, len(shown), ROWS):
        part = slice(first, first + ROWS)
        item = shown.item[part].astype(np.int64)
        bags = past.bags(spans.at(part), item)
        ends = np.append(bags.offsets, len(bags.items))
        history = sparse.csr_matrix(
            (np.ones(len(bags.items), np.float32), bags.items, ends), shape=(len(item), positives.n_items)
        )
        history.sum_duplicates()
        history.data[:] = 1
        context = {name: codes[part, None] for name, codes in shown.context.items()}
        asked = Requests(shown.user[part].astype(np.int64), history, time=time[part])
        answer = ranker.predict(asked, item[:, None], context)
        for task, value in answer.items():
            found[task].append(value[:, 0])
    return {task: np.concatenate(values) if values else np.zeros(0, np.float32) for task, values in found.items()}
