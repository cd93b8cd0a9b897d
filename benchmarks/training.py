"""How near is a training epoch to its own products, and which sparse product is the fastest?

    python benchmarks/training.py                      # 2 to 3 minutes; writes benchmarks/results/training.json
    python benchmarks/training.py --reference FOLDER   # also MMRec's own code (a checkout, outside this repository)
    python benchmarks/training.py --data FOLDER        # interactions.parquet and *_feat.npy instead of made-up data

Without --data the data is made here: 9,308 users, 6,710 items, 59,541 pairs with a long tail, two modalities of 128
numbers. Cases:
- product-*: one pass forward and backward over the user-item graph (64 wide), ours against torch.sparse and SciPy;
- epoch-*: an epoch of each model through the training loop, without validation. Its bound is every product of one of
  its batches (sparse, and dense matrix products), recorded while the batch runs and repeated alone: no sampling, no
  optimiser, no elementwise work, no Python between them. `with_adam` is that bound and the steps of Adam alone, which
  the protocol asks for: it reads and writes every parameter in every batch. Its peer, where asked for, is the same
  model of MMRec;
- epoch-ials: an iteration of the library alone is bound and peer of the same iteration inside our model.
With one thread CPU seconds are taken, which other load on the machine disturbs least; with more, wall-clock time.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy import sparse
from torch.utils._python_dispatch import TorchDispatchMode
from workspace import write

from fusionrec.kinds import members
from fusionrec.recommenders import AnyRetriever
from fusionrec.recommenders.embedded import EmbeddedRetriever, Prefer
from fusionrec.recommenders.graph import bipartite
from fusionrec.recommenders.negatives import Negatives
from fusionrec.recommenders.propagation import Product
from fusionrec.recommenders.training import draws
from fusionrec.types import Interactions, ItemSet

HERE = Path(__file__).resolve().parent
USERS, ITEMS, PAIRS, WIDTH, DIM = 9_308, 6_710, 59_541, 128, 64
MODELS = ("lightgcn", "vbpr", "bm3", "freedom", "mgcn", "lattice", "modality_graph")
REFERENCE = {"lightgcn": "LightGCN", "vbpr": "VBPR", "bm3": "BM3", "freedom": "FREEDOM", "mgcn": "MGCN"}
REPEATS = 3
SPECS = {cls.model_fields["kind"].default: cls for cls in members(AnyRetriever)}


@dataclass(frozen=True)
class Data:
    train: Interactions
    items: ItemSet


def made_up(seed: int = 0) -> Data:
    """Groups of taste, a long tail of users and items, features that show the group."""
    rng = np.random.default_rng(seed)
    groups = 40
    of_user, of_item = rng.integers(0, groups, USERS), rng.integers(0, groups, ITEMS)
    popular = rng.pareto(1.2, ITEMS) + 0.2
    eager = rng.pareto(2.5, USERS) + 0.5
    chosen: set[int] = set()
    while len(chosen) < PAIRS:
        users = rng.choice(USERS, PAIRS, p=eager / eager.sum())
        items = rng.choice(ITEMS, PAIRS, p=popular / popular.sum())
        keep = (of_user[users] == of_item[items]) | (rng.random(PAIRS) < 0.1)
        chosen.update((users[keep] * ITEMS + items[keep]).tolist())
    keys = np.sort(rng.permutation(np.fromiter(chosen, np.int64))[:PAIRS])
    centres = rng.normal(size=(2, groups, WIDTH))
    features = {
        m: (centres[n, of_item] + rng.normal(size=(ITEMS, WIDTH))).astype(np.float32)
        for n, m in enumerate(("audio", "image"))
    }
    return _data(keys // ITEMS, keys % ITEMS, features, USERS)


def from_folder(folder: Path) -> Data:
    frame = pl.read_parquet(folder / "interactions.parquet")
    users = int(frame["user_id"].max()) + 1  # type: ignore[arg-type]
    frame = frame.filter(pl.col("split") == "train")
    features = {p.name.removesuffix("_feat.npy"): np.load(p).astype(np.float32) for p in folder.glob("*_feat.npy")}
    return _data(frame["user_id"].to_numpy(), frame["item_id"].to_numpy(), features, users)


def _data(user: np.ndarray, item: np.ndarray, features: dict[str, np.ndarray], n_users: int) -> Data:
    n = len(next(iter(features.values())))
    present = {m: np.ones(n, bool) for m in features}
    group = {m: np.zeros(n, np.int16) for m in features}
    train_set = Interactions(user.astype(np.int32), item.astype(np.int32), None, n_users, n)
    return Data(train_set, ItemSet(tuple(f"i{r}" for r in range(n)), features, present, group))


def clock() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def median_seconds(run: Callable[[], Any], repeats: int = REPEATS, warm: int = 1) -> float:
    for _ in range(warm):
        run()
    found = []
    for _ in range(repeats):
        start = clock()
        run()
        found.append(clock() - start)
    return statistics.median(found)


def row(case: str, ours: float, unit: str, peer: float | None = None, peer_name: str | None = None,
        bound: float | None = None) -> dict[str, Any]:  # fmt: skip
    """Times: smaller is better, so both ratios are the other's time by ours."""
    return {
        "case": case, "ours": round(ours, 6), "peer": peer and round(peer, 6), "peer_name": peer_name,
        "bound": bound and round(bound, 6), "unit": unit, "ratio_peer": peer and round(peer / ours, 3),
        "ratio_bound": bound and round(bound / ours, 3),
    }  # fmt: skip


def products(data: Data) -> list[dict[str, Any]]:
    """Forward and backward over the user-item graph."""
    graph = bipartite(data.train.matrix())
    coo, n = graph.tocoo(), graph.shape[0]
    at = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    values, x = torch.from_numpy(graph.data), torch.randn(n, DIM)

    def csr(index: type) -> torch.Tensor:
        parts = (torch.from_numpy(a.astype(index)) for a in (graph.indptr, graph.indices))
        return torch.sparse_csr_tensor(*parts, values, graph.shape)

    def both(multiply: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], None]:
        def run() -> None:
            leaf = x.clone().requires_grad_()
            multiply(leaf).backward(x)

        return run

    formats = {
        "torch.sparse COO": torch.sparse_coo_tensor(at, values, graph.shape).coalesce(),
        "torch.sparse CSR, int64": csr(np.int64),
        "torch.sparse CSR, int32 (MKL)": csr(np.int32),
    }
    mine = median_seconds(both(Product(graph, symmetric=True)), 21, 3)
    peers = {name: both(matrix.matmul) for name, matrix in formats.items()}
    peers["SciPy CSR"] = lambda: graph @ (graph @ x.numpy())
    return [
        row(f"product-{name.split()[-1].strip('()').lower()}", mine * 1e3, "ms", median_seconds(run, 7, 2) * 1e3, name)
        for name, run in peers.items()
    ]


class Recorder(TorchDispatchMode):
    """Keeps every product that runs, with its arguments."""

    NAMES = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "_embedding_bag_forward_only", "_embedding_bag")

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in self.NAMES:
            held = tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in args)
            self.calls.append((func, held, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs in self.calls:
                func(*args, **kwargs)


def epoch_and_bound(kind: str, data: Data) -> tuple[float, float, float, int]:
    """(seconds of an epoch, of its products alone, of its steps of Adam alone, batches)."""
    spec = SPECS[kind](kind=kind)
    how = spec.training
    model = spec.build()
    assert isinstance(model, EmbeddedRetriever)
    marks: list[float] = []
    calls: dict[str, Any] = {}

    class Timed(type(model)):  # type: ignore[misc]
        def _network(self, pairs: sparse.csr_matrix, items: ItemSet, prefer: Prefer) -> torch.nn.Module:
            calls["network"] = super()._network(pairs, items, prefer)
            return calls["network"]

    model = Timed(*((spec, model.fusion) if hasattr(model, "fusion") else (spec,)))
    few = how.model_copy(update={"epochs": REPEATS + 1, "patience": 0, "valid_every": 1000, "valid_users": 1})
    model.spec = spec.model_copy(update={"training": few})
    nothing = data.train.select(np.zeros(len(data.train), bool))
    model.fit(data.train, nothing, data.items, watch=lambda epoch, values: marks.append(clock()))
    # the last epoch ends with the loop's one validation, so the epochs between the first and it are what is measured
    seconds = statistics.median(np.diff(marks)[:-1])
    network = calls["network"].train()
    pairs = data.train.matrix()
    user, item = (part.astype(np.int64) for part in pairs.nonzero())
    rng = draws(0, 0)
    if hasattr(network, "start_epoch"):
        network.start_epoch(rng)
    order = rng.permutation(len(user))
    batch = [user[order], item[order], Negatives(pairs).draw(rng, user)[order]][: 3 if model.pairwise else 2]
    total, recorders = 0.0, []
    starts = range(0, len(order), how.batch)
    for start in list(starts)[:3]:  # the first batch of an epoch may differ (LATTICE learns its graph there)
        with Recorder() as recorder:
            network.loss(*(torch.from_numpy(part[start : start + how.batch]) for part in batch)).backward()
        recorders.append(median_seconds(recorder.replay, 7, 2))
        gc.collect()
    total = recorders[0] + statistics.median(recorders[1:]) * (len(starts) - 1)
    adam = torch.optim.Adam([p for p in network.parameters() if p.grad is not None], lr=how.lr, fused=True)
    return seconds, total, median_seconds(adam.step, 7, 2) * len(starts), len(starts)


def reference_seconds(checkout: Path, data: Data, model: str, threads: int) -> float:
    """Seconds of a training epoch of MMRec's own code, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "data.npz", user=data.train.user, item=data.train.item, **dict(data.items.features))
        command = [
            sys.executable,
            str(HERE / "reference" / "mmrec_epoch.py"),
            str(checkout),
            model,
            folder,
            str(threads),
        ]
        found = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        if found.returncode:
            raise SystemExit(f"{model} of the reference failed:\n{found.stderr[-2000:]}")
        return float(found.stdout.split()[-1])


def ials(data: Data) -> dict[str, Any]:
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    pairs = data.train.matrix()
    nothing = data.train.select(np.zeros(len(data.train), bool))

    def library() -> None:
        with threadpool_limits(1, "blas"):
            made = AlternatingLeastSquares(DIM, regularization=10.0, alpha=5.0, iterations=5, use_cg=False)
            made.random_state = 0
            made.fit(pairs, show_progress=False)

    ours = SPECS["ials"](kind="ials", iterations=5).build()
    mine = median_seconds(lambda: ours.fit(data.train, nothing, data.items))
    peer = median_seconds(library)
    return row("epoch-ials", mine / 5, "s", peer / 5, "implicit", peer / 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with interactions.parquet and *_feat.npy")
    parser.add_argument("--reference", type=Path, help="a checkout of MMRec")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    asked = parser.parse_args()
    data = from_folder(asked.data) if asked.data else made_up()
    rows = []
    for threads in asked.threads:
        torch.set_num_threads(threads)
        found = products(data)
        for kind in asked.models:
            seconds, bound, adam, batches = epoch_and_bound(kind, data)
            peer = None
            if asked.reference and kind in REFERENCE:
                peer = reference_seconds(asked.reference, data, REFERENCE[kind], threads)
            name = "MMRec" if peer else None
            told = {"batches": batches, "with_adam": round(bound + adam, 6)}
            told["ratio_with_adam"] = round((bound + adam) / seconds, 3)
            found.append(row(f"epoch-{kind}", seconds, "s", peer, name, bound) | told)
            print(json.dumps(found[-1] | {"threads": threads}), flush=True)
        if "ials" in SPECS and threads == asked.threads[0]:
            found.append(ials(data))
        rows += [r | {"case": f"{r['case']}-{threads}-thread{'s' * (threads > 1)}"} for r in found]
    write("training", {"rows": rows})
    for r in rows:
        ratios = f"of the bound {r['ratio_bound']}, {r['peer_name']} {r['ratio_peer']}"
        print(f"{r['case']:34} {r['ours']:9.4f} {r['unit']:3} {ratios}")


if __name__ == "__main__":
    main()
