"""What a ranker predicts for impressions that really happened, and how well (E2): one measurement a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from fusionrec.evaluation import probabilities, ratings
from fusionrec.evaluation.metrics import Float64
from fusionrec.ranking.base import Impressions, Ranker
from fusionrec.ranking.past import Past
from fusionrec.types import Float32, Int64, Interactions, Requests

ROWS = 20_000  # impressions asked at once
EVERYTHING = 1_000_000


@dataclass(frozen=True)
class Judgement:
    """``mean``, ``low``, ``high``: metric -> value and 95 % interval over users; ``users``: metric -> (U + 1,) of each
    user for paired tests (the last row: users that training does not know, together), NaN where there is none; ``n``
    impressions with a label; ``bins``: of a probability, what was predicted and what happened (for a plot)."""

    task: str
    mean: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    users: Mapping[str, Float64]
    n: int
    bins: Sequence[Mapping[str, float]] = ()


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


def judge(
    ranker: Ranker, shown: Impressions, positives: Interactions, repeats: int = 2000, seed: int = 0
) -> dict[str, Judgement]:
    """Task -> how well it is predicted, for the ranker's tasks that have a label here."""
    out = {}
    user: Int64 = np.where(shown.user >= 0, shown.user, positives.n_users).astype(np.int64)
    for task, value in predictions(ranker, shown, positives).items():
        label = shown.labels.get(task)
        here = np.zeros(len(shown), bool) if label is None else ~np.isnan(label)
        if label is None or not here.any():
            continue
        if task in ranker.values:
            truth, said = label[here].astype(np.float64), value[here].astype(np.float64)
            rated = ratings.measure(user[here], truth, said, repeats, seed)
            out[task] = Judgement(task, rated.mean, rated.low, rated.high, rated.users, int(here.sum()))
        else:
            judged = probabilities.Judged(user[here], label[here] > 0.5, value[here].astype(np.float64))
            m = probabilities.measure(judged, repeats, seed)
            out[task] = Judgement(task, m.mean, m.low, m.high, m.users, m.n, probabilities.reliability(judged))
    return out
