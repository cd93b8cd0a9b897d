"""Rankers on impressions that happened: click, conversion, ad click, rating on the demo; like or rating on real films
where FUSIONREC_MOVIES names them (a private copy, never part of this repository). And the speed of an epoch.

    python benchmarks/ranking.py [--only demo few likes stars speed] [--seeds 3] [--models deepfm,...]
                                 [--items 80 --users 90: a small demo, printed and not written]

Everybody has the same impressions: train learns, valid stops early, test is asked once. Each impression's user is known
by what the user had chosen strictly before it. Intervals resample users; tests are paired over users (each user's own
AUC, mean log loss or squared error, averaged over seeds), by random signs, two-sided, Holm over a task's comparisons.
`few` is the demo where conversions are few: of a tenth of the impressions of train and valid it is known whether they
were bought, of all whether they were clicked; ESMM, which learns from both, against the conversion model alone.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from workspace import RESULTS, about, embedded, write

from fusionrec.config import load as load_params
from fusionrec.data import split
from fusionrec.embeddings import base as embeddings
from fusionrec.paths import Paths
from fusionrec.ranking import AnyRanker, comparing, frame
from fusionrec.ranking.base import TASKS, Impressions, Known, Ranker, Words
from fusionrec.ranking.judging import Judgement, judge
from fusionrec.registry.words import load_words
from fusionrec.stages import words
from fusionrec.types import Interactions, ItemSet

PARTS = ("train", "valid", "test")
ESMM = "deepfm, ESMM"
WORDS = "deepfm, own words"
STACK = "stack"
MODELS: dict[str, dict[str, Any]] = {
    "biases": {"kind": "biases"},
    "logistic": {"kind": "logistic"},
    "boosting": {"kind": "boosting"},
    "concat_dense": {"kind": "concat_dense"},
    "deepfm": {"kind": "deepfm"},
    "dcn_v2": {"kind": "dcn_v2"},
    "deepfm, MMoE": {"kind": "deepfm", "head": {"kind": "mmoe"}},
    ESMM: {"kind": "deepfm", "head": {"kind": "esmm"}},
    WORDS: {"kind": "deepfm", "own_words": True},
    STACK: {"kind": "stack", "parts": [{"kind": "logistic"}, {"kind": "boosting"}, {"kind": "dcn_v2"}]},
}
ALONE = "deepfm, conversion alone"
WITHOUT = " without content"
KNOWN = 0.1


def read(project: Path, home: Path | None = None) -> frame.Shown:
    """A project whose stages up to embed have run; what its users said is encoded here, those of the test included."""
    paths = Paths(project, home or project.parent / "home")
    params = load_params(project / "params.yaml", {"rank.ranker": MODELS[WORDS]})
    words.run(params, paths)
    data = split.load(paths, PARTS)
    shown = frame.load(paths, data, embeddings.load(paths, tuple(params.modalities)), PARTS)
    return replace(shown, known=replace(shown.known, words=load_words(paths, data.users)))


def before_test(data: frame.Shown) -> Words | None:
    """What users said before the test, as the stage rank reads it."""
    times = [data.parts[name].time for name in ("train", "valid")]
    if data.known.words is None or any(time is None for time in times):
        return None
    return data.known.words.before(max(int(time.max(initial=0)) for time in times if time is not None))


def fit(section: dict[str, Any], tasks: list[str], data: frame.Shown, content: bool, seed: int) -> tuple[Ranker, float]:
    known = replace(data.known, words=before_test(data))
    known = known if content else replace(known, items=known.items.only())
    ranker: Ranker = TypeAdapter(AnyRanker).validate_python({"tasks": tasks, **section}).build()
    start = time.monotonic()
    ranker.fit(data.parts["train"], data.parts["valid"], known, seed=seed)
    ranker.hear(data.known.words)  # of which an impression knows those strictly before it
    return ranker, time.monotonic() - start


def contest(data: frame.Shown, seeds: int, names: list[str]) -> dict[str, Any]:
    """Every model with content, the networks and the stack also without; -> rows by task and the paired tests."""
    labels = {name: {t for t in TASKS if np.isfinite(part.labels[t]).any()} for name, part in data.parts.items()}
    tasks = [task for task in TASKS if task in labels["train"] & labels["test"]]
    entries = {name: (section, tasks, True) for name, section in MODELS.items() if not names or name in names}
    if before_test(data) is None:
        entries.pop(WORDS, None)
    if not {"click", "conversion"} <= set(tasks):
        entries.pop(ESMM, None)
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
        found[name] = [judge(ranker, data.parts["test"], data.positives) for ranker, _ in made]
        seconds[name] = float(np.median([took for _, took in made]))
        print(name, f"{seconds[name]:.0f} s", {t: headline(j) for t, j in found[name][0].items()}, flush=True)
    rows = [{**row, "seconds": round(seconds[row["ranker"]], 1)} for row in comparing.rows(found, tasks)]
    return {"rows": rows, "tests": comparing.tests(found, tasks, compared(found)), "sizes": sizes(data, tasks)}


def few(data: frame.Shown, seeds: int) -> dict[str, Any]:
    """ESMM against the conversion model alone where the conversion of :data:`KNOWN` of the impressions is known."""
    rng = np.random.default_rng(0)
    thinned = dict(data.parts)
    for name in ("train", "valid"):
        part = thinned[name]
        bought = np.where(rng.random(len(part)) < KNOWN, part.labels["conversion"], np.nan).astype(np.float32)
        thinned[name] = replace(part, labels={**part.labels, "conversion": bought})
    data = replace(data, parts=thinned)
    found: dict[str, list[dict[str, Judgement]]] = {}
    for name, wanted in ((ESMM, ["click", "conversion"]), (ALONE, ["conversion"])):
        section = MODELS[ESMM if name == ESMM else "deepfm"]
        made = [fit(section, wanted, data, True, seed)[0] for seed in range(seeds)]
        found[name] = [judge(ranker, data.parts["test"], data.positives) for ranker in made]
        print(name, headline(found[name][0]["conversion"]), flush=True)
    tasks = ["conversion"]
    rows = [{**row, "seconds": None} for row in comparing.rows(found, tasks)]
    return {"rows": rows, "tests": comparing.tests(found, tasks, [(ESMM, ALONE)]), "sizes": sizes(data, tasks)}


def headline(one: Judgement) -> str:
    return ", ".join(
        f"{name} {one.mean[name]:.4f}" for name in ("auc", "gauc", "logloss", "ece", "rmse") if name in one.mean
    )


def compared(names: Iterable[str]) -> list[tuple[str, str]]:
    """Each network and the stack against itself without content, and against logistic regression; own words against
    none; ESMM against conversion alone; the stack against its other parts."""
    names = list(names)
    deep = [name for name in names if name + WITHOUT in names]
    pairs = [(name, name + WITHOUT) for name in deep]
    pairs += [(name, "logistic") for name in deep if "logistic" in names]
    pairs += [(STACK, part) for part in ("boosting", "dcn_v2") if {STACK, part} <= {*names}]
    pairs += [(WORDS, "deepfm")] if {WORDS, "deepfm"} <= {*names} else []
    return pairs + ([(ESMM, ALONE)] if {ESMM, ALONE} <= {*names} else [])


def sizes(data: frame.Shown, tasks: list[str]) -> dict[str, Any]:
    return {
        name: {
            task: [int(np.isfinite(part.labels[task]).sum()), round(float(np.nanmean(part.labels[task])), 4)]
            for task in tasks
        }
        for name, part in data.parts.items()
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
    parser.add_argument("--only", nargs="+", choices=("demo", "few", "likes", "stars", "speed"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", type=lambda text: text.split(","), default=[])
    parser.add_argument("--items")
    parser.add_argument("--users")
    told = parser.parse_args()
    small = bool(told.items and told.users)
    old = RESULTS / "ranking.json"
    content: dict[str, Any] = json.loads(old.read_text()) if old.is_file() else {"rows": [], "sets": {}}
    content = {key: content[key] for key in ("rows", "sets")}
    for name, change in (("demo", None), ("few", None), ("likes", likes), ("stars", stars)):
        if name not in (told.only or (name,)) or (small and change is not None) or (told.models and name == "few"):
            continue
        if change is not None and not os.environ.get("FUSIONREC_MOVIES"):
            print(f"{name}: skipped, FUSIONREC_MOVIES is not set")
            continue
        with tempfile.TemporaryDirectory(prefix="fusionrec-ranking-") as place:
            options = ("--items", told.items, "--users", told.users) if small else ()
            data = read(embedded(Path(place), change, *options))
            done = few(data, told.seeds) if name == "few" else contest(data, told.seeds, told.models)
            content["sets"][name] = done | {"commit": about()["commit"]}
            print(*map(json.dumps, content["sets"][name]["tests"]), sep="\n")
    if "speed" in (told.only or ("speed",)) and not small:
        content["rows"] = [row | {"commit": about()["commit"]} for row in speed()]
        print(*content["rows"], sep="\n")
    if small or told.models:
        print("not written: a small demo, or some of the models")
        return
    write("ranking", content)


if __name__ == "__main__":
    main()
