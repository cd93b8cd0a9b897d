"""Let a challenger become champion, if it passes the gate (:mod:`fusionrec.registry.gate`)."""

from __future__ import annotations

import time

from fusionrec.config import Params
from fusionrec.errors import GateFailed, UsageError
from fusionrec.paths import Paths
from fusionrec.registry import guard, mlflow_store
from fusionrec.registry.mlflow_store import CHALLENGER, CHAMPION
from fusionrec.registry.verdict import PASSED, comparison, row, verify_verdict
from fusionrec.stages import judging
from fusionrec.types import Report


def run(params: Params, paths: Paths, version: int | None = None) -> Report:
    """Judge ``version`` (default: the alias ``challenger``) and move ``champion`` to it if it passes.

    A verdict that registration or an earlier call gave on the same pair of bundles is used again. Raises GateFailed (4)
    with one line per reason; UsageError where there is nothing to judge; IntegrityError where an artifact in the
    registry is not what was registered.
    """
    start = time.monotonic()
    name = params.registry.name
    alias = CHALLENGER if version is None else None
    challenger = mlflow_store.find(paths.home, name, version=version, alias=alias)
    if challenger is None:
        wanted = "alias 'challenger'" if version is None else f"version {version}"
        raise UsageError(f"{name} has no {wanted}: run `fusionrec register` first")
    report = Report("promote", counts={"version": challenger.version}, links={"version": challenger.link})
    settled = guard.settle(paths.home, name)  # what is compared with must itself be an accepted champion
    report.notes += [settled.text] if settled is not None else []
    champion = mlflow_store.find(paths.home, name, alias=CHAMPION)
    if champion is not None and champion.version == challenger.version:
        verify_verdict(paths.home, champion)
        report.notes.append(f"{name} version {challenger.version} is champion already")
    else:
        verdict = judging.judge(params, paths, challenger)
        if verdict["verdict"] != PASSED:
            raise GateFailed("\n".join(verdict["reasons"]))
        guard.move(paths.home, challenger, "fusionrec promote")
        report.table.append(row(verdict))
        report.links["verdict"] = f"verdicts/{name}-{challenger.version}.json"
        report.notes.append(f"{name} version {challenger.version} is champion: {comparison(verdict)}")
    report.seconds["promote"] = time.monotonic() - start
    return report
