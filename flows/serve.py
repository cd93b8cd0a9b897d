"""``python -m flows.serve``: every deployment from one process, for a running Prefect server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from flows import changes, environment, stages
from flows import monitor as monitor_module
from flows import pipeline as pipeline_module
from flows import tune as tune_module
from flows.sweep import TAG
from fusionrec.errors import Unavailable
from fusionrec.stages.process import die_with_parent

WAIT_SECONDS = 170.0


@dataclass(frozen=True)
class Served:
    """One deployment: its name in Prefect, its flow, and a schedule (cron in UTC) that is there but paused."""

    name: str
    flow: Any
    schedule: tuple[str, str] | None = None  # slug, cron


def served() -> list[Served]:
    """Every deployment; prefect.yaml names the same."""
    return [
        Served("pipeline", pipeline_module.pipeline, ("nightly", "0 3 * * *")),
        *(Served(name, getattr(stages, name)) for name in stages.ABOUT),
        Served("register", stages.register),
        Served("monitor", monitor_module.monitor, ("daily", "0 6 * * *")),
        Served("tune", tune_module.tune),
        Served("promote", changes.promote),
        Served("use-recipe", changes.use_recipe),
    ]


def deployments(active: Callable[[str, str], bool] = lambda name, slug: False) -> list[Any]:
    """As Prefect's deployments; ``active`` says of a schedule whether somebody has switched it on."""
    from prefect.schedules import Cron

    made = []
    for one in served():
        schedules = []
        if one.schedule:
            slug, cron = one.schedule
            schedules = [Cron(cron, timezone="UTC", slug=slug, active=active(one.name, slug))]
        made.append(one.flow.to_deployment(one.name, tags=[TAG], concurrency_limit=1, schedules=schedules or None))
    return made


def switched_on() -> Callable[[str, str], bool]:
    """Schedules that are active on the server now: serving again must not switch them off."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    found = set()
    with get_client(sync_client=True) as client:
        for one in served():
            if one.schedule:
                try:
                    known = client.read_deployment_by_name(f"{one.flow.name}/{one.name}")
                except ObjectNotFound:
                    continue
                found |= {(one.name, schedule.slug) for schedule in known.schedules if schedule.active}
    return lambda name, slug: (name, slug) in found


def wait_for_server() -> None:
    """Until PREFECT_API_URL answers; nothing where it is not set (Prefect then has an API of its own)."""
    url = os.environ.get("PREFECT_API_URL")
    deadline = time.monotonic() + WAIT_SECONDS
    while url:
        try:
            if httpx.get(f"{url}/health", timeout=2.0, trust_env=False).status_code < 500:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise Unavailable(f"Prefect at {url} did not answer within {WAIT_SECONDS:.0f} s")
        time.sleep(0.2)


def main() -> None:
    """Serve until stopped."""
    from prefect import serve

    from flows import automations

    page = os.environ.get(environment.PAGE_URL)
    if page:  # under `up`, which is this process's parent
        die_with_parent()
    made_before = served()  # the slow imports, while the server starts
    wait_for_server()
    if page:
        from flows.api import Api
        from flows.sweep import forget, sweep

        with Api(os.environ["PREFECT_API_URL"].removesuffix("/api")) as api:
            swept = sweep(api, "its process was gone when `fusionrec up` started")
        forget(environment.find().home, swept)
        print(f"{len(made_before)} deployments; {len(swept)} stale runs ended", flush=True)
    automations.ensure()
    serve(*deployments(switched_on()), limit=4, pause_on_shutdown=not page)  # `up` does it itself, quicker


if __name__ == "__main__":
    main()
