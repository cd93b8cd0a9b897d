"""The report's sentences: what the numbers say to somebody who has to decide and does not read tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusionrec.evaluation import words
from fusionrec.evaluation.knockout import EVERY, HAS_IT
from fusionrec.evaluation.story import Story


def answer(story: Story) -> list[str]:
    """The paragraph at the top: what this model is, how much better than what, how sure, how far from the possible."""
    facts = story.facts
    seen = f"{words.thousands(facts['train'])} choices of {words.thousands(facts['users'])} users"
    reads = f"reads the {words.listed(list(story.modalities))} of" if story.modalities else "knows"
    what = f"“{story.label}” learnt from {seen} and {reads} {words.thousands(facts['n_items'])} items."
    main = story.main()
    if main is None:
        return ["There is nobody to test on, so nothing can be said about how good this model is.", what]
    out = [lead(story), what]
    recall = story.main(metric=f"recall@{story.k}")
    if recall is not None:
        out.append(
            f"Of what a person chose afterwards, {words.percent(recall['mean'])} is among its first {story.k} "
            f"recommendations{_interval(recall)}."
        )
    if story.main_metric != f"recall@{story.k}":
        name = words.metric(story.main_metric)
        out.append(
            f"{name}, which also counts how far up it stands, is {words.number(main['mean'])}{words.between(main)}."
        )
    out += against_best(story)
    return [*out, possible(story)]


def lead(story: Story) -> str:
    """The one sentence for whoever reads no more: does it beat what it was tested against?"""
    tests = story.tests["comparisons"]
    others = [t["label"] for t in tests if t["verdict"] != "better"]
    behind = [t["label"] for t in tests if t["verdict"] == "worse"]
    if not tests:
        return "This model was tested against no other."
    if not others:
        whom = "the one other" if len(tests) == 1 else f"all {len(tests)} others"
        return f"This model recommends better than {whom} it was tested against."
    if behind:
        return f"This model recommends worse than {words.listed(behind)}."
    if len(others) == len(tests):
        return f"This model is tied with {words.listed(others)}: not shown to be better."
    beaten = f"{len(tests) - len(others)} of the {len(tests)} others it was tested against"
    return (
        f"This model recommends better than {beaten}; it is tied with {words.listed(others)}: not shown to be better."
    )


def _interval(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return ""
    return f" (95\u202f% interval {words.percent(row['low'])} to {words.percent(row['high'])})"


def against_best(story: Story) -> list[str]:
    """The main model against the best single modality and against the best baseline."""
    found = {test["against"]: test for test in story.tests["comparisons"]}
    asked = [(story.tests.get("best_single"), "the best single modality"), (story.best_baseline(), "the best baseline")]
    out = []
    for name, role in asked:
        if name in found:
            other = story.row(str(name), "all", story.main_metric)
            out.append(against(found[name], f"{role} ({found[name]['label']})", other["mean"] if other else 0.0))
    return out


def against(test: Mapping[str, Any], other: str, level: float) -> str:
    """One comparison in words: the size, its share of the other's score ``level``, and how sure it is."""
    size = words.signed(test["difference"])
    if test["low"] is not None:
        size += f", 95\u202f% interval {words.signed(test['low'])} to {words.signed(test['high'])}"
    share = f"{words.percent(abs(test['difference']) / level)} " if level > 0 else ""
    if test["verdict"] == "better":
        return f"It is {share}better than {other}: {size}; chance alone shows as much {words.chance(test['p_holm'])}."
    if test["verdict"] == "worse":
        return f"It is {share}worse than {other}: {size}."
    return f"It is not shown to be better than {other}: {size}, which may well be chance."


def possible(story: Story) -> str:
    """The share of the best possible score, where it is known."""
    ratio = story.tests["ceiling"].get("ratios", {}).get("all", {}).get(story.main_metric)
    if ratio is None:
        return "How good the best possible recommendations would be is not known for this data."
    return (
        f"It reaches {words.percent(ratio['ratio'])} of the best possible {words.metric(story.main_metric)}, the "
        f"{words.number(ratio['oracle'])} of somebody who knows everyone's true taste."
    )


def content(story: Story) -> list[str]:
    """What each modality is worth to the model: one sentence each."""
    by = {(r["modality"], r["slice"]): r for r in story.knockouts}
    out = []
    for name in dict.fromkeys(r["modality"] for r in story.knockouts):
        overall = by[name, "all"]
        if not overall["n"]:
            continue
        where = "" if name == EVERY else f" ({words.percent(story.carried.get(name))} of the items have it)"
        parts = [f"over all choices {_loss(overall)}"]
        own = by.get((name, f"all{HAS_IT}"))
        if name != EVERY and own and own["n"] and story.carried.get(name, 1.0) < 1:
            parts.append(f"where the chosen item has it {_loss(own)}")
        new = by.get((name, f"cold_only{HAS_IT}"))
        if new and new["n"]:
            parts.append(f"among new items {'' if name == EVERY else 'that have it '}{_loss(new)}")
        out.append(f"Without {name}{where} the model loses {'; '.join(parts)}.")
    return out


def _loss(row: Mapping[str, Any]) -> str:
    if row["loss"] is None or row["low"] is None:
        return "an unknown amount (too few users)"
    if row["low"] <= 0 <= row["high"]:
        return f"nothing that is sure ({words.signed(row['loss'])})"
    sure = f"p\u00a0{words.p_value(row['p'])}" if row["loss"] > 0 else "it does better without"
    share = f", {words.percent(row['loss'] / row['full'])} of its score" if row["full"] and row["loss"] > 0 else ""
    return f"{words.number(row['loss'])}{share} ({sure})"


def thinner(story: Story) -> str:
    """The missing-modality curve in a sentence; empty where there is none."""
    curve = [r for r in story.missing if r["hidden"] == EVERY]
    if len(curve) < 2 or not curve[0]["score"]:
        return ""
    full, name = curve[0]["score"], words.metric(story.main_metric)
    steps = [
        f"{words.number(r['score'])} ({words.percent(r['score'] / full)}) with {words.percent(r['share'])} missing"
        for r in curve[1:]
    ]
    of = "" if curve[0]["n"] == story.facts["asked"] else f", over {words.thousands(curve[0]['n'])} of the users"
    return f"{name} is {words.number(full)} with everything there{of}, {words.listed(steps)}."


def new_items(story: Story) -> list[str]:
    """How the model does on items that nobody had touched before."""
    facts, cold = story.facts, story.tests["cold_only"]
    if not facts["cold_items"]:
        return ["Every item has training history: there are no new items."]
    share = facts["cold_pairs"] / max(facts["pairs"], 1)
    out = [
        f"{words.thousands(facts['cold_items'])} of {words.thousands(facts['n_items'])} items have no training "
        f"history; {words.percent(share)} of the choices tested are of such items."
    ]
    ratio = cold.get("ratio")
    if ratio:
        among = next(m["mean"] for m in cold["models"] if m["ratio"] == ratio)
        out.append(
            f"Choosing among new items only, {words.percent(among)} of what people took is among the first "
            f"{cold['metric'].partition('@')[2]}: {words.times(ratio['value'])} what chance would give (95\u202f% "
            f"interval {words.times(ratio['low'])} to {words.times(ratio['high'])})."
        )
    mixed = story.main("cold", f"recall@{story.k}")
    if mixed:
        out.append(
            f"Among all items, where they compete with known ones, {words.percent(mixed['mean'])} is among the first "
            f"{story.k}{_interval(mixed)}."
        )
    return out


def new_users(story: Story) -> list[str]:
    """How the model does for users without, and with little, history."""
    out = []
    overall, name = story.main(), words.metric(story.main_metric)
    for part, who, nobody in (
        ("history_none", "without any history", "No user without history is in the test."),
        ("history_few", "with 1 to 3 earlier choices", "No user with 1 to 3 earlier choices is in the test."),
    ):
        row, floor = story.main(part), story.row("popularity", part, story.main_metric)
        if row is None or overall is None:
            out.append(nobody)
            continue
        users = f"{words.thousands(row['n'])} user{'' if row['n'] == 1 else 's'}"
        told = f"For {users} {who} {name} is {words.number(row['mean'])}{words.between(row)}"
        if floor is not None:
            told += f"; showing everyone the most popular items gives {words.number(floor['mean'])}"
        out.append(f"{told}; over all users it is {words.number(overall['mean'])}.")
    return out
