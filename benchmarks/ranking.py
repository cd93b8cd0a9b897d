"""Rankers on impressions that happened: click, conversion, ad click, rating on the demo; like or rating on real films
where FUSIONREC_MOVIES names them (a private copy, never part of this repository). And the speed of an epoch.

    python benchmarks/ranking.py [--only demo likes stars speed] [--seeds 3] [--models deepfm,...]
                                 [--items 80 --users 90: a small demo, printed and not written]

Everybody has the same impressions: train learns, valid stops early, test is asked once. Each impression's user is known
by what the user had chosen strictly before it. Intervals resample users; tests are paired over users (each user's own
AUC, mean log loss or squared error, averaged over seeds), by random signs, two-sided, Holm over a task's comparisons.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from workspace import RESULTS, embedded, write

from fusionrec.config import load as load_params
from fusionrec.data import outcomes, split, tables
from fusionrec.data.positives import positive_pairs
from fusionrec.embeddings import base as embeddings
from fusionrec.evaluation.significance import holm, interval, sign_flips
from fusionrec.paths import Paths
from fusionrec.ranking import AnyRanker, frame
from fusionrec.ranking.base import Impressions, Known, Ranker
from fusionrec.ranking.judging import Judgement, judge
from fusionrec.types import Columns as C
from fusionrec.types import Interactions, ItemSet, concat_interactions

TASKS = ("click", "conversion", "ad_click", "like", "rating")
MODELS: dict[str, dict[str, Any]] = {
    "biases": {"kind": "biases"},
    "logistic": {"kind": "logistic"},
    "boosting": {"kind": "boosting"},
    "concat_dense": {"kind": "concat_dense"},
    "deepfm": {"kind": "deepfm"},
    "dcn_v2": {"kind": "dcn_v2"},
    "deepfm, MMoE": {"kind": "deepfm", "head": {"kind": "mmoe"}},
    "deepfm, ESMM": {"kind": "deepfm", "head": {"kind": "esmm"}},
}
ALONE = "deepfm, conversion alone"
WITHOUT = " without content"
COMPARED = ("gauc", "logloss", "mse")
"""What paired tests look at: of probabilities the first two, of values the third."""


@dataclass(frozen=True)
class Data:
    """Impressions of the three parts, what is known in training, and the positives by which users are known when asked:
    every one with its time, without times those of train."""

    train: Impressions
    valid: Impressions
    test: Impressions
    known: Known
    positives: Interactions


def read(project: Path) -> Data:
    """A project whose stages up to embed have run."""
    params, paths = load_params(project / "params.yaml"), Paths(project, project.parent / "home")
    log = tables.accepted(paths, "interactions")
    pairs = positive_pairs(log, params.positives.events)
    first = log[C.TIME].min() if C.TIME in log.columns else None
    first_day = first.date() if first is not None else None
    rows = outcomes.outcomes(log).rows
    place = outcomes.place(params.split, rows, pairs, params.split.place(pairs, first_day), first_day)
    data = split.load(paths, ("train", "valid", "test"))
    items = embeddings.load(paths, tuple(params.modalities))
    parts = [rows.filter(place == at) for at in range(3)]
    surfaces = frame.surfaces_of(parts[0])
    users = tables.read(paths, "users") if (paths.tables / "users").is_dir() else None
    shown = [frame.impressions(part, data.items, data.users, surfaces) for part in parts]
    known = Known(items, frame.user_set(users, data.users), data.train)
    # Without times nothing is known to have been before an impression but what training knows.
    later = [data.valid, data.test] if data.train.time is not None else []
    return Data(*shown, known, concat_interactions([data.train, *later]))


def fit(section: dict[str, Any], tasks: list[str], data: Data, content: bool, seed: int) -> tuple[Ranker, float]:
    known = data.known
    if not content:
        known = Known(known.items.only(), known.users, known.history)
    ranker: Ranker = TypeAdapter(AnyRanker).validate_python({"tasks": tasks, **section}).build()
    start = time.monotonic()
    ranker.fit(data.train, data.valid, known, seed=seed)
    return ranker, time.monotonic() - start


def contest(data: Data, seeds: int, names: list[str]) -> dict[str, Any]:
    """Every model with content, the networks also without; -> rows by task and the paired tests."""
    tasks = [t for t in TASKS if np.isfinite(data.train.labels[t]).any() and np.isfinite(data.test.labels[t]).any()]
    entries = {name: (section, tasks, True) for name, section in MODELS.items() if not names or name in names}
    if not {"click", "conversion"} <= set(tasks):
        entries.pop("deepfm, ESMM", None)
    elif not names:
        entries[ALONE] = (MODELS["deepfm"], ["conversion"], True)
    deep = [
        name for name in entries if entries[name][0]["kind"] not in ("biases", "logistic", "boosting") and name != ALONE
    ]
    entries |= {name + WITHOUT: (entries[name][0], tasks, False) for name in deep}
    found: dict[str, list[dict[str, Judgement]]] = {}
    seconds: dict[str, float] = {}
    for name, (section, wanted, content) in entries.items():
        made = [fit(section, wanted, data, content, seed) for seed in range(seeds)]
        found[name] = [judge(ranker, data.test, data.positives) for ranker, _ in made]
        seconds[name] = float(np.median([took for _, took in made]))
        print(name, f"{seconds[name]:.0f} s", {t: headline(j) for t, j in found[name][0].items()}, flush=True)
    return {"rows": table(found, seconds, tasks), "tests": tests(found, tasks), "sizes": sizes(data, tasks)}


def headline(one: Judgement) -> str:
    return ", ".join(
        f"{name} {one.mean[name]:.4f}" for name in ("auc", "gauc", "logloss", "ece", "rmse") if name in one.mean
    )


def table(
    found: dict[str, list[dict[str, Judgement]]], seconds: dict[str, float], tasks: list[str]
) -> list[dict[str, Any]]:
    """One row a task and model: means over seeds of the value and of the bounds of its interval."""
    rows = []
    for task in tasks:
        for name, runs in found.items():
            of = [one[task] for one in runs if task in one]
            if not of:
                continue
            told = {metric: [mean_of(of, part, metric) for part in ("mean", "low", "high")] for metric in of[0].mean}
            rows.append(
                {
                    "task": task,
                    "model": name,
                    "n": of[0].n,
                    "seeds": len(of),
                    "seconds": round(seconds[name], 1),
                    "metrics": told,
                }
            )
    return rows


def mean_of(runs: list[Judgement], part: str, metric: str) -> float:
    return round(float(np.mean([getattr(one, part)[metric] for one in runs])), 6)


def tests(found: dict[str, list[dict[str, Judgement]]], tasks: list[str]) -> list[dict[str, Any]]:
    """Each network against itself without content and against logistic regression; ESMM against conversion alone."""
    pairs = [(n, n + WITHOUT) for n in found if n + WITHOUT in found]
    pairs += [(n, "logistic") for n in found if "logistic" in found and n + WITHOUT in found]
    pairs += [("deepfm, ESMM", ALONE)] if ALONE in found and "deepfm, ESMM" in found else []
    out = []
    for task in tasks:
        lines = []
        for a, b in pairs:
            if not (task in found[a][0] and task in found[b][0]) or (b == ALONE and task != "conversion"):
                continue
            for metric in COMPARED:
                if metric not in found[a][0][task].users:
                    continue
                x, y = (np.mean([run[task].users[metric] for run in found[name]], axis=0) for name in (a, b))
                d = (x - y) * (1 if metric == "gauc" else -1)  # positive: a is better
                d = d[~np.isnan(d)]
                low, high = interval(d)
                p = float(sign_flips(d[:, None])[0]) if len(d) else 1.0
                told = {"better by": float(d.mean()), "low": low, "high": high, "p": p}
                line = {"task": task, "metric": metric, "model": a, "against": b, "users": len(d)}
                lines.append(line | {key: round(value, 6) for key, value in told.items()})
        corrected = holm({str(at): line["p"] for at, line in enumerate(lines)})
        out += [{**line, "p_holm": round(corrected[str(at)], 6)} for at, line in enumerate(lines)]
    return out


def sizes(data: Data, tasks: list[str]) -> dict[str, Any]:
    parts = {"train": data.train, "valid": data.valid, "test": data.test}
    return {
        name: {
            task: [int(np.isfinite(part.labels[task]).sum()), round(float(np.nanmean(part.labels[task])), 4)]
            for task in tasks
        }
        for name, part in parts.items()
        if len(part)
    }


def likes(params: dict[str, Any]) -> None:
    """MovieLens 1M: who rated a film at least 4 liked it, the others did not; no times. The random split."""


def stars(params: dict[str, Any]) -> None:
    """MovieLens latest small: stars and times; each user's last ones are asked."""
    params["source"]["interactions"] = {
        "file": "interactions_latest_small.csv", "columns": {"value": "rating"}, "constants": {"event": "rating"}
    }  # fmt: skip
    params["positives"] = {"events": {"rating": 4.0}}
    params["split"] = {"kind": "leave_last_out"}


def speed(impressions: int = 1_000_000, users: int = 50_000, items: int = 20_000) -> list[dict[str, Any]]:
    """An epoch of DeepFM over made-up impressions, in a process of its own, and its matrix products alone."""
    import resource

    import torch

    from fusionrec.ranking.base import UserSet

    rng = np.random.default_rng(0)
    features = {m: rng.normal(size=(items, 64)).astype(np.float32) for m in ("image", "text")}
    known_items = ItemSet(
        tuple(map(str, range(items))), features, {m: np.ones(items, bool) for m in features},
        {m: np.zeros(items, np.int16) for m in features},
    )  # fmt: skip
    n = impressions
    user, item = rng.integers(0, users, n).astype(np.int32), (items * rng.random(n) ** 2).astype(np.int32)
    click = (rng.random(n) < 0.25).astype(np.float32)
    at = np.sort(rng.integers(0, 10**12, n))
    shown = Impressions(user, item, at, {"position": rng.integers(1, 13, n).astype(np.int16)}, {"click": click})
    chosen = click > 0
    history = Interactions(user[chosen], item[chosen], at[chosen], users, items)
    region = rng.integers(0, 9, users).astype(np.int32)
    known = Known(known_items, UserSet(tuple(map(str, range(users))), {"region": region}, {"region": 9}), history)
    marks: list[float] = []
    how = {"epochs": 3, "batch": 4096, "patience": 0}
    ranker = TypeAdapter(AnyRanker).validate_python({"kind": "deepfm", "training": how}).build()
    ranker.fit(shown, shown.select(np.arange(10)), known, watch=lambda e, v: marks.append(time.monotonic()))
    seconds = float(np.median(np.diff(marks)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    net = ranker.net  # type: ignore[attr-defined]
    shapes = [tuple(m.weight.shape) for m in net.modules() if isinstance(m, torch.nn.Linear)]
    x = {
        shape: (torch.randn(4096, shape[1]), torch.randn(*shape), torch.randn(4096, shape[0])) for shape in set(shapes)
    }

    def products() -> None:  # forward, and backward for the input and the weight
        for shape in shapes:
            a, w, g = x[shape]
            _ = a @ w.T, g @ w, g.T @ a

    products()
    start = time.monotonic()
    for _ in range(20):
        products()
    bound = (time.monotonic() - start) / 20 * (n / 4096)
    return [
        {"case": "deepfm-epoch", "ours": round(seconds, 1), "peer": None, "peer_name": None, "bound": round(bound, 1),
         "unit": "s", "ratio_peer": None, "ratio_bound": round(bound / seconds, 3)},
        {"case": "deepfm-epoch memory", "ours": round(peak, 2), "peer": None, "peer_name": None, "bound": 4.0,
         "unit": "GiB", "ratio_peer": None, "ratio_bound": round(4.0 / peak, 2)},
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("demo", "likes", "stars", "speed"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", type=lambda text: text.split(","), default=[])
    parser.add_argument("--items")
    parser.add_argument("--users")
    told = parser.parse_args()
    small = bool(told.items and told.users)
    old = RESULTS / "ranking.json"
    content: dict[str, Any] = json.loads(old.read_text()) if old.is_file() else {"rows": [], "sets": {}}
    content = {key: content[key] for key in ("rows", "sets")}
    for name, change in (("demo", None), ("likes", likes), ("stars", stars)):
        if name not in (told.only or (name,)) or (small and name != "demo"):
            continue
        if change is not None and not os.environ.get("FUSIONREC_MOVIES"):
            print(f"{name}: skipped, FUSIONREC_MOVIES is not set")
            continue
        with tempfile.TemporaryDirectory(prefix="fusionrec-ranking-") as place:
            options = ("--items", told.items, "--users", told.users) if small else ()
            data = read(embedded(Path(place), change, *options))
            content["sets"][name] = contest(data, told.seeds, told.models)
    if "speed" in (told.only or ("speed",)) and not small:
        content["rows"] = speed()
        print(*content["rows"], sep="\n")
    if small or told.models:
        print(json.dumps(content["sets"].get("demo", {}), indent=1)[:2000])
        print("not written: a small demo, or some of the models")
        return
    write("ranking", content)


if __name__ == "__main__":
    main()
