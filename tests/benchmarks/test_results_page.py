"""What the results page concludes follows from the numbers, and turns with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from page_catalogues import hidden, judged, rows_for_people, strengths
from page_encoders import against
from page_lists import around, by_slice, degraded
from page_ranking import calibrated, findings, tables
from page_recommenders import by_share, chosen, cut_short, held, published, standing
from page_recommenders import trials as trials_told
from page_source import training
from workspace import RESULTS, ROOT


def part(low: float) -> dict[str, Any]:
    return {"all_has_it": {"loss": low + 0.002, "low": low, "high": low + 0.004, "n": 7}}


@pytest.mark.parametrize(
    "lows, words",
    [
        ({"text": 0.001, "image": 0.0001}, "Every modality carries taste that no other shows."),
        (
            {"text": 0.001, "image": 0.0},
            "Of text it is shown that they carry taste that no other modality shows, of image not.",
        ),
        ({"text": -0.001, "image": 0.0}, "Of no modality (image, text) it is shown"),
    ],
)
def test_a_modality_carries_taste_only_if_its_lower_bound_says_so(lows: dict[str, float], words: str) -> None:
    found = hidden({"knockout": {name: part(low) for name, low in lows.items()}})
    assert found.startswith(words) and all(f"{name} {low + 0.002:.4f}" in found for name, low in lows.items())


def check(name: str, passed: bool) -> dict[str, Any]:
    return {"check": name, "found": 0.1, "bound": 0.2, "pass": passed}


@pytest.mark.parametrize(
    "default, off, words",
    [
        (True, True, "and it does.\n"),
        (True, False, "and it does not: text=0.\n"),
        (False, True, "and it does.\nWith every taste on it must show a loss for each modality, and it does not"),
    ],
)
def test_the_knock_out_tells_the_truth_only_if_its_checks_pass(default: bool, off: bool, words: str) -> None:
    checks = [check("default: text's loss, more than", default), check("text=0: loss less than", off)]
    head = {"machine": {"cores": 2}, "commit": "0123456789", "command": "c"}
    text = strengths({"rows": [], "checks": checks, **head})[1]
    assert words in text and ("does not" in text) == (not (default and off))


def compared(**changed: Any) -> dict[str, Any]:
    return {"against": "ease", "label": "EASE", "difference": 0.0, "low": -0.1, "high": 0.1, "p": 0.5} | changed


@pytest.mark.parametrize(
    "comparison, standing",
    [
        (compared(p=0.0005, p_holm=0.001), "first"),
        (compared(p=0.76, p_holm=1.0), "tied with EASE"),
        (compared(p=0.9999, p_holm=1.0), "behind EASE"),
        (compared(p=0.5, p_holm=1.0, verdict="worse"), "behind EASE"),
    ],
)
def test_a_table_says_who_is_first_or_tied_also_from_older_files(comparison: dict[str, Any], standing: str) -> None:
    tests = judged({"comparisons": [comparison], "cold_only": {}})
    assert tests["standing"] == standing and tests["cold_only"] == {}
    rows = [
        {"model": m, "label": m, "slice": "all", "metric": "ndcg@20", "n": 9, "mean": 0.5, "low": 0.4, "high": 0.6}
        for m in ("ease", "model")
    ]
    words = {"first": ["beaten", "first"], "tied": ["tied", "tied"], "behind": ["ahead", "behind"]}
    assert [r["tested"] for r in rows_for_people(rows, tests)] == words[standing.split(" ")[0]]


def test_trials_are_counted_model_by_model() -> None:
    models = [
        {"label": label, "trials": [{}] * n} for label, n in (("ease", 12), ("mgcn", 4), ("bm3", 4), ("house", 0))
    ]
    assert trials_told(models) == (
        "Trials of the search on validation: 12 for ease; 4 for mgcn, bm3; none for house "
        "(a space with fewer points is tried whole)."
    )
    assert "No search" in trials_told(models[3:])


def test_the_page_tells_what_the_searches_chose_and_what_the_house_model_is() -> None:
    trials = [
        {"state": "done", "value": 0.1, "point": {"l2": [20.0]}},
        {"state": "done", "value": 0.2, "point": {"l2": [50.0, 100.0], "user_power": 0.3}},
        {"state": "failed", "value": None, "point": {"l2": [1.0]}},
    ]
    parts = {"retriever": {"kind": "blend", "parts": [{"kind": "ease"}, {"kind": "mgcn"}]}}
    plain = {"label": "popularity", "trials": [], "chosen": {"retriever": {"kind": "popularity"}}}
    models = [{"label": "ease", "trials": trials, "chosen": {"retriever": {"kind": "ease"}}}, plain]
    assert chosen(models) == ["Chosen on validation: ease (l2 50.0 or 100.0, user_power 0.3).\n"]
    house = {"label": "house", "trials": [], "chosen": parts}
    told = "House model: a blend of ease, mgcn, as their own searches chose them, weighted on validation.\n"
    assert chosen([models[0], house])[1:] == [told]
    assert "with the parameters given, weighted" in chosen([plain, house])[0]
    mgcn = {"label": "mgcn", "trials": [], "chosen": {"retriever": {"kind": "mgcn", "contrast_rows": 7}}}
    assert chosen([mgcn])[0].startswith("The contrast of `mgcn` looks at 7 users and 7 items of a batch")
    assert chosen([plain]) == []


def test_a_training_that_ran_out_of_time_shows_how_far_it_came() -> None:
    curve = [[epoch, epoch / 100] for epoch in range(20)]
    (told,) = cut_short([{"label": "lightgcn", "curve": curve}, {"label": "ease"}])
    assert told.startswith("`lightgcn` was cut short; validation Recall@20 after epoch 1: 0.0000, 3: 0.0200,")
    assert told.endswith(", 20: 0.1900.\n") and told.count(":") == 10
    assert cut_short([{"label": "x", "curve": curve[:2]}])[0].endswith("epoch 1: 0.0000, 2: 0.0100.\n")
    assert "LightGCN 0.1824 / 0.1547" in published("gowalla")[0] and published("tiktok") == []


def test_the_readme_tells_what_the_table_of_micro_videos_says() -> None:
    found = json.loads((RESULTS / "recommenders-tiktok.json").read_text())["parts"]["main"]
    at = {entry["label"]: entry["metrics"]["all"]["recall@20"] for entry in found["models"]}
    house, second = at.pop("house"), max(at, key=lambda label: at[label]["mean"])
    places = {test["metric"]: test["places"]["house"] for test in found["tests"]["all"]}
    tied = [n for n, p in found["tests"]["all"][1]["places"].items() if p == "tied" and n != "house"]
    assert found["tests"]["all"][1]["metric"] == "ndcg@20" and places["ndcg@20"] == "tied" and tied == ["lattice"]
    told = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert places["recall@20"] == "first" and second == "mgcn" and len(at) == 13
    span = f"{house['mean']:.3f} [{house['low']:.3f}, {house['high']:.3f}]"
    assert f"in the place of the two towers, is first: Recall@20 {span}" in told
    assert f"against {at['mgcn']['mean']:.3f} for MGCN, the best of thirteen others" in told


def test_the_page_says_which_epochs_miss_their_bound() -> None:
    def row(case: str, bound: float, peer: float | None) -> dict[str, Any]:
        return {"case": case, "ratio_bound": bound, "ratio_peer": peer, "peer_name": peer and "MMRec"}

    rows = [row("epoch-mgcn-1-thread", 0.76, 3.04), row("epoch-vbpr-1-thread", 0.4, 1.78), row("product-coo", 0, None)]
    head = {"machine": {"cores": 2}, "commit": "0123456789", "command": "c"}
    text = training({"rows": rows, **head})[1]
    assert "With one thread missed by vbpr 0.40." in text and "MMRec takes 1.8 to 3.0 times as long" in text
    assert "missed" not in training({"rows": rows[:1], **head})[1]


def ranked(ranker: str, auc: float | None, ece: float = 0.01) -> dict[str, Any]:
    def near(value: float | None) -> list[float | None]:
        return [value, None, None] if value is None else [value, value - 0.01, value + 0.01]

    told = {"auc": near(auc), "gauc": near(auc), "logloss": near(0.4), "ece": near(ece)}
    return {"task": "click", "ranker": ranker, "n": 1234, "seeds": 3, "metrics": told}


def test_the_best_ranker_of_a_task_is_in_bold_and_what_is_undefined_is_a_dash() -> None:
    text = tables([ranked("one", 0.7), ranked("two", 0.8), ranked("three", None)])[0]
    lines = {line.split("|")[2].strip(): line for line in text.splitlines()[2:]}
    assert "clicked" in lines["one"] and "clicked" not in lines["two"], "a task is named once"
    assert "**0.800 [0.790, 0.810]**" in lines["two"] and "0.700 [0.690, 0.710]" in lines["one"]
    assert "**0.700" not in lines["one"] and "| – |" in lines["three"].replace("  ", " ")


def test_who_is_better_follows_from_the_corrected_tests() -> None:
    def test(ranker: str, against: str, by: float, p: float, metric: str = "gauc") -> dict[str, Any]:
        return {"task": "click", "metric": metric, "ranker": ranker, "against": against, "better by": by, "p_holm": p}

    found = findings(
        [
            test("deepfm", "deepfm without content", 0.1, 0.001),
            test("dcn_v2", "dcn_v2 without content", 0.2, 0.004),
            test("dcn_v2", "logistic", 0.1, 0.01),
            test("deepfm", "logistic", 0.1, 0.2),
            test("deepfm", "logistic", -0.1, 0.01, "logloss"),
        ]
    )
    assert found == [
        "Clicked, against the same without content: in AUC within a user all are better.",
        "Clicked, against logistic: in AUC within a user better: dcn_v2, tied: deepfm; in log loss deepfm is worse.",
    ]


def test_a_missed_calibration_is_told() -> None:
    assert calibrated([ranked("one", 0.7)])[0].endswith("reached by all.")
    told = calibrated([ranked("one", 0.7), ranked("two", 0.7, 0.031)])[0]
    assert told.endswith("missed by two (clicked 0.031).")


def test_what_is_held_for_choosing_is_said_as_it_was_run() -> None:
    assert held(None) == held(False) == []
    assert "a pair of each user is held" in held(True)[0] and "2% of the pairs are held" in held(0.02)[0]


def test_an_encoder_is_better_only_where_the_corrected_p_says_so() -> None:
    def test(encoder: str, difference: float, p: float) -> dict[str, Any]:
        return {"modality": "text", "encoder": encoder, "metric": "all ndcg@20", "difference": difference, "p_holm": p}

    (line,) = against([test("head", 0.02, 0.049), test("full", 0.03, 0.05), test("learnt here", -0.01, 0.001)])
    assert line == (
        "Text, against the frozen default: in NDCG@20 better: head (+0.0200), tied: full (+0.0300), "
        "worse: learnt here (-0.0100)."
    )


def shares(**recall: float) -> dict[str, Any]:
    models = [{"label": name, "metrics": {"all": {"recall@20": {"mean": mean}}}} for name, mean in recall.items()]
    return {"models": models, "effort": {"seeds": 5}}


def test_the_house_model_is_told_where_it_stands() -> None:
    results = shares(house=0.2, mgcn=0.3, ease=0.1)

    def told(**places: str) -> list[str]:
        tests = {"all": [{"metric": "recall@20", "places": places}]}
        return standing({**results, "tests": tests}, "all")

    assert told(house="first", mgcn="2", ease="3")[0].endswith("recall@20 first.\n")
    assert "tied with none shown to be ahead" in told(house="tied", mgcn="tied", ease="3")[0]
    assert "missed, beaten by mgcn" in told(house="2", mgcn="first", ease="3")[0]
    assert told(mgcn="first", ease="2") == []


def test_shares_of_hidden_cells_stand_side_by_side_where_all_were_measured() -> None:
    measured = {"main": shares(house=0.3, ease=0.2), "missing30": shares(house=0.25, ease=0.1)}
    assert by_share(measured) == []
    text = by_share({**measured, "missing60": shares(house=0.2)})[1]
    assert "| house | 0.3000 | 0.2500 | 0.2000 |" in text and "ease" not in text


def test_lists_beside_their_hits() -> None:
    curve = [
        {"hidden": "text", "share": s, "score": "0.1", "low": "0.05", "high": "0.15"} for s in ("0.0", "0.15", "0.6")
    ]
    text = degraded(curve)[1]
    assert "| text | 0.100 [0.050, 0.150] | 0.100 [0.050, 0.150] |" in text and "15%" not in text
    held_up = {
        "coverage": "0.9",
        "gini": "0.4",
        "novelty": "5",
        "popularity": "0.1",
        "diversity": "1",
        "popular": "0.5",
    }
    assert "| fused | 0.900 |" in around([{"model": "model", "k": "20", **held_up, "new": "0"}])[1]
    rows = [{"metric": "ndcg@20", "model": m, "slice": "history_none", "mean": 0.1, "n": 43} for m in ("ease", "model")]
    assert "| users without history | 0.100 | 0.100 | 43 |" in by_slice(rows)[1]
    assert degraded([]) == around([]) == by_slice([]) == []
