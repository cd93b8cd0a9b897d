"""Several rankers weighed against each other, each task for itself, on the validation impressions (D7 to D9).

Which ranker is best depends on the task: networks where labels are many, linear models and trees where they are few.
The answer is a weighted mean of theirs, of log odds where it is a chance (Wolpert, "Stacked generalization", Neural
Networks 1992; weights that are not negative and add up to 1: van der Laan, Polley and Hubbard, "Super learner", SAGMB
2007); a chance is calibrated again, since the mean of calibrated ones is too careful. The weights are the most probable
ones where before any label they lie around equal shares, :data:`SPREAD` away: a task with few labels stays near the
plain mean, one with many goes where they say.
Legend: N impressions with a label, P parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, SerializeAsAny, TypeAdapter

from fusionrec.fusion.base import FusionSpec
from fusionrec.ranking import calibration
from fusionrec.ranking.base import (
    Impressions,
    Int16,
    Known,
    Ranker,
    RankerSpec,
    UserSet,
    Watch,
    Words,
    silent,
)
from fusionrec.ranking.calibration import FEWEST, Calibrated, log_odds
from fusionrec.ranking.happened import predictions
from fusionrec.types import Float32, Float64, Int64, ItemSet, Requests

SPREAD = 0.5


def _any_ranker(value: Any) -> Any:
    from fusionrec.ranking import AnyRanker  # the registry names this file too, so it is asked late

    return value if isinstance(value, RankerSpec) else TypeAdapter(AnyRanker).validate_python(value)


Part = Annotated[SerializeAsAny[RankerSpec], BeforeValidator(_any_ranker)]


class Stack(RankerSpec):
    """``kind: stack``. Its ``tasks`` are those of every part; ``ids: false`` hides who and which from all of them, and
    leaves out those that read nothing else."""

    kind: Literal["stack"] = "stack"
    parts: tuple[Part, ...] = Field(min_length=2)

    @property
    def hears(self) -> bool:
        return any(part.hears for part in self.parts)

    def deaf(self) -> Stack:
        return self.model_copy(update={"parts": tuple(part.deaf() for part in self.parts)})

    def build(self, fusion: FusionSpec | None = None) -> Ranker:
        parts = [part for part in self.parts if self.ids or part.reads_content]
        if not parts:
            raise ValueError("a stack without ids: its parts read nothing else; name one that reads content")
        told = [part.model_copy(update={"tasks": self.tasks, "ids": self.ids and part.ids}) for part in parts]
        return StackRanker(self, [part.build(fusion) for part in told])


class StackRanker(Calibrated, Ranker):
    """``weights``: task -> (P,), at least 0, their sum 1."""

    def __init__(self, spec: Stack, parts: Sequence[Ranker]) -> None:
        self.spec, self.parts, self.tasks = spec, list(parts), spec.tasks
        self.weights: dict[str, Float64] = {}

    def fit(
        self, train: Impressions, valid: Impressions, known: Known, *, seed: int = 0, watch: Watch = silent
    ) -> None:
        for part in self.parts:
            part.fit(train, valid, known, seed=seed, watch=watch)
        self.fit_ids = known.items.ids
        learnt = {part.tasks for part in self.parts}
        if len(learnt) > 1:
            told = "; ".join(", ".join(tasks) for tasks in sorted(learnt))
            raise ValueError(f"the parts of a stack learn the same tasks, found {told}")
        self.tasks, self.weights = self.parts[0].tasks, {}
        said = [predictions(part, valid, known.history) for part in self.parts]
        nothing = np.full(len(valid), np.nan, np.float32)
        self.calibration = {}
        for task in self.tasks:
            label = valid.labels.get(task, nothing)
            here, value = ~np.isnan(label), task in self.values
            columns = np.stack([_scale(one[task][here], value) for one in said], axis=1)
            self.weights[task] = weigh(columns, label[here], value)
            if not value:
                mean = _chance(columns @ self.weights[task])
                self.calibration[task] = calibration.fit(mean, label[here])
        watch(0, {f"weight_{t}_{p}": float(w) for t, ws in self.weights.items() for p, w in enumerate(ws)})

    def attach(self, items: ItemSet) -> None:
        for part in self.parts:
            part.attach(items)

    def meet(self, users: UserSet) -> None:
        for part in self.parts:
            part.meet(users)

    def hear(self, words: Words | None) -> None:
        for part in self.parts:
            part.hear(words)

    def predict(
        self, requests: Requests, candidates: Int64, context: Mapping[str, Int16] | None = None
    ) -> dict[str, Float32]:
        said = [part.predict(requests, candidates, context) for part in self.parts]
        out = {}
        for task, weights in self.weights.items():
            value = task in self.values
            mean = sum(w * _scale(one[task], value) for w, one in zip(weights, said, strict=True))
            told = mean if value else calibration.apply(_chance(mean), self.calibration[task])
            out[task] = np.where(candidates >= 0, told, 0).astype(np.float32)
        return out

    def arrays(self) -> dict[str, np.ndarray]:
        out = {f"part{p}.{name}": array for p, part in enumerate(self.parts) for name, array in part.arrays().items()}
        own = {f"stack/{n}/{task}": self.weights[task] for n, task in enumerate(self.tasks)}
        return out | own | self.calibration_arrays()

    def restore(self, arrays: Mapping[str, np.ndarray], fit_ids: tuple[str, ...]) -> None:
        self.fit_ids = tuple(fit_ids)
        named = sorted((name.split("/") for name in arrays if name.startswith("stack/")), key=lambda n: int(n[1]))
        self.tasks = tuple(task for _, _, task in named)
        self.weights = {task: np.asarray(arrays[f"stack/{n}/{task}"], np.float64) for _, n, task in named}
        self.restore_calibration(arrays)
        for p, part in enumerate(self.parts):
            start = f"part{p}."
            own = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
            part.restore(own, self.fit_ids)


def _scale(said: Float32, value: bool) -> Float64:
    return np.asarray(said, np.float64) if value else log_odds(said)


def _chance(odds: Float64) -> Float64:
    return np.asarray(1 / (1 + np.exp(-odds)), np.float64)


def weigh(said: Float64, label: Float32, value: bool) -> Float64:
    """Weights (P,) for the parts' log odds or values (N, P) and labels (N,), 0 or 1 or a ``value``.

    Equal shares where labels are too few to judge by (:data:`fusionrec.ranking.calibration.FEWEST` of either outcome).
    """
    from scipy.optimize import minimize

    n_parts = said.shape[1]
    equal = np.full(n_parts, 1 / n_parts)
    y = label.astype(np.float64)
    if (len(y) if value else min((y > 0.5).sum(), (y <= 0.5).sum())) < FEWEST:
        return equal
    noise = float(np.var(y - said.mean(axis=1))) or 1.0

    def loss(at: Float64) -> tuple[float, Float64]:
        """By the number of labels, so that its size suits the optimiser."""
        total, drift = said @ at, at - equal
        if value:
            wrong = (total - y) / noise
            told = float(wrong @ (total - y)) / 2
        else:
            wrong = _chance(total) - y
            told = float((np.logaddexp(0, total) - y * total).sum())
        prior = float(drift @ drift) / (2 * SPREAD**2)
        return (told + prior) / len(y), (said.T @ wrong + drift / SPREAD**2) / len(y)

    found = minimize(
        loss, equal, jac=True, method="SLSQP", bounds=[(0, 1)] * n_parts, options={"ftol": 1e-10},
        constraints={"type": "eq", "fun": lambda at: at.sum() - 1, "jac": lambda at: np.ones(n_parts)},
    )  # fmt: skip
    weights = np.clip(found.x, 0, 1)
    return np.asarray(weights / weights.sum(), np.float64)
