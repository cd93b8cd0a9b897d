"""The retriever contract. Masking of seen items and top-k exist here, once.

A retriever is fitted on index-form interactions and an :class:`ItemSet`; it then scores requests
against the catalogue it is *attached* to. Attaching another catalogue (new items, removed items, a
masked modality) needs no training: models that know items by id align them through their ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Literal

import numpy as np
from scipy import sparse

from fusionrec.fusion.base import FusionSpec
from fusionrec.recommenders.topk import block_rows
from fusionrec.recommenders.topk import top_k as top_k
from fusionrec.types import Bool, Float32, Int64, Interactions, ItemSet, Requests, Spec

Watch = Callable[[int, Mapping[str, float]], None]
"""Called once an epoch with (epoch, {"loss": ..., "valid_ndcg@20": ...}); progress bars and curves hang on it."""


class EnoughTime(Exception):  # noqa: N818  (an end like another, no error)
    """A watch raises it to end the training at hand after this epoch; the best weights so far are kept."""


def silent(epoch: int, values: Mapping[str, float]) -> None:
    """A watch that shows nothing."""


class Retriever(ABC):
    """Scores every item of a catalogue for a block of requests.

    Class attributes say what a model can do: ``retrieval`` how candidates can be found at scale (inner
    product, sparse item-item, or only dense scoring); ``folds_in`` a fresh history changes the answer
    without training; ``cold_user`` answers users without history; ``cold_item`` scores items it was
    not trained on; ``needs_time`` refuses data without timestamps; ``max_items`` refuses more; ``relative``
    an item's score depends on which other items are attached, so it compares within one catalogue only.
    """

    retrieval: ClassVar[Literal["mips", "sparse-item", "dense"]]
    folds_in: ClassVar[bool] = False
    cold_user: ClassVar[bool] = False
    cold_item: ClassVar[bool] = False
    needs_time: ClassVar[bool] = False
    max_items: ClassVar[int | None] = None
    relative: ClassVar[bool] = False

    items: ItemSet
    fit_ids: tuple[str, ...] = ()
    as_fitted: bool = True

    @abstractmethod
    def _fit(self, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch) -> None:
        """Learn from ``train``; ``valid`` is for early stopping and weights only. Sets the arrays."""

    @abstractmethod
    def _score(self, requests: Requests) -> Float32:
        """(B, I) float32 against the attached catalogue; -inf where the model cannot score an item.

        The caller writes into the array, so a model hands out a new one, or one that is not writeable.
        """

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything learnt, as named arrays of plain dtypes (what the bundle stores)."""

    @abstractmethod
    def _restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The inverse of :meth:`arrays`."""

    def _attached(self) -> None:  # noqa: B027  (most models have nothing to recompute)
        """Hook: recompute what depends on the attached catalogue (item vectors, id alignment)."""

    def vectors_item(self) -> Float32 | None:
        """(I, D) item vectors whose inner product with :meth:`vectors_user` is the score, where one exists."""
        return None

    def vectors_user(self, requests: Requests) -> Float32 | None:
        """(B, D) user vectors, see :meth:`vectors_item`."""
        return None

    def fit(
        self, train: Interactions, valid: Interactions, items: ItemSet, *, seed: int = 0, watch: Watch = silent
    ) -> None:
        """Fit and attach to ``items``.

        Raises ValueError for an empty ``train``, for index spaces that differ, for missing timestamps
        where the model needs them, for a catalogue above ``max_items`` and for vectors that are not finite.
        """
        if len(train) == 0:
            raise ValueError("nothing to train on: the training split holds no interactions")
        if train.n_items != len(items) or valid.n_items != len(items):
            raise ValueError(f"interactions speak of {train.n_items} items, the catalogue of {len(items)}")
        if self.needs_time and train.time is None:
            raise ValueError(f"{type(self).__name__} needs timestamps and this catalogue has none")
        if self.max_items is not None and len(items) > self.max_items:
            raise ValueError(f"{type(self).__name__} serves at most {self.max_items} items, found {len(items)}")
        self.fit_ids = items.ids
        self._align(items)
        (_fitting.get() or _really)(self, train, valid, items, seed, watch)
        self.attach(items)

    def restore(self, arrays: Mapping[str, np.ndarray], fit_ids: tuple[str, ...]) -> None:
        """Load what :meth:`arrays` gave; :meth:`attach` must follow before scoring."""
        self.fit_ids = tuple(fit_ids)
        self._restore(arrays)

    def attach(self, items: ItemSet) -> None:
        """Bind the catalogue that is scored from now on. No training happens.

        Raises ValueError for vectors that are not finite; what was attached before then stays.
        """
        self._align(items)
        self._attached()

    def _align(self, items: ItemSet) -> None:
        items.check_finite()
        self.items = items
        self.as_fitted = items.ids == self.fit_ids
        if self.as_fitted:
            self.fit_row: Int64 = np.arange(len(items), dtype=np.int64)
        else:
            at = {item: row for row, item in enumerate(self.fit_ids)}
            self.fit_row = np.array([at.get(i, -1) for i in items.ids], dtype=np.int64)
        self.known: Bool = self.fit_row >= 0

    def trained(self, touched: Bool) -> Bool:
        """(I,) of the attached catalogue, from ``touched`` (I_fit,): known at the fit and with interactions there."""
        return self.known & touched[np.where(self.known, self.fit_row, 0)]

    def history_at_fit(self, history: sparse.csr_matrix) -> sparse.csr_matrix:
        """(B, I) history over the attached catalogue -> (B, I_fit) over the items of the fit."""
        if self.as_fitted:
            return history
        rows = np.flatnonzero(self.known)
        select = sparse.csr_matrix(
            (np.ones(len(rows), np.float32), (rows, self.fit_row[rows])), shape=(len(self.items), len(self.fit_ids))
        )
        return (history @ select).tocsr()

    def scores_at_fit(self, scores: Float32) -> Float32:
        """(B, I_fit) scores over the items of the fit -> (B, I) over the attached catalogue, -inf for new items."""
        if self.as_fitted:
            return scores
        out = np.full((len(scores), len(self.items)), -np.inf, np.float32)
        out[:, self.known] = scores[:, self.fit_row[self.known]]
        return out

    def score(self, requests: Requests) -> Float32:
        """(B, I) float32 scores; higher is better, -inf where the model cannot score the item."""
        if requests.history.shape[1] != len(self.items):
            raise ValueError(f"history speaks of {requests.history.shape[1]} items, the catalogue of {len(self.items)}")
        scores = self._score(requests)
        if scores.size and np.isnan(scores.min()):  # one pass without an intermediate: a minimum hands NaN on
            raise ValueError(f"{type(self).__name__} gave NaN scores")
        return scores

    def recommend(
        self, requests: Requests, k: int, candidates: Bool | None = None, block: int | None = None
    ) -> tuple[Int64, Float32]:
        """The k best items of each request.

        ``candidates`` (I,) bool restricts the catalogue. Seen items never appear. Returns items
        (B, K) int64 and scores (B, K) float32, best first; ties go to the lower row (rows are in hash
        order); where fewer than k items remain the tail is item -1, score -inf. Items that the model cannot
        score come after all that it can and are not returned. ``block``: requests scored at once, by default
        as many as :func:`fusionrec.recommenders.topk.block_rows` finds room for.
        """
        n = len(requests)
        if candidates is not None and (candidates.dtype != bool or candidates.shape != (len(self.items),)):
            raise ValueError(
                f"candidates: found {candidates.dtype} of shape {candidates.shape}, expected bool of shape "
                f"({len(self.items)},): one for each item of the catalogue"
            )
        columns = None if candidates is None else np.flatnonzero(candidates)
        width = min(k, len(self.items) if columns is None else len(columns))
        items = np.full((n, k), -1, np.int64)
        scores = np.full((n, k), -np.inf, np.float32)
        block = block or block_rows(len(self.items))
        for start in range(0, n if width else 0, block):
            part = requests.rows(start, min(start + block, n))
            s = self.score(part)
            if s.dtype != np.float32 or not s.flags.writeable:  # what a model made for this call is written into
                s = np.array(s, np.float32)
            seen = part.history if part.seen is None else part.seen
            s[np.repeat(np.arange(len(part)), np.diff(seen.indptr)), seen.indices] = -np.inf
            if columns is not None:
                s = s.take(columns, axis=1)
            found, value = top_k(s, width, empty_ties=False)
            items[start : start + len(part), :width] = found if columns is None else columns[found]
            scores[start : start + len(part), :width] = value
        items[np.isneginf(scores)] = -1
        return items, scores


Fitting = Callable[[Retriever, Interactions, Interactions, ItemSet, int, Watch], None]
"""Fits a retriever on (train, valid, items, seed, watch); it may restore what the same fit gave before."""


def _really(
    model: Retriever, train: Interactions, valid: Interactions, items: ItemSet, seed: int, watch: Watch
) -> None:
    model._fit(train, valid, items, seed, watch)


_fitting: ContextVar[Fitting | None] = ContextVar("fitting", default=None)


@contextmanager
def fitted_by(fitting: Callable[[Fitting], Fitting]) -> Iterator[None]:
    """Inside, every retriever, the parts of others included, is fitted by ``fitting(as it would have been)``."""
    token = _fitting.set(fitting(_fitting.get() or _really))
    try:
        yield
    finally:
        _fitting.reset(token)


class RetrieverSpec(Spec):
    """Base of the retriever sections of params.yaml.

    Importing a retriever file must not import torch (the command line starts faster without it). ``space``: what a
    search for hyper-parameters tries, dotted field of the spec -> values, e.g. ``{"training.lr": (1e-3, 3e-3)}``.
    """

    kind: Any
    space: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    def build(self, fusion: FusionSpec | None = None) -> Retriever:
        """An unfitted model. ``fusion`` is injected into the models that train through one; the others ignore it."""
        raise NotImplementedError
