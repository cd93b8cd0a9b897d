"""Where clicks are drawn by a die, no ranker may find a thing: what it finds is the answer itself, leaked into the
features of training (the popularity without the own click, the size of a past without the own choice)."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from fusionrec.ranking import AnyRanker
from fusionrec.ranking.base import Impressions, Known, UserSet
from fusionrec.ranking.judging import judge
from fusionrec.types import Interactions, ItemSet, concat_interactions, item_order

USERS, ITEMS, RATE = 130, 70, 0.3


def dice(n: int, seed: int, timed: bool) -> tuple[Impressions, Interactions]:
    """Impressions and the choices among them, each shown to a user once."""
    rng = np.random.default_rng(seed)
    pair = rng.choice(USERS * ITEMS, n, replace=False)
    user, item = (pair // ITEMS).astype(np.int32), (pair % ITEMS).astype(np.int32)
    click = rng.random(n) < RATE
    time = np.arange(n, dtype=np.int64) + seed * 10**6 if timed else None
    context = {"position": np.zeros(n, np.int16), "surface": np.zeros(n, np.int16)}
    shown = Impressions(user, item, time, context, {"click": click.astype(np.float32)})
    chosen = Interactions(user[click], item[click], None if time is None else time[click], USERS, ITEMS)
    return shown, chosen


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("kind", ["boosting", "dcn_v2", "logistic", "stack"])
def test_no_model_finds_anything(kind: str, timed: bool) -> None:
    x = np.random.default_rng(0).normal(size=(ITEMS, 11)).astype(np.float32)
    here = {"text": np.ones(ITEMS, bool)}
    items = ItemSet(
        tuple(item_order(f"i{n}" for n in range(ITEMS))), {"text": x}, here, {"text": np.zeros(ITEMS, np.int16)}
    )
    train, chosen = dice(4000, 1, timed)
    valid, chosen_later = dice(1500, 2, timed)
    test, _ = dice(3000, 3, timed)
    network = {"kind": "dcn_v2", "training": {"epochs": 6, "batch": 512}}
    own = {"dcn_v2": network, "stack": {"parts": [{"kind": "logistic"}, network]}}
    section = {"kind": kind, **own.get(kind, {})}
    ranker = TypeAdapter(AnyRanker).validate_python(section).build()
    ranker.fit(train, valid, Known(items, UserSet(tuple(f"u{n}" for n in range(USERS))), chosen))
    positives = concat_interactions([chosen, chosen_later]) if timed else chosen
    found = judge(ranker, test, positives, repeats=300)["click"]
    assert abs(found.mean["auc"] - 0.5) < 0.04, "four deviations"
    assert found.mean["entropy"] < 1.04, "a leak makes predictions surer than a die allows"
