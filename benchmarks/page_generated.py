"""The part of docs/results.md on missing modalities: a mask alone against generated vectors, and whether that helps."""

from __future__ import annotations

from typing import Any

from page_source import source

from fusionrec.evaluation.comparisons import LEVEL
from fusionrec.evaluation.table import markdown

SLICES = {"all": "", "cold": " (new items)"}
METRICS = {"recall@20": "Recall@20", "ndcg@20": "NDCG@20"}


def generated(found: dict[str, Any]) -> list[str]:
    text = (
        "The demo with a further share of all items' modalities lost at random, those of training and of new items "
        "alike: the retriever sees the mask alone, or `generated` puts vectors of a VAE where others of the item are "
        f"there. Means of {found['seeds']} seeds, each with a lottery and a training of its own; the number of "
        f"components is chosen on validation ({widths(found)}). p: paired over users, two-sided, Holm over all "
        f"{len(found['tests'])} comparisons. In the demo each modality carries taste that no other shows, so the "
        "others foretell what an item is, not who likes it.\n"
    )
    return ["## Missing modalities: masked or generated\n", text, markdown(lines(found)), source(found), verdict(found)]


def widths(found: dict[str, Any]) -> str:
    return ", ".join(f"{kind}: {one['width']}" for kind, one in found["tuned"].items())


def lines(found: dict[str, Any]) -> list[dict[str, str]]:
    """A line a retriever and share: each metric masked, then the difference that generating makes."""
    means = {(r["retriever"], r["share"], r["missing"], r["slice"], r["metric"]): r for r in found["quality"]}
    out: dict[tuple[str, float], dict[str, str]] = {}
    for t in found["tests"]:
        line = out.setdefault((t["retriever"], t["share"]), {"retriever": t["retriever"], "lost": f"{t['share']:.0%}"})
        head = METRICS[t["metric"]] + SLICES[t["slice"]]
        base = means[t["retriever"], t["share"], "masked", t["slice"], t["metric"]]
        line[f"{head}, masked"] = f"{base['mean']:.4f} [{base['low']:.4f}, {base['high']:.4f}]"
        p = f"p {t['p_holm']:.3f}" if t["p_holm"] >= 0.001 else "p < .001"
        line[f"{head}, generated minus masked"] = f"{t['difference']:+.4f} [{t['low']:+.4f}, {t['high']:+.4f}], {p}"
    return list(out.values())


def verdict(found: dict[str, Any]) -> str:
    """What the tests say, what the VAE could explain, and how much of what was missing it filled."""
    ways: dict[bool, list[str]] = {True: [], False: []}
    for t in found["tests"]:
        if t["p_holm"] < LEVEL and t["difference"]:
            place = f"{METRICS[t['metric']]}{SLICES[t['slice']]} of {t['retriever']} at {t['share']:.0%}"
            ways[t["difference"] > 0].append(f"{place} ({t['difference']:+.4f})")
    n = len(found["tests"])
    parts = [f"{word} in {len(ways[good])} of {n} comparisons" + (f": {'; '.join(ways[good])}" if ways[good] else "")
             for good, word in ((True, "Better"), (False, "worse"))]  # fmt: skip
    said = (
        ", ".join(parts) + ". "
        if ways[True] or ways[False]
        else f"It does not help: none of {n} differences passes its test. "
    )
    shares = sorted({one["share"] for one in found["generated"]})
    for share in shares:
        runs = [one for one in found["generated"] if one["share"] == share]
        names = sorted({name for one in runs for name in one["filled"]})
        filled = [f"{name} {_share(runs, name)}" for name in names]
        explained = [f"{name} {_explained(runs, name)}" for name in names]
        said += (
            f"With {share:.0%} lost, of the held-out vectors' variance it explains {', '.join(explained)}, and fills "
            f"of what is missing: {', '.join(filled)}. "
        )
    return said.strip() + "\n"


def _share(runs: list[dict[str, Any]], name: str) -> str:
    missing = sum(one["missing"][name] for one in runs)
    return f"{sum(one['filled'][name] for one in runs) / missing:.0%}" if missing else "nothing"


def _explained(runs: list[dict[str, Any]], name: str) -> str:
    values = [one["explained"].get(name, 0.0) for one in runs]
    return f"{sum(values) / len(values):.2f}"
