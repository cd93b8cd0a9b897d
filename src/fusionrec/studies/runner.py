"""Units of a benchmark as child processes: bounded threads and time, each result one atomic file, none done twice.

A unit that crashes, runs out of memory or takes too long ends alone and is told as failed; the run goes on. What is
stored is used again as long as it was computed with the same code and no more time, and, where it was cut short, with
as much time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusionrec.data.files import write_json
from fusionrec.errors import ConfigError
from fusionrec.studies.contestants import Contestant
from fusionrec.studies.protocol import Rules
from fusionrec.studies.space import digest
from fusionrec.studies.unit import FORMAT_VERSION, code_digest, kinds

GRACE = 120.0
"""Seconds beyond the minutes of a unit, for what cannot be ended early: reading, a closed form, the evaluation."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


@dataclass
class Runner:
    """Runs units of one folder under some rules; ``state`` is where they are kept. Safe to use from several threads.

    ``any_code``: use stored units of other code too; ``compute``: else a unit that is not stored is refused."""

    folder: Path
    rules: Rules
    state: Path
    minutes: float = 15.0
    threads: int = 1
    grace: float = GRACE
    any_code: bool = False
    compute: bool = True
    say: Callable[[str], None] = lambda text: None
    computed: int = 0
    _live: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def run(self, who: Contestant, what: str, seed: int) -> dict[str, Any]:
        """The result of one unit, ``what`` in valid, test; from its file where it is there. Look at ``status``.

        Raises ConfigError where it is not there and not to be computed."""
        sections = who.sections()
        identity = {"model": sections, "seed": seed, "what": what, "rules": self.rules.model_dump(mode="json")}
        code = self.code(who)
        folder = self.state / who.label
        name = f"{what}-{seed}-{digest(sections)[:16]}"
        path = folder / f"{name}.json"
        kept = self._kept(path, code)
        if kept is None and not self.compute:
            raise ConfigError(f"{who.label}: {what} with seed {seed} is not among the kept units: found no {path}")
        if kept is None:
            (folder / f"{name}.log").parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            job = {
                "folder": str(self.folder.resolve()),
                "rules": identity["rules"],
                "model": sections,
                "seed": seed,
                "what": what,
                "minutes": self.minutes,
                "checkpoints": str((folder / f"{name}-{code[:8]}.checkpoints").resolve()),
                "fits": str((self.state / "fits").resolve()),
                "threads": self.threads,
                "out": str(path.resolve()),
                "parent": os.getpid(),
                "code": code,
                "identity": {**identity, "code": code, "threads": self.threads},
            }
            kept = self._child(job, folder / name, path)
            self.computed += 1
            self.say(f"{who.label}: {what} with seed {seed}: {_told(kept)}")
        return kept

    def code(self, who: Contestant) -> str:
        """The digest of the code that a model's units come from; the same for all where any code will do."""
        return "any" if self.any_code else code_digest(kinds(who.sections()))

    def stop(self) -> None:
        """End every child; units that were running are repeated another time."""
        with self._lock:
            self._stopped = True
            for child in self._live:
                child.kill()

    def _kept(self, path: Path, code: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if found.get("status") != "done" or found.get("format_version") != FORMAT_VERSION:
            return None
        if not self.any_code and found.get("code") != code:
            return None
        if found["capped"] and found["minutes"] < self.minutes:
            return None
        took = found["seconds"]["fit"] - found["seconds"]["of it done before"]
        return None if took > 60 * self.minutes + self.grace else found

    def _child(self, job: Mapping[str, Any], stem: Path, path: Path) -> dict[str, Any]:
        path.unlink(missing_ok=True)
        request, log = stem.with_name(f"{stem.name}.job"), stem.with_name(f"{stem.name}.log")
        write_json(request, job)
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(self.threads))}
        command = [
            sys.executable,
            "-P",
            "-m",
            "fusionrec.studies.unit",
            str(request),
        ]  # -P: no modules of the working directory
        with open(log, "wb") as noise:
            with self._lock:
                if self._stopped:
                    raise KeyboardInterrupt
                child = subprocess.Popen(command, env=environment, stdout=noise, stderr=noise, stdin=subprocess.DEVNULL)
                self._live.add(child)
            try:
                code = child.wait(60 * self.minutes + self.grace)
            except subprocess.TimeoutExpired:
                return self._failed(path, job, f"TimeoutError: not done after {60 * self.minutes + self.grace:.0f} s")
            finally:
                child.kill()
                child.wait()
                with self._lock:
                    self._live.discard(child)
        if self._stopped:
            raise KeyboardInterrupt
        if code == 0 and path.is_file():
            for leftover in (request, log):
                leftover.unlink(missing_ok=True)
            return dict(json.loads(path.read_text(encoding="utf-8")))
        last = next(iter(reversed(log.read_text(encoding="utf-8", errors="replace").strip().splitlines())), "")
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        where = log.relative_to(self.state.parent)
        return self._failed(path, job, f"{how}: {last[:400]} (its output: {where} below {self.state.parent.name})")

    def _failed(self, path: Path, job: Mapping[str, Any], reason: str) -> dict[str, Any]:
        out = {**job["identity"], "format_version": FORMAT_VERSION, "status": "failed", "reason": reason}
        write_json(path, out)
        return out


def _told(result: Mapping[str, Any]) -> str:
    if result["status"] != "done":
        return str(result["reason"])
    cut, seconds = ", cut short" if result["capped"] else "", result["seconds"]
    before = seconds["of it done before"]
    done = f", {before:.0f} s of it done before" if before else ""
    return f"validation Recall@20 {result['valid']:.4f} in {seconds['fit'] + seconds['evaluate']:.0f} s{done}{cut}"
