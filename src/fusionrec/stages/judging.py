"""Judging a registered version against the champion: what ``register`` and ``promote`` share. No alias moves here."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fusionrec.config import Params
from fusionrec.data import split
from fusionrec.data.files import write_bytes
from fusionrec.embeddings import base as embeddings
from fusionrec.errors import ConfigError, IntegrityError
from fusionrec.evaluation import changes
from fusionrec.paths import Paths
from fusionrec.ranking import frame
from fusionrec.registry import description, gate, mlflow_store
from fusionrec.registry.bundle import Bundle, load_bundle, pair_hashes
from fusionrec.registry.mlflow_store import CHAMPION, Registered
from fusionrec.registry.sealed import sha256_file
from fusionrec.registry.verdict import PASSED, genuine, record
from fusionrec.types import Columns, ItemSet

PARTS = ("train", "valid", "test")
RECORD, COMPARISON = "record.json", "comparison.html"
PAGES = {"Report with pictures": "report.html", "Beside the champion": COMPARISON, "Model card": "model_card.md"}


def judge(params: Params, paths: Paths, challenger: Registered) -> dict[str, Any]:
    """The signed verdict on a version against the present champion, or against popularity where there is none.

    A verdict on the same two bundles by the same rules on the same splits is taken as it is; else the gate judges
    (:mod:`fusionrec.registry.gate`), and the verdict is recorded in the version's tags and description. Raises
    IntegrityError where an artifact in the registry is not what was registered, ConfigError where one is of a format
    that is not read here.
    """
    champion = mlflow_store.find(paths.home, params.registry.name, alias=CHAMPION)
    rules = _rules(params)
    frame = {
        "format_version": 1,
        "name": params.registry.name,
        "version": challenger.version,
        "challenger": _digest(challenger),
        "champion": None if champion is None else _digest(champion),
        "rules": {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(rules).items()},
        "splits": _splits(paths),
    }
    known = _known(paths, challenger)
    if known is not None and all(known.get(key) == value for key, value in frame.items()):
        return known
    with tempfile.TemporaryDirectory(prefix="fusionrec-gate-") as folder:
        ours = fetch(paths, challenger, Path(folder) / "challenger")
        theirs = None if champion is None else _champion(paths, champion, Path(folder) / "champion")
        found = _compare(params, paths, rules, (challenger, ours), champion, theirs) | frame
        changed = None if theirs is None else description.changes(description.facts(ours), description.facts(theirs))
    record(paths.home, challenger, found)
    _comparison(paths, challenger, champion, found)
    pages = mlflow_store.pages(paths.home, challenger, PAGES)
    mlflow_store.describe(paths.home, challenger, description.describe(found, changed, pages))
    return found


def fetch(paths: Paths, registered: Registered, target: Path) -> Bundle:
    """Download a version's bundle and check it against the digest in its tags before anything is opened."""
    digest = _digest(registered)
    target.mkdir()
    return load_bundle(mlflow_store.download(paths.home, registered, target), digest, users=False)


def _champion(paths: Paths, champion: Registered, target: Path) -> Bundle:
    try:
        return fetch(paths, champion, target)
    except ConfigError as error:  # training again mends the challenger alone
        raise ConfigError(
            f"version {champion.version}, the champion, cannot be compared with: {error}; or delete version "
            f"{champion.version} in MLflow, and the next version is judged against popularity"
        ) from None


def _comparison(paths: Paths, challenger: Registered, champion: Registered | None, verdict: dict[str, Any]) -> None:
    """A page that sets the two versions side by side, where both recorded what it takes."""
    versions = [challenger] if champion is None else [challenger, champion]
    held = [mlflow_store.read_file(paths.home, version, RECORD) for version in versions]
    try:
        records = [changes.load(data) for data in held if data is not None]
    except IntegrityError:
        return
    if len(records) == len(versions):
        names = (f"version {champion.version}" if champion is not None else "nothing", f"version {challenger.version}")
        page = changes.render(changes.compare(records[1] if len(records) > 1 else None, records[0], verdict, names))
        mlflow_store.write_file(paths.home, challenger, COMPARISON, page.decode("utf-8"))
        write_bytes(paths.home / "docs" / COMPARISON, page)  # the start page leads to the newest one


def _digest(registered: Registered) -> str:
    digest = registered.tags.get("bundle_digest")
    if not digest:
        raise IntegrityError(
            f"version {registered.version} of {registered.name} has no tag bundle_digest: it was not registered by "
            "fusionrec and is not used"
        )
    return digest


def _known(paths: Paths, challenger: Registered) -> dict[str, Any] | None:
    try:
        return genuine(paths.home, challenger)
    except IntegrityError:
        return None


def _rules(params: Params) -> gate.Rules:
    spec, rule = params.evaluate, params.registry.promotion
    return gate.Rules(
        metric=spec.main_metric,
        k=spec.main_k,
        alpha=rule.alpha,
        min_pairs=rule.min_pairs,
        slice_floor=rule.slice_floor,
        history=("train", "valid") if spec.history == "train+valid" else ("train",),
        repeats=spec.bootstrap,
        seed=spec.seed,
    )


def _splits(paths: Paths) -> str:
    """One digest of what the comparison is made on."""
    files = [paths.splits / f"{name}.parquet" for name in ("items", "users", *PARTS)]
    return hashlib.sha256("\n".join(sha256_file(f) for f in files if f.is_file()).encode()).hexdigest()


def _compare(
    params: Params, paths: Paths, rules: gate.Rules, ours: tuple[Registered, Bundle], champion: Registered | None,
    theirs: Bundle | None,
) -> dict[str, Any]:  # fmt: skip
    challenger, bundle = ours
    if champion is not None and theirs is not None and theirs.digest == bundle.digest:
        # the champion registered once more, e.g. because its artifacts were lost: nothing to compare
        return {"verdict": PASSED, "reasons": [], "opponent": f"champion (version {champion.version})"}
    data = split.load(paths, PARTS)
    names = tuple(sorted(params.modalities))
    items = embeddings.load(paths, names) if names else ItemSet(ids=data.items)
    prints = {name: str(embeddings.describe(paths, name)["fingerprint"]) for name in names}
    ranked = bundle.ranker is not None or (theirs is not None and theirs.ranker is not None)
    users = frame.read_users(paths) if ranked else None
    common = gate.common_set(data, [bundle] if theirs is None else [bundle, theirs])
    contender = gate.contender(f"version {challenger.version}", bundle, items, prints, users)
    if champion is not None and theirs is not None:
        other = gate.contender(f"champion (version {champion.version})", theirs, items, prints, users)
    elif _trained_on(data, bundle):
        other = gate.popularity(data.train, items, data.users)
    else:
        return {
            "verdict": "refused", "opponent": "popularity", "reasons": [
                f"not comparable: version {challenger.version} was trained on other pairs than data/splits holds, and "
                "there is no champion; check its data out (`dvc checkout`) or train again"
            ],
        }  # fmt: skip
    return gate.judge(contender, other, common, items, rules)


def _trained_on(data: split.SplitData, bundle: Bundle) -> bool:
    """Whether data/splits is what the model was fitted on, so that popularity can be fitted on the same."""
    seen = pl.concat([data.frames["train"], data.frames["valid"]])
    return bool(np.array_equal(np.unique(pair_hashes(seen[Columns.USER], seen[Columns.ITEM])), bundle.pairs))
