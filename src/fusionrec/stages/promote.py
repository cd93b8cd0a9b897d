"""Let a challenger become champion, if it passes the gate (:mod:`fusionrec.registry.gate`)."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fusionrec.config import Params
from fusionrec.data import split
from fusionrec.embeddings import base as embeddings
from fusionrec.errors import GateFailed, IntegrityError, UsageError
from fusionrec.paths import Paths
from fusionrec.registry import gate, mlflow_store
from fusionrec.registry.bundle import Bundle, load_bundle, pair_hashes
from fusionrec.registry.mlflow_store import CHALLENGER, CHAMPION, Registered
from fusionrec.registry.verdict import record, verify_verdict
from fusionrec.types import Columns, ItemSet, Report


def run(params: Params, paths: Paths, version: int | None = None) -> Report:
    """Judge ``version`` (default: the alias ``challenger``) and move ``champion`` to it if it passes.

    Raises GateFailed (4) with one line per reason; UsageError where there is nothing to judge; IntegrityError where an
    artifact in the registry is not what was registered.
    """
    start = time.monotonic()
    name = params.registry.name
    alias = CHALLENGER if version is None else None
    challenger = mlflow_store.find(paths.home, name, version=version, alias=alias)
    if challenger is None:
        wanted = "alias 'challenger'" if version is None else f"version {version}"
        raise UsageError(f"{name} has no {wanted}: run `fusionrec register` first")
    champion = mlflow_store.find(paths.home, name, alias=CHAMPION)
    notes: list[str] = []
    if champion is not None and champion.version == challenger.version:
        verify_verdict(paths.home, champion)
        return _report(challenger, [f"{name} version {challenger.version} is champion already"], start, {})
    with tempfile.TemporaryDirectory(prefix="fusionrec-gate-") as folder:
        bundles = {challenger.version: _fetch(paths, challenger, Path(folder) / "challenger")}
        if champion is not None:
            bundles[champion.version] = _fetch(paths, champion, Path(folder) / "champion")
        found = _judge(params, paths, challenger, champion, bundles)
    verdict = found | {
        "format_version": 1,
        "name": name,
        "version": challenger.version,
        "challenger": challenger.tags["bundle_digest"],
        "champion": champion.tags["bundle_digest"] if champion is not None else None,
    }
    file = record(paths.home, challenger, verdict)
    if verdict["verdict"] != "passed":
        raise GateFailed("\n".join(verdict["reasons"]))
    notes.append(
        f"{name} version {challenger.version} is champion: {verdict['metric']} {verdict['challenger_mean']:.4f} "
        f"against {verdict['opponent_mean']:.4f} of {verdict['opponent']}, p = {verdict['p']:.4f}"
    )
    return _report(challenger, notes, start, {"verdict": file.relative_to(paths.home).as_posix()})


def _fetch(paths: Paths, registered: Registered, target: Path) -> Bundle:
    """Download a version's bundle and check it against the digest in its tags before anything is opened."""
    digest = registered.tags.get("bundle_digest")
    if not digest:
        raise IntegrityError(
            f"version {registered.version} of {registered.name} has no tag bundle_digest: it was not registered by "
            "fusionrec and is not used"
        )
    target.mkdir()
    return load_bundle(mlflow_store.download(paths.home, registered, target), digest, users=False)


def _judge(
    params: Params, paths: Paths, challenger: Registered, champion: Registered | None, bundles: dict[int, Bundle]
) -> dict[str, Any]:
    spec, rule = params.evaluate, params.registry.promotion
    rules = gate.Rules(
        metric=spec.main_metric,
        k=spec.main_k,
        alpha=rule.alpha,
        min_pairs=rule.min_pairs,
        slice_floor=rule.slice_floor,
        history=("train", "valid") if spec.history == "train+valid" else ("train",),
        repeats=spec.bootstrap,
        seed=spec.seed,
    )
    data = split.load(paths, ("train", "valid", "test"))
    names = tuple(sorted(params.modalities))
    items = embeddings.load(paths, names) if names else ItemSet(ids=data.items)
    prints = {name: str(embeddings.describe(paths, name)["fingerprint"]) for name in names}
    common = gate.common_set(data, list(bundles.values()))
    ours = gate.contender(f"version {challenger.version}", bundles[challenger.version], items, prints)
    if champion is not None:
        other = gate.contender(f"champion (version {champion.version})", bundles[champion.version], items, prints)
    elif _trained_on(data, bundles[challenger.version]):
        other = gate.popularity(data.train, items, data.users)
    else:
        return {
            "verdict": "refused", "opponent": "popularity", "reasons": [
                f"not comparable: version {challenger.version} was trained on other pairs than data/splits holds, and "
                "there is no champion; check its data out (`dvc checkout`) or train again"
            ],
        }  # fmt: skip
    return gate.judge(ours, other, common, items, rules)


def _trained_on(data: split.SplitData, bundle: Bundle) -> bool:
    """Whether data/splits is what the model was fitted on, so that popularity can be fitted on the same."""
    seen = pl.concat([data.frames["train"], data.frames["valid"]])
    return bool(np.array_equal(np.unique(pair_hashes(seen[Columns.USER], seen[Columns.ITEM])), bundle.pairs))


def _report(challenger: Registered, notes: list[str], start: float, links: dict[str, str]) -> Report:
    return Report(
        "promote",
        counts={"version": challenger.version},
        seconds={"promote": time.monotonic() - start},
        links={"version": challenger.link, **links},
        notes=notes,
    )
