"""The shared vocabulary: column names, array shapes, and the tables in index form.

Legend used in every module: U users, I items, M modalities, D embedding dimension, B batch,
K list length, N interactions. An array named ``x_BD`` has shape (B, D).

Items are numbered by the hash of their id (:func:`item_order`), never by first appearance or by the
id itself, so that a row number carries no information about time or popularity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import sparse

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


class Spec(BaseModel):
    """A frozen piece of params.yaml that knows how to build its object; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns:
    """Canonical column names of the tables after ingest."""

    ITEM, USER, EVENT, VALUE, TIME = "item_id", "user_id", "event", "value", "timestamp"
    TITLE, DESCRIPTION, CATEGORY, LANGUAGE, CREATED = "title", "description", "category", "language", "created_at"
    IMPRESSION, POSITION, SESSION, QUERY, SURFACE, REVIEW = (
        "impression_id",
        "position",
        "session_id",
        "query_id",
        "surface",
        "review",
    )
    LABEL = "x_label"  # a split that came with the data: 0 train, 1 valid, 2 test


EVENTS = ("impression", "view", "click", "cart", "purchase", "like", "rating", "ad_click")
LARGEST = 1e12
"""No larger number stands in a vector: sums of products of such are still float32."""


def item_order(ids: Iterable[str]) -> list[str]:
    """The canonical item order: by SHA-256 of the id, so that ties broken by row number leak nothing."""
    return sorted(set(ids), key=lambda s: hashlib.sha256(s.encode("utf-8", "surrogatepass")).digest())


@dataclass(frozen=True)
class Interactions:
    """Positive interactions in index form, N rows.

    ``user`` (N,) int32 in [0, n_users); ``item`` (N,) int32 in [0, n_items); ``time`` (N,) int64
    UTC microseconds, or None for a catalogue without timestamps.
    """

    user: Int32
    item: Int32
    time: Int64 | None
    n_users: int
    n_items: int

    def __post_init__(self) -> None:
        if len(self.user) != len(self.item) or (self.time is not None and len(self.time) != len(self.user)):
            raise ValueError(f"lengths differ: user {len(self.user)}, item {len(self.item)}")
        if len(self.user) and (self.user.max() >= self.n_users or self.item.max() >= self.n_items):
            raise ValueError("an index lies outside n_users x n_items")

    def __len__(self) -> int:
        return len(self.user)

    def matrix(self) -> sparse.csr_matrix:
        """The binary user-item matrix, (U, I) float32 CSR with sorted indices; repeats collapse to 1."""
        m = sparse.csr_matrix(
            (np.ones(len(self), np.float32), (self.user, self.item)), shape=(self.n_users, self.n_items)
        )
        m.sum_duplicates()
        m.data[:] = 1.0
        m.sort_indices()
        return m

    def times(self) -> sparse.csr_matrix | None:
        """When each pair was first: (U, I) int64 CSR with the pattern of :meth:`matrix`, or None without times."""
        if self.time is None:
            return None
        first = self.first()
        starts = np.concatenate([[0], np.cumsum(np.bincount(first.user, minlength=self.n_users))])
        return sparse.csr_matrix((first.time, first.item.astype(np.int32), starts), shape=(self.n_users, self.n_items))

    def first(self) -> Interactions:
        """The first of each pair, ordered by user and item; without times any of them."""
        keys = (self.item, self.user) if self.time is None else (self.time, self.item, self.user)
        order = np.lexsort(keys)
        new = (np.diff(self.user[order]) != 0) | (np.diff(self.item[order]) != 0)
        return self.select(order[np.append(True, new)[: len(order)]])

    def select(self, rows: NDArray[Any]) -> Interactions:
        """The interactions at ``rows`` (a boolean mask or positions)."""
        time = None if self.time is None else self.time[rows]
        return replace(self, user=self.user[rows], item=self.item[rows], time=time)


def concat_interactions(parts: Sequence[Interactions]) -> Interactions:
    """Join parts that share one index space; the time column survives only if every part has it."""
    time = None
    if all(p.time is not None for p in parts):
        time = np.concatenate([p.time for p in parts])
    return Interactions(
        np.concatenate([p.user for p in parts]),
        np.concatenate([p.item for p in parts]),
        time,
        parts[0].n_users,
        parts[0].n_items,
    )


@dataclass(frozen=True)
class ItemSet:
    """The catalogue in index form: what a retriever may know of the items.

    ``ids`` I strings in canonical order; ``features`` modality -> (I, D_m) float32 (rows of absent
    items are zero and must be ignored); ``present`` modality -> (I,) bool; ``group`` modality ->
    (I,) int16, the sub-population within which features are standardised (language for text).
    """

    ids: tuple[str, ...]
    features: Mapping[str, Float32] = field(default_factory=dict)
    present: Mapping[str, Bool] = field(default_factory=dict)
    group: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, x in self.features.items():
            if x.shape[0] != len(self.ids) or self.present[name].shape != (len(self.ids),):
                raise ValueError(
                    f"modality {name!r}: features {x.shape}, mask {self.present[name].shape}, expected {len(self)} rows"
                )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(sorted(self.features))

    def mask(self) -> Bool:
        """(I, M) bool in the order of :attr:`modalities`."""
        if not self.features:
            return np.zeros((len(self), 0), bool)
        return np.stack([self.present[m] for m in self.modalities], axis=1)

    def check_finite(self) -> None:
        """Refuse NaN, infinities and numbers beyond ``LARGEST`` in what an item has (what is masked may hold anything):
        ValueError."""
        for name in self.modalities:
            x = self.features[name]
            if x.size == 0:
                continue
            usual = (x.min(axis=1) >= -LARGEST) & (x.max(axis=1) <= LARGEST)
            bad = np.flatnonzero(~usual & self.present[name])
            if len(bad):
                raise ValueError(
                    f"modality {name!r}: {len(bad)} of {int(self.present[name].sum())} items have non-finite vectors "
                    f"or numbers beyond {LARGEST:g} (the first is of {self.ids[bad[0]]!r}); embed or scale them again, "
                    "or mark the items as lacking it"
                )

    def without(self, *names: str) -> ItemSet:
        """The same catalogue with these modalities masked for every item (the knock-out)."""
        present = {m: (np.zeros_like(p) if m in names else p) for m, p in self.present.items()}
        return replace(self, present=present)

    def only(self, *names: str) -> ItemSet:
        """The same catalogue reduced to these modalities (they vanish, they are not masked)."""
        keep = [m for m in self.features if m in names]
        return replace(
            self,
            features={m: self.features[m] for m in keep},
            present={m: self.present[m] for m in keep},
            group={m: g for m, g in self.group.items() if m in keep},
        )


@dataclass(frozen=True)
class Requests:
    """B requests for recommendations.

    ``user`` (B,) int64: the user's row in the training users, or -1 for a user the model never saw;
    ``history`` (B, I) CSR float32: what the user touched before the request; ``seen`` (B, I) CSR: what must
    not be recommended (the history unless given); ``time`` (B,) int64 UTC microseconds or None;
    ``history_time`` (B, I) CSR int64 with the pattern of ``history``, or None.
    """

    user: Int64
    history: sparse.csr_matrix
    seen: sparse.csr_matrix | None = None
    time: Int64 | None = None
    history_time: sparse.csr_matrix | None = None

    def __len__(self) -> int:
        return len(self.user)

    def rows(self, start: int, stop: int) -> Requests:
        """The block of requests [start, stop)."""
        return Requests(
            self.user[start:stop],
            self.history[start:stop],
            None if self.seen is None else self.seen[start:stop],
            None if self.time is None else self.time[start:stop],
            None if self.history_time is None else self.history_time[start:stop],
        )


@dataclass
class Report:
    """What a stage tells: counts, timings in seconds, links, and a table for people."""

    stage: str
    counts: dict[str, int | float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    table: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "counts": self.counts,
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
            "links": self.links,
            "table": self.table,
            "notes": self.notes,
        }
