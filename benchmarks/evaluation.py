"""Exact full ranking: speed against the matrix product and top-k alone, against other evaluators, and its memory.

    python benchmarks/evaluation.py [--users 9319 --items 6710 --repeats 7] [--only full-ranking memory-1m ...]

full-ranking: this library's evaluation of a model with 64 dimensions (scores, masking, exact lists with ties settled,
six metrics at four K) in users per second; `bound` is torch's dense product and torch.topk(50) alone, in the same run,
turn and turn about, at the block size that suits it best. Peers, each the whole evaluation of the same scores:
- the MMRec toolbox's own Trainer.evaluate, where FUSIONREC_MMREC names a checkout of it (kept outside this repository);
- implicit's ranking_metrics_at_k (recommendations and metrics at one K).
ir_measures is measured on the lists alone (metrics only), which is what it does. memory-1m: a child process evaluates
2,000 users of 1,000,000 items x 64; `ours` and `bound` are peak resident GiB, imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from workspace import RESULTS, write

from fusionrec.evaluation.metrics import per_user
from fusionrec.evaluation.protocol import evaluate
from fusionrec.evaluation.slices import Slice
from fusionrec.recommenders.base import Retriever
from fusionrec.recommenders.bpr import BPR
from fusionrec.types import ItemSet, Requests

KS, WIDTH, DIM = (5, 10, 20, 50), 50, 64
GIB = 4.0
"""The bound of memory-1m."""


class World:
    """Random vectors and a random log: ``seen`` 8 and ``positives`` 2 items a user, none of them both."""

    def __init__(self, users: int, items: int) -> None:
        rng = np.random.default_rng(0)
        drawn = rng.integers(0, items, (users, 10))
        rows = np.repeat(np.arange(users), 8)
        self.seen = csr(rows, drawn[:, :8].ravel(), users, items)
        positives = csr(np.repeat(np.arange(users), 2), drawn[:, 8:].ravel(), users, items)
        positives = (positives - positives.multiply(self.seen)).tocsr()
        positives.eliminate_zeros()
        kept = np.diff(positives.indptr) > 0
        self.positives, self.seen = positives[kept], self.seen[kept]
        self.user = rng.normal(size=(int(kept.sum()), DIM)).astype(np.float32)
        self.item = rng.normal(size=(items, DIM)).astype(np.float32)

    def model(self) -> Retriever:
        """The vectors as a fitted BPR-MF."""
        ids = tuple(str(i) for i in range(len(self.item)))
        arrays = {
            "user": np.concatenate([self.user, self.user[:1]]),
            "item": self.item,
            "touched": np.ones(len(ids), bool),
        }
        model = BPR().build()
        model.restore(arrays, ids)
        model.attach(ItemSet(ids))
        return model


def csr(rows: np.ndarray, columns: np.ndarray, users: int, items: int) -> sparse.csr_matrix:
    m = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (users, items))
    m.data[:] = 1
    m.sort_indices()
    return m


def medians(repeats: int, **actions: Callable[[], Any]) -> dict[str, float]:
    """Median seconds of each action, taken in turns after one round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for round_ in range(repeats + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def full_ranking(users: int, items: int, repeats: int) -> list[dict[str, Any]]:
    import torch

    world = World(users, items)
    model, part = world.model(), [Slice("all", world.positives)]
    requests = Requests(np.arange(len(world.user), dtype=np.int64), world.seen)
    user, item = torch.from_numpy(world.user), torch.from_numpy(world.item)

    def bound(block: int) -> None:
        for start in range(0, len(user), block):
            torch.topk(user[start : start + block] @ item.T, WIDTH)

    def ours() -> dict[str, float]:
        result = evaluate(model, requests, part, KS)
        return {name: result.mean("all", name)[0] for name in result.values["all"]}

    actions = {"ours": ours, **{f"bound-{b}": lambda b=b: bound(b) for b in (128, 512, 2048)}}
    theirs = mmrec(world)
    if theirs is not None:
        check(ours(), theirs())
        actions["mmrec"] = theirs
    other = implicit_metrics(world)
    if other is not None:
        actions["implicit"] = other
    took = medians(repeats, **actions)
    n = len(world.user)
    best = min(seconds for name, seconds in took.items() if name.startswith("bound-"))
    rows = [case("full-ranking", n, took["ours"], took.get("mmrec"), "MMRec's evaluate", best, "users/s")]
    rows.append(
        case("full-ranking against implicit", n, took["ours"], took.get("implicit"), "implicit", best, "users/s")
    )
    for row in rows:
        row |= {"users": n, "items": items, "threads": torch.get_num_threads(), "repeats": repeats}
    return rows


def mmrec(world: World) -> Callable[[], dict[str, float]] | None:
    """The toolbox's Trainer.evaluate over an evaluation loader that hands out its own batches; None where it is absent.

    Only the model is ours (the same product of vectors); batches of 4096 users as in its configuration.
    """
    place = os.environ.get("FUSIONREC_MMREC")
    if not place:
        return None
    import torch

    sys.path.insert(0, str(Path(place) / "src"))
    np.float = float  # type: ignore[attr-defined]  # it was written for NumPy 1
    try:
        for name in ("matplotlib", "matplotlib.pyplot"):  # for plots of its loss, which are not drawn here
            sys.modules.setdefault(name, types.ModuleType(name))
        from common.trainer import Trainer  # type: ignore[import-not-found]
        from utils.topk_evaluator import TopKEvaluator  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    user, item = torch.from_numpy(world.user), torch.from_numpy(world.item)
    config = {"metrics": ["Recall", "NDCG", "Precision", "MAP"], "topk": list(KS), "save_recommended_topk": False}
    trainer = Trainer.__new__(Trainer)
    trainer.config, trainer.evaluator = config, TopKEvaluator(config)
    trainer.model = types.SimpleNamespace(eval=lambda: None, full_sort_predict=lambda batch: user[batch[0]] @ item.T)
    return lambda: trainer.evaluate(Batches(world))


class Batches:
    """What the toolbox's EvalDataLoader holds and yields: users, (row, item) pairs to mask, positives of each user."""

    def __init__(self, world: World, size: int = 4096) -> None:
        self.world, self.size = world, size
        p = world.positives
        self.items = [p.indices[a:b] for a, b in zip(p.indptr, p.indptr[1:], strict=False)]

    def __iter__(self) -> Any:
        import torch

        for start in range(0, len(self.world.user), self.size):
            seen = self.world.seen[start : start + self.size].tocoo()
            users = torch.arange(start, start + seen.shape[0])
            yield users, torch.from_numpy(np.stack([seen.row, seen.col]).astype(np.int64))

    def get_eval_items(self) -> list[np.ndarray]:
        return self.items

    def get_eval_len_list(self) -> np.ndarray:
        return np.diff(self.world.positives.indptr)


def check(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Both must have measured the same thing (theirs is rounded to four places)."""
    for name, value in theirs.items():
        assert abs(ours[name.lower()] - value) < 6e-5, (name, ours[name.lower()], value)


def implicit_metrics(world: World) -> Callable[[], Any] | None:
    """implicit's recommendations of a factor model and its metrics at K = 50; None where it is not installed."""
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from implicit.evaluation import ranking_metrics_at_k
    except ImportError:
        return None
    model = AlternatingLeastSquares(factors=DIM)  # not fitted: the vectors are given
    model.user_factors, model.item_factors = world.user, world.item
    return lambda: ranking_metrics_at_k(model, world.seen, world.positives, K=WIDTH, show_progress=False)


def metrics_alone(users: int, items: int, repeats: int) -> list[dict[str, Any]]:
    """Our metrics of given lists against ir_measures'."""
    try:
        import ir_measures
    except ImportError:
        return []
    world = World(min(users, 2000), items)
    lists, _ = world.model().recommend(Requests(np.arange(len(world.user), dtype=np.int64), world.seen), WIDTH)
    qrels = [ir_measures.Qrel(str(u), str(i), 1) for u, i in zip(*world.positives.nonzero(), strict=True)]
    run = [ir_measures.ScoredDoc(str(u), str(i), float(-r)) for u, row in enumerate(lists) for r, i in enumerate(row)]
    named = [m @ k for m in (ir_measures.R, ir_measures.P, ir_measures.nDCG, ir_measures.AP) for k in KS]
    took = medians(
        repeats,
        ours=lambda: per_user(lists, world.positives, KS),
        theirs=lambda: ir_measures.calc_aggregate(named, qrels, run),
    )
    return [case("metrics of given lists", len(lists), took["ours"], took["theirs"], "ir_measures", None, "users/s")]


def case(
    name: str, n: int, ours: float, peer: float | None, peer_name: str, bound: float | None, unit: str
) -> dict[str, Any]:
    return {
        "case": name,
        "ours": round(n / ours, 1),
        "peer": None if peer is None else round(n / peer, 1),
        "peer_name": None if peer is None else peer_name,
        "bound": None if bound is None else round(n / bound, 1),
        "unit": unit,
        "ratio_peer": None if peer is None else round(peer / ours, 3),
        "ratio_bound": None if bound is None else round(bound / ours, 3),
    }


def memory(users: int, items: int) -> list[dict[str, Any]]:
    """A child under a limit of address space, so that what does not fit fails rather than swaps."""
    child = [sys.executable, __file__, "--child", "--users", str(users), "--items", str(items)]
    done = subprocess.run(child, capture_output=True, text=True, check=False)  # our own file
    if done.returncode:
        raise RuntimeError(f"memory-1m ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return [
        {
            "case": "memory-1m", "ours": round(found["gib"], 2), "peer": None, "peer_name": None, "bound": GIB,
            "unit": "GiB", "ratio_peer": None, "ratio_bound": round(GIB / found["gib"], 2), "users": found["users"],
            "items": items, "seconds": round(found["seconds"], 1),
        }
    ]  # fmt: skip


def in_child(users: int, items: int) -> None:
    world = World(users, items)
    model = world.model()
    requests = Requests(np.arange(len(world.user), dtype=np.int64), world.seen)
    start = time.perf_counter()
    result = evaluate(model, requests, [Slice("all", world.positives)], KS)
    seconds = time.perf_counter() - start
    mean, n = result.mean("all", "recall@50")
    assert n == len(world.user)
    assert 0 <= mean <= 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"gib": peak, "seconds": seconds, "users": n}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int)
    parser.add_argument("--items", type=int)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=("full-ranking", "metrics", "memory-1m"))
    parser.add_argument("--child", action="store_true")
    told = parser.parse_args()
    if told.child:
        in_child(told.users, told.items)
        return
    wanted = told.only or ("full-ranking", "metrics", "memory-1m")
    rows: list[dict[str, Any]] = []
    if "full-ranking" in wanted:
        rows += full_ranking(told.users or 9319, told.items or 6710, told.repeats)
    if "metrics" in wanted:
        rows += metrics_alone(told.users or 9319, told.items or 6710, min(told.repeats, 5))
    if "memory-1m" in wanted:
        rows += memory(told.users or 2000, told.items or 1_000_000)
    for row in rows:
        print(row, flush=True)
    if told.only or told.users or told.items:
        print("not written: only a full run with the sizes of the target is a result")
        return
    write("evaluation", {"rows": rows})
    print(f"wrote {RESULTS / 'evaluation.json'}")


if __name__ == "__main__":
    main()
