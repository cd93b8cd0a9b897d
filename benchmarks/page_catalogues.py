"""The parts of docs/results.md about whole catalogues: quality with its tests, costs, knock-out, drift."""

from __future__ import annotations

from typing import Any

from page_lists import around, by_slice, degraded
from page_source import source

from fusionrec.evaluation.comparisons import standing, verdict
from fusionrec.evaluation.significance import holm
from fusionrec.evaluation.table import markdown, rows_for_people

KNOCKED = {
    "all": "all choices",
    "all_has_it": "choices of items that have it",
    "cold_only": "new items",
    "cold_only_has_it": "new items that have it",
}


LARGEST = 12
"""Files that are told one by one."""


def quality(found: dict[str, Any]) -> list[str]:
    """The table, the paired tests, cold items against random, and the knock-out."""
    tests = judged(found["tests"])
    out = [markdown(rows_for_people(found["table"], tests)), source(found)]
    if tests["standing"]:
        out.append(f"By the paired tests below the fused model is {tests['standing']}.\n")
    ratios = tests["ceiling"].get("ratios")
    if ratios:
        r = ratios["all"]["ndcg@20"]
        out.append(f"Fused reaches {r['ratio']:.3f} [{r['low']:.3f}, {r['high']:.3f}] of the oracle's NDCG@20.\n")
    rows = [
        {
            "fused against": c["label"],
            "difference in NDCG@20": f"{c['difference']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}]",
            "p (one-sided, paired, Holm)": f"{c['p_holm']:.4f}",
        }
        for c in tests["comparisons"]
    ]
    out.append(markdown(rows))
    rows = [
        {
            "cold items among themselves": m["label"],
            "Recall@10": f"{m['mean']:.3f}",
            "divided by random's": f"{m['ratio']['value']:.2f} [{m['ratio']['low']:.2f}, {m['ratio']['high']:.2f}]",
            "p against random": f"{m['p']:.4f}",
        }
        for m in tests["cold_only"]["models"]
    ]
    out.append(markdown(rows))
    rows = [
        {
            "masked in evaluation": name,
            **{words: loss(values[part]) for part, words in KNOCKED.items() if values.get(part, {}).get("n")},
        }
        for name, values in sorted(found["knockout"].items())
    ]
    out.append("Knock-out: what the fused model loses in NDCG@20 when a modality is masked, without retraining.\n")
    out.append(markdown(rows))
    return [*out, *degraded(found.get("missing", [])), *around(found.get("beyond", [])), *by_slice(found["table"])]


def judged(tests: dict[str, Any]) -> dict[str, Any]:
    """tests.json with a verdict for each comparison and where the fused model stands.

    Older files hold the one-sided p of "better" alone; that of "worse" is then taken as 1 - p.
    """
    worse = holm({c["against"]: 1 - c["p"] for c in tests["comparisons"] if "verdict" not in c})
    compared = [
        c if "verdict" in c else {**c, "verdict": verdict(c["p_holm"], worse[c["against"]])}
        for c in tests["comparisons"]
    ]
    return {**tests, "comparisons": compared, "standing": standing(compared)}


def loss(v: dict[str, float]) -> str:
    return f"{v['loss']:.4f} [{v['low']:.4f}, {v['high']:.4f}]"


def demo(found: dict[str, Any]) -> list[str]:
    rows = [
        {
            "measure": r["case"],
            "measured": f"{r['ours']} {r['unit']}",
            "allowed": f"{r['bound']} {r['unit']}",
            "within": "yes" if r["ours"] <= r["bound"] else "missed",
        }
        for r in found["rows"]
    ]
    stages = [{"stage": k, "seconds": f"{v:.1f}"} for k, v in found["seconds"].items()]
    out = ["## The demo catalogue\n", *quality(found), "### What it costs\n", markdown(rows), markdown(stages)]
    grown = found.get("one_item_ten_events")
    if grown:
        encoded = ", ".join(f"{n} {m}" for m, n in grown["encoded"].items())
        text = f"One item and ten events more: encoded {encoded}; {grown['partitions']} table partitions changed; "
        out.append(f"{text}{grown['seconds']} s. Files that are always written as a whole:\n")
        largest = sorted(grown["whole_files"].items(), key=lambda f: -f[1])
        out.append(markdown([{"file": name, "bytes": f"{size:,}"} for name, size in largest[:LARGEST]]))
        rest = largest[LARGEST:]
        out += [f"and {len(rest)} more with {sum(size for _, size in rest):,} bytes together.\n"] if rest else []
    return out


def strengths(found: dict[str, Any]) -> list[str]:
    rows = [
        {
            "catalogue": r["case"],
            **{f"loss without {m}": loss(v) for m, v in r["knockout"].items()},
            "fused minus EASE, NDCG@20": "{difference:+.4f} (p {p:.4f})".format(**r["against"]["ease"]),
            "cold-only / random": f"{r['cold_only_ratio']['value']:.2f}",
        }
        for r in found["rows"]
    ]
    checks = [
        {
            "condition": c["check"],
            "found": f"{c['found']:.4f}",
            "bound": f"{c['bound']:.4f}",
            "result": "pass" if c["pass"] else "miss",
        }
        for c in found["checks"]
    ]
    missed = [c["check"].partition(":")[0] for c in found["checks"] if not c["pass"]]
    off = [name for name in missed if name != "default"]
    measured = " and ".join(dict.fromkeys(m for r in found["rows"] for m in r["knockout"]))
    text = f"The generator can turn a modality's taste off (here {measured}); the knock-out must then stay within the "
    text += "bounds below, "
    text += f"and it does not: {', '.join(off)}.\n" if off else "and it does.\n"
    if len(off) < len(missed):
        text += "With every taste on it must show a loss for each modality, and it does not for all of them.\n"
    return ["## Does the knock-out tell the truth?\n", text, markdown(rows), markdown(checks), source(found)]


def seeds(found: dict[str, Any]) -> list[str]:
    """One row a catalogue that the model was not developed on."""
    rows = [
        {
            "catalogue": r["case"],
            **{f"NDCG@20 {m}": f"{r['means'][m]:.3f}" for m in ("oracle", "popularity", "ease", "model")},
            **{
                f"fused minus {label}": f"{c['difference']:+.4f} (p {c['p_holm']:.4f})"
                for label, c in r["comparisons"].items()
                if "popularity" not in label
            },
            "new items, Recall@10 / random": "{value:.2f} [{low:.2f}, {high:.2f}]".format(**r["cold_only_ratio"]),
        }
        for r in found["rows"]
    ]
    text = "Catalogues from seeds that nothing was chosen on; p one-sided, paired, Holm-corrected.\n"
    return ["## Other catalogues\n", text, markdown(rows), source(found)]


def drift(found: dict[str, Any]) -> list[str]:
    """False alarms, planted kinds, speed."""
    calm, many = found["no_drift"], found["ten_thousand"]
    rows = [
        {
            "planted": r["kind"],
            "verdict": r["verdict"],
            "blamed": r["blamed"] or "–",
            "effect": f"{r['ranking'][0]['effect']:.2f}" if r["ranking"] else "–",
            "first reason": r["reasons"][0] if r["reasons"] else "–",
            "as expected": "yes" if r["pass"] else "no",
        }
        for r in found["planted"]
    ]
    text = (
        f"Batches drawn from the reference itself: {calm['alarms']} alarms in {calm['resamples']} (bound "
        f"{calm['bound']}). "
        f"10,000 items against 10,000 in four modalities, vectors and descriptors stored: {many['seconds']:.0f} s "
        f"(bound {many['bound']} s). Effects in standard deviations, capped at 3.\n"
    )
    return ["## Drift\n", text, markdown(rows), source(found).replace("; 95 % intervals by user bootstrap", "")]


def hidden(found: dict[str, Any]) -> str:
    """What hiding a modality costs on the items that have it, and what follows of it."""
    parts = {name: v["all_has_it"] for name, v in sorted(found["knockout"].items())}
    losses = ", ".join(f"{name} {loss(v)}" for name, v in parts.items())
    shown = [name for name, v in parts.items() if v["low"] is not None and v["low"] > 0]
    others = ", ".join(name for name in parts if name not in shown)
    if not others:
        text = "Every modality carries taste that no other shows."
    elif shown:
        text = f"Of {', '.join(shown)} it is shown that they carry taste that no other modality shows, of {others} not."
    else:
        text = f"Of no modality ({others}) it is shown that it carries taste that no other shows."
    return f"{text} What hiding one from the fused model costs in NDCG@20 of the items that have it: {losses}."
