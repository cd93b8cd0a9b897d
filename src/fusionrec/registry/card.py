"""The model card: what the model is, what it was made from, how good it is and where it is not. Markdown.

Mitchell et al., Model Cards for Model Reporting, FAT* 2019. Strings of the catalogue never become markup.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN = ("all", "warm", "cold", "cold_only")


def inert(value: Any, limit: int = 200) -> str:
    """A value as one line of plain text that neither Markdown nor HTML reads as markup."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())[:limit]
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", html.escape(text, quote=True))


def model_card(
    manifest: Mapping[str, Any], about: Mapping[str, Any], *, name: str, rows: Sequence[Mapping[str, Any]],
    sizes: Mapping[str, Any], protocol: Mapping[str, Any], ranker: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    """``manifest``: the model's, ``ranker``: that of the ranker behind it; ``about``: bundle.json; ``rows``: table.json
    (model, label, slice, metric, mean, low, high, n); ``sizes``: what it was made from; ``protocol``: how it was
    measured."""
    lines = [
        "---",
        "library_name: fusionrec",
        "tags: [recommender-system, multimodal]",
        "---",
        "",
        *_what(manifest, about, name, ranker),
        "## Inputs",
        "",
        *_inputs(manifest),
        "",
        "## Data",
        "",
        *(f"- {inert(key)}: {inert(value)}" for key, value in sizes.items()),
        "",
        "## Evaluation",
        "",
        *(f"- {inert(key)}: {inert(value)}" for key, value in protocol.items()),
        "",
        *_table(rows),
        "",
        *_LIMITS,
        *_loading(name),
    ]
    return "\n".join(lines)


_LIMITS = (
    "## Limits",
    "",
    "- Offline metrics on logged behaviour: what users were never shown cannot be found to be good.",
    "- Intervals are 95 % bootstrap intervals over users of one test set; another period may differ by more.",
    "- User ids are keyed pseudonyms, which stay personal data; the bundle's user state is not in MLflow.",
    "- Popularity and selection biases of the log are learnt with the taste.",
    "",
)


def _what(
    manifest: Mapping[str, Any], about: Mapping[str, Any], name: str, ranker: Mapping[str, Any] | None
) -> list[str]:
    kind, modalities = inert(manifest["kind"]), sorted(manifest["modalities"])
    over = f"over {', '.join(inert(m) for m in modalities)}" if modalities else "that uses interactions only"
    return [
        f"# {inert(name)}: {kind}",
        "",
        f"A recommender of kind `{kind}` {over}.",
        *_behind(ranker),
        *([f"The list is put together by `{inert(last['kind'])}`."] if (last := about.get("reranker")) else []),
        "",
        f"- bundle digest: `{about['bundle']}`",
        f"- model digest: `{about['model']}`",
        *([f"- ranker digest: `{about['ranker']}`"] if about.get("ranker") else []),
        f"- catalogue digest: `{about['catalogue']}`",
        f"- seed: {inert(manifest['seed'])}",
        f"- latest training interaction: {inert(manifest['train_end'] or 'the log has no timestamps')}",
        "",
    ]


def _behind(ranker: Mapping[str, Any] | None) -> list[str]:
    if ranker is None:
        return []
    how = ranker["behind"]
    return [
        f"Its first {how['depth']} candidates are put in order by its own score (weight {how['trust']:g}) and by the "
        f"chance of a {inert(how['task'])} that a ranker of kind `{inert(ranker['kind'])}` gives them.",
    ]


def _inputs(manifest: Mapping[str, Any]) -> list[str]:
    return [
        *(
            f"- {inert(name)}: encoder `{inert(modality['encoder'].get('kind', '?'))}`, fingerprint "
            f"`{inert(modality['fingerprint'][:16])}`"
            for name, modality in sorted(manifest["modalities"].items())
        ),
        "- a history of item ids; optionally the pseudonym of a user",
    ]


def _loading(name: str) -> list[str]:
    return [
        "## How to load",
        "",
        "```python",
        "import mlflow",
        f'model = mlflow.pyfunc.load_model("models:/{name}@champion")',
        'model.predict({"history": [\'["item-1", "item-2"]\']}, params={"k": 10})',
        "```",
        "",
        f"Or serve it: `mlflow models serve -m models:/{name}@champion --env-manager local`; "
        "fusionrec must be installed.",
        "",
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The headline slices, one line each; nothing where there are no rows."""
    shown = [r for r in rows if r["slice"] in _SHOWN or str(r["slice"]).startswith("missing_")]
    shown = [r for r in shown if str(r["metric"]).startswith(("ndcg@", "recall@")) and r.get("mean") is not None]
    if not shown:
        return ["No evaluation was recorded."]
    lines = ["| model | slice | metric | mean | 95 % interval | users |", "|---|---|---|---|---|---|"]
    for r in shown:
        bounds = "" if r.get("low") is None else f"{r['low']:.4f} to {r['high']:.4f}"
        what = " | ".join(inert(r[key]) for key in ("label" if "label" in r else "model", "slice", "metric"))
        lines.append(f"| {what} | {r['mean']:.4f} | {bounds} | {r['n']} |")
    return lines
