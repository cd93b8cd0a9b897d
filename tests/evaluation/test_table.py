"""The table for files and for people, the ceiling's conditions, and the content of tests.json."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from fusionrec.evaluation import ceiling, comparisons, table
from fusionrec.evaluation.protocol import Result
from fusionrec.evaluation.significance import interval

LABELS = {"model": "fused", "popularity": "popularity (floor)", "only-text": "text alone", "oracle": "oracle (ceiling)"}


def result(name, values, cold=None):
    metrics = {m: np.array(values, float) for m in ("recall@10", "ndcg@10", "recall@20", "ndcg@20")}
    parts = {"all": metrics, "warm": metrics, "cold": metrics}
    parts["cold_only"] = {m: np.array(values if cold is None else cold, float) for m in metrics}
    return Result(name, parts, {})


def test_long_rows_are_means_and_intervals_over_users_with_a_positive():
    values = [0.1, 0.5, np.nan, 0.3, 0.9]
    rows = table.long_rows([result("model", values), result("popularity", [0.0, 0.1, np.nan, 0, 0])], LABELS, 300, 5)
    found = next(r for r in rows if (r["model"], r["slice"], r["metric"]) == ("model", "warm", "ndcg@20"))
    low, high = interval(np.array(values), 300, 5)
    assert found == {
        "model": "model",
        "label": "fused",
        "slice": "warm",
        "metric": "ndcg@20",
        "n": 4,
        "mean": 0.45,
        "low": round(low, 6),
        "high": round(high, 6),
    }
    assert len(rows) == 2 * 4 * 4


def test_nobody_and_one_user_give_none_and_no_nan():
    rows = table.long_rows([result("model", [np.nan, np.nan], cold=[0.5, np.nan])], LABELS, 50, 0)
    everyone = next(r for r in rows if r["slice"] == "all")
    assert (everyone["n"], everyone["mean"], everyone["low"]) == (0, None, None)
    one = next(r for r in rows if r["slice"] == "cold_only")
    assert (one["n"], one["mean"], one["low"]) == (1, 0.5, None)
    json.dumps(rows, allow_nan=False)
    assert comparisons.nested(rows)["model"].keys() == {"cold_only"}
    people = table.rows_for_people(rows)
    assert people[0]["NDCG@20"] == "–" and people[0]["cold-only Recall@10"] == "0.500"


def test_the_table_the_issue_demands():
    rows = table.long_rows(
        [result("model", [0.4, 0.6]), result("only-text", [0.2, 0.4]), result("popularity", [0, 0.2])], LABELS, 50, 0
    )
    rows += [table.row("oracle", LABELS, "all", "ndcg@20", 0.8, 0.7, 0.9, 2)]
    people = table.rows_for_people(rows)
    assert [r["model"] for r in people] == ["oracle (ceiling)", "popularity (floor)", "text alone", "fused"]
    assert list(people[0]) == [
        "model",
        "Recall@20",
        "NDCG@20",
        "warm Recall@20",
        "warm NDCG@20",
        "cold Recall@20",
        "cold NDCG@20",
        "cold-only Recall@10",
    ]
    assert people[0]["NDCG@20"] == "0.800 [0.700, 0.900]" and people[0]["Recall@20"] == "–"
    lines = table.markdown(people).splitlines()
    assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1
    assert lines[-1].startswith("| fused | 0.500 [0.400, 0.600] |")


def test_markdown_is_inert():
    text = table.markdown([{"model": "a|b\n| c | d\\", "x": "1"}])
    assert text.splitlines()[2] == r"| a\|b \| c \| d\\ | 1 |"
    assert table.markdown([]) == "" and table.rows_for_people([]) == []


@pytest.mark.parametrize(
    ("key", "kind", "modalities", "words"),
    [
        ("model", "two_tower", ("image", "text"), "fused (two_tower: image + text)"),
        ("model", "content", ("text",), "content (text)"),
        ("model", "ease", (), "ease"),
        ("only-text", "two_tower", ("text",), "text alone"),
        ("item_knn", "item_knn", (), "item knn"),
    ],
)
def test_labels(key, kind, modalities, words):
    assert table.label(key, kind, modalities) == words


IDS = ["a", "b", "c"]
ITEM, TIME = np.array([2, 0, 0], np.int32), np.array([30, 7, 1_000], np.int64)


def test_pairs_digest_is_the_contracts():
    expected = hashlib.sha256(b"a|1000\na|7\nc|30").hexdigest()
    assert ceiling.pairs_digest(IDS, ITEM, TIME) == expected
    assert ceiling.pairs_digest(IDS, ITEM[::-1], TIME[::-1]) == expected
    assert ceiling.pairs_digest(IDS, ITEM, None) is None


def ceiling_file(folder, **changes):
    found = {
        "pairs_digest": ceiling.pairs_digest(IDS, ITEM, TIME),
        "protocol": {"history": "train+valid"},
        "scores": {"all": {"ndcg@20": {"mean": 0.8, "low": 0.7, "high": 0.9}}},
        "n": {"all": {"users": 2, "pairs": 3}},
    } | changes
    (folder / "ceiling.json").write_text(json.dumps(found))


def test_ceiling_is_used_where_it_is_about_the_same_pairs(tmp_path):
    ceiling_file(tmp_path)
    found = ceiling.load(tmp_path, ceiling.pairs_digest(IDS, ITEM, TIME), "train+valid")
    rows = ceiling.rows(found, LABELS) + table.long_rows([result("model", [0.4, 0.6])], LABELS, 50, 0)
    assert rows[0]["label"] == "oracle (ceiling)" and rows[0]["n"] == 2 and rows[0]["low"] == 0.7
    ratio = ceiling.ratios(found, rows)
    assert ratio["ratios"]["all"]["ndcg@20"] == {"ratio": 0.625, "oracle": 0.8, "low": 0.5, "high": 0.75}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pairs_digest": "0" * 64}, "other test pairs"),
        ({"protocol": {"history": "train"}}, "masks 'train'"),
        ({"scores": {"all": {"ndcg@20": 0.3}}}, "not readable"),
        ({"scores": []}, "not readable"),
    ],
)
def test_ceiling_of_something_else_is_not_shown(tmp_path, change, words):
    ceiling_file(tmp_path, **change)
    found = ceiling.load(tmp_path, ceiling.pairs_digest(IDS, ITEM, TIME), "train+valid")
    assert found.scores is None and words in found.note and found.note.startswith(ceiling.ABSENT)
    assert ceiling.rows(found, LABELS) == [] and "ratios" not in ceiling.ratios(found, [])


def test_no_ceiling_file(tmp_path):
    assert ceiling.load(tmp_path, "0" * 64, "train").note == "no ceiling for this data"


def test_against_others_and_cold_only():
    rng = np.random.default_rng(0)
    good, bad = rng.uniform(0.4, 0.6, 50), rng.uniform(0, 0.2, 50)
    models = (result("only-text", good), result("popularity", bad), result("model", good + 0.001))
    results = {r.model: r for r in models}
    tests = comparisons.against_others(results, LABELS, "ndcg@20", 500, 0)
    assert [t["against"] for t in tests] == ["popularity", "only-text"]
    assert all(t["p_holm"] >= t["p"] and t["difference"] > 0 and t["n"] == 50 for t in tests)
    assert comparisons.best_single(results, "ndcg@20") == "only-text"
    same = comparisons.against_others(
        {"model": results["model"], "twin": results["model"]}, LABELS | {"twin": "twin"}, "ndcg@20", 500, 0
    )
    assert same[0]["p"] == 1.0 and same[0]["difference"] == 0
    cold = comparisons.cold_only(results, LABELS, np.full(50, 0.1), 10, 500, 0)
    assert cold["random"] == pytest.approx(0.1) and 4 < cold["ratio"]["low"] < cold["ratio"]["value"] < 6
    p = {m["model"]: m["p"] for m in cold["models"]}
    assert p["model"] < 0.01 and p["popularity"] > 0.05
    nobody = comparisons.cold_only(results, LABELS, np.full(50, np.nan), 10, 500, 0)
    assert nobody["ratio"] is None and nobody["n"] == 0


def test_first_tied_and_behind():
    """The word "first" needs p < .05 against every other model after Holm; else the tie, or who is ahead, is said."""
    rng = np.random.default_rng(1)
    base = rng.uniform(0.2, 0.4, 60)
    better, worse, same = base + 0.1, base - 0.1, base + rng.normal(0, 0.05, 60)
    rows = table.long_rows([result("model", base), result("popularity", worse)], LABELS, 50, 0)

    def judged(**others):
        results = {"model": result("model", base)} | {name: result(name, v) for name, v in others.items()}
        tests = comparisons.against_others(results, {n: n for n in results}, "ndcg@20", 500, 0)
        return {"comparisons": tests, "standing": comparisons.standing(tests)}

    cases = [
        (judged(popularity=worse), "first", {"model": "first", "popularity": "beaten"}),
        (
            judged(popularity=worse, ease=same),
            "tied with ease",
            {"model": "tied", "popularity": "beaten", "ease": "tied"},
        ),
        (
            judged(popularity=same, ease=better),
            "behind ease",
            {"model": "behind", "popularity": "tied", "ease": "ahead"},
        ),
        (judged(popularity=base), "tied with popularity", {"model": "tied", "popularity": "tied"}),
    ]
    for tests, standing, words in cases:
        assert tests["standing"] == standing
        assert table.verdicts(tests) == words
        people = table.rows_for_people(rows, tests)
        assert [r["tested"] for r in people] == [words["popularity"], words["model"]]
    itself = judged(popularity=worse, **{"two-stage": same, "re-ranked": better})
    assert itself["standing"] == "first", "with a ranker behind it, it is no other model"
    assert table.verdicts(itself) == {
        "model": "first",
        "popularity": "beaten",
        "two-stage": "tied",
        "re-ranked": "ahead",
    }
    assert comparisons.standing([]) is None and table.verdicts({"comparisons": [], "standing": None}) == {}
    assert "tested" not in table.rows_for_people(rows)[0]
