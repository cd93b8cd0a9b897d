"""Toy components that the contracts must fit although nothing of their kind is built in yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from fusionrec.fusion.base import FusionSpec
from fusionrec.ranking.base import Impressions, Known, Ranker, RankerSpec, labelled, silent
from fusionrec.recommenders.base import Retriever, RetrieverSpec, Watch
from fusionrec.types import Float32, Int64, Interactions, ItemSet, Requests


class NextItem(RetrieverSpec):
    """A sequential retriever: the last item of the history decides, by how often users went on from it."""

    kind: Literal["next_item"] = "next_item"

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        return NextItemRetriever()


class NextItemRetriever(Retriever):
    """Score of an item = smoothed transition count from the most recent item; unseen in training: -inf."""

    retrieval = "sparse-item"
    folds_in = True
    needs_time = True

    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        assert train.time is not None
        order = np.lexsort((train.item, train.time, train.user))
        user, item = train.user[order], train.item[order]
        follows = user[1:] == user[:-1]
        self.count = np.zeros((len(items), len(items)), np.float32)
        np.add.at(self.count, (item[:-1][follows], item[1:][follows]), 1.0)
        self.popular = np.bincount(train.item, minlength=len(items)).astype(np.float32)
        watch(0, {"loss": 0.0})

    def _score(self, requests: Requests) -> Float32:
        if requests.history_time is None:
            raise ValueError("next_item needs the times of the history")
        times = self.history_at_fit(requests.history_time).tocsr()
        scores = np.tile(self.popular * 1e-3, (len(requests), 1)).astype(np.float32)
        for row in range(len(requests)):
            at = slice(times.indptr[row], times.indptr[row + 1])
            if at.stop > at.start:
                scores[row] += self.count[times.indices[at][np.argmax(times.data[at])]]
        scores[:, self.popular == 0] = -np.inf
        return self.scores_at_fit(scores)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"count": self.count, "popular": self.popular}

    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.count, self.popular = arrays["count"], arrays["popular"]


class TwoTask(RankerSpec):
    """Click and conversion of a candidate by its place in the log, smoothed to the mean."""

    kind: Literal["two_task"] = "two_task"
    prior: float = 5.0

    def build(self, fusion: FusionSpec | None = None) -> Ranker:
        return TwoTaskRanker(self)


class TwoTaskRanker(Ranker):
    """P(click) per item, and P(conversion) = P(click) P(conversion | click), as multi-task models define it."""

    tasks = ("click", "conversion")

    def __init__(self, spec: TwoTask) -> None:
        self.spec = spec

    def fit(self, train: Impressions, valid: Impressions, known: Known, *, seed: int = 0, watch: Any = silent) -> None:
        labelled(train, self.tasks)
        n = len(known.items)
        self.fit_ids = known.items.ids
        shown = np.bincount(train.item, minlength=n).astype(np.float64)
        click = np.bincount(train.item, np.nan_to_num(train.labels["click"]), n)
        bought = np.bincount(train.item, np.nan_to_num(train.labels["conversion"]), n)
        p, prior = click.sum() / shown.sum(), self.spec.prior
        q = bought.sum() / max(click.sum(), 1.0)
        self.click = ((click + prior * p) / (shown + prior)).astype(np.float32)
        self.after = ((bought + prior * q) / (click + prior)).astype(np.float32)
        self.attach(known.items)

    def attach(self, items: ItemSet) -> None:
        at = {item: row for row, item in enumerate(self.fit_ids)}
        self.row = np.array([at.get(item, 0) for item in items.ids])

    def predict(self, requests: Requests, candidates: Int64, context: Any = None) -> dict[str, Float32]:
        row = self.row[np.maximum(candidates, 0)]
        click = np.where(candidates < 0, 0, self.click[row]).astype(np.float32)
        return {"click": click, "conversion": (click * self.after[row]).astype(np.float32)}

    def arrays(self) -> dict[str, np.ndarray]:
        return {"click": self.click, "after": self.after}

    def restore(self, arrays: Mapping[str, np.ndarray], fit_ids: tuple[str, ...]) -> None:
        self.click, self.after, self.fit_ids = arrays["click"], arrays["after"], fit_ids
