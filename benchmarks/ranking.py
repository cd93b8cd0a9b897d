"""Rankers on impressions that happened: click, conversion, ad click, rating on the demo; like or rating on real films
where FUSIONREC_MOVIES names them (a private copy, never part of this repository). And the speed of an epoch.

    python benchmarks/ranking.py [--only demo few likes stars speed] [--seeds 3] [--models deepfm,...]
                                 [--jobs 2] [--keep FOLDER: go on there where a call before was ended]
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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from ranking_fits import Fit, before_test, load, project, run
from workspace import RESULTS, about, write

from fusionrec.ranking import AnyRanker, comparing, frame
from fusionrec.ranking.base import TASKS, Impressions, Known
from fusionrec.ranking.judging import Judgement
from fusionrec.types import Interactions, ItemSet

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
Sections = dict[str, tuple[dict[str, Any], list[str], bool]]
"""Name -> the ranker's section, its tasks, whether it reads content."""


def contest(data: frame.Shown, names: list[str]) -> Sections:
    """Every model with content (or ``names`` of them), the networks and the stack also without."""
    tasks = tasks_of(data)
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
    return entries | {name + WITHOUT: (entries[name][0], tasks, False) for name in deep}


def few(data: frame.Shown, names: list[str]) -> Sections:
    """ESMM and the conversion model alone, where the conversion of few impressions is known."""
    return {ESMM: (MODELS[ESMM], ["click", "conversion"], True), ALONE: (MODELS["deepfm"], ["conversion"], True)}


def tasks_of(data: frame.Shown) -> list[str]:
    """The tasks that have labels to learn from and labels to be asked about."""
    labels = {name: {t for t in TASKS if np.isfinite(part.labels[t]).any()} for name, part in data.parts.items()}
    return [task for task in TASKS if task in labels["train"] & labels["test"]]


def measure(place: Path, asked: Callable[[frame.Shown, list[str]], Sections], told: argparse.Namespace, *,
            thin: bool = False) -> dict[str, Any]:  # fmt: skip
    """Fit and judge what is asked of the project at ``place``; -> rows by task and the paired tests."""
    data = load(place, thin)
    entries = asked(data, told.models)
    fits = [Fit(name, *entry, seed) for seed in range(told.seeds) for name, entry in entries.items()]
    found: dict[str, list[dict[str, Judgement]]] = {name: [] for name in entries}
    seconds: dict[str, list[float]] = {name: [] for name in entries}
    for fit, (judged, took) in zip(fits, run(place, thin, fits, told.jobs), strict=True):
        found[fit.name].append(judged)
        seconds[fit.name].append(took)
        print(fit.name, fit.seed, f"{took:.0f} s", {t: headline(j) for t, j in judged.items()}, flush=True)
    tasks = ["conversion"] if thin else tasks_of(data)
    rows = [{**row, "seconds": round(float(np.median(seconds[row["ranker"]])), 1)}
            for row in comparing.rows(found, tasks)]  # fmt: skip
    return {"rows": rows, "tests": comparing.tests(found, tasks, compared(found)), "sizes": sizes(data, tasks)}


@contextmanager
def folder(keep: Path | None, name: str) -> Iterator[Path]:
    """Where a set is laid out and its fits are kept: below ``keep``, or a place that is gone afterwards."""
    if keep is not None:
        yield keep.resolve() / name
        return
    with tempfile.TemporaryDirectory(prefix="fusionrec-ranking-") as place:
        yield Path(place)


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
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path)
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
        options = ("--items", told.items, "--users", told.users) if small else ()
        with folder(told.keep, name) as place:
            project(place, change, *options)
            done = measure(place, few if name == "few" else contest, told, thin=name == "few")
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
