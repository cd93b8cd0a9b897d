"""``fusionrec guard``: keep the alias ``champion`` on versions that passed (:mod:`fusionrec.registry.guard`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from fusionrec.config import Params
from fusionrec.errors import Busy, Unavailable
from fusionrec.paths import Paths
from fusionrec.registry import guard, mlflow_store
from fusionrec.registry.guard import Outcome


def through_the_server() -> None:
    """Ask the server that ``make up`` started (``FUSIONREC_MLFLOW_URL``) where MLFLOW_TRACKING_URI names no other
    place; else the database itself is asked."""
    url = os.environ.get("FUSIONREC_MLFLOW_URL", "").strip()
    if url:
        os.environ.setdefault("MLFLOW_TRACKING_URI", url)


def once(params: Params, paths: Paths) -> Outcome | None:
    """Look once; None where nothing had to be done. Unavailable (69) where MLflow does not answer."""
    return guard.settle(paths.home, params.registry.name)


def watch(
    params: Params, paths: Paths, seconds: float, say: Callable[[str], None], stop: Callable[[], bool] = lambda: False
) -> None:
    """Look every ``seconds`` until ``stop()`` (default: until a signal).

    A registry that does not answer is said once, and again when it is back; what was moved meanwhile is judged then.
    """
    name = params.registry.name
    mlflow_store.load()  # seconds that the first move would wait for
    say(f"watching the alias champion of {name} every {seconds:g} s")
    down = False
    while not stop():
        try:
            outcome = once(params, paths)
        except (Unavailable, Busy) as error:
            if not down:
                say(f"{str(error).splitlines()[0]}; trying again every {seconds:g} s")
            down = True
        else:
            if down:
                say("MLflow answers again")
            down = False
            if outcome is not None:
                say(outcome.text)
        time.sleep(seconds)
