"""data/splits: positive pairs split by a protocol, and the index form in which models and the evaluation read them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from fusionrec.data.files import write_bytes, write_json
from fusionrec.data.positives import k_core
from fusionrec.data.protocols import AnySplit as AnySplit
from fusionrec.data.protocols import Given as Given
from fusionrec.data.protocols import GlobalTime as GlobalTime
from fusionrec.data.protocols import LeaveLastOut as LeaveLastOut
from fusionrec.data.protocols import RandomPerUser as RandomPerUser
from fusionrec.data.protocols import iso
from fusionrec.data.tables import parquet
from fusionrec.errors import DataRejected
from fusionrec.paths import Paths
from fusionrec.types import Columns as C
from fusionrec.types import Interactions, Requests, item_order

NAMES = ("train", "valid", "test")


@dataclass(frozen=True)
class Splits:
    """``items``: I ids in canonical order; ``parts``: name -> user_id, item_id, timestamp; ``summary``: summary.json;
    ``pairs``: the positives of these items and ``place`` where each was put, before the k-core."""

    items: list[str]
    parts: dict[str, pl.DataFrame]
    summary: dict[str, Any]
    pairs: pl.DataFrame
    place: pl.Series


def make(spec: Any, items: pl.DataFrame, pairs: pl.DataFrame, core: int, first_day: date | None) -> Splits:
    """Split positive ``pairs`` (see :func:`fusionrec.data.positives.positive_pairs`); the k-core is cut from train
    only.

    ``first_day``: the UTC day of the log's first accepted event, or None without timestamps. Raises ConfigError for a
    temporal split without timestamps, DataRejected where train would be empty.
    """
    ids = item_order(items[C.ITEM].to_list())
    pairs = pairs.filter(pl.col(C.ITEM).is_in(pl.Series(ids, dtype=pl.String).implode()))
    if pairs.height == 0:
        raise DataRejected(
            "nothing to train on: no interaction counts as a positive; see positives.events in params.yaml"
        )
    place = spec.place(pairs, first_day)
    pairs = pairs.select(C.USER, C.ITEM, C.TIME)
    parts = {name: pairs.filter(place == at) for at, name in enumerate(NAMES)}
    full = parts["train"].height
    parts["train"] = k_core(parts["train"], core)
    if parts["train"].height == 0:
        raise DataRejected(
            f"nothing to train on: of {pairs.height} positive pairs none is in train; found {_sizes(parts)}"
            f"{f', and {full} before the {core}-core' if full else ''}; choose another split"
        )
    return Splits(ids, parts, _summary(spec, ids, parts, full, first_day), pairs, place)


def _sizes(parts: dict[str, pl.DataFrame]) -> str:
    return ", ".join(f"{name} {part.height}" for name, part in parts.items())


def _summary(
    spec: Any, ids: list[str], parts: dict[str, pl.DataFrame], full: int, first_day: date | None
) -> dict[str, Any]:
    known_items, known_users = set(parts["train"][C.ITEM]), set(parts["train"][C.USER])
    summary: dict[str, Any] = {
        "kind": spec.kind,
        "items": len(ids),
        "items_without_train": len(set(ids) - known_items),
        "train_pairs_cut_by_k_core": full - parts["train"].height,
        "windows": spec.windows(first_day) if first_day else {},
    }
    for name, part in parts.items():
        times = part[C.TIME].drop_nulls()
        summary[name] = {
            "pairs": part.height,
            "users": part[C.USER].n_unique(),
            "items": part[C.ITEM].n_unique(),
            "cold_items": len(set(part[C.ITEM]) - known_items),
            "cold_users": len(set(part[C.USER]) - known_users),
            "first": iso(times.min()) if len(times) else None,  # type: ignore[arg-type]
            "last": iso(times.max()) if len(times) else None,  # type: ignore[arg-type]
        }
    return summary


def write(paths: Paths, splits: Splits) -> None:
    """data/splits/*.parquet, each renamed into place; the summary last."""
    write_bytes(
        paths.splits / "items.parquet", parquet(pl.DataFrame({C.ITEM: splits.items}, schema={C.ITEM: pl.String}))
    )
    for name, part in splits.parts.items():
        write_bytes(paths.splits / f"{name}.parquet", parquet(part))
    write_json(paths.splits / "summary.json", splits.summary)


@dataclass(frozen=True)
class SplitData:
    """Splits in index form.

    ``items``: I ids in canonical order; ``users``: U pseudonyms with a row in train, in the order of
    :func:`ordered_users`; ``frames``: the loaded splits as ``user_id, item_id, timestamp``. :attr:`train`,
    :attr:`valid` and :attr:`test` share one index space of U users and I items: rows of users that train does not know
    are left out there (:func:`requests` keeps them)."""

    items: tuple[str, ...]
    users: tuple[str, ...]
    frames: dict[str, pl.DataFrame]

    @property
    def train(self) -> Interactions:
        return self.interactions("train")

    @property
    def valid(self) -> Interactions:
        return self.interactions("valid")

    @property
    def test(self) -> Interactions:
        return self.interactions("test")

    @property
    def train_end(self) -> str | None:
        """The latest timestamp of train as ISO 8601 in UTC, or None without timestamps."""
        latest = self._frame("train")[C.TIME].max()
        return iso(latest) if isinstance(latest, datetime) else None

    def interactions(self, name: str) -> Interactions:
        """A loaded split over the training users. Raises ValueError where it was not loaded."""
        frame = self._frame(name)
        user, item, time = self.rows(frame)
        known = user >= 0
        return Interactions(
            user[known].astype(np.int32),
            item[known].astype(np.int32),
            None if time is None else time[known],
            len(self.users),
            len(self.items),
        )

    def rows(self, frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """(N,) user rows (-1: not in train), (N,) item rows, (N,) int64 UTC microseconds or None, in the frame's
        order."""
        user = _positions(frame[C.USER], self.users)
        item = _positions(frame[C.ITEM], self.items)
        if (item < 0).any():
            raise DataRejected("a split names an item that items.parquet lacks: run the stage split again")
        timed = frame[C.TIME].null_count() == 0 and self.has_time
        return user, item, frame[C.TIME].dt.epoch("us").to_numpy().astype(np.int64) if timed else None

    @property
    def has_time(self) -> bool:
        return self.frames["train"][C.TIME].null_count() == 0 if "train" in self.frames else True

    def _frame(self, name: str) -> pl.DataFrame:
        if name not in self.frames:
            raise ValueError(f"the split {name!r} was not loaded; loaded are {', '.join(self.frames)}")
        return self.frames[name]


def _positions(values: pl.Series, names: Sequence[str]) -> np.ndarray:
    if len(values) == 0 or len(names) == 0:
        return np.full(len(values), -1, np.int64)
    table = pl.DataFrame({"name": pl.Series(names, dtype=pl.String), "row": np.arange(len(names), dtype=np.int64)})
    joined = pl.DataFrame({"name": values}).join(table, on="name", how="left", maintain_order="left")
    return joined["row"].fill_null(-1).to_numpy().astype(np.int64)


def ordered_users(frame: pl.DataFrame) -> list[str]:
    """The users of a split, ordered by the hash of what they did and only then by their pseudonym.

    The pseudonym depends on this project's key. An order that does not lets two projects with the same log train the
    same model, to the last bit.
    """
    when = pl.col(C.TIME).cast(pl.Int64).cast(pl.String).fill_null("")
    did = (
        frame.select(C.USER, line=pl.concat_str([when, pl.col(C.ITEM)], separator=" "))
        .sort(C.USER, "line")
        .group_by(C.USER, maintain_order=True)
        .agg(pl.col("line").str.join("\n"))
    )
    return [
        user for _, user in sorted((hashlib.sha256(text.encode()).digest(), user) for user, text in did.iter_rows())
    ]


def load(paths: Paths, names: Sequence[str] = ("train", "valid")) -> SplitData:
    """Read items, train and the named splits; no other file is opened. Raises DataRejected where one is missing or
    train is empty."""
    frames = {}
    for name in ("items", *dict.fromkeys(("train", *names))):
        path = paths.splits / f"{name}.parquet"
        if not path.is_file():
            raise DataRejected(f"data/splits/{name}.parquet is missing: run the stage split first")
        frames[name] = pl.read_parquet(path, glob=False)
    items = frames.pop("items")
    if frames["train"].height == 0:
        raise DataRejected("nothing to train on: data/splits/train.parquet holds no pair; run the stage split again")
    return SplitData(tuple(items[C.ITEM].to_list()), tuple(ordered_users(frames["train"])), frames)


def summary(paths: Paths) -> dict[str, Any]:
    """data/splits/summary.json."""
    return dict(json.loads((paths.splits / "summary.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Asked:
    """``users``: B pseudonyms in the order of :func:`ordered_users`; ``requests``: B requests; ``positives``: (B, I)
    float32 CSR, what the split holds."""

    users: list[str]
    requests: Requests
    positives: sparse.csr_matrix


def requests(data: SplitData, split: str, history: Sequence[str] = ("train",)) -> Asked:
    """One request for each user of ``split``; the history is the user's rows in the splits named by ``history``.

    ``requests.user`` is -1 for users without a row in train, whose history may still hold rows of valid;
    ``requests.time`` is the user's first positive of the split, ``history_time`` has the pattern of the history. Raises
    ValueError where the split is part of its own history."""
    if split in history:
        raise ValueError(f"the split {split!r} cannot be its own history")
    target = data._frame(split)
    users = ordered_users(target)
    past = pl.concat([data._frame(name) for name in history]) if history else target.clear()
    past = past.filter(pl.col(C.USER).is_in(pl.Series(users, dtype=pl.String).implode()))
    positives, target_time = _matrix(data, target, users)
    seen, seen_time = _matrix(data, past, users)
    time = None
    if target_time is not None:
        time = np.array(
            [target_time.data[a:b].min() for a, b in zip(target_time.indptr, target_time.indptr[1:], strict=False)],
            dtype=np.int64,
        )
    if time is None:
        seen_time = None
    return Asked(
        users,
        Requests(_positions(pl.Series(users, dtype=pl.String), data.users), seen, None, time, seen_time),
        positives,
    )


def _matrix(
    data: SplitData, frame: pl.DataFrame, users: list[str]
) -> tuple[sparse.csr_matrix, sparse.csr_matrix | None]:
    """(B, I) float32 ones and (B, I) int64 microseconds with the same pattern, or None without timestamps."""
    frame = frame.unique([C.USER, C.ITEM], keep="first", maintain_order=True)
    _, item, time = data.rows(frame)
    row = _positions(frame[C.USER], users)
    order = np.lexsort((item, row))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(users)))]).astype(np.int64)
    shape = (len(users), len(data.items))
    ones = sparse.csr_matrix((np.ones(len(row), np.float32), item[order], indptr), shape=shape)
    if time is None:
        return ones, None
    return ones, sparse.csr_matrix((time[order], item[order], indptr), shape=shape)
