"""The registry's own guard of the alias ``champion``: whoever moves it, and however, only a passed version keeps it.

MLflow lets anyone who reaches it put any alias on any version. The guard compares the alias with the ledger of
champions (:mod:`fusionrec.registry.champions`). A version may be champion if its signed verdict is genuine, says
passed, its bundle is in the registry, and either the verdict compares it with the present champion, or the version was
champion before (a roll-back), or there is no champion. Else the alias goes back to the last accepted champion, or away
where there is none. An alias that was taken away comes back as well; who wants no champion deletes its version.

Deciding is pure (:func:`decide`), acting repeatable: every step may be cut off and is done again by the next call.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fusionrec.errors import Busy, ConfigError, GateFailed, IntegrityError, Unavailable
from fusionrec.registry import champions, description, mlflow_store, verdict
from fusionrec.registry.bundle import read_bundle_json
from fusionrec.registry.champions import Champion, Ledger
from fusionrec.registry.mlflow_store import CHAMPION, Registered

KEEP, ACCEPT, REFUSE, RESTORE, REPAIR = "keep", "accept", "refuse", "restore", "repair"
MOVED = "the alias was moved in MLflow"
_LOCK_SECONDS = 60


@dataclass(frozen=True)
class Decision:
    """What to do about the alias, and why; ``verdict`` is the genuine one where the action is to accept."""

    action: str
    reason: str = ""
    verdict: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What was done: ``event`` is accepted, refused, restored, repaired or gone; ``text`` says it to people."""

    event: str
    version: int
    text: str

    @property
    def put_back(self) -> bool:
        """Whether somebody's change was undone."""
        return self.event in ("refused", "restored", "repaired")


def decide(alias: Registered | None, ledger: Ledger, check: Callable[[Registered], Mapping[str, Any]]) -> Decision:
    """``alias``: the version it is on; ``check`` returns a version's passed verdict or raises IntegrityError."""
    current = ledger.current
    if alias is None:
        return Decision(KEEP) if current is None else Decision(RESTORE, "the alias champion was taken away")
    stays = current is not None and alias.version == current.version
    try:
        found = check(alias)
    except IntegrityError as error:
        return Decision(REPAIR if stays else REFUSE, str(error))
    here = Champion(alias.version, str(found["challenger"]))
    if here == current:
        return Decision(KEEP)
    if current is None or here in ledger.accepted or found.get("champion") == current.bundle:
        return Decision(ACCEPT, verdict=found)
    return Decision(
        REFUSE,
        f"version {alias.version} was compared with {found.get('opponent')}, and the champion is version "
        f"{current.version}: run `fusionrec promote --version {alias.version}`",
    )


def settle(home: Path, name: str, by: str = MOVED) -> Outcome | None:
    """Look at the alias once and put it right; None where there is nothing to do.

    Safe to call from several processes at once. Raises Unavailable where MLflow does not answer.
    """
    if _decide(home, name)[1].action == KEEP:
        return None
    with _alone(home):
        alias, decision, ledger = _decide(home, name, recover=True)
        return _act(home, name, alias, decision, ledger, by)


def inspect(home: Path, name: str) -> Decision:
    """What :func:`settle` would do; changes nothing."""
    return _decide(home, name)[1]


def move(home: Path, registered: Registered, by: str) -> None:
    """Move ``champion`` to a judged version and record it. GateFailed where the champion has changed meanwhile."""
    with _alone(home):
        fresh = mlflow_store.find(home, registered.name, version=registered.version)
        ledger = champions.read(home, registered.name)
        decision = decide(fresh, ledger, lambda version: verdict.verify_verdict(home, version))
        if fresh is None or decision.action not in (ACCEPT, KEEP):
            raise GateFailed(decision.reason or f"version {registered.version} was deleted")
        mlflow_store.set_alias(home, fresh.name, CHAMPION, fresh.version)
        if decision.verdict is not None:
            _accept(home, fresh, decision.verdict, ledger, by)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with FileLock(home / "champion.lock", timeout=_LOCK_SECONDS, mode=0o600):
            yield
    except Timeout:
        raise Busy(f"another process has been moving the champion for {_LOCK_SECONDS} s; try again") from None


def _decide(home: Path, name: str, recover: bool = False) -> tuple[Registered | None, Decision, Ledger]:
    alias = mlflow_store.find(home, name, alias=CHAMPION)
    ledger = champions.read(home, name)
    if recover and alias is not None and not ledger.accepted:
        ledger = champions.recover(home, name, mlflow_store.versions(home, name))
    return alias, decide(alias, ledger, lambda version: verdict.verify_verdict(home, version)), ledger


def _act(
    home: Path, name: str, alias: Registered | None, decision: Decision, ledger: Ledger, by: str
) -> Outcome | None:
    if alias is None:
        return None if ledger.current is None else _restore(home, name, ledger.current, decision.reason)
    if decision.verdict is not None:
        try:
            _has_bundle(home, alias, str(decision.verdict["challenger"]))
        except IntegrityError as error:
            return _refuse(home, alias, ledger, str(error))
        return _accept(home, alias, decision.verdict, ledger, by)
    if decision.action == REPAIR and ledger.current is not None and _repair(home, alias, ledger.current):
        champions.append(home, name, {"event": "repaired", "version": alias.version, "reason": decision.reason})
        text = f"version {alias.version} of {name} is champion and got its signed tags back: {decision.reason}"
        return Outcome("repaired", alias.version, text)
    return None if decision.action == KEEP else _refuse(home, alias, ledger, decision.reason)


def _accept(home: Path, alias: Registered, found: Mapping[str, Any], ledger: Ledger, by: str) -> Outcome:
    champion = Champion(alias.version, str(found["challenger"]))
    before = ledger.current.version if ledger.current is not None else None
    what = "a roll-back" if champion in ledger.accepted else verdict.comparison(found)
    _tag(home, alias, {
        "champion_event": f"accepted {champions.now()} ({by}): {what}",
        **verdict.readable(found),
        **champions.acceptance(home, champion, alias.name, len(ledger.accepted) + 1),
    })  # fmt: skip
    _head(home, alias, description.accepted(champions.now()))
    champions.append(home, alias.name, {
        "event": champions.ACCEPTED, "version": champion.version, "bundle": champion.bundle, "before": before, "by": by,
    })  # fmt: skip
    after = f" after version {before}" if before is not None else ""
    text = f"version {alias.version} of {alias.name} is champion{after} ({by}): {what}"
    return Outcome("accepted", alias.version, text)


def _refuse(home: Path, alias: Registered, ledger: Ledger, reason: str) -> Outcome | None:
    """Tag the version, then put the alias back: cut off between the two, it is done again."""
    target = _restorable(home, alias.name, ledger.current)
    if target is not None and target.version == alias.version:
        target = None
    done = f"put back on version {target.version}" if target is not None else "removed"
    _tag(home, alias, {
        "gate": verdict.REFUSED,
        "gate_reason": reason,
        "champion_event": f"refused {champions.now()}: the alias champion was {done}: {reason}",
    })  # fmt: skip
    again = mlflow_store.find(home, alias.name, alias=CHAMPION)
    if again is not None and again.version != alias.version:
        _, decision, now = _decide(home, alias.name)  # moved on while we looked: that move is judged by itself
        return _act(home, alias.name, again, decision, now, MOVED)
    mlflow_store.set_alias(home, alias.name, CHAMPION, None if target is None else target.version)
    _head(home, alias, description.refused(reason))  # the alias does not wait for it
    champions.append(home, alias.name, {
        "event": "refused", "version": alias.version, "reason": reason, "back_to": target and target.version,
    })  # fmt: skip
    if target is None and ledger.current is not None:
        champions.append(home, alias.name, {"event": champions.GONE, "version": ledger.current.version})
    text = f"the alias champion on version {alias.version} of {alias.name} was {done}: {reason}"
    return Outcome("refused", alias.version, text)


def _tag(home: Path, registered: Registered, tags: Mapping[str, str]) -> None:
    """Write what differs: each tag is a request, and the alias waits."""
    mlflow_store.set_tags(home, registered, {k: v for k, v in tags.items() if registered.tags.get(k) != v})


def _head(home: Path, registered: Registered, line: str) -> None:
    """Let the version's description begin with what its tag ``gate`` says now."""
    told = mlflow_store.description(home, registered)
    if (wanted := description.headed(told, line)) != told:
        mlflow_store.describe(home, registered, wanted)


def _restore(home: Path, name: str, current: Champion, reason: str) -> Outcome:
    target = _restorable(home, name, current)
    if target is None:
        champions.append(home, name, {"event": champions.GONE, "version": current.version})
        text = f"version {current.version} of {name}, the champion, is not there any more: there is no champion now"
        return Outcome("gone", current.version, text)
    mlflow_store.set_alias(home, name, CHAMPION, target.version)
    mlflow_store.set_tags(home, target, {"champion_event": f"restored {champions.now()}: {reason}"})
    champions.append(home, name, {"event": "restored", "version": target.version, "reason": reason})
    return Outcome("restored", target.version, f"version {target.version} of {name} is champion again: {reason}")


def _restorable(home: Path, name: str, current: Champion | None) -> Registered | None:
    """The last accepted champion, if its version is still there and still verifies, if need be after a repair."""
    found = None if current is None else mlflow_store.find(home, name, version=current.version)
    if current is None or found is None:
        return None
    try:
        whole = verdict.verify_verdict(home, found)["challenger"] == current.bundle
    except IntegrityError:
        whole = False
    return found if whole or _repair(home, found, current) else None


def _repair(home: Path, registered: Registered, current: Champion) -> bool:
    """Write the champion's signed tags again from the copy under ``home``, if its bundle is still the accepted one."""
    held = verdict.kept(home, registered.name, registered.version)
    if held is None or held["bundle_digest"] != current.bundle:
        return False
    try:
        _has_bundle(home, registered, current.bundle)
    except IntegrityError:
        return False
    mlflow_store.set_tags(home, registered, held)
    return True


def _has_bundle(home: Path, registered: Registered, digest: str) -> None:
    """IntegrityError where the version's artifacts do not hold the bundle with this digest (its files are hashed by
    whoever loads it), Unavailable where they cannot be looked at."""
    try:
        with tempfile.TemporaryDirectory(prefix="fusionrec-guard-") as folder:
            about = read_bundle_json(mlflow_store.download_about(home, registered, Path(folder)))
    except ConfigError as error:  # of a format that nothing here reads: such a version cannot answer
        raise IntegrityError(f"version {registered.version} of {registered.name}: {error}") from None
    except OSError as error:
        raise Unavailable(f"no room to look at version {registered.version} of {registered.name}: {error}") from None
    if about["bundle"] != digest:
        raise IntegrityError(
            f"version {registered.version} of {registered.name} holds another bundle ({about['bundle'][:12]}) than its "
            f"verdict speaks of ({digest[:12]}); the version is not used"
        )
