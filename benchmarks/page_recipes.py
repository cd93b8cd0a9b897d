"""docs/recipes.md: the five recipes, what each is for, and the table of them on the demo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from page_source import source

from fusionrec.evaluation.comparisons import LEVEL
from fusionrec.evaluation.outcomes import TASKS, WORDS
from fusionrec.evaluation.table import MAIN, TWO_STAGE, cell, markdown
from fusionrec.registry.ranker import MAIN as RANKER
from fusionrec.registry.ranker import ONLY, WITHOUT

HOUSE = "atelier"
IDEAS = {
    "ctr_net": "User id, item id, their attributes and content side by side, a dense layer of 128, dropout .2, a "
    "sigmoid, cross-entropy. Beside it the same without content (collaborative) and without ids (content); it is the "
    "hybrid.",
    "self_attention_graph": "Words, pictures, sounds and clips attend to each other, softmax(X_i . X_j / sqrt(d)); the "
    "result enters the graph of users and items and travels along its edges.",
    "attention_search": "Words and pictures weighted by how much they say; the same vectors answer searches in words, "
    "by a picture and by voice: `fusionrec search`.",
    "deepfm_conversion": "Text + lambda picture + mu past rating in DeepFM, for clicks and for purchases after them; "
    "the head of the picture encoder is fine-tuned.",
    "cross_modal_alignment": "Pictures, and words and sounds through LSTMs that are learnt here; softmax(W f1 f2') f2 "
    "aligns them; the results are added, concatenated and passed through a dense layer.",
}
CELLS = {
    "Recall@20": "recall@20 all",
    "NDCG@20": "ndcg@20 all",
    "NDCG@10": "ndcg@10 all",
    "new items, Recall@10": "recall@10 cold_only",
}
CHANCE = {"AUC": "auc", "AUC within a user": "gauc", "accuracy": "accuracy", "log loss": "logloss"}


def recipes(found: dict[str, Any]) -> str:
    """The whole page."""
    out = [
        "# Recipes\n",
        "Five designs of recommenders that read content, each one file of [`recipes/`](../recipes). One command runs "
        "one and leaves the project as it is; `fusionrec adopt` makes it the project's state:\n",
        "<!-- not run: minutes; tests/e2e/test_recipes.py runs all five on a small catalogue -->",
        "```bash\nfusionrec repro --recipe ctr_net\n```\n",
        "`fusionrec use ctr_net` makes it params.yaml instead. In Prefect it is the field *recipe* of the pipeline's "
        "form. Any other parameter joins with `--set key=value`, in Prefect in the field *set*.\n",
        "| recipe | idea | encoders | model, fusion | ranker |\n|---|---|---|---|---|",
    ]
    for name, idea in IDEAS.items():
        told = found["recipes"][name]["labels"] if name in found["recipes"] else {}
        out.append(
            f"| `{name}` | {idea} | {encoders(name, told)} | {told.get('model', '')} | {told.get('ranker', '')} |"
        )
    out += ["", *instead(found), "## On the demo\n", *table(found), *clicks(found), *said(found), *commits(found)]
    return "\n".join(out)


HUB = {"attention_search": "a Vision Transformer of a hub", "cross_modal_alignment": "VGG16 of a hub"}


def encoders(name: str, told: dict[str, str]) -> str:
    """What the file names; where only a hub has it, what it was measured with."""
    text = told.get("encoders", "")
    return text.replace("image: ", f"image: {HUB[name]}, measured with ", 1) if name in HUB and text else text


SINCE = {
    "deepfm_conversion": (
        "28124b89d",
        "the scale of a fine-tuned head's inputs that hardly vary among the items of training was bounded",
    )
}
"""Recipe -> the commit it was measured at, and what of it is otherwise now; told until it is measured again."""


def commits(found: dict[str, Any]) -> list[str]:
    """The command, and which commit each recipe was measured at."""
    at: dict[str, list[str]] = {}
    for name, one in ordered(found):
        at.setdefault(one.get("commit", found["commit"]), []).append(
            "the house model" if name == HOUSE else f"`{name}`"
        )
    head, tail = source({**found, "command": "python benchmarks/recipes.py"}).split(", commit ")
    told = "; ".join(
        f"{commit[:9]} ({', '.join(names)})" if len(at) > 1 else commit[:9] for commit, names in at.items()
    )
    since = [
        f"`{name}` was measured before {what}."
        for name, (commit, what) in SINCE.items()
        if found["recipes"].get(name, {}).get("commit", "").startswith(commit)
    ]
    return [f"{head}, commit {told};{tail.partition(';')[2]}", *since]


def instead(found: dict[str, Any]) -> list[str]:
    """Which rows were measured with another encoder than the file names."""
    names = [name for name, one in ordered(found) if one["instead"]]
    if not names:
        return []
    told = " and ".join(f"`{name}`" for name in names)
    verb = "names" if len(names) == 1 else "name"
    return [
        f"{told} {verb} a picture encoder that only a hub has (a Vision Transformer, VGG16). Without a hub, and in the "
        "tables below, the packaged one stands in:\n",
        "<!-- not run: minutes; tests/e2e/test_recipes.py runs it on a small catalogue -->",
        f"```bash\nfusionrec repro --recipe {names[0]} \\\n"
        '  --set "modalities.image.encoder={kind: efficientnet_lite0}"\n```\n',
    ]


def ordered(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The house, then the recipes as they are told of."""
    return [(name, found["recipes"][name]) for name in (HOUSE, *IDEAS) if name in found["recipes"]]


def name_of(model: str, name: str) -> str:
    if model == MAIN:
        return f"**{'house model' if name == HOUSE else name}**"
    return {TWO_STAGE: "fused, then its ranker"}.get(model, f"{model.removeprefix(ONLY)} alone")


def table(found: dict[str, Any]) -> list[str]:
    """Lists: the house, then each recipe above itself on one modality alone."""
    lines = []
    for name, one in ordered(found):
        mine = sorted(one["lists"], key=lambda row: (row["model"] != MAIN, row["model"] != TWO_STAGE, row["model"]))
        for row in mine:
            if row["model"] in (MAIN, TWO_STAGE) or (row["model"].startswith(ONLY) and name != HOUSE):
                cells = {head: span(row[key]) if key in row else "–" for head, key in CELLS.items()}
                lines.append({"model": name_of(row["model"], name), **cells})
    counts = {one["seeds"] for name, one in ordered(found) if name != HOUSE}
    how = "of one seed" if counts == {1} else f"means of {' or '.join(map(str, sorted(counts)))} seeds"
    house = found["recipes"][HOUSE]["seeds"]
    how += "" if counts == {house} else f" (the house model: of {house})"
    text = f"Lists for the test users, {how}. New items: ranked among themselves.\n"
    return [text, markdown(lines), ""]


def clicks(found: dict[str, Any]) -> list[str]:
    """Clicks and purchases foreseen on the test impressions, by each recipe's ranker and itself with less."""
    lines = []
    for name, one in ordered(found):
        for row in sorted(one["clicks"], key=lambda row: (row["task"], row["ranker"] != RANKER, row["ranker"])):
            if row["ranker"] == RANKER or row["ranker"].startswith((ONLY, WITHOUT)):
                cells = {head: span(row["metrics"][key]) for head, key in CHANCE.items()}
                lines.append({"task": TASKS[row["task"]], "ranker": ranker_name(name, row["ranker"]), **cells})
    shares = next(iter(found["recipes"].values()))["shares"]
    no = " and ".join(f"{TASKS[task]} {1 - share:.3f}" for task, share in shares.items())
    fused, alone = (accuracies(found, which) for which in (lambda r: r == RANKER, lambda r: r.startswith(ONLY)))
    text = (
        f"Predictions of what comes of an impression. Always answering no has this accuracy: {no}. So an accuracy near "
        "it says nothing: look at AUC and log loss. (The articles that the designs come from claim an accuracy of "
        f".85 fused against .70 of one kind of content. Here the recipes foresee clicks right {span_of(fused)} of the "
        f"time, on one modality {span_of(alone)}.)\n"
    )
    return [text, markdown(lines), ""]


def accuracies(found: dict[str, Any], which: Callable[[str], bool]) -> list[float]:
    """Of the recipes' rankers that are meant: how often they are right about clicks."""
    rows = [row for name, one in ordered(found) if name != HOUSE for row in one["clicks"]]
    return [row["metrics"]["accuracy"][0] for row in rows if row["task"] == "click" and which(row["ranker"])]


def span_of(values: list[float]) -> str:
    return f"{min(values):.3f} to {max(values):.3f}"


def ranker_name(name: str, ranker: str) -> str:
    own = "house model" if name == HOUSE else name
    if ranker == RANKER:
        return f"**{own}**"
    if ranker.startswith(WITHOUT):
        return f"without {ranker.removeprefix(WITHOUT)}"
    return f"{ranker.removeprefix(ONLY)} alone"


def span(values: list[float | None]) -> str:
    mean, low, high = values
    return cell({"mean": mean, "low": low, "high": high, "n": 2})


def said(found: dict[str, Any]) -> list[str]:
    """The paired tests in words."""
    out = []
    for name, _ in ordered(found):
        lines = [t for t in found["tests"] if t["recipe"] == name and name != HOUSE]
        parts = [two_stages(t) for t in found["tests"] if t["recipe"] == name and t["against"] == TWO_STAGE]
        for (task, metric), tests in grouped(lines).items():
            how: dict[str, list[str]] = {}
            for t in tests:
                how.setdefault(verdict(t), []).append(against(t["against"]))
            what = f"lists ({metric.upper()})" if task is None else f"{TASKS[task]} ({WORDS[metric]})"
            parts.append(f"{what} " + ", ".join(f"{WITH[word]} {', '.join(who)}" for word, who in how.items()))
        out += [f"- {'the house model' if name == HOUSE else f'`{name}`'}: " + "; ".join(parts) + "."] if parts else []
    return ["Paired tests over users, Holm-corrected, p < .05; *better*: the recipe is.\n", *out, ""]


def two_stages(test: dict[str, Any]) -> str:
    by = f"{test['better by']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}], p {test['p']:.3f}"
    return f"lists with its ranker behind it ({test['metric'].upper()}) {WITH[verdict(test)]} those without ({by})"


WITH = {"better": "better than", "worse": "worse than", "tied": "tied with"}


def grouped(lines: list[dict[str, Any]]) -> dict[tuple[str | None, str], list[dict[str, Any]]]:
    out: dict[tuple[str | None, str], list[dict[str, Any]]] = {}
    for line in lines:
        if line["against"].startswith((ONLY, WITHOUT)) or line["against"] == HOUSE:
            out.setdefault((line.get("task"), line["metric"]), []).append(line)
    return out


def against(name: str) -> str:
    if name.startswith(WITHOUT):
        return f"without {name.removeprefix(WITHOUT)}"
    if name.startswith(ONLY):
        return f"{name.removeprefix(ONLY)} alone"
    return {HOUSE: "the house model"}[name]


def verdict(test: dict[str, Any]) -> str:
    if test["p_holm"] >= LEVEL or test["better by"] is None:
        return "tied"
    return "better" if test["better by"] > 0 else "worse"
