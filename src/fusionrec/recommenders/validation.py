"""Validation inside training: which number early stopping and weight choices look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from fusionrec.evaluation.metrics import per_user
from fusionrec.recommenders.topk import block_rows, top_k
from fusionrec.types import Interactions, Requests

if TYPE_CHECKING:
    from fusionrec.recommenders.base import Retriever

MAX_USERS = 2000  # validation is repeated every epoch; more users than this do not change a choice


def validation_requests(
    train: Interactions, valid: Interactions, seed: int = 0, max_users: int = MAX_USERS
) -> tuple[Requests, sparse.csr_matrix]:
    """Requests of the users with a validation positive (history: train, with times), and their positives (B, I) CSR.

    Positives that are also in the history are dropped: they are masked, so nobody could recommend them.
    """
    history, positives = train.matrix(), valid.matrix()
    positives = positives - positives.multiply(history)
    positives.eliminate_zeros()
    users = np.flatnonzero(np.diff(positives.indptr) > 0)
    if len(users) > max_users:
        users = np.sort(np.random.default_rng(seed).choice(users, max_users, replace=False))
    times = train.times()
    moments = None if times is None else times[users]
    return Requests(users.astype(np.int64), history[users], history_time=moments), positives[users].tocsr()


def can_judge(train: Interactions, valid: Interactions) -> bool:
    """Whether anybody has a validation positive that could be recommended."""
    return len(validation_requests(train, valid, max_users=1)[0]) > 0


def validation_metric(
    retriever: Retriever,
    train: Interactions,
    valid: Interactions,
    metric: str = "ndcg@20",
    max_users: int = MAX_USERS,
) -> float:
    """Mean of ``metric`` (``ndcg@K`` or ``recall@K``) on validation; 0 where there is nothing to validate on."""
    requests, positives = validation_requests(train, valid, max_users=max_users)
    if len(requests) == 0:
        return 0.0
    k = _list_length(metric)
    items, _ = retriever.recommend(requests, k)
    return float(np.nanmean(per_user(items, positives, (k,))[metric]))


def _list_length(metric: str) -> int:
    name, _, k = metric.partition("@")
    if name not in ("ndcg", "recall") or not k.isdecimal() or int(k) < 1:
        raise ValueError(f"a validation metric is ndcg@K or recall@K with K at least 1, found {metric!r}")
    return int(k)


def validation_by_group(
    retriever: Retriever,
    train: Interactions,
    valid: Interactions,
    metric: str = "ndcg@20",
    max_users: int = MAX_USERS,
) -> float:
    """``metric`` of known items among known ones and of new ones among new ones, weighted by validation positives.

    Early stopping of a model that scores new items looks at this: the plain metric moves with how the two groups
    happen to be placed against each other, which a bias or a blend settles afterwards.
    """
    requests, positives = validation_requests(train, valid, max_users=max_users)
    k = _list_length(metric)
    known = np.zeros(train.n_items, bool)
    known[train.item] = True
    groups = []
    for group in (known, ~known):
        asked = positives.multiply(group[None, :]).tocsr()
        asked.eliminate_zeros()  # the product keeps masked entries as explicit zeros
        if asked.nnz:
            groups.append((np.flatnonzero(group), asked, np.full((len(requests), k), -1, np.int64)))
    block = block_rows(train.n_items)
    for start in range(0, len(requests) if groups else 0, block):  # scored once for both
        part = requests.rows(start, min(start + block, len(requests)))
        scores = np.array(retriever.score(part), np.float32)
        scores[np.repeat(np.arange(len(part)), np.diff(part.history.indptr)), part.history.indices] = -np.inf
        for columns, _, items in groups:
            found, value = top_k(scores.take(columns, axis=1), min(k, len(columns)), empty_ties=False)
            lists = items[start : start + len(part), : found.shape[1]]
            lists[:] = np.where(np.isneginf(value), -1, columns[found])
    weight = sum(asked.nnz for _, asked, _ in groups)
    parts = (asked.nnz * float(np.nanmean(per_user(items, asked, (k,))[metric])) for _, asked, items in groups)
    return sum(parts) / weight if weight else 0.0
