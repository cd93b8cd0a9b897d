"""``python -m flows.hosted prefect|evidently --port N``: their servers, on loopback and behind our check of Origin.

Their own programs bind the same address but answer to any Host, and their WebSockets to any Origin.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fusionrec.serving.hosts import App, OwnOrigin
from fusionrec.stages.process import die_with_parent, harden


def prefect() -> App:
    """Prefect's API, services and pages; settings come from the environment."""
    from prefect.server.api.server import create_app

    app: App = create_app(final=True)
    return app


def evidently(workspace: Path) -> App:
    """Evidently's pages over a workspace folder; writing through them needs EVIDENTLY_SECRET."""
    from evidently.ui.service.app import create_app, get_config

    app: App = create_app(get_config(workspace=str(workspace)))
    return app


def run(app: App, port: int) -> None:
    """Serve until SIGINT or SIGTERM; open connections get two seconds."""
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=2)


def main(arguments: Sequence[str] | None = None) -> int:
    harden()
    die_with_parent()
    parser = argparse.ArgumentParser(prog="flows.hosted")
    parser.add_argument("server", choices=["prefect", "evidently"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workspace", type=Path)
    given = parser.parse_args(arguments)
    made: dict[str, Callable[[], App]] = {"prefect": prefect, "evidently": lambda: evidently(given.workspace)}
    run(OwnOrigin(made[given.server](), given.port), given.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
