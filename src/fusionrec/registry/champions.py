"""The ledger of champions: which versions were accepted, in which order, and which is champion now.

``home``/champions/NAME.jsonl is a journal, one JSON object a line, only ever appended to: what the alias is put back
to does not depend on what anyone can write in MLflow. Each accepted version also carries a signed tag, from which a
lost journal is written anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fusionrec.registry.mlflow_store import Registered
from fusionrec.registry.signing import matches, sign, verdict_key
from fusionrec.registry.verdict import spell

ACCEPTED, GONE = "accepted", "gone"
_KEYS = {"bundle", "generation", "name", "version"}


@dataclass(frozen=True)
class Champion:
    """An accepted version: its number and the digest of its bundle."""

    version: int
    bundle: str


@dataclass(frozen=True)
class Ledger:
    """``current``: the last accepted champion, None where there is none or its version was deleted. ``accepted``: every
    one so far, in order, repeats included."""

    current: Champion | None = None
    accepted: tuple[Champion, ...] = ()


def read(home: Path, name: str) -> Ledger:
    """The state that the journal adds up to; a line torn by a kill is passed over."""
    current: Champion | None = None
    accepted: list[Champion] = []
    for event in events(home, name):
        if event.get("event") == ACCEPTED:
            current = Champion(int(event["version"]), str(event["bundle"]))
            accepted.append(current)
        elif event.get("event") == GONE:
            current = None
    return Ledger(current, tuple(accepted))


def events(home: Path, name: str) -> list[dict[str, Any]]:
    """Everything that was recorded, oldest first: accepted, refused, restored, repaired, gone."""
    try:
        text = _file(home, name).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found


def append(home: Path, name: str, event: Mapping[str, Any]) -> None:
    """Add one event with the time; on disk when this returns."""
    path = _file(home, name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    line = json.dumps({"at": now(), **event}, ensure_ascii=False, sort_keys=True) + "\n"
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":  # a line that a kill tore
            line = "\n" + line
        file.write(line.encode("utf-8"))
        os.fsync(file.fileno())


def now() -> str:
    """The time for tags and events: UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def acceptance(home: Path, champion: Champion, name: str, generation: int) -> dict[str, str]:
    """The signed tags of an accepted version; ``generation`` counts the champions from 1."""
    text = spell({"name": name, "version": champion.version, "bundle": champion.bundle, "generation": generation})
    return {"acceptance": text, "acceptance_signature": sign(text, verdict_key(home / "keys"))}


def recover(home: Path, name: str, versions: Iterable[Registered]) -> Ledger:
    """Write a lost journal anew from the genuine signed tags of ``versions``; the ledger that it adds up to.

    Nothing is written where no version carries such a tag.
    """
    key = verdict_key(home / "keys")
    found: list[tuple[int, Champion]] = []
    for version in versions:
        text, signature = version.tags.get("acceptance", ""), version.tags.get("acceptance_signature", "")
        if not text or not matches(text, signature, key):
            continue
        told = json.loads(text)
        if set(told) != _KEYS or (told["name"], told["version"]) != (name, version.version):
            continue
        found.append((int(told["generation"]), Champion(version.version, str(told["bundle"]))))
    for _, champion in sorted(found, key=lambda pair: pair[0]):
        append(home, name, {
            "event": ACCEPTED, "version": champion.version, "bundle": champion.bundle, "by": "the version's signed tag",
        })  # fmt: skip
    return read(home, name)


def _file(home: Path, name: str) -> Path:
    return home / "champions" / f"{name}.jsonl"
