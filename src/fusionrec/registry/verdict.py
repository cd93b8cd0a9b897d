"""Signed verdicts: what the gate found, bound to one version's digest, kept as tags and in ``home``/verdicts/."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusionrec.data.files import to_json, write_bytes
from fusionrec.errors import IntegrityError
from fusionrec.registry import mlflow_store
from fusionrec.registry.mlflow_store import Registered
from fusionrec.registry.signing import matches, sign, verdict_key

PASSED, REFUSED = "passed", "refused"


def spell(signed: Mapping[str, Any]) -> str:
    """The signed text: compact JSON with sorted keys."""
    return json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def record(home: Path, registered: Registered, verdict: Mapping[str, Any]) -> Path:
    """Sign a verdict, keep it under ``home`` and in the version's tags; returns the file. No alias moves."""
    text = spell(verdict)
    signature = sign(text, verdict_key(home / "keys"))
    path = _file(home, registered.name, registered.version)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_bytes(path, to_json({"verdict": verdict, "signature": signature}))
    mlflow_store.set_tags(home, registered, {"verdict": text, "signature": signature, **readable(verdict)})
    return path


def readable(verdict: Mapping[str, Any]) -> dict[str, str]:
    """The tags for people: ``gate``, ``gate_reason``, and the numbers where there are any."""
    tags = {"gate": str(verdict["verdict"]), "gate_reason": "; ".join(verdict["reasons"]) or comparison(verdict)}
    if "p" in verdict:
        tags |= {"gate_metric": comparison(verdict), "gate_p": f"{verdict['p']:.4f}"}
    return tags


def comparison(verdict: Mapping[str, Any]) -> str:
    """The outcome in one line: "ndcg@20 0.1234 against 0.1100 of popularity, +0.0134 (95 % ... to ...), p = 0.0010"."""
    if "p" not in verdict:
        return "; ".join(verdict["reasons"]) or f"the same bundle as {verdict['opponent']}"
    low, high = verdict.get("low"), verdict.get("high")
    interval = f" (95 % {low:+.4f} to {high:+.4f})" if low is not None and high is not None else ""
    return (
        f"{verdict['metric']} {verdict['challenger_mean']:.4f} against {verdict['opponent_mean']:.4f} of "
        f"{verdict['opponent']}: {verdict['difference']:+.4f}{interval}, p = {verdict['p']:.4f}, "
        f"{verdict['users']} users"
    )


def row(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict as one row for people."""
    numbers = ("challenger_mean", "opponent_mean", "difference", "low", "high", "p", "users")
    return {
        "version": verdict["version"],
        "gate": verdict["verdict"],
        "against": verdict["opponent"],
        "metric": verdict.get("metric", ""),
        **{key.removesuffix("_mean"): "" if verdict.get(key) is None else verdict[key] for key in numbers},
    }


def genuine(home: Path, registered: Registered) -> dict[str, Any]:
    """The verdict of a version, whatever it says, if it is ours and speaks of this very version.

    Raises IntegrityError where there is none, where it was altered or signed with another key, and where it speaks of
    another bundle or version.
    """
    where = f"version {registered.version} of {registered.name}"
    text, signature = registered.tags.get("verdict"), registered.tags.get("signature")
    if not text or not signature:
        raise IntegrityError(f"{where} has no verdict: it has not passed the gate; run `fusionrec promote`")
    if not matches(text, signature, verdict_key(home / "keys")):
        raise IntegrityError(f"the verdict of {where} was altered or signed with another key; the version is not used")
    verdict: dict[str, Any] = json.loads(text)
    found = (verdict.get("challenger"), verdict.get("name"), verdict.get("version"))
    if found != (registered.tags.get("bundle_digest"), registered.name, registered.version):
        raise IntegrityError(
            f"the verdict of {where} speaks of another model (bundle {str(found[0])[:12]}, {found[1]} version "
            f"{found[2]}); the version is not used"
        )
    return verdict


def verify_verdict(home: Path, registered: Registered) -> dict[str, Any]:
    """:func:`genuine`, and it let the version pass; IntegrityError with the gate's reasons where it did not."""
    verdict = genuine(home, registered)
    if verdict.get("verdict") != PASSED:
        where = f"version {registered.version} of {registered.name}"
        raise IntegrityError(f"the gate refused {where}: {'; '.join(verdict.get('reasons', []))}")
    return verdict


def kept(home: Path, name: str, version: int) -> dict[str, str] | None:
    """The tags ``verdict``, ``signature`` and ``bundle_digest`` from the copy under ``home``; None without a genuine
    one."""
    try:
        held = json.loads(_file(home, name, version).read_text(encoding="utf-8"))
        text, signature = spell(held["verdict"]), str(held["signature"])
        digest = str(held["verdict"]["challenger"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not matches(text, signature, verdict_key(home / "keys")):
        return None
    return {"verdict": text, "signature": signature, "bundle_digest": digest}


def of_bundle(home: Path, name: str, digest: str) -> dict[str, Any] | None:
    """The newest verdict kept under ``home`` about a bundle, for reports that do not ask MLflow."""
    numbers = sorted(
        (int(p.stem.rpartition("-")[2]) for p in (home / "verdicts").glob(f"{name}-*.json")
         if p.stem.rpartition("-")[0] == name and p.stem.rpartition("-")[2].isdecimal()),
        reverse=True,
    )  # fmt: skip
    for number in numbers:
        held = kept(home, name, number)
        if held is not None and held["bundle_digest"] == digest:
            found: dict[str, Any] = json.loads(held["verdict"])
            return found
    return None


def _file(home: Path, name: str, version: int) -> Path:
    return home / "verdicts" / f"{name}-{version}.json"
