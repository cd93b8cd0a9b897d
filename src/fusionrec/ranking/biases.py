"""mu + b_user + b_item by damped least squares: the floor of rating prediction (D9).

Most of what looks like good rating prediction is these two biases (Koren, "Collaborative filtering with temporal
dynamics", KDD 2009, section 2.1). A yes/no task is predicted the same way, cut to [0, 1] and calibrated: how often this
user and this item get a yes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt

from fusionrec.fusion.base import FusionSpec
from fusionrec.ranking import calibration
from fusionrec.ranking.base import Impressions, Int16, Known, Ranker, RankerSpec, Watch, labelled, silent
from fusionrec.ranking.calibration import Calibrated
from fusionrec.ranking.happened import predictions
from fusionrec.types import Float32, Float64, Int64, ItemSet, Requests

Solution: TypeAlias = tuple[Float64, Float64, Float64]
"""(3,) mean, least and greatest label; (U,) and (I,) biases."""


class Biases(RankerSpec):
    """``kind: biases``."""

    reads_content: ClassVar[bool] = False
    kind: Literal["biases"] = "biases"
    ids: Literal[True] = Field(True, description="it reads nothing else")
    damping: NonNegativeFloat = Field(10.0, description="the weight of the squared biases")
    sweeps: PositiveInt = Field(20, description="alternating exact steps")

    def build(self, fusion: FusionSpec | None = None) -> Ranker:
        return BiasesRanker(self)


class BiasesRanker(Calibrated, Ranker):
    """``found``: task -> what solves it."""

    def __init__(self, spec: Biases) -> None:
        self.spec, self.tasks = spec, spec.tasks
        self.found: dict[str, Solution] = {}

    def fit(
        self, train: Impressions, valid: Impressions, known: Known, *, seed: int = 0, watch: Watch = silent
    ) -> None:
        here = labelled(train, self.spec.tasks)
        self.tasks = tuple(here)
        self.fit_ids = known.items.ids
        for task, rows in here.items():
            stranger = len(known.users)  # users that training does not know share a row that is never read
            user = np.where(train.user[rows] >= 0, train.user[rows], stranger).astype(np.int64)
            sizes = (stranger + 1, len(known.items))
            self.found[task] = self._solve(user, train.item[rows].astype(np.int64), train.labels[task][rows], sizes)
        self.attach(known.items)
        self.calibration = {}
        said, nothing = predictions(self, valid, known.history), np.full(len(valid), np.nan, np.float32)
        chances = [task for task in self.tasks if task not in self.values]
        self.calibration = {task: calibration.fit(said[task], valid.labels.get(task, nothing)) for task in chances}

    def _solve(self, user: Int64, item: Int64, label: Float32, sizes: tuple[int, int]) -> Solution:
        """Minimise the squared error plus ``damping`` times the squared biases; who has no label keeps 0."""
        value = label.astype(np.float64)
        n_user, n_item = (
            np.maximum(np.bincount(at, minlength=n) + self.spec.damping, 1e-12)
            for at, n in ((user, sizes[0]), (item, sizes[1]))
        )
        mean, b_user, b_item = float(value.mean()), np.zeros(sizes[0]), np.zeros(sizes[1])
        for _ in range(self.spec.sweeps):
            b_item = np.bincount(item, value - mean - b_user[user], sizes[1]) / n_item
            b_user = np.bincount(user, value - mean - b_item[item], sizes[0]) / n_user
        return np.array([mean, value.min(), value.max()]), b_user[:-1], b_item

    def attach(self, items: ItemSet) -> None:
        at = {item: row for row, item in enumerate(self.fit_ids)}
        self.row = np.array([at.get(item, -1) for item in items.ids], np.int64)

    def predict(
        self, requests: Requests, candidates: Int64, context: Mapping[str, Int16] | None = None
    ) -> dict[str, Float32]:
        out = {}
        for task in self.tasks:
            (mean, low, high), b_user, b_item = self.found[task]
            user = np.append(b_user, 0.0)[
                np.where((requests.user >= 0) & (requests.user < len(b_user)), requests.user, -1)
            ]
            item = np.append(b_item, 0.0)[np.where(candidates >= 0, self.row[np.maximum(candidates, 0)], -1)]
            value = np.clip(mean + user[:, None] + item, low, high)
            out[task] = calibration.apply(value, self.calibration.get(task, calibration.SAME))
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        for n, task in enumerate(self.tasks):
            parts = dict(zip(("bounds", "user", "item"), self.found[task], strict=True))
            out |= {f"task/{n}/{task}/{name}": part for name, part in parts.items()}
        return out | self.calibration_arrays()

    def restore(self, arrays: Mapping[str, np.ndarray], fit_ids: tuple[str, ...]) -> None:
        self.fit_ids = tuple(fit_ids)
        self.restore_calibration(arrays)
        named = {_split(name)[1:3] for name in arrays if not name.startswith(self.PREFIX)}
        self.tasks = tuple(task for _, task in sorted((int(n), task) for n, task in named))
        for n, task in enumerate(self.tasks):
            mean, user, item = (np.asarray(arrays[f"task/{n}/{task}/{name}"]) for name in ("bounds", "user", "item"))
            self.found[task] = (mean, user, item)


def _split(name: str) -> tuple[str, ...]:
    return tuple(name.split("/"))
