"""What the registered model is asked becomes a request in which the order of the choices is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from fusionrec.ranking.past import of_requests

from .conftest import World
from .test_ranker_in_bundle import made


def test_the_latest_choices_are_those_that_stand_last(world: World, tmp_path: Path) -> None:
    from fusionrec.registry.pyfunc_model import BundleModel

    folder = made(world, tmp_path)
    shutil.rmtree(folder / "users")  # private: it is not registered
    model = BundleModel()
    model.load_context(SimpleNamespace(artifacts={"bundle": str(folder)}))
    asked: list[Any] = []
    answer = model.recommender.recommend

    def spy(requests: Any, k: int) -> Any:
        asked.append(requests)
        return answer(requests, k)

    model.recommender.recommend = spy
    ids = world.items.ids
    given = [ids[7], ids[2], "gone", ids[9], ids[2], ids[4]]
    found = model.predict(None, pd.DataFrame({"history": [json.dumps(given), ",".join(given[:2]), ""]}), {"k": 3})
    (requests,) = asked
    latest = of_requests(requests, 2)
    assert latest.counts.tolist() == [2, 2, 0]
    assert [set(np.split(latest.items, latest.offsets[1:])[n]) for n in (0, 1)] == [{9, 4}, {7, 2}]
    assert (requests.history.toarray() > 0).sum(1).tolist() == [4, 2, 0]
    lists = [json.loads(text) for text in found["items"]]
    assert all(len(one) == 3 for one in lists) and not {*lists[0]} & {*given}
