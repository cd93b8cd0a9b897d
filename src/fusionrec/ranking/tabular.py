"""Impressions as a table of numbers, for the rankers that come from a library (logistic regression, boosted trees).

Numbers of a row: how long the user's past is, how much the item resembles it in each modality, how often the item was
shown, the place in the list, the item's leading components of each modality. Codes: user, item, attributes, context.
Everything speaks of before the impression or is the same whatever came of it, so nothing of the answer is in it. A
number that nobody knows (a new item's popularity, an unknown place) is NaN.
Legend: N rows, P numbers, F codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import sparse

from fusionrec.ranking import calibration
from fusionrec.ranking.base import (
    POSITION,
    Impressions,
    Int16,
    Known,
    Ranker,
    UserSet,
    Watch,
    labelled,
    silent,
)
from fusionrec.ranking.calibration import Calibrated
from fusionrec.ranking.fields import Fields
from fusionrec.ranking.past import Bags, Past, candidate_blocks
from fusionrec.types import Float32, Int64, ItemSet, Requests

PAIRS = 65_536  # predicted at once
LAST = 50
WIDTH = 32


class Tabular(Calibrated, Ranker):
    """Base of both: builds the table, and fits and asks one model a task."""

    def __init__(self, tasks: tuple[str, ...], components: int, ids: bool = True) -> None:
        self.asked = self.tasks = tasks
        self.components, self.ids = components, ids

    def _fit_task(self, task: str, rows: Table, y: Float32, valid: Table, y_valid: Float32, seed: int) -> None:
        """Learn one task; ``y`` (N,) without NaN."""
        raise NotImplementedError

    def _predict_task(self, task: str, rows: Table) -> Float32:
        raise NotImplementedError

    def fit(
        self, train: Impressions, valid: Impressions, known: Known, *, seed: int = 0, watch: Watch = silent
    ) -> None:
        here = labelled(train, self.asked)
        self.tasks = tuple(here)
        self.fit_ids = known.items.ids
        self.fields = Fields.learn(train, known, WIDTH, seed, self.ids)
        # Of choices a row's own would have to be left out, and that it was would give the answer away.
        self.shown = np.bincount(train.item, minlength=len(known.items)).astype(np.float32)
        self.attach(known.items)
        # A rating outside what training met cannot be right.
        self.bounds = {task: (np.nanmin(train.labels[task]), np.nanmax(train.labels[task])) for task in self.tasks}
        past = Past(known.history, LAST)
        tables = {name: self._table(part, past) for name, part in (("train", train), ("valid", valid))}
        nothing = np.full(len(valid), np.nan, np.float32)
        self.calibration = {}
        for step, task in enumerate(self.tasks):
            rows, judged = here[task], ~np.isnan(valid.labels.get(task, nothing))
            self._fit_task(
                task,
                tables["train"].select(rows),
                train.labels[task][rows],
                tables["valid"].select(judged),
                valid.labels.get(task, nothing)[judged],
                seed,
            )
            if task not in self.values:
                said = self._predict_task(task, tables["valid"])
                self.calibration[task] = calibration.fit(said, valid.labels.get(task, nothing))
            watch(step, {"task": float(step)})

    def _table(self, part: Impressions, past: Past) -> Table:
        user, item = part.user.astype(np.int64), part.item.astype(np.int64)
        return self._rows(user, item, past.bags(past.spans(part.user, part.time), item), part.context)

    def meet(self, users: UserSet) -> None:
        self.fields.meet(users)

    def attach(self, items: ItemSet) -> None:
        self.fields.attach(items)
        row = self.fields.rows(items)
        # Of an item that training never showed it is not known how often it would be: that is not "never".
        shown = np.where(row >= 0, self.shown[np.maximum(row, 0)], 0)
        popular = np.where(shown > 0, np.log1p(shown), np.nan).astype(np.float32)
        self.popular = popular if self.fields.ids else np.zeros_like(popular)
        vectors, mask = self.fields.space.apply(items)
        names = enumerate(self.fields.space.modalities)
        self.vectors = {name: np.where(mask[:, [n]], vectors[name], 0) for n, name in names}

    def _rows(self, user: Int64, item: Int64, bags: Bags, context: Mapping[str, np.ndarray]) -> Table:
        n = len(user)
        history = sparse.csr_matrix(
            (np.ones(len(bags.items), np.float32), bags.items, np.append(bags.offsets, len(bags.items))),
            shape=(n, len(self.popular)),
        )
        place = context.get(POSITION, np.ones(n, np.int64))
        numbers = [np.log1p(bags.counts), self.popular[item], np.where(place > 0, place, np.nan)]
        for vectors in self.vectors.values():
            mean, mine = np.asarray(history @ vectors), vectors[item]
            length = np.linalg.norm(mean, axis=1) * np.linalg.norm(mine, axis=1)
            # Rounded: the order of a sum must not decide on which side of a tree's threshold a row falls.
            numbers.append(np.round((mean * mine).sum(1) / np.maximum(length, 1e-9), 4))
            numbers += list(mine[:, : self.components].T)
        codes = [self.fields.codes(user, item, context), np.minimum(place, self.fields.places)[:, None]]
        sizes = (*self.fields.sizes, self.fields.places + 1)
        return Table(
            np.stack(numbers, axis=1).astype(np.float32), np.concatenate(codes, axis=1).astype(np.int64), sizes
        )

    def predict(
        self, requests: Requests, candidates: Int64, context: Mapping[str, Int16] | None = None
    ) -> dict[str, Float32]:
        out = {task: np.zeros(candidates.shape, np.float32) for task in self.tasks}
        for r, c, past in candidate_blocks(requests, candidates, LAST, PAIRS):
            given = {name: codes[r, c] for name, codes in (context or {}).items()}
            table = self._rows(requests.user[r], candidates[r, c], past, given)
            for task in self.tasks:
                out[task][r, c] = self._told(task, self._predict_task(task, table))
        return out

    def _told(self, task: str, value: Float32) -> Float32:
        """A rating within what training met; a probability that means what it says."""
        if task in self.values:
            return np.clip(value, *self.bounds[task])
        return calibration.apply(value, self.calibration[task])

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            **self.fields.arrays(),
            **self.calibration_arrays(),
            "shown": self.shown,
            **{f"task/{n}/{task}": np.array(self.bounds[task]) for n, task in enumerate(self.tasks)},
        }

    def restore(self, arrays: Mapping[str, np.ndarray], fit_ids: tuple[str, ...]) -> None:
        self.fit_ids = tuple(fit_ids)
        self.fields = Fields.restore(arrays, fit_ids)
        self.shown = np.asarray(arrays["shown"], np.float32)
        self.restore_calibration(arrays)
        named = sorted((int(n), task, arrays[f"task/{n}/{task}"]) for _, n, task in _tasks(arrays))
        self.tasks = tuple(task for _, task, _ in named)
        self.bounds = {task: (bounds[0], bounds[1]) for _, task, bounds in named}


def _tasks(arrays: Mapping[str, np.ndarray]) -> list[list[str]]:
    return [name.split("/") for name in arrays if name.startswith("task/")]


class Table:
    """``numbers`` (N, P) float32 and ``codes`` (N, F) int64 with their ``sizes``."""

    def __init__(self, numbers: Float32, codes: Int64, sizes: tuple[int, ...]) -> None:
        self.numbers, self.codes, self.sizes = numbers, codes, sizes

    def __len__(self) -> int:
        return len(self.codes)

    def select(self, rows: Any) -> Table:
        return Table(self.numbers[rows], self.codes[rows], self.sizes)

    def one_hot(self) -> sparse.csr_matrix:
        """(N, sum of sizes): one 1 a code."""
        first = np.cumsum([0, *self.sizes[:-1]])
        n, f = self.codes.shape
        at = (self.codes + first).ravel()
        return sparse.csr_matrix((np.ones(n * f, np.float32), at, np.arange(0, n * f + 1, f)), (n, sum(self.sizes)))


def best(choices: list[Any], judge: Callable[[Any], float]) -> Any:
    """The choice with the least loss; the first of equals."""
    losses = [judge(choice) for choice in choices]
    return choices[int(np.argmin(losses))]
