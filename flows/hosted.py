"""``python -m flows.hosted prefect|evidently --port N``: their servers, on loopback and behind our check of Origin.

Their own programs bind the same address but answer to any Host, and their WebSockets to any Origin. Their pages, shown
in the user's browser, would ask hosts of the outside (Prefect's an analytics service, whatever the server's settings
say); a policy header keeps them at home.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from fusionrec.serving.hosts import NAMES, App, OwnOrigin, Receive, Scope, Send
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


class AtHome:
    """ASGI middleware: the pages of ``app`` may load and ask nothing but this server (and its other name)."""

    def __init__(self, app: App, port: int) -> None:
        self.app = app
        own = " ".join(f"{scheme}://{name}:{port}" for scheme in ("http", "ws") for name in NAMES)
        self.policy = (
            f"default-src 'self'; connect-src 'self' {own}; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
            "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
            "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
        ).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"content-security-policy", self.policy),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, sending)


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
    run(OwnOrigin(AtHome(made[given.server](), given.port), given.port), given.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
