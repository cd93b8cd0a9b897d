"""Make sure that data/bundle/ is a version in MLflow, and that the gate has judged it.

Idempotent: a digest that is known uploads nothing, and one that has its verdict loads nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from pathlib import Path
from typing import Any

import yaml

from fusionrec.config import Params
from fusionrec.data.files import to_json
from fusionrec.errors import ConfigError, DataRejected, IntegrityError
from fusionrec.paths import Paths
from fusionrec.registry import mlflow_store, recording, registering
from fusionrec.registry.bundle import read_bundle_json
from fusionrec.registry.card import model_card
from fusionrec.registry.mlflow_store import Registered
from fusionrec.registry.sealed import read_manifest, sha256_file
from fusionrec.registry.verdict import comparison, genuine, row
from fusionrec.types import Report

SECTIONS = {"train", "rank", "split", "modalities", "positives", "evaluate"}
"""Of params.yaml, what made the version."""
_CONTEXTS = {"train": "training", "valid": "validation", "test": "test"}


def run(params: Params, paths: Paths) -> Report:
    """Register and judge; no alias ``champion`` moves, and a version that the gate refuses is registered all the same.

    Raises Unavailable (69) where MLflow does not answer; the call can be repeated.
    """
    start = time.monotonic()
    if not (paths.bundle / "bundle.json").is_file():
        raise DataRejected("data/bundle is missing: run `dvc repro` first")
    about = read_bundle_json(paths.bundle)
    name = params.registry.name
    found = registering.register(
        paths.home, name, params.registry.experiment, about, lambda: gather(params, paths, about)
    )
    links = {"version": found.link}
    if page := mlflow_store.run_page(paths.home, found):
        links["run"] = page
    if (paths.evaluation / "report.html").is_file():
        links["report"] = "data/evaluation/report.html"
    state = "registered" if found.created else "already registered"
    report = Report(
        "register",
        counts={"version": found.version, "created": int(found.created)},
        seconds={"register": time.monotonic() - start},
        links=links,
        notes=[f"{state}: {name} version {found.version} (bundle {about['bundle'][:12]})"],
    )
    _judge(params, paths, found, report)
    return report


def _judge(params: Params, paths: Paths, found: Registered, report: Report) -> None:
    """Put the verdict into the report; made here where the version has none yet."""
    start = time.monotonic()
    try:
        verdict = genuine(paths.home, found)
    except IntegrityError:
        from fusionrec.registry import guard
        from fusionrec.stages import judging  # loads what scores models; the unchanged case does without

        try:
            settled = guard.settle(paths.home, found.name)
            report.notes += [settled.text] if settled is not None else []
            verdict = judging.judge(params, paths, found)
        except (IntegrityError, ConfigError, DataRejected) as error:
            cause = str(error).splitlines()[0]
            report.notes.append(f"not judged: {cause}")
            mlflow_store.set_tags(paths.home, found, {"gate": "not judged", "gate_reason": cause})
            return
        report.seconds["judge"] = time.monotonic() - start
    report.counts["passed"] = int(verdict["verdict"] == "passed")
    report.table.append(row(verdict))
    report.notes.append(f"gate: {verdict['verdict']}: {comparison(verdict)}")
    report.notes += [f"  {reason}" for reason in verdict["reasons"] if "p" in verdict]


def gather(params: Params, paths: Paths, about: dict[str, Any]) -> recording.Entry:
    """What a new version records; read only when there is something to register."""
    manifest = read_manifest(paths.bundle / "model" / "manifest.json")
    resolved = params.model_dump(mode="json", include=SECTIONS)
    sets = datasets(paths)
    table = _json(paths.evaluation / "table.json") or []
    judge = paths.bundle / "ranker" / "manifest.json"
    card = model_card(
        manifest,
        about,
        ranker=read_manifest(judge) if about.get("ranker") else None,
        name=params.registry.name,
        rows=table,
        sizes={d.context: f"{d.rows} pairs, {d.kind} {d.digest}" for d in sets},
        protocol={
            "split": params.split.kind,
            "ranking": "every item is scored for every user; no sampled negatives",
            "history": params.evaluate.history,
        },
    )
    fit_ids = json.loads((paths.bundle / "model" / "fit_ids.json").read_text("utf-8"))
    return recording.Entry(
        bundle=paths.bundle,
        params=resolved,
        metrics=_json(paths.evaluation / "metrics.json") or {},
        datasets=sets,
        artifacts={
            "": paths.evaluation / "report.html",
            "plots": paths.evaluation / "plots",
            "table": paths.evaluation / "table.json",
            "tests": paths.evaluation / "tests.json",
            "knockout": paths.evaluation / "knockout.json",
        },
        texts={"model_card.md": card, **_record(paths, resolved, table)},
        curve=curves(paths),
        tags={
            "git_commit": recording.git_commit(paths.project),
            "data_version": hashlib.sha256("\n".join(f"{d.name} {d.digest}" for d in sets).encode()).hexdigest()[:16],
        },
        example=json.dumps(fit_ids[:1], ensure_ascii=False),
    )


def _record(paths: Paths, resolved: dict[str, Any], table: list[dict[str, Any]]) -> dict[str, str]:
    """record.json, with which a later version is compared; nothing where the evaluation did not write what it takes."""
    from fusionrec.evaluation import changes  # not for the unchanged case

    tests, sizes = _json(paths.evaluation / "tests.json"), _json(paths.splits / "summary.json")
    if not table or not isinstance(tests, dict) or not {"main_metric", "pairs_digest"} <= tests.keys() or not sizes:
        return {}
    found = changes.record(resolved, table, tests, sizes)
    return {"record.json": to_json(found.model_dump(mode="json")).decode("utf-8")}


def datasets(paths: Paths) -> list[recording.Dataset]:
    """The three splits with DVC's md5 where dvc.lock holds the file as it is, else their sha256."""
    import polars as pl

    recorded = _locked(paths.project / "dvc.lock")
    out = []
    for name, context in _CONTEXTS.items():
        file = paths.splits / f"{name}.parquet"
        if not file.is_file():
            continue
        with file.open("rb") as stream:
            md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        path = f"data/splits/{name}.parquet"
        kind, digest = ("dvc.md5", md5) if recorded.get(path) == md5 else ("sha256", sha256_file(file))
        rows = pl.scan_parquet(file, glob=False).select(pl.len()).collect().item()
        out.append(recording.Dataset(name, context, path, digest, kind, rows))
    return out


def curves(paths: Paths) -> list[dict[str, float]]:
    """The main model's training curve (``loss``) and those of the models it is compared with
    (``only-image.loss``)."""
    rows = curve(paths.bundle / "model" / "curve.csv")
    for file in sorted(paths.baselines.glob("*/curve.csv")):
        counters = ("step", "epoch")
        for values in curve(file):
            rows.append({k if k in counters else f"{file.parent.name}.{k}": v for k, v in values.items()})
    return rows


def curve(file: Path) -> list[dict[str, float]]:
    """The training curve's rows; empty cells are left out."""
    with io.StringIO(file.read_text("utf-8")) as text:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(text)]


def _locked(file: Path) -> dict[str, str]:
    """Path -> md5 of every out in dvc.lock."""
    if not file.is_file():
        return {}
    stages = (yaml.safe_load(file.read_text("utf-8")) or {}).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ()) if "md5" in out}


def _json(file: Path) -> Any:
    return json.loads(file.read_text("utf-8")) if file.is_file() else None
