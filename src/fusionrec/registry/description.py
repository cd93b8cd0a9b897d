"""What an approver reads on MLflow's page of a version: the gate's word, what changed, the slices, where the report is.

Markdown; strings of the catalogue or of parameters never become markup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fusionrec.registry.card import inert
from fusionrec.registry.recording import flatten
from fusionrec.registry.verdict import PASSED, comparison

if TYPE_CHECKING:
    from fusionrec.registry.bundle import Bundle

MOST_CHANGES = 12
HEAD = "Gate: "  # the list of versions shows the beginning, and shows it raw


def facts(bundle: Bundle) -> dict[str, Any]:
    """What an approver may ask about a bundle: settings, encoders, and what it was fitted on."""
    manifest = bundle.model.manifest
    return {
        "train": manifest["spec"],
        "ranker": behind(bundle),
        "re-ranker": bundle.about.get("reranker") or "none",
        "modalities": manifest["modalities"],
        "seed": manifest["seed"],
        "latest training interaction": manifest["train_end"],
        "training pairs": len(bundle.pairs),
        "training users": len(bundle.users),
        "catalogue items": len(bundle.catalogue.items),
    }


def behind(bundle: Bundle) -> Any:
    """The ranker that judges the model's candidates, as settings; the word "none" where there is none."""
    if bundle.ranker is None:
        return "none"
    manifest = bundle.ranker.manifest
    how = {key: manifest["behind"][key] for key in ("task", "depth", "trust")}
    return {**manifest["spec"]["ranker"], "seed": manifest["seed"], "behind": how}


def changes(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What differs between two :func:`facts`, one line of text each: "train.retriever.dim: 32 (was 16)"."""
    new, old = (dict(flatten(told)) for told in (ours, theirs))
    lines = []
    for key in sorted(new.keys() | old.keys()):
        name = key.replace("_", " ") if "." not in key else key
        if key not in old:
            lines.append(f"{name}: {new[key]} (new)")
        elif key not in new:
            lines.append(f"{name}: gone (was {old[key]})")
        elif new[key] != old[key]:
            lines.append(f"{name}: {new[key]} (was {old[key]})")
    return lines


def judged(verdict: Mapping[str, Any]) -> str:
    """The first line for a version that passed: a verdict speaks of one champion only."""
    number = re.search(r"\bversion (\d+)", str(verdict.get("opponent", "")))
    while_ = f"while version {number[1]} is champion" if number else "while there is no other champion"
    return f"{HEAD}passed: the alias champion may be moved here {while_}."


def accepted(when: str) -> str:
    """The first line for a version that was made champion; a roll-back is always allowed."""
    return f"{HEAD}passed: accepted as champion {when}; the alias champion may always come back here."


def refused(reason: str) -> str:
    """The first line for a version on which the alias champion does not stay."""
    return f"{HEAD}refused: {inert(reason, 400)}"


def headed(text: str, line: str) -> str:
    """A description with its first line about the gate replaced, or put before what somebody else wrote."""
    first, _, rest = text.partition("\n")
    return f"{line}\n{rest}" if first.startswith(HEAD) or not text else f"{line}\n\n{text}"


def describe(verdict: Mapping[str, Any], changed: Sequence[str] | None, pages: Mapping[str, str]) -> str:
    """``changed``: :func:`changes` against the champion, None where there is none; ``pages``: what to link to, text ->
    address."""
    passed = verdict["verdict"] == PASSED
    lines = [
        judged(verdict) if passed else refused("the alias champion will not stay here."),
        "",
        *((inert(comparison(verdict), 400), "") if "p" in verdict else ()),
        *(f"- {inert(reason, 400)}" for reason in verdict["reasons"]),
        "",
        "**What changed against the champion**",
        "",
        *_changed(changed),
        "",
    ]
    if verdict.get("slices"):
        against = inert(verdict["opponent"])
        lines += [f"| slice | this version | {against} | users |", "|---|---|---|---|"]
        lines += [
            f"| {inert(name)} | {row['challenger']:.4f} | {row['opponent']:.4f} | {row['n']} |"
            for name, row in sorted(verdict["slices"].items())
            if row["n"]
        ]
        lines.append("")
    if pages:
        lines += [" · ".join(f"[{text}]({address})" for text, address in pages.items()), ""]
    return "\n".join(lines)


def _changed(changed: Sequence[str] | None) -> list[str]:
    if changed is None:
        return ["There is no champion yet; this version was compared with recommending what is popular."]
    if not changed:
        return ["Nothing that is recorded here: the same settings on other data of the same size."]
    more = [f"- and {len(changed) - MOST_CHANGES} more"] if len(changed) > MOST_CHANGES else []
    return [*(f"- {inert(line)}" for line in changed[:MOST_CHANGES]), *more]
