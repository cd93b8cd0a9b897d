"""Random, leave-last-out and global-time splits of one log with a taste that drifts: what each protocol shows of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from fusionrec.data.split import GlobalTime
from fusionrec.errors import ConfigError
from fusionrec.recommenders.ease import EASE, EASERetriever
from fusionrec.recommenders.popularity import Popularity
from fusionrec.studies import splits
from fusionrec.types import ItemSet, item_order

START = datetime(2026, 1, 1, tzinfo=UTC)
USERS, ITEMS, DAYS = 60, 45, 30


def drifting(seed: int = 0) -> pl.DataFrame:
    """On each day one of ten groups of items is in fashion with everybody, the next one three days later."""
    rng = np.random.default_rng(seed)
    rows = {}
    for user in range(USERS):
        for _ in range(22):
            day = int(rng.integers(0, DAYS))
            item = int(rng.integers(0, 5)) + 4 * (day // 3) if rng.random() < 0.8 else int(rng.integers(0, ITEMS))
            moment = START + timedelta(days=day, seconds=int(rng.integers(0, 86_400)))
            rows.setdefault((f"u{user:02d}", f"i{item:02d}"), moment)
    frame = pl.DataFrame([(u, i, t) for (u, i), t in rows.items()], ["user_id", "item_id", "timestamp"], orient="row")
    return frame.with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC"))).sort(
        "timestamp", "user_id", "item_id"
    )


def catalogue() -> ItemSet:
    return ItemSet(tuple(item_order(f"i{n:02d}" for n in range(ITEMS))))


MODELS = {"popularity": (Popularity(), None), "model": (EASE(l2=(50.0, 500.0)), None)}


@pytest.fixture(scope="module")
def found():
    pairs = drifting()
    return splits.side_by_side(
        pairs, catalogue(), MODELS, splits.protocols(pairs), ks=(5, 20), metric="recall@5", repeats=300
    )


def means(found, metric="recall@5"):
    return {
        (one["kind"], r["model"]): r["mean"]
        for one in found["splits"]
        for r in one["table"]
        if (r["slice"], r["metric"]) == ("all", metric)
    }


def test_every_protocol_holds_every_model_with_its_interval(found):
    assert [one["kind"] for one in found["splits"]] == list(splits.NAMES)
    for one in found["splits"]:
        assert sum(one["pairs"].values()) == drifting().height
        assert {r["model"] for r in one["table"]} == set(MODELS)
        assert all(r["low"] <= r["mean"] <= r["high"] for r in one["table"])
        assert one["standing"].split(" ")[0] in ("first", "tied", "behind")
    by_time = found["splits"][-1]
    assert by_time["pairs"]["train"] == pytest.approx(0.8 * drifting().height, abs=2)
    assert by_time["pairs"]["test"] == pytest.approx(0.1 * drifting().height, abs=2)


def test_a_model_that_cannot_be_fitted_is_no_bug(monkeypatch):
    monkeypatch.setattr(EASERetriever, "max_items", 7)
    pairs = drifting()
    with pytest.raises(ConfigError, match="ease, random split: EASERetriever serves at most 7 items, found 45"):
        splits.side_by_side(pairs, catalogue(), MODELS, splits.protocols(pairs), ks=(5,), metric="recall@5")


def test_a_drifting_taste_flatters_the_random_split_and_not_the_temporal_one(found):
    """What is in fashion in the test days was hardly seen before them; a random split has seen it all."""
    mean = means(found)
    assert mean["random_per_user", "model"] > 1.5 * mean["global_time", "model"]
    assert any("times the score of random" in line for line in found["means"])
    assert any(line.startswith("Under global time") for line in found["means"])


def test_people_get_one_column_a_protocol(found):
    rows = splits.rows_for_people(found)
    assert [list(row) for row in rows] == [["model", "random", "leave last out", "global time"]] * 2
    assert rows[1]["random"].endswith(tuple(f", {word}" for word in ("first", "tied", "behind")))
    assert rows[0]["global time"].split(" ")[0] == f"{means(found)['global_time', 'popularity']:.3f}"


def test_nothing_after_the_cut_is_trained_on():
    """The later half of the log is thrown away: models, and therefore scores on what is asked, are the same."""
    pairs = drifting()
    cut = splits.protocols(pairs)["global_time"]
    kept = pairs.filter(pl.col("timestamp") < cut.test_from)
    fits = []

    class Spy(EASE):
        def build(self, fusion=None):
            fits.append(super().build(fusion))
            return fits[-1]

    only = {"model": (Spy(l2=(50.0, 500.0)), None)}
    for log in (pairs, kept):
        splits.side_by_side(log, catalogue(), only, {"global_time": cut}, ks=(5,), metric="recall@5", repeats=50)
    for name, array in fits[0].arrays().items():
        np.testing.assert_array_equal(array, fits[1].arrays()[name])


def test_the_projects_own_cut_is_used_and_misuse_is_told():
    pairs = drifting()
    own = GlobalTime(valid_from=11, test_from=21)
    assert splits.protocols(pairs, own)["global_time"] is own
    with pytest.raises(ConfigError, match="need timestamps"):
        splits.protocols(pairs.with_columns(timestamp=pl.lit(None, pairs.schema["timestamp"])))
    with pytest.raises(ConfigError, match="one and the same timestamp"):
        splits.protocols(pairs.with_columns(timestamp=pl.lit(START, pairs.schema["timestamp"])))
    with pytest.raises(ValueError, match="must be called 'model'"):
        splits.side_by_side(pairs, catalogue(), {"ease": (EASE(), None)}, splits.protocols(pairs))


def test_the_command_on_a_project(tmp_path):
    """From a folder through ingest and split to the table and the file; data/ stays as it was."""
    import hashlib
    import json

    from fusionrec import config
    from fusionrec.cli import splitting
    from fusionrec.data import tables
    from fusionrec.data.files import write_bytes
    from fusionrec.data.schema import quarantine
    from fusionrec.paths import Paths
    from fusionrec.stages import ingest, split

    paths = Paths(tmp_path, tmp_path / ".fusionrec")
    (tmp_path / "raw").mkdir()
    pl.DataFrame({"item_id": list(catalogue().ids)}).write_csv(tmp_path / "raw" / "items.csv")
    log = drifting().with_columns(event=pl.lit("rating"), value=pl.lit(4.0))
    poor = log.with_columns(item_id=pl.lit("i44"), value=pl.lit(2.0))  # too few stars to count
    pl.concat([log, poor]).write_parquet(tmp_path / "raw" / "interactions.parquet")
    raw = {
        "source": {"kind": "folder", "root": "raw"}, "split": {"kind": "leave_last_out"},
        "train": {"retriever": {"kind": "ease"}, "fusion": {"kind": "concat"}, "baselines": [{"kind": "popularity"}]},
        "evaluate": {"bootstrap": 100},
    }  # fmt: skip
    params = config.parse(raw)
    with pytest.raises(ConfigError, match="data/splits is missing"):
        splitting.run(params, paths, None, print)
    ingest.run(params, paths)
    write_bytes(paths.gate / "quarantine.parquet", tables.parquet(quarantine()))
    split.run(params, paths)
    before = {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in paths.data.rglob("*") if f.is_file()}
    said = []
    found = splitting.run(params, paths, tmp_path / "out.json", said.append)
    assert {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in paths.data.rglob("*") if f.is_file()} == before
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(json.dumps(found))
    assert len(said) == 6
    assert [sum(one["pairs"].values()) for one in found["splits"]] == [log.height] * 3
    asked = json.loads((paths.splits / "summary.json").read_text())["test"]["pairs"]
    assert found["splits"][1]["pairs"]["test"] == asked  # the protocol is the stage's own
