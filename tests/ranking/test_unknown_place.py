"""Rankers of the library: a place that nobody knows is no place in particular, certainly not before the first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fusionrec.ranking.base import Impressions, Known, RankerSpec, UserSet
from fusionrec.ranking.boosting import Boosting
from fusionrec.ranking.happened import predictions
from fusionrec.ranking.logistic import Logistic
from fusionrec.types import ItemSet
from tests.contracts import world

USERS = 30


def shown(n: int, seed: int, known: bool = True) -> Impressions:
    """A place p from 1 to 10 is clicked with the chance .8 / p."""
    rng = np.random.default_rng(seed)
    place = rng.integers(1, 11, n)
    click = (rng.random(n) < 0.8 / place).astype(np.float32)
    user, item = rng.integers(0, USERS, n).astype(np.int32), rng.integers(0, 38, n).astype(np.int32)
    return Impressions(user, item, None, {"position": (place * known).astype(np.int16)}, {"click": click})


@pytest.mark.parametrize(
    "spec", [Logistic(tasks=("click",)), Boosting(tasks=("click",), trees=30)], ids=lambda s: s.kind
)
def test_an_unknown_place_is_as_good_as_the_average_one(spec: RankerSpec) -> None:
    data = world.world()
    history = replace(data.train, time=None).select(np.zeros(len(data.train), bool))
    known = Known(ItemSet(ids=data.items.ids), UserSet(tuple(f"u{n}" for n in range(USERS))), history)
    ranker = spec.build()
    ranker.fit(shown(4000, 1), shown(800, 2), known)
    known_place, unknown = (predictions(ranker, shown(1000, 3, told), history)["click"] for told in (True, False))
    assert known_place.mean() == pytest.approx(shown(1000, 3).labels["click"].mean(), abs=0.04)
    assert 0.08 < unknown.mean() < 0.36  # the first place: .8; all of them: .23; most of them: .08 to .16
