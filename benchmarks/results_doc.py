"""Writes docs/results.md and the README's table from benchmarks/results/*.json. Every figure there has its command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fusionrec.evaluation.comparisons import standing, verdict
from fusionrec.evaluation.significance import holm
from fusionrec.evaluation.table import markdown, rows_for_people
from fusionrec.studies.benchmark import rows_for_people as rows_of_bench
from fusionrec.studies.splits import rows_for_people as splits_for_people

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


KNOCKED = {
    "all": "all choices",
    "all_has_it": "choices of items that have it",
    "cold_only": "new items",
    "cold_only_has_it": "new items that have it",
}


def read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def source(found: dict[str, Any]) -> str:
    cores, commit = found["machine"].get("cores") or found["machine"]["cpus"], found["commit"][:9]
    return f"*`{found['command']}` on {cores} cores without GPU, commit {commit}; 95 % intervals by user bootstrap.*\n"


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
            **{words: _loss(values[part]) for part, words in KNOCKED.items() if values.get(part, {}).get("n")},
        }
        for name, values in sorted(found["knockout"].items())
    ]
    out.append("Knock-out: what the fused model loses in NDCG@20 when a modality is masked, without retraining.\n")
    out.append(markdown(rows))
    return out


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


def _loss(v: dict[str, float]) -> str:
    return f"{v['loss']:.4f} [{v['low']:.4f}, {v['high']:.4f}]"


def demo(found: dict[str, Any]) -> list[str]:
    rows = [
        {"": r["case"], "measured": f"{r['ours']} {r['unit']}", "bound": f"{r['bound']} {r['unit']}"}
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
        out.append(markdown([{"file": name, "bytes": f"{size:,}"} for name, size in largest]))
    return out


def strengths(found: dict[str, Any]) -> list[str]:
    rows = [
        {
            "catalogue": r["case"],
            **{f"loss without {m}": _loss(v) for m, v in r["knockout"].items()},
            "fused - EASE": f"{r['against']['ease']['difference']:+.4f} (p {r['against']['ease']['p']:.4f})",
            "cold-only / random": f"{r['cold_only_ratio']['value']:.2f}",
        }
        for r in found["rows"]
    ]
    checks = [
        {
            "condition": c["check"],
            "found": f"{c['found']:.4f}",
            "bound": f"{c['bound']:.4f}",
            "": "pass" if c["pass"] else "miss",
        }
        for c in found["checks"]
    ]
    missed = [c["check"].partition(":")[0] for c in found["checks"] if not c["pass"]]
    off = [name for name in missed if name != "default"]
    text = "The generator can turn a modality's taste off; the knock-out must then stay within the bounds below, "
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
                f"fused - {label}": f"{c['difference']:+.4f} (p {c['p_holm']:.4f})"
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
            "": "pass" if r["pass"] else "miss",
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


SETS = {
    "tiktok": "TikTok features (MMSSL split, image and audio; text is absent)",
    "lfm2k": "Last.fm 2K (text, audio, speech)",
    "ml1m": "MovieLens-1M likes with posters and plots (random split of the protocol)",
    "gowalla": "Gowalla (no content; train and validation joined, 2 % held for early stopping)",
}
TARGETS = {
    "tiktok": {"recall@20": (0.108, 0.113), "ndcg@20": (0.0476, 0.0476)},
    "gowalla": {"recall@20": (0.185, 0.188), "ndcg@20": (0.154, 0.154)},
}
PARTS = {
    "main": "everything there",
    "missing30": "30 % of the (item, modality) cells hidden",
    "missing60": "60 % of the cells hidden",
    "cold": "20 % of the items out of train",
}


def recommenders() -> list[str]:
    """A table for every measured set and part; slices of cold items below."""
    out = []
    for name, title in SETS.items():
        found = read(f"recommenders-{name}")
        for part, results in (found or {"parts": {}})["parts"].items():
            data, effort = results["set"], results["effort"]
            out.append(f"### {title}: {PARTS[part]}\n")
            sizes = " / ".join(f"{data[split]:,}" for split in ("train", "valid", "test"))
            out.append(
                f"{data['users']:,} users, {data['items']:,} items, {sizes} pairs in train, validation, test. "
                f"{trials(results['models'])} {effort['seeds']} seeds, at most {effort['minutes']:g} minutes a fit.\n"
            )
            lacks = ", ".join(results.get("without", []))
            out += [f"Not measured yet in this table: {lacks}.\n"] if lacks else []
            out += chosen(results["models"])
            for piece in results["tests"]:
                out += [] if piece == "all" else [f"Slice `{piece}`:\n"]
                out.append(markdown(rows_of_bench(results, piece)))
            out += [_target(name, results)] if part == "main" and name in TARGETS else []
            own = {key: results[key] for key in ("commit", "command", "machine") if key in results}
            out.append(source({**(found or {}), **own}))
    text = (
        "The protocol of the MMRec toolbox: all items ranked, train masked, plain means over users. Parameters are "
        "chosen by validation Recall@20; the test is asked once. Means over seeds, intervals over users. `first`: "
        "better than each other model with p < .05, paired over users, two-sided, Holm over all pairs; else `tied`. "
        "The column `CHOSEN ON TEST`, where there is one, is the field's habit (Recall@20 / NDCG@20 of the trial that "
        "is best on the test set) and is there for comparison only. Every fit (its curve, its validation, the ranks of "
        "its hits) is kept in `benchmarks/results/units`: with unchanged code a command makes its table from them.\n"
    )
    return ["## Recommenders on public sets\n", text, *out] if out else []


def _target(name: str, results: dict[str, Any]) -> str:
    """Whether the house model reached what was set before it was measured."""
    at = {entry["label"]: entry["metrics"] for entry in results["models"]}
    if not at.get("house"):
        return "The house model was not measured.\n"
    lines = []
    for metric, (least, aim) in TARGETS[name].items():
        mean = at["house"]["all"][metric]["mean"]
        word = "missed" if mean < least else "reached" if mean < aim else "passed"
        asked = f"aim {aim:g}" if least == aim else f"at least {least:g}, aim {aim:g}"
        lines.append(f"{metric} {mean:.4f} ({asked}): {word}")
    return f"House model against its targets: {'; '.join(lines)}.\n"


def parity(found: dict[str, Any]) -> list[str]:
    """Our models against the reference's own code."""
    text = (
        "Same split, settings, early stopping and seeds on the TikTok features (image and audio; the reference gets "
        "the audio features in its place for text), means over seeds on the test. Bound: Recall@20 within 3 %.\n"
    )
    rows = [
        {
            "model": r["model"],
            "Recall@20 ours": f"{r['ours']['recall@20']:.4f}",
            "reference": f"{r['reference']['recall@20']:.4f}",
            "difference": f"{r['recall@20 relative']:+.1%}",
            "within 3 %": "yes" if abs(r["recall@20 relative"]) <= 0.03 else "no",
            "NDCG@20 ours": f"{r['ours']['ndcg@20']:.4f}",
            "reference ": f"{r['reference']['ndcg@20']:.4f}",
            "seeds, ours": " ".join(f"{v:.4f}" for v in r["ours"]["seeds"]),
            "seeds, reference": " ".join(f"{v:.4f}" for v in r["reference"]["seeds"]),
            "epochs": f"{r['ours']['epochs']:.0f} / {r['reference']['epochs']:.0f}",
            "seconds": f"{r['ours']['seconds']:.0f} / {r['reference']['seconds']:.0f}",
        }
        for r in found["rows"]
    ]
    own = source(found).replace("; 95 % intervals by user bootstrap", "")
    return ["## Parity with the reference code\n", text, markdown(rows), own]


def trials(models: list[dict[str, Any]]) -> str:
    """How many points of its space each model's search tried, in a sentence."""
    by_number: dict[int, list[str]] = {}
    for entry in models:
        by_number.setdefault(len(entry["trials"]), []).append(entry["label"])
    if set(by_number) <= {0}:
        return "No search here: each model has the parameters that were given."
    told = [f"{number or 'none'} for {', '.join(by_number[number])}" for number in sorted(by_number, reverse=True)]
    return f"Trials of the search on validation: {'; '.join(told)}."


def chosen(models: list[dict[str, Any]]) -> list[str]:
    """What the searches chose, and what the house model is made of."""
    told = []
    for entry in models:
        done = [trial for trial in entry["trials"] if trial["state"] == "done"]
        point = max(done, key=lambda trial: trial["value"])["point"] if done else {}
        values = ", ".join(f"{field} {_plain(value)}" for field, value in sorted(point.items()))
        told += [f"{entry['label']} ({values})"] if values else []
    out = [f"Chosen on validation: {'; '.join(told)}.\n"] if told else []
    house = next((e["chosen"]["retriever"] for e in models if e["label"] == "house"), {})
    parts = [part["kind"] for part in house.get("parts", [])]
    if parts:
        out.append(
            f"House model: a blend of {', '.join(parts)} as their own searches chose them, weighted on validation.\n"
        )
    rows = next((e["chosen"]["retriever"].get("contrast_rows") for e in models if e["label"] == "mgcn"), None)
    if rows:
        out.append(
            f"The contrast of `mgcn` looks at {rows} users and {rows} items of a batch instead of all, to save time "
            "([models](models.md#trained-recommenders)).\n"
        )
    return out


def _plain(value: Any) -> str:
    return " or ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


CATALOGUES = {
    "demo": "The demo catalogue (generated; tastes do not drift in it)",
    "films": "Films with stars and times (MovieLens latest small, 4 stars and more; a private copy)",
}


def splits(found: dict[str, Any]) -> list[str]:
    """The same models under three protocols, one table a catalogue, and what the differences mean."""
    text = (
        "Every model is trained anew under each protocol and ranked over all items. The test sets differ, so only "
        "numbers within a column are tested against each other (paired over users, Holm-corrected).\n"
    )
    out = ["## The same models under three splits\n", text]
    for name, one in found["catalogues"].items():
        out.append(f"### {CATALOGUES[name]}\n")
        out.append(f"{one['metric'].upper()}; test users: {_users(one)}.\n")
        out += [markdown(splits_for_people(one)), " ".join(one["means"]) + "\n"]
    return [*out, source(found)]


def _users(one: dict[str, Any]) -> str:
    return ", ".join(f"{part['name']} {part['users']:,} ({part['pairs']['test']:,} choices)" for part in one["splits"])


def plain(title: str, found: dict[str, Any], columns: tuple[str, ...]) -> list[str]:
    rows = [{c.replace("_", " "): "–" if r.get(c) is None else str(r[c]) for c in columns} for r in found["rows"]]
    return [f"## {title}\n", markdown(rows), source(found).replace("; 95 % intervals by user bootstrap", "")]


def hidden(found: dict[str, Any]) -> str:
    """What hiding a modality costs on the items that have it, and what follows of it."""
    parts = {name: v["all_has_it"] for name, v in sorted(found["knockout"].items())}
    losses = ", ".join(f"{name} {_loss(v)}" for name, v in parts.items())
    shown = [name for name, v in parts.items() if v["low"] is not None and v["low"] > 0]
    others = ", ".join(name for name in parts if name not in shown)
    if not others:
        text = "Every modality carries taste that no other shows."
    elif shown:
        text = f"Of {', '.join(shown)} it is shown that they carry taste that no other modality shows, of {others} not."
    else:
        text = f"Of no modality ({others}) it is shown that it carries taste that no other shows."
    return f"{text} What hiding one from the fused model costs in NDCG@20 of the items that have it: {losses}."


def main() -> None:
    parts = [
        "# Results\n",
        "Written by `python benchmarks/results_doc.py` from `benchmarks/results/`. Weights and stopping points "
        "are chosen on validation; only the evaluate stage reads the test split. One seed; intervals over users.\n",
    ]
    for name, write in (("demo", demo), ("seeds", seeds), ("strengths", strengths), ("drift", drift)):
        found = read(name)
        parts += write(found) if found else []
    parts += recommenders()
    found = read("parity")
    parts += parity(found) if found else []
    found = read("house")
    told = ("parts", "valid_ndcg@20", "valid_ndcg@20 known and new apart", "seconds")
    parts += plain("Parts of the house blend, on the demo's validation split", found, told) if found else []
    movies = read("movies")
    if movies:
        text = (
            "MovieLens-1M likes (at least 4 stars, no timestamps), posters and plots of a private copy; the "
            "data are no part of this repository. Random split by hash, 8:1:1, a fifth of the films "
            "kept out of train. No oracle here.\n"
        )
        parts += ["## Real films\n", text, *quality(movies)]
    columns = ("case", "ours", "peer", "peer_name", "bound", "unit", "ratio_peer", "ratio_bound")
    found = read("splits")
    parts += splits(found) if found else []
    for name, title in (
        ("training", "Speed of training"),
        ("evaluation", "Speed and memory of the evaluation"),
        ("text_encoder", "Which text encoder"),
        ("pipeline", "A run in which nothing changed"),
    ):
        found = read(name)
        parts += plain(title, found, columns) if found else []
    (ROOT / "docs" / "results.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    found = read("demo")
    if found:
        readme = ROOT / "README.md"
        before, _, rest = readme.read_text(encoding="utf-8").partition("<!-- results:demo -->\n")
        _, _, after = rest.partition("<!-- /results:demo -->")
        table = f"\n{markdown(rows_for_people(found['table'], found['tests']))}\n{hidden(found)}\n"
        readme.write_text(f"{before}<!-- results:demo -->{table}<!-- /results:demo -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
