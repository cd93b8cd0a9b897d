"""Beyond accuracy: how much of the catalogue is ever shown, how even, how varied, how far from the obvious.

All over the first K places of the lists that all items could enter:
coverage: share of the catalogue in anyone's list. gini: of the places each item gets, 0 where all items get as many, 1
where one gets all. novelty: mean self-information of the items shown, log2 of one over the share of training users who
touched them (Zhou et al., PNAS 107, 2010), with one user added to both counts, so that a new item has the largest
finite value. popularity: mean share of the training users who touched the items shown (the popularity bias is its
excess over that of what users took). diversity: within a list, mean of 1 - cosine over all pairs of different items, by
modality, vectors centred on the catalogue, then over the modalities (Ziegler et al., WWW 2005). serendipity: share of
the places that hold what the user took and that the popularity list of the same user does not show (Ge et al., RecSys
2010: relevant and not obvious).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from fusionrec.evaluation.metrics import Float64, hits
from fusionrec.evaluation.plots import bands
from fusionrec.evaluation.protocol import Result
from fusionrec.evaluation.table import number
from fusionrec.types import Float32, Int64, ItemSet

TAKEN = "asked"
"""The key of the test set's own choices, the scale for the models' numbers."""

OBVIOUS = "popularity"
"""The model whose lists are no surprise."""

USERS = 4096  # lists looked at together: bounds the sums of vectors


def beyond_accuracy(
    results: Sequence[Result],
    positives: sparse.csr_matrix,
    train_count: Int64,
    n_users: int,
    labels: Mapping[str, str],
    k: int,
    items: ItemSet | None = None,
) -> list[dict[str, Any]]:
    """One row for what users took and for each model; None where a number has no meaning.

    ``train_count`` (I,) training rows of each item, ``n_users`` training users; ``items``: whose vectors diversity is
    measured by. Without a model called :data:`OBVIOUS` there is no serendipity.
    """
    band = bands(train_count)
    surprise = np.log2((n_users + 1) / (train_count + 1))
    known = train_count / max(n_users, 1)
    spaces = [] if items is None else [centred(items, name) for name in items.modalities]
    lists = {result.model: result.lists["all"][:, :k] for result in results}
    rows = []
    for model, shown in {TAKEN: as_lists(positives), **lists}.items():
        places = shown[shown >= 0]
        here = len(places) > 0
        surprising = serendipity(shown, lists[OBVIOUS], positives) if model != TAKEN and OBVIOUS in lists else None
        rows.append(
            {
                "model": model,
                "label": labels.get(model, "what users took"),
                "k": k,
                "coverage": number(len(np.unique(places)) / max(len(train_count), 1)),
                "gini": number(gini(np.bincount(places, minlength=len(train_count)))) if here else None,
                "novelty": number(float(surprise[places].mean())) if here else None,
                "popularity": number(float(known[places].mean())) if here else None,
                "diversity": diversity(shown, spaces),
                "serendipity": surprising if here else None,
                "popular": number(float((band[places] == 3).mean())) if here else None,
                "new": number(float((band[places] == 0).mean())) if here else None,
            }
        )
    return rows


def as_lists(positives: sparse.csr_matrix) -> Int64:
    """(B, I) -> (B, m) item rows, -1 where a user took fewer."""
    count = np.diff(positives.indptr)
    out = np.full((len(count), int(count.max(initial=0))), -1, np.int64)
    out[np.repeat(np.arange(len(count)), count), np.arange(positives.nnz) - np.repeat(positives.indptr[:-1], count)] = (
        positives.indices
    )
    return out


def gini(count: Int64) -> float:
    """Gini's coefficient of (I,) counts in [0, 1): half the mean difference of two items over the mean; 0 of zeros."""
    n, total = len(count), count.sum()
    if total == 0:
        return 0.0
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(count) / (n * total))


def centred(items: ItemSet, name: str) -> Float32:
    """(I, D) unit vectors of one modality minus its mean; rows of zeros where absent (or at the mean)."""
    here = items.present[name]
    out = np.zeros(items.features[name].shape, np.float32)
    if here.any():
        out[here] = items.features[name][here]
        out[here] -= out[here].mean(axis=0)
        out[here] /= np.maximum(np.linalg.norm(out[here], axis=1, keepdims=True), 1e-12)
    return out


def diversity(lists: Int64, spaces: Sequence[Float32]) -> float | None:
    """Mean over lists of 1 - the mean cosine of two different items, by modality and then over the modalities.

    ``lists`` (B, K) item rows, -1 for none; ``spaces`` unit vectors (I, D_m), rows of zeros where absent. A list
    counts where two of its items have the modality. With S the sum of n unit vectors the sum of all cosines is
    |S|^2 - n, so no pair is ever formed. None where nothing counts.
    """
    found = [mean for mean in (_one_space(lists, x) for x in spaces) if mean is not None]
    return number(float(np.mean(found))) if found else None


def _one_space(lists: Int64, x: Float32) -> float | None:
    has = np.append(np.abs(x).sum(axis=1) > 0, False)
    values: list[Float64] = []
    for start in range(0, len(lists), USERS):
        part = lists[start : start + USERS]
        rows, places = np.nonzero(has[part])  # -1 is the last entry, which has nothing
        chosen = sparse.csr_matrix(
            (np.ones(len(rows), np.float32), (rows, part[rows, places])), shape=(len(part), len(x))
        )
        n = np.bincount(rows, minlength=len(part)).astype(np.float64)
        total = np.asarray(chosen @ x, np.float64)
        many = n >= 2
        values.append(1 - ((total[many] ** 2).sum(axis=1) - n[many]) / (n[many] * (n[many] - 1)))
    joined = np.concatenate(values) if values else np.zeros(0)
    return float(joined.mean()) if len(joined) else None


def serendipity(lists: Int64, obvious: Int64, positives: sparse.csr_matrix) -> float | None:
    """Mean over the users with a positive: share of the K places that hold a positive which ``obvious`` does not."""
    asked = np.diff(positives.indptr) > 0
    if not asked.any() or lists.shape[1] == 0:
        return None
    plain = sparse.csr_matrix(positives.shape, dtype=np.float32)
    rows, places = np.nonzero(obvious >= 0)
    if len(rows):
        plain = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, obvious[rows, places])), positives.shape)
    surprising = hits(lists, positives) & ~hits(lists, plain)
    return number(float(surprising[asked].mean()))
