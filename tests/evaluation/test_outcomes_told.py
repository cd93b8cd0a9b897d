"""What the page says of rankers follows from ranking.json, and turns with it."""

from __future__ import annotations

from typing import Any

from fusionrec.evaluation import outcomes

LABELS = {"ranker": "dcn_v2", "without-content": "dcn_v2 without content", "logistic": "logistic"}


def row(task: str, ranker: str, **metrics: float | None) -> dict[str, Any]:
    told = {n: [v, None, None] if v is None else [v, v - 0.01, v + 0.01] for n, v in metrics.items()}
    return {"task": task, "ranker": ranker, "n": 7, "seeds": 1, "metrics": told}


def compared(task: str, against: str, metric: str, by: float, p: float) -> dict[str, Any]:
    return {"task": task, "ranker": "ranker", "against": against, "metric": metric, "better by": by, "p_holm": p}


RANKING = {
    "labels": LABELS,
    "chosen": "ranker",
    "rows": [
        row("click", "ranker", auc=0.7, gauc=0.65, logloss=0.5, ece=0.02),
        row("click", "logistic", auc=0.6, gauc=0.66, logloss=0.6, ece=0.01),
        row("rating", "ranker", mse=0.81, rmse=0.9, mae=0.7),
        row("rating", "logistic", mse=1.0, rmse=1.0, mae=0.6),
    ],
    "tests": [
        compared("click", "without-content", "gauc", 0.1, 0.01),
        compared("click", "without-content", "logloss", 0.1, 0.3),
        compared("click", "logistic", "gauc", 0.1, 0.01),
        compared("click", "logistic", "logloss", 0.1, 0.2),
        compared("rating", "logistic", "mse", -0.1, 0.001),
        compared("rating", "without-content", "mse", 0.1, 0.05),
    ],
}


def test_chances_and_values_have_tables_of_their_own_with_the_best_marked() -> None:
    chances, values = outcomes.tables(RANKING)
    assert chances["heads"] == ["AUC", "AUC within a user", "log loss", "calibration error"]
    assert values["heads"] == ["MSE", "RMSE", "MAE"]
    best = [[cell["best"] for cell in row["cells"]] for row in chances["rows"]]
    assert best == [[True, False, True, False], [False, True, False, True]]
    assert [[cell["best"] for cell in row["cells"]] for row in values["rows"]] == [
        [True, True, False],
        [False, False, True],
    ]
    assert [row["task"] for row in chances["rows"] + values["rows"]] == ["clicked", "", "rated", ""]
    assert [row["main"] for row in chances["rows"]] == [True, False]


def test_who_is_better_is_said_only_where_it_is_shown() -> None:
    assert outcomes.verdicts(RANKING) == [
        "Clicked: better in AUC within a user than dcn_v2 without content, logistic.",
        "Rated: worse in squared error than logistic.",
        "Rated: tied with dcn_v2 without content.",
    ]


def test_the_chosen_ranker_in_a_line_a_task() -> None:
    assert outcomes.lines(RANKING) == [
        "clicked (dcn_v2): AUC 0.700 [0.690, 0.710], calibration error 0.020 [0.010, 0.030]",
        "rated (dcn_v2): RMSE 0.900 [0.890, 0.910]",
    ]
    assert outcomes.lines({}) == outcomes.verdicts({}) == outcomes.tables({}) == []


def test_what_is_undefined_is_a_dash() -> None:
    one = {
        "labels": LABELS,
        "chosen": "ranker",
        "rows": [row("click", "ranker", auc=None, gauc=None, logloss=0.1, ece=0.1)],
    }
    assert outcomes.lines(one)[0].startswith("clicked (dcn_v2): AUC –, calibration error 0.100")
    (table,) = outcomes.tables(one)
    assert not any(cell["best"] for cell in table["rows"][0]["cells"])


def test_a_task_that_the_chosen_ranker_did_not_learn_marks_nobody_as_chosen() -> None:
    only = {
        **RANKING,
        "rows": [row("click", "logistic", auc=0.6, gauc=0.6, logloss=0.6, ece=0.1), *RANKING["rows"][2:]],
    }
    chances, values = outcomes.tables(only)
    assert [r["main"] for r in chances["rows"]] == [False] and [r["main"] for r in values["rows"]] == [True, False]
    assert [line.split(" ")[0] for line in outcomes.lines(only)] == ["rated"]
