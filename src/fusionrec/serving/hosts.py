"""A server on loopback is still reachable by every web page that the user opens. This keeps those pages out.

Two ways in are closed. *DNS rebinding*: a page of evil.example whose name now points to 127.0.0.1 sends
``Host: evil.example``. *Cross-site requests*: a browser names the page that asks in ``Origin`` (every request that
can change something, every WebSocket) or ``Sec-Fetch-Site`` (the others).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NAMES = ("127.0.0.1", "localhost")


class OwnOrigin:
    """ASGI middleware: 403 unless the request names this server, and comes from its own pages or from no page.

    ``port`` is the server's; a link on another site may still open a page (a navigation that only reads).
    """

    def __init__(self, app: App, port: int, names: tuple[str, ...] = NAMES) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in names} | ({*names} if port == 80 else set())
        self.origins = {f"http://{host}" for host in self.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        why = self.refusal(scope)
        if why is None:
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close", "code": 1008, "reason": why})
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": f"{why}\n".encode()})

    def refusal(self, scope: Scope) -> str | None:
        """Why a request is refused, None where it is welcome."""
        seen: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            seen.setdefault(name.lower(), []).append(value.decode("latin-1"))
        hosts, origins = seen.get(b"host", []), seen.get(b"origin", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return "this server answers to 127.0.0.1 and localhost only"
        if any(origin.lower() not in self.origins for origin in origins):
            return "another site's page may not talk to this server"
        site, mode = seen.get(b"sec-fetch-site", [""])[0], seen.get(b"sec-fetch-mode", [""])[0]
        if site == "cross-site" and not (mode == "navigate" and scope.get("method") in ("GET", "HEAD")):
            return "another site's page may not talk to this server"
        return None
