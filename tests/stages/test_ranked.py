"""The report on rankers names every task that one may be told to learn, also those that none learns unasked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from fusionrec.config import Evaluate
from fusionrec.data import outcomes
from fusionrec.data.split import SplitData
from fusionrec.evaluation import drawings
from fusionrec.evaluation import outcomes as told
from fusionrec.evaluation.story import Story
from fusionrec.paths import Paths
from fusionrec.ranking import base, frame
from fusionrec.ranking.logistic import Logistic
from fusionrec.registry.ranker import MAIN, LoadedRanker
from fusionrec.stages.ranked import ranked
from fusionrec.types import ItemSet

USERS, ITEMS = tuple(f"u{n}" for n in range(7)), tuple(f"i{n}" for n in range(5))
START = datetime(2026, 3, 1, tzinfo=UTC)


def written(paths: Paths, n: int = 240) -> SplitData:
    """Impressions of which half are clicked and a quarter put into the cart, the last third of them for the test."""
    rng = np.random.default_rng(0)
    shown = pl.DataFrame(
        {
            "user_id": [USERS[at] for at in rng.integers(0, len(USERS), n)],
            "item_id": [ITEMS[at] for at in rng.integers(0, len(ITEMS), n)],
            "timestamp": [START + timedelta(minutes=at) for at in range(n)],
            "click": rng.random(n) < 0.5,
        },
        schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
    ).with_columns(cart=pl.col("click") & pl.Series(rng.random(n) < 0.5))
    rest = {name: pl.lit(None, dtype=kind).alias(name) for name, kind in outcomes.SCHEMA.items()}
    shown = shown.with_columns(column for name, column in rest.items() if name not in shown.columns)
    paths.splits.mkdir(parents=True)
    for name, part in (("train", shown[: n * 2 // 3]), ("test", shown[n * 2 // 3 :])):
        part.write_parquet(outcomes.file_of(paths, name))
    pl.DataFrame({"user_id": USERS}).write_parquet(paths.splits / "users.parquet")
    chosen = shown.filter("click").select("user_id", "item_id", "timestamp")
    return SplitData(ITEMS, USERS, {"train": chosen[:40], "test": chosen[40:]})


def test_a_ranker_of_carts_has_its_rows_and_its_line_in_the_chart(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "home")
    data, items = written(paths), ItemSet(ITEMS)
    shown = frame.load(paths, data, items, ("train", "test"))
    ranker = Logistic(tasks=("click", "cart")).build()
    ranker.fit(shown.parts["train"], shown.parts["train"], shown.known)
    one = LoadedRanker(ranker, "logistic", (), {"spec": {"ranker": {"kind": "logistic"}}}, "")
    ranking = ranked(paths, data, items, {MAIN: one}, Evaluate(bootstrap=20))
    assert [row["task"] for row in ranking["rows"]] == list(ranking["bins"]) == ["click", "cart"]
    assert [row["task"] for row in told.tables(ranking)[0]["rows"]] == ["clicked", "put into the cart"]
    chart = drawings.calibration(Story("fused", (), "ndcg@20", {}, [], {}, ranking=ranking))
    assert chart is not None and "put into the cart" in chart


def test_every_task_has_words() -> None:
    assert {*told.TASKS} == {*outcomes.TASKS.values(), outcomes.LIKE, outcomes.RATING} > {*base.TASKS}
