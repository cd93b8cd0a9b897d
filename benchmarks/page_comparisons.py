"""The parts of docs/results.md that compare recommenders: with the reference's own code, and under three splits."""

from __future__ import annotations

from typing import Any

from page_source import source

from fusionrec.evaluation.table import markdown
from fusionrec.studies.splits import rows_for_people as splits_for_people


def parity(found: dict[str, Any]) -> list[str]:
    """Our models against the reference's own code."""

    def difference(r: dict[str, Any], name: str) -> str:
        ends = r[f"{name} interval"]
        return f"{r[f'{name} relative']:+.1%}" + (" [{:+.1%}, {:+.1%}]".format(*ends) if ends else "")

    def within(r: dict[str, Any], name: str) -> str:
        ends = r[f"{name} interval"] or [-1.0, 1.0]
        if abs(r[f"{name} relative"]) <= 0.03:
            return "yes"
        return "not told apart" if ends[0] <= 0.03 and ends[1] >= -0.03 else "no"

    n = len(found["rows"])
    end = sum(within(r, "recall@20") == "yes" for r in found["rows"])
    curve = sum(within(r["curves"], "valid") == "yes" for r in found["rows"])
    text = (
        "Same split, settings and early stopping on the TikTok features (image and audio; the reference gets the audio "
        "features in its place for text), means over seeds on the test. Asked: Recall@20 within 3 %. The epoch at "
        "which early stopping ends a run changes its test result by more than that, so differences have 95 % intervals "
        "over seeds (Welch), and the curves are compared as well: validation Recall@20 and loss, means over the later "
        "half of the epochs that every run of both sides reached. *Not told apart*: the difference is "
        f"larger than 3 %, its interval reaches below. At the end point {end} of {n} are within 3 %, by the curve "
        f"{curve} of {n}.\n"
    )
    rows = [
        {
            "model": r["model"],
            "Recall@20 ours": f"{r['ours']['recall@20']:.4f}",
            "Recall@20 reference": f"{r['reference']['recall@20']:.4f}",
            "difference": difference(r, "recall@20"),
            "within 3 %: end": within(r, "recall@20"),
            "curve: validation": difference(r["curves"], "valid"),
            "within 3 %: curve": within(r["curves"], "valid"),
            "curve: loss": difference(r["curves"], "loss"),
            "epochs of the curve": "{} to {}".format(*r["curves"]["epochs"]),
            "NDCG@20 ours": f"{r['ours']['ndcg@20']:.4f}",
            "NDCG@20 reference": f"{r['reference']['ndcg@20']:.4f}",
            "seeds, ours / reference": f"{len(r['ours']['seeds'])} / {len(r['reference']['seeds'])}",
            "epochs": f"{r['ours']['epochs']:.0f} / {r['reference']['epochs']:.0f}",
            "seconds": f"{r['ours']['seconds']:.0f} / {r['reference']['seconds']:.0f}",
        }
        for r in found["rows"]
    ]
    own = source(found).replace("; 95 % intervals by user bootstrap", "")
    return ["## Parity with the reference code\n", text, markdown(rows), own]


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
