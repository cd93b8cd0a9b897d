"""One self-contained HTML page about an evaluation: no script, no request to anywhere, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusionrec.evaluation import answer, drawings, outcomes, page, words
from fusionrec.evaluation.story import BOUNDS, Story
from fusionrec.evaluation.table import MAIN, columns_for, order


def render(story: Story) -> bytes:
    """The page as UTF-8 bytes; the same story gives the same bytes."""
    return page.render(
        "report.html",
        {
            "story": story,
            "answer": answer.answer(story),
            "headline": headline(story),
            "verdict": verdict(story),
            "content": answer.content(story),
            "thinner": answer.thinner(story),
            "new_items": answer.new_items(story),
            "new_users": answer.new_users(story),
            "rows": table_rows(story),
            "categories": category_rows(story),
            "outcomes": outcomes.tables(story.ranking),
            "outcome_verdicts": outcomes.verdicts(story.ranking),
            "plots": drawings.draw(story),
            "cold": cold_rows(story),
            "marks": words.initials(list(story.modalities)),
        },
    )


def headline(story: Story) -> dict[str, Any]:
    """The numbers on the cards: the main metric, its share of the ceiling, its multiple of the floor, cold items."""
    main = story.main()
    floor = story.row("popularity", "all", story.main_metric)
    ratio = story.tests["ceiling"].get("ratios", {}).get("all", {}).get(story.main_metric)
    return {
        "main": main,
        "ratio": ratio,
        "note": story.tests["ceiling"]["note"],
        "times": main["mean"] / floor["mean"] if main and floor and floor["mean"] > 0 else None,
        "cold": story.tests["cold_only"].get("ratio"),
    }


def verdict(story: Story) -> dict[str, Any]:
    """The models that the main one is better than, tied with and worse than, at the 5 % level after Holm."""
    labels = {r["model"]: r["label"] for r in story.table}
    return {
        word: [labels[c["against"]] for c in story.tests["comparisons"] if c["verdict"] == word]
        for word in ("better", "tied", "worse")
    }


def category_rows(story: Story) -> dict[str, Any]:
    """One row a category with a cell for each model, most choices first; the best model of a row is marked."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in story.categories:
        found.setdefault(row["category"], []).append(row)
    rows = list(found.items())
    heads = [row["label"] for row in rows[0][1]] if rows else []
    best = {name: max(row["mean"] for row in models) for name, models in rows}
    return {
        "heads": heads,
        "body": [
            {"name": name, "n": models[0]["n"], "choices": models[0]["choices"], "cells": models, "best": best[name]}
            for name, models in rows
        ],
    }


def table_rows(story: Story) -> dict[str, Any]:
    """Headings and one row a model; the best trained model of each column is marked."""
    columns = columns_for(story.table)
    labels = {r["model"]: r["label"] for r in story.table}
    found = {(r["model"], r["slice"], r["metric"]): r for r in story.table}
    best = {}
    for head, part, metric in columns:
        rows = (found.get((m, part, metric)) for m in labels if m not in BOUNDS)
        best[head] = max((r["mean"] for r in rows if r and r["mean"]), default=None)
    body = []
    for model in order(labels):
        cells = [found.get((model, part, metric)) for _, part, metric in columns]
        body.append(
            {
                "label": labels[model],
                "main": model == MAIN,
                "bound": model in BOUNDS,
                "cells": [
                    {
                        "row": c if c and c["mean"] is not None else None,
                        "best": bool(c and c["mean"] and model not in BOUNDS and c["mean"] == best[head]),
                    }
                    for c, (head, _, _) in zip(cells, columns, strict=True)
                ],
            }
        )
    return {"heads": [c[0] for c in columns], "body": body}


def cold_rows(story: Story) -> list[dict[str, Any]]:
    """Cold-only recall of each model against random, best first."""
    return sorted(story.tests["cold_only"].get("models", []), key=lambda r: (-r["mean"], r["label"]))
