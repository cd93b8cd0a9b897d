"""What a ranker predicts for impressions that really happened, each as its user was known then."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from fusionrec.ranking.base import Impressions, Ranker
from fusionrec.ranking.past import Past, Spans, ranges
from fusionrec.types import Float32, Int64, Interactions, Requests

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
        history, moments = _histories(past, spans.at(part), item, positives.n_items)
        context = {name: codes[part, None] for name, codes in shown.context.items()}
        asked = Requests(shown.user[part].astype(np.int64), history, None, time[part], moments)
        answer = ranker.predict(asked, item[:, None], context)
        for task, value in answer.items():
            found[task].append(value[:, 0])
    return {task: np.concatenate(values) if values else np.zeros(0, np.float32) for task, values in found.items()}


def _histories(
    past: Past, spans: Spans, own: Int64, n_items: int
) -> tuple[sparse.csr_matrix, sparse.csr_matrix | None]:
    """(B, I) ones and, of timed spans, (B, I) int64 microseconds with the same pattern."""
    bags = past.bags(spans, own)
    shape, ends = (len(own), n_items), np.append(bags.offsets, len(bags.items))
    history = sparse.csr_matrix((np.ones(len(bags.items), np.float32), bags.items, ends), shape=shape)
    if not spans.timed:
        return history, None
    moments = past.time[ranges(spans.start, spans.stop)]
    return history, sparse.csr_matrix((moments, bags.items.copy(), ends.copy()), shape=shape)
