"""Gradient-boosted trees over the table of an impression (D7 to D9): scikit-learn's histogram trees (Ke et al.,
"LightGBM", NeurIPS 2017), their number chosen on the validation impressions.

Ids enter as the item's popularity alone: a tree cannot use a code without an order. Code 0, unknown, is missing: it
goes where the missing ones of training did best, or where most of training went. The trees are kept as plain arrays and
walked here, so that nothing has to be unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from fusionrec.fusion.base import FusionSpec
from fusionrec.ranking.base import Ranker, RankerSpec
from fusionrec.ranking.tabular import Table, Tabular
from fusionrec.types import Float32, Float64

PARTS = ("feature_idx", "num_threshold", "missing_go_to_left", "left", "right", "is_leaf", "value")
IDS = 2  # the first codes are user and item


class Boosting(RankerSpec):
    """``kind: boosting``."""

    kind: Literal["boosting"] = "boosting"
    trees: PositiveInt = 300
    lr: PositiveFloat = 0.1
    leaves: int = Field(31, ge=2)
    components: int = Field(8, ge=0, description="of each modality's content, as numbers of the item")

    def build(self, fusion: FusionSpec | None = None) -> Ranker:
        return BoostingRanker(self)


class BoostingRanker(Tabular):
    """One ensemble a task."""

    def __init__(self, spec: Boosting) -> None:
        super().__init__(spec.tasks, spec.components, spec.ids)
        self.spec = spec
        self.forests: dict[str, dict[str, np.ndarray]] = {}

    def _fit_task(self, task: str, rows: Table, y: Float32, valid: Table, y_valid: Float32, seed: int) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        if task not in self.values and len(np.unique(y)) < 2:
            rate = (y.sum() + 0.5) / (len(y) + 1)
            self.forests[task] = _forest([], float(np.log(rate / (1 - rate))))
            return
        kind: Any = HistGradientBoostingRegressor if task in self.values else HistGradientBoostingClassifier
        model = kind(
            learning_rate=self.spec.lr, max_iter=self.spec.trees, max_leaf_nodes=self.spec.leaves,
            early_stopping=False, random_state=seed,
        )  # fmt: skip
        x = _plain(rows)
        x[:, np.isnan(x).all(axis=0)] = 0  # scikit-learn takes no empty column; no tree asks for one of a single value
        model.fit(x, y if task in self.values else y > 0.5)
        trees = [group[0].nodes for group in model._predictors]
        start = float(np.ravel(model._baseline_prediction)[0])
        if len(valid):
            trees = trees[: _stop(trees, start, _plain(valid), y_valid, task in self.values)]
        self.forests[task] = _forest(trees, start)

    def _predict_task(self, task: str, rows: Table) -> Float32:
        value = _walk(self.forests[task], _plain(rows))
        return np.asarray(value if task in self.values else 1 / (1 + np.exp(-value)), np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        forests = {f"forest/{task}/{name}": a for task, forest in self.forests.items() for name, a in forest.items()}
        return super().arrays() | forests

    def restore(self, arrays: Mapping[str, np.ndarray], fit_ids: tuple[str, ...]) -> None:
        super().restore(arrays, fit_ids)
        names = (*PARTS, "root", "start")
        self.forests = {task: {n: np.asarray(arrays[f"forest/{task}/{n}"]) for n in names} for task in self.tasks}


def _plain(rows: Table) -> Float64:
    """(N, numbers and codes but for the ids), NaN for an unknown code: as a number, 0 would be next to code 1."""
    codes = rows.codes[:, IDS:].astype(np.float64)
    return np.concatenate([rows.numbers.astype(np.float64), np.where(codes == 0, np.nan, codes)], axis=1)


def _forest(trees: list[np.ndarray], start: float) -> dict[str, np.ndarray]:
    """Trees one after the other in flat arrays; ``root`` (T,) where each begins, ``start`` what they add to."""
    size = np.array([len(tree) for tree in trees], np.int64)
    root = np.cumsum(size) - size
    forest = {}
    for name in PARTS:
        parts = [np.ascontiguousarray(tree[name]) for tree in trees]
        if name in ("left", "right"):  # node numbers count from the tree's beginning
            parts = [part.astype(np.int64) + first for part, first in zip(parts, root, strict=True)]
        empty = np.zeros(0, np.float64 if name in ("num_threshold", "value") else np.int64)
        forest[name] = np.concatenate(parts) if parts else empty
    forest |= {name: forest[name].astype(bool) for name in ("is_leaf", "missing_go_to_left")}
    return forest | {"root": root, "start": np.array([start])}


def _steps(forest: Mapping[str, np.ndarray], x: Float64) -> Any:
    """What each tree adds to every row, tree by tree."""
    for root in forest["root"]:
        node = np.full(len(x), root, np.int64)
        while True:
            inner = np.flatnonzero(~forest["is_leaf"][node])
            if not len(inner):
                break
            at = node[inner]
            value = x[inner, forest["feature_idx"][at]]
            left = np.where(np.isnan(value), forest["missing_go_to_left"][at], value <= forest["num_threshold"][at])
            node[inner] = np.where(left, forest["left"][at], forest["right"][at])
        yield forest["value"][node]


def _walk(forest: Mapping[str, np.ndarray], x: Float64) -> Float64:
    total = np.full(len(x), float(forest["start"][0]))
    for value in _steps(forest, x):
        total += value
    return total


def _stop(trees: list[np.ndarray], start: float, x: Float64, y: Float32, is_value: bool) -> int:
    """The number of trees with the least loss on ``x``."""
    total, losses = np.full(len(x), start), []
    for value in _steps(_forest(trees, start), x):
        total += value
        loss = (total - y) ** 2 if is_value else np.logaddexp(0, total) - y * total
        losses.append(float(loss.mean()))
    return int(np.argmin(losses)) + 1 if losses else 0
