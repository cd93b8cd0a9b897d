"""What a ranker predicts for impressions that really happened, and how well (E2): one measurement a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fusionrec.evaluation import probabilities, ratings
from fusionrec.evaluation.metrics import Float64
from fusionrec.ranking.base import Impressions, Ranker
from fusionrec.ranking.happened import predictions
from fusionrec.types import Int64, Interactions


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
