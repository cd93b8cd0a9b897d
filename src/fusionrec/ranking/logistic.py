"""Logistic regression over one-hot codes and numbers (ridge regression for values): the linear floor of D7 to D9.

scikit-learn's lbfgs (Liu and Nocedal, Mathematical Programming 1989); the strength of the L2 penalty is chosen on the
validation impressions. Nothing interacts here: what a user likes enters only through how much the item resembles what
the user chose before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.ranking.base import Ranker, RankerSpec
from fusionrec.ranking.tabular import Table, Tabular, best
from fusionrec.types import Float32

ROUNDS = 1000


class Logistic(RankerSpec):
    """``kind: logistic``."""

    kind: Literal["logistic"] = "logistic"
    strength: tuple[PositiveFloat, ...] = Field((0.03, 0.3, 3.0), min_length=1, description="C, inverse of the penalty")
    components: int = Field(32, ge=0, description="of each modality's content, as numbers of the item")

    def build(self, fusion: FusionSpec | None = None) -> Ranker:
        return LogisticRanker(self)


class LogisticRanker(Tabular):
    """One linear model a task."""

    def __init__(self, spec: Logistic) -> None:
        super().__init__(spec.tasks, spec.components, spec.ids)
        self.spec = spec
        self.weights: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def _design(self, rows: Table) -> sparse.csr_matrix:
        numbers = np.nan_to_num((rows.numbers - self.centre) / self.spread)  # unknown reads as the mean
        return sparse.hstack([rows.one_hot(), sparse.csr_matrix(numbers)], format="csr")

    def _fit_task(self, task: str, rows: Table, y: Float32, valid: Table, y_valid: Float32, seed: int) -> None:
        if task == self.tasks[0]:
            known = np.where(np.isnan(rows.numbers).all(axis=0), 0, rows.numbers)
            deviation = np.nanstd(known, axis=0)
            self.centre = np.nanmean(known, axis=0)
            self.spread = np.where(deviation > 1e-6, deviation, 1).astype(np.float32)
        x = self._design(rows)
        made = [self._model(task, x, y, strength, seed) for strength in self.spec.strength]
        if len(valid) and len(made) > 1:
            x_valid = self._design(valid)
            chosen = best(made, lambda m: _loss(_linear(x_valid, *m), y_valid, task in self.values))
        else:
            chosen = made[-1]
        self.weights[task] = chosen

    def _model(self, task: str, x: sparse.csr_matrix, y: Float32, strength: float, seed: int) -> tuple[Any, Any]:
        from sklearn.linear_model import LogisticRegression, Ridge

        if task in self.values:
            ridge = Ridge(alpha=1 / strength, random_state=seed).fit(x, y)
            return ridge.coef_.astype(np.float32), np.array([ridge.intercept_], np.float32)
        if len(np.unique(y)) < 2:  # it always happens, or never: nothing to be told apart
            rate = (y.sum() + 0.5) / (len(y) + 1)
            return np.zeros(x.shape[1], np.float32), np.array([np.log(rate / (1 - rate))], np.float32)
        model = LogisticRegression(C=strength, max_iter=ROUNDS, random_state=seed).fit(x, y > 0.5)
        return model.coef_[0].astype(np.float32), model.intercept_.astype(np.float32)

    def _predict_task(self, task: str, rows: Table) -> Float32:
        value = _linear(self._design(rows), *self.weights[task])
        return value if task in self.values else _sigmoid(value)

    def arrays(self) -> dict[str, np.ndarray]:
        own = {f"weight/{task}": weight for task, (weight, _) in self.weights.items()}
        own |= {f"bias/{task}": bias for task, (_, bias) in self.weights.items()}
        return super().arrays() | own | {"centre": self.centre, "spread": self.spread}

    def restore(self, arrays: Mapping[str, np.ndarray], fit_ids: tuple[str, ...]) -> None:
        super().restore(arrays, fit_ids)
        self.centre, self.spread = (np.asarray(arrays[name], np.float32) for name in ("centre", "spread"))
        self.weights = {task: (arrays[f"weight/{task}"], arrays[f"bias/{task}"]) for task in self.tasks}


def _linear(x: sparse.csr_matrix, weight: np.ndarray, bias: np.ndarray) -> Float32:
    return np.asarray(x @ weight + bias[0], np.float32)


def _sigmoid(x: Float32) -> Float32:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))), np.float32)


def _loss(value: Float32, y: Float32, is_value: bool) -> float:
    if is_value:
        return float(((value - y) ** 2).mean())
    return float((np.logaddexp(0, value.astype(np.float64)) - y * value).mean())
