"""Missing modalities: a mask alone against vectors that a VAE generates from what an item has, on the demo.

    python benchmarks/generated.py [--project FOLDER: one whose stages up to embed have run; default: a new demo]
                                   [--seeds 3] [--items 80 --users 90: a small demo, printed and not written]

A share of the modalities of all items, those of training and new ones, is lost by the lottery of the missing-modality
curve, on top of what the demo lacks; the retriever is fitted and asked on what is left. Each seed draws another lottery
and another training. The number of components is chosen by the validation metric of the retriever, with a lottery of
its own; test is asked once. Values are a user's mean over the seeds; intervals resample users; tests are paired over
users, by random signs, two-sided, Holm over all comparisons.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from workspace import embedded, write

from fusionrec.config import load as load_params
from fusionrec.data import split
from fusionrec.embeddings import base as embeddings
from fusionrec.evaluation import missing, slices
from fusionrec.evaluation.metrics import Float64
from fusionrec.evaluation.protocol import evaluate
from fusionrec.evaluation.significance import holm, interval, sign_flips
from fusionrec.fusion.concat import Concat
from fusionrec.paths import Paths
from fusionrec.recommenders import AnyRetriever
from fusionrec.recommenders.base import Retriever
from fusionrec.recommenders.generated import GeneratedRetriever
from fusionrec.types import ItemSet

SHARES = (0.0, 0.3, 0.6)
RETRIEVERS = ("two_tower", "feature_ease")
WIDTHS = (8, 16, 64)
TUNED = (0.3, 1000)  # the share and the seed at which the width is chosen
PARTS, METRICS = ("all", "cold"), ("recall@20", "ndcg@20")
Users = dict[tuple[str, str], Float64]
"""(slice, metric) -> (U,) values of users, NaN where the slice holds nothing of the user."""


def lost(items: ItemSet, share: float, seed: int) -> ItemSet:
    luck = {name: missing.lottery(items.ids, name, seed) for name in items.modalities}
    return missing.thinned(items, items.modalities, share, luck)


def section(kind: str, width: int | None) -> dict[str, Any]:
    """A retriever that sees masks alone (``width`` None), or the same over generated vectors."""
    return {"kind": kind} if width is None else {"kind": "generated", "of": {"kind": kind}, "width": width}


def fit(data: split.SplitData, items: ItemSet, wanted: dict[str, Any], seed: int) -> tuple[Retriever, float, float]:
    """-> the model, its best validation NDCG@20, seconds."""
    model: Retriever = TypeAdapter(AnyRetriever).validate_python(wanted).build(Concat())
    values: list[float] = []

    def watch(epoch: int, told: Mapping[str, float]) -> None:
        if "valid_ndcg@20" in told:
            values.append(told["valid_ndcg@20"])

    start = time.monotonic()
    model.fit(data.train, data.valid, items, seed=seed, watch=watch)
    return model, max(values, default=float("nan")), time.monotonic() - start


def tune(data: split.SplitData, items: ItemSet) -> dict[str, dict[str, Any]]:
    """For each retriever the width that validation likes best, and what it said of each; it opens no other split."""
    share, seed = TUNED
    seen, out = lost(items, share, seed), {}
    for kind in RETRIEVERS:
        tried = {width: round(fit(data, seen, section(kind, width), seed)[1], 4) for width in WIDTHS}
        out[kind] = {"width": max(tried, key=lambda w: tried[w]), "valid_ndcg@20": tried}
        print(kind, out[kind], flush=True)
    return out


def asked_on_test(data: split.SplitData) -> tuple[Any, list[slices.Slice]]:
    asked = split.requests(data, "test", ("train", "valid"))
    cold = np.bincount(data.train.item, minlength=len(data.items)) == 0
    found = slices.build(asked.requests, asked.positives, cold, {})
    return asked.requests, [part for part in found if part.name in PARTS]


def contest(data: split.SplitData, items: ItemSet, tuned: dict[str, dict[str, Any]], seeds: int) -> dict[str, Any]:
    requests, parts = asked_on_test(data)
    values: dict[tuple[str, float, bool], Users] = {}
    costs, made = [], []
    for kind in RETRIEVERS:
        for share in SHARES:
            for generated in (False, True):
                runs, seconds = [], []
                for seed in range(seeds):
                    seen = lost(items, share, seed)
                    wanted = section(kind, tuned[kind]["width"] if generated else None)
                    model, _, took = fit(data, seen, wanted, seed)
                    found = evaluate(model, requests, parts, (20,)).values
                    runs.append({(part, metric): found[part][metric] for part in PARTS for metric in METRICS})
                    seconds.append(took)
                    if isinstance(model, GeneratedRetriever):
                        made.append({"retriever": kind, "share": share, "seed": seed, **told(model, seen)})
                key = kind, share, generated
                values[key] = {what: np.mean([run[what] for run in runs], axis=0) for what in runs[0]}
                costs.append({**named(key), "seconds": round(float(np.median(seconds)), 1)})
                print(
                    costs[-1], {" ".join(w): round(float(np.nanmean(v)), 4) for w, v in values[key].items()}, flush=True
                )
    return {"quality": quality(values), "tests": tests(values), "generated": made, "costs": costs, "seeds": seeds}


def told(model: GeneratedRetriever, seen: ItemSet) -> dict[str, Any]:
    """How much of held-out vectors the VAE explained, and how many cells of each modality it filled."""
    full, names = model.complete(seen), model.space.modalities
    return {
        "explained": {name: round(float(worth), 3) for name, worth in zip(names, model.worth, strict=True)},
        "filled": {name: int((full.present[name] & ~seen.present[name]).sum()) for name in seen.modalities},
        "missing": {name: int((~seen.present[name]).sum()) for name in seen.modalities},
    }


def named(key: tuple[str, float, bool]) -> dict[str, Any]:
    kind, share, generated = key
    return {"retriever": kind, "share": share, "missing": "generated" if generated else "masked"}


def quality(values: dict[tuple[str, float, bool], Users]) -> list[dict[str, Any]]:
    rows = []
    for key, users in values.items():
        for (part, metric), x in users.items():
            low, high = interval(x)
            n = int((~np.isnan(x)).sum())
            numbers = {"mean": round(float(np.nanmean(x)), 5), "low": round(low, 5), "high": round(high, 5)}
            rows.append({**named(key), "slice": part, "metric": metric, **numbers, "users": n})
    return rows


def tests(values: dict[tuple[str, float, bool], Users]) -> list[dict[str, Any]]:
    """Generated against masked, paired over users; ``p_holm`` over all of them."""
    rows: dict[str, dict[str, Any]] = {}
    for (kind, share, generated), users in values.items():
        for (part, metric), x in users.items() if generated else ():
            d = x - values[kind, share, False][part, metric]
            d = d[~np.isnan(d)]
            low, high = interval(d)
            rows[f"{kind} {share} {part} {metric}"] = {
                "retriever": kind, "share": share, "slice": part, "metric": metric, "users": len(d),
                "difference": round(float(d.mean()), 5), "low": round(low, 5), "high": round(high, 5),
                "p": float(sign_flips(d[:, None])[0]),
            }  # fmt: skip
    corrected = holm({name: row["p"] for name, row in rows.items()})
    return [{**row, "p_holm": round(corrected[name], 5)} for name, row in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--items")
    parser.add_argument("--users")
    given = parser.parse_args()
    small = bool(given.items and given.users)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fusionrec-generated-") as place:
        options = ("--items", given.items, "--users", given.users) if small else ()
        project = given.project or embedded(Path(place), None, *options)
        params, paths = load_params(project / "params.yaml"), Paths(project, project / ".fusionrec")
        items = embeddings.load(paths, tuple(params.modalities))
        tuned = tune(split.load(paths, ("train", "valid")), items)
        found = contest(split.load(paths, ("train", "valid", "test")), items, tuned, given.seeds)
    content = {"rows": [], "tuned": tuned, **found, "seconds": round(time.monotonic() - start)}
    if small:
        print("not written: a small demo")
        return
    write("generated", content)


if __name__ == "__main__":
    main()
