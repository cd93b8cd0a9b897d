"""Signed verdicts: what the gate found, bound to one version's digest, kept as tags and in ``home``/verdicts/."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusionrec.data.files import to_json, write_bytes
from fusionrec.errors import IntegrityError
from fusionrec.registry import mlflow_store
from fusionrec.registry.mlflow_store import CHAMPION, Registered
from fusionrec.registry.signing import matches, sign, verdict_key


def spell(verdict: Mapping[str, Any]) -> str:
    """The signed text: compact JSON with sorted keys."""
    return json.dumps(verdict, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def record(home: Path, registered: Registered, verdict: Mapping[str, Any]) -> Path:
    """Sign a verdict, keep it, and, where it says passed, move ``champion``; returns the file.

    The alias moves last, so that a champion without a verdict never exists.
    """
    text = spell(verdict)
    signature = sign(text, verdict_key(home / "keys"))
    path = home / "verdicts" / f"{registered.name}-{registered.version}.json"
    (home / "verdicts").mkdir(parents=True, exist_ok=True, mode=0o700)
    write_bytes(path, to_json({"verdict": verdict, "signature": signature}))
    passed = verdict["verdict"] == "passed"
    mlflow_store.set_tags(
        home,
        registered,
        {"verdict": text, "signature": signature, "gate": str(verdict["verdict"])},
        alias=CHAMPION if passed else None,
    )
    return path


def verify_verdict(home: Path, registered: Registered) -> dict[str, Any]:
    """The verdict of a version, if it is genuine and let it pass.

    Raises IntegrityError where there is none, where it was altered or signed with another key, where it speaks of
    another bundle or version, and where the gate refused the version.
    """
    where = f"version {registered.version} of {registered.name}"
    text, signature = registered.tags.get("verdict"), registered.tags.get("signature")
    if not text or not signature:
        raise IntegrityError(f"{where} has no verdict: it has not passed the gate; run `fusionrec promote`")
    if not matches(text, signature, verdict_key(home / "keys")):
        raise IntegrityError(f"the verdict of {where} was altered or signed with another key; the version is not used")
    verdict: dict[str, Any] = json.loads(text)
    digest = registered.tags.get("bundle_digest")
    found = (verdict.get("challenger"), verdict.get("name"), verdict.get("version"))
    if found != (digest, registered.name, registered.version):
        raise IntegrityError(
            f"the verdict of {where} speaks of another model (bundle {str(found[0])[:12]}, {found[1]} version "
            f"{found[2]}); the version is not used"
        )
    if verdict.get("verdict") != "passed":
        raise IntegrityError(f"the gate refused {where}: {'; '.join(verdict.get('reasons', []))}")
    return verdict
