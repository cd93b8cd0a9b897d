"""A small world to train on, and a project whose next stage is train."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from fusionrec.data.files import write_bytes
from fusionrec.data.tables import parquet
from fusionrec.types import Interactions, ItemSet, item_order

USERS, ITEMS = 83, 61


def world(seed: int = 0) -> tuple[Interactions, Interactions, ItemSet]:
    """Train, validation and items: two tastes, about nine items a user."""
    rng = np.random.default_rng(seed)
    same = (np.arange(USERS)[:, None] + np.arange(ITEMS)[None]) % 2 == 0
    user, item = np.nonzero(rng.random((USERS, ITEMS)) < np.where(same, 0.25, 0.05))
    held = rng.random(len(user)) < 0.2
    pairs = [
        Interactions(user[k].astype(np.int32), item[k].astype(np.int32), None, USERS, ITEMS) for k in (~held, held)
    ]
    features = np.stack([np.where(np.arange(ITEMS) % 2, 1.0, -1.0), *rng.normal(size=(4, ITEMS))], 1).astype(np.float32)
    ids = tuple(item_order(f"item-{n}" for n in range(ITEMS)))
    items = ItemSet(ids, {"text": features}, {"text": np.ones(ITEMS, bool)}, {"text": np.zeros(ITEMS, np.int16)})
    return pairs[0], pairs[1], items


def project(folder: Path, epochs: int, batch: int = 64, dim: int = 8) -> Path:
    """A project that trains BPR without modalities; its splits are those of :func:`world`."""
    train, valid, items = world()
    train = train.select(np.arange(640))  # every batch of 64 has two equal halves
    for name, part in (("train", train), ("valid", valid), ("test", valid.select(np.zeros(len(valid), bool)))):
        frame = pl.DataFrame(
            {"user_id": [f"{u:032x}" for u in part.user], "item_id": [items.ids[i] for i in part.item]},
            schema={"user_id": pl.String, "item_id": pl.String},
        ).with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias("timestamp"))
        write_bytes(folder / "data" / "splits" / f"{name}.parquet", parquet(frame))
    write_bytes(folder / "data" / "splits" / "items.parquet", parquet(pl.DataFrame({"item_id": list(items.ids)})))
    training = {"epochs": epochs, "batch": batch, "lr": 0.01, "patience": 0}
    params = {
        "source": {"kind": "folder", "root": "raw"},
        "split": {"kind": "global_time", "valid_from": 71, "test_from": 81},
        "train": {"retriever": {"kind": "bpr", "dim": dim, "training": training}, "fusion": {"kind": "concat"}},
    }
    (folder / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    return folder
