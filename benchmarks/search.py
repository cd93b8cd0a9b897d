"""Search on the demo's query log: keywords, vectors, what was clicked before, and all of them together.

    python benchmarks/search.py [--project DIR --home DIR: an embedded project instead of a fresh demo]
                                [--items 80 --users 90: a small demo, printed and not written]

Everything that is learnt or chosen (means of languages, the map from queries to clicked items, weights) sees the
searches before the split's valid days alone; the figures are of the later ones. All items are ranked. A user's value is
the mean over the user's searches; intervals resample users, tests are paired over them, by random signs, two-sided,
Holm over the comparisons of a slice.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from workspace import embedded, write

from fusionrec.config import load as load_params
from fusionrec.demo import words
from fusionrec.embeddings.store import Store
from fusionrec.evaluation.significance import holm, interval, sign_flips
from fusionrec.modalities.text import script
from fusionrec.paths import Paths
from fusionrec.search import past
from fusionrec.search.index import SearchIndex
from fusionrec.search.query import Query, encoded_texts
from fusionrec.search.standard import Standard, unit
from fusionrec.search.weights import CLICKS, KEYWORD, UNTOLD, VECTOR, Weights, blend, ndcg, places
from fusionrec.types import Columns as C

HYBRID = "hybrid"
PLAIN, WEIGHED, ALONE = "keyword + vector", "keyword + vector, weighed by the log", "clicks alone (learnt map)"
K = 10
TESTED = ("ndcg@10", "mrr", "ndcg@10, all clicks")


def systems(index: SearchIndex, later: past.Past, store: Store) -> dict[str, np.ndarray]:
    """System -> (Q, I) scores of the later searches."""
    sides = index.scores(later.texts, store)
    weighed = Weights(**index.learnt.told.get("weights without clicks", vars(UNTOLD)))  # type: ignore[arg-type]
    out = {
        KEYWORD: sides[KEYWORD],
        VECTOR: sides[VECTOR],
        PLAIN: blend({name: sides[name] for name in (KEYWORD, VECTOR)}, UNTOLD),
        WEIGHED: blend({name: sides[name] for name in (KEYWORD, VECTOR)}, weighed),
    }
    if CLICKS in sides:
        out[ALONE] = sides[CLICKS]
    weights = [index.learnt.for_query(text) for text in later.texts]
    rows = [blend({name: s[[at]] for name, s in sides.items()}, w) for at, w in enumerate(weights)]
    return out | {HYBRID: np.concatenate(rows)}


def measured(scores: np.ndarray, later: past.Past, language: np.ndarray) -> dict[str, np.ndarray]:
    """Metric -> (Q,): of the item that the query log names, and of all that were chosen. ``language`` (I,) of items."""
    first = [np.array([item]) for item in later.first]
    at = np.array([place[0] for place in places(scores, first)])
    kin = np.where(language[None] == language[later.first][:, None], scores, -np.inf)
    among = np.array([place[0] for place in places(kin, first)])
    return {
        "ndcg@10": ndcg(scores, first, K),
        "mrr": 1 / (at + 1),
        "recall@10": (at < K).astype(float),
        "recall@10 in its language": (among < K).astype(float),
        "ndcg@10, all clicks": ndcg(scores, later.clicked, K),
    }


def by_user(values: np.ndarray, users: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """(U,) means of each user's searches among ``rows`` (Q,) bool, users by name."""
    names, at = np.unique(np.array(users)[rows], return_inverse=True)
    return np.bincount(at, values[rows], len(names)) / np.bincount(at, minlength=len(names))


def slices(later: past.Past, language: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> (Q,) bool: by the language of the query, and by that and the clicked item's."""
    asked = np.array([script(text) for text in later.texts])
    found = language[later.first]
    out = {"all": np.ones(len(later), bool)}
    out |= {f"asked in {one}": asked == one for one in sorted(set(asked))}
    pairs = [(a, b) for a in sorted(set(asked)) for b in sorted(set(found)) if b]
    return out | {f"{a} for an item in {b}": (asked == a) & (found == b) for a, b in pairs}


def contest(index: SearchIndex, later: past.Past, store: Store) -> dict[str, Any]:
    """Rows by slice and system, and the hybrid's paired tests."""
    language = np.array(index.items[C.LANGUAGE].fill_null("").to_list())
    found = {name: measured(s, later, language) for name, s in systems(index, later, store).items()}
    rows, tests = [], []
    for part, mask in slices(later, language).items():
        users = {n: {m: by_user(v, later.users, mask) for m, v in one.items()} for n, one in found.items()}
        for name, metrics in users.items():
            told = {m: [round(x, 5) for x in (float(v.mean()), *interval(v))] for m, v in metrics.items()}
            rows.append({"slice": part, "system": name, "queries": int(mask.sum()), "users": len(metrics["mrr"]),
                         "metrics": told})  # fmt: skip
        tests += [line for metric in TESTED for line in compared(users, part, metric)]
    return {"systems": rows, "tests": tests}


def compared(users: Mapping[str, Mapping[str, np.ndarray]], part: str, metric: str) -> list[dict[str, Any]]:
    """The hybrid against every other system, and what a log's weights alone make of words and vectors against vectors
    alone, on one metric of one slice."""
    pairs = [(HYBRID, other) for other in users if other != HYBRID]
    pairs += [(WEIGHED, VECTOR)] if {WEIGHED, VECTOR} <= {*users} else []
    lines = []
    for one, other in pairs:
        d = users[one][metric] - users[other][metric]
        low, high = interval(d)
        p = float(sign_flips(d[:, None])[0]) if d.any() else 1.0
        told = {"better by": round(float(d.mean()), 5), "low": round(low, 5), "high": round(high, 5), "p": p}
        lines.append({"slice": part, "metric": metric, "system": one, "against": other, "users": len(d)} | told)
    corrected = holm({str(at): line["p"] for at, line in enumerate(lines)})
    return [{**line, "p_holm": round(corrected[str(at)], 5)} for at, line in enumerate(lines)]


def translated(n: int = 300) -> tuple[list[str], list[str]]:
    """The same n things described in English and in Chinese: the demo's writer draws the same phrases of both."""
    draw = np.random.default_rng(17)
    names = (list(words.NOUN), list(words.OCCASION), list(words.ORIGIN), list(words.VOICE))
    told = [tuple(options[draw.integers(len(options))] for options in names) for _ in range(n)]
    english, chinese = (
        [" ".join(words.describe(np.random.default_rng([17, at]), language, *one)) for at, one in enumerate(told)]
        for language in (0, 1)
    )
    return english, chinese


def across(modality: Any, store: Store) -> list[dict[str, Any]]:
    """Same-item retrieval: of n things described in both languages, the description in one asks for that in the other;
    Recall@10 (and @1) as the encoder gives the vectors, and each language standardised, as the index does."""
    texts = translated()
    have = [encoded_texts(modality, part, store)[0] for part in texts]
    alone = np.zeros(len(texts[0]), np.int16)
    everyone = np.ones(len(alone), bool)
    out = []
    for (one, asked), (other, items) in (
        (("en", have[0]), ("zh", have[1])),
        (("zh", have[1]), ("en", have[0])),
    ):
        standing = Standard(items, everyone, alone, (other,))
        mine = Standard(asked, everyone, alone, (one,))
        for name, scores in (
            ("as encoded", unit(asked) @ unit(items).T),
            ("standardised", mine.rows @ standing.rows.T),
        ):
            rank = (scores > np.diag(scores)[:, None]).sum(1)
            told = {f"recall@{k}": [float((rank < k).mean()), *interval((rank < k).astype(float))] for k in (1, K)}
            out.append({"asked": one, "items": other, "vectors": name, "n": len(rank),
                        **{m: [round(x, 4) for x in v] for m, v in told.items()}})  # fmt: skip
    return out


def speed(index: SearchIndex, texts: Sequence[str]) -> dict[str, Any]:
    """The median time of a text query, encoding included, nothing remembered."""
    index.search(Query(texts[0]))
    took = []
    for text in texts:
        start = time.perf_counter()
        index.search(Query(text), K)
        took.append(time.perf_counter() - start)
    return {"case": f"search-text, {len(index):,} items", "ours": round(float(np.median(took)) * 1000, 1), "peer": None,
            "peer_name": None, "bound": None, "unit": "ms", "ratio_peer": None, "ratio_bound": None}  # fmt: skip


def measure(project: Path, home: Path) -> dict[str, Any]:
    params, paths = load_params(project / "params.yaml"), Paths(project, home)
    until = past.train_ends(paths)
    if until is None:
        raise SystemExit("the split is not by time: no search is later than another")
    index = SearchIndex.build(paths, params.modalities, until)
    later = past.searches(paths, index.ids, since=until)
    store = Store(paths.store)
    out = {"rows": [speed(index, later.texts[:100])], "learnt": dict(index.learnt.told), "later": len(later)}
    out["same item"] = across(params.modalities[index.texts], store) if index.texts else []
    return out | contest(index, later, store)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--items")
    parser.add_argument("--users")
    told = parser.parse_args()
    small = bool(told.items and told.users)
    if told.project:
        content = measure(told.project, told.home or told.project / ".fusionrec")
    else:
        with tempfile.TemporaryDirectory(prefix="fusionrec-search-") as place:
            options = ("--items", told.items, "--users", told.users) if small else ()
            content = measure(embedded(Path(place), None, *options), Path(place) / "home")
    for row in content["systems"]:
        print(row["slice"], "|", row["system"], {m: v[0] for m, v in row["metrics"].items()})
    if small:
        print(json.dumps(content["tests"], indent=1)[:2000])
        print("not written: a small demo")
        return
    write("search", content)


if __name__ == "__main__":
    main()
