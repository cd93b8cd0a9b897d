"""The stage rank: what it writes, what it does where nothing came of anything, and what the evaluation makes of it."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from fusionrec import config
from fusionrec.data import outcomes, split, tables
from fusionrec.data.files import write_bytes
from fusionrec.embeddings import base as embeddings
from fusionrec.errors import ConfigError, DataRejected, IntegrityError
from fusionrec.evaluation.metrics import per_user
from fusionrec.ranking import frame
from fusionrec.registry.bundle import load_bundle
from fusionrec.registry.ranker import load_ranker
from fusionrec.stages import bundle, evaluate, rank, train
from fusionrec.types import Requests
from tests.evaluation.conftest import World, write_project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """(params, paths) of a small project whose rankers are trained: users click what looks like what they chose."""
    world = World(n_users=90, n_items=70, n_cold=15, seed=6)
    params, paths = write_project(tmp_path_factory.mktemp("rank") / "p", world)
    section = {
        "ranker": {"kind": "dcn_v2", "training": {"epochs": 6, "batch": 128, "lr": 0.01}},
        "baselines": [{"kind": "logistic"}, {"kind": "biases", "tasks": ["rating"]}],
        "without": ["content", "ids"],
        "singles": True,
    }
    params = params.model_copy(update={"rank": config.Rank.model_validate(section)})
    train.run(params, paths)
    return params, paths, rank.run(params, paths)


@pytest.fixture
def small_project(tmp_path):
    """(params, paths) of a smaller one; nothing is trained."""
    return write_project(tmp_path / "p", World(n_users=30, n_items=40, n_cold=9, seed=4))


def test_every_ranker_that_can_learn_something_is_there_and_comes_back_as_it_was(project):
    params, paths, told = project
    variants = ["only-image", "only-text", "without-content", "without-ids"]
    assert sorted(f.name for f in paths.rankers.iterdir()) == ["logistic", *variants[:2], "ranker", *variants[2:]]
    assert told.counts["click labels"] == told.counts["train"] and "rating labels" not in told.counts
    assert [row["tasks"] for row in told.table] == ["click"] * 6
    assert told.table[0]["trust in retrieval's order"].endswith("%")
    items = embeddings.load(paths, tuple(params.modalities))
    assert load_ranker(paths.rankers / "without-content").modalities == ()
    assert load_ranker(paths.rankers / "only-text").modalities == ("text",)
    assert not load_ranker(paths.rankers / "without-ids").manifest["spec"]["ranker"]["ids"]
    one, again = (load_ranker(paths.rankers / "ranker") for _ in range(2))
    assert one.modalities == ("image", "text") and one.ranker.tasks == ("click",)
    data = split.load(paths, ("train", "valid"))
    request = Requests(np.arange(5), data.train.matrix()[:5])
    rows = np.arange(15, dtype=np.int64).reshape(5, 3)
    for loaded in (one, again):
        loaded.ranker.attach(items)
    said = [loaded.ranker.predict(request, rows)["click"] for loaded in (one, again)]
    np.testing.assert_array_equal(*said)


def test_a_flipped_bit_is_not_loaded(project, tmp_path):
    import shutil

    _, paths, _ = project
    shutil.copytree(paths.rankers / "ranker", tmp_path / "ranker")
    file = tmp_path / "ranker" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match="does not match its recorded sha256"):
        load_ranker(tmp_path / "ranker")


def test_the_evaluation_tells_how_good_they_are(project):
    params, paths, _ = project
    evaluate.run(params, paths)
    found = json.loads((paths.evaluation / "ranking.json").read_text(encoding="utf-8"))
    rows = {row["ranker"]: row for row in found["rows"]}
    others = ["only-image", "only-text", "without-content", "without-ids", "logistic"]
    assert list(rows) == ["ranker", *others] and {r["task"] for r in found["rows"]} == {"click"}
    assert found["labels"]["only-image"] == "dcn_v2, image alone"
    assert found["labels"]["without-ids"] == "dcn_v2 without ids"
    auc, low, high = rows["ranker"]["metrics"]["auc"]
    assert 0.5 < low < auc < high < 1, "the tastes are planted in the content"
    assert auc > rows["without-content"]["metrics"]["auc"][0]
    assert {(t["against"], t["metric"]) for t in found["tests"]} == {
        (other, metric) for other in others for metric in ("gauc", "logloss")
    }
    shown = outcomes.read(paths, "test")
    assert rows["ranker"]["n"] == shown.height == sum(one["n"] for one in found["bins"]["click"])
    page = (paths.evaluation / "report.html").read_text(encoding="utf-8")
    assert "Will it be clicked, bought, rated?" in page and "dcn_v2 without content" in page
    assert "What was predicted and what happened" in page


def test_behind_retrieval_it_is_a_row_of_the_table_where_validation_trusts_it(project):
    params, paths, _ = project
    behind = load_ranker(paths.rankers / "ranker").manifest["behind"]
    assert behind["depth"] == 200 and [behind["task"], behind["trust"]] == behind["tried"][0][:2]
    assert behind["task"] == "click", "the log tells of nothing else"
    best = max(value for *_, value in behind["tried"])
    assert len(behind["tried"]) == 11 and behind["tried"][0][2] == best
    evaluate.run(params, paths)
    rows = json.loads((paths.evaluation / "table.json").read_text(encoding="utf-8"))
    labels = {row["model"]: row["label"] for row in rows}
    assert labels.get("two-stage") == ("fused, then dcn_v2" if behind["trust"] < 1 else None)


def test_what_is_bundled_is_what_was_evaluated_to_the_last_step(small_project):
    params, paths = small_project
    section = {"ranker": {"kind": "logistic"}, "without": [], "reranker": {"kind": "mmr", "diversity": 0.6}}
    wanted = params.model_copy(update={"rank": config.Rank.model_validate(section)})
    train.run(wanted, paths)
    rank.run(wanted, paths)
    assert json.loads((paths.rankers / "reranker.json").read_text())["diversity"] == 0.6
    evaluate.run(wanted, paths)
    rows = json.loads((paths.evaluation / "table.json").read_text(encoding="utf-8"))
    stands = load_ranker(paths.rankers / "ranker").manifest["behind"]["trust"] < 1
    label = next(row["label"] for row in rows if row["model"] == "re-ranked")
    assert label == ("fused, then logistic, then mmr" if stands else "fused, then mmr")
    plots = pl.read_csv(paths.evaluation / "plots" / "beyond.csv")
    varied = dict(zip(plots["model"], plots["diversity"], strict=True))
    assert varied["re-ranked"] > varied["model"]

    bundle.run(wanted, paths)
    loaded = load_bundle(paths.bundle)
    assert loaded.about["reranker"] == wanted.rank.reranker.model_dump(mode="json")
    assert (loaded.ranker is not None) == stands
    headline = {row["metric"]: row["mean"] for row in rows if (row["model"], row["slice"]) == ("re-ranked", "all")}
    assert loaded.about["metrics"]["ndcg@20"] == pytest.approx(headline["ndcg@20"])
    data = split.load(paths, ("train", "valid", "test"))
    asked = split.requests(data, "test", ("train", "valid"))
    lists, _ = loaded.recommender().recommend(asked.requests, 20)
    reached = np.nanmean(per_user(lists, asked.positives, (20,))["ndcg@20"])
    assert reached == pytest.approx(headline["ndcg@20"], abs=1e-6), "the bundle answers as the evaluated one did"


def test_a_baseline_may_learn_a_task_that_the_chosen_ranker_does_not(small_project):
    params, paths = small_project
    train.run(params, paths)
    for name in ("train", "test"):
        rated = outcomes.read(paths, name).with_columns(rating=pl.lit(3.0))
        write_bytes(outcomes.file_of(paths, name), tables.parquet(rated))
    section = {
        "ranker": {"kind": "logistic", "tasks": ["click"]},
        "baselines": [{"kind": "biases", "tasks": ["rating"]}],
    }
    wanted = params.model_copy(update={"rank": config.Rank.model_validate(section)})
    rank.run(wanted, paths)
    evaluate.run(wanted, paths)
    found = json.loads((paths.evaluation / "ranking.json").read_text(encoding="utf-8"))
    assert {(row["task"], row["ranker"]) for row in found["rows"]} >= {("click", "ranker"), ("rating", "biases")}
    assert list(found["bins"]) == ["click"]


def test_a_task_that_was_not_learnt_is_refused(small_project):
    params, paths = small_project
    train.run(params, paths)
    wanted = params.model_copy(update={"rank": params.rank.model_copy(update={"task": "conversion"})})
    with pytest.raises(ConfigError, match=r"rank.task: found 'conversion', the log taught the ranker click"):
        rank.run(wanted, paths)


def test_a_stack_that_is_left_without_a_part_is_refused(small_project):
    params, paths = small_project
    train.run(params, paths)
    stack = {"ranker": {"kind": "stack", "ids": False, "parts": [{"kind": "biases"}, {"kind": "biases"}]}}
    wanted = params.model_copy(update={"rank": config.Rank.model_validate(stack)})
    with pytest.raises(ConfigError, match="ranker: a stack without ids: its parts read nothing else"):
        rank.run(wanted, paths)


def test_a_log_without_outcomes_has_no_ranker_and_says_so(small_project):
    params, paths = small_project
    train.run(params, paths)
    for name in ("train", "valid", "test"):
        write_bytes(outcomes.file_of(paths, name), tables.parquet(outcomes.read(paths, name).clear()))
    told = rank.run(params, paths)
    assert list(paths.rankers.iterdir()) == [] and "no ranker: the log tells of no impression" in told.notes[0]
    evaluate.run(params, paths)
    assert json.loads((paths.evaluation / "ranking.json").read_text())["rows"] == []
    assert "Will it be clicked" not in (paths.evaluation / "report.html").read_text(encoding="utf-8")


def test_a_head_that_lacks_a_task_is_refused_and_what_was_there_stays(small_project):
    params, paths = small_project
    train.run(params, paths)
    rank.run(params, paths)
    before = sorted(paths.rankers.iterdir())
    esmm = config.Rank.model_validate({"ranker": {"kind": "deepfm", "head": {"kind": "esmm"}}})
    with pytest.raises(ConfigError, match="ranker: esmm needs the tasks click and conversion; conversion has no label"):
        rank.run(params.model_copy(update={"rank": esmm}), paths)
    assert sorted(paths.rankers.iterdir()) == before


def test_stages_before_that_have_not_run_are_named(small_project):
    params, paths = small_project
    outcomes.file_of(paths, "train").unlink()
    with pytest.raises(DataRejected, match=r"shown_train.parquet is missing: run the stage split first"):
        rank.run(params, paths)
    train.run(params, paths)
    with pytest.raises(DataRejected, match="data/rankers is missing: run the stage rank first"):
        evaluate.run(params, paths)


def test_users_are_known_by_what_they_chose_before_and_their_attributes(small_project):
    params, paths = small_project
    data = split.load(paths, ("train", "valid", "test"))
    regions = [("north", "south")[n % 2] for n in range(len(data.users))]
    users = pl.DataFrame({"user_id": list(data.users), "region": regions})
    write_bytes(paths.splits / "users.parquet", tables.parquet(users))
    shown = frame.load(paths, data, embeddings.load(paths, tuple(params.modalities)), ("train", "test"))
    assert set(shown.parts) == {"train", "test"} and shown.known.users.sizes == {"region": 3}
    assert len(shown.positives) == len(data.train) + len(data.valid) + len(data.test)
    assert len(shown.known.history) == len(data.train)
